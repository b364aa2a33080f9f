//! The records of all transactions of one core, and what carries out the machines' actions.

#[cfg(debug_assertions)]
mod check;
mod room;

use super::clock::Clock;
use super::directory::{Directory, Link, Look};
use super::refused::Refused;
use super::timer::Timer;
use super::{Action, ClientEvent, ServerEvent, ack, invite_client, invite_server, non_invite_client, non_invite_server};
use crate::base::{
    Arena, Blob, BuildPrehashed, Channel, Flow, Id, Instant, Key, Outbox, Pool, Shares, Sources, Span, TimerId, Wheel,
};
use crate::settings::Timers;
use crate::sip::{Index, Message, sniff};
use crate::stack::counters::Limit;
use crate::stack::identity::Dialog;
use crate::stack::peer_flows::PeerFlows;
use crate::stack::settings::PerCore;
pub use room::Holders;
use room::{UNBOUNDED, UNBOUNDED_REPEATS};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

/// A server transaction: one request that came, its answers, and where they go.
pub struct Server {
    /// Names the transaction among all (§17.2.3), 128 keyed bits.
    key: u128,
    /// Where responses go (§18.2.2).
    pub flow: Flow,
    /// The response context (§16.7) while the request waits for its final response.
    pub context: Option<Id>,
    /// The element before us is to be told of our load (RFC 7339).
    pub offers_control: bool,
    /// What is sent again when the request comes again.
    response: Blob,
    clock: Clock,
    state: ServerState,
    /// Bytes that answers may still have ([`Transactions::bound_answers`]).
    room: u32,
    /// Who has a share less for it.
    holders: Holders,
    /// The next in the same chain of the directory.
    next: Link,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    Invite(invite_server::State),
    NonInvite(non_invite_server::State),
}

/// A client transaction: one branch of a forwarded request, or a CANCEL.
pub struct Client {
    pub kind: ClientKind,
    /// Where the request went.
    pub flow: Flow,
    /// The server transaction that this branch serves; it may be gone.
    pub server: Id,
    /// Max-Breadth that this branch was given (RFC 5393).
    pub breadth: u32,
    /// A CANCEL is to follow as soon as a provisional response allows it (§9.1).
    pub cancel_wanted: bool,
    /// The index of its target.
    pub target: u16,
    /// To be tried again by UDP where no connection comes about (§18.1.1).
    pub by_size: bool,
    /// What the request is known by as one of whoever opens a dialog, where that was worked out: its responses have it in common.
    pub opening: Option<Dialog>,
    /// What is over with this branch.
    pub ends: Ends,
    /// True while it stands in the list of those that wait on a connection and have heard nothing.
    listed: bool,
    /// Its neighbours in that list, by slot.
    before: u32,
    after: u32,
    /// How often it may be repeated ([`Client::bound_repeats`]).
    repeats: u8,
    /// Bytes that were allowed to it for a place that had proved nothing.
    pub unproved: u32,
    /// The CANCEL's own transaction, once it was sent.
    pub cancel: Option<Id>,
    /// The request while it may have to be repeated or cancelled, then the ACK to a non-2xx.
    sent: Blob,
    clock: Clock,
    /// When timer C fires (INVITE only).
    c_at: Instant,
    state: ClientState,
}

/// What a final response to a branch ends, for who has a connection for each call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Nothing: the dialog in which the request was sent goes on.
    Nothing,
    /// The call, unless the response is a 2xx: the request would open a dialog.
    Attempt,
    /// The request was all there was.
    Request,
    /// The call: the request is a BYE.
    Call,
}

/// The end of a list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    Invite,
    NonInvite,
    /// Our own CANCEL of another branch; nobody waits for its outcome.
    Cancel,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientState {
    Invite(invite_client::State),
    NonInvite(non_invite_client::State),
}

/// What the transaction user must know of what a timer or the transport did.
pub enum Notice {
    /// No final response came (§16.8, timers B, F); the record is gone.
    ClientTimeout(Client),
    /// The request could not be delivered (§16.9); the record is gone.
    ClientFailure(Client),
    /// Timer C fired with a provisional response seen (§16.8): cancel the branch.
    TimerC(Id),
    /// A non-INVITE has waited as long as RFC 4320 allows without a 100.
    Late(Id),
    /// A non-INVITE was never answered, and its client has given up; this is its response context.
    Expired(Id),
}

