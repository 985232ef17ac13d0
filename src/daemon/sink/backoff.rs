//! When to try again.

use std::time::Duration;

use super::config::Retry;

/// How long to wait after failures in a row.
#[derive(Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    max_retry_after: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(retry: &Retry) -> Self {
        Backoff {
            initial: retry.initial,
            max: retry.max,
            max_retry_after: retry.max_retry_after,
            failures: 0,
        }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It failed: how long to wait. A receiver's wish is a lower bound.
    ///
    /// The whole time is random ("full jitter"), so that many senders do not come back at once to a receiver that recovers.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        let most = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let jitter = Duration::from_micros(rand::random_range(0..=most));
        jitter.max(retry_after.unwrap_or_default().min(self.max_retry_after))
    }

    fn bound(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).and_then(|factor| self.initial.checked_mul(factor));
        doubled.unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let retry = Retry { max: Duration::from_secs(60), ..Retry::default() };
        let mut backoff = Backoff::new(&retry);
        let mut bounds = Vec::new();
        for _ in 0..10_000 {
            bounds.push(backoff.bound().as_millis());
            assert!(backoff.next(None) <= Duration::from_secs(60));
        }
        assert_eq!(bounds[..9], [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(bounds.last(), Some(&60_000));
        backoff.reset();
        assert_eq!(backoff.bound().as_millis(), 500);
    }

    #[test]
    fn a_wish_is_granted_within_bounds() {
        let retry = Retry { initial: Duration::ZERO, ..Retry::default() };
        let mut backoff = Backoff::new(&retry);
        assert_eq!(backoff.next(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next(Some(Duration::from_secs(1 << 40))), retry.max_retry_after);
        assert_eq!(backoff.next(None), Duration::ZERO);
    }
}
