//! Server transactions (RFC 3261 §17.2): requests that came, and their answers.

use super::super::clock::Clock;
use super::super::directory::Look;
use super::super::timer::Timer;
use super::super::{Action, ServerEvent, invite_server, non_invite_server};
use super::{Holders, Server, ServerKey, ServerState, Transactions, UNBOUNDED, introduce};
use crate::base::{Blob, Flow, Id, Instant, OptionalId, Outbox, Span};
use crate::sip::{Index, Message, sniff};
use std::hint::black_box;

impl ServerState {
    /// Returns the actions of this event, and whether the transaction ends with them.
    #[inline]
    fn step(&mut self, event: ServerEvent) -> (&'static [Action], bool) {
        match self {
            ServerState::Invite(state) => {
                let (next, actions) = invite_server::step(*state, event);
                *state = next;
                (actions, next == invite_server::State::Terminated)
            }
            ServerState::NonInvite(state) => {
                let (next, actions) = non_invite_server::step(*state, event);
                *state = next;
                (actions, next == non_invite_server::State::Terminated)
            }
        }
    }
}

impl Transactions {
    pub fn find_server(&self, key: u128) -> Option<Id> {
        let mut link = self.directory.head(key);
        while let Look::Record(slot) = self.directory.look(link, key) {
            let (id, server) = self.servers.tenant(slot)?;
            if server.key.0 == key {
                return Some(id);
            }
            link = server.next;
        }
        None
    }

    /// Returns the keys of all server transactions.
    pub fn keys(&self) -> impl Iterator<Item = u128> {
        self.servers.iter().map(|(_, server)| server.key.0)
    }

    pub fn server(&self, id: Id) -> Option<&Server> {
        self.servers.get(id)
    }

    pub fn server_mut(&mut self, id: Id) -> Option<&mut Server> {
        self.servers.get_mut(id)
    }

    /// A new request; `flow` is where its responses go.
    pub fn open_server(&mut self, now: Instant, invite: bool, key: u128, flow: Flow) -> Id {
        let slot = self.servers.next_id().slot;
        let mut clock = Clock::new(self.wheel.add(slot));
        let state = if invite {
            ServerState::Invite(invite_server::State::Proceeding)
        } else {
            clock.start(Timer::Late, now, &self.timers, &flow, false);
            clock.start(Timer::F, now, &self.timers, &flow, false);
            clock.arm(&mut self.wheel);
            ServerState::NonInvite(non_invite_server::State::Trying)
        };
        let next = self.directory.insert(key, slot);
        self.servers.insert(Server {
            key: ServerKey(key),
            flow,
            context: OptionalId::NONE,
            offers_control: false,
            response: Blob::EMPTY,
            clock,
            state,
            room: UNBOUNDED,
            holders: Holders::default(),
            next,
        })
    }

    /// The request or its ACK came again. True: the message is for the transaction user.
    pub fn server_request(&mut self, now: Instant, id: Id, event: ServerEvent, outbox: &mut Outbox) -> bool {
        self.step_server(now, id, event, None, outbox).0
    }

    /// Sends a response of the transaction user, if the machine allows it; `write` appends its bytes. True: it was sent.
    pub fn respond(&mut self, now: Instant, id: Id, status: u16, outbox: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let event = match status {
            ..200 => ServerEvent::Provisional,
            200..300 => ServerEvent::Success,
            _ => ServerEvent::Failure,
        };
        let Some(server) = self.servers.get(id) else {
            return false;
        };
        let allowed = match server.state {
            ServerState::Invite(state) => invite_server::step(state, event).1,
            ServerState::NonInvite(state) => non_invite_server::step(state, event).1,
        };
        if !allowed.contains(&Action::Transmit) {
            return false;
        }
        let flow = server.flow;
        let span = outbox.send(flow, write);
        if !self.may_answer(now, id, status, span.len()) {
            // No need to report it: the next one may be sent.
            outbox.unsend();
            return true;
        }
        self.send_back(&flow, span, outbox);
        self.step_server(now, id, event, Some(span), outbox);
        true
    }

