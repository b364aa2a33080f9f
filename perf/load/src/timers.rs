//! Retransmission timers (RFC 3261 §17.1): one queue for each interval, T1 doubled again and again, so that every queue is in order by
//! construction. Arming is a push; nothing is cancelled, a timer that fires looks whether its message is still unanswered.

use std::collections::VecDeque;

use crate::identity::Identity;

pub const T1_NS: u64 = 500_000_000;
/// T2 as a number of doublings of T1.
pub const T2_DOUBLINGS: u8 = 3;
/// Timer B and Timer F.
pub const GIVE_UP_NS: u64 = 64 * T1_NS;

const QUEUES: usize = 6;

/// A message that may have to be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The caller's INVITE waits for any response: the first, or the one of this number that answers a challenge.
    Invite(u8),
    /// The answerer's 2xx waits for its ACK.
    Ok,
    /// The caller's BYE, or a REGISTER, waits for its final response.
    Request,
}

#[derive(Clone, Copy, Debug)]
pub struct Due {
    at_ns: u64,
    pub identity: Identity,
    pub awaited: Awaited,
    /// How often the interval has been doubled.
    doublings: u8,
}

/// What comes the same time after what it follows: a queue is in order by itself.
pub struct Delay {
    /// 0: it comes at once, and nothing is ever put here.
    pub ns: u64,
    queue: VecDeque<(u64, Identity)>,
}

impl Delay {
    pub fn new(ns: u64) -> Delay {
        Delay { ns, queue: VecDeque::new() }
    }

    pub fn push(&mut self, now_ns: u64, identity: Identity) {
        self.queue.push_back((now_ns + self.ns, identity));
    }

    /// The next whose time has come.
    pub fn pop(&mut self, now_ns: u64) -> Option<Identity> {
        self.queue.front().filter(|(due_ns, _)| *due_ns <= now_ns)?;
        self.queue.pop_front().map(|(_, identity)| identity)
    }

    pub fn next_ns(&self) -> Option<u64> {
        self.queue.front().map(|(due_ns, _)| *due_ns)
    }
}

#[derive(Default)]
pub struct Timers {
    queues: [VecDeque<Due>; QUEUES],
}

impl Timers {
    pub fn arm(&mut self, now_ns: u64, identity: Identity, awaited: Awaited) {
        self.push(now_ns, identity, awaited, 0);
    }

    /// Arms the timer again after it fired, with its interval doubled, up to T2 where the RFC says so.
    pub fn rearm(&mut self, now_ns: u64, due: Due) {
        let cap = match due.awaited {
            Awaited::Invite(_) => QUEUES as u8 - 1,
            Awaited::Ok | Awaited::Request => T2_DOUBLINGS,
        };
        self.push(now_ns, due.identity, due.awaited, (due.doublings + 1).min(cap));
    }

    fn push(&mut self, now_ns: u64, identity: Identity, awaited: Awaited, doublings: u8) {
        self.queues[usize::from(doublings)].push_back(Due { at_ns: now_ns + (T1_NS << doublings), identity, awaited, doublings });
    }

    /// The next timer whose time has come.
    pub fn pop(&mut self, now_ns: u64) -> Option<Due> {
        for queue in &mut self.queues {
            if queue.front().is_some_and(|due| due.at_ns <= now_ns) {
                return queue.pop_front();
            }
        }
        None
    }

    /// When the next timer fires.
    pub fn next_ns(&self) -> Option<u64> {
        self.queues.iter().filter_map(|queue| queue.front().map(|due| due.at_ns)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(awaited: Awaited) -> Vec<u64> {
        let identity = Identity { slot: 1, generation: 2 };
        let mut timers = Timers::default();
        timers.arm(0, identity, awaited);
        let mut fired = Vec::new();
        let mut last = 0;
        while last < 20_000_000_000 {
            let now = timers.next_ns().expect("armed");
            assert!(timers.pop(now - 1).is_none());
            let due = timers.pop(now).expect("due");
            assert_eq!(due.identity, identity);
            fired.push((now - last) / 1_000_000);
            last = now;
            timers.rearm(now, due);
        }
        fired
    }

    #[test]
    fn intervals_double_as_the_rfc_says() {
        assert_eq!(intervals(Awaited::Invite(0)), [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
        assert_eq!(intervals(Awaited::Request), [500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000, 4_000]);
    }
}
