//! The auditor: it sees the datagrams that reach a server and those that leave it, and knows what RFC 3261 makes of them.
//! It shares no code with the rules that it checks, and never looks inside.

mod answers;
mod compare;
mod debts;
mod identity;
mod requests;

use super::air::{Air, Intent};
use super::bearer::without_dot;
use super::bindings::{Bindings, canonical};
use super::names::Zone;
use super::reading::{Address, Digest, Field, Reading, address_spec, digest};
use super::rule::{Rule, Violation};
use super::scenario::{GATEWAY_PREFIX, Scenario};
use debts::{Debt, Debts};
use identity::Guard;
use requests::{names_of_invite, same_request};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use strowger::base::Instant;
use strowger::stack::Location;
use strowger::stack::settings::{Mode, Settings};

/// Which machine of §17 a request runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Invite,
    Ack,
    Cancel,
    Other(u64),
}

impl Class {
    fn of(method: &[u8]) -> Class {
        match method {
            b"INVITE" => Class::Invite,
            b"ACK" => Class::Ack,
            b"CANCEL" => Class::Cancel,
            other => Class::Other(digest(other)),
        }
    }

    fn with(self, key: u64) -> u64 {
        let mut digest = Digest::new();
        digest.number(key);
        digest.number(match self {
            Class::Invite => 1,
            Class::Ack => 2,
            Class::Cancel => 3,
            Class::Other(method) => method,
        });
        digest.finish()
    }
}

/// A request that reached a server: its server transaction, as far as the wire shows it.
struct Tx {
    class: Class,
    request: Rc<Reading>,
    /// Other bytes under the same key.
    variants: Vec<Rc<Reading>>,
    intent: Intent,
    arrived: Instant,
    sources: Vec<SocketAddr>,
    branches: Vec<usize>,
    /// Distinct finals that left: status, digest, and the To tag's digest.
    finals: Vec<(u16, u64, u64)>,
    answered: bool,
    final_at: Option<Instant>,
    /// The last moment at which somebody downstream gave a sign of life, or a branch began.
    activity: Instant,
    cancel_asked: Option<Instant>,
    cancel_taken: Option<Instant>,
    accepted_in: Option<Instant>,
    declined_in: Option<Instant>,
    /// Responses that must be passed on: status, trunk and arrival. A 180 and a 200 may be alike in all but the status.
    owed: Vec<(u16, u64, Instant)>,
    /// A copy came when the server may have forgotten the first, or from elsewhere: it may begin anew.
    reopen: bool,
    /// One of the copies can be read in two ways.
    mangled: bool,
    previous: Option<usize>,
}

/// Other bytes of one request that are kept: ACKs to the finals of several phones, and what hostile agents make of them.
const VARIANTS: usize = 16;

/// A request that left a server towards one target.
struct Branch {
    tx: usize,
    intent: Intent,
    request: Rc<Reading>,
    to: SocketAddr,
    sent: Instant,
    provisional: Option<Instant>,
    /// When the 101–199 of honest agents came, in order; before them, when it was sent. Only what the next rules ask for is kept:
    /// those of a moment ago, which may still be in the mail between the cores, and the last one before them.
    signs: Vec<Instant>,
    /// The first final that reached the server.
    outcome: Option<(u16, Instant)>,
    responses: Vec<(Rc<Reading>, Intent)>,
    cancel: Option<(Rc<Reading>, Instant)>,
    /// Refusals that came, and ACKs that left for them.
    refusals: u32,
    acks: u32,
    /// Somebody else meddled with it: what was first and what was last is not certain.
    tainted: bool,
    lost: bool,
    q: Option<u16>,
    /// Another request that left with the same branch.
    older: Option<usize>,
}

impl Branch {
    /// A 101–199 of an honest agent came.
    fn sign_of_life(&mut self, now: Instant, soon_ms: u64) {
        let first = self.settled_sign(now, soon_ms);
        self.signs.drain(..first);
        self.signs.push(now);
    }

