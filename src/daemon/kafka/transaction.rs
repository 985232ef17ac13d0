//! The interface to a Kafka transaction that commits alerts and consumer offsets together. The pipeline calls it; the source and the sink
//! implement it together.

use crate::detection::alert::NewAlert;
use crate::detection::detector::repartition::Outgoing;

/// The next message that the consumer group reads from a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    pub topic: String,
    pub partition: i32,
    /// Offset of the next message to read.
    pub next: i64,
}

/// The outcome of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Records and offsets are committed.
    Committed,
    /// Nothing in it takes effect.
    Aborted,
    /// Shutdown was requested before the brokers answered.
    Unknown,
}

/// Commits alerts, matches for other replicas and consumer offsets in one transaction.
pub trait Transact: Send + std::fmt::Debug {
    /// An assigned partition and its current offset, for alerts that no message caused: a transaction needs an offset.
    fn anchor(&self) -> Option<PartitionOffset>;

    /// Runs a transaction. `commit_metadata` is stored with the offsets and identifies the transaction after a crash. `epoch` is that of
    /// the batch: if partitions were revoked since then, the transaction is not started.
    fn transact(
        &mut self,
        alerts: &[NewAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        commit_metadata: &str,
        epoch: Option<u64>,
    ) -> TxnOutcome;

    /// The outcome of a transaction of an earlier process, determined from its offsets and commit metadata. Blocks until the brokers
    /// answer.
    fn outcome_of(&mut self, offsets: &[PartitionOffset], commit_metadata: &str) -> TxnOutcome;
}
