//! Client transactions (RFC 3261 §17.1): requests that were forwarded, and their CANCELs.

use super::super::clock::Clock;
use super::super::timer::Timer;
use super::super::{Action, ClientEvent, ack, invite_client, non_invite_client};
use super::UNBOUNDED_REPEATS;
use super::unanswered::NONE;
use super::{CLIENT_TOKEN, Client, ClientKind, ClientState, Ends, Hope, Notice, Transactions};
use crate::base::{Blob, Flow, Id, Instant, OptionalId, Outbox, Span, TimerId};
use crate::settings::Timers;
use crate::sip::{Index, Message};
use crate::stack::health::NamedBy;
use crate::stack::route_counters::RowId;

/// The result of the actions of one step.
#[derive(Default)]
struct Done {
    deliver: bool,
    failed: bool,
    timer_c: bool,
    silent: bool,
    /// A timer was started or stopped.
    timed: bool,
}

impl Done {
    /// What is reported of a transaction that goes on.
    #[inline]
    fn notice(&self, id: Id) -> Option<Notice> {
        match (self.timer_c, self.silent) {
            (true, _) => Some(Notice::TimerC(id)),
            (false, true) => Some(Notice::Silent(id)),
            (false, false) => None,
        }
    }

    /// What is reported of one that has ended.
    #[inline]
    fn end(&self, client: Client) -> Notice {
        match self.failed {
            true => Notice::ClientFailure(client),
            false => Notice::ClientTimeout(client),
        }
    }
}

impl ClientState {
    /// Returns the actions of this event, and whether the transaction ends with them.
    #[inline]
    fn step(&mut self, event: ClientEvent) -> (&'static [Action], bool) {
        match self {
            ClientState::Invite(state) => {
                let (next, actions) = invite_client::step(*state, event);
                *state = next;
                (actions, next == invite_client::State::Terminated)
            }
            ClientState::NonInvite(state) => {
                let (next, actions) = non_invite_client::step(*state, event);
                *state = next;
                (actions, next == non_invite_client::State::Terminated)
            }
        }
    }
}

impl Client {
    #[inline]
    fn set_timer(&mut self, action: Action, now: Instant, timers: &Timers) {
        match action {
            Action::Start(Timer::C) => (self.clock.end, self.clock.end_at) = (Timer::C, self.c_at),
            Action::Start(timer) => self.clock.start(timer, now, timers, &self.flow, false),
            Action::StartAtT2(timer) => self.clock.start(timer, now, timers, &self.flow, true),
            Action::Stop(timer) => self.clock.stop(timer),
            _ => debug_assert!(false, "an action that sets a timer"),
        }
    }
}

impl Transactions {
    /// Returns the name that the next client transaction will have: its branch contains it before the request is written.
    pub fn next_client_id(&self) -> Id {
        self.clients.next_id()
    }

    pub fn client(&self, id: Id) -> Option<&Client> {
        self.clients.get(id)
    }

    pub fn client_mut(&mut self, id: Id) -> Option<&mut Client> {
        self.clients.get_mut(id)
    }

