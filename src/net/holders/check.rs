//! Invariants of the sources: lists, counts, ranks and the queue agree with each other.

use super::{By, CLASSES, Class, Holder, Holders, NONE, QUEUES, RANKINGS, Ranked, Ranking};
use crate::base::{Id, Instant};

impl Holders {
    /// Returns the number of connections of all sources.
    pub fn connections(&self) -> usize {
        let held = self.holders.iter().map(|(_, holder)| holder.connections);
        held.sum()
    }

    /// Panics unless lists, counts, ranks and the queue agree with each other.
    pub fn check(&self) {
        assert_eq!(self.by_source.len(), self.holders.len(), "sources");
        for (id, holder) in self.holders.iter() {
            assert_eq!(self.by_source.get(&holder.source), Some(&id.slot));
            self.check_holder(id, holder);
        }
        let held = self.kin.iter().filter(|kin| kin.holder != NONE);
        assert_eq!(held.count(), self.connections(), "connections of sources");
        for by in [By::Places, By::Unproved, By::Handshakes] {
            self.check_ranking(by);
        }
        assert!(self.tried <= self.queued(), "{} tried", self.tried);
    }

    fn check_holder(&self, id: Id, holder: &Holder) {
        let mut lengths = [0; CLASSES];
        for (class, list) in holder.lists.iter().enumerate() {
            let mut last = Instant::default();
            for slot in list.iter(&self.kin) {
                let kin = &self.kin[slot as usize];
                let stands = (kin.holder, kin.class as usize);
                assert_eq!(stands, (id.slot, class), "{slot} in a list of {id:?}");
                assert!(kin.since >= last, "{slot} is older than those before it");
                last = kin.since;
            }
            lengths[class] = list.check(&self.kin);
        }
        let all: usize = lengths.iter().sum();
        assert_eq!(all, holder.connections, "connections of {id:?}");
        assert!(all > 0, "{id:?} holds nothing");
        let counts = holder.ranks.map(|rank| rank.count);
        let expected = match holder.is_exempt {
            true => [0; RANKINGS],
            false => {
                let proved = lengths[Class::Proved as usize];
                [all, all - proved, lengths[Class::Shaking as usize]]
            }
        };
        assert_eq!(counts, expected, "what is counted of {id:?}");
        for (number, (queue, class)) in self.queues.iter().zip(QUEUES).enumerate() {
            let queued = queue.iter().filter(|(other, _)| *other == id).count();
            let waiting = lengths[class as usize];
            assert_eq!(holder.clients[number], waiting, "how many of {id:?} are {class:?}");
            assert_eq!(holder.turns[number], queued, "{id:?} in the queue");
            match holder.is_exempt {
                true => assert!(queued >= waiting, "{waiting} of {id:?} are {class:?}, {queued} turns"),
                false => assert!(queued <= 1 && queued >= waiting.min(1), "{waiting} of {id:?} are {class:?}, {queued} turns"),
            }
        }
    }

    fn check_ranking(&self, by: By) {
        let Ranking { lists, most } = &self.rankings[by as usize];
        let counts = self.holders.iter().map(|(_, holder)| holder.counted(by));
        let counts: Vec<usize> = counts.collect();
        assert_eq!(counts.iter().copied().max().unwrap_or(0), *most, "the highest count");
        let holders = &Ranked(&self.holders, by);
        for (count, list) in lists.iter().enumerate().skip(1) {
            for number in list.iter(holders) {
                let found = self.holders.tenant(number);
                let found = found.map(|(_, holder)| holder.counted(by));
                assert_eq!(found, Some(count), "{number} stands among those with {count}");
            }
            let expected = counts.iter().filter(|other| **other == count).count();
            assert_eq!(list.check(holders), expected, "those with {count}");
        }
    }
}
