//! Tracks which stored entries an ordered pass has to change.

use std::collections::BTreeSet;

/// An ordered pass's bookkeeping of its store.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    pub(super) is_tracked: bool,
    /// Entries that could not be restored and have to be removed from the store.
    pub(super) foreign: BTreeSet<(&'static str, Vec<u8>)>,
    pub(super) rejected: u64,
}

impl Tracking {
    /// How many entries, windows and throttles could not be restored.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}
