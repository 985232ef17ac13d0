//! A batch of Kafka messages on its way to the pipeline.

use std::ops::Range;

use tokio::sync::oneshot;

use super::Partitions;
use super::position::{self, Position};
use crate::detection::state::StateChange;

/// Messages that are evaluated and stored together.
#[derive(Debug)]
pub struct Batch {
    /// The messages' bytes, concatenated.
    pub bytes: Vec<u8>,
    /// The segments of `bytes`, in order of arrival.
    pub segments: Vec<Segment>,
    /// Position of each partition after this batch.
    pub positions: Partitions<Position>,
    /// Key prefix of the positions' entries in the store.
    pub prefix: Vec<u8>,
    /// Incremented when partitions are revoked. If it differs from the consumer's value, these positions may belong to another replica.
    pub epoch: u64,
    /// Receives the outcome. Dropped without one if the batch was not processed.
    pub done: oneshot::Sender<KafkaBatchOutcome>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Messages that each consist of one event on one line, each followed by a line break.
    Lines(Range<usize>),
    /// Any other single message.
    Message(Range<usize>),
    /// A message of the exchange topic: partition, offset, and its bytes.
    Match(i32, i64, Range<usize>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum KafkaBatchOutcome {
    Stored {
        /// Sequence number of the newest alert in the store, which is at least that of this batch's alerts.
        latest_seq: i64,
        /// Whether a transaction already committed its offsets to the group.
        is_committed: bool,
        /// The batch's buffer, for reuse.
        bytes: Vec<u8>,
    },
    /// Nothing of it is stored, so its messages must be read again.
    Retry,
}

impl Batch {
    /// The state entries that store its positions.
    pub fn changes(&self) -> impl Iterator<Item = StateChange> {
        let entry = |(topic, partition, position): (&str, i32, &Position)| {
            position::entry(&self.prefix, topic, partition, *position)
        };
        self.positions.iter().map(entry)
    }
}

/// The start of an event in the apiserver's format. Such a message is not searched for envelopes.
const EVENT: &[u8] = br#"{"kind":"Event","#;

/// Collects messages into a batch.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
}

impl Builder {
    pub fn reuse(&mut self, mut bytes: Vec<u8>) {
        // A buffer that contained a huge message is freed.
        if self.bytes.capacity() == 0 && bytes.capacity() <= 2 * MAX_BATCH_BYTES {
            bytes.clear();
            self.bytes = bytes;
        }
    }

    pub fn add(&mut self, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        if message.starts_with(EVENT) && memchr::memchr(b'\n', message).is_none() {
            self.bytes.push(b'\n');
            match self.segments.last_mut() {
                Some(Segment::Lines(lines)) => lines.end = self.bytes.len(),
                _ => self.segments.push(Segment::Lines(start..self.bytes.len())),
            }
        } else {
            self.segments.push(Segment::Message(start..self.bytes.len()));
        }
    }

    /// Adds a message of the exchange topic.
    pub fn add_match(&mut self, partition: i32, offset: i64, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.segments.push(Segment::Match(partition, offset, start..self.bytes.len()));
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_BATCH_BYTES || self.segments.len() >= MAX_BATCH_SEGMENTS
    }

    /// Takes the collected messages.
    pub fn take(&mut self) -> (Vec<u8>, Vec<Segment>) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.segments))
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
    }
}

/// A batch is full at this many bytes: large enough that a store transaction is cheap in comparison.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// A batch is full at this many segments.
const MAX_BATCH_SEGMENTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_line_events_are_joined_and_other_messages_are_not() {
        let mut builder = Builder::default();
        let event = br#"{"kind":"Event","a":1}"#;
        for message in [&event[..], event, b"{\n}", event, b"", b"{\"kind\":\"Event\",\n}"] {
            builder.add(message);
        }
        let (bytes, segments) = builder.take();
        let line = event.len() + 1;
        let third = 2 * line + 3;
        let expected = [
            Segment::Lines(0..2 * line),
            Segment::Message(2 * line..third),
            Segment::Lines(third..third + line),
            Segment::Message(third + line..third + line),
            Segment::Message(third + line..bytes.len()),
        ];
        assert_eq!(segments, expected);
        assert!(!builder.is_full() && builder.take() == (Vec::new(), Vec::new()));
    }
}
