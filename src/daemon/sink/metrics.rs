//! Metrics of the sinks. All label values are from closed sets, or names of sinks in the configuration.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::dead_letter::{DeadLetterReason, DropReason};
use super::failure::Reason;
use crate::daemon::metrics::{ACTIVE_ALERTS, Metrics, result};

/// The metrics of all sinks.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    deliveries: IntCounterVec,
    filtered: IntCounterVec,
    failures: IntCounterVec,
    retries: IntCounterVec,
    dead_letters: IntCounterVec,
    dropped: IntCounterVec,
    truncated: IntCounterVec,
    paused: IntGaugeVec,
    backlog: IntGaugeVec,
    last_success: GaugeVec,
    duration: HistogramVec,
    resends: IntCounterVec,
    active: IntGaugeVec,
    evictions: IntCounterVec,
}

impl SinkMetrics {
    /// Takes the instruments of the sinks from those of the daemon.
    pub fn new(metrics: &Metrics) -> Self {
        let all = metrics.instruments();
        SinkMetrics {
            deliveries: all.sink_deliveries.clone(),
            filtered: all.sink_filtered.clone(),
            failures: all.sink_failures.clone(),
            retries: all.sink_retries.clone(),
            dead_letters: all.sink_dead_letters.clone(),
            dropped: all.sink_dropped.clone(),
            truncated: all.sink_truncated.clone(),
            paused: all.sink_paused.clone(),
            backlog: all.sink_backlog.clone(),
            last_success: all.sink_last_success.clone(),
            duration: all.sink_duration.clone(),
            resends: all.sink_resends.clone(),
            active: all.sink_active.clone(),
            evictions: all.evictions.clone(),
        }
    }

    /// Removes the gauges of a sink that was removed from the configuration, since they would no longer change.
    pub(crate) fn forget(&self, sink: &str) {
        // An error means that the series does not exist.
        let _ = self.backlog.remove_label_values(&[sink]);
        let _ = self.paused.remove_label_values(&[sink]);
        let _ = self.last_success.remove_label_values(&[sink]);
        let _ = self.active.remove_label_values(&[sink]);
    }

    /// The metrics of a sink that sends active alerts again.
    pub(crate) fn of_resends(&self, sink: &str) -> ResendCounts {
        ResendCounts {
            accepted: self.resends.with_label_values(&[sink, result(true)]),
            failed: self.resends.with_label_values(&[sink, result(false)]),
            active: self.active.with_label_values(&[sink]),
            evicted: self.evictions.with_label_values(&[ACTIVE_ALERTS]),
        }
    }

    /// The metrics of one sink. All its series are created here, so that a first failure is an increase and not a new series.
    pub(crate) fn of(&self, sink: &str) -> Counts {
        let one = |counter: &IntCounterVec| counter.with_label_values(&[sink]);
        Counts {
            deliveries: one(&self.deliveries),
            filtered: one(&self.filtered),
            failures: Reason::ALL.map(|reason| self.failures.with_label_values(&[sink, reason.name()])),
            retries: one(&self.retries),
            dead_letters: DeadLetterReason::ALL
                .map(|reason| self.dead_letters.with_label_values(&[sink, reason.name()])),
            dropped: DropReason::ALL.map(|reason| self.dropped.with_label_values(&[sink, reason.name()])),
            shortened: one(&self.truncated),
            paused: self.paused.with_label_values(&[sink]),
            backlog: self.backlog.with_label_values(&[sink]),
            last_success: self.last_success.with_label_values(&[sink]),
            duration: self.duration.with_label_values(&[sink]),
        }
    }
}

/// The metrics of one sink. The arrays are in the order of the enums' variants.
#[derive(Debug)]
pub(crate) struct Counts {
    deliveries: IntCounter,
    /// Alerts that the sink's filter excludes.
    pub(crate) filtered: IntCounter,
    failures: [IntCounter; Reason::ALL.len()],
    /// Attempts after a failure.
    pub(crate) retries: IntCounter,
    dead_letters: [IntCounter; DeadLetterReason::ALL.len()],
    dropped: [IntCounter; DropReason::ALL.len()],
    /// Messages that were shortened to the sink's limit.
    pub(crate) shortened: IntCounter,
    /// 1 while the receiver rejects everything.
    pub(crate) paused: IntGauge,
    /// Alerts in the store that the sink has not processed.
    pub(crate) backlog: IntGauge,
    last_success: Gauge,
    duration: Histogram,
}

impl Counts {
    /// Counts a failed attempt.
    pub(crate) fn failure(&self, reason: Reason) {
        self.failures[reason as usize].inc();
    }

    /// Counts an undeliverable alert.
    pub(crate) fn dead_letter(&self, reason: DeadLetterReason) {
        self.dead_letters[reason as usize].inc();
    }

    /// Counts alerts that were not delivered and are in no dead-letter file.
    pub(crate) fn dropped(&self, reason: DropReason, alerts: u64) {
        self.dropped[reason as usize].inc_by(alerts);
    }

    /// Counts delivered alerts. `now` is in nanoseconds since 1970-01-01T00:00:00Z.
    pub(crate) fn success(&self, alerts: usize, now: i64) {
        self.deliveries.inc_by(u64::try_from(alerts).unwrap_or_default());
        // Milliseconds are precise enough, and fit into a float.
        #[allow(clippy::cast_precision_loss)]
        self.last_success.set((now / 1_000_000) as f64 / 1000.0);
    }

    /// Records the duration of an attempt.
    pub(crate) fn attempt(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }
}

/// The metrics of active alerts that are sent again.
#[derive(Debug)]
pub(crate) struct ResendCounts {
    accepted: IntCounter,
    failed: IntCounter,
    active: IntGauge,
    evicted: IntCounter,
}

impl ResendCounts {
    /// Counts the active alerts that were sent to an Alertmanager again, and those that could not be sent.
    pub(crate) fn sent(&self, accepted: usize, failed: usize) {
        self.accepted.inc_by(u64::try_from(accepted).unwrap_or_default());
        self.failed.inc_by(u64::try_from(failed).unwrap_or_default());
    }

    /// Sets the number of active alerts.
    pub(crate) fn set_active(&self, alerts: usize) {
        self.active.set(i64::try_from(alerts).unwrap_or(i64::MAX));
    }

    /// Counts active alerts that are not sent again because there are too many.
    pub(crate) fn evicted(&self, alerts: u64) {
        self.evicted.inc_by(alerts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_variants_are_listed_in_order() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
        for (i, reason) in DeadLetterReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
