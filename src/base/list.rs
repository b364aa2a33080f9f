//! An intrusive list: its entries are in a table of their owner's and carry the links themselves, so that inserting and removing
//! take constant time and allocate nothing.

const NONE: u32 = u32::MAX;

/// Marks an entry that is in no list.
const APART: u32 = u32::MAX - 1;

/// An entry's neighbours in its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Links {
    before: u32,
    after: u32,
}

impl Links {
    /// The links of an entry that is in no list.
    pub const APART: Links = Links { before: APART, after: APART };
}

/// A table whose entries can be in a list, identified by their places.
pub trait Linked {
    /// Returns `None` if this place is empty.
    fn links(&self, place: u32) -> Option<Links>;
}

/// The same, mutably.
pub trait LinkedMut: Linked {
    fn links_mut(&mut self, place: u32) -> Option<&mut Links>;
}

/// One list. An entry is in at most one list for each kind of links that it carries.
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        List { first: NONE, last: NONE }
    }
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Iterates from the first entry to the last.
    pub fn iter<'a, T: Linked>(&self, table: &'a T) -> impl Iterator<Item = u32> + use<'a, T> {
        std::iter::successors(self.first(), |place| {
            let after = table.links(*place)?.after;
            (after != NONE).then_some(after)
        })
    }

    /// Appends an entry, which must be in no list.
    pub fn push(&mut self, table: &mut impl LinkedMut, place: u32) {
        let Some(links) = table.links_mut(place) else {
            debug_assert!(false, "nothing stands in place {place}");
            return;
        };
        debug_assert_eq!(*links, Links::APART, "{place} is in a list already");
        let before = std::mem::replace(&mut self.last, place);
        *links = Links { before, after: NONE };
        match table.links_mut(before) {
            Some(links) => links.after = place,
            None => self.first = place,
        }
    }

    /// Removes an entry, which must be in this list.
    pub fn remove(&mut self, table: &mut impl LinkedMut, place: u32) {
        let links = table.links_mut(place);
        let Some(links) = links.filter(|links| **links != Links::APART) else {
            debug_assert!(false, "{place} is in no list");
            return;
        };
        let Links { before, after } = std::mem::replace(links, Links::APART);
        match table.links_mut(before) {
            Some(links) => links.after = after,
            None => self.first = after,
        }
        match table.links_mut(after) {
            Some(links) => links.before = before,
            None => self.last = before,
        }
    }

    /// Panics unless the links of all entries agree with each other. Returns how many there are.
    pub fn check(&self, table: &impl Linked) -> usize {
        let (mut before, mut count) = (NONE, 0);
        for place in self.iter(table) {
            let links = table.links(place);
            assert_eq!(links.map(|links| links.before), Some(before), "{place}");
            (before, count) = (place, count + 1);
        }
        assert_eq!(self.last, before, "the last one of {count}");
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    impl Linked for Vec<Links> {
        fn links(&self, place: u32) -> Option<Links> {
            self.get(place as usize).copied()
        }
    }

    impl LinkedMut for Vec<Links> {
        fn links_mut(&mut self, place: u32) -> Option<&mut Links> {
            self.get_mut(place as usize)
        }
    }

    #[test]
    fn against_a_naive_model() {
        let (mut table, mut list, mut rng) = (vec![Links::APART; 50], List::default(), Rng::new(5));
        let mut model: Vec<u32> = Vec::new();
        for _ in 0..20_000 {
            let place = rng.below(50) as u32;
            match model.iter().position(|other| *other == place) {
                Some(position) => {
                    model.remove(position);
                    list.remove(&mut table, place);
                    assert_eq!(table[place as usize], Links::APART);
                }
                None => {
                    model.push(place);
                    list.push(&mut table, place);
                }
            }
            assert_eq!(list.first(), model.first().copied());
            assert_eq!(list.is_empty(), model.is_empty());
            assert_eq!(list.check(&table), model.len());
            assert!(list.iter(&table).eq(model.iter().copied()));
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "is in a list already")]
    fn an_entry_cannot_be_in_two_lists() {
        let mut table = vec![Links::APART; 2];
        List::default().push(&mut table, 1);
        List::default().push(&mut table, 1);
    }

    #[test]
    #[should_panic]
    fn links_that_do_not_agree_are_found() {
        let (mut table, mut list) = (vec![Links::APART; 3], List::default());
        (0..3).for_each(|place| list.push(&mut table, place));
        table[2].before = 0;
        list.check(&table);
    }
}
