//! All connections of one core: accepts, opens, reads, writes, and closes what is overdue.

mod describe;
mod ends;

pub use describe::Description;

use super::ages::Ages;
use super::connection::{Arrival, Connection, Flags, State, Taken, Why};
use super::counters::{StreamCounters, Traffic, Undeliverable};
use super::limits::Limits;
use super::listen::{self, Listener};
use super::pool::Buffers;
use super::shaking::Shaking;
use super::sys;
use super::tls::Contexts;
use crate::base::{Arena, Channel, Flow, Id, Instant, LogBudget, Roll, Sources, Transport};
use mio::event::Event;
use mio::{Interest, Registry, Token};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How long a connection that nothing comes from any more waits for what is owed to it: 64·T1, as long as a transaction lasts.
const DRAIN_MS: u64 = 32_000;

/// Overdue connections are looked for on this grid.
const GRID_MS: u64 = 100;

/// A connection's place in the order of the idle is renewed after so long, not with each message; where the idle time-out is
/// short, after a tenth of it.
const FRESH_MS: u64 = 1000;

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;

/// Handshakes that are carried on in one turn; what is established goes first.
const HANDSHAKES: usize = 8;

/// Bytes read from one connection in one turn.
const BITE: usize = 64 << 10;
/// Connections that are asked how much waits in them; they stand for all.
const ASKED: usize = 16;

/// Connections have tokens from here on: their generation above, their place below.
const FIRST_TOKEN: usize = 1 << 32;

/// What came of accepting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// Nobody waits any more.
    All,
    /// There may be more.
    Some,
    /// Those who wait have to go on waiting, until a handshake or a connection has ended, or for a moment.
    Held,
}

pub struct Streams {
    core: u8,
    limits: Limits,
    roll: Arc<Roll>,
    /// Who is banned; `None`: nobody.
    sources: Option<Arc<Sources>>,
    tls: Option<Arc<Contexts>>,
    connections: Arena<Connection>,
    /// Those that we opened, by what the rules asked for.
    asked: HashMap<(Transport, SocketAddr, u64, u64), Id>,
    /// Those that peers opened, by where from.
    accepted: HashMap<(Transport, SocketAddr), Id>,
    /// By [`State`].
    ages: [Ages; State::ALL.len()],
    /// May hold bytes, in the order in which they are served.
    ready: Vec<Id>,
    shaking: Shaking,
    dirty: Vec<Id>,
    scratch: Vec<u8>,
    plaintext: Vec<u8>,
    buffers: Buffers,
    /// What the rules have to be told.
    lost: Vec<Flow>,
    next_sweep: Instant,
    /// The kernel had no descriptor or no memory for a connection: when the next one is tried.
    accepts_from: Option<Instant>,
    log: LogBudget,
    shaking_log: LogBudget,
    overload_log: LogBudget,
    accept_log: LogBudget,
    full_log: LogBudget,
    counters: StreamCounters,
    registry: Registry,
}

impl Streams {
    /// `roll` limits how many connections there can be.
    pub fn new(
        core: u8,
        limits: Limits,
        roll: Arc<Roll>,
        tls: Option<Arc<Contexts>>,
        registry: Registry,
    ) -> Streams {
        let places = roll.places();
        Streams {
            core,
            limits: Limits {
                connections: limits.connections.min(places),
                ..limits
            },
            roll,
            sources: None,
            tls,
            // The name of a connection outlives us, in the Route of a dialog: nobody who connects after a restart may inherit it.
            connections: Arena::counting_from(RandomState::new().hash_one(core) as u32),
            asked: HashMap::new(),
            accepted: HashMap::new(),
            ages: [Ages::default(); State::ALL.len()],
            ready: Vec::new(),
            shaking: Shaking::default(),
            dirty: Vec::new(),
            scratch: vec![0; BITE],
            plaintext: Vec::new(),
            buffers: Buffers::default(),
            lost: Vec::new(),
            next_sweep: Instant::default(),
            accepts_from: None,
            log: LogBudget::new("single connections"),
            shaking_log: LogBudget::of_limit("TLS clients that wait"),
            overload_log: LogBudget::of_limit("TLS connections refused"),
            accept_log: LogBudget::of_limit("connections that cannot be accepted"),
            full_log: LogBudget::of_limit("connections beyond the limit"),
            counters: StreamCounters::default(),
            registry,
        }
    }

