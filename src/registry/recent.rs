//! A map that forgets what was not asked for in the longest time.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A longer key is no Kubernetes name (namespace and name have at most 253 characters each), and is not kept.
const LONGEST_KEY: usize = 520;

/// A map by text of at most so many entries, in the order of its keys.
///
/// When it is full the quarter goes that was not used in the longest time, so that the cost of forgetting is spread
/// over many insertions.
#[derive(Clone, Debug)]
pub struct Recent<V> {
    entries: BTreeMap<Box<str>, Entry<V>>,
    limit: usize,
    clock: u64,
    evicted: u64,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    used: u64,
    value: V,
}

impl<V> Recent<V> {
    /// An empty one for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Recent { entries: BTreeMap::new(), limit, clock: 0, evicted: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many had to go for others.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The value of a key, which counts as used.
    pub fn get(&mut self, key: &str) -> Option<&mut V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    /// The value of a key; where there is none, what `make` makes.
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> V) -> Option<&mut V> {
        if key.len() > LONGEST_KEY {
            return None;
        }
        self.clock += 1;
        if !self.entries.contains_key(key) {
            if self.entries.len() >= self.limit {
                self.forget();
            }
            self.entries.insert(key.into(), Entry { used: self.clock, value: make() });
        }
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Forgets all whose key starts so.
    pub fn remove_prefix(&mut self, prefix: &str) {
        let mut tail = self.entries.split_off(prefix);
        let rest = tail.keys().find(|key| !key.starts_with(prefix)).cloned();
        if let Some(rest) = rest {
            self.entries.append(&mut tail.split_off(&rest));
        }
    }

    /// Those whose key starts so, in order; they do not count as used.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a V)> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (&**key, &entry.value))
    }

    fn forget(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let quarter = used.len() / 4;
        let (_, &mut limit, _) = used.select_nth_unstable(quarter);
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.used > limit);
        self.evicted += (before - self.entries.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(100);
        for number in 0..10_000 {
            recent.get_or_insert_with(&format!("k/{number}"), || number);
            recent.get_or_insert_with("k/kept", || -1);
        }
        assert!(recent.len() <= 100 && recent.get("k/kept") == Some(&mut -1) && recent.get("k/0").is_none());
        assert_eq!(recent.len() as u64 + recent.evicted(), 10_001);
        assert!(recent.get_or_insert_with(&"x".repeat(1000), || 0).is_none());
    }

    #[test]
    fn keys_with_a_prefix_are_found_and_removed() {
        let mut recent = Recent::new(100);
        for key in ["a/1", "b/1", "b/2", "bb/1", "c/1"] {
            recent.get_or_insert_with(key, || ());
        }
        assert_eq!(recent.starting_with("b/").map(|(key, ())| key).collect::<Vec<_>>(), ["b/1", "b/2"]);
        recent.remove_prefix("b/");
        assert_eq!(recent.starting_with("").map(|(key, ())| key).collect::<Vec<_>>(), ["a/1", "bb/1", "c/1"]);
    }
}
