//! A bounded map that evicts the least recently used entry, and records which entries changed.
//!
//! It is used for everything that is learned from events, whose keys clients choose. It does no I/O and reads no clock: time is counted in
//! uses.
//!
//! # Ranks
//!
//! An entry may have a rank above 0. Such entries are protected: while they take at most half of the limits, only entries of rank 0 are
//! evicted. Beyond that, the least recently used protected entry of the lowest rank is evicted. So a flood of new entries cannot push out
//! those that matter, and entries that matter cannot keep new ones out.
//!
//! # Changes
//!
//! Once tracking is on, the map records which keys changed, so that a store can be updated at a cost that depends on the changes and not on
//! the size of the map. When an entry was used last is stored with it. An entry that is used and not changed is stored again only once its
//! stored use lags behind by a quarter of the limit, counted in uses: after a restart it may be evicted that much too early, and entries
//! that are read all day are not written all day.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::detection::state::{ChangeTracker, StateChange, decode, encode};

/// Maximum length of a text key in bytes. A namespace and a name have at most 253 characters each, so a longer key is not
/// the name of an object.
const MAX_TEXT_KEY_BYTES: usize = 520;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct LruMap<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// All keys, ordered by rank and last use.
    order: BTreeMap<(u32, u64), K>,
    /// Number of uses so far.
    clock: u64,
    limit: usize,
    weight_limit: usize,
    total: Load,
    /// The part of `total` that has a rank above 0.
    protected: Load,
    evicted: u64,
    track: ChangeTracker<K>,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    /// The last use as it is stored; 0 if the entry is not stored.
    stored_use: u64,
    rank: u32,
    weight: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    count: usize,
    weight: usize,
}

impl Load {
    fn add(&mut self, weight: usize) {
        self.count += 1;
        self.weight += weight;
    }

    fn subtract(&mut self, weight: usize) {
        self.count -= 1;
        self.weight -= weight;
    }
}

