//! The interface to the topic through which replicas exchange matches for correlations. The pipeline calls it; the Kafka source implements
//! it.

use crate::detection::detector::repartition::Outgoing;

/// A partition of the exchange topic that is assigned to this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedPartition {
    pub partition: i32,
    /// Offset of the next message, if known.
    pub next: i64,
    /// Changes on every assignment of this partition.
    pub assignment_epoch: u64,
}

/// The topic through which replicas exchange matches.
pub trait MatchExchange: Send + std::fmt::Debug {
    /// Changes on every rebalance.
    fn rebalance_generation(&self) -> u64;

    /// The partitions that are assigned to this replica.
    fn assigned_partitions(&self) -> Vec<AssignedPartition>;

    /// Sends messages. Returns false if not all of them were acknowledged by the brokers.
    fn send(&mut self, messages: &[Outgoing]) -> bool;

    /// Replays a partition to its end, starting `reach` nanoseconds (in event time) before the message at offset `until`. Returns
    /// false if the end was not reached.
    fn replay(
        &mut self,
        partition: i32,
        until: i64,
        reach: i64,
        on_message: &mut dyn FnMut(i64, &[u8]),
    ) -> bool;

    /// Sequence number of the last alert that every sink has processed, or `None` if it cannot be read now.
    fn delivered_seq(&self) -> Option<i64>;
}
