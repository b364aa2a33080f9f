//! A map that keeps recently used entries, and forgets the rest in O(1).

use std::collections::HashMap;
use std::hash::Hash;

/// New and used entries are in `young`; when it is full, it becomes `old`, and the previous `old` is dropped. So none of the last
/// `CAPACITY` entries used is forgotten, at most twice as many are kept, and there is no list to maintain.
pub struct Recent<K, V, const CAPACITY: usize> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V, const CAPACITY: usize> Default for Recent<K, V, CAPACITY> {
    fn default() -> Self {
        Recent { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, V, const CAPACITY: usize> Recent<K, V, CAPACITY> {
    /// Returns the entry of `key`, which becomes the most recently used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    /// The same; creates the entry if there is none.
    pub fn entry(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        if self.get(key).is_none() {
            self.insert(key.clone(), V::default());
        }
        self.young.entry(key.clone()).or_default()
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }

    #[cfg(test)]
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V, CAPACITY> {
        let young = std::mem::take(&mut self.young);
        young.into_iter().chain(std::mem::take(&mut self.old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_are_kept_and_the_number_is_bounded() {
        let mut recent: Recent<u32, u32, 100> = Recent::default();
        for key in 0..10_000 {
            recent.insert(key, key * 2);
            assert!(recent.values().count() <= 200);
            // An entry in constant use stays.
            assert_eq!(recent.get(&0), Some(&mut 0));
            for back in 0..50.min(key) {
                assert_eq!(recent.get(&(key - back)).copied(), Some((key - back) * 2));
            }
        }
        assert_eq!(recent.get(&5000), None);
        *recent.entry(&5000) += 7;
        assert_eq!(recent.get(&5000), Some(&mut 7));
        recent.remove(&5000);
        assert_eq!(recent.get(&5000), None);
    }
}