impl<K: Ord + Clone, V> LruMap<K, V> {
    /// An empty map of at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self::with_weight_limit(limit, usize::MAX)
    }

    /// An empty map that is also bounded by the sum of its entries' [weights](LruMap::set_weight).
    pub fn with_weight_limit(limit: usize, weight_limit: usize) -> Self {
        LruMap {
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            limit,
            weight_limit,
            total: Load::default(),
            protected: Load::default(),
            evicted: 0,
            track: ChangeTracker::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of entries that were evicted so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Sum of all weights.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        self.total.weight
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.keys()
    }

    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// All entries in the order of their keys, each with its last use. Does not count as a use.
    pub fn iter_with_use(&self) -> impl Iterator<Item = (&K, u64, &V)> {
        self.entries.iter().map(|(key, entry)| (key, entry.used, &entry.value))
    }

    /// The value of a key. Does not count as a use.
    pub fn peek<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Records a use of an existing entry.
    fn record_use<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut Entry<V>>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.order.remove(&(entry.rank, entry.used)) {
            if self.clock - entry.stored_use > (self.limit / 4) as u64 {
                self.track.changed(&key);
            }
            self.order.insert((entry.rank, self.clock), key);
        }
        entry.used = self.clock;
        Some(entry)
    }

    fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        self.insert_used(key, value, self.clock, 0);
    }

    /// Inserts a new entry of rank and weight 0.
    fn insert_used(&mut self, key: K, value: V, used: u64, stored_use: u64) {
        self.total.add(0);
        self.track.changed(&key);
        self.order.insert((0, used), key.clone());
        self.entries.insert(key, Entry { value, used, stored_use, rank: 0, weight: 0 });
    }

    /// The value of a key. Counts as a use.
    pub fn get<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.record_use(key).map(|entry| &entry.value)
    }

    /// The value of a key. Counts neither as a use nor as a change.
    pub fn peek_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// The last use of a key, and its value.
    pub fn peek_with_use<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(u64, &mut V)>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| (entry.used, &mut entry.value))
    }

    /// Marks the value of a key as changed.
    pub fn mark_changed(&mut self, key: &K) {
        self.track.changed(key);
    }

    /// Sets the rank of an entry; see the [module](self). Entries start with rank 0.
    pub fn set_rank<Q: Ord + ?Sized>(&mut self, key: &Q, rank: u32)
    where
        K: Borrow<Q>,
    {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.rank != rank) else { return };
        let Some(key) = self.order.remove(&(entry.rank, entry.used)) else { return };
        if entry.rank > 0 {
            self.protected.subtract(entry.weight);
        }
        if rank > 0 {
            self.protected.add(entry.weight);
        }
        entry.rank = rank;
        // Entries of equal rank must have distinct times of use, and a restored entry's time may be taken already.
        if self.order.contains_key(&(rank, entry.used)) {
            self.clock += 1;
            entry.used = self.clock;
        }
        self.order.insert((rank, entry.used), key);
    }

    /// Sets the weight of an entry. Entries start with weight 0.
    pub fn set_weight<Q: Ord + ?Sized>(&mut self, key: &Q, weight: usize)
    where
        K: Borrow<Q>,
    {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.total.weight = self.total.weight - entry.weight + weight;
        if entry.rank > 0 {
            self.protected.weight = self.protected.weight - entry.weight + weight;
        }
        entry.weight = weight;
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.order.remove(&(entry.rank, entry.used));
        self.total.subtract(entry.weight);
        if entry.rank > 0 {
            self.protected.subtract(entry.weight);
        }
        self.track.gone(&key, entry.stored_use > 0);
        Some(entry.value)
    }

    fn exceeds(&self, load: Load, divisor: usize) -> bool {
        load.count > self.limit / divisor || load.weight > self.weight_limit / divisor
    }

    /// Whether entries have to be evicted. A single entry may exceed the limits.
    pub fn exceeds_limits(&self) -> bool {
        self.entries.len() > 1 && self.exceeds(self.total, 1)
    }

    /// Evicts one entry if the map exceeds a limit, and returns it.
    pub fn evict(&mut self) -> Option<(K, V)> {
        if !self.exceeds_limits() {
            return None;
        }
        let lowest = u32::from(self.exceeds(self.protected, 2));
        let victim = self.order.range((lowest, 0)..).next().or_else(|| self.order.first_key_value());
        let key = victim?.1.clone();
        self.evicted += 1;
        self.remove(&key).map(|value| (key, value))
    }

    fn evict_all(&mut self) {
        while self.evict().is_some() {}
    }

    /// Starts recording changes. Existing entries count as changed.
    pub fn track(&mut self) {
        self.track.switch_on();
        for key in self.entries.keys() {
            self.track.changed(key);
        }
    }

    pub fn is_tracked(&self) -> bool {
        self.track.is_on()
    }

    /// The keys of existing entries that changed since the last call. For callers that store values themselves; they must track removed
    /// entries on their own.
    pub fn take_changed(&mut self) -> BTreeSet<K> {
        self.track.take().1
    }

    /// Takes over the content of another map, but not its limits.
    pub fn take_over(&mut self, other: Self) {
        *self = LruMap { limit: self.limit, weight_limit: self.weight_limit, ..other };
    }

    /// Returns the entry of a key. Inserts it, as the most recently used, if it is missing.
    fn entry_or_default(&mut self, key: &K) -> &mut Entry<V>
    where
        V: Default,
    {
        let LruMap { entries, order, clock, total, .. } = self;
        entries.entry(key.clone()).or_insert_with(|| {
            *clock += 1;
            total.add(0);
            order.insert((0, *clock), key.clone());
            Entry { value: V::default(), used: *clock, stored_use: 0, rank: 0, weight: 0 }
        })
    }

    /// The value of a key, which is inserted if it is missing. Counts as a use and as a change.
    pub fn touch(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        self.entry_or_default(key);
        self.record_use(key);
        self.track.changed(key);
        &mut self.entry_or_default(key).value
    }

    /// The value of a key that is being restored, which is inserted if it is missing. Counts neither as a use nor as a
    /// change.
    pub fn restore_entry(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        &mut self.entry_or_default(key).value
    }

    /// Records the last use of a key according to the store; 0 means now.
    pub fn restore_use(&mut self, key: &K, used: u64)
    where
        V: Default,
    {
        let rank = self.entry_or_default(key).rank;
        let is_free = used > 0 && !self.order.contains_key(&(rank, used));
        let used = if is_free { used } else { self.clock + 1 };
        self.clock = self.clock.max(used);
        let before = std::mem::replace(&mut self.entry_or_default(key).used, used);
        self.order.remove(&(rank, before));
        self.order.insert((rank, used), key.clone());
    }
}

