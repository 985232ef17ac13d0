//! When a sink stops: immediately if it is idle, otherwise at the end of a grace period.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Grace period if the configured one exceeds the range of the clock.
const FALLBACK_GRACE: Duration = Duration::from_secs(86_400);

/// The request to stop, and the time left after it.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// True requests the stop; so does a dropped sender.
    signal: watch::Receiver<bool>,
    grace: Duration,
    /// End of the grace period, set once the request was noticed.
    deadline: Option<Instant>,
}

impl Shutdown {
    pub(super) fn new(signal: watch::Receiver<bool>, grace: Duration) -> Self {
        Shutdown { signal, grace, deadline: None }
    }

    /// Waits for the request to stop.
    pub(super) async fn requested(&mut self) {
        // An error means that the sender was dropped.
        let _ = self.signal.wait_for(|stop| *stop).await;
        self.start_grace();
    }

    /// Waits for the end of the grace period.
    pub(super) async fn grace_expired(&mut self) {
        self.requested().await;
        if let Some(deadline) = self.deadline {
            tokio::time::sleep_until(deadline).await;
        }
    }

    pub(super) fn is_requested(&mut self) -> bool {
        let requested = *self.signal.borrow() || self.signal.has_changed().is_err();
        if requested {
            self.start_grace();
        }
        requested
    }

    pub(super) fn is_grace_expired(&mut self) -> bool {
        self.is_requested() && self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn start_grace(&mut self) {
        let deadline = || {
            let now = Instant::now();
            now.checked_add(self.grace).unwrap_or(now + FALLBACK_GRACE)
        };
        self.deadline.get_or_insert_with(deadline);
    }
}
