//! This replica's place in its consumer group, for transactions and the match exchange.

use std::sync::Arc;

use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};

use super::Client;
use crate::daemon::kafka::AssignedPartition;

/// Who we are in the group, and what is ours.
#[derive(Clone)]
pub struct Membership(Arc<Client>);

impl Membership {
    pub fn new(client: Arc<Client>) -> Self {
        Membership(client)
    }

    /// For the group's coordinator: offsets of one that is no longer a member are refused.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.0.group_metadata()
    }

    /// Grows when partitions go elsewhere.
    pub fn epoch(&self) -> u64 {
        self.0.context().state().epoch
    }

    /// Another each time that partitions came or went.
    pub fn rebalance_generation(&self) -> u64 {
        self.0.context().state().rebalance_generation
    }

    /// The partitions of a topic that are ours.
    pub fn partitions_of(&self, topic: &str) -> Vec<AssignedPartition> {
        let state = self.0.context().state();
        let ours = state.assigned.iter().filter(|(name, _, _)| *name == topic);
        ours.map(|(_, partition, assigned)| {
            let next = if assigned.stored >= 0 { assigned.stored } else { assigned.start.unwrap_or(0) };
            AssignedPartition { partition, next, assignment_epoch: assigned.assignment_epoch }
        })
        .collect()
    }

    /// A partition of ours of which something was read, and the offset up to which all is stored.
    pub fn any(&self) -> Option<(String, i32, i64)> {
        let state = self.0.context().state();
        let mut known = state.assigned.iter().filter(|(_, _, assigned)| assigned.stored >= 0);
        known.next().map(|(topic, partition, assigned)| (topic.to_owned(), partition, assigned.stored))
    }
}
