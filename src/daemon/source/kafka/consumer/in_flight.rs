//! The state of a consumer: collected messages, the batch in flight, and offsets waiting to be committed.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;

use super::super::batch::Builder;
use super::super::position::Position;
use super::super::{Batch, KafkaBatchOutcome, Partitions};
use super::split_messages::{MAX_HELD_BYTES, SplitMessages};
use crate::daemon::log_limit::LogLimit;

/// Maximum number of groups of offsets that wait for the sinks. If there are more, the two newest are merged.
const MAX_PENDING_COMMITS: usize = 1024;

/// If more partitions than this have pending split lines, all of them stop waiting, to bound memory.
const MAX_HELD_PARTITIONS: usize = 4;

#[derive(Clone, Copy, Debug)]
pub struct PartitionState {
    /// Offset of the next message to receive; -1 before the first.
    pub seen: i64,
    /// Offset of the first message that is not stored; -1 before the first message.
    pub stored: i64,
    /// Last offset committed by this consumer; -1 if none.
    pub committed: i64,
    /// The start offset, if known.
    pub start: Option<i64>,
    /// Changes on every assignment of this partition.
    pub assignment_epoch: u64,
    /// It must be read again from [`PartitionState::stored`] on. Until then its messages are skipped, because they follow messages that
    /// were not stored.
    pub needs_rewind: bool,
}

/// A batch that was submitted and whose outcome is pending.
#[derive(Debug)]
struct InFlightBatch {
    positions: Partitions<Position>,
    answer: oneshot::Receiver<KafkaBatchOutcome>,
}

#[derive(Debug, Default)]
pub struct ConsumerState {
    builder: Builder,
    /// Positions after the collected messages.
    positions: Partitions<Position>,
    /// Messages of incomplete split lines; the positions are before them.
    split: Partitions<SplitMessages>,
    split_log: LogLimit,
    messages: u64,
    empty: u64,
    /// Timestamp of the newest message, in milliseconds since 1970.
    pub newest: Option<i64>,
    flight: Option<InFlightBatch>,
    /// Offsets to commit when all sinks have processed the alerts up to the sequence number.
    pending_commits: VecDeque<(i64, Partitions<i64>)>,
    /// Sequence number up to which all alerts of stored messages are included.
    latest_seq: i64,
    pub assigned: Partitions<PartitionState>,
    /// Key prefix of the positions in the store.
    pub prefix: Vec<u8>,
    /// Incremented on every revocation.
    pub epoch: u64,
    /// Incremented on every assignment and revocation.
    pub rebalance_generation: u64,
    /// The exchange topic.
    pub exchange: Option<String>,
    /// Time since which the batch is full.
    pub full_since: Option<Instant>,
}

/// How a message was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    InOrder,
    /// Its offset is lower than an earlier one, so the topic was recreated.
    Rewound,
    /// Ignored, because it will be read again.
    Skipped,
}

impl ConsumerState {
    pub fn new(latest_seq: i64, exchange: Option<String>) -> Self {
        ConsumerState { latest_seq, exchange, ..ConsumerState::default() }
    }

    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> Accepted {
        let taken = self.put(message.topic(), message.partition(), message.offset(), message.payload());
        if taken != Accepted::Skipped {
            self.newest = message.timestamp().to_millis().or(self.newest);
        }
        taken
    }

    fn put(&mut self, topic: &str, partition: i32, offset: i64, payload: Option<&[u8]>) -> Accepted {
        let mut taken = Accepted::InOrder;
        let mut committed = -1;
        if let Some(assigned) = self.assigned.get_mut(topic, partition) {
            if assigned.needs_rewind {
                return Accepted::Skipped;
            }
            if offset < assigned.seen {
                taken = Accepted::Rewound;
                assigned.committed = -1;
                assigned.stored = offset;
                self.split.remove(topic, partition);
            }
            assigned.seen = offset + 1;
            if assigned.stored < 0 {
                assigned.stored = offset;
            }
            committed = assigned.committed;
        }
        self.messages += 1;
        let is_complete = match payload {
            Some(payload) if self.exchange.as_deref() == Some(topic) => {
                self.builder.add_match(partition, offset, payload);
                true
            }
            Some(payload) if !payload.is_empty() => {
                if self.split.get(topic, partition).is_none() {
                    self.split.set(topic, partition, SplitMessages::default());
                }
                let builder = &mut self.builder;
                let split = self.split.get_mut(topic, partition);
                split.is_none_or(|split| split.push(payload, &mut |message| builder.add(message)))
            }
            _ => {
                self.empty += 1;
                self.split.get(topic, partition).is_none_or(SplitMessages::is_empty)
            }
        };
        if is_complete {
            self.set_position(topic, partition, Position { next: offset + 1, committed });
        } else {
            self.give_up_overdue();
        }
        taken
    }

