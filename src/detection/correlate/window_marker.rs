//! The outcome of a window, for the next owner of its group.

use super::Digest;

/// The outcome of a window, for the next owner of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowMarker {
    pub correlation: usize,
    pub group: Digest,
    pub what: WindowOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowOutcome {
    /// It fired. Contains the times of its first and last observation.
    Fired(i64, i64),
    /// It was closed, whether it fired or not. Contains the time of its end.
    Closed(i64),
}

impl WindowMarker {
    pub(super) fn fired(correlation: usize, group: Digest, first: i64, last: i64) -> Self {
        WindowMarker { correlation, group, what: WindowOutcome::Fired(first, last) }
    }

    pub(super) fn closed(correlation: usize, group: Digest, until: i64) -> Self {
        WindowMarker { correlation, group, what: WindowOutcome::Closed(until) }
    }
}
