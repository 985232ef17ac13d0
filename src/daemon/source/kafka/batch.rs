//! Messages on their way to the pipeline.

use std::ops::Range;

use tokio::sync::oneshot;

use super::Partitions;
use super::position::{self, Position};
use crate::detection::state::StateChange;

/// Messages that are judged and stored together.
#[derive(Debug)]
pub struct Batch {
    /// What is in them, one after the other.
    pub bytes: Vec<u8>,
    /// What lies where, in the order it came.
    pub segments: Vec<Segment>,
    /// How far each of their partitions is with them.
    pub positions: Partitions<Position>,
    /// What the entries of these positions start with in the store.
    pub prefix: Vec<u8>,
    /// Grows when partitions go elsewhere: where it has grown assignment_epoch, these positions may no longer be ours.
    pub epoch: u64,
    /// Told what became of it. Dropped where nothing did.
    pub done: oneshot::Sender<Outcome>,
}

/// A part of a batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Messages that are an event on one line each, with a line end behind each.
    Lines(Range<usize>),
    /// Any other message, by itself.
    Message(Range<usize>),
    /// A message of the topic over which replicas exchange matches: partition, offset, and where it lies.
    Match(i32, i64, Range<usize>),
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored. `newest` is the place of the newest alert that there is now, `bytes` the batch's buffer, to be used again.
    Stored {
        /// All its alerts are up to here.
        latest_seq: i64,
        /// Whether its offsets are committed to the group already.
        is_committed: bool,
        /// The buffer.
        bytes: Vec<u8>,
    },
    /// Nothing of it is stored: read its messages again.
    Retry,
}

impl Batch {
    /// What the store has to know of its positions.
    pub fn changes(&self) -> impl Iterator<Item = StateChange> {
        let entry = |(topic, partition, position): (&str, i32, &Position)| {
            position::entry(&self.prefix, topic, partition, *position)
        };
        self.positions.iter().map(entry)
    }
}

/// How an event starts that the apiserver wrote. Such messages need no look at what wraps them.
const EVENT: &[u8] = br#"{"kind":"Event","#;

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
}

impl Builder {
    /// Uses a buffer again.
    pub fn reuse(&mut self, mut bytes: Vec<u8>) {
        // One that held a huge message goes, or it would be kept for ever.
        if self.bytes.capacity() == 0 && bytes.capacity() <= 2 * MAX_BATCH_BYTES {
            bytes.clear();
            self.bytes = bytes;
        }
    }

    /// Adds a message.
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

    /// Adds a message of the topic over which replicas exchange matches.
    pub fn add_match(&mut self, partition: i32, offset: i64, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.segments.push(Segment::Match(partition, offset, start..self.bytes.len()));
    }

    /// Whether no more are to be added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_BATCH_BYTES || self.segments.len() >= MAX_BATCH_SEGMENTS
    }

    /// What there is so far; the builder starts anew.
    pub fn take(&mut self) -> (Vec<u8>, Vec<Segment>) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.segments))
    }

    /// Forgets what there is.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
    }
}

/// A batch takes no more messages from so many bytes on: enough that a transaction costs little beside it.
const MAX_BATCH_BYTES: usize = 2 << 20;

/// And from so many dependencies on.
const MAX_BATCH_SEGMENTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_on_a_line_are_put_together_and_others_stay_by_themselves() {
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
