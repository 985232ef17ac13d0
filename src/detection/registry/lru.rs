//! A map that forgets what was not asked for in the longest time.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::detection::state::{StateChange, Track, decode, encode};

/// A longer key is no Kubernetes name (namespace and name have at most 253 characters each), and is not kept.
const LONGEST_KEY: usize = 520;

/// A map by text of at most so many entries, in the order of its keys.
///
/// When it is full the quarter goes that was not used in the longest time, so that the cost of forgetting is spread
/// over many insertions.
///
/// It can be stored entry by entry. When an entry was used last is stored with it, but an entry that is used and not
/// changed is stored again only once its stored use is behind by a quarter of the limit, counted in uses: after a restart an
/// entry may be forgotten that much too early, and what is read all day is not written all day.
#[derive(Clone, Debug)]
pub struct Recent<V> {
    entries: BTreeMap<Box<str>, Entry<V>>,
    limit: usize,
    clock: u64,
    evicted: u64,
    track: Track<String>,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    used: u64,
    /// When it was used last, as it is stored; 0 where it is not.
    stored: u64,
    value: V,
}

impl<V> Recent<V> {
    /// An empty one for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Recent { entries: BTreeMap::new(), limit, clock: 0, evicted: 0, track: Track::default() }
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
    pub fn get(&mut self, key: &str) -> Option<&V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        if self.clock - entry.stored > (self.limit / 4) as u64 {
            self.track.changed(key);
        }
        Some(&entry.value)
    }

    /// Changes the value of a key, or a new one that `make` makes; `change` says whether it is another now.
    pub fn change(&mut self, key: &str, make: impl FnOnce() -> V, change: impl FnOnce(&mut V) -> bool) {
        if key.len() > LONGEST_KEY {
            return;
        }
        self.clock += 1;
        let used = self.clock;
        if !self.entries.contains_key(key) {
            self.make_room();
            let mut value = make();
            change(&mut value);
            self.entries.insert(key.into(), Entry { used, stored: 0, value });
            self.track.changed(key);
        } else if let Some(entry) = self.entries.get_mut(key) {
            entry.used = used;
            if change(&mut entry.value) || used - entry.stored > (self.limit / 4) as u64 {
                self.track.changed(key);
            }
        }
    }

    /// Gives a key this value.
    pub fn set(&mut self, key: &str, value: V)
    where
        V: Default + PartialEq,
    {
        self.change(key, V::default, |known| {
            let is_other = *known != value;
            *known = value;
            is_other
        });
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.track.gone(key, entry.stored > 0);
        }
    }

    /// Forgets all whose key starts so.
    pub fn remove_prefix(&mut self, prefix: &str) {
        let mut tail = self.entries.split_off(prefix);
        let rest = tail.keys().find(|key| !key.starts_with(prefix)).cloned();
        if let Some(rest) = rest {
            self.entries.append(&mut tail.split_off(&rest));
        }
        for (key, entry) in tail {
            self.track.gone::<str>(&key, entry.stored > 0);
        }
    }

    /// Those whose key starts so, in order; they do not count as used.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a V)> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (&**key, &entry.value))
    }

    fn make_room(&mut self) {
        if self.entries.len() < self.limit {
            return;
        }
        let mut used: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let quarter = used.len() / 4;
        let (_, &mut limit, _) = used.select_nth_unstable(quarter);
        let before = self.entries.len();
        let track = &mut self.track;
        self.entries.retain(|key, entry| {
            let stays = entry.used > limit;
            if !stays {
                track.gone::<str>(key, entry.stored > 0);
            }
            stays
        });
        self.evicted += (before - self.entries.len()) as u64;
    }
}

