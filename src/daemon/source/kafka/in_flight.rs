//! What a consumer has in hand: messages that are gathered, a batch that is being judged, offsets that wait to be committed.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::oneshot;

use super::batch::Builder;
use super::{Batch, Outcome, Partitions, Position};

/// So many groups of offsets wait for the sinks; behind them the newest two are put together.
const MOST_WAITING: usize = 1024;

/// A partition that is ours.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The offset of the next message that we have not seen. Below 0 before the first.
    pub seen: i64,
    /// The first offset that nothing was stored of. Below 0 before the first message.
    pub stored: i64,
    /// What the group has from us. Below 0 where nothing.
    pub committed: i64,
    /// Where it starts, where that is known.
    pub start: Option<i64>,
    /// Another each time that it comes to us.
    pub since: u64,
    /// It has to be read again from [`Own::stored`] on. What comes of it before that is done is passed over: it lies behind what
    /// was not stored.
    pub is_behind: bool,
}

/// A batch that is being judged.
#[derive(Debug)]
struct Flight {
    positions: Partitions<Position>,
    answer: oneshot::Receiver<Outcome>,
}

/// What is in hand.
#[derive(Debug, Default)]
pub struct Work {
    builder: Builder,
    /// How far the partitions are with what is gathered.
    positions: Partitions<Position>,
    messages: u64,
    empty: u64,
    /// When the newest message was written, in milliseconds since 1970.
    pub newest: Option<i64>,
    flight: Option<Flight>,
    /// Offsets whose alerts are stored up to that place.
    waiting: VecDeque<(i64, Partitions<i64>)>,
    /// All alerts of what is stored of partitions are up to here.
    place: i64,
    /// The partitions that are ours.
    pub own: Partitions<Own>,
    /// What their entries start with in the store.
    pub prefix: Vec<u8>,
    /// Grows when partitions go elsewhere.
    pub epoch: u64,
    /// Grows when partitions come or go.
    pub turn: u64,
    /// The topic over which replicas exchange matches.
    pub exchange: Option<String>,
    /// Since when there is no room.
    pub full_since: Option<Instant>,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It follows those before.
    InOrder,
    /// It lies before one that we had: the topic was made anew.
    Backwards,
    /// Passed over, since it comes again.
    Early,
}

impl Work {
    /// With nothing in hand; the newest alert in the store has this place.
    pub fn new(place: i64, exchange: Option<String>) -> Self {
        Work { place, exchange, ..Work::default() }
    }

    /// Takes a message.
    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> Taken {
        let taken = self.put(message.topic(), message.partition(), message.offset(), message.payload());
        if taken != Taken::Early {
            self.newest = message.timestamp().to_millis().or(self.newest);
        }
        taken
    }

    fn put(&mut self, topic: &str, partition: i32, offset: i64, payload: Option<&[u8]>) -> Taken {
        let mut taken = Taken::InOrder;
        let mut committed = -1;
        if let Some(own) = self.own.get_mut(topic, partition) {
            if own.is_behind {
                return Taken::Early;
            }
            if offset < own.seen {
                taken = Taken::Backwards;
                own.committed = -1;
                own.stored = offset;
            }
            own.seen = offset + 1;
            if own.stored < 0 {
                own.stored = offset;
            }
            committed = own.committed;
        }
        match payload {
            Some(payload) if self.exchange.as_deref() == Some(topic) => {
                self.builder.add_match(partition, offset, payload);
            }
            Some(payload) if !payload.is_empty() => self.builder.add(payload),
            _ => self.empty += 1,
        }
        self.messages += 1;
        let position = Position { next: offset + 1, committed };
        match self.positions.get_mut(topic, partition) {
            Some(known) => *known = position,
            None => self.positions.set(topic, partition, position),
        }
        taken
    }

    /// Whether another message may be taken.
    pub fn has_room(&mut self) -> bool {
        let has_room = !self.builder.is_full();
        if has_room {
            self.full_since = None;
        } else {
            self.full_since.get_or_insert_with(Instant::now);
        }
        has_room
    }