const CLIENT_TOKEN: u32 = 1 << 31;

/// Calls whose ACK is waited for: an ACK follows its 2xx within a moment.
const ACCEPTED: usize = 1 << 14;

/// All transactions of one core.
pub struct Transactions {
    timers: Timers,
    servers: Arena<Server>,
    clients: Arena<Client>,
    directory: Directory,
    /// INVITEs that are over here with a non-2xx, and whose ACK may still come.
    pub refused: Refused,
    /// Calls that were answered by a 2xx of late, by Call-ID and the caller's tag: what their ACK is known by where it shows no route.
    pub accepted: Refused,
    /// The client transactions that wait on a connection and have heard nothing, as a list for each: its first, by slot.
    unanswered: HashMap<u128, u32, BuildPrehashed>,
    ways: PeerFlows,
    /// Who holds how many, and how many bytes of requests.
    pub shares: Shares,
    bytes: Shares,
    /// Which places have proved to hear us.
    pub sources: Arc<Sources>,
    /// Used again for each name of a peer.
    host: Vec<u8>,
    wheel: Wheel,
    pub pool: Pool,
    index: Index,
    limit: usize,
    /// Bytes of messages at which nothing new begins.
    limit_bytes: usize,
    /// Requests and ACKs repeated.
    pub client_retransmissions: u64,
    /// Responses repeated by timer G.
    pub server_retransmissions: u64,
    /// Answers, and repetitions of requests, that were not sent to a place that has proved nothing.
    pub answers_kept_back: u64,
}

impl Transactions {
    /// How many server transactions there may be is a limit for which the directory is sized once.
    pub fn new(timers: Timers, limits: &PerCore, ways: PeerFlows, sources: Arc<Sources>, secret: Key) -> Transactions {
        let mut transactions = Transactions {
            limit: 0,
            limit_bytes: 0,
            directory: Directory::new(limits.transactions),
            refused: Refused::default(),
            accepted: Refused::with_places(ACCEPTED),
            unanswered: HashMap::default(),
            ways,
            shares: Shares::new(secret),
            bytes: Shares::new(secret),
            sources,
            host: Vec::new(),
            timers: timers.clone(),
            servers: Arena::default(),
            clients: Arena::default(),
            wheel: Wheel::default(),
            pool: Pool::default(),
            index: Index::default(),
            client_retransmissions: 0,
            server_retransmissions: 0,
            answers_kept_back: 0,
        };
        transactions.configure(timers, limits);
        transactions
    }

    /// New timer values and limits, for transactions that begin from now on.
    pub fn configure(&mut self, timers: Timers, limits: &PerCore) {
        self.timers = timers;
        self.limit = limits.transactions.min(self.directory.capacity());
        self.limit_bytes = limits.transaction_bytes;
        // What has begun may bring answers, which are kept too; twice as much is the end of that.
        self.pool.set_limit(self.limit_bytes.saturating_mul(2));
    }

    /// Whether there is no room for another transaction: which limit says so.
    pub fn is_full(&self) -> Option<Limit> {
        if self.servers.len() >= self.limit {
            return Some(Limit::Transactions);
        }
        (self.pool.held_bytes() >= self.limit_bytes).then_some(Limit::TransactionBytes)
    }

    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    pub fn timer_count(&self) -> usize {
        self.wheel.added()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.wheel.next_timeout()
    }

    // ---- server side -------------------------------------------------------------------------------------------------

