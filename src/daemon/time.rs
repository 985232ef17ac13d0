//! The wall clock of the daemon.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01T00:00:00Z. A clock set before 1970 reads 0, one beyond the year 2262 reads [`i64::MAX`].
pub(crate) fn unix_nanos() -> i64 {
    i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX)
}

/// Time since 1970-01-01T00:00:00Z; zero for a clock set before 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
