//! Finds the server transaction of a key: a hash table whose chains run through the records, and whose links tell enough about the
//! records that an unsuccessful search seldom touches one. Records are cold memory, and most searches find nothing: every new
//! request begins with one.

/// The heads of the chains. The size is fixed: the number of records is limited, and growing would cause a pause.
pub struct Directory {
    heads: Box<[Link]>,
    /// Low bits of a link that hold the slot, plus one.
    slot_bits: u32,
}

/// From a head or a record to the next record: its slot, some bits of its key, and whether it has a next itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Link(u32);

impl Link {
    pub const END: Link = Link(0);
}

/// What [`Directory::look`] returns for a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The chain ends here; the key is not in it.
    Nothing,
    /// The record in this slot may have the key, or a successor.
    Record(u32),
}

/// The largest number of records that a directory can tell apart.
const MOST: usize = 1 << 24;

impl Directory {
    /// Creates a directory for up to `limit` records, and [`Directory::capacity`] at most.
    ///
    /// There are as many heads as records. Fewer would make a smaller table but longer chains, and a chain is walked through the
    /// records: with eight records per head, and 280,000 of a million slots in use, a call took 10.7 µs instead of 7.6.
    pub fn new(limit: usize) -> Directory {
        let most = limit.clamp(1024, MOST).next_power_of_two();
        Directory { heads: vec![Link::END; most].into(), slot_bits: most.trailing_zeros() + 1 }
    }

    /// Slots must lie below this.
    pub fn capacity(&self) -> usize {
        (1 << self.slot_bits) - 1
    }

    /// Returns where the chain of a key begins.
    pub fn head(&self, key: u128) -> Link {
        self.heads[self.bucket(key)]
    }

    /// Returns what a link tells about a key.
    pub fn look(&self, link: Link, key: u128) -> Look {
        let other_key = link.0 & self.tag_mask() != self.tag(key);
        match link.0 & self.slot_mask() {
            0 => Look::Nothing,
            _ if other_key && link.0 & self.more() == 0 => Look::Nothing,
            slot => Look::Record(slot - 1),
        }
    }

    /// Puts the record in front of its chain, and returns the record's own link.
    pub fn insert(&mut self, key: u128, slot: u32) -> Link {
        let bucket = self.bucket(key);
        let next = self.heads[bucket];
        let more = if next == Link::END { 0 } else { self.more() };
        self.heads[bucket] = Link(self.tag(key) | more | (slot + 1));
        next
    }

    /// Takes the record out if it is the first of its chain; `next` is its own link. False: it is further back.
    pub fn remove_first(&mut self, key: u128, slot: u32, next: Link) -> bool {
        let bucket = self.bucket(key);
        let is_first = self.leads_to(self.heads[bucket], slot);
        if is_first {
            self.heads[bucket] = next;
        }
        is_first
    }

    /// The slot that a link leads to.
    pub fn slot(&self, link: Link) -> Option<u32> {
        (link.0 & self.slot_mask()).checked_sub(1)
    }

    pub fn leads_to(&self, link: Link, slot: u32) -> bool {
        self.slot(link) == Some(slot)
    }

    fn bucket(&self, key: u128) -> usize {
        key as usize & (self.heads.len() - 1)
    }

    fn slot_mask(&self) -> u32 {
        (1 << self.slot_bits) - 1
    }

    /// Set in a link whose record has a successor, or once had one.
    fn more(&self) -> u32 {
        1 << self.slot_bits
    }

    fn tag_mask(&self) -> u32 {
        !(self.slot_mask() | self.more())
    }

    /// Bits of the key that do not choose the bucket.
    fn tag(&self, key: u128) -> u32 {
        (key >> 96) as u32 & self.tag_mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    /// Records as in the table, in a directory that is too small, so that chains are long.
    #[derive(Default)]
    struct Records(Vec<Option<(u128, Link)>>);

    impl Records {
        fn find(&self, directory: &Directory, key: u128) -> Option<u32> {
            let mut link = directory.head(key);
            while let Look::Record(slot) = directory.look(link, key) {
                let (theirs, next) = self.0[slot as usize].expect("a link leads to a record");
                if theirs == key {
                    return Some(slot);
                }
                link = next;
            }
            None
        }

        fn remove(&mut self, directory: &mut Directory, slot: u32) {
            let (key, next) = self.0[slot as usize].take().expect("a record");
            if directory.remove_first(key, slot, next) {
                return;
            }
            let mut link = directory.head(key);
            while let Some(before) = directory.slot(link) {
                let record = self.0[before as usize].as_mut().expect("a record");
                if directory.leads_to(record.1, slot) {
                    record.1 = next;
                    return;
                }
                link = record.1;
            }
            panic!("slot {slot} is not in its chain");
        }
    }

    #[test]
    fn against_a_naive_model() {
        for seed in 0..8 {
            let mut rng = Rng::new(seed);
            let mut directory = Directory::new(0);
            let mut records = Records::default();
            let mut model: Vec<(u128, u32)> = Vec::new();
            // Few buckets and few tags: keys collide in either, in both and in neither.
            let key = |rng: &mut Rng| {
                let tag = u128::from(rng.below(3)) << 125;
                tag | u128::from(rng.below(200)) << 32 | u128::from(rng.below(4))
            };
            for _ in 0..4000 {
                let key = key(&mut rng);
                let known = model.iter().find(|(theirs, _)| *theirs == key);
                assert_eq!(records.find(&directory, key), known.map(|(_, slot)| *slot));
                if known.is_none() && rng.chance(600) {
                    let slot = match records.0.iter().position(Option::is_none) {
                        Some(free) => free,
                        None => {
                            records.0.push(None);
                            records.0.len() - 1
                        }
                    };
                    let next = directory.insert(key, slot as u32);
                    records.0[slot] = Some((key, next));
                    model.push((key, slot as u32));
                } else if !model.is_empty() {
                    let (_, slot) = model.swap_remove(rng.below(model.len() as u64) as usize);
                    records.remove(&mut directory, slot);
                }
            }
            assert!(records.0.len() > 50);
            for (_, slot) in model {
                records.remove(&mut directory, slot);
            }
            assert!(directory.heads.iter().all(|head| *head == Link::END));
        }
    }

    #[test]
    fn a_search_in_vain_touches_no_record() {
        let mut directory = Directory::new(1 << 20);
        let (key, other) = (5 | 1 << 127, 5 | 1 << 126);
        assert_eq!(directory.insert(key, 0), Link::END);
        let head = directory.head(other);
        assert_eq!(directory.look(head, other), Look::Nothing);
        assert_eq!(directory.look(head, key), Look::Record(0));
        assert!(directory.capacity() > 1 << 20);
    }
}
