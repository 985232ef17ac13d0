//! The stored position of a partition.

use crate::detection::state::{StateChange, kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Offset of the next message to evaluate.
    pub next: i64,
    /// Last offset that we committed to the group (-1: none). If the group's offset is lower, an operator reset it.
    pub committed: i64,
}

/// Version of the stored values.
const VERSION: u8 = 1;

/// Key prefix of a source's positions. Another group or another cluster has separate positions.
pub fn prefix(source: &str, group: &str, cluster: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for part in [source, group, cluster] {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

/// The state entry of a position.
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

/// Decodes a state entry: topic, partition and position, if it has this prefix and is valid.
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
    fn a_position_is_read_back_for_the_same_source_group_and_cluster() {
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
