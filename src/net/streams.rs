//! All connections of one core: accepts, opens, reads, writes, and closes what is overdue.

mod accepting;
mod describe;
mod ends;
mod giving_way;
mod logs;

pub use describe::Description;

use super::age_list::AgeList;
use super::connection::{Arrival, Connection, Flags, State, Taken, Why};
use super::counters::{StreamCounters, Traffic, Undeliverable};
use super::holders::{Class, Holders};
use super::limits::Limits;
use super::listen;
use super::pool::Buffers;
use super::sys;
use super::table::Table;
use super::tls::Contexts;
use crate::base::{Channel, Flow, Id, Instant, LiveConnections, Sources, Transport};
use logs::Logs;
use mio::event::Event;
use mio::{Interest, Registry, Token};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
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

/// Handshakes that are begun or carried on in one turn; what is established goes first.
const HANDSHAKES: usize = 8;

/// Of these, those that are begun where any wait: a client that brings its handshake byte by byte must not keep the others from theirs.
const BEGUN: usize = 3;

/// Bytes read from one connection in one turn; less where many hold something, so that each has its turn soon.
const BITE: usize = 64 << 10;
const SMALLEST_BITE: usize = 4 << 10;

/// Bytes read from all connections in one turn, or little more: datagrams wait meanwhile.
const MEAL: usize = 256 << 10;

/// Connections that are asked how much waits in them; they stand for all.
const ASKED: usize = 16;

/// Connections that hold more than a bite and are served in one turn: before those that do not, and at most behind them.
const HUNGRY_FIRST: usize = 2;
const HUNGRY: usize = 56;

/// What a keep-alive is counted as.
const KEEP_ALIVE: &[u8] = b"\r\n\r\n";

/// Connections have tokens from here on: their generation above, their place below.
const FIRST_TOKEN: usize = 1 << 32;

/// What came of accepting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// Nobody waits any more.
    All,
    /// There may be more.
    Some,
    /// The kernel gives us none now: those that wait have to go on waiting.
    Held,
}

pub struct Streams {
    core: u8,
    limits: Limits,
    live: Arc<LiveConnections>,
    /// Who is banned; `None`: nobody.
    sources: Option<Arc<Sources>>,
    tls: Option<Arc<Contexts>>,
    connections: Table<Connection>,
    /// Those that we opened, by what the rules asked for.
    asked: HashMap<(Transport, SocketAddr, u64, u64), Id>,
    /// Those that peers opened, by where from.
    accepted: HashMap<(Transport, SocketAddr), Id>,
    /// By [`State`]; those of the open on which no message has begun.
    ages: [AgeList; State::ALL.len()],
    /// The open on which one has, since when.
    amid: AgeList,
    /// Bytes of messages that have begun on these.
    amid_bytes: usize,
    /// Bytes that wait for their peers to take them.
    unsent_bytes: usize,
    /// The most that connections held of late, and whether much of it is free again.
    most_bytes: usize,
    has_freed: bool,
    /// Those that peers opened, by source.
    holders: Holders,
    /// May hold bytes, in the order in which they are served.
    ready: Vec<Id>,
    /// Hold more than the bite that was taken of them. They have a part of each meal and come behind the others: what sends without an end
    /// is not to keep those waiting that say a word.
    hungry: VecDeque<Id>,
    /// The same, of those that shake hands.
    shaking: VecDeque<Id>,
    /// How much is read from each in this turn, and how much has been from all.
    bite: usize,
    eaten: usize,
    /// Bytes read since the start.
    read_bytes: u64,
    dirty: Vec<Id>,
    scratch: Vec<u8>,
    plaintext: Vec<u8>,
    buffers: Buffers,
    /// What the rules have to be told.
    lost: Vec<Flow>,
    next_sweep: Instant,
    /// Before then the kernel is not asked for connections that it could not give us.
    accepts_again: Instant,
    logs: Logs,
    counters: StreamCounters,
    registry: Registry,
}

