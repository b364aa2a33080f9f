//! Connections that shake hands and may hold bytes. A handshake costs as much as dozens of messages, so they have an order of
//! their own: what has begun goes on before anything new begins.

use crate::base::{Id, Instant};
use std::collections::VecDeque;

/// How many times the patience the new may wait too long before any are refused: a burst, as when all phones come back at once, is worked
/// off; what lasts longer is overload.
const BURST: u64 = 10;

#[derive(Debug, Default)]
pub struct Shaking {
    /// We have answered these already, or opened them.
    begun: VecDeque<Id>,
    /// Those that we have not answered, and since when they wait for it.
    new: VecDeque<(Id, Instant)>,
    /// Since when, and until when, they have waited too long, with no longer gap than a burst.
    overlong: Option<(Instant, Instant)>,
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

    /// How long the next of the new has waited, where they have waited longer than `patience_ms` for longer than a burst takes: no more
    /// may come then. With a patience of 0 they may always.
    pub fn overlong_ms(&mut self, now: Instant, patience_ms: u64) -> Option<u64> {
        let waited_ms = self.waited_ms(now);
        if patience_ms == 0 || waited_ms < patience_ms {
            return None;
        }
        let burst_ms = BURST * patience_ms;
        let since = match self.overlong {
            Some((since, last)) if now.ms_since(last) <= burst_ms => since,
            _ => now,
        };
        self.overlong = Some((since, now));
        (now.ms_since(since) >= burst_ms).then_some(waited_ms)
    }

    /// How long the next of the new has waited.
    fn waited_ms(&self, now: Instant) -> u64 {
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

    #[test]
    fn a_burst_is_worked_off_and_overload_is_refused() {
        let at = |ms: u64| Instant::from_ms(1000 + ms);
        let mut shaking = Shaking::default();
        let mut list = Vec::new();
        // Whoever is first has waited 150 ms each time, from now on.
        for ms in (150..=2000).step_by(50) {
            shaking.take(9, &mut list);
            shaking.begin(id(1), at(ms - 150));
            let refused = shaking.overlong_ms(at(ms), 100);
            assert_eq!(refused, (ms >= 1150).then_some(150), "{ms}");
            assert_eq!(shaking.overlong_ms(at(ms), 0), None);
        }
        // It is worked off: the others come in again. When it comes back soon, it is the same overload.
        shaking.take(9, &mut list);
        assert_eq!(shaking.overlong_ms(at(2050), 100), None);
        shaking.begin(id(1), at(2100));
        assert_eq!(shaking.overlong_ms(at(2250), 100), Some(150));
        // And another one after a longer time.
        shaking.take(9, &mut list);
        shaking.begin(id(1), at(4000));
        assert_eq!(shaking.overlong_ms(at(4150), 100), None);
    }
}
