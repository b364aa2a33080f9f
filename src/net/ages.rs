//! Connections in the order of how long they have been waiting: intrusive lists, so that whoever looks for what is overdue
//! looks at the old end only.

use crate::base::{Arena, Id, Instant};

/// What an entry of a list carries.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// Since when it waits.
    pub since: Instant,
    older: u32,
    younger: u32,
}

const NONE: u32 = u32::MAX;

impl Age {
    pub const fn new(since: Instant) -> Age {
        Age {
            since,
            older: NONE,
            younger: NONE,
        }
    }
}

/// Whoever can stand in a list.
pub trait Aging {
    fn age(&self) -> &Age;
    fn age_mut(&mut self) -> &mut Age;
}

/// One list; entries are named by their slots in the arena.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    oldest: u32,
    youngest: u32,
}

impl Default for Ages {
    fn default() -> Self {
        Ages {
            oldest: NONE,
            youngest: NONE,
        }
    }
}

impl Ages {
    /// The entry that waits longest, and since when.
    pub fn oldest<T: Aging>(&self, arena: &Arena<T>) -> Option<(Id, Instant)> {
        let (id, entry) = arena.tenant(self.oldest)?;
        Some((id, entry.age().since))
    }

    /// The entries, those that wait longest first.
    pub fn iter<'a, T: Aging>(
        &self,
        arena: &'a Arena<T>,
    ) -> impl Iterator<Item = (Id, &'a T)> + use<'a, T> {
        let first = arena.tenant(self.oldest);
        std::iter::successors(first, |(_, entry)| arena.tenant(entry.age().younger))
    }

    /// Adds an entry that begins to wait now; it must be in no list.
    pub fn push<T: Aging>(&mut self, arena: &mut Arena<T>, id: Id, now: Instant) {
        let Some(entry) = arena.get_mut(id) else {
            return;
        };
        *entry.age_mut() = Age {
            since: now,
            older: self.youngest,
            younger: NONE,
        };
        match arena.tenant_mut(self.youngest) {
            Some((_, before)) => before.age_mut().younger = id.slot,
            None => self.oldest = id.slot,
        }
        self.youngest = id.slot;
    }

    /// Takes an entry of this list out of it.
    pub fn remove<T: Aging>(&mut self, arena: &mut Arena<T>, id: Id) {
        let Some(Age { older, younger, .. }) = arena.get(id).map(|entry| *entry.age()) else {
            return;
        };
        match arena.tenant_mut(older) {
            Some((_, entry)) => entry.age_mut().younger = younger,
            None => self.oldest = younger,
        }
        match arena.tenant_mut(younger) {
            Some((_, entry)) => entry.age_mut().older = older,
            None => self.youngest = older,
        }
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
        let (mut arena, mut ages, mut rng) = (Arena::default(), Ages::default(), Rng::new(5));
        let mut model: Vec<Id> = Vec::new();
        for step in 0..20_000u64 {
            let now = Instant::from_ms(step);
            match rng.below(3) {
                0 => {
                    let id = arena.insert(Entry(Age::new(now)));
                    ages.push(&mut arena, id, now);
                    model.push(id);
                }
                1 if !model.is_empty() => {
                    let id = model.remove(rng.below(model.len() as u64) as usize);
                    ages.remove(&mut arena, id);
                    arena.remove(id);
                }
                2 if !model.is_empty() => {
                    let id = model.remove(rng.below(model.len() as u64) as usize);
                    ages.remove(&mut arena, id);
                    ages.push(&mut arena, id, now);
                    model.push(id);
                }
                _ => {}
            }
            assert_eq!(
                ages.oldest(&arena).map(|(id, _)| id),
                model.first().copied()
            );
            let first = ages.iter(&arena).map(|(id, _)| id).take(9);
            assert!(first.eq(model.iter().copied().take(9)));
        }
        while let Some((id, _)) = ages.oldest(&arena) {
            assert_eq!(id, model.remove(0));
            ages.remove(&mut arena, id);
            arena.remove(id);
        }
        assert!(model.is_empty());
    }
}