    fn last_sign(&self) -> Instant {
        self.signs.last().copied().unwrap_or(self.sent)
    }

    /// The last one that the branch's core must have heard of, whatever is still in the mail: from here timer C runs at the least.
    fn heard_sign(&self, now: Instant, soon_ms: u64) -> Instant {
        let place = self.settled_sign(now, soon_ms);
        self.signs.get(place).copied().unwrap_or(self.sent)
    }

    fn settled_sign(&self, now: Instant, soon_ms: u64) -> usize {
        let settled = |sign: &Instant| now.ms_since(*sign) > soon_ms;
        self.signs.iter().rposition(settled).unwrap_or(0)
    }
}

/// What became of a REGISTER.
#[derive(Clone, Copy)]
enum Registered {
    At(Instant),
    /// Only the server knows.
    Unknown,
}

/// One server, as it is seen from outside.
pub(super) struct Hop {
    pub(super) settings: Arc<Settings>,
    addresses: Vec<SocketAddr>,
    transactions: Vec<Tx>,
    by_key: BTreeMap<u64, usize>,
    branches: Vec<Branch>,
    by_branch: BTreeMap<u64, usize>,
    /// The same without the method.
    by_branch_alone: BTreeMap<u64, usize>,
    /// Who sent the datagram of this turn, when nobody can read it for certain: a refusal may go there.
    suspect: Option<IpAddr>,
    /// The same for a CANCEL, which may have to ask other cores.
    suspects: BTreeMap<IpAddr, Instant>,
    /// Where requests with a branch came from.
    askers: BTreeMap<u64, Vec<SocketAddr>>,
    bindings: Bindings,
    /// Calls in which somebody has sent an INVITE that was not the caller's: its refusal may be taken for the caller's.
    spoiled: BTreeSet<u64>,
    /// By the digest of a Call-ID: between whom its requests went.
    ends: BTreeMap<u64, BTreeSet<SocketAddr>>,
    /// REGISTERs that were carried out, and when.
    registered: BTreeMap<u64, Registered>,
    /// Record-Route values that this server gave out.
    issued: BTreeSet<u64>,
    /// Addresses that may have shown that they hear this server: answers to them have no bound.
    pub(super) heard: BTreeSet<IpAddr>,
    /// Refusals of what nobody can read for certain: they may be repeated.
    refusals: BTreeSet<u64>,
    /// Branches of requests that nobody can read for certain.
    mangled: BTreeSet<u64>,
    /// Branches of requests that no honest agent sent: the honest one that comes later may be taken for a copy.
    /// With the key of the first of them.
    meddled: BTreeMap<u64, u64>,
    /// Branches that came in a CANCEL that nobody can read for certain.
    cancelled: BTreeSet<u64>,
    /// What those that can be read name of their INVITE (§9.1).
    cancels: BTreeSet<u64>,
    /// By request: datagrams that came from elsewhere, and branches that left for them.
    copies: BTreeMap<u64, (u32, u32)>,
    /// Responses that came lately and that no honest agent sent.
    foreign_responses: VecDeque<Rc<Reading>>,
    /// Mail between cores, and late timers, take so long.
    soon_ms: u64,
    zone: Arc<Zone>,
    guard: Guard,
}

impl Hop {
    fn is_stateless(&self) -> bool {
        self.settings.proxy.mode == Mode::Stateless
    }

    /// True when a message has just come from there that two readers may read differently.
    fn is_suspect(&self, address: SocketAddr, message: &Reading, now: Instant) -> bool {
        let cancel = message.is_broken() || message.method() == b"CANCEL";
        let last = self.suspects.get(&address.ip()).filter(|_| cancel);
        self.suspect == Some(address.ip()) || last.is_some_and(|at| now.ms_since(*at) <= self.soon_ms)
    }

