//! Calls: INVITE, 100, 180, 200, ACK, BYE, 200 (RFC 3261 §12, §13, §15), as their caller has them; the answerer's half is told what the caller
//! knows. Where the proxy challenges, INVITE, 407 and ACK come before it (§22.3).

use std::mem;
use std::rc::Rc;

use crate::answerer::{Answerers, Asked};
use crate::digest::{Asker, Carried, Credentials, Request};
use crate::flow::{Flow, Turn};
use crate::identity::{Identity, Run, TOKEN, tag};
use crate::message::{self, Message};
use crate::parties::Parties;
use crate::stats::{Count, Mark, Span, Stats};
use crate::template::{Fill, branch_letter};
use crate::timers::{Awaited, Delay, GIVE_UP_NS, Timers};
use crate::wire::{Link, Outbox, Side};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    #[default]
    Free,
    /// INVITE sent, nothing heard.
    Calling,
    /// A provisional response came.
    Proceeding,
    /// ACK sent; the BYE waits for the hold time to pass.
    Holding,
    /// ACK and BYE sent.
    Ending,
}

#[derive(Default)]
struct Call {
    generation: u32,
    state: State,
    mark: Mark,
    /// A message of it failed a check.
    spoiled: bool,
    /// When the 100, the 180 and the 200 came first; 0 for those that did not.
    heard_ns: [u64; 3],
    /// 0, or 1 for the INVITE that answers a challenge: its CSeq and its branch are others.
    attempt: u8,
    carried: Carried,
    link: Link,
    caller: u32,
    callee: u32,
    scheduled_ns: u64,
    started_ns: u64,
    bye_ns: u64,
    texts: Texts,
}

/// What a call may have to send again. The memory serves one call after the other.
#[derive(Default)]
struct Texts {
    /// The line that answers the challenge; empty without.
    credentials: Vec<u8>,
    ack: Vec<u8>,
    bye: Vec<u8>,
}

pub struct Calls {
    run: Run,
    parties: Rc<Parties>,
    /// The users as challenged ones; without it a challenge is a refusal.
    credentials: Option<Credentials>,
    callers: Vec<u32>,
    answerers: Answerers,
    calls: Vec<Call>,
    free: Vec<u32>,
    limit: usize,
    timers: Timers,
    /// Between ACK and BYE.
    holding: Delay,
    next_callee: u32,
    next_caller: usize,
    route: Vec<u8>,
    uri: Vec<u8>,
}

impl Calls {
    pub fn new(
        run: Run,
        parties: Rc<Parties>,
        credentials: Option<Credentials>,
        limit: usize,
        (ring_ns, hold_ns): (u64, u64),
    ) -> Calls {
        Calls {
            run,
            credentials,
            callers: parties.of(Side::Caller),
            answerers: Answerers::new(Rc::clone(&parties), ring_ns),
            parties,
            calls: Vec::new(),
            free: Vec::new(),
            limit,
            timers: Timers::default(),
            holding: Delay::new(hold_ns),
            next_callee: 0,
            next_caller: 0,
            route: Vec::new(),
            uri: Vec::new(),
        }
    }

    /// A slot for a new call. The slot used last comes first: its memory is warm.
    fn claim(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.calls.len() >= self.limit {
            return None;
        }
        self.calls.push(Call::default());
        Some(self.calls.len() as u32 - 1)
    }

    fn release(&mut self, slot: u32) {
        let call = &mut self.calls[slot as usize];
        call.state = State::Free;
        call.generation = call.generation.wrapping_add(1);
        self.free.push(slot);
        self.answerers.forget(slot);
    }

    fn send_invite(&self, identity: Identity, out: &mut Outbox) {
        let call = &self.calls[identity.slot as usize];
        let Parties { users, ends, .. } = &*self.parties;
        let token = self.run.token(identity);
        let fill = Fill {
            token: &token,
            tag: tag(&token),
            attempt: call.attempt,
            lines: &call.texts.credentials,
            caller: users.name(call.caller),
            callee: users.name(call.callee),
            sequence: 0,
            contact: &[],
        };
        let length = ends[call.link.end as usize].invite.render(&fill, out.buffer());
        out.commit(call.link, length);
    }