    /// Whether there was no room for so long.
    pub fn is_full_for(&self, time: Duration) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() >= time)
    }

    /// How many messages came since the last call, and how many of them were empty.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.empty))
    }

    /// Hands on what is gathered, unless a batch is on its way already. False where nobody takes it.
    pub fn hand_on(&mut self, hand_on: &dyn Fn(Batch) -> bool) -> bool {
        if self.flight.is_some() || self.positions.is_empty() {
            return true;
        }
        let (bytes, runs) = self.builder.take();
        let positions = std::mem::take(&mut self.positions);
        let (done, answer) = oneshot::channel();
        let batch = Batch {
            bytes,
            runs,
            positions: positions.clone(),
            prefix: self.prefix.clone(),
            epoch: self.epoch,
            done,
        };
        self.flight = Some(Flight { positions, answer });
        hand_on(batch)
    }

    /// Whether a batch is being judged.
    pub fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// The answer to the batch that is being judged, once it is there; an error where none will come.
    pub fn poll_answer(&mut self, context: &mut std::task::Context<'_>) -> Poll<Result<Outcome, ()>> {
        use std::future::Future as _;
        match &mut self.flight {
            None => Poll::Pending,
            Some(flight) => std::pin::Pin::new(&mut flight.answer).poll(context).map_err(|_| ()),
        }
    }

    /// The same for who cannot wait: nothing where it is not there yet.
    pub fn try_answer(&mut self) -> Option<Result<Outcome, ()>> {
        match self.flight.as_mut()?.answer.try_recv() {
            Ok(outcome) => Some(Ok(outcome)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(())),
        }
    }

    /// Notes what became of the batch. False where its messages have to be read again: then nothing is in hand any more.
    pub fn settle(&mut self, outcome: Result<Outcome, ()>) -> bool {
        let Some(flight) = self.flight.take() else { return true };
        let Ok(Outcome::Stored { newest, is_committed, bytes }) = outcome else {
            self.forget();
            return false;
        };
        self.builder.reuse(bytes);
        self.place = newest;
        let mut offsets = Partitions::default();
        for (topic, partition, position) in flight.positions.iter() {
            // What went elsewhere meanwhile is no longer ours to commit.
            if let Some(own) = self.own.get_mut(topic, partition) {
                own.stored = position.next;
                if is_committed {
                    own.committed = position.next;
                } else {
                    offsets.set(topic, partition, position.next);
                }
            }
        }
        self.wait(newest, offsets);
        true
    }

    /// Offsets are committed once the sinks are done with the alerts up to a place.
    fn wait(&mut self, newest: i64, offsets: Partitions<i64>) {
        if offsets.is_empty() {
            return;
        }
        match self.waiting.back_mut() {
            Some((place, last)) if *place == newest => last.merge(offsets),
            _ => self.waiting.push_back((newest, offsets)),
        }
        if self.waiting.len() > MOST_WAITING
            && let (Some((place, last)), Some((_, before))) =
                (self.waiting.pop_back(), self.waiting.back_mut())
        {
            before.merge(last);
            if let Some((older, _)) = self.waiting.back_mut() {
                *older = place;
            }
        }
    }

    /// A partition starts at what is stored: the group has not heard of it yet, and may hear nothing else for long.
    pub fn resumed(&mut self, topic: &str, partition: i32, next: i64) {
        let mut offsets = Partitions::default();
        offsets.set(topic, partition, next);
        self.wait(self.place, offsets);
    }

    /// Whether offsets wait for the sinks.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The offsets whose alerts are all up to that place: they can be committed, and do not wait any more.
    pub fn ready(&mut self, delivered: i64) -> Partitions<i64> {
        let mut ready = Partitions::default();
        while self.waiting.front().is_some_and(|(place, _)| *place <= delivered) {
            if let Some((_, offsets)) = self.waiting.pop_front() {
                ready.merge(offsets);
            }
        }
        ready
    }

    /// A partition is ours from now on.
    pub fn assigned(&mut self, topic: &str, partition: i32, committed: i64, start: Option<i64>) {
        self.turn += 1;
        let own = Own { seen: -1, stored: -1, committed, start, since: self.turn, is_behind: false };
        self.own.set(topic, partition, own);
    }

    /// A partition is no longer ours: nothing of it is committed any more.
    pub fn let_go(&mut self, topic: &str, partition: i32) {
        self.own.remove(topic, partition);
        self.epoch += 1;
        self.turn += 1;
        for (_, offsets) in &mut self.waiting {
            offsets.remove(topic, partition);
        }
        // Whoever has it now judges its messages. They lie among those of others, which are read again.
        if self.positions.get(topic, partition).is_some() {
            self.forget();
        }
    }

    /// Forgets what is gathered, and that what is not stored was seen: it is to be read again.
    pub fn forget(&mut self) {
        self.builder.clear();
        self.positions = Partitions::default();
        self.own.for_each(|own| {
            own.is_behind |= own.stored >= 0 && own.seen > own.stored;
            own.seen = own.seen.min(own.stored);
        });
    }

    /// The partitions that have to be read again, and from which offsets on.
    pub fn behind(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let behind = self.own.iter().filter(|(_, _, own)| own.is_behind);
        behind.map(|(topic, partition, own)| (topic, partition, own.stored))
    }

    /// From now on a partition is read again: what comes of it next follows what is stored.
    pub fn is_sought(&mut self, topic: &str, partition: i32) {
        if let Some(own) = self.own.get_mut(topic, partition) {
            own.is_behind = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Hands on what is gathered, and answers so.
    fn judge(work: &mut Work, outcome: impl FnOnce(Batch) -> Option<Outcome>) -> bool {
        let batches = RefCell::new(Vec::new());
        let hand_on = |batch| {
            batches.borrow_mut().push(batch);
            true
        };
        assert!(work.hand_on(&hand_on));
        let Some(batch) = batches.into_inner().pop() else { return true };
        let outcome = outcome(batch).ok_or(());
        work.settle(outcome)
    }

    fn stored(batch: Batch) -> Outcome {
        Outcome::Stored { newest: 0, is_committed: true, bytes: batch.bytes }
    }

    /// What is gathered, as text.
    fn gathered(work: &mut Work) -> String {
        String::from_utf8(work.builder.take().0).unwrap()
    }

    fn with_two_partitions() -> Work {
        let mut work = Work::new(0, None);
        for partition in 0..2 {
            work.assigned("audit", partition, -1, None);
            for offset in 5..7 {
                assert_eq!(work.put("audit", partition, offset, Some(b"a")), Taken::InOrder);
            }
        }
        assert!(judge(&mut work, |batch| Some(stored(batch))));
        work
    }

    #[test]
    fn nothing_behind_a_batch_that_was_not_stored_is_taken_before_it_is_read_again() {
        let mut work = with_two_partitions();
        work.put("audit", 0, 7, Some(b"lost?"));
        assert!(!judge(&mut work, |_| Some(Outcome::Again)));
        assert_eq!(work.behind().collect::<Vec<_>>(), [("audit", 0, 7)]);
        // What librdkafka had at hand, before it is told to go back.
        assert_eq!(work.put("audit", 0, 8, Some(b"behind")), Taken::Early);
        assert_eq!(work.put("audit", 1, 7, Some(b"other")), Taken::InOrder);
        // Nor does forgetting twice lose it.
        work.forget();
        assert_eq!(work.behind().collect::<Vec<_>>(), [("audit", 0, 7), ("audit", 1, 7)]);
        work.is_sought("audit", 0);
        work.is_sought("audit", 1);
        assert_eq!(work.put("audit", 0, 7, Some(b"lost?")), Taken::InOrder);
        assert_eq!(gathered(&mut work), "lost?");
        // Nobody answers: the same.
        assert!(!judge(&mut work, |_| None));
        assert_eq!(work.behind().collect::<Vec<_>>(), [("audit", 0, 7)]);
    }

    #[test]
    fn what_was_gathered_of_a_partition_that_goes_elsewhere_is_not_judged_here() {
        let mut work = with_two_partitions();
        work.put("audit", 0, 7, Some(b"theirs"));
        work.put("audit", 1, 7, Some(b"ours"));
        work.let_go("audit", 0);
        assert_eq!(work.behind().collect::<Vec<_>>(), [("audit", 1, 7)]);
        assert_eq!(gathered(&mut work), "");
        // One of which nothing was gathered takes nothing with it.
        work.is_sought("audit", 1);
        work.put("audit", 1, 7, Some(b"ours"));
        work.assigned("audit", 0, 7, None);
        work.let_go("audit", 0);
        assert_eq!(gathered(&mut work), "ours");
    }
}