    /// True when somebody hostile has used the branch before, for another request.
    fn is_meddled(&self, class: Class, message: &Reading) -> bool {
        let first = self.meddled.get(&class.with(message.branch));
        first.is_some_and(|key| *key != message.key)
    }

    /// True when a URI's host and port name this server.
    pub(super) fn is_own(&self, host: &[u8], port: Option<u16>) -> bool {
        let host = without_dot(host);
        let address = Address {
            user: b"",
            host,
            port,
            params: b"",
        };
        match address.socket() {
            Some(socket) => self.addresses.contains(&socket),
            None => self.settings.domains.iter().any(|d| d.eq_ignore_ascii_case(host)),
        }
    }

    /// The same for `host:port` as a Via writes it.
    fn is_own_place(&self, place: &[u8]) -> bool {
        let uri = [b"sip:", place].concat();
        Address::of(&uri).is_some_and(|a| self.is_own(a.host, a.port))
    }

    /// Incoming Max-Breadth (RFC 5393 §5.3.3).
    fn breadth(&self, came: &Reading) -> u64 {
        let most = u64::from(self.settings.proxy.max_breadth);
        came.number(Field::MaxBreadth).unwrap_or(most).min(most)
    }

    /// 64·T1.
    fn patience_ms(&self) -> u64 {
        64 * self.settings.timers.t1
    }

    fn slack_ms(&self) -> u64 {
        self.soon_ms + 100
    }

    fn find(&self, key: u64, class: Class) -> Option<usize> {
        self.by_key.get(&class.with(key)).copied()
    }

    /// A transaction and those before it with the same key, newest first.
    fn generations(&self, newest: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(newest, |tx| self.transactions[*tx].previous)
    }

    /// True when the server may have forgotten the transaction.
    fn may_be_gone(&self, tx: &Tx, now: Instant) -> bool {
        let t = &self.settings.timers;
        let kept = t.linger.min(t.t4);
        if self.is_stateless() {
            return true;
        }
        match tx.final_at {
            Some(at) => now.ms_since(at) + self.slack_ms() >= kept,
            None => tx.class != Class::Invite && now.ms_since(tx.arrived) + self.slack_ms() >= self.patience_ms().min(kept),
        }
    }

    /// True when the server must still know the branch.
    fn is_alive(&self, branch: &Branch, now: Instant) -> bool {
        let tx = &self.transactions[branch.tx];
        let slack = self.slack_ms();
        let within = |since: Instant, ms: u64| now.ms_since(since) + slack < ms;
        if branch.tainted || branch.lost || tx.reopen {
            return false;
        }
        let brief = matches!(tx.class, Class::Other(_));
        if brief && !within(tx.arrived, self.patience_ms()) {
            return false;
        }
        if tx.final_at.is_some_and(|at| !within(at, self.settings.timers.linger)) {
            return false;
        }
        if branch.cancel.as_ref().is_some_and(|(_, at)| !within(*at, self.patience_ms())) {
            return false;
        }
        match (branch.outcome, branch.provisional) {
            (Some((status, at)), _) => status / 100 == 2 && tx.class == Class::Invite && within(at, self.settings.timers.linger),
            (None, Some(_)) if tx.class == Class::Invite => within(branch.last_sign(), self.settings.timers.c),
            _ => within(branch.sent, self.patience_ms()),
        }
    }

    fn is_pending(&self, branch: usize, now: Instant) -> bool {
        let branch = &self.branches[branch];
        branch.outcome.is_none() && self.is_alive(branch, now)
    }
}

/// All servers' books, and the first rule that was broken.
pub struct Auditor {
    hops: Vec<Hop>,
    debts: Debts,
    pub violation: Option<Violation>,
}

