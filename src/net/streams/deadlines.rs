//! Connections whose deadlines have passed, and memory that is free again.

use super::life::Streams;
use crate::base::{Id, Instant};
use crate::net::connection::ReadQueue;
use crate::net::holders::Class;
use crate::net::state::{Event, State, Why};

/// The grid, in milliseconds, on which overdue connections are searched.
const GRID_MS: u64 = 100;

/// Bytes that must have become free before the allocator is asked to return them.
const FREED: usize = 8 << 20;

impl Streams {
    /// Returns, once, whether connections have freed so much memory that it pays to return it to the system.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.has_freed)
    }

    /// Closes overdue connections: once per tick of the grid, looking no further than the overdue ones.
    pub fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        #[cfg(debug_assertions)]
        self.check();
        self.next_sweep = Instant::from_ms((now.as_ms() / GRID_MS + 1) * GRID_MS);
        self.logs.renew(now);
        self.holders.look_again();
        let held = self.unfinished_bytes + self.unsent_bytes;
        self.most_bytes = self.most_bytes.max(held);
        if self.most_bytes - held >= FREED {
            (self.most_bytes, self.has_freed) = (held, true);
        }
        for state in State::ALL {
            let patience = self.deadline_ms(state);
            while let Some((id, since)) = self.oldest(state) {
                self.counters.sweep_visited += u64::from(state != State::Receiving);
                if now.ms_since(since) < patience {
                    break;
                }
                // A client that waits for us is excused, but who is late in an overload might wait for ever.
                let event = match self.holders.class(id.slot) {
                    Some(Class::Late) => Event::Abort(Why::Late),
                    _ => Event::Overdue { is_excused: self.is_excused(id) },
                };
                self.apply(id, event, now);
            }
        }
    }

    fn oldest(&self, state: State) -> Option<(Id, Instant)> {
        self.age_lists[state as usize].oldest(&self.connections)
    }

    /// True if its deadline has passed through no fault of its own.
    fn is_excused(&mut self, id: Id) -> bool {
        let connection = self.connections.get_mut(id);
        connection.is_some_and(|connection| match connection.state {
            State::Open => connection.forget_expected(),
            State::Accepted => connection.read_queue == ReadQueue::Turn,
            _ => false,
        })
    }

    /// Returns when [`Streams::sweep`] next has something to close.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = |state: State| {
            let (_, since) = self.oldest(state)?;
            let due = since.after_ms(self.deadline_ms(state));
            Some(due.max(self.next_sweep))
        };
        let stuck = self.holders.is_stuck().then_some(self.next_sweep);
        State::ALL.into_iter().filter_map(due).chain(stuck).min()
    }
}
