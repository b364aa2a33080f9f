//! Rules broken on purpose, at the server's door: what comes in and what goes out is tampered with, so that the auditor can
//! be seen to notice. The rules themselves are not touched.

use super::addresses::stranger;
use super::bindings::address_of_record;
use super::caller::cancel_for;
use super::hashing::digest;
use super::reading::{Field, Reading};
use super::rule::Rule;
use super::text::{address_spec, find, param};
use super::writing::{line, put, replaced, request, response, with_line, without};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use strowger::base::{Channel, Flow, Instant};
use strowger::stack::Location;

/// One rule to break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A second, different final response follows each refusal of an INVITE.
    SecondFinal,
    /// One core's timers are never served again.
    LeakTransaction,
    /// The server's own ACK for a non-2xx is swallowed.
    SkipAck,
    /// The caller's ACK for a non-2xx is passed on.
    ForwardAck,
    /// Some 2xx never leave.
    LoseTwoHundred,
    /// A branch that answered is cancelled.
    CancelAnswered,
    /// No CANCEL leaves.
    KeepCancel,
    /// The caller's CANCEL is passed on as it came.
    ForwardCancel,
    ChangeBody,
    KeepMaxForwards,
    DropVia,
    RelayToStranger,
    ForgetBinding,
    /// An ACK is answered.
    AnswerAck,
    /// No refusal of an INVITE leaves.
    LoseRefusal,
    /// No 100 leaves.
    LoseTrying,
    /// What leaves says `sip/2.0`.
    SmallVersion,
    /// A provisional response that is not 100 never leaves.
    LoseRinging,
    /// A retransmission leaves with another branch.
    ForgetRetransmission,
    /// A request leaves twice by a connection.
    RepeatByStream,
    /// What leaves by a connection leaves by one that is gone.
    DeadFlow,
    /// A record stays when all is over.
    KeepRecord,
    /// Credentials that came leave with the request.
    LeakCredentials,
    /// So does an identity that a stranger asserts.
    LeakIdentity,
    /// What leaves on a stream has no Content-Length.
    LoseLength,
    /// A request that is challenged is passed on besides.
    PassUnproved,
    /// A REGISTER that is challenged is answered 200.
    BindUnproved,
    /// After a new beginning the nonces of before are good, and have not been used.
    RememberNonces,
    /// A request that is challenged though it shows a Via of ours is passed on.
    ForgetSpiral,
    /// A request with the cookie of a dialog is passed on, whoever it is from.
    ForgetDialog,
    /// An ACK leaves many times.
    ManyCopies,
    /// An ACK that belongs to no call is passed on.
    PassStrayAck,
    /// Answers of the server's own are long.
    LongAnswer,
    /// A CANCEL is heard that has nothing but the branch of its INVITE.
    CancelByBranch,
}

