//! How connections end: by their peer, by a deadline, for what they brought, or because others need the place.

use super::{DRAIN_MS, GRID_MS, Streams};
use crate::base::{Channel, Flow, Id, Instant, Transport};
use crate::net::connection::{Connection, State, Why};
use std::io;

/// Bytes that must have become free before the allocator is asked to return them.
const FREED: usize = 8 << 20;

impl Streams {
    /// The peer sends no more. It may still listen.
    pub(super) fn ended(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.flags.is_half_closed = true;
        match connection.state {
            State::Connecting | State::Accepted | State::Handshaking => {
                let early = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed by the peer before the TLS handshake was done",
                );
                self.close(id, Why::Error(early));
            }
            _ if connection.is_inside_message() => self.drain(id, Why::Truncated, now),
            _ => self.drain(id, Why::Done, now),
        }
    }

    /// Nothing is read from it any more; it closes when all has left that is owed.
    pub(super) fn drain(&mut self, id: Id, why: Why, now: Instant) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if !matches!(why, Why::Done) && self.logs.single.may_say() {
            log::info!("{} {}: {why}", connection.transport.name(), connection.peer);
        }
        if let Why::Garbage(_) = why {
            self.counters.garbage += 1;
        }
        if connection.state != State::Draining {
            self.tell(id);
            self.change(id, State::Draining, now);
        }
        self.mark_dirty(id);
    }

    /// The source of this connection is banned: it is closed, unless we have opened it.
    pub fn shut_out(&mut self, id: Id, now: Instant) {
        let is_theirs = |connection: &Connection| connection.names.is_none();
        if self.connections.get(id).is_some_and(is_theirs) {
            self.counters.banned += 1;
            self.drain(id, Why::Banned, now);
        }
    }

    /// The rules are told that nothing more comes by this connection, and that nothing new may be sent on it.
    pub(super) fn tell(&mut self, id: Id) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if let Some((name, call)) = connection.names {
            let key = (connection.transport, connection.peer, name, call);
            if self.asked.get(&key) == Some(&id) {
                self.asked.remove(&key);
            }
        }
        let asked = match connection.names {
            // Requests may have found it by its address ([`Streams::find_asked`]).
            None if connection.transport == Transport::Tcp => Some((0, 0)),
            names => names,
        };
        let flow = connection.flow(self.core, id);
        self.lost.extend(asked.map(|(name, call)| Flow {
            channel: Channel::Peer { name, call },
            ..flow
        }));
        self.lost.push(flow);
    }

    pub(super) fn close(&mut self, id: Id, why: Why) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.say_goodbye(&mut self.buffers);
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let (transport, state, peer) = (connection.transport, connection.state, connection.peer);
        let name = transport.name();
        let way = if connection.names.is_some() {
            "to"
        } else {
            "from"
        };
        let is_news = !matches!(why, Why::Done | Why::Overdue(State::Open));
        let log = self.logs.about(&why);
        if !is_news {
            log::debug!("{name} {way} {peer}: closed: {why}");
        } else if log.may_say() {
            match (&why, state) {
                (_, State::Connecting) => log::info!("{name} {way} {peer}: not connected: {why}"),
                (Why::Tls(failure), _) => log::info!("{name} {way} {peer}: {failure}"),
                (Why::Stalled(_) | Why::Yields(_), _) => {
                    log::warn!("{name} {way} {peer}: closed: {why}")
                }
                (_, State::Accepted | State::Handshaking) => {
                    log::info!("{name} {way} {peer}: handshake failed: {why}");
                }
                (Why::Blank(_) | Why::Crowded(_), _) => {
                    log::warn!("{name} {way} {peer}: closed: {why}");
                }
                _ => log::info!("{name} {way} {peer}: closed: {why}"),
            }
        }
        match (&why, state) {
            (_, State::Connecting) => self.counters.failed += 1,
            (_, State::Accepted | State::Handshaking) => {
                let side = usize::from(connection.names.is_some());
                self.counters
                    .failed_handshake(side, connection.tls.as_deref());
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
        if state != State::Draining {
            self.tell(id);
        }
        let key = (transport, peer);
        if self.accepted.get(&key) == Some(&id) {
            self.accepted.remove(&key);
        }
        self.unlist(id);
        self.unweigh(id);
        self.holders.leave(id.slot);
        self.counters.leave(transport, state);
        self.live.enter(self.core, id.slot, 0);
        // Closing the socket takes it out of the poll too.
        self.connections.remove(id);
    }

    pub(super) fn deadline_ms(&self, state: State) -> u64 {
        match state {
            State::Connecting => self.limits.rules.connect_timeout,
            State::Accepted | State::Handshaking => self.limits.rules.handshake_timeout,
            State::Open => self.limits.rules.idle_timeout,
            State::Draining => DRAIN_MS,
        }
    }

    /// Whether so much memory of connections is free again that it pays to return it to the system; said once.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.has_freed)
    }

    /// Closes what is overdue: once for each tick of the grid, and only as far as there is something overdue.
    pub fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = Instant::from_ms((now.as_ms() / GRID_MS + 1) * GRID_MS);
        self.logs.renew(now);
        self.holders.look_again();
        let held = self.amid_bytes + self.unsent_bytes;
        self.most_bytes = self.most_bytes.max(held);
        if self.most_bytes - held >= FREED {
            (self.most_bytes, self.has_freed) = (held, true);
        }
        for state in State::ALL {
            let patience = self.deadline_ms(state);
            while let Some((id, since)) = self.ages[state as usize].oldest(&self.connections) {
                self.counters.sweep_visited += 1;
                if now.ms_since(since) < patience {
                    break;
                }
                let Some(connection) = self.connections.get_mut(id) else {
                    break;
                };
                let why = match state {
                    // Somebody's phone is ringing: quiet, but not idle.
                    State::Open if connection.forget_expected() => {
                        self.renew(id, now);
                        continue;
                    }
                    // It waits for us, not we for it.
                    State::Accepted if connection.flags.is_ready => {
                        self.unlist(id);
                        self.list(id, now);
                        continue;
                    }
                    state => Why::Overdue(state),
                };
                self.close(id, why);
            }
        }
        while let Some((id, since)) = self.amid.oldest(&self.connections) {
            if now.ms_since(since) < self.limits.rules.message_timeout {
                break;
            }
            self.close(id, Why::Unfinished);
        }
    }

    /// When [`Streams::sweep`] next has something to close.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = |state: State| {
            let (_, since) = self.ages[state as usize].oldest(&self.connections)?;
            let due = since.after_ms(self.deadline_ms(state));
            Some(due.max(self.next_sweep))
        };
        let amid = self.amid.oldest(&self.connections).map(|(_, since)| {
            let due = since.after_ms(self.limits.rules.message_timeout);
            due.max(self.next_sweep)
        });
        let stuck = self.holders.is_stuck().then_some(self.next_sweep);
        let due = State::ALL.into_iter().filter_map(due);
        due.chain(amid).chain(stuck).min()
    }
}