impl Auditor {
    pub fn new(scenario: &Scenario) -> Auditor {
        let hops = scenario
            .servers
            .iter()
            .map(|plan| Hop {
                settings: Arc::clone(&plan.settings),
                addresses: plan.addresses.clone(),
                transactions: Vec::new(),
                by_key: BTreeMap::new(),
                branches: Vec::new(),
                by_branch: BTreeMap::new(),
                by_branch_alone: BTreeMap::new(),
                suspect: None,
                suspects: BTreeMap::new(),
                askers: BTreeMap::new(),
                bindings: Bindings::default(),
                ends: BTreeMap::new(),
                spoiled: BTreeSet::new(),
                registered: BTreeMap::new(),
                issued: BTreeSet::new(),
                heard: BTreeSet::new(),
                refusals: BTreeSet::new(),
                mangled: BTreeSet::new(),
                meddled: BTreeMap::new(),
                cancelled: BTreeSet::new(),
                cancels: BTreeSet::new(),
                copies: BTreeMap::new(),
                foreign_responses: VecDeque::new(),
                // A CANCEL may have to ask every core.
                soon_ms: plan.mail_ms * u64::from(plan.settings.cores) + plan.tick_ms + 2,
                zone: Arc::clone(&scenario.zone),
                guard: Guard::new(plan),
            })
            .collect();
        Auditor {
            hops,
            debts: Debts::default(),
            violation: None,
        }
    }

    pub fn complain(&mut self, rule: Rule, server: usize, detail: String, about: Option<&Reading>) {
        if self.violation.is_none() && !rule.is_awaited() {
            self.violation = Some(Violation {
                rule,
                server,
                detail,
                call_id: about.map_or(Vec::new(), |m| m.call_id().to_vec()),
            });
        }
    }

    /// A server has begun anew, after a long silence.
    pub fn restarted(&mut self, server: usize) {
        self.hops[server].guard.begin_anew();
    }

    /// A server's turn begins that no datagram has caused, but perhaps a message from another core.
    pub fn turn(&mut self, server: usize, mail: Option<(SocketAddr, &Reading)>) {
        let suspect = mail.filter(|(_, message)| message.is_broken());
        self.hops[server].suspect = suspect.map(|(from, _)| from.ip());
    }

    /// A datagram is about to be handed to a server.
    pub fn ingress(&mut self, air: &mut Air, server: usize, from: SocketAddr, message: &Rc<Reading>, intent: Intent) {
        self.settle(air, false);
        let hop = &mut self.hops[server];
        hop.suspect = None;
        if message.is_broken() || intent == Intent::Mangled {
            hop.suspect = Some(from.ip());
            hop.suspects.insert(from.ip(), air.now);
        }
        if intent != Intent::Honest {
            let class = Class::of(message.bytes.split(|b| *b == b' ').next().unwrap_or(b""));
            let place = hop.meddled.entry(class.with(message.branch));
            place.or_insert(message.key);
        }
        let readable = !message.is_broken() && intent != Intent::Mangled;
        if intent != Intent::Honest && message.bytes.starts_with(b"INVITE") {
            hop.spoiled.insert(digest(message.call_id()));
        }
        if message.bytes.starts_with(b"CANCEL") {
            match readable {
                true => hop.cancels.insert(names_of_invite(message)),
                false => hop.cancelled.insert(message.branch),
            };
        }
        if message.is_broken() {
            return;
        }
        if message.is_request() && !hop.addresses.contains(&from) {
            hop.copies.entry(same_request(message)).or_default().0 += 1;
        }
        if message.is_request() {
            self.request_in(air, server, from, message, intent);
        } else {
            self.response_in(air, server, message, intent);
        }
    }

