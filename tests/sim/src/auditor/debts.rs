//! What a server owes after something reached it, each debt with the moment at which it must be paid.

use std::collections::BinaryHeap;
use strowger::base::Instant;

#[derive(Clone, Copy, Debug)]
pub enum Debt {
    /// An honest request is answered or forwarded.
    Reply {
        tx: usize,
    },
    /// Something goes back for an INVITE.
    Trying {
        tx: usize,
    },
    /// The right targets were tried.
    Targets {
        tx: usize,
    },
    /// A final response goes back.
    Final {
        tx: usize,
    },
    /// All branches are done: a final goes back, or the next branch begins.
    Settled {
        tx: usize,
    },
    /// The first target of a route is dead: the next one was tried.
    NextTarget {
        tx: usize,
    },
    /// A response is passed on.
    Copy {
        tx: usize,
        /// Status and trunk.
        response: (u16, u64),
        since: Instant,
        final_one: bool,
    },
    /// An ACK inside of a dialog is passed on.
    AckOn {
        tx: usize,
    },
    /// The server's own ACK for a refusal.
    OwnAck {
        branch: usize,
        count: u32,
    },
    Cancel {
        branch: usize,
    },
}

pub struct Entry {
    pub at: u64,
    order: u64,
    pub server: usize,
    pub debt: Debt,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Default)]
pub struct Debts {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Debts {
    pub fn push(&mut self, at: Instant, server: usize, debt: Debt) {
        self.order += 1;
        self.heap.push(Entry { at: at.as_ms(), order: self.order, server, debt });
    }

    /// The next one that was due before `now`.
    pub fn due_before(&mut self, now: u64) -> Option<Entry> {
        let is_due = self.heap.peek().is_some_and(|entry| entry.at < now);
        if is_due { self.heap.pop() } else { None }
    }
}