    /// Has the call's INVITE carry what answers the caller's challenge.
    fn write_credentials(&mut self, slot: u32) {
        let call = &mut self.calls[slot as usize];
        let line = &mut call.texts.credentials;
        line.clear();
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        self.uri.clear();
        for part in [b"sip:", self.parties.users.name(call.callee), b"@", self.parties.dialect.domain.as_bytes()] {
            self.uri.extend_from_slice(part);
        }
        let request = Request { asker: Asker::Proxy, method: "INVITE", uri: &self.uri };
        credentials.write(call.caller, &request, line);
    }

    /// The live call that a message names.
    fn find(&self, call_id: &[u8]) -> Option<Identity> {
        let identity = self.run.identity(call_id)?;
        let call = self.calls.get(identity.slot as usize)?;
        (call.generation == identity.generation && call.state != State::Free).then_some(identity)
    }

    fn receive_response(&mut self, link: Link, message: &Message, turn: &mut Turn) {
        let Some(identity) = self.find(message.value(message.call_id)) else {
            return turn.stats.counts.add(Count::Stray);
        };
        if let Err(why) = self.take_response(identity, link, message, turn) {
            self.wrong(identity, why, message, turn.stats);
        }
    }

    fn take_response(&mut self, identity: Identity, link: Link, message: &Message, turn: &mut Turn) -> Result<(), &'static str> {
        let status = message.status();
        let call = &self.calls[identity.slot as usize];
        let (is_invite, attempt, branch_end) = match message.cseq() {
            Some((attempt, b"INVITE")) if attempt <= call.attempt => (true, attempt, branch_letter(attempt)),
            Some((number, b"BYE")) if number == call.attempt + 1 => (false, call.attempt, b'b'),
            _ => return Err("CSeq of no request of ours"),
        };
        let (is_late, state, caller, carried) = (attempt < call.attempt, call.state, call.caller, call.carried);
        let token = self.run.token(identity);
        check_response(message, &token, branch_end, status)?;
        if link != call.link {
            return Err("response by another way than the request's");
        }
        match (is_invite, status) {
            // The INVITE that was challenged has had its answer; the proxy may not have had the ACK.
            (true, 300..=699) if is_late => {
                turn.stats.counts.add(Count::Repeated);
                turn.stats.counts.add(Count::RetransmittedAck);
                self.acknowledge(identity, attempt, message, turn.out);
            }
            (true, 100..=199) if is_late => {}
            (true, _) if is_late => return Err("a challenged INVITE was answered"),
            (true, 100..=199) => self.receive_provisional(identity, status, turn),
            (true, 200..=299) => return self.receive_ok(identity, &token, message, turn),
            (true, 300..=699) if matches!(state, State::Holding | State::Ending) => {
                return Err("refused after it was accepted");
            }
            (true, 407) if self.is_answered(caller, carried, message, turn.stats) => {
                self.answer_challenge(identity, message, turn);
            }
            (true, 300..=699) => {
                if status == 401 || (status == 407 && self.credentials.is_none()) {
                    turn.stats.wrong("challenged, and there is no answer to it", message.raw);
                }
                self.receive_refusal(identity, message, turn);
            }
            (false, 200..=299) if state != State::Ending => return Err("200 to a BYE not sent"),
            (false, 200..=299) => {
                let call = &self.calls[identity.slot as usize];
                turn.stats.counts.add(Count::Completed);
                if turn.stats.measures(call.mark) && !call.spoiled {
                    call.record(turn.now_ns, turn.stats);
                }
                if turn.stats.is_measuring() {
                    call.record_served(turn.stats);
                }
                turn.out.done(link);
                self.release(identity.slot);
            }
            (false, 300..=699) => {
                turn.stats.refused(status);
                turn.stats.counts.add(Count::RefusedBye);
                turn.out.done(link);
                self.release(identity.slot);
            }
            (false, 100..=199) => {}
            _ => return Err("no SIP status"),
        }
        Ok(())
    }

    /// A message of this call failed a check: whatever becomes of the call, it is not good.
    fn wrong(&mut self, identity: Identity, why: &str, message: &Message, stats: &mut Stats) {
        self.calls[identity.slot as usize].spoiled = true;
        stats.wrong(why, message.raw);
    }

    fn receive_provisional(&mut self, identity: Identity, status: u16, turn: &mut Turn) {
        let call = &mut self.calls[identity.slot as usize];
        let (kind, count) = match status {
            100 => (0, Count::Trying),
            _ => (1, Count::Ringing),
        };
        turn.stats.counts.add(count);
        if call.heard_ns[kind] == 0 {
            call.heard_ns[kind] = turn.now_ns;
        }
        if call.state == State::Calling {
            call.state = State::Proceeding;
        }
    }

    fn receive_ok(
        &mut self,
        identity: Identity,
        token: &[u8; TOKEN],
        message: &Message,
        turn: &mut Turn,
    ) -> Result<(), &'static str> {
        let call = &mut self.calls[identity.slot as usize];
        let Parties { dialect, ends, .. } = &*self.parties;
        let link = call.link;
        if matches!(call.state, State::Holding | State::Ending) {
            // Our ACK was lost, or the 2xx was sent twice: RFC 3261 §13.2.2.4 wants the same ACK again.
            turn.stats.counts.add(Count::Repeated);
            turn.stats.counts.add(Count::RetransmittedAck);
            turn.out.send(link, &call.texts.ack);
            return Ok(());
        }
        let contact = message.value(message.contact);
        if contact.is_empty() || message.body.len() != dialect.body.length {
            return Err("2xx without Contact or with another body");
        }
        if message.record_route.len() == 0 && !dialect.floor {
            return Err("2xx without Record-Route");
        }
        call.heard_ns[2] = turn.now_ns;
        write_route(message, &mut self.route);
        let write = |method: &[u8], branch_end: u8, number: u8, credentials: &[u8], buffer: &mut [u8]| {
            let parts = [
                method,
                b" ",
                message::contact_uri(contact),
                b" SIP/2.0\r\n",
                ends[link.end as usize].via.as_bytes(),
                token,
                &[branch_end],
                b";rport\r\n",
                &self.route,
                b"Max-Forwards: 70\r\n",
                message.whole(message.from),
                message.whole(message.to),
                message.whole(message.call_id),
                b"CSeq: ",
                &[b'1' + number],
                b" ",
                method,
                b"\r\n",
                credentials,
                dialect.pad.as_bytes(),
                b"Content-Length: 0\r\n\r\n",
            ];
            message::write(&parts, buffer)
        };
        // The ACK has the credentials of its INVITE, since nobody can challenge it (RFC 3261 §22.1).
        let length = write(b"ACK", b'a', call.attempt, &call.texts.credentials, turn.out.buffer());
        keep(&mut call.texts.ack, length, turn.out);
        turn.out.commit(link, length);
        let length = write(b"BYE", b'b', call.attempt + 1, b"", turn.out.buffer());
        keep(&mut call.texts.bye, length, turn.out);
        if self.holding.ns > 0 {
            call.state = State::Holding;
            self.holding.push(turn.now_ns, identity);
        } else {
            call.state = State::Ending;
            call.bye_ns = turn.now_ns;
            turn.out.commit(link, length);
            self.timers.arm(turn.now_ns, identity, Awaited::Request);
        }
        Ok(())
    }

    /// Ends the calls that have stood open long enough.
    fn end_held(&mut self, turn: &mut Turn) {
        while let Some(identity) = self.holding.pop(turn.now_ns) {
            let call = &mut self.calls[identity.slot as usize];
            if call.generation == identity.generation && call.state == State::Holding {
                call.state = State::Ending;
                call.bye_ns = turn.now_ns;
                turn.out.send(call.link, &call.texts.bye);
                self.timers.arm(turn.now_ns, identity, Awaited::Request);
            }
        }
    }

    /// Whether there is an answer to this challenge.
    fn is_answered(&mut self, caller: u32, carried: Carried, message: &Message, stats: &mut Stats) -> bool {
        let credentials = self.credentials.as_mut();
        credentials.is_some_and(|credentials| credentials.challenged(caller, Asker::Proxy, carried, message, stats))
    }

    /// A challenged INVITE goes again with credentials, in a transaction of its own: another branch, CSeq one higher, the rest the same.
    fn answer_challenge(&mut self, identity: Identity, message: &Message, turn: &mut Turn) {
        let call = &mut self.calls[identity.slot as usize];
        let challenged = call.attempt;
        call.attempt += 1;
        call.carried = Carried::Fresh;
        call.state = State::Calling;
        call.started_ns = turn.now_ns;
        self.acknowledge(identity, challenged, message, turn.out);
        self.write_credentials(identity.slot);
        self.send_invite(identity, turn.out);
        self.timers.arm(turn.now_ns, identity, Awaited::Invite(challenged + 1));
    }

    fn receive_refusal(&mut self, identity: Identity, message: &Message, turn: &mut Turn) {
        let call = &self.calls[identity.slot as usize];
        turn.stats.refused(message.status());
        if turn.stats.measures(call.mark) {
            turn.stats.record(Span::Refusal, turn.now_ns - call.scheduled_ns);
        }
        self.acknowledge(identity, call.attempt, message, turn.out);
        turn.out.done(call.link);
        self.release(identity.slot);
    }

    /// A final response that is not a 2xx is acknowledged hop by hop, in the INVITE's own transaction (RFC 3261 §17.1.1.3).
    fn acknowledge(&self, identity: Identity, attempt: u8, message: &Message, out: &mut Outbox) {
        let call = &self.calls[identity.slot as usize];
        let Parties { dialect, users, ends } = &*self.parties;
        let parts = [
            b"ACK sip:",
            users.name(call.callee),
            b"@",
            dialect.domain.as_bytes(),
            b" SIP/2.0\r\n",
            ends[call.link.end as usize].via.as_bytes(),
            &self.run.token(identity),
            &[branch_letter(attempt)],
            b";rport\r\nMax-Forwards: 70\r\n",
            message.whole(message.from),
            message.whole(message.to),
            message.whole(message.call_id),
            b"CSeq: ",
            &[b'1' + attempt],
            b" ACK\r\nContent-Length: 0\r\n\r\n",
        ];
        let length = message::write(&parts, out.buffer());
        out.commit(call.link, length);
    }

    fn receive_request(&mut self, link: Link, message: &Message, turn: &mut Turn) {
        let Some(identity) = self.find(message.value(message.call_id)) else {
            turn.stats.counts.add(Count::Stray);
            if message.raw.starts_with(b"BYE ") {
                // A call given up here: the peer need not repeat its BYE for half a minute.
                self.answerers.answer(link, message, turn);
            }
            return;
        };
        let call = &self.calls[identity.slot as usize];
        let asked = Asked { identity, token: &self.run.token(identity), callee: call.callee, attempt: Some(call.attempt) };
        if let Err(why) = self.answerers.receive(&asked, link, message, turn) {
            self.wrong(identity, why, message, turn.stats);
        }
    }
}