    fn request_in(&mut self, air: &mut Air, server: usize, from: SocketAddr, message: &Rc<Reading>, intent: Intent) {
        let now = air.now;
        let hop = &mut self.hops[server];
        // What somebody has mangled on its way is mostly refused before anybody asks what it proves.
        let is_exempt = hop.is_inside(message);
        let proves = intent != Intent::Mangled && hop.guard.hear(now, message, is_exempt);
        air.statistics.proved += u64::from(proves);
        if proves {
            hop.heard.insert(from.ip());
        }
        if message.cseq().is_none_or(|(_, method)| method != message.method()) {
            hop.suspect = Some(from.ip());
            hop.suspects.insert(from.ip(), now);
        }
        let askers = hop.askers.entry(message.branch).or_default();
        if !askers.contains(&from) {
            askers.push(from);
        }
        let class = Class::of(message.method());
        if class == Class::Cancel {
            let invite = hop.find(message.key, Class::Invite);
            let all: Vec<usize> = hop.generations(invite).collect();
            for tx in all {
                hop.transactions[tx].cancel_asked.get_or_insert(now);
            }
        }
        if let Some(known) = hop.find(message.key, class) {
            let gone = hop
                .generations(Some(known))
                .any(|tx| hop.may_be_gone(&hop.transactions[tx], now));
            let tx = &mut hop.transactions[known];
            tx.mangled |= intent == Intent::Mangled;
            if !tx.sources.contains(&from) {
                tx.sources.push(from);
                tx.reopen = true;
            }
            let other = tx.request.digest != message.digest && tx.variants.iter().all(|v| v.digest != message.digest);
            if other {
                // Those that came last are those that leave next.
                if tx.variants.len() == VARIANTS {
                    tx.variants.remove(0);
                }
                tx.variants.push(Rc::clone(message));
                // A server may see by other fields that it is not a retransmission.
                tx.reopen = true;
            }
            // The server's own answers leave no memory (§8.2.7): a copy is answered anew.
            tx.reopen |= gone || (tx.final_at.is_some() && tx.branches.is_empty());
            air.statistics.absorbed += u64::from(!tx.reopen);
            return;
        }
        let intent = match hop.is_meddled(class, message) {
            true => intent.max(Intent::Hostile),
            false => intent,
        };
        let number = hop.add(class, message, from, intent, now, None);
        if intent != Intent::Honest {
            return;
        }
        let soon = now.after_ms(hop.soon_ms);
        let stateful = !hop.is_stateless();
        match class {
            Class::Ack => {
                // With the INVITE's branch it is for a refusal.
                let refusal = hop.find(message.key, Class::Invite).is_some();
                if hop.is_inside(message) && !refusal {
                    self.debts.push(soon, server, Debt::AckOn { tx: number });
                }
            }
            Class::Cancel => {
                if stateful {
                    self.debts.push(soon, server, Debt::Reply { tx: number });
                }
            }
            Class::Invite if stateful => {
                self.debts.push(soon, server, Debt::Trying { tx: number });
                let late = hop.deadline(number);
                self.debts.push(late, server, Debt::Final { tx: number });
                self.debts.push(soon, server, Debt::Targets { tx: number });
            }
            _ if stateful => {
                self.debts.push(soon, server, Debt::Reply { tx: number });
                self.debts.push(soon, server, Debt::Targets { tx: number });
            }
            _ => self.debts.push(soon, server, Debt::Reply { tx: number }),
        }
    }

