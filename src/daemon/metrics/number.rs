//! Conversion of numbers for gauges.

/// The number, or the largest one that a gauge can represent.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
