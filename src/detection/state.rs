//! What is kept of the detector's memory, so that one that starts anew goes on as if it had never stopped.
//!
//! [`crate::detection::registry`] and [`crate::detection::correlate`] say what changed as a [`StateChange`] a key, and take such entries back.
//! Here is what both need for it: the kinds of entries, a list of what changed, and plain bytes. Nothing here does I/O,
//! and nothing that is read back is trusted: what makes no sense is refused.
//!
//! Small values are JSON, with their version and the names of their members, for whoever looks into the store. What may
//! come by the thousand (the observations of a window) is bytes behind a byte that says their version.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The kinds of entries.
pub mod kind {
    /// A secret of which something is known; the key is `namespace/name`. Some 60 bytes of value.
    pub const SECRET: &str = "secret";
    /// A pod that takes secrets; `namespace/name`. 40 bytes and the names.
    pub const POD: &str = "pod";
    /// A role that lets read secrets; `namespace/name`. Some 60 bytes.
    pub const ROLE: &str = "role";
    /// A namespace and its Pod Security level. Some 45 bytes.
    pub const NAMESPACE: &str = "namespace";
    /// A request that lasts, by its hash. 16 bytes of key, some 22 of value.
    pub const REQUEST: &str = "request";
    /// A part of a group of a correlation.
    pub const WINDOW: &str = "window";
    /// What a throttle knows of a combination of values. 32 bytes of key, some 100 of value.
    pub const THROTTLE: &str = "throttle";

    /// How far a partition of a Kafka topic was judged (the Kafka source). Not the detector's, and so not among all
    /// of its kinds.
    pub const PARTITION: &str = "partition";
    /// Reads that recur ([`crate::detection::history`]). 16 bytes of key, some hundred of value, and up to 2 KB for those of every day.
    pub const RECURRING_READ: &str = "habit";
    /// What a transaction over Kafka will have done once it went through.
    pub const PREPARED: &str = "prepared";

    /// All that is learned from alerts and events.
    pub const LEARNED: [&str; 8] = [SECRET, POD, ROLE, NAMESPACE, REQUEST, WINDOW, THROTTLE, RECURRING_READ];

    /// All of the detector's.
    pub const ALL: [&str; 7] = [SECRET, POD, ROLE, NAMESPACE, REQUEST, WINDOW, THROTTLE];
}

/// A change of something that is kept by kind and key: what was learned, windows, throttles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// `secret`, `pod`, `role`, `window` …
    pub kind: &'static str,
    /// What it is about.
    pub key: Vec<u8>,
    /// Its new value; nothing where it is forgotten.
    pub value: Option<Vec<u8>>,
}

/// The version of all values. One that a later version wrote is not understood.
pub(crate) const VERSION: u8 = 1;

/// A small value, as it is stored.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u8,
    used: u64,
    #[serde(rename = "is")]
    value: T,
}

/// A small value and when it was last used, as it is stored.
pub(crate) fn encode<T: Serialize>(used: u64, value: &T) -> Vec<u8> {
    // Nothing that is stored has a map with keys that are no texts, which is all that can fail.
    serde_json::to_vec(&Versioned { v: VERSION, used, value }).unwrap_or_default()
}

/// The same back; nothing where this version cannot read it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(u64, T)> {
    let Versioned { v, used, value } = serde_json::from_slice(bytes).ok()?;
    // Uses are counted up from here.
    (v == VERSION && used < u64::MAX / 2).then_some((used, value))
}

/// Which keys have another value than the one that is stored. Without being switched on it does nothing.
///
/// It is bounded by what there is and what was stored: of what came and went in between, nothing is known.
#[derive(Clone, Debug)]
pub(crate) struct Track<K> {
    is_on: bool,
    changed: BTreeSet<K>,
    gone: BTreeSet<K>,
}

impl<K> Default for Track<K> {
    fn default() -> Self {
        Track { is_on: false, changed: BTreeSet::new(), gone: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Track<K> {
    /// Switches it on. What is there already is for the caller to name.
    pub fn switch_on(&mut self) {
        self.is_on = true;
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// A key is there and has another value, or is new.
    pub fn changed(&mut self, key: &K) {
        if self.is_on && !self.changed.contains(key) {
            self.changed.insert(key.clone());
        }
    }

    /// A key is not there any more.
    pub fn gone(&mut self, key: &K, was_stored: bool) {
        if self.is_on {
            self.changed.remove(key);
            if was_stored {
                self.gone.insert(key.clone());
            }
        }
    }

    /// What is gone, and what has another value, since the last call.
    pub fn take(&mut self) -> (Vec<K>, BTreeSet<K>) {
        let changed = std::mem::take(&mut self.changed);
        let gone = std::mem::take(&mut self.gone);
        (gone.into_iter().filter(|key| !changed.contains(key)).collect(), changed)
    }
}

/// Writes a number, small ones in few bytes.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Writes bytes behind their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what was written so. Each gives nothing where there is no such thing.
#[derive(Debug)]
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// Of a value, behind its version.
    pub fn new(bytes: &'b [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        (version == VERSION).then_some(Reader(rest))
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
    fn numbers_and_bytes_come_back_and_nothing_else_does() {
        let mut bytes = vec![VERSION];
        let numbers = [0, 1, 127, 128, 300, 1 << 40, u64::MAX];
        for number in numbers {
            put_number(&mut bytes, number);
        }
        put_bytes(&mut bytes, b"text");
        let mut reader = Reader::new(&bytes).unwrap();
        for number in numbers {
            assert_eq!(reader.number(), Some(number));
        }
        assert_eq!((reader.bytes(), reader.is_at_end()), (Some(&b"text"[..]), true));
        assert_eq!((reader.number(), reader.bytes(), reader.array::<1>()), (None, None, None));
        assert!(Reader::new(&[VERSION + 1]).is_none() && Reader::new(&[]).is_none());
        assert!(Reader::new(&[VERSION, 200, 1]).unwrap().bytes().is_none());
        assert!(Reader(&[0xff; 20]).number().is_none());
    }

    #[test]
    fn what_came_and_went_in_between_is_not_told() {
        let mut track: Track<&str> = Track::default();
        track.changed(&"unknown");
        assert_eq!(track.take(), (vec![], BTreeSet::new()));
        track.switch_on();
        track.changed(&"a");
        track.changed(&"b");
        track.gone(&"b", false);
        track.gone(&"c", true);
        // It is there again, and once more gone before anybody asked.
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