impl Streams {
    /// `live` limits how many connections there can be.
    pub fn new(
        core: u8,
        limits: Limits,
        live: Arc<LiveConnections>,
        tls: Option<Arc<Contexts>>,
        registry: Registry,
    ) -> Streams {
        let places = live.places();
        Streams {
            core,
            limits: Limits {
                connections: limits.connections.min(places),
                ..limits
            },
            live,
            sources: None,
            tls,
            // The name of a connection outlives us, in the Route of a dialog: nobody who connects after a restart may inherit it.
            connections: Table::new(places, RandomState::new().hash_one(core) as u32),
            asked: HashMap::new(),
            accepted: HashMap::new(),
            ages: [AgeList::default(); State::ALL.len()],
            amid: AgeList::default(),
            amid_bytes: 0,
            unsent_bytes: 0,
            most_bytes: 0,
            has_freed: false,
            holders: Holders::default(),
            ready: Vec::new(),
            hungry: VecDeque::new(),
            shaking: VecDeque::new(),
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

    /// Other limits, valid for what comes next. There cannot be more connections than there were places at the start.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits {
            connections: limits.connections.min(self.live.places()),
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
        match connection.state {
            State::Accepted => self.holders.step(id.slot, Class::Waiting, now),
            State::Handshaking => self.shaking.push_back(id),
            _ => self.ready.push(id),
        }
    }

    /// It holds more than was taken.
    fn mark_hungry(&mut self, id: Id, now: Instant) {
        match self.connections.get_mut(id) {
            Some(connection) if connection.state == State::Open && !connection.flags.is_ready => {
                connection.flags.is_ready = true;
                connection.flags.is_hungry = true;
                self.hungry.push_back(id);
            }
            _ => self.mark_ready(id, now),
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
            || !self.hungry.is_empty()
            || !self.shaking.is_empty()
            || self.holders.may_begin()
            || !self.lost.is_empty()
            || !self.dirty.is_empty()
    }

    /// True when established connections hold more than the bite that was taken of them.
    pub fn is_behind(&self) -> bool {
        !self.ready.is_empty() || !self.hungry.is_empty()
    }

    /// Memory of what waits in them, as the kernel counts it. Where they are many, some stand for all. Those that have not been of any use
    /// yet are left out: what they bring may be no message at all, and nobody waits behind it, as each connection is read in its turn.
    pub fn waiting_bytes(&self) -> u64 {
        let waiting = self.ready.len() + self.hungry.len();
        let step = waiting.div_ceil(ASKED).max(1);
        let bytes = |id: &Id| {
            let connection = self.connections.get(*id)?;
            let waiting = match connection.flags.is_known_proved || connection.names.is_some() {
                true => sys::waiting(connection.stream.as_fd()).ok()?,
                false => return None,
            };
            Some(u64::from(waiting.bytes))
        };
        let asked = self.ready.iter().chain(&self.hungry).step_by(step);
        asked.filter_map(bytes).sum::<u64>() * step as u64
    }

    /// Bytes read since the start.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    // ---- coming in -----------------------------------------------------------------------------------------------------

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
        self.list(id, now);
        // From the beginning: the first request may come in the flight that ends the handshake.
        self.live.enter(self.core, id.slot, id.generation);
        Ok(id)
    }

    fn change(&mut self, id: Id, to: State, now: Instant) {
        self.unlist(id);
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let from = std::mem::replace(&mut connection.state, to);
        let transport = connection.transport;
        self.counters.leave(transport, from);
        self.counters.enter(transport, to);
        self.list(id, now);
        if to == State::Draining {
            self.live.half_close(self.core, id.slot, id.generation);
        }
    }

    /// Puts it at the young end of those that wait for the same.
    fn list(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let is_amid = connection.state == State::Open && connection.flags.is_amid;
        connection.flags.is_listed_amid = is_amid;
        let ages = match is_amid {
            true => &mut self.amid,
            false => &mut self.ages[connection.state as usize],
        };
        ages.push(&mut self.connections, id, now);
    }

    fn unlist(&mut self, id: Id) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let ages = match connection.flags.is_listed_amid {
            true => &mut self.amid,
            false => &mut self.ages[connection.state as usize],
        };
        ages.remove(&mut self.connections, id);
    }

    /// Those that hold something, taken off the list: they are to be [served](Streams::serve) in this turn, in this order.
    pub fn take_ready(&mut self, list: &mut Vec<Id>, now: Instant) {
        list.clear();
        list.extend(self.hungry.drain(..self.hungry.len().min(HUNGRY_FIRST)));
        list.append(&mut self.ready);
        let places = match self.holders.may_begin() {
            true => HANDSHAKES - BEGUN,
            false => HANDSHAKES,
        };
        let count = self.shaking.len().min(places);
        list.extend(self.shaking.drain(..count));
        self.begin_handshakes(HANDSHAKES - count, list, now);
        list.extend(self.hungry.drain(..self.hungry.len().min(HUNGRY)));
        self.bite = (MEAL / list.len().max(1)).clamp(SMALLEST_BITE, BITE);
        self.eaten = 0;
    }

    /// True when so much was read in this turn that others have to be served first.
    pub fn is_sated(&self) -> bool {
        self.eaten >= MEAL
    }

    /// Those of the list that were not served are the first of the next turn.
    pub fn put_back(&mut self, list: &mut Vec<Id>) {
        let is_hungry = |id: &Id| {
            let connection = self.connections.get(*id);
            connection.is_some_and(|connection| connection.flags.is_hungry)
        };
        for id in list.iter().rev().filter(|id| is_hungry(id)) {
            self.hungry.push_front(*id);
        }
        list.retain(|id| !is_hungry(id));
        list.append(&mut self.ready);
        std::mem::swap(&mut self.ready, list);
    }

