//! What sinks count. All labels come from closed sets, or from the names of sinks in the configuration.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::dead_letter::{DeadLetterReason, DropReason};
use super::failure::Reason;
use crate::daemon::metrics::Metrics;

/// The metrics of all sinks.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    deliveries: IntCounterVec,
    filtered: IntCounterVec,
    failures: IntCounterVec,
    retries: IntCounterVec,
    dead_letters: IntCounterVec,
    lost: IntCounterVec,
    truncated: IntCounterVec,
    backlog: IntGaugeVec,
    last_success: GaugeVec,
    duration: HistogramVec,
}

impl SinkMetrics {
    /// Those of this process.
    pub fn new(metrics: &Metrics) -> Self {
        let all = metrics.instruments();
        SinkMetrics {
            deliveries: all.sink_deliveries.clone(),
            filtered: all.sink_filtered.clone(),
            failures: all.sink_failures.clone(),
            retries: all.sink_retries.clone(),
            dead_letters: all.sink_dead_letters.clone(),
            lost: all.sink_dropped.clone(),
            truncated: all.sink_truncated.clone(),
            backlog: all.sink_backlog.clone(),
            last_success: all.sink_last_success.clone(),
            duration: all.sink_duration.clone(),
        }
    }

    /// Those of one sink. Each is there from now on, so that a first failure is a change and no new series.
    pub(crate) fn of(&self, sink: &str) -> Counts {
        let one = |counter: &IntCounterVec| counter.with_label_values(&[sink]);
        Counts {
            deliveries: one(&self.deliveries),
            filtered: one(&self.filtered),
            failures: Reason::ALL.map(|reason| self.failures.with_label_values(&[sink, reason.name()])),
            retries: one(&self.retries),
            dead_letters: DeadLetterReason::ALL
                .map(|dead| self.dead_letters.with_label_values(&[sink, dead.name()])),
            lost: DropReason::ALL.map(|loss| self.lost.with_label_values(&[sink, loss.name()])),
            truncated: one(&self.truncated),
            backlog: self.backlog.with_label_values(&[sink]),
            last_success: self.last_success.with_label_values(&[sink]),
            duration: self.duration.with_label_values(&[sink]),
        }
    }
}

/// The metrics of one sink.
#[derive(Debug)]
pub struct Counts {
    /// Alerts delivered.
    pub deliveries: IntCounter,
    /// Alerts that are for others.
    pub filtered: IntCounter,
    failures: [IntCounter; Reason::ALL.len()],
    /// Attempts after a failure.
    pub retries: IntCounter,
    dead_letters: [IntCounter; DeadLetterReason::ALL.len()],
    lost: [IntCounter; DropReason::ALL.len()],
    /// Messages that were cut.
    pub truncated: IntCounter,
    /// Alerts that wait.
    pub backlog: IntGauge,
    last_success: Gauge,
    duration: Histogram,
}

impl Counts {
    /// Counts an attempt that failed.
    pub fn failure(&self, reason: Reason) {
        // The variants stand in `ALL` in their order.
        self.failures[reason as usize].inc();
    }

    /// Counts an alert that was given up.
    pub fn dead_letter(&self, dead: DeadLetterReason) {
        self.dead_letters[dead as usize].inc();
    }

    /// Counts an alert that is gone.
    pub fn dropped(&self, loss: DropReason) {
        self.lost[loss as usize].inc();
    }

    /// Counts alerts delivered at that time.
    pub fn success(&self, alerts: usize, nanoseconds: i64) {
        self.deliveries.inc_by(u64::try_from(alerts).unwrap_or_default());
        // Milliseconds are precise enough, and a float has room for them.
        #[allow(clippy::cast_precision_loss)]
        self.last_success.set((nanoseconds / 1_000_000) as f64 / 1000.0);
    }

    /// Notes how long an attempt took.
    pub fn attempt(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_their_order() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
        for (i, dead) in DeadLetterReason::ALL.into_iter().enumerate() {
            assert_eq!(dead as usize, i);
        }
        for (i, loss) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, i);
        }
    }
}