impl<V: Serialize + DeserializeOwned> Recent<V> {
    /// From now on remembers what changes. What is there counts as changed.
    pub fn track(&mut self) {
        self.track.switch_on();
        for key in self.entries.keys() {
            self.track.changed::<str>(key);
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self, kind: &'static str, changes: &mut Vec<StateChange>) {
        let (gone, changed) = self.track.take();
        let gone = gone.into_iter().map(|key| StateChange { kind, key: key.into_bytes(), value: None });
        changes.extend(gone);
        for key in changed {
            let Some(entry) = self.entries.get_mut(&*key) else { continue };
            entry.stored = entry.used;
            let value = Some(encode(entry.used, &entry.value));
            changes.push(StateChange { kind, key: key.into_bytes(), value });
        }
    }

    /// Takes a stored entry back; false where it is none that `is_sound` likes.
    pub fn restore(&mut self, key: &[u8], value: &[u8], is_sound: impl FnOnce(&V) -> bool) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        let Some((used, value)) = decode::<V>(value).filter(|(_, value)| is_sound(value)) else {
            return false;
        };
        if key.len() > LONGEST_KEY {
            return false;
        }
        if !self.entries.contains_key(key) {
            self.make_room();
        }
        let used = used.max(1);
        self.clock = self.clock.max(used);
        self.entries.insert(key.into(), Entry { used, stored: used, value });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(recent: &mut Recent<i32>) -> Vec<(String, bool)> {
        let mut changes = Vec::new();
        recent.take_changes("k", &mut changes);
        let changes = changes.into_iter();
        changes.map(|one| (String::from_utf8(one.key).unwrap(), one.value.is_some())).collect()
    }

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(100);
        for number in 0..10_000 {
            recent.set(&format!("k/{number}"), number);
            recent.set("k/kept", -1);
        }
        assert!(recent.len() <= 100 && recent.get("k/kept") == Some(&-1) && recent.get("k/0").is_none());
        assert_eq!(recent.len() as u64 + recent.evicted(), 10_001);
        recent.set(&"x".repeat(1000), 0);
        assert!(recent.get(&"x".repeat(1000)).is_none());
        // Nobody asked for changes.
        assert!(changes(&mut recent).is_empty());
    }

    #[test]
    fn keys_with_a_prefix_are_found_and_removed() {
        let mut recent = Recent::new(100);
        for key in ["a/1", "b/1", "b/2", "bb/1", "c/1"] {
            recent.set(key, 0);
        }
        recent.track();
        assert_eq!(changes(&mut recent).len(), 5);
        assert_eq!(recent.starting_with("b/").map(|(key, _)| key).collect::<Vec<_>>(), ["b/1", "b/2"]);
        recent.remove_prefix("b/");
        assert_eq!(recent.starting_with("").map(|(key, _)| key).collect::<Vec<_>>(), ["a/1", "bb/1", "c/1"]);
        assert_eq!(changes(&mut recent), [("b/1".to_owned(), false), ("b/2".to_owned(), false)]);
    }

    #[test]
    fn what_is_stored_is_as_bounded_and_as_recent_as_what_is_known() {
        let (mut recent, mut stored) = (Recent::new(100), BTreeMap::new());
        recent.track();
        let mut number = 7_u64;
        for step in 0..20_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{:03}", (number >> 33) % 150);
            match step % 7 {
                0 => recent.remove(&key),
                1..4 => drop(recent.get(&key)),
                _ => recent.set(&key, step % 2),
            }
            if step % 50 == 0 {
                let mut changes = Vec::new();
                recent.take_changes("k", &mut changes);
                for StateChange { key, value, .. } in changes {
                    match value {
                        Some(value) => stored.insert(key, value),
                        None => stored.remove(&key),
                    };
                }
                assert_eq!(stored.len(), recent.len());
                let mut again: Recent<i32> = Recent::new(100);
                for (key, value) in &stored {
                    assert!(again.restore(key, value, |_| true));
                }
                for (key, entry) in &recent.entries {
                    let same = &again.entries[key];
                    assert!(same.value == entry.value && entry.used - same.used <= 25);
                }
            }
        }
        assert!(recent.evicted() > 0);
    }

    #[test]
    fn what_is_only_read_is_seldom_written() {
        let mut recent = Recent::new(1000);
        recent.track();
        recent.set("a", 1);
        assert_eq!(changes(&mut recent).len(), 1);
        let written: usize = (0..1000)
            .map(|_| {
                recent.get("a");
                recent.set("a", 1);
                changes(&mut recent).len()
            })
            .sum();
        assert!(written < 10, "{written}");
    }
}
