//! The connections of one core: where each enters the table, changes its state and leaves, and the lists that hold it meanwhile.

use super::logs::Logs;
use crate::base::{Channel, Flow, Id, Instant, LiveConnections, ProvedNames, Sources, Transport};
use crate::net::age_list::AgeList;
use crate::net::connection::{Connection, ReadQueue};
use crate::net::counters::StreamCounters;
use crate::net::holders::{Class, Holders};
use crate::net::limits::Limits;
use crate::net::pool::Buffers;
use crate::net::state::{Action, Event, State, Why, step};
use crate::net::table::Table;
use crate::net::tls::Contexts;
use mio::{Interest, Registry, Token};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The most bytes read from one connection in one turn.
pub(super) const BITE: usize = 64 << 10;

/// An idle connection's position in the age order is renewed after this time, not with each message; with a short idle timeout,
/// after a tenth of that.
const FRESH_MS: u64 = 1000;

/// How long a connection on which nothing arrives any more waits for what is owed to it: 64·T1, as long as a transaction lasts.
const DRAIN_MS: u64 = 32_000;

/// Tokens of connections start here: generation in the high bits, slot in the low bits.
const FIRST_TOKEN: usize = 1 << 32;

/// What the rules request when a connection is opened: transport, address, and the name and call of [`Channel::Peer`].
pub(super) type AskedFor = (Transport, SocketAddr, u64, u64);

pub struct Streams {
    pub(super) core: u8,
    pub(super) limits: Limits,
    pub(super) live: Arc<LiveConnections>,
    /// Knows which sources are banned; `None`: no bans.
    pub(super) sources: Option<Arc<Sources>>,
    pub(super) tls: Option<Arc<Contexts>>,
    pub(super) connections: Table<Connection>,
    /// Connections that we opened, by what the rules requested.
    pub(super) asked: HashMap<AskedFor, Id>,
    /// Connections that peers opened, by their addresses.
    pub(super) accepted: HashMap<(Transport, SocketAddr), Id>,
    /// By [`State`].
    pub(super) age_lists: [AgeList; State::ALL.len()],
    /// Bytes of incomplete messages.
    pub(super) unfinished_bytes: usize,
    /// Bytes that wait for their peers to take them.
    pub(super) unsent_bytes: usize,
    /// The most bytes held recently, and whether much of that is free again.
    pub(super) most_bytes: usize,
    pub(super) has_freed: bool,
    /// Connections that peers opened, by source.
    pub(super) holders: Holders,
    /// By [`ReadQueue`], connections that may hold input, in the order in which they are served. A closed connection leaves a stale
    /// name behind.
    pub(super) ready: Vec<Id>,
    /// These get a part of each turn's reads, behind the others: a peer that sends without end must not delay those that send
    /// little.
    pub(super) hungry: VecDeque<Id>,
    pub(super) handshake_queue: VecDeque<Id>,
    /// How much is read from each connection in this turn, and how much has been read from all.
    pub(super) bite: usize,
    pub(super) eaten: usize,
    /// Bytes read since the start.
    pub(super) read_bytes: u64,
    /// Connections with something to write at the end of the turn. A closed connection leaves a stale name behind.
    pub(super) dirty: Vec<Id>,
    pub(super) scratch: Vec<u8>,
    pub(super) plaintext: Vec<u8>,
    pub(super) buffers: Buffers,
    /// The ended flows of which the rules are to be notified.
    pub(super) lost: Vec<Flow>,
    pub(super) next_sweep: Instant,
    /// Until then the kernel is not asked for connections, because it could not give us any.
    pub(super) accepts_again: Instant,
    pub(super) logs: Logs,
    pub(super) counters: StreamCounters,
    pub(super) registry: Registry,
}

