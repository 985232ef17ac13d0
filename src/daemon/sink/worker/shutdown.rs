//! When to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The word to stop, and the time that is left then.
#[derive(Debug)]
pub struct Stop {
    /// Whether to stop. A sender that is gone has stopped already.
    signal: watch::Receiver<bool>,
    grace: Duration,
    /// Since the word was heard.
    deadline: Option<Instant>,
}

impl Stop {
    /// Nothing heard yet.
    pub fn new(signal: watch::Receiver<bool>, grace: Duration) -> Self {
        Stop { signal, grace, deadline: None }
    }

    /// Waits for the word.
    pub async fn wanted(&mut self) {
        // An error says that the sender is gone.
        let _ = self.signal.wait_for(|stop| *stop).await;
        self.hear();
    }

    /// Waits for the end of the grace.
    pub async fn over(&mut self) {
        self.wanted().await;
        if let Some(deadline) = self.deadline {
            tokio::time::sleep_until(deadline).await;
        }
    }

    /// Whether the word was spoken.
    pub fn is_wanted(&mut self) -> bool {
        let wanted = *self.signal.borrow() || self.signal.has_changed().is_err();
        if wanted {
            self.hear();
        }
        wanted
    }

    /// Whether the grace is over.
    pub fn is_over(&mut self) -> bool {
        self.is_wanted() && self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn hear(&mut self) {
        // A grace that no clock can hold is a day.
        let deadline = || {
            let now = Instant::now();
            now.checked_add(self.grace).unwrap_or(now + Duration::from_secs(86_400))
        };
        self.deadline.get_or_insert_with(deadline);
    }
}