    fn response_in(&mut self, air: &mut Air, server: usize, message: &Rc<Reading>, intent: Intent) {
        let now = air.now;
        let hop = &mut self.hops[server];
        if intent != Intent::Honest {
            hop.foreign_responses.truncate(7);
            hop.foreign_responses.push_front(Rc::clone(message));
            if let Some(branch) = hop.by_branch_alone.get(&message.branch) {
                hop.branches[*branch].tainted = true;
            }
        }
        let class = Class::of(message.method());
        let Some(newest) = hop.by_branch.get(&class.with(message.branch)).copied() else {
            return;
        };
        // A stateless proxy may have made the same branch for several requests.
        let number = std::iter::successors(Some(newest), |b| hop.branches[*b].older)
            .find(|b| hop.branches[*b].request.key == message.key)
            .unwrap_or(newest);
        let place = hop.branches[number].to.ip();
        hop.heard.insert(place);
        let branch = &hop.branches[number];
        if branch.request.key != message.key || intent != Intent::Honest {
            hop.branches[number].tainted = true;
        }
        let branch = &hop.branches[number];
        let alive = hop.is_alive(branch, now);
        let (tx_number, status) = (branch.tx, message.status());
        let stateless = hop.is_stateless();
        let soon = now.after_ms(hop.soon_ms);
        let tx = &mut hop.transactions[tx_number];
        let branch = &mut hop.branches[number];
        if branch.responses.iter().all(|(r, _)| r.digest != message.digest) {
            branch.responses.push((Rc::clone(message), intent));
        }
        let answers = alive && tx.intent == Intent::Honest && intent == Intent::Honest;
        // Too late: the server has forgotten the branch, or may have.
        branch.lost |= branch.outcome.is_none() && !alive;
        if status < 200 {
            if class == Class::Invite && (branch.outcome.is_none() || branch.tainted) {
                branch.provisional = Some(now);
                // §16.7 step 2: 100 does not reset timer C.
                if intent == Intent::Honest && status > 100 {
                    branch.sign_of_life(now, hop.soon_ms);
                }
                tx.activity = now;
                let over = tx.cancel_asked.is_some() || tx.final_at.is_some();
                if answers && status > 100 && !over {
                    tx.owed.push((status, message.trunk, now));
                    let debt = Debt::Copy {
                        tx: tx_number,
                        response: (status, message.trunk),
                        since: now,
                        final_one: false,
                    };
                    self.debts.push(soon, server, debt);
                }
                let end = tx.cancel_taken.is_some() || tx.accepted_in.is_some() || tx.declined_in.is_some();
                if alive && end && !stateless {
                    self.debts.push(soon, server, Debt::Cancel { branch: number });
                }
            }
            return;
        }
        let first = branch.outcome.is_none();
        if first {
            branch.outcome = Some((status, now));
            tx.activity = now;
        }
        if class != Class::Invite {
            if first && answers && tx.final_at.is_none() && status / 100 == 2 {
                tx.owed.push((status, message.trunk, now));
                let debt = Debt::Copy {
                    tx: tx_number,
                    response: (status, message.trunk),
                    since: now,
                    final_one: true,
                };
                self.debts.push(soon, server, debt);
            }
            return;
        }
        if status / 100 == 2 {
            let accepting = branch.outcome.is_some_and(|(first, _)| first / 100 == 2);
            if accepting && alive {
                tx.accepted_in.get_or_insert(now);
                if answers {
                    tx.owed.push((status, message.trunk, now));
                    let debt = Debt::Copy {
                        tx: tx_number,
                        response: (status, message.trunk),
                        since: now,
                        final_one: true,
                    };
                    self.debts.push(soon, server, debt);
                }
            }
        } else {
            branch.refusals += 1;
            let linger = hop.settings.timers.linger;
            let recent = branch
                .outcome
                .is_some_and(|(_, at)| now.ms_since(at) + linger.min(100) < linger);
            let knows = if first {
                alive
            } else {
                recent && !branch.tainted && !branch.lost
            };
            if knows && !stateless && branch.outcome.is_some_and(|(s, _)| s >= 300) {
                let debt = Debt::OwnAck {
                    branch: number,
                    count: branch.acks + 1,
                };
                self.debts.push(soon, server, debt);
            }
            if status >= 600 && alive {
                tx.declined_in.get_or_insert(now);
            }
        }
        if stateless || !first {
            return;
        }
        let ends = alive && (status / 100 == 2 || status >= 600);
        let others = hop.transactions[tx_number].branches.clone();
        if ends {
            for other in &others {
                if *other != number && hop.branches[*other].provisional.is_some() && hop.is_pending(*other, now) {
                    self.debts.push(soon, server, Debt::Cancel { branch: *other });
                }
            }
        }
        if others.iter().all(|b| hop.branches[*b].outcome.is_some()) {
            self.debts.push(soon, server, Debt::Settled { tx: tx_number });
        }
    }

