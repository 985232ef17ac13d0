//! Saved state of a detector, so that a restarted one continues as if it had never stopped.
//!
//! [`crate::detection::registry`] and `correlate` report changes as [`StateChange`]s and restore entries. This module contains what both
//! need: the kinds of entries, a tracker of changes, and encodings. It does no I/O. Entries that are read back are untrusted: invalid ones
//! are rejected.
//!
//! Small values are JSON with a version and named members, for people who inspect the store. Values that may occur by the thousand (the
//! observations of a window) are binary, after a version byte.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The kinds of entries.
pub mod kind {
    /// A secret and what is known of it; the key is `namespace/name`. About 60 bytes.
    pub const SECRET: &str = "secret";
    /// A pod with secrets; `namespace/name`. 40 bytes and the names.
    pub const POD: &str = "pod";
    /// A role that grants verbs on secrets; `namespace/name`. About 60 bytes.
    pub const ROLE: &str = "role";
    /// A namespace and its Pod Security level. About 45 bytes.
    pub const NAMESPACE: &str = "namespace";
    /// An object other than a secret that holds a registry credential; `namespace/resource/name`. About 60 bytes.
    pub const COPY: &str = "copy";
    /// A long-running request, by hash. 16 bytes of key, about 22 of value.
    pub const REQUEST: &str = "request";
    /// The profile of an identity that reads secrets; its eviction share and its names. Usually a few hundred bytes, at most a few
    /// thousand.
    pub const READER: &str = "reader";
    /// A node and its addresses; `cluster/node`. About 100 bytes an address.
    pub const NODE: &str = "node";
    /// A part of a correlation's group.
    pub const WINDOW: &str = "window";
    /// A combination of values of a throttle. 32 bytes of key, about 100 of value.
    pub const THROTTLE: &str = "throttle";

    /// The position in a partition of a Kafka topic. Belongs to the Kafka source, not to the detector.
    pub const PARTITION: &str = "partition";
    /// A recurring read (`detection::history`). 16 bytes of key, about 100 of value, and up to 2 KB for daily
    /// reads.
    pub const RECURRING_READ: &str = "habit";
    /// A decision to trust a reader; the key is its user name. Written by a command, and read by the daemon.
    pub const TRUST: &str = "trust";
    /// The effects of a pending Kafka transaction.
    pub const PREPARED: &str = "prepared";

    /// All kinds that are learned from alerts and events.
    pub const LEARNED: [&str; 11] =
        [SECRET, POD, ROLE, NAMESPACE, COPY, REQUEST, READER, NODE, WINDOW, THROTTLE, RECURRING_READ];

    /// All kinds of the detector.
    pub const ALL: [&str; 10] = [SECRET, POD, ROLE, NAMESPACE, COPY, REQUEST, READER, NODE, WINDOW, THROTTLE];
}

/// A change of a stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// One of [`kind`].
    pub kind: &'static str,
    /// Identifies the entry among those of its kind.
    pub key: Vec<u8>,
    /// The new value; none if the entry is removed.
    pub value: Option<Vec<u8>>,
}

/// Version of all values. Values of other versions are rejected.
pub(crate) const VERSION: u8 = 1;

/// The JSON form of a small value.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u8,
    used: u64,
    #[serde(rename = "is")]
    value: T,
}

/// Encodes a small value and when it was used last.
pub(crate) fn encode<T: Serialize>(used: u64, value: &T) -> Vec<u8> {
    // Serialization only fails for maps with keys that are not strings, of which there are none.
    serde_json::to_vec(&Versioned { v: VERSION, used, value }).unwrap_or_default()
}

/// Decodes a small value; none if this version cannot read it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(u64, T)> {
    let Versioned { v, used, value } = serde_json::from_slice(bytes).ok()?;
    // Uses are counted up from here, so a huge number is corrupt.
    (v == VERSION && used < u64::MAX / 2).then_some((used, value))
}

