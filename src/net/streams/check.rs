//! Invariants between two turns: every list has exactly the connections that it should have, and everything is counted once. For
//! tests and debug builds: it checks every connection.

use super::life::Streams;
use crate::base::{Id, Transport};
use crate::net::connection::{Connection, ReadQueue};
use crate::net::holders::Class;
use crate::net::state::State;
use std::collections::HashSet;

impl Streams {
    /// Panics if an invariant is violated.
    pub fn check(&self) {
        assert!(self.connections.len() <= self.live.places(), "too many");
        self.check_age_lists();
        self.check_read_queues();
        self.check_bytes();
        self.check_counters();
        self.check_holders();
        self.check_live();
        self.check_addresses();
        for (id, connection) in self.connections.iter() {
            check_state(id, connection);
        }
    }

    /// Returns how many connections satisfy the condition.
    fn count(&self, is_meant: impl Fn(&Connection) -> bool) -> usize {
        let connections = self.connections.iter();
        connections.filter(|(_, one)| is_meant(one)).count()
    }

    fn check_age_lists(&self) {
        for state in State::ALL {
            let list = &self.age_lists[state as usize];
            for (id, connection) in list.iter(&self.connections) {
                assert_eq!(connection.state, state, "{id:?} in the list of {state:?}");
            }
            let listed = list.check(&self.connections);
            let expected = self.count(|connection| connection.state == state);
            assert_eq!(listed, expected, "connections in the list of {state:?}");
        }
    }

    fn check_read_queues(&self) {
        let named = |ids: &mut dyn Iterator<Item = &Id>, is_in: &dyn Fn(&Connection) -> bool, what| {
            let mut seen = HashSet::new();
            for id in ids {
                // The names of closed connections are removed when their turn comes.
                if let Some(connection) = self.connections.get(*id) {
                    assert!(is_in(connection), "{id:?} does not know that it is {what}");
                    assert!(seen.insert(*id), "{id:?} is {what} twice");
                }
            }
            assert_eq!(seen.len(), self.count(is_in), "connections that are {what}");
        };
        let (ready, hungry) = (&mut self.ready.iter(), &mut self.hungry.iter());
        let handshakes = &mut self.handshake_queue.iter();
        named(ready, &|one| one.read_queue == ReadQueue::Ready, "ready");
        named(hungry, &|one| one.read_queue == ReadQueue::Hungry, "hungry");
        let is_queued = |one: &Connection| one.read_queue == ReadQueue::Handshake;
        named(handshakes, &is_queued, "in the queue of handshakes");
        named(&mut self.dirty.iter(), &|one| one.is_dirty, "dirty");
    }

    fn check_bytes(&self) {
        let (mut unfinished, mut unsent) = (0, 0);
        for (id, connection) in self.connections.iter() {
            if connection.state.may_speak() {
                let held = connection.unfinished_bytes();
                assert_eq!(connection.weight as usize, held, "unfinished bytes of {id:?}");
            }
            if !connection.is_dirty {
                assert_eq!(connection.unsent as usize, connection.waiting(), "unsent, {id:?}");
            }
            unfinished += connection.weight as usize;
            unsent += connection.unsent as usize;
        }
        assert_eq!(self.unfinished_bytes, unfinished, "unfinished bytes");
        assert_eq!(self.unsent_bytes, unsent, "unsent bytes");
    }

    fn check_counters(&self) {
        for transport in [Transport::Tcp, Transport::Tls] {
            for state in State::SHOWN {
                let is_meant = |one: &Connection| one.transport == transport && one.state.shown() == state;
                let counted = self.counters.open(transport, state) as usize;
                assert_eq!(counted, self.count(is_meant), "{transport:?}, {state:?}");
            }
        }
    }

    fn check_holders(&self) {
        self.holders.check();
        let theirs = self.count(|connection| connection.names().is_none() && connection.state != State::ProxyHeader);
        assert_eq!(self.holders.connections(), theirs, "connections of sources");
        for (id, connection) in self.connections.iter() {
            let class = self.holders.class(id.slot);
            let expected = match connection.state {
                State::Accepted if class == Some(Class::Late) && connection.read_queue == ReadQueue::Turn => class,
                _ if connection.names().is_some() => None,
                State::ProxyHeader => None,
                State::Accepted if connection.read_queue == ReadQueue::Turn => Some(Class::Waiting),
                State::Handshaking => Some(Class::Shaking),
                _ if connection.flags.is_proved => Some(Class::Proved),
                _ => Some(Class::Unproved),
            };
            assert_eq!(class, expected, "{id:?}, which is {:?}", connection.state);
        }
    }

    fn check_live(&self) {
        let live = self.live.connections(self.core);
        assert_eq!(live, self.connections.len(), "connections that are live");
        for (id, connection) in self.connections.iter() {
            let flow = connection.flow(self.core, id);
            assert!(self.live.takes_answers(&flow), "{id:?} is not live");
            let is_draining = connection.state == State::Draining;
            assert_eq!(self.live.is_alive(&flow), !is_draining, "{id:?}");
        }
    }

    fn check_addresses(&self) {
        for (key, id) in &self.asked {
            let connection = self.connections.get(*id);
            let found = connection.and_then(|connection| {
                let (name, call) = connection.names()?;
                let is_usable = connection.state != State::Draining;
                is_usable.then_some((connection.transport, connection.peer, name, call))
            });
            assert_eq!(found.as_ref(), Some(key), "{id:?} was asked for");
        }
        for (key, id) in &self.accepted {
            let connection = self.connections.get(*id);
            let theirs = connection.filter(|connection| connection.names().is_none());
            let found = theirs.map(|connection| (connection.transport, connection.peer));
            assert_eq!(found.as_ref(), Some(key), "{id:?} was accepted");
        }
        let is_asked = |one: &Connection| one.names().is_some() && one.state != State::Draining;
        assert_eq!(self.asked.len(), self.count(is_asked), "asked for");
    }
}

/// Checks the invariants of a single connection.
fn check_state(id: Id, connection: &Connection) {
    let Connection { state, read_queue, .. } = *connection;
    let is_tls = connection.transport == Transport::Tls;
    let is_established = connection.tls.as_ref().map(|tls| tls.is_established());
    let fits = match state {
        State::Connecting => is_established.is_some() == is_tls && connection.names().is_some(),
        State::ProxyHeader => is_established.is_none() && connection.names().is_none(),
        State::Accepted => is_tls && is_established.is_none() && connection.names().is_none(),
        State::Handshaking => is_established == Some(false),
        State::Open | State::Receiving | State::Draining => is_established == is_tls.then_some(true),
    };
    assert!(fits, "{id:?} is {state:?}, TLS established: {is_established:?}");
    let fits = match read_queue {
        ReadQueue::Nowhere | ReadQueue::Ready => true,
        ReadQueue::Turn => state == State::Accepted,
        ReadQueue::Handshake => state == State::Handshaking,
        ReadQueue::Hungry => state.may_speak(),
        ReadQueue::Parked => state.is_open(),
    };
    assert!(fits, "{id:?} is {state:?} and stands in {read_queue:?}");
    if state.is_open() {
        let is_inside = connection.is_inside();
        assert_eq!(is_inside, state == State::Receiving, "{id:?} is {state:?}");
    }
    if !connection.is_dirty {
        assert!(connection.flags.asks_room || !connection.awaits_room(), "{id:?}: interest in writing");
    }
}
