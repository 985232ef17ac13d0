//! Waiting for a condition in tests.

// No test uses both functions.
#![allow(dead_code)]

use std::time::{Duration, Instant};

/// Ends a test that would hang; not a measure of speed.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(600);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Blocks until a condition holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "timed out: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until a condition holds.
pub async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < WAIT_TIMEOUT, "timed out");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
