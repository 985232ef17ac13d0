//! What consumers of Kafka tell.

use std::sync::Arc;
use std::time::Duration;

use super::{Metrics, int};
use crate::daemon::kafka::Reason;

/// Counts what a source over Kafka does. Topics and partitions are labels while they are assigned to us, and no longer.
#[derive(Clone, Debug)]
pub struct KafkaMetrics {
    metrics: Arc<Metrics>,
    source: String,
}

impl KafkaMetrics {
    /// For the source of that name.
    pub fn new(metrics: Arc<Metrics>, source: &str) -> Self {
        let all = &metrics.instruments;
        for counter in [&all.kafka_messages, &all.kafka_empty] {
            counter.with_label_values(&[source]).reset();
        }
        for what in ["assigned", "revoked", "lost"] {
            all.kafka_rebalances.with_label_values(&[source, what]).reset();
        }
        for reason in Reason::ALL {
            all.kafka_errors.with_label_values(&[source, reason.name()]).reset();
        }
        KafkaMetrics { source: source.to_owned(), metrics }
    }

    /// So many messages came, and so many of them are empty.
    pub fn messages(&self, all: u64, empty: u64) {
        let source = [self.source.as_str()];
        self.metrics.instruments.kafka_messages.with_label_values(&source).inc_by(all);
        self.metrics.instruments.kafka_empty.with_label_values(&source).inc_by(empty);
    }

    /// Partitions came or went.
    pub fn rebalanced(&self, what: &'static str) {
        self.metrics.instruments.kafka_rebalances.with_label_values(&[self.source.as_str(), what]).inc();
    }

    /// Something failed.
    pub fn failed(&self, reason: Reason) {
        self.metrics.instruments.kafka_errors.with_label_values(&[self.source.as_str(), reason.name()]).inc();
        self.metrics.source_failed(&self.source);
    }

    /// So many messages of a partition were not judged yet.
    pub fn lag(&self, topic: &str, partition: i32, messages: u64) {
        let partition = partition.to_string();
        let labels = [self.source.as_str(), topic, partition.as_str()];
        self.metrics.instruments.kafka_lag.with_label_values(&labels).set(int(messages));
    }

    /// A partition is no longer ours.
    pub fn let_go(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        // One that never had a lag has no series.
        let _ = self.metrics.instruments.kafka_lag.remove_label_values(&[&self.source, topic, &partition]);
    }

    /// The newest message that was judged is so old, while there are more.
    pub fn behind(&self, age: Duration) {
        let source = [self.source.as_str()];
        self.metrics.instruments.lag_seconds.with_label_values(&source).set(age.as_secs_f64());
    }
}
