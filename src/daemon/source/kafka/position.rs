//! How far a partition was judged, as the store has it.

use crate::detection::state::{StateChange, kind};

/// How far a partition was judged, and what we know of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset of the next message.
    pub next: i64,
    /// What we had committed to the group by then; below 0 where nothing. Where the group has less now, somebody set it back.
    pub committed: i64,
}

/// The version of the values.
const VERSION: u8 = 1;

/// What the keys of a source start with. Another group starts anew, and so does another cluster.
pub fn prefix(source: &str, group: &str, cluster: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for part in [source, group, cluster] {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

/// The entry of a partition for the store.
pub fn entry(prefix: &[u8], topic: &str, partition: i32, position: Position) -> StateChange {
    let mut key = prefix.to_vec();
    key.extend_from_slice(topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    let mut value = vec![VERSION];
    value.extend_from_slice(&position.next.to_be_bytes());
    value.extend_from_slice(&position.committed.to_be_bytes());
    StateChange { kind: kind::PARTITION, key, value: Some(value) }
}

/// The same back: topic, partition and position, where the entry is one with this prefix and makes sense.
pub fn read<'k>(prefix: &[u8], key: &'k [u8], value: &[u8]) -> Option<(&'k str, i32, Position)> {
    let rest = key.strip_prefix(prefix)?;
    let (topic, partition) = rest.split_at_checked(rest.len().checked_sub(5)?)?;
    let partition = i32::from_be_bytes(partition.strip_prefix(&[0])?.try_into().ok()?);
    let value = value.strip_prefix(&[VERSION])?;
    let (next, committed) = value.split_at_checked(8)?;
    let position = Position {
        next: i64::from_be_bytes(next.try_into().ok()?),
        committed: i64::from_be_bytes(committed.try_into().ok()?),
    };
    (position.next >= 0).then_some((std::str::from_utf8(topic).ok()?, partition, position))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_for_the_same_source_group_and_cluster() {
        let position = Position { next: 17, committed: -1 };
        let mine = prefix("kafka", "group", "cluster");
        let entry = entry(&mine, "audit", 3, position);
        let value = entry.value.unwrap();
        assert_eq!(read(&mine, &entry.key, &value), Some(("audit", 3, position)));
        assert_eq!(read(&prefix("kafka", "other", "cluster"), &entry.key, &value), None);
        for end in 0..value.len() {
            assert_eq!(read(&mine, &entry.key, &value[..end]), None);
        }
        for end in 0..entry.key.len() {
            assert_ne!(read(&mine, &entry.key[..end], &value), Some(("audit", 3, position)));
        }
    }
}