impl Sabotage {
    pub const ALL: &'static [Sabotage] = &[
        Sabotage::SecondFinal,
        Sabotage::LeakTransaction,
        Sabotage::SkipAck,
        Sabotage::ForwardAck,
        Sabotage::LoseTwoHundred,
        Sabotage::CancelAnswered,
        Sabotage::KeepCancel,
        Sabotage::ForwardCancel,
        Sabotage::ChangeBody,
        Sabotage::KeepMaxForwards,
        Sabotage::DropVia,
        Sabotage::RelayToStranger,
        Sabotage::ForgetBinding,
        Sabotage::AnswerAck,
        Sabotage::LoseRefusal,
        Sabotage::LoseTrying,
        Sabotage::SmallVersion,
        Sabotage::LoseRinging,
        Sabotage::ForgetRetransmission,
        Sabotage::RepeatByStream,
        Sabotage::DeadFlow,
        Sabotage::KeepRecord,
        Sabotage::LeakCredentials,
        Sabotage::LeakIdentity,
        Sabotage::LoseLength,
        Sabotage::PassUnproved,
        Sabotage::BindUnproved,
        Sabotage::RememberNonces,
        Sabotage::ForgetSpiral,
        Sabotage::ForgetDialog,
        Sabotage::ManyCopies,
        Sabotage::PassStrayAck,
        Sabotage::LongAnswer,
        Sabotage::CancelByBranch,
    ];

    /// The rules that the auditor may name for it.
    pub fn broken_rules(self) -> &'static [Rule] {
        match self {
            Sabotage::SecondFinal => &[Rule::OneFinal],
            Sabotage::LeakTransaction => &[Rule::Quiet, Rule::FinalInTime],
            Sabotage::SkipAck => &[Rule::OwnAck],
            Sabotage::ForwardAck => &[Rule::AckStaysOnHop],
            Sabotage::LoseTwoHundred => &[Rule::EveryAnswer],
            Sabotage::CancelAnswered => &[Rule::CancelReach],
            Sabotage::KeepCancel => &[Rule::CancelReach],
            Sabotage::ForwardCancel => &[Rule::CancelStaysOnHop],
            Sabotage::ChangeBody => &[Rule::BitForBit],
            Sabotage::KeepMaxForwards => &[Rule::MaxForwards],
            Sabotage::DropVia => &[Rule::ViaStack],
            Sabotage::RelayToStranger => &[Rule::NoStranger],
            Sabotage::ForgetBinding => &[Rule::Bindings],
            Sabotage::AnswerAck => &[Rule::NoAnswerToAck],
            Sabotage::LoseRefusal => &[Rule::FinalInTime],
            Sabotage::LoseTrying => &[Rule::TryingAtOnce],
            Sabotage::SmallVersion => &[Rule::Version],
            Sabotage::LoseRinging => &[Rule::EveryAnswer],
            Sabotage::ForgetRetransmission => &[Rule::OneBranch],
            Sabotage::RepeatByStream => &[Rule::ReliableRepetition],
            Sabotage::DeadFlow => &[Rule::DeadFlow],
            Sabotage::KeepRecord => &[Rule::Quiet],
            Sabotage::LeakCredentials => &[Rule::Credentials],
            Sabotage::LeakIdentity => &[Rule::AssertedIdentity],
            Sabotage::LoseLength => &[Rule::Length],
            Sabotage::PassUnproved => &[Rule::Identity],
            Sabotage::BindUnproved => &[Rule::Identity],
            Sabotage::RememberNonces => &[Rule::Identity],
            Sabotage::ForgetSpiral => &[Rule::Spiral],
            Sabotage::ForgetDialog => &[Rule::Dialog],
            Sabotage::ManyCopies => &[Rule::Copies],
            Sabotage::PassStrayAck => &[Rule::StrayAck],
            Sabotage::LongAnswer => &[Rule::AnswerSize],
            Sabotage::CancelByBranch => &[Rule::CancelReach],
        }
    }
}

/// Tampers with one server.
pub struct Saboteur {
    what: Option<Sabotage>,
    /// INVITEs that left, by the key of the caller's transaction and by branch.
    invites: BTreeMap<u64, (Flow, Rc<Reading>)>,
    /// The same by the branch that the caller gave.
    by_caller: BTreeMap<u64, (Flow, Rc<Reading>)>,
    /// Requests that came, by the key of their transaction.
    came: BTreeMap<u64, Rc<Reading>>,
    /// Digests of the Call-IDs of INVITEs that came, and of requests that left.
    calls: BTreeSet<u64>,
    /// It has asked somebody who that is.
    asks: bool,
    served: u32,
    pub deeds: u64,
}

impl Saboteur {
    pub fn new(what: Option<Sabotage>) -> Saboteur {
        Saboteur {
            what,
            invites: BTreeMap::new(),
            by_caller: BTreeMap::new(),
            came: BTreeMap::new(),
            calls: BTreeSet::new(),
            asks: false,
            served: 0,
            deeds: 0,
        }
    }

    /// True if this turn of the timers is to be left out.
    pub fn swallows_timers(&mut self, core: u8) -> bool {
        self.served += 1;
        let swallow = self.what == Some(Sabotage::LeakTransaction) && core == 0 && self.served > 200;
        self.deeds += u64::from(swallow);
        swallow
    }

    /// Records that are there in truth or in pretence.
    pub fn extra_records(&self) -> usize {
        usize::from(self.what == Some(Sabotage::KeepRecord))
    }

