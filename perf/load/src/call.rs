//! Calls: INVITE, 100, 180, 200, ACK, BYE, 200, with the caller and the answerer in one table of calls (RFC 3261 §12, §13, §15). Where the
//! proxy challenges, INVITE, 407 and ACK come before it (§22.3).

use std::ops::Range;
use std::rc::Rc;

use crate::accounts::{Carried, Credentials, Request};
use crate::answer::{self, Dialog, OK, RINGING, read_cseq};
use crate::digest::Asker;
use crate::end::End;
use crate::flow::{Dialect, Flow};
use crate::identity::{Identity, Run, TOKEN};
use crate::message::{self, Line, Scan, Writer};
use crate::stats::{Count, Mark, Span, Stats};
use crate::template::{Fill, TAG, Users, branch_letter};
use crate::timers::{Awaited, Delay, GIVE_UP_NS, Timers};
use crate::wire::{Link, Local, Outbox, Side};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
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

/// What the answerer has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answerer {
    Nothing,
    Ringing,
    Ok,
}

struct Call {
    generation: u32,
    state: State,
    mark: Mark,
    /// A message of it failed a check.
    spoiled: bool,
    /// When the 100, the 180 and the 200 came first; 0 for those that did not.
    heard_ns: [u64; 3],
    answerer: Answerer,
    /// The answerer has had the ACK.
    acknowledged: bool,
    /// 0, or 1 for the INVITE that answers a challenge: its CSeq and its branch are others.
    attempt: u8,
    carried: Carried,
    /// The line that answers the challenge; empty without.
    credentials: Vec<u8>,
    link: Link,
    caller: u32,
    callee: u32,
    scheduled_ns: u64,
    started_ns: u64,
    bye_ns: u64,
    ack: Vec<u8>,
    bye: Vec<u8>,
    /// The answerer's 2xx and its link, to be sent again until the ACK comes.
    ok: Vec<u8>,
    ok_link: Link,
}

