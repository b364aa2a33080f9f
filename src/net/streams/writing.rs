//! What the rules send: queued on a connection, which is opened if necessary, and written in one call at the end of the turn.

use super::life::Streams;
use crate::base::{Channel, Flow, Id, Instant, Transport};
use crate::net::connection::ReadQueue;
use crate::net::counters::Undeliverable;
use crate::net::state::{Event, State, Why};
use mio::Interest;
use std::io;
use std::net::SocketAddr;

/// If too much waits for peers that do not read, each may queue this fraction of its usual limit.
const SCARCE: usize = 16;

impl Streams {
    /// Queues one message for `flow`; it is sent by [`Streams::flush`]. If a connection is opened for it, `from` is our address and
    /// `host` the name that the peer must prove, with the certificate that it is shown.
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
        let most = self.send_queue();
        let Some(connection) = self.connections.get_mut(id) else {
            return Err(Undeliverable::NoConnection);
        };
        let waits = connection.waiting() + message.len();
        if waits > most {
            if waits <= self.limits.rules.send_queue {
                self.note_unsent(id);
            }
            return Err(Undeliverable::SendQueueFull);
        }
        connection.take(message, &mut self.buffers);
        self.count_unsent(id);
        self.mark_dirty(id);
        Ok(())
    }

    pub(super) fn find_accepted(&self, flow: &Flow) -> Result<Id, Undeliverable> {
        let key = (flow.transport, flow.peer);
        self.accepted.get(&key).copied().ok_or(Undeliverable::NoConnection)
    }

    pub(super) fn find_asked(&self, flow: &Flow, name: u64, call: u64) -> Option<Id> {
        let key = (flow.transport, flow.peer, name, call);
        let found = self.asked.get(&key).copied();
        // A phone whose contact is the very address from which it has connected is reached by that connection. Not over TLS: the
        // connection does not prove the requested name.
        found.or_else(|| {
            let id = *self.accepted.get(&(Transport::Tcp, flow.peer))?;
            let is_open = self.connections.get(id)?.state.is_open();
            (is_open && flow.transport == Transport::Tcp && name == 0 && call == 0).then_some(id)
        })
    }

    /// Returns how much may wait on one connection: a small part of the usual limit if too much waits on all together.
    pub(super) fn send_queue(&self) -> usize {
        match self.unsent_bytes > self.limits.rules.unsent_bytes {
            true => self.limits.rules.send_queue / SCARCE,
            false => self.limits.rules.send_queue,
        }
    }

    /// Notes a message that was not sent because too much waits on all connections together.
    fn note_unsent(&mut self, id: Id) {
        self.counters.unsent += 1;
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        if self.logs.unsent.may_say() {
            log::warn!(
                "{} {}: not sent: {} bytes wait for it, and more than {} for all connections of this core ([connections] unsent_bytes)",
                connection.transport.name(),
                connection.peer,
                connection.waiting(),
                self.limits.rules.unsent_bytes
            );
        }
    }

    /// Notes that the call that used the flow is over: a connection private to the call closes with the next [`Streams::flush`].
    pub fn release(&mut self, flow: &Flow) {
        let id = match flow.channel {
            Channel::Connection { slot, generation } => Some(Id { slot, generation }),
            Channel::Peer { name, call } => {
                let key = (flow.transport, flow.peer, name, call);
                self.asked.get(&key).copied()
            }
            _ => None,
        };
        let connection = id.and_then(|id| self.connections.get_mut(id));
        if let (Some(id), Some(connection)) = (id, connection)
            && connection.is_private()
        {
            connection.flags.is_released = true;
            self.mark_dirty(id);
        }
    }

    /// Writes once to each connection that has output. `wrote` gets the listener of each.
    pub fn flush(&mut self, now: Instant, mut wrote: impl FnMut(u16)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(id) else {
                // It was closed after it was listed.
                continue;
            };
            connection.is_dirty = false;
            if !connection.is_silent() || connection.tls.is_some() {
                wrote(connection.listener);
            }
            let written = connection.write(&mut self.buffers);
            self.count_unsent(id);
            let written = match written {
                Ok(()) => self.follow_room(id).map_err(Why::Error),
                failed => failed,
            };
            match written {
                Ok(()) => self.note_written(id, now),
                Err(why) => self.apply(id, Event::Abort(why), now),
            }
        }
        // What was marked meanwhile stays marked.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Asks the poll for room as soon as the kernel has not taken everything. It stays asked for, as it is from the beginning on a
    /// connection that we opened: the poll is edge-triggered, and the kernel tells of room only after it had none, so that nothing
    /// is woken for it meanwhile, and two system calls are saved.
    fn follow_room(&mut self, id: Id) -> io::Result<()> {
        let Some(connection) = self.connections.known_mut(id) else {
            return Ok(());
        };
        if connection.flags.asks_room || !connection.awaits_room() {
            return Ok(());
        }
        let token = Streams::token(id);
        self.registry.reregister(&mut connection.stream, token, Interest::READABLE | Interest::WRITABLE)?;
        connection.flags.asks_room = true;
        Ok(())
    }

    fn note_written(&mut self, id: Id, now: Instant) {
        let Some(connection) = self.connections.known(id) else {
            return;
        };
        if connection.is_silent() {
            let silent = Event::Silent { is_even: connection.owes_nothing(), is_released: connection.flags.is_released };
            self.apply(id, silent, now);
        }
        let (fresh_ms, most_unsent) = (self.fresh_ms(), self.send_queue());
        let Some(connection) = self.connections.get_mut(id) else {
            // Neither side had anything more to send.
            return;
        };
        let is_old = now.ms_since(connection.age.since) >= fresh_ms;
        // Sending to a peer does not extend its deadline for a message it has begun.
        let is_used = connection.state == State::Open && is_old;
        if connection.read_queue == ReadQueue::Parked && connection.waiting() <= most_unsent / 2 {
            connection.read_queue = ReadQueue::Nowhere;
            self.mark_ready(id, now);
        }
        if is_used {
            self.renew(id, now);
        }
    }
}