    /// A server was told that `message` of its own found nobody.
    pub fn undelivered(&mut self, server: usize, message: &Reading) {
        let hop = &mut self.hops[server];
        let class = Class::of(message.method());
        if let Some(branch) = hop.by_branch.get(&class.with(message.branch)) {
            hop.branches[*branch].lost = true;
        }
    }

    pub fn is_stateless(&self, server: usize) -> bool {
        self.hops[server].is_stateless()
    }

    /// A connection to this peer is gone: what was on it, either way, may never arrive.
    pub fn flow_lost(&mut self, server: usize, peer: SocketAddr, now: Instant) {
        let hop = &mut self.hops[server];
        let soon = match hop.settings.cores {
            1 => 0,
            _ => hop.soon_ms, // what one core has received may still be in the mail when another hears of the loss
        };
        for branch in hop.branches.iter_mut().filter(|b| b.to == peer) {
            let in_the_mail = |at: Instant| now.ms_since(at) < soon;
            if branch.outcome.is_none_or(|(_, at)| in_the_mail(at)) {
                branch.lost = true;
                let owed = &mut hop.transactions[branch.tx].owed;
                owed.retain(|(_, _, since)| !in_the_mail(*since));
            }
        }
    }

    /// A datagram is about to leave a server. Returns what the next hop may expect of it.
    pub fn egress(&mut self, air: &mut Air, server: usize, to: SocketAddr, message: &Rc<Reading>, location: &Location) -> Intent {
        air.statistics.checks += 1;
        let status = message.status();
        air.statistics.looped_answers += u64::from(matches!(status, 482 | 483));
        let full = super::reading::find(&message.bytes, 0, b"503 Too Many Transactions");
        air.statistics.full += u64::from(full == Some(8));
        // A stateless proxy sends a response to where the Via below its own says (§16.11): who has been told a branch of it can
        // write there what he likes.
        let hop = &self.hops[server];
        let told = hop.is_stateless() && status > 0 && hop.is_foreign(to, message);
        if super::scenario::is_stranger(to) && !told {
            self.complain(
                Rule::NoStranger,
                server,
                format!("{} went to {to}", message.title()),
                Some(message),
            );
            return Intent::Hostile;
        }
        if message.is_broken() {
            // What a server writes from what nobody can read is not readable either, as long as it goes back.
            let hop = &self.hops[server];
            let passed = |came: &Rc<Reading>| came.trunk == message.trunk;
            let known = hop.suspects.contains_key(&to.ip()) || hop.suspect.is_some() || hop.foreign_responses.iter().any(passed);
            if !known {
                self.complain(Rule::BitForBit, server, format!("nobody can read {}", message.title()), None);
            }
            let hop = &mut self.hops[server];
            if super::reading::find(&message.bytes, 0, b"REGISTER").is_some() {
                hop.bindings.adopt(air.now, location);
                hop.guard.adopt(air.now, location);
            }
            return Intent::Mangled;
        }
        if !message.is_version_as_sent() {
            let what = format!("{} was sent", message.title());
            self.complain(Rule::Version, server, what, Some(message));
        }
        if !message.is_request() {
            self.hops[server].guard.say(air.now, message);
            return self.response_out(air, server, to, message, location);
        }
        let intent = self.request_out(air, server, to, message);
        if let Err((rule, detail)) = self.hops[server].nothing_leaks(message, intent) {
            self.complain(rule, server, detail, Some(message));
        }
        intent
    }

    /// The bindings of all servers against their location services.
    pub fn compare_bindings(&mut self, air: &mut Air, server: usize, location: &Location) {
        match self.hops[server].bindings.compare_all(air.now, location) {
            Ok(count) => air.statistics.bindings_checked += count as u64,
            Err(detail) => self.complain(Rule::Bindings, server, detail, None),
        }
    }
}

