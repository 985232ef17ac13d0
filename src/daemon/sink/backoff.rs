//! Time to wait before the next attempt: exponential backoff with full jitter.

use std::time::Duration;

use super::config::Retry;

/// Time to wait after consecutive failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    max_retry_after: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(retry: &Retry) -> Self {
        Backoff {
            initial: retry.initial,
            max: retry.max,
            max_retry_after: retry.max_retry_after,
            failures: 0,
        }
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Number of failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the time to wait. The receiver's `retry_after` is a lower bound.
    ///
    /// The whole delay is random ("full jitter"), so that many senders do not return to a recovering receiver at once.
    pub(crate) fn next_delay(&mut self, retry_after: Option<Duration>) -> Duration {
        let limit = self.limit();
        self.failures = self.failures.saturating_add(1);
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let jitter = Duration::from_micros(rand::random_range(0..=limit));
        jitter.max(retry_after.unwrap_or_default().min(self.max_retry_after))
    }

    fn limit(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).and_then(|factor| self.initial.checked_mul(factor));
        doubled.unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_maximum() {
        let retry = Retry { max: Duration::from_secs(60), ..Retry::default() };
        let mut backoff = Backoff::new(&retry);
        let mut limits = Vec::new();
        for _ in 0..10_000 {
            limits.push(backoff.limit().as_millis());
            assert!(backoff.next_delay(None) <= Duration::from_secs(60));
        }
        assert_eq!(limits[..9], [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(limits.last(), Some(&60_000));
        backoff.reset();
        assert_eq!(backoff.limit().as_millis(), 500);
    }

    #[test]
    fn retry_after_is_honored_up_to_its_maximum() {
        let retry = Retry { initial: Duration::ZERO, ..Retry::default() };
        let mut backoff = Backoff::new(&retry);
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(1 << 40))), retry.max_retry_after);
        assert_eq!(backoff.next_delay(None), Duration::ZERO);
    }
}
