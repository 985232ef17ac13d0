//! Audit events out of Kafka: one member of a consumer group.
//!
//! Kafka does the partitioning, the hand-over and the durability; here is only what ties that to the store. Messages are
//! gathered to a [`Batch`] for as long as there are more, so that a batch is small while little comes and large behind a
//! backlog. The pipeline judges a batch and stores alerts, what was learned and the partitions' positions in one
//! transaction. Only then offsets are committed to the group: at once, or when every sink has the alerts ([`Commit`]).
//!
//! A partition that comes to us starts where the group is, or where the store is if that is further: after a kill between
//! the two nothing is judged twice. One that is taken away is let go when what is in flight is stored and its offsets are
//! committed. While the pipeline takes nothing the partitions are paused, and we go on asking, so that the group keeps us.
//!
//! What comes in: messages, whatever is in them. What goes out: their bytes, in the order of each partition. What must never
//! come in: anything of JSON but how an event starts that is one line.

#![cfg_attr(not(feature = "kafka"), allow(dead_code))]

mod batch;
#[cfg_attr(not(feature = "kafka"), path = "disabled.rs")]
mod consumer;
mod partitions;
mod position;
mod settings;

pub use batch::{Batch, Outcome, Segment};
pub use consumer::{Consumer, Membership, RepartitionTopic};
pub use partitions::Partitions;
pub use settings::{Commit, Correlate, Settings, StartAt};

use std::time::Duration;

use crate::daemon::kafka::KafkaErrorKind;

/// Hears what a consumer does.
pub trait ConsumerObserver: Send + Sync {
    /// So many messages came, and so many of them hold nothing: they delete a key of a compacted topic.
    fn messages(&self, all: u64, empty: u64);
    /// Partitions were given to us (`assigned`), taken in order (`revoked`) or lost (`lost`).
    fn rebalanced(&self, what: &'static str);
    /// Something failed.
    fn failed(&self, reason: KafkaErrorKind);
    /// So many messages of a partition were not judged yet.
    fn lag(&self, topic: &str, partition: i32, messages: u64);
    /// A partition is no longer ours.
    fn revoked(&self, topic: &str, partition: i32);
    /// The newest message that was judged is so old, while there are more.
    fn behind(&self, age: Duration);
    /// What keeps it from working now, for the health checks; nothing where it works.
    fn trouble(&self, what: Option<String>);
}

/// What a consumer needs from others.
pub struct Dependencies {
    /// Takes a batch; false where nobody takes any more.
    pub submit: Box<dyn Fn(Batch) -> bool + Send + Sync>,
    /// The place of the last alert that every sink has, or is done with; nothing where it cannot be told now.
    pub delivered_seq: Box<dyn Fn() -> Option<i64> + Send + Sync>,
    /// Hears what happens.
    pub observer: Box<dyn ConsumerObserver>,
    /// The place of the newest alert in the store.
    pub latest_seq: i64,
    /// What the store has of partitions, as keys and values.
    pub positions: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a consumer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its properties cannot be used, or there is no Kafka in this build.
    #[error(transparent)]
    Client(#[from] crate::daemon::kafka::Error),
    /// The topics cannot be used.
    #[error("librdkafka cannot use these topics: {0}")]
    Topics(String),
    #[error("failed to spawn the consumer thread: {0}")]
    Thread(std::io::Error),
}
