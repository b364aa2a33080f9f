//! Which connections give way if there is no room for all: for a new one, and for incomplete messages.

use super::life::Streams;
use crate::base::{Instant, Transport};
use crate::net::state::{Event, State, Why};
use std::net::IpAddr;

/// Among this many that have waited longest for the rest of a message, the largest gives way.
const LOOKED_AT: usize = 8;

/// Places kept for connections of load balancers whose PROXY headers are not there yet: this part of all, and at most this many. A header
/// follows its connection within a round trip.
const RESERVE_PART: usize = 16;
const RESERVE: usize = 64;

impl Streams {
    /// True if one more may be open, from `peer` or, without one, of ours. If all slots are taken, the connection that has waited
    /// longest for what is owed to it gives way: it will send nothing more, and its answers take another path (§18.2.2). Otherwise
    /// one of the source that holds most.
    pub(super) fn has_room(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        if self.has_free_place() {
            return true;
        }
        self.make_room(peer, now);
        self.has_free_place()
    }

    fn has_free_place(&self) -> bool {
        self.has_place_to_be() && self.connections.len() < self.limits.connections
    }

    /// The same for a connection of a load balancer that has a place and is `peer`'s, as is known now: whether it may stay.
    pub(super) fn may_stay(&mut self, peer: IpAddr, now: Instant) -> bool {
        if !self.has_place_to_be() {
            self.make_room(Some(peer), now);
        }
        self.has_place_to_be()
    }

    /// True if those whose peers are known leave the reserve alone.
    fn has_place_to_be(&self) -> bool {
        let awaiting: u64 = [Transport::Tcp, Transport::Tls].map(|by| self.counters.open(by, State::ProxyHeader)).iter().sum();
        self.connections.len() - awaiting as usize + self.reserve() < self.limits.connections
    }

    /// Returns how many places are kept for connections whose PROXY headers are not there yet. Without them, nobody could be told
    /// by its header to have fewer places than others when all are taken.
    fn reserve(&self) -> usize {
        let most = self.limits.connections;
        match self.limits.has_balancers {
            true => (most / RESERVE_PART).clamp(1, RESERVE).min(most.saturating_sub(1)),
            false => 0,
        }
    }

    fn make_room(&mut self, peer: Option<IpAddr>, now: Instant) {
        let draining = &self.age_lists[State::Draining as usize];
        if let Some((id, _)) = draining.oldest(&self.connections) {
            self.apply(id, Event::Abort(Why::Displaced), now);
        } else {
            self.displace(peer, now);
        }
    }

    /// True if a load balancer may open one more, whosever it is.
    pub(super) fn has_place_for_header(&self) -> bool {
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
