//! What peers send: which connections are served in a turn, in which order, and how much is read from each.

use super::life::{BITE, Streams};
use crate::base::{Flow, Id, Instant};
use crate::net::connection::{Arrival, Next, ReadBuffers, ReadQueue};
use crate::net::counters::Traffic;
use crate::net::holders::Class;
use crate::net::state::{Event, State, Why};
use crate::net::sys;
use std::os::fd::AsFd;

/// Handshakes begun or continued in one turn; established connections go first.
const HANDSHAKES: usize = 8;

/// How many of these are begun, if any wait: a client that sends its handshake byte by byte must not keep others from beginning.
const BEGUN: usize = 3;

/// If many connections have input, less than [`BITE`] is read from each, so that each has its turn soon.
const SMALLEST_BITE: usize = 4 << 10;

/// The most bytes (approximately) read from all connections in one turn, because datagrams wait meanwhile.
const MEAL: usize = 256 << 10;

/// Connections that are asked how much waits in them; they are a sample of all.
const ASKED: usize = 16;

/// Connections with more than a bite of input that are served in one turn: ahead of the others, and at most after them.
const HUNGRY_FIRST: usize = 2;
const HUNGRY: usize = 56;

/// What a keep-alive is counted as.
const KEEP_ALIVE: &[u8] = b"\r\n\r\n";

impl Streams {
    /// Takes the connections with input off their lists: they are to be [served](Streams::serve) in this turn, in this order.
    pub fn take_ready(&mut self, list: &mut Vec<Id>, now: Instant) {
        list.clear();
        list.extend(self.hungry.drain(..self.hungry.len().min(HUNGRY_FIRST)));
        list.append(&mut self.ready);
        let places = match self.holders.may_begin() {
            true => HANDSHAKES - BEGUN,
            false => HANDSHAKES,
        };
        let count = self.handshake_queue.len().min(places);
        list.extend(self.handshake_queue.drain(..count));
        self.begin_handshakes(HANDSHAKES - count, list, now);
        list.extend(self.hungry.drain(..self.hungry.len().min(HUNGRY)));
        self.bite = (MEAL / list.len().max(1)).clamp(SMALLEST_BITE, BITE);
        self.eaten = 0;
    }

    /// True if so much was read in this turn that others have to be served first.
    pub fn is_sated(&self) -> bool {
        self.eaten >= MEAL
    }

    /// Puts the connections of the list that were not served first in the next turn.
    pub fn put_back(&mut self, list: &mut Vec<Id>) {
        for id in list.iter().rev() {
            match self.connections.get_mut(*id) {
                Some(connection) if connection.read_queue == ReadQueue::Hungry => {
                    self.hungry.push_front(*id);
                }
                Some(connection) => connection.read_queue = ReadQueue::Ready,
                None => {}
            }
        }
        list.retain(|id| {
            let connection = self.connections.get(*id);
            connection.is_some_and(|connection| connection.read_queue == ReadQueue::Ready)
        });
        list.append(&mut self.ready);
        std::mem::swap(&mut self.ready, list);
    }