    /// Which run the server thinks that it begins.
    pub fn run(&self, run: u32) -> u32 {
        match self.what {
            Some(Sabotage::RememberNonces) => 1,
            _ => run,
        }
    }

    /// What leaves besides the server's own, because of what came in.
    pub fn incoming(&mut self, flow: Flow, message: &Rc<Reading>) -> Option<(Flow, Vec<u8>)> {
        let what = self.what?;
        if message.is_broken() {
            return None;
        }
        let (method, status) = (message.method(), message.status());
        if status == 0 {
            self.came.insert(message.key, Rc::clone(message));
        }
        if method == b"INVITE" {
            self.calls.insert(digest(message.call_id()));
        }
        let (to, out) = match what {
            Sabotage::ForwardAck if status == 0 && method == b"ACK" => {
                let (to, invite) = self.invites.get(&message.key)?;
                (*to, one_more_via(message, invite, b"ack"))
            }
            Sabotage::ForwardCancel if status == 0 && method == b"CANCEL" => {
                let (to, invite) = self.invites.get(&message.key)?;
                (*to, one_more_via(message, invite, b"cancel"))
            }
            Sabotage::CancelByBranch if status == 0 && method == b"CANCEL" && !self.invites.contains_key(&message.key) => {
                let (to, invite) = self.by_caller.get(&message.branch)?;
                (*to, cancel_for(invite))
            }
            Sabotage::PassStrayAck
                if status == 0
                    && method == b"ACK"
                    && message.vias.len() == 1
                    && !self.calls.contains(&digest(message.call_id())) =>
            {
                self.passed_on(message)?
            }
            Sabotage::AnswerAck if status == 0 && method == b"ACK" => {
                let mut out = response(message, 200, "OK", b"x");
                put(&mut out, &[b"Content-Length: 0\r\n\r\n"]);
                (flow, out)
            }
            Sabotage::CancelAnswered if status / 100 == 2 && method == b"INVITE" => {
                let (to, invite) = self.invites.get(&message.branch)?;
                (*to, cancel_for(invite))
            }
            _ => return None,
        };
        self.deeds += 1;
        Some((to, out))
    }

    /// Instead of one message that leaves: those in `out`, in order. True if it does not leave itself.
    pub fn outgoing(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Rc<Reading>,
        location: &Location,
        out: &mut Vec<(Flow, Vec<u8>)>,
    ) -> bool {
        let Some(what) = self.what else {
            return false;
        };
        if message.is_broken() {
            return false;
        }
        self.remember(flow, message);
        let asked = self.came.get(&message.key).cloned();
        if let Some((flow, bytes)) = asked.and_then(|asked| self.pass_refused(what, message, &asked)) {
            self.deeds += 1;
            out.push((flow, bytes));
            return true;
        }
        if self.swallows(what, message) {
            self.deeds += 1;
            return true;
        }
        if what == Sabotage::ForgetBinding {
            self.forget_binding(now, message, location);
            return false;
        }
        if self.adds(what, flow, message, out) {
            self.deeds += 1;
            return matches!(what, Sabotage::SecondFinal | Sabotage::DeadFlow);
        }
        let Some(bytes) = self.changed(what, flow, message) else {
            return false;
        };
        self.deeds += 1;
        out.push((flow, bytes));
        true
    }

    /// INVITEs that are passed on.
    fn remember(&mut self, flow: Flow, message: &Rc<Reading>) {
        if !is_forwarded(message) || message.method() != b"INVITE" {
            return;
        }
        let entry = (flow, Rc::clone(message));
        self.invites.insert(message.branch, entry.clone());
        let caller = param(message.via(1), b"branch").map_or(0, digest);
        self.by_caller.insert(caller, entry.clone());
        if let Some(key) = message.key_below() {
            self.invites.insert(key, entry);
        }
    }

    fn swallows(&self, what: Sabotage, message: &Reading) -> bool {
        let (method, status) = (message.method(), message.status());
        let invite = method == b"INVITE";
        match what {
            Sabotage::SkipAck => method == b"ACK" && status == 0 && !is_forwarded(message),
            Sabotage::KeepCancel => method == b"CANCEL" && status == 0,
            Sabotage::LoseTwoHundred => invite && status / 100 == 2 && message.key.is_multiple_of(3),
            // One that was passed on: the server's own are all that goes back for their requests.
            Sabotage::LoseRefusal => invite && status >= 300 && self.invites.contains_key(&message.key),
            Sabotage::LoseTrying => invite && status == 100,
            Sabotage::LoseRinging => invite && status > 100 && status < 200,
            _ => false,
        }
    }

