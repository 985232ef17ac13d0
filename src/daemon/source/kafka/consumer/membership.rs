//! This replica's membership in its consumer group, for transactions and the match exchange.

use std::sync::Arc;

use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};

use super::Client;
use crate::daemon::kafka::AssignedPartition;

#[derive(Clone)]
pub struct Membership(Arc<Client>);

impl Membership {
    pub fn new(client: Arc<Client>) -> Self {
        Membership(client)
    }

    /// For the group coordinator, which rejects offsets from a former member.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.0.group_metadata()
    }

    /// Incremented on every revocation.
    pub fn epoch(&self) -> u64 {
        self.0.context().state().epoch
    }

    /// Changes on every rebalance.
    pub fn rebalance_generation(&self) -> u64 {
        self.0.context().state().rebalance_generation
    }

    pub fn partitions_of(&self, topic: &str) -> Vec<AssignedPartition> {
        let state = self.0.context().state();
        let ours = state.assigned.iter().filter(|(name, _, _)| *name == topic);
        ours.map(|(_, partition, assigned)| {
            let next = if assigned.stored >= 0 { assigned.stored } else { assigned.start.unwrap_or(0) };
            AssignedPartition { partition, next, assignment_epoch: assigned.assignment_epoch }
        })
        .collect()
    }

    /// Any assigned partition with stored messages, and its next offset.
    pub fn any(&self) -> Option<(String, i32, i64)> {
        let state = self.0.context().state();
        let mut known = state.assigned.iter().filter(|(_, _, assigned)| assigned.stored >= 0);
        known.next().map(|(topic, partition, assigned)| (topic.to_owned(), partition, assigned.stored))
    }
}