/// Maps with string keys, such as `namespace/name`. They evict entries on their own.
impl<V> LruMap<Arc<str>, V> {
    /// Changes the value of a key, which is inserted if it is missing. `change` returns whether the value differs afterwards.
    pub fn change(&mut self, key: &str, make: impl FnOnce() -> V, change: impl FnOnce(&mut V) -> bool) {
        if key.len() > MAX_TEXT_KEY_BYTES {
            return;
        }
        if let Some(entry) = self.record_use(key) {
            if change(&mut entry.value) {
                self.track.changed(&Arc::from(key));
            }
            return;
        }
        let mut value = make();
        change(&mut value);
        self.insert(Arc::from(key), value);
        self.evict_all();
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: &str, value: V)
    where
        V: Default + PartialEq,
    {
        self.change(key, V::default, |current| {
            let differs = *current != value;
            *current = value;
            differs
        });
    }

    fn range<'m>(&'m self, prefix: &str) -> impl Iterator<Item = (&'m Arc<str>, &'m Entry<V>)> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The entries whose keys have a prefix, in key order. Does not count as a use.
    pub fn starting_with<'m>(&'m self, prefix: &str) -> impl Iterator<Item = (&'m str, &'m V)> {
        self.range(prefix).map(|(key, entry)| (&**key, &entry.value))
    }
}

impl<V: Serialize + DeserializeOwned> LruMap<Arc<str>, V> {
    /// Appends the changes since the last call, encoded as entries of a kind.
    pub fn take_changes(&mut self, kind: &'static str, changes: &mut Vec<StateChange>) {
        let (gone, changed) = self.track.take();
        let gone =
            gone.into_iter().map(|key| StateChange { kind, key: key.as_bytes().to_vec(), value: None });
        changes.extend(gone);
        for key in changed {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.stored_use = entry.used;
            let value = Some(encode(entry.used, &entry.value));
            changes.push(StateChange { kind, key: key.as_bytes().to_vec(), value });
        }
    }

