//! The content of one transaction, and its result.

use crate::detection::alert::NewAlert;
use crate::detection::state::StateChange;

/// The data stored in one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// Name of the source and its position after the batch, in a form that only the source interprets.
    pub source: Option<(&'a str, &'a [u8])>,
    /// Alerts of the batch, in order.
    pub alerts: &'a [NewAlert],
    /// Changes of learned state, in order.
    pub changes: &'a [StateChange],
    /// Digests of the events, to recognize repetitions by a webhook's sender.
    pub seen: &'a [[u8; 16]],
    /// Time of the commit, in nanoseconds since 1970-01-01T00:00:00Z.
    pub now: i64,
}

/// Alerts that were deleted before a sink had delivered them, by name of the sink.
pub type Undelivered = Vec<(String, u64)>;

/// The result of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// For each alert of the batch, whether it was stored; false if an alert with its id had been stored before.
    pub is_new: Vec<bool>,
    /// Alerts that were deleted to stay below the maximum size before every sink had delivered them.
    pub undelivered: Undelivered,
}

impl Committed {
    /// Number of alerts stored by the commit.
    pub fn new_alerts(&self) -> usize {
        self.is_new.iter().filter(|is_new| **is_new).count()
    }

    /// Number of alerts that had been stored before.
    pub fn duplicates(&self) -> usize {
        self.is_new.len() - self.new_alerts()
    }
}

/// Key and value of an entry of learned state.
pub type StateEntry = (Vec<u8>, Vec<u8>);

/// Size of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Number of alerts.
    pub alerts: u64,
    /// Size on the disk in bytes, including the write-ahead log.
    pub bytes: u64,
}