    /// Carries out one step. Returns (deliver, late).
    pub(super) fn step_server(
        &mut self,
        now: Instant,
        id: Id,
        event: ServerEvent,
        given: Option<Span>,
        outbox: &mut Outbox,
    ) -> (bool, bool) {
        let Some(server) = self.servers.get_mut(id) else {
            return (false, false);
        };
        let (actions, over) = server.state.step(event);
        let (mut deliver, mut late, mut timed, mut resent) = (false, false, false, None);
        for action in actions {
            match *action {
                Action::Deliver => deliver = true,
                // `respond` has put the bytes into the outbox before the step.
                Action::Transmit => {}
                Action::Remember => {
                    if let Some(span) = given {
                        self.pool.release(&mut server.response);
                        server.response = self.pool.store(outbox.get(span)).unwrap_or(Blob::EMPTY);
                    }
                }
                Action::Forget => self.pool.release(&mut server.response),
                Action::Resend => {
                    let bytes = self.pool.get(&server.response);
                    if !server.may_repeat(now, bytes.len(), &self.sources) {
                        self.answers_kept_back += 1;
                    } else if !bytes.is_empty() {
                        let span = outbox.send(server.flow, |out| out.extend_from_slice(bytes));
                        if let (ServerEvent::Fired(timer), true) = (event, outbox.is_traced) {
                            note_repeat(timer, bytes, &server.flow, &mut self.index, outbox);
                        }
                        self.server_retransmissions += 1;
                        resent = Some((server.flow, span));
                    }
                }
                Action::Start(timer) => {
                    server.clock.start(timer, now, &self.timers, &server.flow, false);
                    timed = true;
                }
                Action::Stop(timer) => {
                    server.clock.stop(timer);
                    timed = true;
                }
                Action::ReportLate => late = true,
                // A lost ACK or an unreachable caller does not affect the branches: they end by themselves.
                Action::ReportFailure => {}
                Action::ReportTimeout => self.refused.note(server.key.0),
                Action::SendAck | Action::ResendAck | Action::StartAtT2(_) | Action::ReportTimerC | Action::ReportSilence => {}
            }
        }
        if over {
            self.remove_server(id);
        } else if timed {
            server.clock.arm(&mut self.wheel);
        }
        if let Some((flow, span)) = resent {
            self.send_back(&flow, span, outbox);
        }
        (deliver, late)
    }

    /// §18.2.2: sends the response that was last put into the outbox over the request's own connection; if that is gone, over a new
    /// one to the source's address and the port of sent-by.
    pub(super) fn send_back(&mut self, flow: &Flow, span: Span, outbox: &mut Outbox) {
        if !flow.transport.is_reliable() || self.peer_flows.takes_answers(flow) {
            return;
        }
        let Some(via) = sniff::top_via(outbox.get(span)) else {
            return;
        };
        let back = self.peer_flows.back(flow, &via, &mut self.host);
        if let Some(last) = outbox.transmits.last_mut() {
            last.flow = back;
        }
        introduce(&back, &self.host, 0, outbox);
    }

    pub(super) fn remove_server(&mut self, id: Id) {
        let Some(mut server) = self.servers.remove(id) else {
            debug_assert!(false, "a transaction that ends is there");
            return;
        };
        self.pool.release(&mut server.response);
        self.give_back(server.holders);
        self.wheel.remove(server.clock.node);
        if self.directory.remove_first(server.key.0, id.slot, server.next) {
            return;
        }
        let mut link = self.directory.head(server.key.0);
        while let Some(slot) = self.directory.slot(link) {
            let Some((before, record)) = self.servers.tenant(slot) else {
                debug_assert!(false, "a chain leads to a record");
                return;
            };
            link = record.next;
            if self.directory.leads_to(link, id.slot) {
                if let Some(record) = self.servers.get_mut(before) {
                    record.next = server.next;
                }
                return;
            }
        }
    }

    /// The request with this key is being read, and will be looked up: prefetches its place.
    pub fn foresee_server(&self, key: u128) {
        black_box(self.directory.head(key));
    }
}

/// Traces that a timer has sent an answer again.
fn note_repeat(timer: Timer, bytes: &[u8], to: &Flow, index: &mut Index, outbox: &mut Outbox) {
    if let Ok(message) = Message::parse(bytes, index) {
        let (status, method) = (message.status(), String::from_utf8_lossy(message.method_name()));
        let what = format_args!("timer {timer:?}: {status} to {method} sent again to {}", to.peer);
        outbox.note_timer(message.call_id().unwrap_or_default(), what);
    }
}
