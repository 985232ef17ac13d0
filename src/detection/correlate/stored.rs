//! The correlator's bookkeeping of stored windows, and the keys of store entries.
//!
//! The key of an entry is the digest of the correlation's definition, the digest of the group, and the number of a part of the group (see
//! [`super::group`]): 40 bytes. One more entry holds the latest event time.

use std::collections::BTreeSet;

use super::Digest;
use super::group::Group;
use crate::detection::state::ChangeTracker;

/// Key of the latest event time.
pub(super) const NOW: &[u8] = b"now";

/// The correlator's bookkeeping of its store.
#[derive(Clone, Debug, Default)]
pub struct StoreTracking {
    /// Keys of entries to remove.
    pub(super) gone: ChangeTracker<Vec<u8>>,
    /// The event time as it is stored.
    pub(super) now: Option<i64>,
    /// Groups that are only partly restored, with the index of their correlation.
    pub(super) unfinished: BTreeSet<(usize, Digest)>,
}

impl StoreTracking {
    /// Records that a group was removed.
    pub fn gone(&mut self, definition: Digest, group: Digest, of: &Group) {
        if self.gone.is_on() {
            for part in of.stored() {
                self.gone.gone(&key(definition, group, part), true);
            }
        }
    }
}

/// The key of a part of a group.
pub(super) fn key(definition: Digest, group: Digest, part: u64) -> Vec<u8> {
    [&definition.0[..], &group.0[..], &part.to_be_bytes()[..]].concat()
}

/// Splits a key into definition, group and part.
pub(super) fn parse(key: &[u8]) -> Option<(Digest, Digest, u64)> {
    let (definition, rest) = key.split_first_chunk()?;
    let (group, part) = rest.split_first_chunk()?;
    Some((Digest(*definition), Digest(*group), u64::from_be_bytes(part.try_into().ok()?)))
}
