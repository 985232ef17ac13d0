//! Metrics of Kafka consumers.

use std::sync::Arc;
use std::time::Duration;

use super::{Metrics, int};
use crate::daemon::kafka::KafkaErrorKind;

/// Metrics of one Kafka source. Series of a topic's partition exist while it is assigned to this process.
#[derive(Clone, Debug)]
pub(crate) struct KafkaMetrics {
    metrics: Arc<Metrics>,
    source: String,
}

impl KafkaMetrics {
    /// Sets whether the consumer is connected.
    pub(crate) fn set_up(&self, is_up: bool) {
        self.metrics.set_source_up(&self.source, is_up);
    }

    pub(crate) fn new(metrics: Arc<Metrics>, source: &str) -> Self {
        let all = &metrics.instruments;
        for counter in [&all.kafka_messages, &all.kafka_empty] {
            counter.with_label_values(&[source]).reset();
        }
        for event in ["assigned", "revoked", "lost"] {
            all.kafka_rebalances.with_label_values(&[source, event]).reset();
        }
        for reason in KafkaErrorKind::ALL {
            all.kafka_errors.with_label_values(&[source, reason.name()]).reset();
        }
        KafkaMetrics { source: source.to_owned(), metrics }
    }

    /// Adds consumed messages, and the number of those without a payload.
    pub(crate) fn messages(&self, all: u64, empty: u64) {
        let source = [self.source.as_str()];
        self.metrics.instruments.kafka_messages.with_label_values(&source).inc_by(all);
        self.metrics.instruments.kafka_empty.with_label_values(&source).inc_by(empty);
    }

    /// Counts a rebalance: `assigned`, `revoked` or `lost`.
    pub(crate) fn rebalanced(&self, event: &'static str) {
        self.metrics.instruments.kafka_rebalances.with_label_values(&[self.source.as_str(), event]).inc();
    }

    pub(crate) fn failed(&self, reason: KafkaErrorKind) {
        self.metrics.instruments.kafka_errors.with_label_values(&[self.source.as_str(), reason.name()]).inc();
        self.metrics.source_error(&self.source);
    }

    /// Sets the number of messages of a partition that are not yet evaluated.
    pub(crate) fn lag(&self, topic: &str, partition: i32, messages: u64) {
        let partition = partition.to_string();
        let labels = [self.source.as_str(), topic, partition.as_str()];
        self.metrics.instruments.kafka_lag.with_label_values(&labels).set(int(messages));
    }

    /// Removes the series of a partition that is no longer assigned.
    pub(crate) fn partition_removed(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        // A partition whose lag was never set has no series.
        let _ = self.metrics.instruments.kafka_lag.remove_label_values(&[&self.source, topic, &partition]);
    }

    /// Sets the age of the newest evaluated message while more messages are available.
    pub(crate) fn behind(&self, age: Duration) {
        let source = [self.source.as_str()];
        self.metrics.instruments.lag_seconds.with_label_values(&source).set(age.as_secs_f64());
    }
}
