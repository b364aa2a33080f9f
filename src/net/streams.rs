//! All connections of one core, as the wires and the poll see them. Each file below implements one part of their life, and calls
//! only those named before it: [`life`], `giving_way`, `opening`, `accepting`, `introducing`, `writing`, `reading`, `deadlines`, `describe` and
//! `check`.

mod accepting;
#[cfg(debug_assertions)]
mod check;
mod deadlines;
mod describe;
mod giving_way;
mod introducing;
mod life;
mod logs;
mod opening;
mod reading;
mod writing;

pub use accepting::Accepted;
pub use describe::Description;
pub use life::Streams;

use super::counters::StreamCounters;
use super::state::{Event as Step, State};
use crate::base::{Flow, Instant};
use mio::event::Event;

impl Streams {
    /// Processes a poll event of one connection.
    pub fn note(&mut self, event: &Event, now: Instant) {
        let id = Streams::named_by(event.token());
        let Some(connection) = self.connections.get_mut(id) else {
            // The event was already reported when the connection was closed.
            return;
        };
        let (is_readable, is_writable) = (event.is_readable(), event.is_writable());
        let is_ended = event.is_read_closed() || event.is_error();
        if connection.state == State::Connecting {
            if is_writable || is_ended {
                self.connected(id, is_writable && !event.is_write_closed() && !event.is_error(), now);
            }
            if is_readable && self.connections.get(id).is_some() {
                self.mark_ready(id, now);
            }
            return;
        }
        if is_ended && connection.state == State::Accepted {
            // Nobody is there to shake hands with: it gave up before its turn came.
            self.apply(id, Step::End { is_inside: true }, now);
            return;
        }
        connection.flags.is_half_closed |= is_ended;
        if is_writable && connection.awaits_room() {
            self.mark_dirty(id);
        }
        if is_readable || is_ended {
            self.mark_ready(id, now);
        }
    }

    /// True if there is work to do before the next event.
    pub fn has_more(&self) -> bool {
        self.is_behind()
            || !self.handshake_queue.is_empty()
            || self.holders.may_begin()
            || self.has_lost()
            || !self.dirty.is_empty()
    }

    /// Flows that have ended since the last call.
    pub fn take_lost(&mut self, list: &mut Vec<Flow>) {
        list.clear();
        std::mem::swap(&mut self.lost, list);
    }

    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub fn counters(&self) -> StreamCounters {
        let mut counters = self.counters;
        counters.unfinished_bytes = self.unfinished_bytes as u64;
        counters.unsent_bytes = self.unsent_bytes as u64;
        counters
    }
}
