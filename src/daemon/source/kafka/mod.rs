//! Reads audit events from Kafka, as a member of a consumer group.
//!
//! Messages are collected into a [`Batch`] while more are available, so that batches are small at low rates and large behind a backlog. The
//! pipeline evaluates a batch and stores alerts, learned state and the partitions' positions in one transaction. Then offsets are committed
//! to the group: at once, or when every sink has the alerts ([`Commit`]).
//!
//! An assigned partition starts at the group's offset or at the stored position, whichever is further: after a crash between the two
//! nothing is evaluated twice. A revoked partition is released when its batch in flight is stored and its offsets are committed. While the
//! pipeline accepts nothing, partitions are paused and polling continues, so that the group keeps this member.
//!
//! Takes messages with any content; returns their bytes in the order of each partition. This module does not know the format of events,
//! except for how a single-line event starts.

#![cfg_attr(not(feature = "kafka"), allow(dead_code))]

mod batch;
#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
mod consumer;
mod partitions;
mod position;
mod settings;

pub use batch::{Batch, KafkaBatchOutcome, Segment};
pub use consumer::{Consumer, Membership, RepartitionTopic};
pub use partitions::Partitions;
pub use settings::{Commit, Correlate, Settings, StartAt};

use std::time::Duration;

use crate::daemon::kafka::KafkaErrorKind;

/// Receives reports from a consumer, for metrics and health checks.
pub trait ConsumerObserver: Send + Sync {
    /// Messages received, and how many of them had no payload (deletions in a compacted topic).
    fn messages(&self, all: u64, empty: u64);
    /// A rebalance: `assigned`, `revoked` or `lost`.
    fn rebalanced(&self, what: &'static str);
    fn failed(&self, reason: KafkaErrorKind);
    /// Number of messages of a partition that were not evaluated yet.
    fn lag(&self, topic: &str, partition: i32, messages: u64);
    /// The partition is not assigned any more.
    fn revoked(&self, topic: &str, partition: i32);
    /// Age of the newest evaluated message while there are more; otherwise 0.
    fn behind(&self, age: Duration);
    /// The reason why it does not read at present; `None` if it does.
    fn report_problem(&self, what: Option<String>);
}

/// What a consumer needs from the daemon.
pub struct Dependencies {
    /// Hands a batch to the pipeline; false if the pipeline has ended.
    pub submit: Box<dyn Fn(Batch) -> bool + Send + Sync>,
    /// Sequence number of the last alert that every sink has processed; `None` if it cannot be read now.
    pub delivered_seq: Box<dyn Fn() -> Option<i64> + Send + Sync>,
    pub observer: Box<dyn ConsumerObserver>,
    /// Sequence number of the newest alert in the store.
    pub latest_seq: i64,
    /// Stored positions of partitions, as keys and values.
    pub positions: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid properties, or a build without Kafka.
    #[error(transparent)]
    Client(#[from] crate::daemon::kafka::Error),
    #[error("invalid topics: {0}")]
    Topics(String),
    #[error("failed to spawn the consumer thread: {0}")]
    Thread(std::io::Error),
}