    fn set_position(&mut self, topic: &str, partition: i32, position: Position) {
        match self.positions.get_mut(topic, partition) {
            Some(known) => *known = position,
            None => self.positions.set(topic, partition, position),
        }
    }

    /// Stops waiting for the rest of lines that are too long or whose rest does not arrive.
    pub fn give_up_overdue(&mut self) {
        let held: usize = self.split.iter().map(|(_, _, split)| split.held_bytes()).sum();
        let is_overdue = |split: &SplitMessages| {
            !split.is_empty() && (split.is_overdue() || held > MAX_HELD_PARTITIONS * MAX_HELD_BYTES)
        };
        let overdue: Vec<(String, i32)> = self
            .split
            .iter()
            .filter(|(_, _, split)| is_overdue(split))
            .map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect();
        for (topic, partition) in overdue {
            let builder = &mut self.builder;
            if let Some(split) = self.split.get_mut(&topic, partition) {
                split.give_up(&mut |message| builder.add(message));
            }
            if let Some(suppressed) = self.split_log.admit() {
                tracing::warn!(
                    topic,
                    partition,
                    suppressed,
                    "a line that the container runtime split is too long, or its rest did not arrive: evaluated as truncated"
                );
            }
            if let Some(assigned) = self.assigned.get(&topic, partition).copied() {
                let position = Position { next: assigned.seen, committed: assigned.committed };
                self.set_position(&topic, partition, position);
            }
        }
    }

    pub fn has_room(&mut self) -> bool {
        let has_room = !self.builder.is_full();
        if has_room {
            self.full_since = None;
        } else {
            self.full_since.get_or_insert_with(Instant::now);
        }
        has_room
    }

