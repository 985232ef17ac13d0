//! A map with a value per topic and partition.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Values by topic and partition. Bounded by the number of assigned partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions<T>(BTreeMap<Arc<str>, BTreeMap<i32, T>>);

impl<T> Default for Partitions<T> {
    fn default() -> Self {
        Partitions(BTreeMap::new())
    }
}

impl<T> Partitions<T> {
    pub fn get(&self, topic: &str, partition: i32) -> Option<&T> {
        self.0.get(topic)?.get(&partition)
    }

    pub fn get_mut(&mut self, topic: &str, partition: i32) -> Option<&mut T> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }

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

    pub fn remove(&mut self, topic: &str, partition: i32) -> Option<T> {
        let partitions = self.0.get_mut(topic)?;
        let value = partitions.remove(&partition);
        if partitions.is_empty() {
            self.0.remove(topic);
        }
        value
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &T)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, value)| (&**topic, *partition, value))
        })
    }

    pub fn for_each(&mut self, change: impl FnMut(&mut T)) {
        self.0.values_mut().flat_map(BTreeMap::values_mut).for_each(change);
    }

    /// Adds another map's values, which replace existing ones.
    pub fn merge(&mut self, other: Self) {
        for (topic, partitions) in other.0 {
            self.0.entry(topic).or_default().extend(partitions);
        }
    }
}
