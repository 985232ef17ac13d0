//! Joins messages of a partition that are pieces of a line split by a container runtime.
//!
//! Takes messages in the order of the partition; returns them unchanged, except that the pieces of a line are joined to one message once
//! they are complete. Until then, the partition's position stays before the first piece, so that no piece is ever evaluated as a separate
//! message: a client chooses its text.

use std::time::{Duration, Instant};

use crate::detection::audit::envelope::{LineRole, LineTracker};

/// Maximum time to wait for the rest of a line.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Maximum size of a joined line, in bytes.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct SplitMessages {
    tracker: LineTracker,
    /// Pieces, and complete messages between them, one per line.
    held: Vec<u8>,
    /// Multi-line messages that arrived meanwhile.
    others: Vec<Vec<u8>>,
    since: Option<Instant>,
}

impl SplitMessages {
    /// Adds a message. Calls `emit` with the messages that can be evaluated now, and returns whether these are all messages received so
    /// far.
    pub(super) fn push(&mut self, message: &[u8], emit: &mut dyn FnMut(&[u8])) -> bool {
        let line = message.strip_suffix(b"\n").unwrap_or(message);
        if memchr::memchr(b'\n', line).is_some() {
            if self.is_empty() {
                emit(message);
                return true;
            }
            self.others.push(message.to_vec());
            return false;
        }
        if self.tracker.push(line) == LineRole::Abandoned {
            return self.is_empty();
        }
        if self.tracker.has_open_piece() {
            self.since.get_or_insert_with(Instant::now);
            self.held.extend_from_slice(line);
            self.held.push(b'\n');
            return false;
        }
        if self.is_empty() {
            emit(message);
        } else {
            self.held.extend_from_slice(line);
            self.emit_held(emit);
        }
        true
    }

    /// Stops waiting for the rest of a line.
    pub(super) fn give_up(&mut self, emit: &mut dyn FnMut(&[u8])) {
        self.tracker.abandon();
        self.emit_held(emit);
    }

    fn emit_held(&mut self, emit: &mut dyn FnMut(&[u8])) {
        self.since = None;
        emit(&std::mem::take(&mut self.held));
        self.others.drain(..).for_each(|message| emit(&message));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.len() + self.others.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether to stop waiting: the line is too long, or its rest does not arrive.
    pub(super) fn is_overdue(&self) -> bool {
        self.held_bytes() > MAX_HELD_BYTES || self.since.is_some_and(|since| since.elapsed() > MAX_WAIT)
    }
}
