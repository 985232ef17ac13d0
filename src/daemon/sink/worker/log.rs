//! What a sink says in the log: of an outage its begin, its end and a line a minute.

use std::time::{Duration, Instant};

use crate::daemon::sink::dead_letter::Dead;
use crate::daemon::sink::destination::Failure;
use crate::daemon::sink::text::start;
use crate::text::escape::visible;

/// The same is said again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// What was said when.
#[derive(Debug)]
pub struct Log {
    sink: String,
    failures: Limit,
    dead: Limit,
    /// Whether an outage was said that is not over.
    announced: bool,
}

/// Holds back what was said a moment ago.
#[derive(Debug, Default)]
struct Limit {
    said: Option<Instant>,
    held_back: u64,
}

impl Limit {
    /// How many times nothing was said since it last was; nothing where nothing is to be said now.
    fn pass(&mut self) -> Option<u64> {
        if self.said.is_some_and(|said| said.elapsed() < AGAIN) {
            self.held_back += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.held_back))
    }
}

impl Log {
    /// Nothing said yet.
    pub fn new(sink: &str) -> Self {
        Log { sink: sink.to_owned(), failures: Limit::default(), dead: Limit::default(), announced: false }
    }

    /// An attempt failed.
    pub fn fails(&mut self, failure: &Failure, failures: u32, wait: Duration) {
        if let Some(held_back) = self.failures.pass() {
            let (sink, detail) = (&*self.sink, shown(&failure.detail));
            let reason = failure.reason.name();
            self.announced = true;
            tracing::warn!(sink, reason, detail, failures, held_back, ?wait, "delivery failed; trying again");
        }
    }

    /// An attempt did not fail.
    pub fn works(&mut self) {
        if std::mem::take(&mut self.announced) {
            tracing::info!(sink = &*self.sink, "delivers again");
        }
    }

    /// An alert was given up.
    pub fn gives_up(&mut self, dead: Dead, detail: &str) {
        if let Some(held_back) = self.dead.pass() {
            let (sink, detail) = (&*self.sink, shown(detail));
            tracing::warn!(sink, reason = dead.name(), detail, held_back, "gave up an alert");
        }
    }
}

/// Details may hold what a receiver presented, as the names in its certificate.
fn shown(detail: &str) -> String {
    visible(start(detail, 300))
}
