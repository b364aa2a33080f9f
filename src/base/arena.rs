//! A generational arena: the name of an entry goes stale when the entry is removed, so that an old name finds nothing.

use super::chunks::Chunks;

/// The name of an entry: its slot, and the generation of its tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    pub slot: u32,
    pub generation: u32,
}

/// The name of an entry, or none, in the room of a name: 0 is no generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionalId(Id);

impl OptionalId {
    pub const NONE: OptionalId = OptionalId(Id { slot: 0, generation: 0 });

    pub fn get(self) -> Option<Id> {
        (self.0.generation != 0).then_some(self.0)
    }

    pub fn is_some(self) -> bool {
        self.get().is_some()
    }

    pub fn is_none(self) -> bool {
        self.get().is_none()
    }
}

impl From<Id> for OptionalId {
    fn from(id: Id) -> OptionalId {
        OptionalId(id)
    }
}

enum Slot<T> {
    Free { generation: u32, next: u32 },
    Full { generation: u32, value: T },
}

const END: u32 = u32::MAX;

/// Entries in reused slots; the slot freed last is taken first, because it is warm.
pub struct Arena<T> {
    slots: Chunks<Slot<T>>,
    free: u32,
    len: usize,
    /// The generation of the first tenant of each slot.
    first: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena::counting_from(1)
    }
}

impl<T> Arena<T> {
    /// An arena whose generations begin at `first`: if names outlive the process, another process must not reuse them.
    pub fn counting_from(first: u32) -> Arena<T> {
        Arena { slots: Chunks::default(), free: END, len: 0, first: first.max(1) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of slots, used or free: the high-water mark.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Returns the name that the next [`Arena::insert`] will give.
    pub fn next_id(&self) -> Id {
        match self.slots.get(self.free as usize) {
            Some(Slot::Free { generation, .. }) => Id { slot: self.free, generation: *generation },
            _ => Id { slot: self.slots.len() as u32, generation: self.first },
        }
    }

    pub fn insert(&mut self, value: T) -> Id {
        let id = self.next_id();
        let full = Slot::Full { generation: id.generation, value };
        match self.slots.get_mut(id.slot as usize) {
            Some(slot) => {
                if let Slot::Free { next, .. } = slot {
                    self.free = *next;
                }
                *slot = full;
            }
            None => {
                self.slots.push(full);
            }
        }
        self.len += 1;
        id
    }

    /// Removes the entry; `None` if the name is stale.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        match slot {
            Slot::Full { generation, .. } if *generation == id.generation => {}
            _ => return None,
        }
        let free = Slot::Free { generation: id.generation.wrapping_add(1).max(1), next: self.free };
        match std::mem::replace(slot, free) {
            Slot::Full { value, .. } => {
                self.free = id.slot;
                self.len -= 1;
                Some(value)
            }
            Slot::Free { .. } => None,
        }
    }

    pub fn get(&self, id: Id) -> Option<&T> {
        match self.slots.get(id.slot as usize)? {
            Slot::Full { generation, value } if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.slots.get_mut(id.slot as usize)? {
            Slot::Full { generation, value } if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// Returns the current tenant of a slot: for owners that are notified when a tenant leaves.
    pub fn tenant(&self, slot: u32) -> Option<(Id, &T)> {
        match self.slots.get(slot as usize)? {
            Slot::Full { generation, value } => Some((Id { slot, generation: *generation }, value)),
            Slot::Free { .. } => None,
        }
    }

    /// The same, mutably.
    pub fn tenant_mut(&mut self, slot: u32) -> Option<(Id, &mut T)> {
        match self.slots.get_mut(slot as usize)? {
            Slot::Full { generation, value } => Some((Id { slot, generation: *generation }, value)),
            Slot::Free { .. } => None,
        }
    }

    /// Checks that each slot is either used or in the free list.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        let (mut free, mut next) = (0, self.free);
        while let Some(slot) = self.slots.get(next as usize) {
            let Slot::Free { next: behind, .. } = slot else {
                panic!("slot {next} is full and listed as free");
            };
            (next, free) = (*behind, free + 1);
            assert!(free <= self.slots.len(), "the list of free slots has no end");
        }
        assert_eq!(free + self.len, self.slots.len(), "slots that are free");
    }

    /// All entries in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        (0..self.slots.len() as u32).filter_map(|slot| self.tenant(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_finds_nothing() {
        let mut arena = Arena::default();
        let a = arena.insert("a");
        assert_eq!(arena.remove(a), Some("a"));
        let promised = arena.next_id();
        let b = arena.insert("b");
        assert_eq!(promised, b);
        assert_eq!(b.slot, a.slot, "the warm slot is taken first");
        assert_eq!(arena.get(a), None);
        assert_eq!(arena.remove(a), None);
        assert_eq!(arena.get(b), Some(&"b"));
        assert_eq!(arena.len(), 1);
        assert_eq!(arena.tenant(b.slot).map(|(id, _)| id), Some(b));
    }

    #[test]
    fn names_of_another_count_are_stale() {
        let mut before = Arena::counting_from(1);
        let mut after = Arena::counting_from(0x8000_0000);
        let old = before.insert("old");
        after.insert("new");
        assert_eq!(after.get(old), None);
        let mut arena = Arena::counting_from(0);
        let id = arena.insert(());
        assert_ne!(id.generation, 0, "0 is no generation");
    }

    #[test]
    fn against_a_naive_model() {
        let mut rng = crate::base::Rng::new(3);
        let mut arena = Arena::default();
        let mut model: Vec<(Id, u64)> = Vec::new();
        for step in 0..20_000u64 {
            if rng.chance(550) || model.is_empty() {
                model.push((arena.insert(step), step));
            } else {
                let (id, value) = model.swap_remove(rng.below(model.len() as u64) as usize);
                assert_eq!(arena.remove(id), Some(value));
                assert_eq!(arena.get(id), None);
            }
            assert_eq!(arena.len(), model.len());
        }
        assert!(model.iter().all(|(id, value)| arena.get(*id) == Some(value)));
        assert_eq!(arena.iter().count(), model.len());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_is_spoilt_is_found() {
        let mut arena = Arena::default();
        let ids: Vec<_> = (0..4).map(|value| arena.insert(value)).collect();
        arena.remove(ids[1]);
        arena.check();
        let free = std::mem::replace(&mut arena.free, ids[2].slot);
        crate::base::tests::assert_panics("listed as free", || arena.check());
        (arena.free, arena.len) = (free, 4);
        crate::base::tests::assert_panics("slots that are free", || arena.check());
    }
}
