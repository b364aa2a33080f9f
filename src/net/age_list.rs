//! Connections ordered by how long they have been waiting, so that a search for overdue ones looks only at the old end.

use super::table::Table;
use crate::base::list::{Linked, LinkedMut, Links, List};
use crate::base::{Id, Instant};

/// What an entry of such a list carries.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// When it began to wait.
    pub since: Instant,
    links: Links,
}

impl Age {
    pub const fn new(since: Instant) -> Age {
        Age { since, links: Links::APART }
    }
}

/// An entry that can be in such a list.
pub trait Aging {
    fn age(&self) -> &Age;
    fn age_mut(&mut self) -> &mut Age;
}

impl<T: Aging> Linked for Table<T> {
    fn links(&self, slot: u32) -> Option<Links> {
        Some(self.tenant(slot)?.1.age().links)
    }
}

impl<T: Aging> LinkedMut for Table<T> {
    fn links_mut(&mut self, slot: u32) -> Option<&mut Links> {
        Some(&mut self.tenant_mut(slot)?.1.age_mut().links)
    }
}

/// One list.
#[derive(Clone, Copy, Default, Debug)]
pub struct AgeList {
    list: List,
}

impl AgeList {
    /// Returns the entry that has waited longest, and since when.
    pub fn oldest<T: Aging>(&self, table: &Table<T>) -> Option<(Id, Instant)> {
        let (id, entry) = table.tenant(self.list.first()?)?;
        Some((id, entry.age().since))
    }

    /// Iterates over the entries, those that have waited longest first.
    pub fn iter<'a, T: Aging>(&self, table: &'a Table<T>) -> impl Iterator<Item = (Id, &'a T)> + use<'a, T> {
        let slots = self.list.iter(table);
        slots.filter_map(|slot| table.tenant(slot))
    }

    /// Adds an entry that begins to wait now; it must be in no list.
    pub fn push<T: Aging>(&mut self, table: &mut Table<T>, id: Id, now: Instant) {
        if let Some(entry) = table.known_mut(id) {
            entry.age_mut().since = now;
            self.list.push(table, id.slot);
        }
    }

    /// Removes an entry, which must be in this list.
    pub fn remove<T: Aging>(&mut self, table: &mut Table<T>, id: Id) {
        if table.known(id).is_some() {
            self.list.remove(table, id.slot);
        }
    }

    /// Panics unless the entries are in the order of their ages and their links agree. Returns how many there are.
    pub fn check<T: Aging>(&self, table: &Table<T>) -> usize {
        let ages = self.iter(table).map(|(_, entry)| entry.age().since);
        assert!(ages.is_sorted(), "the oldest is not the first");
        self.list.check(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    struct Entry(Age);

    impl Aging for Entry {
        fn age(&self) -> &Age {
            &self.0
        }
        fn age_mut(&mut self) -> &mut Age {
            &mut self.0
        }
    }

    #[test]
    fn against_a_naive_model() {
        let (mut table, mut list) = (Table::new(20_000, 1), AgeList::default());
        let (mut model, mut rng) = (Vec::<Id>::new(), Rng::new(5));
        for step in 0..20_000u64 {
            let now = Instant::from_ms(step);
            match rng.below(3) {
                0 => {
                    let id = table.insert(Entry(Age::new(now)));
                    list.push(&mut table, id, now);
                    model.push(id);
                }
                1 if !model.is_empty() => {
                    let id = model.remove(rng.below(model.len() as u64) as usize);
                    list.remove(&mut table, id);
                    table.remove(id);
                }
                2 if !model.is_empty() => {
                    let id = model.remove(rng.below(model.len() as u64) as usize);
                    list.remove(&mut table, id);
                    list.push(&mut table, id, now);
                    model.push(id);
                }
                _ => {}
            }
            assert_eq!(list.oldest(&table).map(|(id, _)| id), model.first().copied());
            let first = list.iter(&table).map(|(id, _)| id).take(9);
            assert!(first.eq(model.iter().copied().take(9)));
            if step % 100 == 0 {
                assert_eq!(list.check(&table), model.len());
            }
        }
    }
}
