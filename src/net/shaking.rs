//! Connections that shake hands and may hold bytes. A handshake costs as much as dozens of messages, so they have an order of
//! their own: what has begun goes on before anything new begins.

use crate::base::{Id, Instant};
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct Shaking {
    /// We have answered these already, or opened them.
    begun: VecDeque<Id>,
    /// Those that we have not answered, and since when they wait for it.
    new: VecDeque<(Id, Instant)>,
}

impl Shaking {
    pub fn carry_on(&mut self, id: Id) {
        self.begun.push_back(id);
    }

    pub fn begin(&mut self, id: Id, now: Instant) {
        self.new.push_back((id, now));
    }

    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.new.is_empty()
    }

    /// Takes so many at most: those that have begun, then the new, each in the order in which they came.
    pub fn take(&mut self, most: usize, list: &mut Vec<Id>) {
        let begun = self.begun.len().min(most);
        list.extend(self.begun.drain(..begun));
        let new = self.new.len().min(most - begun);
        list.extend(self.new.drain(..new).map(|(id, _)| id));
    }

    /// How long the next of the new has waited.
    pub fn waited_ms(&self, now: Instant) -> u64 {
        self.new
            .front()
            .map_or(0, |(_, since)| now.ms_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> Id {
        Id {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn what_has_begun_goes_first_and_the_new_wait_in_order() {
        let at = |ms: u64| Instant::from_ms(1000 + ms);
        let mut shaking = Shaking::default();
        assert!(shaking.is_empty());
        assert_eq!(shaking.waited_ms(at(0)), 0);
        for slot in 0..4 {
            shaking.begin(id(slot), at(u64::from(slot) * 10));
        }
        (10..13).for_each(|slot| shaking.carry_on(id(slot)));
        assert_eq!(shaking.waited_ms(at(50)), 50);
        let mut list = Vec::new();
        shaking.take(2, &mut list);
        assert_eq!(list, [id(10), id(11)]);
        assert_eq!(shaking.waited_ms(at(50)), 50);
        list.clear();
        shaking.take(3, &mut list);
        assert_eq!(list, [id(12), id(0), id(1)]);
        assert_eq!(shaking.waited_ms(at(50)), 30);
        list.clear();
        shaking.take(8, &mut list);
        assert_eq!(list, [id(2), id(3)]);
        assert!(shaking.is_empty());
    }
}
