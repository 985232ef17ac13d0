//! The log messages of a sink: the start and the end of an outage, and at most one line per minute in between.

use std::time::Duration;

use crate::daemon::log_limit::LogLimit;
use crate::daemon::sink::dead_letter::DeadLetterReason;
use crate::daemon::sink::failure::Failure;
use crate::daemon::sink::text::truncate_str;
use crate::text::escape::visible;

/// Maximum length of the details of an error in the log, in bytes.
const MAX_DETAIL_BYTES: usize = 300;

#[derive(Debug)]
pub(super) struct DeliveryLog {
    sink: String,
    failures: LogLimit,
    dead_letters: LogLimit,
    /// An outage was logged, but not its end yet.
    outage_logged: bool,
}

impl DeliveryLog {
    pub(super) fn new(sink: &str) -> Self {
        DeliveryLog {
            sink: sink.to_owned(),
            failures: LogLimit::default(),
            dead_letters: LogLimit::default(),
            outage_logged: false,
        }
    }

    /// Logs a failed attempt. `failures` counts those since the last success.
    pub(super) fn attempt_failed(&mut self, failure: &Failure, failures: u32, wait: Duration) {
        if let Some(suppressed) = self.failures.admit() {
            let (sink, detail) = (&*self.sink, shown(&failure.detail));
            let reason = failure.reason.name();
            self.outage_logged = true;
            tracing::warn!(sink, reason, detail, failures, suppressed, ?wait, "delivery failed; retrying");
        }
    }

    /// Logs that the sink pauses.
    pub(super) fn paused(&mut self, refused: u32, detail: &str) {
        self.outage_logged = true;
        let (sink, detail) = (&*self.sink, shown(detail));
        tracing::error!(
            sink,
            detail,
            refused,
            "receiver refuses everything; the sink is paused until it accepts an alert. Refused alerts are in the dead letters: \
             `pullwatch alerts resend` sends them again"
        );
    }

    /// Logs the end of an outage.
    pub(super) fn attempt_succeeded(&mut self) {
        if std::mem::take(&mut self.outage_logged) {
            tracing::info!(sink = &*self.sink, "delivery recovered");
        }
    }

    /// Logs an undeliverable alert, and where it was stored.
    pub(super) fn undeliverable(&mut self, reason: DeadLetterReason, detail: &str, has_dead_letters: bool) {
        if let Some(suppressed) = self.dead_letters.admit() {
            let (sink, detail, reason) = (&*self.sink, shown(detail), reason.name());
            if has_dead_letters {
                tracing::warn!(sink, reason, detail, suppressed, "alert sent to dead letter");
            } else {
                tracing::warn!(
                    sink,
                    reason,
                    detail,
                    suppressed,
                    "alert dropped: no dead-letter file is configured"
                );
            }
        }
    }
}

/// Details may contain text from a receiver, such as the names in its certificate.
fn shown(detail: &str) -> String {
    visible(truncate_str(detail, MAX_DETAIL_BYTES))
}