    /// Reads a bite from one connection, and hands over what is whole in it; `on` says whether that will be answered.
    pub fn serve(
        &mut self,
        id: Id,
        now: Instant,
        traffic: &mut Traffic,
        mut on: impl FnMut(Flow, Arrival<'_>) -> bool,
    ) {
        let (core, live, most_unsent) = (self.core, &self.live, self.send_queue());
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.flags.is_ready = false;
        connection.flags.is_hungry = false;
        if connection.state == State::Draining {
            if let Err(error) = connection.discard(&mut self.scratch) {
                self.close(id, Why::Error(error));
            }
            return;
        }
        // Who does not take what he is sent is not heard either, until he does. But what waits for the end of a handshake can only
        // leave when that is heard.
        if connection.state == State::Open && connection.waiting() > most_unsent / 2 {
            connection.flags.is_held = true;
            return;
        }
        let flow = connection.flow(core, id);
        let was_shaking = connection.state == State::Handshaking;
        connection.allow_blanks(self.limits.rules.keep_alive_bytes, now);
        let bite = self.bite;
        let (count, taken) = connection.read(
            self.scratch.get_mut(..bite).unwrap_or_default(),
            &mut self.plaintext,
            &mut self.buffers,
            |names| live.prove(core, id.slot, id.generation, names),
            |arrival| {
                match &arrival {
                    Arrival::Message(bytes) => traffic.count(bytes),
                    Arrival::KeepAlive => traffic.count(KEEP_ALIVE),
                    Arrival::Unframed(..) => {}
                }
                on(flow, arrival)
            },
        );
        self.eaten += count;
        self.read_bytes += count as u64;
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
        if established {
            self.established(id, now);
        } else if was_shaking {
            self.holders.renew(id.slot, now);
        }
        self.note_progress(id, now);
        if speaks || established {
            self.mark_dirty(id);
        }
        match taken {
            Taken::Drained => {}
            Taken::More => self.mark_hungry(id, now),
            Taken::End => self.ended(id, now),
            Taken::Failed(Why::Garbage(fault)) => self.drain(id, Why::Garbage(fault), now),
            Taken::Failed(why) => self.close(id, why),
        }
    }

    /// Gives an open connection the time that what it has brought deserves.
    fn note_progress(&mut self, id: Id, now: Instant) {
        let fresh_ms = self.fresh_ms();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.state != State::Open {
            return;
        }
        let Flags {
            is_amid,
            is_listed_amid,
            is_fresh,
            is_proved,
            is_known_proved,
            ..
        } = connection.flags;
        let is_old = now.ms_since(connection.age.since) >= fresh_ms;
        if is_proved && !is_known_proved {
            connection.flags.is_known_proved = true;
            self.holders.step(id.slot, Class::Proved, now);
        }
        if is_amid || is_listed_amid {
            self.weigh(id);
        }
        // A message that has begun has its own time, and so has the next one.
        if is_amid != is_listed_amid || (is_fresh && (is_amid || is_old)) {
            self.unlist(id);
            self.list(id, now);
            self.holders.renew(id.slot, now);
        }
        if is_amid {
            self.bound_unfinished();
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
            self.unlist(id);
            self.list(id, now);
            self.holders.renew(id.slot, now);
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
        self.holders.step(id.slot, Class::Unproved, now);
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
        let waits = connection.waiting() + message.len();
        if waits > self.send_queue() {
            if waits <= self.limits.rules.send_queue {
                self.note_unsent(id);
            }
            return Err(Undeliverable::SendQueueFull);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.take(message, &mut self.buffers);
        }
        self.count_unsent(id);
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
        if !self.has_room(None, now) {
            self.counters.refused += 1;
            if self.logs.full.may_say() {
                log::warn!(
                    "{}: not connected: {} connections are open, which is the limit ([connections] max)",
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
                if self.logs.single.may_say() {
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
        let (fresh_ms, most_unsent) = (self.fresh_ms(), self.send_queue());
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
            let waiting = connection.waiting();
            let before = std::mem::replace(&mut connection.unsent, waiting);
            self.unsent_bytes = self.unsent_bytes + waiting - before;
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
            if is_held && connection.waiting() <= most_unsent / 2 {
                connection.flags.is_held = false;
                self.mark_ready(id, now);
            }
            // What is sent to a peer gives it no more time for what it has begun.
            if self.connections.get(id).is_some_and(|connection| {
                !connection.flags.is_listed_amid && now.ms_since(connection.age.since) >= fresh_ms
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
        let mut counters = self.counters;
        counters.unfinished_bytes = self.amid_bytes as u64;
        counters.unsent_bytes = self.unsent_bytes as u64;
        counters
    }
}