impl Streams {
    /// `live` limits the number of connections.
    pub fn new(core: u8, limits: Limits, live: Arc<LiveConnections>, tls: Option<Arc<Contexts>>, registry: Registry) -> Streams {
        let places = live.places();
        let connections = limits.connections.min(places);
        // The name of a connection outlives the process, in the Route of a dialog: no connection after a restart may inherit it.
        let first = RandomState::new().hash_one(core) as u32;
        Streams {
            core,
            limits: Limits { connections, ..limits },
            live,
            sources: None,
            tls,
            connections: Table::new(places, first),
            asked: HashMap::new(),
            accepted: HashMap::new(),
            age_lists: [AgeList::default(); State::ALL.len()],
            unfinished_bytes: 0,
            unsent_bytes: 0,
            most_bytes: 0,
            has_freed: false,
            holders: Holders::default(),
            ready: Vec::new(),
            hungry: VecDeque::new(),
            handshake_queue: VecDeque::new(),
            bite: BITE,
            eaten: 0,
            read_bytes: 0,
            dirty: Vec::new(),
            scratch: vec![0; BITE],
            plaintext: Vec::new(),
            buffers: Buffers::default(),
            lost: Vec::new(),
            next_sweep: Instant::default(),
            accepts_again: Instant::default(),
            logs: Logs::default(),
            counters: StreamCounters::default(),
            registry,
        }
    }