    pub fn is_full_for(&self, time: Duration) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Numbers of messages and of empty messages since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.empty))
    }

    /// Submits the collected batch unless one is in flight. Returns false if the pipeline has ended.
    pub fn submit(&mut self, submit: &dyn Fn(Batch) -> bool) -> bool {
        if self.flight.is_some() || self.positions.is_empty() {
            return true;
        }
        let (bytes, segments) = self.builder.take();
        let positions = std::mem::take(&mut self.positions);
        let (done, answer) = oneshot::channel();
        let batch = Batch {
            bytes,
            segments,
            positions: positions.clone(),
            prefix: self.prefix.clone(),
            epoch: self.epoch,
            done,
        };
        self.flight = Some(InFlightBatch { positions, answer });
        submit(batch)
    }

    pub fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// The outcome of the batch in flight; an error if the pipeline dropped it.
    pub fn poll_answer(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Result<KafkaBatchOutcome, ()>> {
        use std::future::Future as _;
        match &mut self.flight {
            None => Poll::Pending,
            Some(flight) => std::pin::Pin::new(&mut flight.answer).poll(context).map_err(|_| ()),
        }
    }

    /// The outcome, if it is available already.
    pub fn try_answer(&mut self) -> Option<Result<KafkaBatchOutcome, ()>> {
        match self.flight.as_mut()?.answer.try_recv() {
            Ok(outcome) => Some(Ok(outcome)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(())),
        }
    }

    /// Processes the outcome of the batch in flight. Returns false if its messages have to be read again; then everything
    /// collected is discarded too.
    pub fn settle(&mut self, outcome: Result<KafkaBatchOutcome, ()>) -> bool {
        let Some(flight) = self.flight.take() else { return true };
        let Ok(KafkaBatchOutcome::Stored { latest_seq, is_committed, bytes }) = outcome else {
            self.discard_unstored();
            return false;
        };
        self.builder.reuse(bytes);
        self.latest_seq = latest_seq;
        let mut offsets = Partitions::default();
        for (topic, partition, position) in flight.positions.iter() {
            // If a partition was revoked meanwhile, its offset must not be committed.
            if let Some(assigned) = self.assigned.get_mut(topic, partition) {
                assigned.stored = position.next;
                if is_committed {
                    assigned.committed = position.next;
                } else {
                    offsets.set(topic, partition, position.next);
                }
            }
        }
        self.wait(latest_seq, offsets);
        true
    }

    /// Queues offsets to be committed when the sinks have processed the alerts up to a sequence number.
    fn wait(&mut self, newest: i64, offsets: Partitions<i64>) {
        if offsets.is_empty() {
            return;
        }
        match self.pending_commits.back_mut() {
            Some((seq, last)) if *seq == newest => last.merge(offsets),
            _ => self.pending_commits.push_back((newest, offsets)),
        }
        if self.pending_commits.len() > MAX_PENDING_COMMITS
            && let (Some((seq, last)), Some((_, before))) =
                (self.pending_commits.pop_back(), self.pending_commits.back_mut())
        {
            before.merge(last);
            if let Some((older, _)) = self.pending_commits.back_mut() {
                *older = seq;
            }
        }
    }

    /// A partition starts at the stored position, which the group does not know: commit it, since there may be no message for a long time.
    pub fn resumed(&mut self, topic: &str, partition: i32, next: i64) {
        let mut offsets = Partitions::default();
        offsets.set(topic, partition, next);
        self.wait(self.latest_seq, offsets);
    }

    pub fn has_pending_commits(&self) -> bool {
        !self.pending_commits.is_empty()
    }

    /// Takes the offsets whose alerts are delivered up to this sequence number.
    pub fn ready(&mut self, delivered: i64) -> Partitions<i64> {
        let mut ready = Partitions::default();
        while self.pending_commits.front().is_some_and(|(seq, _)| *seq <= delivered) {
            if let Some((_, offsets)) = self.pending_commits.pop_front() {
                ready.merge(offsets);
            }
        }
        ready
    }

    pub fn assign(&mut self, topic: &str, partition: i32, committed: i64, start: Option<i64>) {
        self.rebalance_generation += 1;
        let assigned = PartitionState {
            seen: -1,
            stored: -1,
            committed,
            start,
            assignment_epoch: self.rebalance_generation,
            needs_rewind: false,
        };
        self.assigned.set(topic, partition, assigned);
    }

    /// Commits nothing more for this partition.
    pub fn revoked(&mut self, topic: &str, partition: i32) {
        self.assigned.remove(topic, partition);
        self.split.remove(topic, partition);
        self.epoch += 1;
        self.rebalance_generation += 1;
        for (_, offsets) in &mut self.pending_commits {
            offsets.remove(topic, partition);
        }
        // Its new owner evaluates the collected messages. They are mixed with those of other partitions, which are read again.
        if self.positions.get(topic, partition).is_some() {
            self.discard_unstored();
        }
    }

    /// Discards everything collected. Messages that are not stored are marked to be read again.
    pub fn discard_unstored(&mut self) {
        self.builder.clear();
        self.positions = Partitions::default();
        self.split = Partitions::default();
        self.assigned.for_each(|assigned| {
            assigned.needs_rewind |= assigned.stored >= 0 && assigned.seen > assigned.stored;
            assigned.seen = assigned.seen.min(assigned.stored);
        });
    }

    /// Partitions to read again, and from which offset.
    pub fn to_rewind(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let behind = self.assigned.iter().filter(|(_, _, assigned)| assigned.needs_rewind);
        behind.map(|(topic, partition, assigned)| (topic, partition, assigned.stored))
    }

    /// A partition was rewound: its next message follows the stored ones.
    pub fn rewound(&mut self, topic: &str, partition: i32) {
        if let Some(assigned) = self.assigned.get_mut(topic, partition) {
            assigned.needs_rewind = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Submits the batch, and answers with this outcome.
    fn process(state: &mut ConsumerState, outcome: impl FnOnce(Batch) -> Option<KafkaBatchOutcome>) -> bool {
        let batches = RefCell::new(Vec::new());
        let submit = |batch| {
            batches.borrow_mut().push(batch);
            true
        };
        assert!(state.submit(&submit));
        let Some(batch) = batches.into_inner().pop() else { return true };
        let outcome = outcome(batch).ok_or(());
        state.settle(outcome)
    }

    fn stored(batch: Batch) -> KafkaBatchOutcome {
        KafkaBatchOutcome::Stored { latest_seq: 0, is_committed: true, bytes: batch.bytes }
    }

    fn collected(state: &mut ConsumerState) -> String {
        String::from_utf8(state.builder.take().0).unwrap()
    }

    fn with_two_partitions() -> ConsumerState {
        let mut state = ConsumerState::new(0, None);
        for partition in 0..2 {
            state.assign("audit", partition, -1, None);
            for offset in 5..7 {
                assert_eq!(state.put("audit", partition, offset, Some(b"a")), Accepted::InOrder);
            }
        }
        assert!(process(&mut state, |batch| Some(stored(batch))));
        state
    }

    #[test]
    fn messages_behind_a_failed_batch_are_skipped_until_the_rewind() {
        let mut state = with_two_partitions();
        state.put("audit", 0, 7, Some(b"lost?"));
        assert!(!process(&mut state, |_| Some(KafkaBatchOutcome::Retry)));
        assert_eq!(state.to_rewind().collect::<Vec<_>>(), [("audit", 0, 7)]);
        // Messages that librdkafka had prefetched before the rewind.
        assert_eq!(state.put("audit", 0, 8, Some(b"behind")), Accepted::Skipped);
        assert_eq!(state.put("audit", 1, 7, Some(b"other")), Accepted::InOrder);
        // Discarding twice keeps the marks.
        state.discard_unstored();
        assert_eq!(state.to_rewind().collect::<Vec<_>>(), [("audit", 0, 7), ("audit", 1, 7)]);
        state.rewound("audit", 0);
        state.rewound("audit", 1);
        assert_eq!(state.put("audit", 0, 7, Some(b"lost?")), Accepted::InOrder);
        assert_eq!(collected(&mut state), "lost?");
        // No outcome counts as a failure.
        assert!(!process(&mut state, |_| None));
        assert_eq!(state.to_rewind().collect::<Vec<_>>(), [("audit", 0, 7)]);
    }

    #[test]
    fn collected_messages_of_a_revoked_partition_are_discarded() {
        let mut state = with_two_partitions();
        state.put("audit", 0, 7, Some(b"revoked"));
        state.put("audit", 1, 7, Some(b"kept"));
        state.revoked("audit", 0);
        assert_eq!(state.to_rewind().collect::<Vec<_>>(), [("audit", 1, 7)]);
        assert_eq!(collected(&mut state), "");
        // Revoking a partition without collected messages discards nothing.
        state.rewound("audit", 1);
        state.put("audit", 1, 7, Some(b"kept"));
        state.assign("audit", 0, 7, None);
        state.revoked("audit", 0);
        assert_eq!(collected(&mut state), "kept");
    }

    #[test]
    fn pieces_of_a_split_line_are_one_message_and_no_position_is_between_them() {
        let mut state = with_two_partitions();
        let first = br#"2026-11-23T04:00:00Z stdout P {"kind":"Event","a":["#;
        let last = br#"2026-11-23T04:00:00Z stdout F {"kind":"Event"}]}"#;
        state.put("audit", 0, 7, Some(b"before"));
        state.put("audit", 0, 8, Some(first));
        assert_eq!(state.positions.get("audit", 0).map(|position| position.next), Some(8));
        assert_eq!(collected(&mut state), "before");
        // Another partition does not wait.
        state.put("audit", 1, 7, Some(b"other"));
        assert!(process(&mut state, |batch| Some(stored(batch))));
        state.put("audit", 0, 9, Some(last));
        assert_eq!(collected(&mut state), String::from_utf8([&first[..], b"\n", last].concat()).unwrap());
        assert_eq!(state.positions.get("audit", 0).map(|position| position.next), Some(10));
        // Without the last piece, it is read again from the first one.
        assert!(process(&mut state, |batch| Some(stored(batch))));
        state.put("audit", 0, 10, Some(first));
        state.discard_unstored();
        assert_eq!(state.to_rewind().collect::<Vec<_>>(), [("audit", 0, 10)]);
        state.rewound("audit", 0);
        // An event without a wrapper is complete, wherever it ends.
        state.put("audit", 0, 10, Some(br#"{"kind":"Event","a":["#));
        assert_eq!(state.positions.get("audit", 0).map(|position| position.next), Some(11));
    }
}
