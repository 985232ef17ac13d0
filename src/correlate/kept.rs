//! A map that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};

use super::Digest;

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
        Kept { slots: HashMap::new(), order: BTreeMap::new(), uses: 0, weight: 0, most, heaviest }
    }

    /// The value of a key, which may be new; it is now the one used last.
    pub fn touch(&mut self, key: Digest) -> &mut T {
        self.uses += 1;
        let slot = self.slots.entry(key).or_insert_with(|| Slot { value: T::default(), used: 0, weight: 0 });
        self.order.remove(&slot.used);
        slot.used = self.uses;
        self.order.insert(self.uses, key);
        &mut slot.value
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
