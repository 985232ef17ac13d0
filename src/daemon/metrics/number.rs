//! Numbers as gauges take them.

/// The number, or the largest one that a gauge can show.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
