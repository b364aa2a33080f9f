//! Which connections give way if there is no room for all: for a new one, and for incomplete messages.

use super::life::Streams;
use crate::base::Instant;
use crate::net::state::{Event, State, Why};
use std::net::IpAddr;

/// Among this many that have waited longest for the rest of a message, the largest gives way.
const LOOKED_AT: usize = 8;

impl Streams {
    /// True if one more may be open, from `peer` or, without one, of ours. If all slots are taken, the connection that has waited
    /// longest for what is owed to it gives way: it will send nothing more, and its answers take another path (§18.2.2). Otherwise
    /// one of the source that holds most.
    pub(super) fn has_room(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        if self.connections.len() < self.limits.connections {
            return true;
        }
        let draining = &self.age_lists[State::Draining as usize];
        if let Some((id, _)) = draining.oldest(&self.connections) {
            self.apply(id, Event::Abort(Why::Displaced), now);
        } else {
            self.displace(peer, now);
        }
        self.connections.len() < self.limits.connections
    }

    /// Closes one connection of the source that holds most, if that is more than `peer` holds. Returns whether it did.
    pub(super) fn displace(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        let Some((slot, held)) = self.holders.yields_place(peer, now) else {
            return false;
        };
        let Some((id, _)) = self.connections.tenant(slot) else {
            debug_assert!(false, "the holders count a connection that is gone");
            return false;
        };
        self.apply(id, Event::Abort(Why::Yields(held)), now);
        true
    }

    /// If incomplete messages hold too much together, one gives way: the largest of those that have waited longest.
    pub(super) fn bound_unfinished(&mut self, now: Instant) {
        let most = self.limits.rules.unfinished_bytes;
        while self.unfinished_bytes > most {
            let receiving = &self.age_lists[State::Receiving as usize];
            let oldest = receiving.iter(&self.connections).take(LOOKED_AT);
            let Some((id, _)) = oldest.max_by_key(|(_, connection)| connection.weight) else {
                // The rest is held by connections that are draining, and is freed with them.
                return;
            };
            self.apply(id, Event::Abort(Why::Crowded(most)), now);
        }
    }
}
