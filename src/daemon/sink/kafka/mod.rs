//! Alerts to a Kafka topic.
//!
//! Takes stored alerts; an alert counts as delivered when all in-sync replicas have it. The producer is idempotent, so that
//! librdkafka's own retries repeat nothing; consumers recognize what a whole delivery repeats (after a time-out or a crash) by
//! the header `alert_id`. Must never enter: audit events.

#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
mod producer;

pub use producer::{KafkaSink, TransactionalProducer};