    pub fn find_server(&self, key: u128) -> Option<Id> {
        let mut link = self.directory.head(key);
        while let Look::Record(slot) = self.directory.look(link, key) {
            let (id, server) = self.servers.tenant(slot)?;
            if server.key == key {
                return Some(id);
            }
            link = server.next;
        }
        None
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
            key,
            flow,
            context: None,
            offers_control: false,
            response: Blob::EMPTY,
            clock,
            state,
            room: UNBOUNDED,
            holders: Holders::default(),
            next,
        })
    }

    /// The request or its ACK came again. True: the message is the transaction user's.
    pub fn server_request(&mut self, now: Instant, id: Id, event: ServerEvent, outbox: &mut Outbox) -> bool {
        self.step_server(now, id, event, None, outbox).0
    }

    /// Sends a response of the transaction user, where the machine allows it; `write` appends its bytes. True: it was sent.
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
            // Nobody has to know: the next one may be sent.
            outbox.unsend();
            return true;
        }
        self.send_back(&flow, span, outbox);
        self.step_server(now, id, event, Some(span), outbox);
        true
    }

    /// Carries out one step. Returns (deliver, late).
    fn step_server(&mut self, now: Instant, id: Id, event: ServerEvent, given: Option<Span>, outbox: &mut Outbox) -> (bool, bool) {
        let Some(server) = self.servers.get_mut(id) else {
            return (false, false);
        };
        let (actions, over) = match &mut server.state {
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
        };
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
                // A lost ACK or an unreachable caller changes nothing for the branches: they end by themselves.
                Action::ReportFailure => {}
                Action::ReportTimeout => self.refused.note(server.key),
                Action::SendAck | Action::ResendAck | Action::StartAtT2(_) | Action::ReportTimerC => {}
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

    /// §18.2.2: the response that was put into the outbox last goes by the request's own connection; where that is gone, by a
    /// new one to the source's address and the port of sent-by.
    fn send_back(&mut self, flow: &Flow, span: Span, outbox: &mut Outbox) {
        if !flow.transport.is_reliable() || self.ways.takes_answers(flow) {
            return;
        }
        let Some(via) = sniff::top_via(outbox.get(span)) else {
            return;
        };
        let back = self.ways.back(flow, &via, &mut self.host);
        if let Some(last) = outbox.transmits.last_mut() {
            last.flow = back;
        }
        introduce(&back, &self.host, 0, outbox);
    }

    fn remove_server(&mut self, id: Id) {
        let Some(mut server) = self.servers.remove(id) else {
            debug_assert!(false, "a transaction that ends is there");
            return;
        };
        self.pool.release(&mut server.response);
        self.give_back(server.holders);
        self.wheel.remove(server.clock.node);
        if self.directory.remove_first(server.key, id.slot, server.next) {
            return;
        }
        let mut link = self.directory.head(server.key);
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

    // ---- client side -------------------------------------------------------------------------------------------------

    /// The name that the next client transaction will have: its branch must say it before the request is written.
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
            by_size: false,
            opening: None,
            ends: Ends::Nothing,
            listed: false,
            before: NONE,
            after: NONE,
            flow,
            server,
            breadth: 0,
            cancel_wanted: false,
            repeats: UNBOUNDED_REPEATS,
            unproved: 0,
            cancel: None,
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

    /// Puts a client transaction in front of those that wait on the same connection.
    fn list(&mut self, id: Id, flow: &Flow) {
        let Some(key) = self.ways.key(flow) else {
            return;
        };
        let after = self.unanswered.insert(key, id.slot).unwrap_or(NONE);
        if let Some(client) = self.clients.get_mut(id) {
            (client.listed, client.before, client.after) = (true, NONE, after);
        }
        self.relink(after, |next| next.before = id.slot);
    }

    fn unlist(&mut self, id: Id) {
        let Some(client) = self.clients.get_mut(id) else {
            debug_assert!(false, "a transaction that stands in a list is there");
            return;
        };
        if !std::mem::take(&mut client.listed) {
            return;
        }
        let (before, after, flow) = (client.before, client.after, client.flow);
        self.relink(after, |next| next.before = before);
        if before != NONE {
            return self.relink(before, |previous| previous.after = after);
        }
        if let Some(key) = self.ways.key(&flow) {
            match after {
                NONE => self.unanswered.remove(&key),
                first => self.unanswered.insert(key, first),
            };
        }
    }

    fn relink(&mut self, slot: u32, change: impl FnOnce(&mut Client)) {
        let id = self.clients.tenant(slot).map(|(id, _)| id);
        if let Some(client) = id.and_then(|id| self.clients.get_mut(id)) {
            change(client);
        }
    }

    /// Those that wait on a connection and have heard nothing, into `ids`, the youngest first; they stand in no list then.
    pub fn take_unanswered(&mut self, flow: &Flow, ids: &mut Vec<Id>) {
        let first = self.ways.key(flow);
        let mut slot = first.and_then(|key| self.unanswered.remove(&key));
        while let Some(id) = slot.and_then(|slot| Some(self.clients.tenant(slot)?.0)) {
            ids.push(id);
            slot = self.clients.get_mut(id).map(|client| {
                client.listed = false;
                client.after
            });
        }
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
        self.clients
            .get(id)
            .is_some_and(|client| client.state == ClientState::Invite(invite_client::State::Proceeding))
    }

    /// A response for this transaction. True: it is the transaction user's.
    pub fn client_response(&mut self, now: Instant, id: Id, message: &Message, outbox: &mut Outbox) -> bool {
        let event = match message.status() {
            ..200 => ClientEvent::Provisional,
            200..300 => ClientEvent::Success,
            _ => ClientEvent::Failure,
        };
        self.step_client(now, id, event, Some(message), outbox).0
    }

    /// §16.7 step 2: a provisional response other than 100 sets timer C anew.
    pub fn reset_timer_c(&mut self, now: Instant, id: Id) {
        let c_ms = self.timers.c;
        if let Some(client) = self.clients.get_mut(id) {
            client.c_at = now.after_ms(c_ms);
            if client.clock.end == Timer::C && client.cancel.is_none() {
                client.clock.end_at = client.c_at;
                client.clock.arm(&mut self.wheel);
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

    /// Ends a branch that nobody waits for any longer.
    pub fn abandon_client(&mut self, now: Instant, id: Id, outbox: &mut Outbox) -> Option<Client> {
        match self.step_client(now, id, ClientEvent::Abandon, None, outbox).1 {
            Some(Notice::ClientTimeout(client)) => Some(client),
            _ => None,
        }
    }

    /// The transport says that this branch's request did not arrive (§16.9). Brings the record when that ends it.
    pub fn undelivered(&mut self, now: Instant, id: Id, outbox: &mut Outbox) -> Option<Client> {
        let event = ClientEvent::TransportError;
        match self.step_client(now, id, event, None, outbox).1 {
            Some(Notice::ClientFailure(client)) => Some(client),
            _ => None,
        }
    }

    /// Carries out one step. Returns (deliver, notice); a notice brings the record when the transaction ended.
    fn step_client(
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
        let (actions, over) = match &mut client.state {
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
        };
        let (mut deliver, mut failed, mut timer_c, mut timed) = (false, false, false, false);
        for action in actions {
            match *action {
                Action::Deliver => deliver = true,
                Action::Resend | Action::ResendAck => {
                    let bytes = self.pool.get(&client.sent);
                    if !client.may_repeat(now, &self.sources) {
                        self.answers_kept_back += 1;
                    } else if !bytes.is_empty() {
                        outbox.send(client.flow, |out| out.extend_from_slice(bytes));
                        self.client_retransmissions += 1;
                    }
                }
                Action::SendAck => {
                    if let Some(response) = message {
                        let (pool, index) = (&self.pool, &mut self.index);
                        let request = pool.get(&client.sent);
                        let span = outbox.send(client.flow, |out| {
                            ack::write_ack(request, response, index, out);
                        });
                        self.pool.release(&mut client.sent);
                        client.sent = self.pool.store(outbox.get(span)).unwrap_or(Blob::EMPTY);
                    }
                }
                Action::Forget => self.pool.release(&mut client.sent),
                Action::Start(Timer::C) => {
                    (client.clock.end, client.clock.end_at) = (Timer::C, client.c_at);
                    timed = true;
                }
                Action::Start(timer) | Action::StartAtT2(timer) => {
                    let at_t2 = matches!(action, Action::StartAtT2(_));
                    client.clock.start(timer, now, &self.timers, &client.flow, at_t2);
                    timed = true;
                }
                Action::Stop(timer) => {
                    client.clock.stop(timer);
                    timed = true;
                }
                Action::ReportTimerC => timer_c = true,
                Action::ReportFailure => failed = true,
                Action::ReportTimeout | Action::ReportLate | Action::Transmit | Action::Remember => {}
            }
        }
        let heard = client.listed && !client.state.is_unanswered();
        if over {
            let client = self.remove_client(id);
            let notice = client.map(|client| match failed {
                true => Notice::ClientFailure(client),
                false => Notice::ClientTimeout(client),
            });
            return (deliver, notice);
        }
        if timed {
            client.clock.arm(&mut self.wheel);
        }
        if heard {
            self.unlist(id);
        }
        (deliver, timer_c.then_some(Notice::TimerC(id)))
    }

    fn remove_client(&mut self, id: Id) -> Option<Client> {
        self.unlist(id);
        let mut client = self.clients.remove(id)?;
        self.pool.release(&mut client.sent);
        let node = std::mem::replace(&mut client.clock.node, TimerId::GONE);
        self.wheel.remove(node);
        Some(client)
    }

    // ---- time --------------------------------------------------------------------------------------------------------

    /// Carries out what is due until something concerns the transaction user; to be called until `None`.
    pub fn poll(&mut self, now: Instant, outbox: &mut Outbox) -> Option<Notice> {
        while let Some(token) = self.wheel.poll(now) {
            self.foresee_due();
            let slot = token & !CLIENT_TOKEN;
            let notice = if token & CLIENT_TOKEN != 0 {
                self.client_timer(now, slot, outbox)
            } else {
                self.server_timer(now, slot, outbox)
            };
            if notice.is_some() {
                return notice;
            }
        }
        None
    }

    /// Asks the memory for what the next timers will need. A finished transaction has not been looked at for its whole linger
    /// time; a value that nobody waits for is loaded while the one at hand is dealt with.
    fn foresee_due(&self) {
        let mut due = self.wheel.due();
        // Its record was asked for one timer ago: now its place in the directory.
        if let Some(token) = due.next()
            && token & CLIENT_TOKEN == 0
            && let Some((_, server)) = self.servers.tenant(token)
        {
            black_box(self.directory.head(server.key));
        }
        match due.next() {
            Some(token) if token & CLIENT_TOKEN != 0 => {
                let client = self.clients.tenant(token & !CLIENT_TOKEN);
                black_box(client.map(|(_, client)| (client.clock.end_at, client.state)));
            }
            Some(token) => {
                let server = self.servers.tenant(token);
                black_box(server.map(|(_, server)| (server.key, server.state)));
            }
            None => {}
        }
    }

    /// The request with this key is being read, and will be looked for: asks the memory for its place.
    pub fn foresee_server(&self, key: u128) {
        black_box(self.directory.head(key));
    }

    fn client_timer(&mut self, now: Instant, slot: u32, outbox: &mut Outbox) -> Option<Notice> {
        let id = self.clients.tenant(slot)?.0;
        let client = self.clients.get_mut(id)?;
        let due = client.clock.due(now);
        client.clock.arm(&mut self.wheel);
        let lingering = !client.state.is_pending();
        // A second timer C, 64·T1 after the CANCEL, is the branch's end.
        let event = match due? {
            Timer::C if client.cancel.is_some() => ClientEvent::Abandon,
            timer => ClientEvent::Fired(timer),
        };
        match self.step_client(now, id, event, None, outbox).1 {
            // The quiet end of a finished transaction is nobody's business.
            Some(Notice::ClientTimeout(_)) if lingering => None,
            notice => notice,
        }
    }

    fn server_timer(&mut self, now: Instant, slot: u32, outbox: &mut Outbox) -> Option<Notice> {
        let id = self.servers.tenant(slot)?.0;
        let server = self.servers.get_mut(id)?;
        let due = server.clock.due(now);
        server.clock.arm(&mut self.wheel);
        let event = ServerEvent::Fired(due?);
        let context = server.context;
        let late = self.step_server(now, id, event, None, outbox).1;
        match (late, self.servers.get(id)) {
            (true, _) => Some(Notice::Late(id)),
            (false, None) => context.map(Notice::Expired),
            (false, Some(_)) => None,
        }
    }
}

impl Server {
    pub fn is_invite(&self) -> bool {
        matches!(self.state, ServerState::Invite(_))
    }
}

/// Tells the wires the name of a peer to which a connection may have to be opened.
pub fn introduce(flow: &Flow, host: &[u8], identity: u64, outbox: &mut Outbox) {
    if let Channel::Peer { name, .. } = flow.channel
        && name != 0
        && outbox.introductions.last().is_none_or(|last| last.name != name)
    {
        outbox.introduce(name, host, identity);
    }
}

impl ClientState {
    /// True until the first response.
    fn is_unanswered(self) -> bool {
        matches!(
            self,
            ClientState::Invite(invite_client::State::Calling) | ClientState::NonInvite(non_invite_client::State::Trying)
        )
    }

    fn is_pending(self) -> bool {
        use invite_client::State as I;
        use non_invite_client::State as N;
        matches!(
            self,
            ClientState::Invite(I::Calling | I::Proceeding) | ClientState::NonInvite(N::Trying | N::Proceeding)
        )
    }
}
