//! A queue of events bounded in number and in bytes: the newest is refused if it finds no room.

use super::event::Event;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most that may wait for one reader.
pub const EVENTS: usize = 8192;
pub const BYTES: usize = 4 << 20;

#[derive(Debug)]
pub struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::with(EVENTS, BYTES)
    }
}

impl Queue {
    pub fn with(most_events: usize, most_bytes: usize) -> Queue {
        Queue { events: VecDeque::new(), bytes: 0, most_events, most_bytes }
    }

    /// Returns false if there is no room.
    pub fn push(&mut self, event: Arc<Event>) -> bool {
        let bytes = self.bytes + event.weight();
        if self.events.len() >= self.most_events || bytes > self.most_bytes {
            return false;
        }
        self.bytes = bytes;
        self.events.push_back(event);
        true
    }

    pub fn take_all(&mut self) -> VecDeque<Arc<Event>> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transport;
    use crate::trace::event::{Kind, tests::message};

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let event = Arc::new(message(Kind::Sent, Transport::Udp, "192.0.2.1:1", "192.0.2.2:2", &"x".repeat(1000)));
        let mut queue = Queue::with(3, usize::MAX);
        assert_eq!([0; 5].map(|_| queue.push(event.clone())), [true, true, true, false, false]);
        assert_eq!(queue.take_all().len(), 3);
        assert!(queue.is_empty() && queue.push(event.clone()));
        let mut queue = Queue::with(100, 2 * event.weight());
        assert_eq!([0; 3].map(|_| queue.push(event.clone())), [true, true, false]);
        queue.take_all();
        assert!(queue.push(event));
        assert_eq!(queue.len(), 1);
    }
}
