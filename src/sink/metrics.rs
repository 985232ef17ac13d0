//! What sinks count. All labels come from closed sets, or from the names of sinks in the configuration.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::dead_letter::{Dead, Loss};
use super::delivery::Reason;

/// The metrics of all sinks.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    deliveries: IntCounterVec,
    passed_over: IntCounterVec,
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
    /// Metrics that nothing has counted yet.
    ///
    /// # Errors
    /// Never, as long as the names in here are names of metrics.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("pullwatch_sink_{name}"), help), labels)
        };
        Ok(SinkMetrics {
            deliveries: counter("deliveries_total", "Alerts that a sink delivered.", &["sink"])?,
            passed_over: counter(
                "passed_over_total",
                "Alerts that are not for a sink: its priority or its rules are others.",
                &["sink"],
            )?,
            failures: counter(
                "failures_total",
                "Attempts of a sink that failed, by what failed.",
                &["sink", "reason"],
            )?,
            retries: counter("retries_total", "Attempts of a sink after one that failed.", &["sink"])?,
            dead_letters: counter(
                "dead_letters_total",
                "Alerts that a sink gave up, by reason. They are in the dead-letter file, but for those lost.",
                &["sink", "reason"],
            )?,
            lost: counter(
                "lost_total",
                "Alerts that a sink gave up and that are in no dead-letter file, by why not.",
                &["sink", "reason"],
            )?,
            truncated: counter(
                "truncated_total",
                "Messages that were cut to fit into a datagram.",
                &["sink"],
            )?,
            backlog: IntGaugeVec::new(
                Opts::new(
                    "pullwatch_sink_backlog_alerts",
                    "Alerts that are stored and not delivered yet, at most.",
                ),
                &["sink"],
            )?,
            last_success: GaugeVec::new(
                Opts::new(
                    "pullwatch_sink_last_success_timestamp_seconds",
                    "When a sink last delivered, in seconds since 1970; 0 before the first time.",
                ),
                &["sink"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "pullwatch_sink_delivery_duration_seconds",
                    "How long attempts of a sink took.",
                )
                .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]),
                &["sink"],
            )?,
        })
    }

    /// Adds them to a registry.
    ///
    /// # Errors
    /// When they are there already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.deliveries.clone()))?;
        registry.register(Box::new(self.passed_over.clone()))?;
        registry.register(Box::new(self.failures.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.dead_letters.clone()))?;
        registry.register(Box::new(self.lost.clone()))?;
        registry.register(Box::new(self.truncated.clone()))?;
        registry.register(Box::new(self.backlog.clone()))?;
        registry.register(Box::new(self.last_success.clone()))?;
        registry.register(Box::new(self.duration.clone()))
    }

    /// Those of one sink. Each is there from now on, so that a first failure is a change and no new series.
    pub(super) fn of(&self, sink: &str) -> Counts {
        let one = |counter: &IntCounterVec| counter.with_label_values(&[sink]);
        Counts {
            deliveries: one(&self.deliveries),
            passed_over: one(&self.passed_over),
            failures: Reason::ALL.map(|reason| self.failures.with_label_values(&[sink, reason.name()])),
            retries: one(&self.retries),
            dead_letters: Dead::ALL.map(|dead| self.dead_letters.with_label_values(&[sink, dead.name()])),
            lost: Loss::ALL.map(|loss| self.lost.with_label_values(&[sink, loss.name()])),
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
    pub passed_over: IntCounter,
    failures: [IntCounter; Reason::ALL.len()],
    /// Attempts after a failure.
    pub retries: IntCounter,
    dead_letters: [IntCounter; Dead::ALL.len()],
    lost: [IntCounter; Loss::ALL.len()],
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
    pub fn dead_letter(&self, dead: Dead) {
        self.dead_letters[dead as usize].inc();
    }

    /// Counts an alert that is gone.
    pub fn loss(&self, loss: Loss) {
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
        for (i, dead) in Dead::ALL.into_iter().enumerate() {
            assert_eq!(dead as usize, i);
        }
        for (i, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, i);
        }
    }

    #[test]
    fn all_are_registered_once() {
        let (metrics, registry) = (SinkMetrics::new().unwrap(), Registry::new());
        metrics.register(&registry).unwrap();
        metrics.of("a").loss(Loss::Full);
        let families = registry.gather();
        assert_eq!(families.len(), 10);
        assert!(families.iter().all(|family| family.name().starts_with("pullwatch_sink_")));
        assert!(metrics.register(&registry).is_err());
    }
}