pub struct Calls {
    run: Run,
    dialect: Dialect,
    users: Rc<Users>,
    /// The users as challenged ones; without it a challenge is a refusal.
    credentials: Option<Credentials>,
    ends: Vec<End>,
    callers: Range<usize>,
    answerers: Range<usize>,
    calls: Vec<Call>,
    free: Vec<u32>,
    limit: usize,
    timers: Timers,
    /// Between 180 and 200.
    ringing: Delay,
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
        dialect: Dialect,
        users: Rc<Users>,
        credentials: Option<Credentials>,
        locals: &[Local],
        limit: usize,
        (ring_ns, hold_ns): (u64, u64),
    ) -> Calls {
        let ends = locals.iter().map(|local| End::new(local, &dialect, users.width())).collect();
        let count = |side| locals.iter().filter(|local| local.side == side).count();
        let (callers, answerers) = (count(Side::Caller), count(Side::Answerer));
        Calls {
            run,
            dialect,
            users,
            credentials,
            ends,
            callers: 0..callers,
            answerers: callers..callers + answerers,
            calls: Vec::new(),
            free: Vec::new(),
            limit,
            timers: Timers::default(),
            ringing: Delay::new(ring_ns),
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
        self.calls.push(Call {
            generation: 1,
            state: State::Free,
            mark: Mark::default(),
            spoiled: false,
            heard_ns: [0; 3],
            answerer: Answerer::Nothing,
            acknowledged: false,
            attempt: 0,
            carried: Carried::Nothing,
            credentials: Vec::new(),
            link: Link::default(),
            caller: 0,
            callee: 0,
            scheduled_ns: 0,
            started_ns: 0,
            bye_ns: 0,
            ack: Vec::with_capacity(1024),
            bye: Vec::with_capacity(1024),
            ok: Vec::with_capacity(1024),
            ok_link: Link::default(),
        });
        Some(self.calls.len() as u32 - 1)
    }

    fn release(&mut self, slot: u32) {
        let call = &mut self.calls[slot as usize];
        call.state = State::Free;
        call.generation = call.generation.wrapping_add(1);
        self.free.push(slot);
    }

    fn send_invite(&self, identity: Identity, out: &mut Outbox) {
        let call = &self.calls[identity.slot as usize];
        let link = call.link;
        let token = self.run.token(identity);
        let fill = Fill {
            token: &token,
            tag: tag(&token),
            attempt: call.attempt,
            lines: &call.credentials,
            caller: self.users.name(call.caller),
            callee: self.users.name(call.callee),
            sequence: 0,
            host: &[],
        };
        let length = self.ends[link.end as usize].invite.render(&fill, out.buffer());
        out.commit(link, length);
    }

    /// Has the call's INVITE carry what answers the caller's challenge.
    fn write_credentials(&mut self, slot: u32) {
        let call = &mut self.calls[slot as usize];
        call.credentials.clear();
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        self.uri.clear();
        for part in [b"sip:", self.users.name(call.callee), b"@", self.dialect.domain.as_bytes()] {
            self.uri.extend_from_slice(part);
        }
        let request = Request { asker: Asker::Proxy, method: "INVITE", uri: &self.uri };
        credentials.write(call.caller, &request, &mut call.credentials);
    }

    /// The live call that a message names.
    fn find(&self, raw: &[u8], call_id: Line) -> Option<Identity> {
        let identity = self.run.identity(call_id.value(raw))?;
        let call = self.calls.get(identity.slot as usize)?;
        (call.generation == identity.generation && call.state != State::Free).then_some(identity)
    }

    fn receive_response(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        let Some(scan) = message::scan(raw) else {
            return stats.wrong("not a whole message", raw);
        };
        let Some(identity) = self.find(raw, scan.call_id) else {
            return stats.counts.add(Count::Stray);
        };
        let status = message::status(raw);
        let call = &self.calls[identity.slot as usize];
        let (invite, attempt, branch_end) = match read_cseq(scan.cseq.value(raw)) {
            Some((attempt, b"INVITE")) if attempt <= call.attempt => (true, attempt, branch_letter(attempt)),
            Some((number, b"BYE")) if number == call.attempt + 1 => (false, call.attempt, b'b'),
            _ => return self.wrong(identity, "CSeq of no request of ours", raw, stats),
        };
        let is_late = attempt < call.attempt;
        let token = self.run.token(identity);
        if let Err(why) = check_response(raw, &scan, &token, branch_end, status) {
            return self.wrong(identity, why, raw, stats);
        }
        if link != call.link {
            let why = "response by another way than the request's";
            return self.wrong(identity, why, raw, stats);
        }
        match (invite, status) {
            // The INVITE that was challenged has had its answer; the proxy may not have had the ACK.
            (true, 300..=699) if is_late => {
                stats.counts.add(Count::Repeated);
                stats.counts.add(Count::RetransmittedAck);
                self.acknowledge(identity, attempt, raw, &scan, &token, out);
            }
            (true, 100..=199) if is_late => {}
            (true, _) if is_late => {
                self.wrong(identity, "a challenged INVITE was answered", raw, stats);
            }
            (true, 100..=199) => self.receive_provisional(identity, status, now_ns, stats),
            (true, 200..=299) => self.receive_ok(identity, raw, &scan, &token, now_ns, out, stats),
            (true, 407) if self.credentials.is_some() => {
                self.receive_challenge(identity, raw, &scan, &token, now_ns, out, stats);
            }
            (true, 300..=699) => {
                if matches!(status, 401 | 407) {
                    stats.wrong("challenged, and there is no answer to it", raw);
                }
                self.receive_refusal(identity, raw, &scan, &token, now_ns, out, stats);
            }
            (false, 200..=299) => {
                let call = &self.calls[identity.slot as usize];
                if call.state != State::Ending {
                    return self.wrong(identity, "200 to a BYE not sent", raw, stats);
                }
                stats.counts.add(Count::Completed);
                if stats.measures(call.mark) && !call.spoiled {
                    call.record(now_ns, stats);
                }
                out.done(link);
                self.release(identity.slot);
            }
            (false, 300..=699) => {
                stats.refused(status);
                stats.counts.add(Count::RefusedBye);
                out.done(link);
                self.release(identity.slot);
            }
            (false, 100..=199) => {}
            _ => self.wrong(identity, "no SIP status", raw, stats),
        }
    }

    /// A message of this call failed a check: whatever becomes of the call, it is not good.
    fn wrong(&mut self, identity: Identity, why: &str, raw: &[u8], stats: &mut Stats) {
        self.calls[identity.slot as usize].spoiled = true;
        stats.wrong(why, raw);
    }

    fn receive_provisional(&mut self, identity: Identity, status: u16, now_ns: u64, stats: &mut Stats) {
        let call = &mut self.calls[identity.slot as usize];
        let kind = if status == 100 {
            stats.counts.add(Count::Trying);
            0
        } else {
            stats.counts.add(Count::Ringing);
            1
        };
        if call.heard_ns[kind] == 0 {
            call.heard_ns[kind] = now_ns;
        }
        if call.state == State::Calling {
            call.state = State::Proceeding;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn receive_ok(
        &mut self,
        identity: Identity,
        raw: &[u8],
        scan: &Scan,
        token: &[u8; TOKEN],
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) {
        let call = &mut self.calls[identity.slot as usize];
        let link = call.link;
        if matches!(call.state, State::Holding | State::Ending) {
            // Our ACK was lost, or the 2xx was sent twice: RFC 3261 §13.2.2.4 wants the same ACK again.
            stats.counts.add(Count::Repeated);
            stats.counts.add(Count::RetransmittedAck);
            return out.send(link, &call.ack);
        }
        if scan.contact.is_absent() || raw.len() - scan.body != self.dialect.body.text.len() {
            let why = "2xx without Contact or with another body";
            return self.wrong(identity, why, raw, stats);
        }
        if scan.record_route.len() == 0 && !self.dialect.floor {
            return self.wrong(identity, "2xx without Record-Route", raw, stats);
        }
        call.heard_ns[2] = now_ns;
        self.route.clear();
        for line in scan.record_route.as_slice().iter().rev() {
            // The route set is the Record-Route of the response in reverse (RFC 3261 §12.1.2).
            for route in message::split_list(line.value(raw)).iter().rev() {
                self.route.extend_from_slice(b"Route: ");
                self.route.extend_from_slice(route);
                self.route.extend_from_slice(b"\r\n");
            }
        }
        let target = message::contact_uri(scan.contact.value(raw));
        let attempt = call.attempt;
        let write = |method: &[u8], branch_end: u8, number: u8, credentials: &[u8], buffer: &mut [u8]| {
            let mut writer = Writer::new(buffer);
            for part in [
                method,
                b" ",
                target,
                b" SIP/2.0\r\n",
                self.ends[link.end as usize].via.as_bytes(),
                token,
                &[branch_end],
                b";rport\r\n",
                &self.route,
                b"Max-Forwards: 70\r\n",
                scan.from.whole(raw),
                scan.to.whole(raw),
                scan.call_id.whole(raw),
                b"CSeq: ",
                &[b'1' + number],
                b" ",
                method,
                b"\r\n",
                credentials,
                self.dialect.pad.as_bytes(),
                b"Content-Length: 0\r\n\r\n",
            ] {
                writer.push(part);
            }
            writer.len()
        };
        // The ACK has the credentials of its INVITE, since nobody can challenge it (RFC 3261 §22.1).
        let length = write(b"ACK", b'a', attempt, &call.credentials, out.buffer());
        commit_and_keep(&mut call.ack, link, length, out);
        let length = write(b"BYE", b'b', attempt + 1, b"", out.buffer());
        if self.holding.ns > 0 {
            call.bye.clear();
            call.bye.extend_from_slice(&out.buffer()[..length]);
            call.state = State::Holding;
            self.holding.push(now_ns, identity);
            return;
        }
        commit_and_keep(&mut call.bye, link, length, out);
        call.state = State::Ending;
        call.bye_ns = now_ns;
        self.timers.arm(now_ns, identity, Awaited::Request);
    }

    /// Ends the calls that have stood open long enough.
    fn end_held(&mut self, now_ns: u64, out: &mut Outbox) {
        while let Some(identity) = self.holding.pop(now_ns) {
            let call = &mut self.calls[identity.slot as usize];
            if call.generation == identity.generation && call.state == State::Holding {
                call.state = State::Ending;
                call.bye_ns = now_ns;
                out.send(call.link, &call.bye);
                self.timers.arm(now_ns, identity, Awaited::Request);
            }
        }
    }

    /// A challenged INVITE goes again with credentials, in a transaction of its own: another branch, CSeq one higher, the rest the same.
    #[allow(clippy::too_many_arguments)]
    fn receive_challenge(
        &mut self,
        identity: Identity,
        raw: &[u8],
        scan: &Scan,
        token: &[u8; TOKEN],
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) {
        let call = &mut self.calls[identity.slot as usize];
        if matches!(call.state, State::Holding | State::Ending) {
            return self.wrong(identity, "challenged after it was accepted", raw, stats);
        }
        let (caller, carried) = (call.caller, call.carried);
        let answers = self
            .credentials
            .as_mut()
            .is_some_and(|credentials| credentials.challenged(caller, Asker::Proxy, carried, raw, scan, stats));
        if !answers {
            return self.receive_refusal(identity, raw, scan, token, now_ns, out, stats);
        }
        let challenged = call.attempt;
        call.attempt += 1;
        call.carried = Carried::Fresh;
        call.state = State::Calling;
        call.started_ns = now_ns;
        self.acknowledge(identity, challenged, raw, scan, token, out);
        self.write_credentials(identity.slot);
        self.send_invite(identity, out);
        let awaited = Awaited::Invite(challenged + 1);
        self.timers.arm(now_ns, identity, awaited);
    }

    #[allow(clippy::too_many_arguments)]
    fn receive_refusal(
        &mut self,
        identity: Identity,
        raw: &[u8],
        scan: &Scan,
        token: &[u8; TOKEN],
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) {
        let call = &self.calls[identity.slot as usize];
        let link = call.link;
        if matches!(call.state, State::Holding | State::Ending) {
            return self.wrong(identity, "refused after it was accepted", raw, stats);
        }
        stats.refused(message::status(raw));
        if stats.measures(call.mark) {
            stats.record(Span::Refusal, now_ns - call.scheduled_ns);
        }
        self.acknowledge(identity, call.attempt, raw, scan, token, out);
        out.done(link);
        self.release(identity.slot);
    }

    /// A final response that is not a 2xx is acknowledged hop by hop, in the INVITE's own transaction (RFC 3261 §17.1.1.3).
    fn acknowledge(&self, identity: Identity, attempt: u8, raw: &[u8], scan: &Scan, token: &[u8; TOKEN], out: &mut Outbox) {
        let call = &self.calls[identity.slot as usize];
        let link = call.link;
        let mut writer = Writer::new(out.buffer());
        for part in [
            b"ACK sip:",
            self.users.name(call.callee),
            b"@",
            self.dialect.domain.as_bytes(),
            b" SIP/2.0\r\n",
            self.ends[link.end as usize].via.as_bytes(),
            token,
            &[branch_letter(attempt)],
            b";rport\r\nMax-Forwards: 70\r\n",
            scan.from.whole(raw),
            scan.to.whole(raw),
            scan.call_id.whole(raw),
            b"CSeq: ",
            &[b'1' + attempt],
            b" ACK\r\nContent-Length: 0\r\n\r\n",
        ] {
            writer.push(part);
        }
        let length = writer.len();
        out.commit(link, length);
    }

    fn receive_request(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        let Some(scan) = message::scan(raw) else {
            return stats.wrong("not a whole message", raw);
        };
        let Some(identity) = self.find(raw, scan.call_id) else {
            stats.counts.add(Count::Stray);
            if raw.starts_with(b"BYE ") {
                // A call given up here: the peer need not repeat its BYE for half a minute.
                self.answer(link, raw, &scan, out);
            }
            return;
        };
        if let Err(why) = self.check_request(link, raw, &scan, identity) {
            return self.wrong(identity, why, raw, stats);
        }
        let attempt = self.calls[identity.slot as usize].attempt;
        match (raw[0], read_cseq(scan.cseq.value(raw))) {
            (b'I', Some((number, b"INVITE"))) if number == attempt => {
                self.receive_invite(link, raw, &scan, identity, now_ns, out, stats)
            }
            (b'A', Some((number, b"ACK"))) if number == attempt => {
                let call = &mut self.calls[identity.slot as usize];
                if call.acknowledged {
                    stats.counts.add(Count::Repeated);
                }
                call.acknowledged = true;
            }
            (b'B', Some((number, b"BYE"))) if number == attempt + 1 => {
                let call = &mut self.calls[identity.slot as usize];
                if !call.acknowledged {
                    // The ACK was lost or overtaken. RFC 3261 §15.1.2 answers the BYE all the same.
                    call.acknowledged = true;
                }
                self.answer(link, raw, &scan, out);
                out.done(link);
            }
            _ => self.wrong(identity, "request of no kind that was sent", raw, stats),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn receive_invite(
        &mut self,
        link: Link,
        raw: &[u8],
        scan: &Scan,
        identity: Identity,
        now_ns: u64,
        out: &mut Outbox,
        stats: &mut Stats,
    ) {
        let call = &self.calls[identity.slot as usize];
        let token = self.run.token(identity);
        let (end, dialect, message) = (&self.ends[link.end as usize], &self.dialect, (raw, scan));
        let spread;
        let dialog = Dialog {
            tag: tag(&token),
            user: self.users.name(call.callee),
            address: match end.spread {
                0 => end.address.as_bytes(),
                _ => {
                    spread = end.spread_address(call.callee);
                    spread.as_bytes()
                }
            },
        };
        let dialog = Some(&dialog);
        if call.answerer != Answerer::Nothing {
            stats.counts.add(Count::Repeated);
        }
        if call.answerer == Answerer::Ok {
            if !call.acknowledged {
                stats.counts.add(Count::RetransmittedOk);
                out.send(link, &call.ok);
            }
            return;
        }
        let length = answer::write(end, dialect, RINGING, message, dialog, out.buffer());
        out.commit(link, length);
        if call.answerer == Answerer::Ringing {
            return;
        }
        let length = answer::write(end, dialect, OK, message, dialog, out.buffer());
        let call = &mut self.calls[identity.slot as usize];
        call.ok_link = link;
        if self.ringing.ns > 0 {
            call.ok.clear();
            call.ok.extend_from_slice(&out.buffer()[..length]);
            call.answerer = Answerer::Ringing;
            return self.ringing.push(now_ns, identity);
        }
        commit_and_keep(&mut call.ok, link, length, out);
        call.answerer = Answerer::Ok;
        self.timers.arm(now_ns, identity, Awaited::Ok);
    }

    /// Answers the calls that have rung long enough.
    fn answer_rung(&mut self, now_ns: u64, out: &mut Outbox) {
        while let Some(identity) = self.ringing.pop(now_ns) {
            let call = &mut self.calls[identity.slot as usize];
            if call.generation == identity.generation && call.answerer == Answerer::Ringing {
                call.answerer = Answerer::Ok;
                out.send(call.ok_link, &call.ok);
                self.timers.arm(now_ns, identity, Awaited::Ok);
            }
        }
    }

    fn check_request(&self, link: Link, raw: &[u8], scan: &Scan, identity: Identity) -> Result<(), &'static str> {
        answer::check(&self.dialect, raw, scan, tag(&self.run.token(identity)))?;
        if self.dialect.floor && raw[0] == b'I' {
            // The relay does not know where users are.
            return Ok(());
        }
        let call = &self.calls[identity.slot as usize];
        let routed = self.dialect.routed && raw[0] == b'I';
        let spread;
        let address = match &self.ends[link.end as usize] {
            _ if routed => self.dialect.domain.as_bytes(),
            End { spread: 0, address, .. } => address.as_bytes(),
            end => {
                spread = end.spread_address(call.callee);
                spread.as_bytes()
            }
        };
        answer::is_for(raw, self.users.name(call.callee), address).then_some(()).ok_or("not for the registered contact")
    }

    /// A plain 200.
    fn answer(&self, link: Link, raw: &[u8], scan: &Scan, out: &mut Outbox) {
        let end = &self.ends[link.end as usize];
        let length = answer::write(end, &self.dialect, OK, (raw, scan), None, out.buffer());
        out.commit(link, length);
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
}

/// The tags are the token without the run's part.
fn tag(token: &[u8; TOKEN]) -> &[u8; TAG] {
    token.last_chunk().expect("a tag is shorter than a token")
}

/// Makes the message in the buffer one, and keeps a copy for sending it again.
fn commit_and_keep(kept: &mut Vec<u8>, link: Link, length: usize, out: &mut Outbox) {
    kept.clear();
    kept.extend_from_slice(&out.buffer()[..length]);
    out.commit(link, length);
}

fn check_response(raw: &[u8], scan: &Scan, token: &[u8; TOKEN], branch_end: u8, status: u16) -> Result<(), &'static str> {
    let [via] = scan.via.as_slice() else {
        return Err("not exactly one Via");
    };
    let branch = message::parameter(via.value(raw), b"branch").unwrap_or_default();
    if branch.strip_prefix(b"z9hG4bK").and_then(|rest| rest.strip_prefix(token)) != Some(&[branch_end]) {
        return Err("top Via is not ours");
    }
    if message::parameter(scan.from.value(raw), b"tag") != Some(&token[8..]) {
        return Err("From tag changed");
    }
    if status > 100 && status < 300 && message::parameter(scan.to.value(raw), b"tag") != Some(&token[8..]) {
        return Err("To tag is not the answerer's");
    }
    Ok(())
}

impl Flow for Calls {
    fn start(&mut self, scheduled_ns: u64, now_ns: u64, out: &mut Outbox, stats: &mut Stats) -> bool {
        let end = (self.callers.start + self.next_caller) as u32;
        let Some(slot) = self.claim() else {
            return false;
        };
        let Some(link) = out.begin(end) else {
            self.free.push(slot);
            return false;
        };
        self.next_caller = (self.next_caller + 1) % self.callers.len();
        let callee = self.next_callee;
        self.next_callee = (callee + 1) % self.users.count();
        let call = &mut self.calls[slot as usize];
        call.state = State::Calling;
        call.mark = stats.mark();
        call.spoiled = false;
        call.heard_ns = [0; 3];
        call.answerer = Answerer::Nothing;
        call.acknowledged = false;
        call.callee = callee;
        call.caller = (callee + self.users.count() / 2) % self.users.count();
        call.link = link;
        call.scheduled_ns = scheduled_ns;
        call.started_ns = now_ns;
        call.attempt = 0;
        call.carried = Carried::Nothing;
        call.credentials.clear();
        let identity = Identity { slot, generation: call.generation };
        if let Some(credentials) = &mut self.credentials {
            call.carried = credentials.begin(call.caller);
            if call.carried != Carried::Nothing {
                self.write_credentials(slot);
            }
        }
        self.send_invite(identity, out);
        self.timers.arm(now_ns, identity, Awaited::Invite(0));
        stats.counts.add(Count::Started);
        true
    }

    fn receive(&mut self, link: Link, raw: &[u8], now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        if self.answerers.contains(&(link.end as usize)) {
            return self.receive_request(link, raw, now_ns, out, stats);
        }
        if self.dialect.floor && raw.starts_with(b"INVITE ") {
            // The relay's stand-in for the 100: the beginning of the INVITE, sent back.
            let call_id = memchr::memmem::find(raw, b"\r\nCall-ID: ");
            let identity = call_id.and_then(|at| self.run.identity(&raw[at + 11..]));
            return match identity {
                Some(identity) if self.calls[identity.slot as usize].generation == identity.generation => {
                    self.receive_provisional(identity, 100, now_ns, stats);
                }
                _ => stats.counts.add(Count::Stray),
            };
        }
        self.receive_response(link, raw, now_ns, out, stats);
    }

    fn lost(&mut self, link: Link, _out: &mut Outbox, stats: &mut Stats) {
        if !self.callers.contains(&(link.end as usize)) {
            // What the answerer had on it comes by another way, or the call's timers end it.
            return;
        }
        // Found by looking at each, since losing a connection is rare.
        for slot in 0..self.calls.len() as u32 {
            let call = &self.calls[slot as usize];
            if call.state != State::Free && call.link == link {
                stats.counts.add(Count::Cut);
                self.release(slot);
            }
        }
    }

    fn handle_timers(&mut self, now_ns: u64, out: &mut Outbox, stats: &mut Stats) {
        self.answer_rung(now_ns, out);
        self.end_held(now_ns, out);
        while let Some(due) = self.timers.pop(now_ns) {
            let identity = due.identity;
            let call = &self.calls[identity.slot as usize];
            if call.generation != identity.generation || call.state == State::Free {
                continue;
            }
            let awaited = match due.awaited {
                Awaited::Invite(attempt) => attempt == call.attempt && matches!(call.state, State::Calling | State::Proceeding),
                Awaited::Ok => !call.acknowledged,
                Awaited::Request => call.state == State::Ending,
            };
            if !awaited {
                continue;
            }
            let since_ns = match due.awaited {
                Awaited::Request => call.bye_ns,
                Awaited::Invite(_) => call.started_ns,
                Awaited::Ok => call.started_ns + self.ringing.ns,
            };
            if now_ns.saturating_sub(since_ns) >= GIVE_UP_NS {
                if due.awaited != Awaited::Ok {
                    stats.counts.add(Count::TimedOut);
                    out.done(call.link);
                    self.release(identity.slot);
                }
                continue;
            }
            match due.awaited {
                // Over a reliable transport the timer only gives the call up.
                Awaited::Invite(_) | Awaited::Request if out.is_reliable(call.link) => {}
                Awaited::Invite(_) if call.state == State::Calling => {
                    stats.counts.add(Count::RetransmittedInvite);
                    self.send_invite(identity, out);
                }
                // A provisional response stops the INVITE's retransmissions; the timer stays to give the call up.
                Awaited::Invite(_) => {}
                Awaited::Ok => {
                    stats.counts.add(Count::RetransmittedOk);
                    out.send(call.ok_link, &call.ok);
                }
                Awaited::Request => {
                    stats.counts.add(Count::RetransmittedRequest);
                    out.send(call.link, &call.bye);
                }
            }
            self.timers.rearm(now_ns, due);
        }
    }

    fn next_timer_ns(&self) -> Option<u64> {
        [self.timers.next_ns(), self.ringing.next_ns(), self.holding.next_ns()].into_iter().flatten().min()
    }

    fn outstanding(&self) -> u32 {
        (self.calls.len() - self.free.len()) as u32
    }
}