/// Tracks which entries differ from their stored values. Does nothing until it is switched on.
///
/// Its size is bounded by the number of existing and stored entries: entries that were added and removed in between leave no trace.
#[derive(Clone, Debug)]
pub(crate) struct ChangeTracker<K> {
    is_on: bool,
    changed: BTreeSet<K>,
    gone: BTreeSet<K>,
}

impl<K> Default for ChangeTracker<K> {
    fn default() -> Self {
        ChangeTracker { is_on: false, changed: BTreeSet::new(), gone: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> ChangeTracker<K> {
    /// Switches tracking on. The caller reports existing entries itself.
    pub fn switch_on(&mut self) {
        self.is_on = true;
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Records that an entry is new or has another value.
    pub fn changed(&mut self, key: &K) {
        if self.is_on && !self.changed.contains(key) {
            self.changed.insert(key.clone());
        }
    }

    /// Records that an entry does not exist anymore.
    pub fn gone(&mut self, key: &K, was_stored: bool) {
        if self.is_on {
            self.changed.remove(key);
            if was_stored {
                self.gone.insert(key.clone());
            }
        }
    }

    /// The removed and the changed keys since the last call.
    pub fn take(&mut self) -> (Vec<K>, BTreeSet<K>) {
        let changed = std::mem::take(&mut self.changed);
        let gone = std::mem::take(&mut self.gone);
        (gone.into_iter().filter(|key| !changed.contains(key)).collect(), changed)
    }
}

/// Appends a number; small numbers take few bytes (LEB128).
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends bytes, preceded by their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Decodes what the functions above wrote. Each method returns none if the data does not match.
#[derive(Debug)]
pub(crate) struct EntryDecoder<'b>(&'b [u8]);

impl<'b> EntryDecoder<'b> {
    /// Reads a value after its version byte.
    pub fn new(bytes: &'b [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        (version == VERSION).then_some(EntryDecoder(rest))
    }

    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_numbers_and_bytes_round_trip() {
        let mut bytes = vec![VERSION];
        let numbers = [0, 1, 127, 128, 300, 1 << 40, u64::MAX];
        for number in numbers {
            put_number(&mut bytes, number);
        }
        put_bytes(&mut bytes, b"text");
        let mut reader = EntryDecoder::new(&bytes).unwrap();
        for number in numbers {
            assert_eq!(reader.number(), Some(number));
        }
        assert_eq!((reader.bytes(), reader.is_at_end()), (Some(&b"text"[..]), true));
        assert_eq!((reader.number(), reader.bytes(), reader.array::<1>()), (None, None, None));
        assert!(EntryDecoder::new(&[VERSION + 1]).is_none() && EntryDecoder::new(&[]).is_none());
        assert!(EntryDecoder::new(&[VERSION, 200, 1]).unwrap().bytes().is_none());
        assert!(EntryDecoder(&[0xff; 20]).number().is_none());
    }

    #[test]
    fn entries_that_came_and_went_are_not_reported() {
        let mut track: ChangeTracker<&str> = ChangeTracker::default();
        track.changed(&"unknown");
        assert_eq!(track.take(), (vec![], BTreeSet::new()));
        track.switch_on();
        track.changed(&"a");
        track.changed(&"b");
        track.gone(&"b", false);
        track.gone(&"c", true);
        // It exists again, and is removed once more before the changes are taken.
        track.changed(&"c");
        track.gone(&"c", false);
        track.gone(&"d", true);
        track.changed(&"d");
        let changed = ["a", "d"];
        assert_eq!(track.take(), (vec!["c"], BTreeSet::from(changed)));
        assert_eq!(track.take(), (vec![], BTreeSet::new()));
    }

    #[test]
    fn values_of_another_version_are_refused() {
        assert_eq!(decode::<u8>(&encode(7, &5_u8)), Some((7, 5)));
        assert_eq!(decode::<String>(&encode(7, &5_u8)), None);
        assert_eq!(decode::<u8>(br#"{"v":2,"used":7,"is":5}"#), None);
        assert_eq!(decode::<u8>(b""), None);
    }
}
