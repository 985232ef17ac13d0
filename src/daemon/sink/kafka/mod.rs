//! Alerts to a topic of Kafka.
//!
//! An alert counts as delivered when all replicas that are in sync have it. The producer is idempotent: what librdkafka sends
//! again the broker knows. What a whole attempt repeats (after a time-out, or a kill) is told by the header `alert_id`.

#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
mod producer;

pub use producer::{KafkaSink, TransactionalProducer};
