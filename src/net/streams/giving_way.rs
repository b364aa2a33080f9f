//! Which connections give way where there is no room for all: for a new one, and for messages that have begun.

use super::Streams;
use crate::base::{Id, Instant};
use crate::net::connection::{State, Why};
use std::net::IpAddr;

/// Of so many that have waited longest for the rest of a message, the largest gives way.
const LOOKED_AT: usize = 8;

/// Where too much waits for peers that do not read, one that does not has this part of what may wait otherwise.
const SCARCE: usize = 16;

impl Streams {
    /// True when one more may be open, from `peer` or, without one, of ours. Where all places are taken, the one that has waited longest for
    /// what is owed to it gives up its own: it will send nothing more, and its answers find another way (§18.2.2). Then one of the source
    /// that holds most.
    pub(super) fn has_room(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        if self.connections.len() < self.limits.connections {
            return true;
        }
        let draining = &self.ages[State::Draining as usize];
        if let Some((id, _)) = draining.oldest(&self.connections) {
            self.close(id, Why::Displaced);
        } else {
            self.displace(peer, now);
        }
        self.connections.len() < self.limits.connections
    }

    /// Closes one connection of the source that holds most, if that is more than `peer`'s holds. Tells whether it did.
    pub(super) fn displace(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        let Some((slot, held)) = self.holders.yields_place(peer, now) else {
            return false;
        };
        let Some((id, _)) = self.connections.tenant(slot) else {
            return false;
        };
        self.close(id, Why::Yields(held));
        true
    }

    /// Counts the memory of what has begun on a connection and is not whole.
    pub(super) fn weigh(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id) {
            let weight = connection.unfinished_bytes();
            let before = std::mem::replace(&mut connection.weight, weight);
            self.amid_bytes = self.amid_bytes + weight - before;
        }
    }

    pub(super) fn unweigh(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id) {
            self.amid_bytes -= std::mem::take(&mut connection.weight);
            self.unsent_bytes -= std::mem::take(&mut connection.unsent);
        }
    }

    /// What may wait on one connection: where too much waits on all together, a small part of what may otherwise.
    pub(super) fn send_queue(&self) -> usize {
        match self.unsent_bytes > self.limits.rules.unsent_bytes {
            true => self.limits.rules.send_queue / SCARCE,
            false => self.limits.rules.send_queue,
        }
    }

    pub(super) fn count_unsent(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id) {
            let waiting = connection.waiting();
            let before = std::mem::replace(&mut connection.unsent, waiting);
            self.unsent_bytes = self.unsent_bytes + waiting - before;
        }
    }

    /// A message was not sent because too much waits on all connections together.
    pub(super) fn note_unsent(&mut self, id: Id) {
        self.counters.unsent += 1;
        let Some(connection) = self.connections.get(id) else {
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

    /// Where messages that are not whole hold too much together, one gives way: the largest of those that have waited longest.
    pub(super) fn bound_unfinished(&mut self) {
        let most = self.limits.rules.unfinished_bytes;
        while self.amid_bytes > most {
            let oldest = self.amid.iter(&self.connections).take(LOOKED_AT);
            let Some((id, _)) = oldest.max_by_key(|(_, connection)| connection.weight) else {
                return;
            };
            self.close(id, Why::Crowded(most));
        }
    }
}
