//! The connections of one core by name: a slab with the generation in each entry, so that an old name finds nothing.
//!
//! The room for the maximum is reserved at the start, so that no entry moves while the server runs. Reserved room costs address
//! space but no memory until it is used. Entries are not boxed, because that measured worse: with 100,000 connections each took 382
//! bytes instead of 358, and a lookup by token 323 ns instead of 196 (`perf/connections`).

use crate::base::Id;
use slab::Slab;

pub struct Table<T> {
    slots: Slab<Entry<T>>,
    /// The generation of the next entry. It counts all entries, whatever their slots: the slab keeps nothing in a free slot.
    next_generation: u32,
}

struct Entry<T> {
    generation: u32,
    value: T,
}

impl<T> Table<T> {
    /// Creates a table with room for `most` entries, whose generations begin at `first`: if names outlive the process, the next
    /// process must not reuse them.
    pub fn new(most: usize, first: u32) -> Table<T> {
        Table { slots: Slab::with_capacity(most), next_generation: first.max(1) }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Inserts an entry into the slot freed last, because it is warm. There must be room.
    pub fn insert(&mut self, value: T) -> Id {
        debug_assert!(self.slots.len() < self.slots.capacity(), "the table moves");
        let generation = self.next_generation;
        // 0 is not a valid generation.
        self.next_generation = generation.wrapping_add(1).max(1);
        let slot = self.slots.insert(Entry { generation, value });
        Id { slot: slot as u32, generation }
    }

    /// Removes the entry; `None` if the name is stale.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.slots.remove(id.slot as usize).value)
    }

    pub fn get(&self, id: Id) -> Option<&T> {
        let entry = self.slots.get(id.slot as usize)?;
        (entry.generation == id.generation).then_some(&entry.value)
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        (entry.generation == id.generation).then_some(&mut entry.value)
    }

    /// Returns an entry that its owner knows to exist; if it does not, that is a bug.
    pub fn known(&self, id: Id) -> Option<&T> {
        let entry = self.get(id);
        debug_assert!(entry.is_some(), "{id:?} is gone");
        entry
    }

    /// The same, mutably.
    pub fn known_mut(&mut self, id: Id) -> Option<&mut T> {
        let entry = self.get_mut(id);
        debug_assert!(entry.is_some(), "{id:?} is gone");
        entry
    }

    /// Returns the current tenant of a slot: for lists of slots that are kept up to date.
    pub fn tenant(&self, slot: u32) -> Option<(Id, &T)> {
        let entry = self.slots.get(slot as usize)?;
        let generation = entry.generation;
        Some((Id { slot, generation }, &entry.value))
    }

    /// The same, mutably.
    pub fn tenant_mut(&mut self, slot: u32) -> Option<(Id, &mut T)> {
        let entry = self.slots.get_mut(slot as usize)?;
        let generation = entry.generation;
        Some((Id { slot, generation }, &mut entry.value))
    }

    /// All entries in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().map(|(slot, entry)| {
            let (slot, generation) = (slot as u32, entry.generation);
            (Id { slot, generation }, &entry.value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn a_stale_name_finds_nothing() {
        let mut table = Table::new(2, u32::MAX);
        let a = table.insert("a");
        assert_eq!(table.remove(a), Some("a"));
        let b = table.insert("b");
        assert_eq!(b.slot, a.slot, "the warm slot is taken first");
        assert_eq!(b.generation, 1, "0 is no generation");
        assert_eq!(table.get(a), None);
        assert_eq!(table.get_mut(a), None);
        assert_eq!(table.remove(a), None);
        assert_eq!(table.get(b), Some(&"b"));
        assert_eq!(table.tenant(b.slot), Some((b, &"b")));
        assert_eq!(table.tenant(1), None);
        assert_eq!(table.len(), 1);
    }

    /// Returns the resident memory of this process in bytes.
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages = text.split_whitespace().nth(1).unwrap();
        pages.parse::<usize>().unwrap() * crate::net::sys::page_size()
    }

    #[test]
    fn what_is_reserved_costs_no_memory() {
        const ENTRIES: usize = 1 << 20;
        let before = resident();
        let mut table: Table<[u64; 64]> = Table::new(ENTRIES, 1);
        for _ in 0..100 {
            table.insert([7; 64]);
        }
        assert!(table.slots.capacity() >= ENTRIES);
        // Other tests run at the same time.
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes of 512 MiB are in memory");
    }

    #[test]
    fn against_a_naive_model() {
        let mut rng = Rng::new(3);
        let mut table = Table::new(500, 7);
        let mut model: Vec<(Id, u64)> = Vec::new();
        table.insert(0);
        let first = std::ptr::from_ref(table.tenant(0).unwrap().1);
        for step in 0..20_000u64 {
            if model.len() < 499 && (rng.chance(550) || model.is_empty()) {
                model.push((table.insert(step), step));
            } else {
                let (id, value) = model.swap_remove(rng.below(model.len() as u64) as usize);
                assert_eq!(table.remove(id), Some(value));
                assert_eq!(table.get(id), None);
            }
            assert_eq!(table.len(), model.len() + 1);
        }
        assert!(model.iter().all(|(id, value)| table.get(*id) == Some(value)));
        assert_eq!(table.iter().count(), table.len());
        let now = std::ptr::from_ref(table.tenant(0).unwrap().1);
        assert_eq!(now, first, "nothing has moved");
    }
}
