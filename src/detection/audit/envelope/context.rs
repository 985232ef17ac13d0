//! What the wrappers around a record say about it.

use std::sync::Arc;

/// Passed from a wrapper to what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// The name of the cluster.
    pub(super) cluster: Option<Arc<[u8]>>,
    /// The time of the innermost record that has one, in nanoseconds since 1970.
    pub(super) time: Option<i64>,
    /// The record is in a wrapper of the configured format, or any is allowed.
    pub(super) is_admitted: bool,
}