    fn forget_binding(&mut self, now: Instant, message: &Reading, location: &Location) {
        if message.status() != 200 || message.method() != b"REGISTER" {
            return;
        }
        let contacts = message.values(Field::Contact);
        if let (Some(contact), Some(aor)) = (contacts.first(), address_of_record(message)) {
            location.remove(now, &aor, Some(address_spec(contact)));
            self.deeds += 1;
        }
    }

    /// Other messages besides it, or in its place. True if there are any.
    fn adds(&mut self, what: Sabotage, flow: Flow, message: &Reading, out: &mut Vec<(Flow, Vec<u8>)>) -> bool {
        let (method, status, forwarded) = (message.method(), message.status(), is_forwarded(message));
        let (invite, by_stream) = (method == b"INVITE", flow.transport.is_reliable());
        match what {
            Sabotage::ManyCopies if forwarded && method == b"ACK" => {
                for _ in 0..70 {
                    self.served += 1;
                    let fresh = format!("z9hG4bKcopy{}", self.served);
                    out.push((flow, with_branch(message, fresh.as_bytes())));
                }
            }
            Sabotage::SecondFinal if invite && status >= 300 => {
                out.push((flow, message.bytes.clone()));
                out.push((flow, another_final(message)));
            }
            Sabotage::RepeatByStream if invite && forwarded && by_stream => {
                out.push((flow, message.bytes.clone()));
            }
            Sabotage::DeadFlow if status >= 200 && by_stream => {
                let channel = Channel::Connection { slot: 8000, generation: 1 };
                out.push((Flow { channel, ..flow }, message.bytes.clone()));
            }
            Sabotage::RelayToStranger if forwarded => {
                let peer = stranger(flow.peer.is_ipv6(), 21);
                out.push((Flow { peer, ..flow }, message.bytes.clone()));
            }
            _ => return false,
        }
        true
    }

    /// Other bytes in its place.
    fn changed(&mut self, what: Sabotage, flow: Flow, message: &Reading) -> Option<Vec<u8>> {
        let (method, status, forwarded) = (message.method(), message.status(), is_forwarded(message));
        let (invite, by_stream) = (method == b"INVITE", flow.transport.is_reliable());
        let below = message.key_below().filter(|_| forwarded);
        let came = below.and_then(|key| self.came.get(&key));
        let own_answer = status >= 400 && !self.invites.contains_key(&message.key);
        match what {
            Sabotage::LeakCredentials => with_again(message, came?, &[Field::Authorization, Field::ProxyAuthorization]),
            Sabotage::LeakIdentity => with_again(message, came?, &[Field::AssertedIdentity]),
            Sabotage::LoseLength if by_stream => Some(without(message, Field::ContentLength)),
            Sabotage::BindUnproved if status == 401 && method == b"REGISTER" => Some(replaced(message, 8..11, b"200")),
            Sabotage::LongAnswer if own_answer && !by_stream => Some(with_line(message, "X-Long", &[b'x'; 4000])),
            Sabotage::ChangeBody if !message.body().is_empty() => {
                let mut bytes = message.bytes.clone();
                let last = message.body.end - 1;
                bytes[last] = bytes[last].wrapping_add(1);
                Some(bytes)
            }
            Sabotage::KeepMaxForwards if forwarded => {
                let line = message.lines.iter().find(|l| l.field == Field::MaxForwards)?;
                let number = message.number(Field::MaxForwards)? + 1;
                Some(replaced(message, line.value.clone(), number.to_string().as_bytes()))
            }
            Sabotage::SmallVersion => {
                let at = find(&message.bytes, 0, b"SIP/2.0")?;
                Some(replaced(message, at..at + 3, b"sip"))
            }
            Sabotage::DropVia if forwarded => Some(without_second_via(message)),
            Sabotage::ForgetRetransmission if forwarded && invite && !self.calls.insert(message.digest) => {
                self.served += 1;
                let fresh = format!("z9hG4bKfresh{}", self.served);
                Some(with_branch(message, fresh.as_bytes()))
            }
            _ => None,
        }
    }