    /// Other limits, valid for what comes next. There cannot be more connections than there were places at the start.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits {
            connections: limits.connections.min(self.roll.places()),
            ..limits
        };
    }

    /// From now on no connection is taken from whom these ban.
    pub fn ask_of_bans(&mut self, sources: Arc<Sources>) {
        self.sources = Some(sources);
    }

    /// Certificates and keys for handshakes that begin from now on.
    pub fn set_tls(&mut self, contexts: Option<Arc<Contexts>>) {
        self.tls = contexts;
    }

    pub fn core(&self) -> u8 {
        self.core
    }

    /// The listener that a connection belongs to.
    pub fn listener_of(&self, id: Id) -> Option<u16> {
        Some(self.connections.get(id)?.listener)
    }

    // ---- events --------------------------------------------------------------------------------------------------------

    /// True for a token that names a connection.
    pub fn owns(token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    fn token(id: Id) -> Token {
        Token((id.generation as usize) << 32 | id.slot as usize)
    }

    /// Takes in what the poll says about one connection.
    pub fn note(&mut self, event: &Event, now: Instant) {
        let Token(number) = event.token();
        let id = Id {
            slot: number as u32,
            generation: (number >> 32) as u32,
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.state == State::Connecting {
            if event.is_writable() || event.is_error() || event.is_read_closed() {
                self.connected(id, now);
            }
            if event.is_readable() {
                self.mark_ready(id, now);
            }
            return;
        }
        if event.is_read_closed() || event.is_error() {
            connection.flags.is_half_closed = true;
        }
        if event.is_writable() && connection.awaits_room() {
            self.mark_dirty(id);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.mark_ready(id, now);
        }
    }

    fn mark_ready(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.flags.is_ready {
            return;
        }
        connection.flags.is_ready = true;
        let has_begun = connection.names.is_some() || connection.flags.has_spoken;
        match connection.state {
            State::Handshaking if has_begun => self.shaking.carry_on(id),
            State::Handshaking => self.shaking.begin(id, now),
            _ => self.ready.push(id),
        }
    }

    fn mark_dirty(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.flags.is_dirty
        {
            connection.flags.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// True when there is something to do before the next event.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
            || !self.shaking.is_empty()
            || !self.lost.is_empty()
            || !self.dirty.is_empty()
    }

    /// True when established connections hold more than the bite that was taken of them.
    pub fn is_behind(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Memory of what waits in them, as the kernel counts it. Where they are many, some stand for all.
    pub fn waiting_bytes(&self) -> u64 {
        let asked = self.ready.len().min(ASKED);
        let bytes = |id: &Id| {
            let connection = self.connections.get(*id)?;
            let waiting = sys::waiting(connection.stream.as_fd()).ok()?;
            Some(u64::from(waiting.bytes))
        };
        let sum: u64 = self.ready.iter().take(asked).filter_map(bytes).sum();
        sum * self.ready.len() as u64 / asked.max(1) as u64
    }

    // ---- coming in -----------------------------------------------------------------------------------------------------

    /// True when no more handshakes may begin: the listener's backlog waits.
    pub fn is_busy_shaking(&self) -> bool {
        let shaking = self.counters.open(Transport::Tls, State::Handshaking);
        shaking >= self.limits.handshakes as u64
    }

    /// Accepts a bounded number of connections.
    pub fn accept(&mut self, listener: &Listener, number: u16, now: Instant) -> Accepted {
        let is_tls = listener.transport() == Transport::Tls;
        let overlong_ms = match is_tls {
            true => self.shaking.overlong_ms(now, self.limits.patience_ms),
            false => None,
        };
        for _ in 0..ACCEPTS {
            if is_tls && overlong_ms.is_none() && self.is_busy_shaking() {
                self.counters.handshakes_held += 1;
                if self.shaking_log.may_say() {
                    let most = self.limits.handshakes;
                    log::warn!("TLS clients wait: {most} shake hands, which is the limit");
                }
                return Accepted::Held;
            }
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Accepted::All,
                    Some(libc::EINTR | libc::ECONNABORTED) => continue,
                    _ => {
                        // No descriptors, or no memory: those that wait stay with the kernel until some are free again.
                        self.counters.accept_errors += 1;
                        self.accepts_from = Some(now.after_ms(GRID_MS));
                        if self.accept_log.may_say() {
                            let (name, address) = (listener.transport().name(), listener.address());
                            log::error!(
                                "{name} {address}: connections wait, because none can be accepted: {error}{}",
                                remedy(&error)
                            );
                        }
                        return Accepted::Held;
                    }
                },
            };
            if self.is_banned(now, peer) {
                self.counters.banned += 1;
                continue;
            }
            if let Some(waited_ms) = overlong_ms {
                // To let it wait would make all wait, and most would have given up before their turn.
                self.counters.handshakes_refused += 1;
                if self.overload_log.may_say() {
                    log::warn!(
                        "{peer}: TLS connection refused: handshakes wait {waited_ms} ms for their beginning ([limits] overload)"
                    );
                }
                continue;
            }
            if !self.has_room() {
                self.counters.refused += 1;
                if self.full_log.may_say() {
                    log::warn!(
                        "{peer}: connection refused: {} are open, which is the limit ([connections] max, ulimit -n)",
                        self.limits.connections
                    );
                }
                continue;
            }
            let transport = listener.transport();
            let tls = match (transport, &self.tls) {
                (Transport::Tls, Some(contexts)) => match contexts.accept(peer) {
                    Ok(tls) => Some(Box::new(tls)),
                    Err(error) => {
                        self.counters.accept_errors += 1;
                        log::error!("{peer}: connection not accepted: {error}");
                        continue;
                    }
                },
                (Transport::Tls, None) => continue,
                _ => None,
            };
            let flow = Flow {
                peer,
                listener: number,
                transport,
                core: self.core,
                channel: Channel::Back,
            };
            let state = match tls {
                Some(_) => State::Handshaking,
                None => State::Open,
            };
            let size = self.limits.message_size;
            let connection = Connection::new(stream, &flow, state, tls, size, now);
            match self.admit(connection, Interest::READABLE, now) {
                Ok(id) => {
                    self.counters.accepted += 1;
                    self.accepted.insert((transport, peer), id);
                    // The first message is often there already.
                    self.mark_ready(id, now);
                }
                Err(error) => log::error!("{peer}: connection not accepted: {error}"),
            }
        }
        Accepted::Some
    }

    fn is_banned(&self, now: Instant, peer: SocketAddr) -> bool {
        let sources = self.sources.as_ref();
        sources.is_some_and(|sources| sources.is_banned(now, peer))
    }

    /// Gives a connection its place in the table, in the poll and among the waiting.
    fn admit(
        &mut self,
        connection: Connection,
        interest: Interest,
        now: Instant,
    ) -> io::Result<Id> {
        let (transport, state) = (connection.transport, connection.state);
        let id = self.connections.insert(connection);
        let Some(connection) = self.connections.get_mut(id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        connection.flags.awaits_room = interest.is_writable();
        let registered =
            self.registry
                .register(&mut connection.stream, Streams::token(id), interest);
        if let Err(error) = registered {
            self.connections.remove(id);
            return Err(error);
        }
        self.counters.enter(transport, state);
        self.ages[state as usize].push(&mut self.connections, id, now);
        // From the beginning: the first request may come in the flight that ends the handshake.
        self.roll.enter(self.core, id.slot, id.generation);
        Ok(id)
    }

    fn change(&mut self, id: Id, to: State, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let from = std::mem::replace(&mut connection.state, to);
        let transport = connection.transport;
        self.counters.leave(transport, from);
        self.counters.enter(transport, to);
        self.ages[from as usize].remove(&mut self.connections, id);
        self.ages[to as usize].push(&mut self.connections, id, now);
        if to == State::Draining {
            self.roll.half_close(self.core, id.slot, id.generation);
        }
    }

    /// Those that hold something, taken off the list: they are to be [served](Streams::serve) in this turn.
    pub fn take_ready(&mut self, list: &mut Vec<Id>) {
        list.clear();
        std::mem::swap(&mut self.ready, list);
        self.shaking.take(HANDSHAKES, list);
    }

    /// Reads a bite from one connection, and hands over what is whole in it; `on` says whether that will be answered.
    pub fn serve(
        &mut self,
        id: Id,
        now: Instant,
        traffic: &mut Traffic,
        mut on: impl FnMut(Flow, Arrival<'_>) -> bool,
    ) {
        let (core, roll) = (self.core, &self.roll);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.flags.is_ready = false;
        if connection.state == State::Draining {
            if let Err(error) = connection.discard(&mut self.scratch) {
                self.close(id, Why::Error(error));
            }
            return;
        }
        // Who does not take what he is sent is not heard either, until he does. But what waits for the end of a handshake can only
        // leave when that is heard.
        if connection.state == State::Open && connection.waiting() > self.limits.send_queue / 2 {
            connection.flags.is_held = true;
            return;
        }
        let flow = connection.flow(core, id);
        let was_shaking = connection.state == State::Handshaking;
        let taken = connection.read(
            &mut self.scratch,
            &mut self.plaintext,
            &mut self.buffers,
            |names| roll.prove(core, id.slot, id.generation, names),
            |arrival| {
                if let Arrival::Message(bytes) = &arrival {
                    traffic.count(bytes);
                }
                on(flow, arrival)
            },
        );
        let speaks = !connection.plain.is_empty()
            || connection
                .tls
                .as_mut()
                .is_some_and(|tls| !tls.output().is_empty());
        let established = was_shaking
            && connection
                .tls
                .as_ref()
                .is_some_and(|tls| tls.is_established());
        let (since, is_fresh) = (connection.age.since, connection.flags.is_fresh);
        if was_shaking && speaks {
            connection.flags.has_spoken = true;
        }
        if established {
            self.established(id, now);
        } else if is_fresh && !was_shaking && now.ms_since(since) >= self.fresh_ms() {
            self.renew(id, now);
        }
        if speaks || established {
            self.mark_dirty(id);
        }
        match taken {
            Taken::Drained => {}
            Taken::More => self.mark_ready(id, now),
            Taken::End => self.ended(id, now),
            Taken::Failed(Why::Garbage(fault)) => self.drain(id, Why::Garbage(fault), now),
            Taken::Failed(why) => self.close(id, why),
        }
    }

    fn fresh_ms(&self) -> u64 {
        FRESH_MS.min(self.deadline_ms(State::Open) / 10)
    }

    /// It was used: it goes to the young end of the idle.
    fn renew(&mut self, id: Id, now: Instant) {
        if let Some(connection) = self.connections.get(id)
            && connection.state == State::Open
        {
            let open = &mut self.ages[State::Open as usize];
            open.remove(&mut self.connections, id);
            open.push(&mut self.connections, id, now);
        }
    }

    fn established(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if let Some(tls) = &connection.tls {
            let side = usize::from(connection.names.is_some());
            self.counters.shaken(side, tls);
            log::debug!(
                "{}: {} {}, {}",
                connection.peer,
                tls.version(),
                tls.cipher(),
                if tls.is_resumed() {
                    "resumed"
                } else {
                    "full handshake"
                }
            );
        }
        self.change(id, State::Open, now);
    }

    // ---- going out -----------------------------------------------------------------------------------------------------

    /// Takes one message for `flow`; it leaves with [`Streams::flush`]. Where a connection is opened for it, `from` is our side's
    /// address and `host` the name that the peer must prove, with the certificate that it is shown.
    pub fn send(
        &mut self,
        now: Instant,
        flow: &Flow,
        from: Option<SocketAddr>,
        message: &[u8],
        host: Option<(&[u8], u64)>,
    ) -> Result<(), Undeliverable> {
        let id = match flow.channel {
            Channel::Connection { slot, generation } => Id { slot, generation },
            Channel::Back => self.find_accepted(flow)?,
            Channel::Peer { name, call } => match self.find_asked(flow, name, call) {
                Some(id) => id,
                None => self.open(now, flow, from, host)?,
            },
            Channel::Datagram { .. } => return Err(Undeliverable::NoSocket),
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return Err(Undeliverable::NoConnection);
        };
        if connection.waiting() + message.len() > self.limits.send_queue {
            return Err(Undeliverable::SendQueueFull);
        }
        connection.take(message, &mut self.buffers);
        self.mark_dirty(id);
        Ok(())
    }

    fn find_accepted(&self, flow: &Flow) -> Result<Id, Undeliverable> {
        let key = (flow.transport, flow.peer);
        self.accepted
            .get(&key)
            .copied()
            .ok_or(Undeliverable::NoConnection)
    }

    fn find_asked(&self, flow: &Flow, name: u64, call: u64) -> Option<Id> {
        let key = (flow.transport, flow.peer, name, call);
        let found = self.asked.get(&key).copied();
        // A phone whose contact is the very address from which it has connected is reached by that connection. Not over TLS:
        // the connection does not prove that it may be called by the name that is asked.
        found.or_else(|| {
            let id = *self.accepted.get(&(Transport::Tcp, flow.peer))?;
            let is_open = self.connections.get(id)?.state == State::Open;
            (is_open && flow.transport == Transport::Tcp && name == 0 && call == 0).then_some(id)
        })
    }

    /// Begins to connect. `host`: the name that the peer's certificate must prove.
    fn open(
        &mut self,
        now: Instant,
        flow: &Flow,
        from: Option<SocketAddr>,
        host: Option<(&[u8], u64)>,
    ) -> Result<Id, Undeliverable> {
        if !self.has_room() {
            self.counters.refused += 1;
            if self.log.may_say() {
                log::warn!(
                    "{}: not connected: {} are open, which is the limit",
                    flow.peer,
                    self.limits.connections
                );
            }
            return Err(Undeliverable::NoConnection);
        }
        let tls = match (flow.transport, &self.tls, host) {
            (Transport::Tls, Some(contexts), Some((host, identity))) => {
                let host = std::str::from_utf8(host).map_err(|_| Undeliverable::Unreachable)?;
                match contexts.connect_as(flow.peer, host, identity) {
                    Ok(tls) => Some(Box::new(tls)),
                    Err(error) => {
                        log::error!("TLS {}: not connected: {error}", flow.peer);
                        return Err(Undeliverable::NoConnection);
                    }
                }
            }
            (Transport::Tls, _, _) => return Err(Undeliverable::NoConnection),
            _ => None,
        };
        let opened = listen::connect(flow.peer, from).and_then(|stream| {
            let size = self.limits.message_size;
            let connection = Connection::new(stream, flow, State::Connecting, tls, size, now);
            self.admit(connection, Interest::READABLE | Interest::WRITABLE, now)
        });
        match opened {
            Ok(id) => {
                if let Channel::Peer { name, call } = flow.channel {
                    self.asked
                        .insert((flow.transport, flow.peer, name, call), id);
                }
                self.counters.connecting += 1;
                Ok(id)
            }
            Err(error) => {
                if self.log.may_say() {
                    let (name, peer) = (flow.transport.name(), flow.peer);
                    log::info!("{name} {peer}: not connected: {error}");
                }
                self.counters.failed += 1;
                Err(Undeliverable::Unreachable)
            }
        }
    }

    /// The poll says how connecting went.
    fn connected(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if let Err(error) | Ok(Some(error)) = connection.stream.take_error() {
            return self.close(id, Why::Error(error));
        }
        match connection.stream.peer_addr() {
            Ok(_) => {}
            // Neither failed nor done: the event was another's.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            Err(error) => return self.close(id, Why::Error(error)),
        }
        let next = match &mut connection.tls {
            Some(tls) => {
                if let Err(failure) = tls.start() {
                    return self.close(id, Why::Tls(failure));
                }
                State::Handshaking
            }
            None => State::Open,
        };
        self.change(id, next, now);
        self.mark_dirty(id);
    }

    /// The call that used the flow is over: a connection of its own closes with the next [`Streams::flush`].
    pub fn release(&mut self, flow: &Flow) {
        let id = match flow.channel {
            Channel::Connection { slot, generation } => Some(Id { slot, generation }),
            Channel::Peer { name, call } => {
                let key = (flow.transport, flow.peer, name, call);
                self.asked.get(&key).copied()
            }
            _ => None,
        };
        let Some(id) = id else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(id)
            && connection.is_private()
        {
            connection.flags.is_released = true;
            self.mark_dirty(id);
        }
    }

    /// One write for each connection that has something to say.
    pub fn flush(&mut self, now: Instant, traffic: impl FnMut(u16)) {
        let mut wrote = traffic;
        let fresh_ms = self.fresh_ms();
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            connection.flags.is_dirty = false;
            if !connection.is_silent() || connection.tls.is_some() {
                wrote(connection.listener);
            }
            if let Err(why) = connection.write(&mut self.buffers) {
                self.close(id, why);
                continue;
            }
            let awaits = connection.awaits_room();
            if awaits != connection.flags.awaits_room {
                let interest = match awaits {
                    true => Interest::READABLE | Interest::WRITABLE,
                    false => Interest::READABLE,
                };
                let token = Streams::token(id);
                let changed = self
                    .registry
                    .reregister(&mut connection.stream, token, interest);
                match changed {
                    Ok(()) => connection.flags.awaits_room = awaits,
                    Err(error) => {
                        self.close(id, Why::Error(error));
                        continue;
                    }
                }
            }
            let Flags {
                is_held,
                is_released,
                ..
            } = connection.flags;
            let silent = connection.is_silent();
            let over = connection.state == State::Draining && connection.owes_nothing();
            if silent && (over || (is_released && connection.state == State::Open)) {
                self.close(id, Why::Done);
                continue;
            }
            if is_held && connection.waiting() <= self.limits.send_queue / 2 {
                connection.flags.is_held = false;
                self.mark_ready(id, now);
            }
            // What is sent to a peer gives it no more time for what it has begun.
            if self.connections.get(id).is_some_and(|connection| {
                !connection.flags.is_amid && now.ms_since(connection.age.since) >= fresh_ms
            }) {
                self.renew(id, now);
            }
        }
        // What was marked meanwhile stays marked.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    // ---- what others ask for ------------------------------------------------------------------------------------------------

    /// Flows that have ended since the last call.
    pub fn take_lost(&mut self, list: &mut Vec<Flow>) {
        list.clear();
        std::mem::swap(&mut self.lost, list);
    }

    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub fn counters(&self) -> StreamCounters {
        self.counters
    }
}

/// What an operator can do so that connections are accepted.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "; raise the process's limit of open files (ulimit -n, LimitNOFILE) or lower [connections] max"
        }
        Some(libc::ENFILE) => "; the machine's limit of open files is reached (fs.file-max)",
        _ => "",
    }
}