    /// A request has just been written to the outbox at `span` for `flow`.
    pub fn open_client(&mut self, now: Instant, kind: ClientKind, server: Id, flow: Flow, span: Span, outbox: &Outbox) -> Id {
        let slot = self.clients.next_id().slot;
        let mut clock = Clock::new(self.wheel.add(slot | CLIENT_TOKEN));
        let mut c_at = Instant::NEVER;
        let (state, repeat, end) = if kind == ClientKind::Invite {
            c_at = now.after_ms(self.timers.c);
            let calling = ClientState::Invite(invite_client::State::Calling);
            (calling, Timer::A, Timer::B)
        } else {
            let trying = ClientState::NonInvite(non_invite_client::State::Trying);
            (trying, Timer::E, Timer::F)
        };
        clock.start(repeat, now, &self.timers, &flow, false);
        clock.start(end, now, &self.timers, &flow, false);
        if c_at < clock.end_at {
            (clock.end, clock.end_at) = (Timer::C, c_at);
        }
        clock.arm(&mut self.wheel);
        let sent = self.pool.store(outbox.get(span)).unwrap_or(Blob::EMPTY);
        let id = self.clients.insert(Client {
            kind,
            target: 0,
            row: RowId::NONE,
            by_size: false,
            opening: None,
            answered: 0,
            ends: Ends::Nothing,
            named_by: NamedBy::Message,
            sent_at: now,
            hope: Hope::Awaited,
            listed: false,
            before: NONE,
            after: NONE,
            flow,
            server,
            breadth: 0,
            cancel_wanted: false,
            repeats: UNBOUNDED_REPEATS,
            unproved: 0,
            cancel: OptionalId::NONE,
            sent,
            clock,
            c_at,
            state,
        });
        if flow.transport.is_reliable() {
            self.list(id, &flow);
        }
        id
    }

    /// Starts patience: if nothing is heard of the branch for this many milliseconds, there is a [`Notice::Silent`].
    pub fn start_patience(&mut self, now: Instant, id: Id, patience_ms: u64) {
        if let Some(client) = self.clients.get_mut(id) {
            client.clock.start_patience(now.after_ms(patience_ms), &mut self.wheel);
        }
    }

    /// Another next hop is tried in its place: its request is no longer retransmitted, but may still be answered. Returns the
    /// breadth that it had; its bytes for a place that had proved nothing are no longer counted.
    pub fn give_up(&mut self, id: Id) -> u32 {
        let Some(client) = self.clients.get_mut(id) else {
            return 0;
        };
        client.hope = Hope::GivenUp;
        client.unproved = 0;
        if client.state.is_unanswered() {
            client.clock.stop(client.clock.repeat);
            client.clock.arm(&mut self.wheel);
        }
        std::mem::take(&mut client.breadth)
    }

    /// The request as it was sent, while it is kept.
    pub fn sent(&self, client: &Client) -> &[u8] {
        self.pool.get(&client.sent)
    }

    /// True while the branch waits for its final response.
    pub fn is_pending(&self, id: Id) -> bool {
        self.clients.get(id).is_some_and(|client| client.state.is_pending())
    }

    /// True when a provisional response has come and no final one: a CANCEL may be sent (§9.1).
    pub fn is_proceeding(&self, id: Id) -> bool {
        self.clients.get(id).is_some_and(|client| client.state == ClientState::Invite(invite_client::State::Proceeding))
    }

    /// Handles a response for this transaction. True: it is for the transaction user.
    pub fn client_response(&mut self, now: Instant, id: Id, message: &Message, outbox: &mut Outbox) -> bool {
        let event = match message.status() {
            ..200 => ClientEvent::Provisional,
            200..300 => ClientEvent::Success,
            _ => ClientEvent::Failure,
        };
        self.step_client(now, id, event, Some(message), outbox).0
    }

    /// §16.7 step 2: a provisional response other than 100 restarts timer C.
    pub fn reset_timer_c(&mut self, now: Instant, id: Id) {
        let c_ms = self.timers.c;
        if let Some(client) = self.clients.get_mut(id) {
            client.c_at = now.after_ms(c_ms);
            if client.clock.end == Timer::C && client.cancel.is_none() {
                client.clock.move_end(client.c_at, &mut self.wheel);
            }
        }
    }

    /// The branch was cancelled: it has 64·T1 left to end by itself (§9.1).
    pub fn limit_to_64_t1(&mut self, now: Instant, id: Id) {
        let limit = now.after_ms(64 * self.timers.t1);
        if let Some(client) = self.clients.get_mut(id) {
            client.clock.end = Timer::C;
            client.clock.end_at = limit;
            client.clock.arm(&mut self.wheel);
        }
    }

