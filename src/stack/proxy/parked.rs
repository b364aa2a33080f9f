//! What waits for a name (RFC 3263): branches of requests that have a transaction, and messages without one, as they came. An
//! answer or the deadline ends the wait.

use crate::base::{Arena, Flow, Id, Instant};
use crate::stack::branch::Mark;
use crate::stack::proxy::context::Context;
use crate::stack::proxy::hop::Attempt;
use crate::stack::proxy::target::TargetSet;
use std::collections::VecDeque;

/// Everything of one core that waits for a name.
#[derive(Default)]
pub struct Parking {
    list: Arena<Parked>,
    /// The earliest first. An entry whose wait ended before its deadline stays until it comes to the front.
    deadlines: VecDeque<(Instant, Id)>,
    /// Bytes of the messages that have no transaction.
    held_bytes: usize,
}

pub(super) enum Parked {
    /// A branch of the request of this server transaction.
    Branch {
        server: Id,
        attempt: Attempt,
    },
    Message(Box<Held>),
}

/// A message that goes on without a transaction: an ACK to a 2xx, or any message in stateless mode.
pub(super) struct Held {
    pub flow: Flow,
    /// As it came.
    pub bytes: Vec<u8>,
    /// Its server transaction, if it had one (§17.2.3).
    pub key: u128,
    /// The position of the only target that it is sent to.
    pub number: usize,
    pub target: TargetSet,
    /// Its share of Max-Breadth.
    pub breadth: u32,
    pub mark: Mark,
    pub since: Instant,
}

impl Held {
    fn weight(&self) -> usize {
        size_of::<Held>() + self.bytes.len() + self.target.text.len()
    }
}

impl Parking {
    /// Branches and messages that wait.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Checks that whatever waits has a deadline, in order, and that the bytes that wait are counted.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        self.list.check();
        let in_order = |pair: (&(Instant, Id), &(Instant, Id))| pair.0.0 <= pair.1.0;
        let mut pairs = self.deadlines.iter().zip(self.deadlines.iter().skip(1));
        assert!(pairs.all(in_order), "deadlines of what waits for names");
        let mut bytes = 0;
        for (id, parked) in self.list.iter() {
            let has_deadline = self.deadlines.iter().any(|(_, waits)| *waits == id);
            assert!(has_deadline, "{id:?} waits for a name without a deadline");
            if let Parked::Message(held) = parked {
                bytes += held.weight();
            }
        }
        assert_eq!(bytes, self.held_bytes, "bytes of messages that wait for names");
    }

    /// The server transaction whose branch waits under this name.
    #[cfg(debug_assertions)]
    pub fn server_of(&self, id: Id) -> Option<Id> {
        match self.list.get(id)? {
            Parked::Branch { server, .. } => Some(*server),
            Parked::Message(_) => None,
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Parks the branch until the deadline.
    pub(super) fn park(&mut self, server: Id, attempt: Attempt, deadline: Instant) -> Id {
        self.put(Parked::Branch { server, attempt }, deadline)
    }

    /// Parks the message until the deadline; `None` if more than `most` bytes would then be waiting.
    pub(super) fn hold(&mut self, held: Box<Held>, most: usize, deadline: Instant) -> Option<Id> {
        let fits = self.held_bytes + held.weight() <= most;
        fits.then(|| self.put(Parked::Message(held), deadline))
    }

    /// Forgets the branches of this context.
    pub(super) fn forget(&mut self, context: &mut Context) {
        for id in context.parked.drain(..) {
            if let Some(Parked::Branch { attempt, .. }) = self.take(id) {
                context.breadth += attempt.breadth;
            }
        }
    }

    fn put(&mut self, parked: Parked, deadline: Instant) -> Id {
        if let Parked::Message(held) = &parked {
            self.held_bytes += held.weight();
        }
        let id = self.list.insert(parked);
        // Nearly always the last: a branch that waits for a second name keeps the deadline of the first.
        let place = self.deadlines.partition_point(|(at, _)| *at <= deadline);
        self.deadlines.insert(place, (deadline, id));
        id
    }

    /// Takes out what waits under this name, if it still does.
    pub(super) fn take(&mut self, id: Id) -> Option<Parked> {
        let parked = self.list.remove(id)?;
        if let Parked::Message(held) = &parked {
            self.held_bytes -= held.weight();
        }
        while let Some((_, first)) = self.deadlines.front()
            && self.list.get(*first).is_none()
        {
            self.deadlines.pop_front();
        }
        Some(parked)
    }

    /// Takes out the first entry whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(Id, Parked)> {
        let (deadline, id) = *self.deadlines.front()?;
        match deadline <= now {
            true => Some((id, self.take(id)?)),
            false => None,
        }
    }
}
