//! Matches that replicas exchange, so that each correlation's group is judged in one place.
//!
//! What a batch found for correlations is with the brokers before the batch is stored, so that a kill in between repeats
//! matches (which windows tell by the alert's id) and loses none. With transactions it is part of the batch's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use super::{Pipeline, TRY_AGAIN, now};
use crate::daemon::kafka::MatchExchange;
use crate::detection::detector::Session;
use crate::detection::detector::repartition::{Outgoing, Until};

/// So many windows that were judged are remembered until every sink has their alerts. Beyond that the oldest are forgotten,
/// and whoever takes their groups over may tell of them again.
const MOST_RECEIPTS: usize = 10_000;

/// What the pipeline knows of the exchange.
#[derive(Debug, Default)]
pub struct Shared {
    /// The queue, where there is one.
    pub queue: Option<Box<dyn MatchExchange>>,
    /// As of which turn its partitions are the session's.
    turn: Option<u64>,
    /// Since when each is.
    since: BTreeMap<i32, u64>,
    /// Windows that were judged, to be told when the alerts up to a place are delivered.
    receipts: VecDeque<(i64, Outgoing)>,
}

impl Shared {
    /// A session starts, which knows of no partition.
    pub fn starts_anew(&mut self) {
        self.turn = None;
        self.since.clear();
    }

    /// Keeps receipts until the alerts up to that place are delivered.
    pub fn keep(&mut self, newest: i64, receipts: impl Iterator<Item = Outgoing>) {
        self.receipts.extend(receipts.map(|receipt| (newest, receipt)));
        let too_many = self.receipts.len().saturating_sub(MOST_RECEIPTS);
        self.receipts.drain(..too_many);
    }
}

impl Pipeline {
    /// Sends what others are to judge, and waits for as long as the brokers do not take it. False where it is to stop before.
    pub(super) fn share(&mut self, messages: &[Outgoing]) -> bool {
        let Some(queue) = &mut self.shared.queue else { return true };
        while !messages.is_empty() && !queue.send(messages) {
            self.status.went_round.store(now(), Ordering::Relaxed);
            if self.should_stop.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(TRY_AGAIN);
        }
        true
    }

    /// Tells what windows came to whose alerts are delivered by now.
    pub(super) fn share_receipts(&mut self) -> bool {
        let Some(queue) = &self.shared.queue else { return true };
        let Some(delivered) = queue.delivered_seq().filter(|_| !self.shared.receipts.is_empty()) else {
            return true;
        };
        let ready = self.shared.receipts.iter().take_while(|(place, _)| *place <= delivered).count();
        let ready: Vec<Outgoing> = self.shared.receipts.drain(..ready).map(|(_, receipt)| receipt).collect();
        self.share(&ready)
    }

    /// Makes the partitions that are ours the session's, with all that is known of their groups. False where it is to stop
    /// before that is done.
    pub(super) fn align(&mut self, session: &mut Session<'_>) -> bool {
        let Some(queue) = &self.shared.queue else { return true };
        let turn = queue.rebalance_generation();
        if self.shared.turn == Some(turn) {
            return true;
        }
        let ours = queue.assigned_partitions();
        let is_same = |partition: i32| {
            let since = self.shared.since.get(&partition);
            ours.iter().any(|one| one.partition == partition && Some(&one.assignment_epoch) == since)
        };
        if let Some(exchange) = session.repartition() {
            for partition in exchange.partitions() {
                if !is_same(partition) {
                    exchange.revoke(partition);
                }
            }
            let known = exchange.partitions();
            for one in ours.iter().filter(|one| !known.contains(&one.partition)) {
                if !self.recall(session, one.partition, one.next) {
                    return false;
                }
            }
        }
        self.shared.since = ours.iter().map(|one| (one.partition, one.assignment_epoch)).collect();
        self.shared.turn = Some(turn);
        true
    }

    /// Learns what is known of the groups of a partition before an offset. False where it is to stop before that is done.
    pub(super) fn recall(&mut self, session: &mut Session<'_>, partition: i32, offset: i64) -> bool {
        let until = Until { offset, is_final: self.transactions.is_some() };
        let (Some(queue), Some(exchange)) = (&mut self.shared.queue, session.repartition()) else {
            return true;
        };
        let reach = exchange.lookback();
        loop {
            exchange.assign(partition, offset);
            let mut count = 0_u64;
            let is_done = queue.replay(partition, offset, reach, &mut |at, message| {
                count += 1;
                exchange.replay(partition, at, message, until);
            });
            if is_done {
                tracing::debug!(partition, offset, messages = count, "the partition's windows are known");
                return true;
            }
            self.status.went_round.store(now(), Ordering::Relaxed);
            if self.should_stop.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }
}
