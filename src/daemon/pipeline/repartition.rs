//! Exchanges matches with other replicas, so that each correlation group is evaluated by one of them.
//!
//! The matches of a batch are acknowledged by the brokers before the batch is stored: a crash in between repeats matches, which windows
//! recognize by the alert's id, and loses none. With transactions they are part of the batch's transaction.

use std::collections::{BTreeMap, VecDeque};

use super::{Pipeline, RETRY_INTERVAL};
use crate::daemon::kafka::MatchExchange;
use crate::detection::detector::Session;
use crate::detection::detector::repartition::{Outgoing, ReplayEnd};

/// Maximum number of markers of closed windows that wait until every sink has delivered their alerts. If there are more, the oldest are
/// dropped; the next owner of their partition may then emit their alerts again.
const MAX_DEFERRED_MARKERS: usize = 10_000;

/// The pipeline's side of the exchange.
#[derive(Debug, Default)]
pub(super) struct ExchangeState {
    pub(super) topic: Option<Box<dyn MatchExchange>>,
    /// The rebalance that the session's partitions reflect.
    rebalance_generation: Option<u64>,
    /// Assignment epoch of each partition in the session.
    assignment_epochs: BTreeMap<i32, u64>,
    /// Markers of closed windows, each with the `seq` up to which alerts must be delivered before it is sent.
    deferred_markers: VecDeque<(i64, Outgoing)>,
}

impl ExchangeState {
    /// A new session starts without partitions.
    pub(super) fn reset_assignment(&mut self) {
        self.rebalance_generation = None;
        self.assignment_epochs.clear();
    }

    /// Stores markers until the alerts up to this `seq` are delivered.
    pub(super) fn defer_markers(&mut self, latest_seq: i64, markers: impl Iterator<Item = Outgoing>) {
        self.deferred_markers.extend(markers.map(|marker| (latest_seq, marker)));
        let excess = self.deferred_markers.len().saturating_sub(MAX_DEFERRED_MARKERS);
        self.deferred_markers.drain(..excess);
    }
}

impl Pipeline {
    /// Sends matches to the exchange, and retries while the brokers do not acknowledge them. Returns false if a stop was
    /// requested before.
    pub(super) fn send_matches(&mut self, messages: &[Outgoing]) -> bool {
        let Some(topic) = &mut self.exchange.topic else { return true };
        while !messages.is_empty() && !topic.send(messages) {
            self.handles.status.heartbeat();
            if self.handles.should_stop() {
                return false;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        true
    }

    /// Sends the markers of closed windows whose alerts every sink has delivered.
    pub(super) fn send_ready_markers(&mut self) -> bool {
        let Some(topic) = &self.exchange.topic else { return true };
        let Some(delivered) = topic.delivered_seq().filter(|_| !self.exchange.deferred_markers.is_empty())
        else {
            return true;
        };
        let ready = self.exchange.deferred_markers.iter().take_while(|(seq, _)| *seq <= delivered).count();
        let ready: Vec<Outgoing> =
            self.exchange.deferred_markers.drain(..ready).map(|(_, marker)| marker).collect();
        self.send_matches(&ready)
    }

    /// Updates the session's partitions to the current assignment, and replays new ones. Returns false if a stop was requested before this
    /// was done.
    pub(super) fn sync_assignment(&mut self, session: &mut Session<'_>) -> bool {
        let Some(topic) = &self.exchange.topic else { return true };
        let generation = topic.rebalance_generation();
        if self.exchange.rebalance_generation == Some(generation) {
            return true;
        }
        let assigned = topic.assigned_partitions();
        let is_unchanged = |partition: i32| {
            let epoch = self.exchange.assignment_epochs.get(&partition);
            assigned.iter().any(|one| one.partition == partition && Some(&one.assignment_epoch) == epoch)
        };
        if let Some(repartition) = session.repartition() {
            for partition in repartition.partitions() {
                if !is_unchanged(partition) {
                    repartition.revoke(partition);
                }
            }
            let known = repartition.partitions();
            for one in assigned.iter().filter(|one| !known.contains(&one.partition)) {
                if !self.replay_partition(session, one.partition, one.next) {
                    return false;
                }
            }
        }
        self.exchange.assignment_epochs =
            assigned.iter().map(|one| (one.partition, one.assignment_epoch)).collect();
        self.exchange.rebalance_generation = Some(generation);
        true
    }

    /// Rebuilds the windows of a partition from its messages before an offset. Returns false if a stop was requested before this was done.
    pub(super) fn replay_partition(
        &mut self,
        session: &mut Session<'_>,
        partition: i32,
        offset: i64,
    ) -> bool {
        let until = ReplayEnd { offset, is_final: self.transactions.is_some() };
        let (Some(topic), Some(repartition)) = (&mut self.exchange.topic, session.repartition()) else {
            return true;
        };
        let lookback = repartition.lookback();
        loop {
            repartition.assign(partition, offset);
            let mut messages = 0_u64;
            let is_complete = topic.replay(partition, offset, lookback, &mut |at, message| {
                messages += 1;
                repartition.replay(partition, at, message, until);
            });
            if is_complete {
                tracing::debug!(partition, offset, messages, "rebuilt the windows of the partition");
                return true;
            }
            self.handles.status.heartbeat();
            if self.handles.should_stop() {
                return false;
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }
}