    /// Reads a bounded amount from one connection, and hands over what is complete; `on` returns whether that will be answered.
    pub fn serve(&mut self, id: Id, now: Instant, traffic: &mut Traffic, mut on: impl FnMut(Flow, Arrival<'_>) -> bool) {
        let (core, live, most_unsent) = (self.core, &self.live, self.send_queue());
        let Some(connection) = self.connections.get_mut(id) else {
            // It was closed after it was listed.
            return;
        };
        connection.read_queue = ReadQueue::Nowhere;
        match connection.state {
            State::Draining => {
                if let Err(error) = connection.discard(&mut self.scratch) {
                    self.apply(id, Event::Abort(Why::Error(error)), now);
                }
                return;
            }
            State::ProxyHeader => return self.look_for_header(id, now),
            _ => {}
        }
        // A peer that does not read what it is sent is not read from either, until it does. But what waits for the end of a
        // handshake can only be sent once the handshake is read.
        if connection.state.is_open() && connection.waiting() > most_unsent / 2 {
            connection.read_queue = ReadQueue::Parked;
            return;
        }
        let flow = connection.flow(core, id);
        let was_proved = connection.flags.is_proved;
        connection.allow_blanks(self.limits.rules.keep_alive_bytes, now);
        let buffers = ReadBuffers {
            scratch: self.scratch.get_mut(..self.bite).unwrap_or_default(),
            plaintext: &mut self.plaintext,
            buffers: &mut self.buffers,
        };
        let prove = |names| live.prove(core, id.slot, id.generation, names);
        let reading = connection.read(buffers, prove, |arrival| {
            match &arrival {
                Arrival::Message(bytes) => traffic.count(bytes),
                Arrival::KeepAlive => traffic.count(KEEP_ALIVE),
                Arrival::Unframed(..) => {}
            }
            on(flow, arrival)
        });
        self.eaten += reading.count;
        self.read_bytes += reading.count as u64;
        self.note_handshake(id, reading.is_established, now);
        self.note_read(id, reading.is_news, was_proved, now);
        self.go_on(id, reading.next, now);
    }

    /// Whatever comes next: what was read may have proved the connection useful, or begun a message.
    fn note_read(&mut self, id: Id, is_news: bool, was_proved: bool, now: Instant) {
        let fresh_ms = self.fresh_ms();
        let Some(connection) = self.connections.known_mut(id) else {
            return;
        };
        let (state, is_inside) = (connection.state, connection.is_inside());
        if state.is_open() && connection.flags.is_proved && !was_proved {
            self.holders.step(id.slot, Class::Proved, now);
        }
        let read = Event::Read { is_inside, is_news, is_old: now.ms_since(connection.age.since) >= fresh_ms };
        if connection.speaks() {
            self.mark_dirty(id);
        }
        if state.is_open() {
            self.weigh(id);
        }
        self.apply(id, read, now);
        if is_inside {
            self.bound_unfinished(now);
        }
    }

    fn note_handshake(&mut self, id: Id, is_established: bool, now: Instant) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        let Some(tls) = connection.tls.as_deref() else {
            return;
        };
        if connection.state != State::Handshaking {
            return;
        }
        if !is_established {
            self.holders.renew(id.slot, now);
            return;
        }
        let side = usize::from(connection.names().is_some());
        self.counters.shaken(side, tls);
        log::debug!(
            "{}: {} {}, {}",
            connection.peer,
            tls.version(),
            tls.cipher(),
            match tls.is_resumed() {
                true => "resumed",
                false => "full handshake",
            }
        );
        self.apply(id, Event::Established, now);
        self.holders.step(id.slot, Class::Unproved, now);
    }

    fn go_on(&mut self, id: Id, next: Next, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            // It has given way because of its incomplete message.
            return;
        };
        let event = match next {
            Next::Drained => return,
            Next::More => return self.mark_hungry(id, now),
            Next::End => {
                connection.flags.is_half_closed = true;
                Event::End { is_inside: connection.is_inside_message() }
            }
            Next::Failed(Why::Garbage(fault)) => Event::Unheard(Why::Garbage(fault)),
            Next::Failed(why) => Event::Abort(why),
        };
        self.apply(id, event, now);
    }

    /// Lists a connection that holds more than was read.
    fn mark_hungry(&mut self, id: Id, now: Instant) {
        match self.connections.get_mut(id) {
            Some(connection) if connection.state.is_open() && connection.read_queue == ReadQueue::Nowhere => {
                connection.read_queue = ReadQueue::Hungry;
                self.hungry.push_back(id);
            }
            _ => self.mark_ready(id, now),
        }
    }

    /// Closes a connection whose source is banned, unless we opened it.
    pub fn shut_out(&mut self, id: Id, now: Instant) {
        let connection = self.connections.get(id);
        if connection.is_some_and(|connection| connection.names().is_none()) {
            self.counters.banned += 1;
            self.apply(id, Event::Unheard(Why::Banned), now);
        }
    }

    /// True if established connections hold more than was read from them.
    pub fn is_behind(&self) -> bool {
        !self.ready.is_empty() || !self.hungry.is_empty()
    }

    /// Returns the memory of unread input, as the kernel counts it. If there are many connections, a sample stands for all. Those
    /// that have not proved useful are left out: their input may not be messages at all, and delays nothing, because each
    /// connection is read in its turn.
    pub fn waiting_bytes(&self) -> u64 {
        let waiting = self.ready.len() + self.hungry.len();
        let step = waiting.div_ceil(ASKED).max(1);
        let bytes = |id: &Id| {
            let connection = self.connections.get(*id)?;
            let waiting = match connection.flags.is_proved || connection.names().is_some() {
                true => sys::waiting(connection.stream.as_fd()).ok()?,
                false => return None,
            };
            Some(u64::from(waiting.bytes))
        };
        let asked = self.ready.iter().chain(&self.hungry).step_by(step);
        asked.filter_map(bytes).sum::<u64>() * step as u64
    }

    /// Returns the number of bytes read since the start.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}