    /// The request as it would leave by the way of some call.
    fn passed_on(&mut self, request: &Reading) -> Option<(Flow, Vec<u8>)> {
        let (to, invite) = self.invites.values().next()?;
        self.served += 1;
        let mark = format!("pass{}", self.served);
        Some((*to, one_more_via(request, invite, mark.as_bytes())))
    }

    /// Instead of a refusal of what somebody has not proved: the request, passed on.
    fn pass_refused(&mut self, what: Sabotage, refusal: &Reading, asked: &Reading) -> Option<(Flow, Vec<u8>)> {
        let challenged = refusal.status() == 407;
        self.asks |= challenged;
        let passes = match what {
            Sabotage::PassUnproved => challenged && asked.vias.len() == 1 && asked.count(Field::Route) == 0,
            Sabotage::ForgetSpiral => challenged && asked.vias.len() > 1,
            Sabotage::ForgetDialog => {
                let from = asked.value(Field::From).unwrap_or(b"");
                let route = asked.value(Field::Route).unwrap_or(b"");
                let has = |text, what| find(text, 0, what).is_some();
                self.asks
                    && matches!(refusal.status(), 403 | 407)
                    && asked.vias.len() == 1
                    && has(route, b";sc=")
                    && !has(from, b"mallory")
            }
            _ => false,
        };
        passes.then(|| self.passed_on(asked)).flatten()
    }
}

fn is_forwarded(message: &Reading) -> bool {
    message.is_request() && message.vias.len() > 1
}

/// `left` with those header lines of `came` that it has not.
fn with_again(left: &Reading, came: &Reading, fields: &[Field]) -> Option<Vec<u8>> {
    let mut out = left.bytes.clone();
    let at = left.lines.last()?.whole.end;
    let lines = came.lines.iter();
    let lost = lines.filter(|line| fields.contains(&line.field) && left.count(line.field) == 0);
    let text: Vec<u8> = lost.flat_map(|line| came.get(&line.whole).to_vec()).collect();
    if text.is_empty() {
        return None;
    }
    out.splice(at..at, text);
    Some(out)
}

fn with_branch(message: &Reading, fresh: &[u8]) -> Vec<u8> {
    let branch = param(message.via(0), b"branch").unwrap_or(b"");
    let at = branch.as_ptr() as usize - message.bytes.as_ptr() as usize;
    replaced(message, at..at + branch.len(), fresh)
}

fn another_final(message: &Reading) -> Vec<u8> {
    let status: &[u8] = if message.status() == 480 { b"404" } else { b"480" };
    replaced(message, 8..11, status)
}

/// `message` as a proxy would pass it on, with the Via of the INVITE's branch.
fn one_more_via(message: &Reading, invite: &Reading, mark: &[u8]) -> Vec<u8> {
    let mut out = request(message.method(), invite.uri());
    // The mark belongs to the branch, behind which parameters may stand.
    let via = invite.via(0);
    let branch = find(via, 0, b"branch=").unwrap_or(via.len());
    let end = find(via, branch, b";").unwrap_or(via.len());
    line(&mut out, "Via", &[&via[..end], mark, &via[end..]]);
    let start = message.lines.first().map_or(0, |l| l.whole.start);
    put(&mut out, &[&message.bytes[start..]]);
    out
}

fn without_second_via(message: &Reading) -> Vec<u8> {
    let mut out = Vec::new();
    let start = message.lines.first().map_or(0, |l| l.whole.start);
    put(&mut out, &[&message.bytes[..start]]);
    let mut vias = message.vias.iter().enumerate();
    let mut written = false;
    for header in &message.lines {
        if header.field != Field::Via {
            put(&mut out, &[message.get(&header.whole)]);
        } else if !written {
            written = true;
            for (n, via) in vias.by_ref() {
                if n != 1 {
                    line(&mut out, "Via", &[message.get(via)]);
                }
            }
        }
    }
    put(&mut out, &[b"\r\n", message.body()]);
    out
}
