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
}

impl Work {
    /// With nothing in hand; the newest alert in the store has this place.
    pub fn new(place: i64, exchange: Option<String>) -> Self {
        Work { place, exchange, ..Work::default() }
    }

    /// Takes a message.
    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> Taken {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let mut taken = Taken::InOrder;
        let mut committed = -1;
        if let Some(own) = self.own.get_mut(topic, partition) {
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
        match message.payload() {
            Some(payload) if self.exchange.as_deref() == Some(topic) => {
                self.builder.add_match(partition, offset, payload);
            }
            Some(payload) if !payload.is_empty() => self.builder.add(payload),
            _ => self.empty += 1,
        }
        self.messages += 1;
        self.newest = message.timestamp().to_millis().or(self.newest);
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

    /// Notes what became of the batch. False where its messages have to be read again, from [`Own::stored`] on.
    pub fn settle(&mut self, outcome: Result<Outcome, ()>) -> bool {
        let Some(flight) = self.flight.take() else { return true };
        let Ok(Outcome::Stored { newest, is_committed, bytes }) = outcome else {
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
        let own = Own { seen: -1, stored: -1, committed, start, since: self.turn };
        self.own.set(topic, partition, own);
    }

    /// A partition is no longer ours: nothing of it is committed any more.
    pub fn let_go(&mut self, topic: &str, partition: i32) {
        self.own.remove(topic, partition);
        self.positions.remove(topic, partition);
        self.epoch += 1;
        self.turn += 1;
        for (_, offsets) in &mut self.waiting {
            offsets.remove(topic, partition);
        }
    }

    /// Forgets what is gathered; it will be read again.
    pub fn forget(&mut self) {
        self.builder.clear();
        self.positions = Partitions::default();
        self.own.for_each(|own| own.seen = own.seen.min(own.stored));
    }
}