impl Hop {
    fn add(
        &mut self,
        class: Class,
        message: &Rc<Reading>,
        from: SocketAddr,
        intent: Intent,
        now: Instant,
        previous: Option<usize>,
    ) -> usize {
        self.transactions.push(Tx {
            class,
            request: Rc::clone(message),
            variants: Vec::new(),
            intent,
            arrived: now,
            sources: vec![from],
            branches: Vec::new(),
            finals: Vec::new(),
            answered: false,
            final_at: None,
            activity: now,
            cancel_asked: None,
            cancel_taken: None,
            accepted_in: None,
            declined_in: None,
            owed: Vec::new(),
            reopen: false,
            mangled: intent == Intent::Mangled,
            previous,
        });
        let number = self.transactions.len() - 1;
        self.by_key.insert(class.with(message.key), number);
        number
    }

    /// Begins a new transaction under the key of one that the server may have forgotten.
    fn renew(&mut self, old: usize, now: Instant) -> usize {
        let tx = &self.transactions[old];
        let request = tx.variants.last().unwrap_or(&tx.request);
        let (class, request, mangled) = (tx.class, Rc::clone(request), tx.mangled);
        let (sources, cancel, mut variants) = (tx.sources.clone(), tx.cancel_asked, tx.variants.clone());
        if tx.request.digest != request.digest {
            variants.retain(|variant| variant.digest != request.digest);
            variants.push(Rc::clone(&tx.request));
        }
        let new = self.add(class, &request, sources[0], Intent::Hostile, now, Some(old));
        let tx = &mut self.transactions[new];
        tx.sources = sources;
        tx.cancel_asked = cancel;
        tx.variants = variants;
        tx.mangled = mangled;
        // Two cores may each have one of them, side by side.
        tx.reopen = tx.sources.len() > 1;
        new
    }

    /// When the final response to an INVITE is due at the latest.
    fn deadline(&self, tx: usize) -> Instant {
        let mut wait = self.settings.timers.c + self.patience_ms() + self.slack_ms();
        if self.may_wait_for_name(tx) {
            // Each contact may wait for its own.
            let most = self.settings.registrar.max_contacts as u64 + 2;
            wait += most * self.settings.dns.timeout;
        }
        self.transactions[tx].activity.after_ms(wait)
    }

    /// True when the next hop of the request may be a name: it need not leave at once.
    fn may_wait_for_name(&self, tx: usize) -> bool {
        let tx = &self.transactions[tx];
        let mut copies = std::iter::once(&tx.request).chain(&tx.variants);
        copies.any(|came| {
            let uri = Address::of(came.uri());
            let gateway = uri.is_some_and(|uri| uri.user.starts_with(GATEWAY_PREFIX));
            let named = |b: &&super::bindings::Bound| self.zone.has_name(&b.uri);
            gateway || self.zone.has_name(came.uri()) || self.bound_since(came.uri(), tx.arrived).iter().any(named)
        })
    }

    /// True when a request belongs to a dialog that was recorded through this server: its first Route is one we gave out.
    fn is_inside(&self, message: &Reading) -> bool {
        message
            .values(Field::Route)
            .first()
            .is_some_and(|route| self.issued.contains(&digest(address_spec(route))))
    }

    /// True when some binding of this contact has that Path.
    pub(super) fn has_path(&self, contact: &[u8], path: &[&[u8]]) -> bool {
        self.bindings.has_path(contact, path)
    }

    /// Contacts that a request for an own address-of-record may go to.
    fn bound_since(&self, uri: &[u8], since: Instant) -> Vec<&super::bindings::Bound> {
        canonical(uri).map_or(Vec::new(), |aor| {
            let all = self.bindings.of(&aor).iter();
            all.filter(|b| b.since(since)).collect()
        })
    }
}
