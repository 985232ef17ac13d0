//! A map that forgets what was not used for longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Digest;
use crate::detection::state::Track;

/// Values by key, bounded in number and in weight.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    slots: HashMap<Digest, Slot<T>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, Digest>,
    uses: u64,
    weight: usize,
    most: usize,
    heaviest: usize,
    track: Track<Digest>,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    value: T,
    used: u64,
    weight: usize,
}

impl<T: Default> Kept<T> {
    /// With at most so many values, that together are at most so heavy.
    pub fn new(most: usize, heaviest: usize) -> Self {
        Kept {
            slots: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            weight: 0,
            most,
            heaviest,
            track: Track::default(),
        }
    }

    /// From now on remembers what changes. What is there counts as changed.
    pub fn track(&mut self) {
        self.track.switch_on();
        for key in self.slots.keys() {
            self.track.changed(key);
        }
    }

    /// Whether anybody asks for changes.
    pub fn is_tracked(&self) -> bool {
        self.track.is_on()
    }

    /// The keys whose value changed since the last call and is still there. What is gone is for the caller to remember:
    /// it alone knows how it was stored.
    pub fn take_changed(&mut self) -> BTreeSet<Digest> {
        self.track.take().1
    }

    /// A key's value changed without being used.
    pub fn changed(&mut self, key: &Digest) {
        self.track.changed(key);
    }

    /// The value of a key, which may be new; it is now the one used last, and counts as changed.
    pub fn touch(&mut self, key: Digest) -> &mut T {
        self.uses += 1;
        let slot = self.slots.entry(key).or_insert_with(|| Slot { value: T::default(), used: 0, weight: 0 });
        self.order.remove(&slot.used);
        slot.used = self.uses;
        self.order.insert(self.uses, key);
        self.track.changed(&key);
        &mut slot.value
    }

    /// The value of a key that is restored. One that is new counts as used now, until its use is restored too.
    pub fn restore(&mut self, key: Digest) -> &mut T {
        if !self.slots.contains_key(&key) {
            self.restore_use(key, 0);
        }
        let slot = self.slots.entry(key).or_insert_with(|| Slot { value: T::default(), used: 0, weight: 0 });
        &mut slot.value
    }

    /// When a key was used last; where that is 0 or another was used then, it is now.
    pub fn restore_use(&mut self, key: Digest, used: u64) {
        let slot = self.slots.entry(key).or_insert_with(|| Slot { value: T::default(), used: 0, weight: 0 });
        self.order.remove(&slot.used);
        let is_free = used > 0 && !self.order.contains_key(&used);
        slot.used = if is_free { used } else { self.uses + 1 };
        self.order.insert(slot.used, key);
        self.uses = self.uses.max(slot.used);
    }

    /// When a key was used last, and its value.
    pub fn used(&mut self, key: &Digest) -> Option<(u64, &mut T)> {
        self.slots.get_mut(key).map(|slot| (slot.used, &mut slot.value))
    }

    /// Takes over all that another holds, but not its limits. It is empty itself.
    pub fn take_over(&mut self, other: Self) {
        *self = Kept { most: self.most, heaviest: self.heaviest, ..other };
    }

    /// The value of a key, without using it.
    pub fn get(&mut self, key: &Digest) -> Option<&mut T> {
        self.slots.get_mut(key).map(|slot| &mut slot.value)
    }

    /// Says how heavy the value of a key is.
    pub fn weigh(&mut self, key: &Digest, weight: usize) {
        if let Some(slot) = self.slots.get_mut(key) {
            self.weight = self.weight - slot.weight + weight;
            slot.weight = weight;
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &Digest) -> Option<T> {
        let slot = self.slots.remove(key)?;
        self.order.remove(&slot.used);
        self.weight -= slot.weight;
        self.track.gone(key, false);
        Some(slot.value)
    }

    /// While there is too much: forgets what was not used for longest, and gives it. The last one stays.
    pub fn evict(&mut self) -> Option<(Digest, T)> {
        if self.slots.len() <= 1 || (self.slots.len() <= self.most && self.weight <= self.heaviest) {
            return None;
        }
        let key = *self.order.first_key_value()?.1;
        self.remove(&key).map(|value| (key, value))
    }

    /// All keys, the one used last at the end.
    pub fn keys(&self) -> impl Iterator<Item = Digest> + '_ {
        self.order.values().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How heavy they are together.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        self.weight
    }
}