    /// Sets new limits, valid for what comes next. There cannot be more connections than there were slots at the start.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits { connections: limits.connections.min(self.live.places()), ..limits };
    }

    /// From now on no connection is accepted from a source that is banned in `sources`.
    pub fn ask_of_bans(&mut self, sources: Arc<Sources>) {
        self.sources = Some(sources);
    }

    /// Sets the certificates and keys for handshakes that begin from now on.
    pub fn set_tls(&mut self, contexts: Option<Arc<Contexts>>) {
        self.tls = contexts;
    }

    pub fn core(&self) -> u8 {
        self.core
    }

    /// Returns the connections on which messages may be sent, and what the peers of some have proved.
    pub fn living(&self) -> (Vec<Flow>, Vec<(Flow, ProvedNames)>) {
        let is_known = |state: State| !matches!(state, State::ProxyHeader | State::Connecting);
        let known = self.connections.iter().filter(|(_, connection)| is_known(connection.state));
        let flows = known.map(|(id, connection)| connection.flow(self.core, id));
        let flows: Vec<Flow> = flows.filter(|flow| self.live.is_alive(flow)).collect();
        let proved = flows.iter().filter_map(|flow| Some((*flow, self.live.proved(flow)?))).collect();
        (flows, proved)
    }

    /// Returns the listener that a connection belongs to.
    pub fn listener_of(&self, id: Id) -> Option<u16> {
        Some(self.connections.get(id)?.listener)
    }

    /// True for a token that names a connection.
    pub fn owns(token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    pub(super) fn token(id: Id) -> Token {
        Token((id.generation as usize) << 32 | id.slot as usize)
    }

    pub(super) fn named_by(token: Token) -> Id {
        Id { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }

    // ---- in, on, out ---------------------------------------------------------------------------------------------------

    /// Enters a connection into the table, the poll and the list of its state.
    pub(super) fn admit(&mut self, mut connection: Connection, interest: Interest, now: Instant) -> io::Result<Id> {
        let (transport, state) = (connection.transport, connection.state);
        connection.flags.asks_room = interest.is_writable();
        let id = self.connections.insert(connection);
        if let Some(connection) = self.connections.known_mut(id) {
            let token = Streams::token(id);
            let registered = self.registry.register(&mut connection.stream, token, interest);
            if let Err(error) = registered {
                self.connections.remove(id);
                return Err(error);
            }
        }
        self.counters.enter(transport, state);
        self.age_lists[state as usize].push(&mut self.connections, id, now);
        // From the beginning: the first request may arrive in the flight that ends the handshake.
        self.live.enter(self.core, id.slot, id.generation);
        Ok(id)
    }

    /// Takes the step that an event requires.
    pub(super) fn apply(&mut self, id: Id, event: Event, now: Instant) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let before = connection.state;
        let (next, action) = match step(before, event) {
            Ok(step) => step,
            Err(event) => {
                debug_assert!(false, "{event:?} of a connection that is {before:?}");
                return;
            }
        };
        if next != before {
            self.change(id, next, now);
        }
        match action {
            Action::Nothing => {}
            Action::Renew if next != before => self.renew_holder(id, now),
            Action::Renew => self.renew(id, now),
            Action::Write => self.mark_dirty(id),
            Action::Drain(why) => {
                self.log_drain(id, &why);
                if before != State::Draining {
                    self.begin_to_drain(id, now);
                }
                self.mark_dirty(id);
            }
            Action::Close(why) => self.close(id, why),
        }
    }

    fn change(&mut self, id: Id, to: State, now: Instant) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        let from = std::mem::replace(&mut connection.state, to);
        let transport = connection.transport;
        self.age_lists[from as usize].remove(&mut self.connections, id);
        self.age_lists[to as usize].push(&mut self.connections, id, now);
        self.counters.leave(transport, from);
        self.counters.enter(transport, to);
    }

    /// Moves a connection to the young end of its list; the others of its source give way before it does.
    pub(super) fn renew(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let list = &mut self.age_lists[connection.state as usize];
        list.remove(&mut self.connections, id);
        list.push(&mut self.connections, id, now);
        self.renew_holder(id, now);
    }

    /// A connection that waits for its turn to begin its handshake keeps that turn.
    fn renew_holder(&mut self, id: Id, now: Instant) {
        let connection = self.connections.known(id);
        if connection.is_some_and(|connection| connection.state.is_open()) {
            self.holders.renew(id.slot, now);
        }
    }

    fn begin_to_drain(&mut self, id: Id, now: Instant) {
        self.report_end(id);
        self.live.half_close(self.core, id.slot, id.generation);
        if let Some(connection) = self.connections.known_mut(id) {
            connection.drop_partial(&mut self.buffers);
            if connection.read_queue == ReadQueue::Parked {
                connection.read_queue = ReadQueue::Nowhere;
                self.mark_ready(id, now);
            }
        }
        self.weigh(id);
    }

    /// Has the rules notified that nothing more arrives on this connection, and that nothing new may be sent on it.
    fn report_end(&mut self, id: Id) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        if connection.state == State::ProxyHeader {
            // They have never heard of it.
            return;
        }
        if let Some((name, call)) = connection.names() {
            let key = (connection.transport, connection.peer, name, call);
            if self.asked.get(&key) == Some(&id) {
                self.asked.remove(&key);
            }
        }
        let asked = match connection.names() {
            // Requests may have found it by its address ([`Streams::send`]).
            None if connection.transport == Transport::Tcp => Some((0, 0)),
            names => names,
        };
        let flow = connection.flow(self.core, id);
        self.lost.extend(asked.map(|(name, call)| Flow { channel: Channel::Peer { name, call }, ..flow }));
        self.lost.push(flow);
    }

    fn close(&mut self, id: Id, why: Why) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        connection.say_goodbye(&mut self.buffers);
        self.log_close(id, &why);
        self.count_close(id, &why);
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let (transport, state, peer) = (connection.transport, connection.state, connection.peer);
        if state != State::Draining {
            self.report_end(id);
        }
        let key = (transport, peer);
        if self.accepted.get(&key) == Some(&id) {
            self.accepted.remove(&key);
        }
        self.age_lists[state as usize].remove(&mut self.connections, id);
        self.unweigh(id);
        self.holders.leave(id.slot);
        self.counters.leave(transport, state);
        self.live.enter(self.core, id.slot, 0);
        // Closing the socket also removes it from the poll.
        self.connections.remove(id);
    }

    fn count_close(&mut self, id: Id, why: &Why) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        match (why, connection.state) {
            (_, State::Connecting) => self.counters.failed += 1,
            (Why::ProxyHeader(_) | Why::Overdue(State::ProxyHeader), _) => self.counters.proxy_header_failed += 1,
            (Why::Early | Why::Error(_) | Why::Done, _) if connection.flags.is_balancers => {}
            (Why::Late, _) => self.counters.handshakes_refused += 1,
            (_, State::Accepted | State::Handshaking) => {
                let side = usize::from(connection.names().is_some());
                self.counters.failed_handshake(side, connection.tls.as_deref());
            }
            (Why::Overdue(State::Open), _) => self.counters.idle_closed += 1,
            (Why::Unfinished, _) => self.counters.unfinished += 1,
            (Why::Displaced, _) => self.counters.displaced += 1,
            (Why::Blank(_), _) => self.counters.blank += 1,
            (Why::Crowded(_), _) => self.counters.crowded += 1,
            _ => {}
        }
        match why {
            Why::Yields(_) => self.counters.yielded += 1,
            Why::Stalled(_) => self.counters.stalled += 1,
            _ => {}
        }
    }

    fn log_close(&mut self, id: Id, why: &Why) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let (name, peer) = (connection.transport.name(), connection.peer);
        let way = match connection.names() {
            Some(_) => "to",
            None => "from",
        };
        // A load balancer looks whether this server is there, and leaves as it likes.
        let is_quiet = match why {
            Why::Done | Why::Overdue(State::Open) | Why::Refused => true,
            Why::Early | Why::Error(_) => connection.flags.is_balancers || connection.state == State::ProxyHeader,
            Why::Banned => connection.state == State::ProxyHeader,
            _ => false,
        };
        if is_quiet {
            log::debug!("{name} {way} {peer}: closed: {why}");
            return;
        }
        if !self.logs.about(why).may_say() {
            return;
        }
        match (why, connection.state) {
            (_, State::Connecting) => log::info!("{name} {way} {peer}: not connected: {why}"),
            (Why::Tls(failure), _) => log::info!("{name} {way} {peer}: {failure}"),
            (Why::Stalled(_) | Why::Yields(_), _) => {
                log::warn!("{name} {way} {peer}: closed: {why}")
            }
            (_, State::Accepted | State::Handshaking) => {
                log::info!("{name} {way} {peer}: handshake failed: {why}");
            }
            (Why::Blank(_) | Why::Crowded(_) | Why::ProxyHeader(_) | Why::Overdue(State::ProxyHeader), _) => {
                log::warn!("{name} {way} {peer}: closed: {why}");
            }
            _ => log::info!("{name} {way} {peer}: closed: {why}"),
        }
    }

    fn log_drain(&mut self, id: Id, why: &Why) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        if !matches!(why, Why::Done) && self.logs.single.may_say() {
            log::info!("{} {}: {why}", connection.transport.name(), connection.peer);
        }
        if let Why::Garbage(_) = why {
            self.counters.garbage += 1;
        }
    }

    // ---- lists of what is to be done -----------------------------------------------------------------------------------

    /// Lists a connection that may hold input.
    pub(super) fn mark_ready(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        if connection.read_queue != ReadQueue::Nowhere {
            return;
        }
        connection.read_queue = match connection.state {
            State::Accepted => {
                self.holders.step(id.slot, Class::Waiting, now);
                ReadQueue::Turn
            }
            State::Handshaking => {
                self.handshake_queue.push_back(id);
                ReadQueue::Handshake
            }
            _ => {
                self.ready.push(id);
                ReadQueue::Ready
            }
        };
    }

    /// Lists a connection with bytes to be sent at the end of this turn.
    pub(super) fn mark_dirty(&mut self, id: Id) {
        if let Some(connection) = self.connections.known_mut(id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    // ---- bytes held ----------------------------------------------------------------------------------------------------

    /// Counts the memory of a connection's incomplete message.
    pub(super) fn weigh(&mut self, id: Id) {
        if let Some(connection) = self.connections.known_mut(id) {
            let weight = connection.unfinished_bytes();
            let before = std::mem::replace(&mut connection.weight, weight as u32);
            self.unfinished_bytes = self.unfinished_bytes + weight - before as usize;
        }
    }

    /// Counts what waits to be sent.
    pub(super) fn count_unsent(&mut self, id: Id) {
        if let Some(connection) = self.connections.known_mut(id) {
            let waiting = connection.waiting();
            let before = std::mem::replace(&mut connection.unsent, waiting as u32);
            self.unsent_bytes = self.unsent_bytes + waiting - before as usize;
        }
    }

    fn unweigh(&mut self, id: Id) {
        if let Some(connection) = self.connections.known_mut(id) {
            self.unfinished_bytes -= std::mem::take(&mut connection.weight) as usize;
            self.unsent_bytes -= std::mem::take(&mut connection.unsent) as usize;
        }
    }

    // ---- times ---------------------------------------------------------------------------------------------------------

    /// Returns how long a connection may stay in a state.
    pub(super) fn deadline_ms(&self, state: State) -> u64 {
        match state {
            State::Connecting => self.limits.rules.connect_timeout,
            State::ProxyHeader | State::Accepted | State::Handshaking => self.limits.rules.handshake_timeout,
            State::Open => self.limits.rules.idle_timeout,
            State::Receiving => self.limits.rules.message_timeout,
            State::Draining => DRAIN_MS,
        }
    }

    pub(super) fn fresh_ms(&self) -> u64 {
        FRESH_MS.min(self.limits.rules.idle_timeout / 10)
    }
}