    /// Restores a stored entry. Returns false if it is invalid, or if `is_valid` rejects its value.
    pub fn restore(&mut self, key: &[u8], value: &[u8], is_valid: impl FnOnce(&V) -> bool) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        let Some((used, value)) = decode::<V>(value).filter(|(_, value)| is_valid(value)) else {
            return false;
        };
        if key.len() > MAX_TEXT_KEY_BYTES {
            return false;
        }
        self.remove_silently(key);
        let is_free = used > 0 && !self.order.contains_key(&(0, used));
        let used = if is_free { used } else { self.clock + 1 };
        self.clock = self.clock.max(used);
        self.total.add(0);
        let key: Arc<str> = Arc::from(key);
        self.order.insert((0, used), key.clone());
        self.entries.insert(key, Entry { value, used, stored_use: used, rank: 0, weight: 0 });
        self.evict_all();
        true
    }

    /// Removes an entry that is about to be restored again.
    fn remove_silently(&mut self, key: &str) {
        if self.contains(key) {
            let track = std::mem::take(&mut self.track);
            self.remove(key);
            self.track = track;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TextMap = LruMap<Arc<str>, i32>;

    fn changes(map: &mut TextMap) -> Vec<(String, bool)> {
        let mut changes = Vec::new();
        map.take_changes("k", &mut changes);
        let changes = changes.into_iter();
        changes.map(|one| (String::from_utf8(one.key).unwrap(), one.value.is_some())).collect()
    }

    #[test]
    fn evicts_what_was_used_least_recently() {
        let mut map = TextMap::new(100);
        for number in 0..10_000 {
            map.set(&format!("k/{number}"), number);
            map.set("k/used", -1);
        }
        assert!(map.len() <= 100 && map.get("k/used") == Some(&-1) && map.get("k/0").is_none());
        assert_eq!(map.len() as u64 + map.evicted(), 10_001);
        map.set(&"x".repeat(1000), 0);
        assert!(map.get(&*"x".repeat(1000)).is_none());
        // Changes are not tracked yet.
        assert!(changes(&mut map).is_empty());
    }

    #[test]
    fn finds_and_removes_keys_by_prefix() {
        let mut map = TextMap::new(100);
        for key in ["a/1", "b/1", "b/2", "bb/1", "c/1"] {
            map.set(key, 0);
        }
        map.track();
        assert_eq!(changes(&mut map).len(), 5);
        assert_eq!(map.starting_with("b/").map(|(key, _)| key).collect::<Vec<_>>(), ["b/1", "b/2"]);
        map.remove("b/1");
        map.remove("b/2");
        assert_eq!(map.starting_with("").map(|(key, _)| key).collect::<Vec<_>>(), ["a/1", "bb/1", "c/1"]);
        assert_eq!(changes(&mut map), [("b/1".to_owned(), false), ("b/2".to_owned(), false)]);
    }

    #[test]
    fn stored_entries_are_as_bounded_and_as_recent_as_those_in_memory() {
        let (mut map, mut stored) = (TextMap::new(100), BTreeMap::new());
        map.track();
        let mut number = 7_u64;
        for step in 0..20_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{:03}", (number >> 33) % 150);
            match step % 7 {
                0 => drop(map.remove(&*key)),
                1..4 => drop(map.get(&*key)),
                _ => map.set(&key, step % 2),
            }
            if step % 50 == 0 {
                let mut changes = Vec::new();
                map.take_changes("k", &mut changes);
                for StateChange { key, value, .. } in changes {
                    match value {
                        Some(value) => stored.insert(key, value),
                        None => stored.remove(&key),
                    };
                }
                assert_eq!(stored.len(), map.len());
                let mut again = TextMap::new(100);
                for (key, value) in &stored {
                    assert!(again.restore(key, value, |_| true));
                }
                for (key, entry) in &map.entries {
                    let same = &again.entries[key];
                    assert!(same.value == entry.value && entry.used - same.used <= 25);
                }
            }
        }
        assert!(map.evicted() > 0);
    }

    #[test]
    fn entries_that_are_only_read_are_seldom_stored_again() {
        let mut map = TextMap::new(1000);
        map.track();
        map.set("a", 1);
        assert_eq!(changes(&mut map).len(), 1);
        let written: usize = (0..1000)
            .map(|_| {
                map.get("a");
                map.set("a", 1);
                changes(&mut map).len()
            })
            .sum();
        assert!(written < 10, "{written}");
    }

    #[test]
    fn protected_entries_outlive_a_flood_but_keep_nothing_new_out() {
        let mut map: LruMap<u32, u32> = LruMap::new(100);
        let add = |map: &mut LruMap<u32, u32>, key: u32, rank: u32| {
            map.touch(&key);
            map.set_rank(&key, rank);
            map.set_weight(&key, 1);
            map.evict_all();
        };
        add(&mut map, 1, 3);
        (1000..100_000).for_each(|key| add(&mut map, key, 0));
        assert!(map.peek_mut(&1).is_some() && map.len() == 100);
        // Entries of a lower rank are evicted first, even if they are protected too.
        (200_000..300_000).for_each(|key| add(&mut map, key, 2));
        assert!(map.peek_mut(&1).is_some() && map.len() == 100);
        // New entries can use the other half of the limit.
        (400_000..400_040).for_each(|key| add(&mut map, key, 0));
        assert!((400_000..400_040).all(|key| map.peek_mut(&key).is_some()));
        assert_eq!(map.weight(), 100);
    }

    #[test]
    fn weight_is_bounded_too() {
        let mut map: LruMap<u32, u32> = LruMap::with_weight_limit(100, 1000);
        for key in 0..500 {
            map.touch(&key);
            map.set_weight(&key, 100);
            while map.evict().is_some() {}
            assert!(map.weight() <= 1000 && map.len() <= 10);
        }
        map.set_weight(&499, 5000);
        while map.evict().is_some() {}
        assert_eq!((map.len(), map.weight()), (1, 5000));
    }
}
