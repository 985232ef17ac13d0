//! What the wrappers around a record say about it.

use std::sync::Arc;

/// Passed from a wrapper to its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// The name of the cluster.
    pub(super) cluster: Option<Arc<[u8]>>,
    /// The time of the innermost record that has one, in nanoseconds since 1970.
    pub(super) time: Option<i64>,
    /// Whether the record is in a wrapper of the configured format. True if any format is allowed.
    pub(super) is_admitted: bool,
}