impl Call {
    /// What there is to say of a call that ended well.
    fn record(&self, now_ns: u64, stats: &mut Stats) {
        stats.counts.add(Count::Good);
        for (span, heard_ns) in [Span::ToTrying, Span::ToRinging, Span::ToOk].into_iter().zip(self.heard_ns) {
            if heard_ns != 0 {
                stats.record(span, heard_ns - self.scheduled_ns);
            }
        }
        stats.record(Span::Bye, now_ns - self.bye_ns);
        stats.record(Span::Whole, now_ns - self.scheduled_ns);
    }

    fn record_served(&self, stats: &mut Stats) {
        let [.., ok_ns] = self.heard_ns;
        if ok_ns != 0 && !self.spoiled {
            stats.record(Span::ServedToOk, ok_ns - self.scheduled_ns);
        }
    }
}

/// The route set is the Record-Route of the response in reverse (RFC 3261 §12.1.2).
fn write_route(message: &Message, out: &mut Vec<u8>) {
    out.clear();
    for line in message.record_route.as_slice().iter().rev() {
        for route in message::split_list(message.value(*line)).iter().rev() {
            for part in [b"Route: ", *route, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
}

/// Keeps a copy of the message in the buffer, for sending it later or again.
fn keep(kept: &mut Vec<u8>, length: usize, out: &mut Outbox) {
    kept.clear();
    kept.extend_from_slice(&out.buffer()[..length]);
}

fn check_response(message: &Message, token: &[u8; TOKEN], branch_end: u8, status: u16) -> Result<(), &'static str> {
    let [via] = message.via.as_slice() else {
        return Err("not exactly one Via");
    };
    let branch = message::parameter(message.value(*via), b"branch").unwrap_or_default();
    if branch.strip_prefix(b"z9hG4bK").and_then(|rest| rest.strip_prefix(token)) != Some(&[branch_end]) {
        return Err("top Via is not ours");
    }
    let tag = Some(&tag(token)[..]);
    if message.tag(message.from) != tag {
        return Err("From tag changed");
    }
    if status > 100 && status < 300 && message.tag(message.to) != tag {
        return Err("To tag is not the answerer's");
    }
    Ok(())
}

impl Flow for Calls {
    fn start(&mut self, scheduled_ns: u64, turn: &mut Turn) -> bool {
        let Some(slot) = self.claim() else {
            return false;
        };
        let Some(link) = turn.out.begin(self.callers[self.next_caller]) else {
            self.free.push(slot);
            return false;
        };
        self.next_caller = (self.next_caller + 1) % self.callers.len();
        let users = self.parties.users.count();
        let callee = self.next_callee;
        self.next_callee = (callee + 1) % users;
        let call = &mut self.calls[slot as usize];
        let texts = mem::take(&mut call.texts);
        *call = Call {
            generation: call.generation,
            state: State::Calling,
            mark: turn.stats.mark(),
            link,
            callee,
            caller: (callee + users / 2) % users,
            scheduled_ns,
            started_ns: turn.now_ns,
            texts,
            ..Call::default()
        };
        let identity = Identity { slot, generation: call.generation };
        if let Some(credentials) = &mut self.credentials {
            call.carried = credentials.begin(call.caller);
        }
        match call.carried {
            Carried::Nothing => call.texts.credentials.clear(),
            _ => self.write_credentials(slot),
        }
        self.send_invite(identity, turn.out);
        self.timers.arm(turn.now_ns, identity, Awaited::Invite(0));
        turn.stats.counts.add(Count::Started);
        true
    }

    fn receive(&mut self, link: Link, raw: &[u8], turn: &mut Turn) {
        let is_callers = self.parties.ends[link.end as usize].local.side == Side::Caller;
        if is_callers && self.parties.dialect.floor && raw.starts_with(b"INVITE ") {
            // The relay's stand-in for the 100: the beginning of the INVITE, sent back.
            let call_id = memchr::memmem::find(raw, b"\r\nCall-ID: ");
            return match call_id.and_then(|at| self.find(&raw[at + 11..])) {
                Some(identity) => self.receive_provisional(identity, 100, turn),
                None => turn.stats.counts.add(Count::Stray),
            };
        }
        match message::read(raw) {
            None => turn.stats.wrong("not a whole message", raw),
            Some(message) if is_callers => self.receive_response(link, &message, turn),
            Some(message) => self.receive_request(link, &message, turn),
        }
    }

    fn lost(&mut self, link: Link, turn: &mut Turn) {
        // Found by looking at each, since losing a connection is rare. What an answerer had on it comes by another way, or the call's timers end it.
        for slot in 0..self.calls.len() as u32 {
            let call = &self.calls[slot as usize];
            if call.state != State::Free && call.link == link {
                turn.stats.counts.add(Count::Cut);
                self.release(slot);
            }
        }
    }

    fn handle_timers(&mut self, turn: &mut Turn) {
        self.answerers.handle_timers(turn);
        self.end_held(turn);
        while let Some(due) = self.timers.pop(turn.now_ns) {
            let identity = due.identity;
            let call = &self.calls[identity.slot as usize];
            if call.generation != identity.generation {
                continue;
            }
            let since_ns = match (due.awaited, call.state) {
                (Awaited::Invite(attempt), State::Calling | State::Proceeding) if attempt == call.attempt => call.started_ns,
                (Awaited::Request, State::Ending) => call.bye_ns,
                _ => continue,
            };
            if turn.now_ns.saturating_sub(since_ns) >= GIVE_UP_NS {
                turn.stats.counts.add(Count::TimedOut);
                turn.out.done(call.link);
                self.release(identity.slot);
                continue;
            }
            // Over a reliable transport the timer only gives the call up, and so it does when a provisional response has come.
            if !turn.out.is_reliable(call.link) && call.state != State::Proceeding {
                if due.awaited == Awaited::Request {
                    turn.stats.counts.add(Count::RetransmittedRequest);
                    turn.out.send(call.link, &call.texts.bye);
                } else {
                    turn.stats.counts.add(Count::RetransmittedInvite);
                    self.send_invite(identity, turn.out);
                }
            }
            self.timers.rearm(turn.now_ns, due);
        }
    }

    fn next_timer_ns(&self) -> Option<u64> {
        [self.timers.next_ns(), self.answerers.next_timer_ns(), self.holding.next_ns()].into_iter().flatten().min()
    }

    fn outstanding(&self) -> u32 {
        (self.calls.len() - self.free.len()) as u32
    }
}
