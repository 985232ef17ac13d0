//! Sends alerts to a Kafka topic.
//!
//! Takes stored alerts; an alert counts as delivered when all in-sync replicas have it. The producer is idempotent, so librdkafka's own
//! retries cause no duplicates. After a repeated delivery (because of a timeout or a crash), consumers recognize duplicates by the header
//! `alert_id`. Audit events must never enter this module.

#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
mod producer;

pub use producer::{KafkaSink, TransactionalProducer};
