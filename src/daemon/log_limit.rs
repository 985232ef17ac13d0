//! Limits how often the same message is logged: at most once per [`LOG_INTERVAL`], with the number of suppressed repeats.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Minimum time between two log lines of one kind.
pub(crate) const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// When a message of one kind was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last_logged: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Returns the number of messages suppressed since the last logged one, or nothing if this message is to be suppressed as well.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        if self.last_logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last_logged = Some(Instant::now());
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// One [`LogLimit`] per kind of message. Kinds are a closed set, which bounds the map.
#[derive(Debug)]
pub(crate) struct LogLimits<K>(HashMap<K, LogLimit>);

impl<K> Default for LogLimits<K> {
    fn default() -> Self {
        LogLimits(HashMap::new())
    }
}

impl<K: Eq + Hash> LogLimits<K> {
    /// See [`LogLimit::admit`].
    pub(crate) fn admit(&mut self, kind: K) -> Option<u64> {
        self.0.entry(kind).or_default().admit()
    }

    /// Makes the next message of this kind be logged: the incident has ended, and a new one must be reported.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    pub(crate) fn reset(&mut self, kind: &K) {
        self.0.remove(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_logged_again_after_a_reset() {
        let mut limits = LogLimits::default();
        assert_eq!(limits.admit("a"), Some(0));
        assert_eq!((limits.admit("a"), limits.admit("a")), (None, None));
        assert_eq!(limits.admit("b"), Some(0));
        if let Some(limit) = limits.0.get_mut("a") {
            limit.last_logged = Instant::now().checked_sub(LOG_INTERVAL);
        }
        assert_eq!(limits.admit("a"), Some(2));
        limits.reset(&"a");
        assert_eq!(limits.admit("a"), Some(0));
    }
}