    /// Ends a branch that is no longer waited for.
    pub fn abandon_client(&mut self, now: Instant, id: Id, outbox: &mut Outbox) -> Option<Client> {
        match self.step_client(now, id, ClientEvent::Abandon, None, outbox).1 {
            Some(Notice::ClientTimeout(client)) => Some(client),
            _ => None,
        }
    }

    /// The transport reports that this branch's request did not arrive (§16.9). Returns the record if that ends it.
    pub fn undelivered(&mut self, now: Instant, id: Id, outbox: &mut Outbox) -> Option<Client> {
        let event = ClientEvent::TransportError;
        match self.step_client(now, id, event, None, outbox).1 {
            Some(Notice::ClientFailure(client)) => Some(client),
            _ => None,
        }
    }

    /// Carries out one step. Returns (deliver, notice); a notice contains the record if the transaction ended.
    pub(super) fn step_client(
        &mut self,
        now: Instant,
        id: Id,
        event: ClientEvent,
        message: Option<&Message>,
        outbox: &mut Outbox,
    ) -> (bool, Option<Notice>) {
        let Some(client) = self.clients.get_mut(id) else {
            return (false, None);
        };
        let is_lingering = !client.state.is_pending();
        let (actions, over) = client.state.step(event);
        let mut done = Done::default();
        for action in actions {
            match *action {
                Action::Deliver => done.deliver = true,
                Action::Resend | Action::ResendAck => {
                    let bytes = self.pool.get(&client.sent);
                    if !client.may_repeat(now, &self.sources) {
                        self.answers_kept_back += 1;
                    } else if !bytes.is_empty() {
                        outbox.send(client.flow, |out| out.extend_from_slice(bytes));
                        if outbox.is_traced {
                            note_repeat(event, bytes, &client.flow, &mut self.index, outbox);
                        }
                        self.client_retransmissions += 1;
                    }
                }
                Action::SendAck => {
                    if let Some(response) = message {
                        let (pool, index) = (&self.pool, &mut self.index);
                        let request = pool.get(&client.sent);
                        let span = outbox.send(client.flow, |out| ack::write_ack(request, response, index, out));
                        self.pool.release(&mut client.sent);
                        client.sent = self.pool.store(outbox.get(span)).unwrap_or(Blob::EMPTY);
                    }
                }
                Action::Forget => self.pool.release(&mut client.sent),
                Action::Start(_) | Action::StartAtT2(_) | Action::Stop(_) => {
                    client.set_timer(*action, now, &self.timers);
                    done.timed = true;
                }
                Action::ReportTimerC => done.timer_c = true,
                Action::ReportSilence => done.silent = true,
                Action::ReportFailure => done.failed = true,
                Action::ReportTimeout | Action::ReportLate | Action::Transmit | Action::Remember => {}
            }
        }
        let heard = client.listed && !client.state.is_unanswered();
        if over {
            // The quiet end of a finished transaction is not reported.
            if is_lingering {
                self.remove_client(id);
                return (done.deliver, None);
            }
            return (done.deliver, self.remove_client(id).map(|client| done.end(client)));
        }
        if done.timed {
            client.clock.arm(&mut self.wheel);
        }
        if heard {
            self.unlist(id);
        }
        (done.deliver, done.notice(id))
    }

    #[inline(always)]
    fn remove_client(&mut self, id: Id) -> Option<Client> {
        self.unlist(id);
        let mut client = self.clients.remove(id)?;
        self.pool.release(&mut client.sent);
        let node = std::mem::replace(&mut client.clock.node, TimerId::GONE);
        self.wheel.remove(node);
        Some(client)
    }
}

/// Traces that a timer has sent something again.
fn note_repeat(event: ClientEvent, bytes: &[u8], to: &Flow, index: &mut Index, outbox: &mut Outbox) {
    if let (ClientEvent::Fired(timer), Ok(message)) = (event, Message::parse(bytes, index)) {
        let method = String::from_utf8_lossy(message.method_name());
        let what = format_args!("timer {timer:?}: {method} sent again to {}", to.peer);
        outbox.note_timer(message.call_id().unwrap_or_default(), what);
    }
}
