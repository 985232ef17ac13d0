//! Something for each of some partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Something for each of some partitions, by topic and number. Bounded by what is assigned to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions<T>(BTreeMap<Arc<str>, BTreeMap<i32, T>>);

impl<T> Default for Partitions<T> {
    fn default() -> Self {
        Partitions(BTreeMap::new())
    }
}

impl<T> Partitions<T> {
    /// What there is for one.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&T> {
        self.0.get(topic)?.get(&partition)
    }

    /// What there is for one.
    pub fn get_mut(&mut self, topic: &str, partition: i32) -> Option<&mut T> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }

    /// Sets it for one.
    pub fn set(&mut self, topic: &str, partition: i32, value: T) {
        match self.0.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, value);
            }
            None => {
                self.0.insert(topic.into(), BTreeMap::from([(partition, value)]));
            }
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, topic: &str, partition: i32) -> Option<T> {
        let partitions = self.0.get_mut(topic)?;
        let value = partitions.remove(&partition);
        if partitions.is_empty() {
            self.0.remove(topic);
        }
        value
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &T)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, value)| (&**topic, *partition, value))
        })
    }

    /// Changes all of them.
    pub fn for_each(&mut self, change: impl FnMut(&mut T)) {
        self.0.values_mut().flat_map(BTreeMap::values_mut).for_each(change);
    }

    /// Takes another's; where both have something, the other's holds.
    pub fn merge(&mut self, other: Self) {
        for (topic, partitions) in other.0 {
            self.0.entry(topic).or_default().extend(partitions);
        }
    }
}
