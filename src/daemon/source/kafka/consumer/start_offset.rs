//! Determines where an assigned partition starts: at the group's offset or at the stored position.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::position::{self, Position};
use super::super::{Partitions, StartAt};
use super::context::Context;
use crate::daemon::kafka::KafkaErrorKind;

/// The rebalance waits meanwhile. Offsets that are still unknown after this time are left to librdkafka.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartOffset {
    /// At the group's offset; without one, according to `start_at`.
    Group,
    /// At the stored position, which is further ahead.
    Store(i64),
    /// At the group's offset although we had committed a higher one, because an operator reset the group.
    GroupReset,
}

fn decide(store: Option<Position>, group: Option<i64>) -> StartOffset {
    match (store, group) {
        (None, _) => StartOffset::Group,
        (Some(store), None) => StartOffset::Store(store.next),
        (Some(store), Some(group)) if group < store.committed => StartOffset::GroupReset,
        (Some(store), Some(group)) if group >= store.next => StartOffset::Group,
        (Some(store), Some(_)) => StartOffset::Store(store.next),
    }
}

/// Writes the start offsets into the list, and records the partitions as assigned.
pub fn assign_start_offsets(context: &Context, consumer: &BaseConsumer<Context>, given: &TopicPartitionList) {
    let deadline = Instant::now() + BROKER_TIMEOUT;
    let prefix = context.prefix(consumer, until(deadline));
    let stored = stored(context, &prefix);
    let mut list = TopicPartitionList::with_capacity(given.count());
    for one in given.elements() {
        list.add_partition(one.topic(), one.partition());
    }
    let group = match consumer.committed_offsets(list, until(deadline)) {
        Ok(group) => Some(group),
        Err(error) => {
            context.report(KafkaErrorKind::Other, &format!("cannot read the offsets of the group: {error}"));
            None
        }
    };
    let mut lookup = Lookup { context, consumer, deadline, is_reachable: true };
    let mut unknown = TopicPartitionList::new();
    let exchange = context.state().exchange.clone();
    for mut one in given.elements() {
        let (topic, partition) = (one.topic().to_owned(), one.partition());
        let is_exchange = exchange.as_deref() == Some(topic.as_str());
        let found = group.as_ref().and_then(|group| group.find_partition(&topic, partition));
        let is_known = found.as_ref().is_some_and(|found| found.error().is_ok());
        let committed = found.and_then(|found| match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        // With transactions the group's offset decides; the store follows it.
        let store = stored.get(&topic, partition).copied().filter(|_| !context.is_transactional);
        let start = decide(store, committed);
        if start == StartOffset::GroupReset {
            tracing::warn!(
                source = context.source,
                topic,
                partition,
                offset = committed,
                "the group was reset to an earlier offset: messages are evaluated again, alerts in the store are not duplicated"
            );
        }
        let wanted = match start {
            StartOffset::Store(offset) => Some(offset),
            StartOffset::Group | StartOffset::GroupReset => committed,
        };
        let offset = match wanted {
            Some(wanted) => Some(lookup.existing_offset(&topic, partition, wanted, is_exchange)),
            // The lookup of the group's committed offset failed, which does not mean that there is none. librdkafka retries it.
            None if !is_known => None,
            // Matches of other replicas are read from the start, regardless of `start_at`.
            None if is_exchange => Some(Offset::Beginning),
            None => {
                unknown.add_partition(&topic, partition);
                None
            }
        };
        if let Some(offset) = offset {
            // These offsets are not negative.
            let _ = one.set_offset(offset);
        }
        let first = match offset {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        let mut state = context.state();
        state.assign(&topic, partition, committed.unwrap_or(-1), first);
        if let StartOffset::Store(next) = start
            && first == Some(next)
        {
            state.resumed(&topic, partition, next);
        }
    }
    context.state().prefix = prefix;
    if let StartAt::Time(time) = context.start_at {
        start_at_time(context, consumer, given, &mut unknown, time, until(deadline));
    }
}

/// Looks up whether offsets exist.
struct Lookup<'c> {
    context: &'c Context,
    consumer: &'c BaseConsumer<Context>,
    deadline: Instant,
    /// Another request to unreachable brokers would use up the time for all partitions.
    is_reachable: bool,
}

impl Lookup<'_> {
    /// The offset to start at: the desired one, or another one if that does not exist, any more or yet.
    fn existing_offset(&mut self, topic: &str, partition: i32, wanted: i64, is_exchange: bool) -> Offset {
        if !self.is_reachable {
            return Offset::Offset(wanted);
        }
        let context = self.context;
        let Ok((first, end)) = self.consumer.fetch_watermarks(topic, partition, until(self.deadline)) else {
            self.is_reachable = false;
            return Offset::Offset(wanted);
        };
        if wanted > end {
            context.count(KafkaErrorKind::OffsetGone);
            tracing::error!(
                source = context.source,
                topic,
                partition,
                known = wanted,
                end,
                "the topic was recreated: it ends before the stored offset, and is read from `start_at`"
            );
            return if context.start_at == StartAt::Latest && !is_exchange {
                Offset::End
            } else {
                Offset::Beginning
            };
        }
        if wanted < first {
            context.count(KafkaErrorKind::OffsetGone);
            tracing::error!(
                source = context.source,
                topic,
                partition,
                lost = first - wanted,
                "messages were deleted before they were read: the retention of the topic is shorter than the lag"
            );
            return Offset::Offset(first);
        }
        Offset::Offset(wanted)
    }
}

/// The remaining time, but at least enough for librdkafka to send a request.
fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Looks up the offsets for a time, for partitions without a position.
fn start_at_time(
    context: &Context,
    consumer: &BaseConsumer<Context>,
    given: &TopicPartitionList,
    unknown: &mut TopicPartitionList,
    time: i64,
    timeout: Duration,
) {
    if unknown.count() == 0 || unknown.set_all_offsets(Offset::Offset(time)).is_err() {
        return;
    }
    match consumer.offsets_for_times(unknown.clone(), timeout) {
        Ok(found) => {
            for one in found.elements() {
                if let Some(mut place) = given.find_partition(one.topic(), one.partition()) {
                    let _ = place.set_offset(one.offset());
                }
            }
        }
        Err(error) => context.report(
            KafkaErrorKind::Other,
            &format!(
                "cannot look up the offsets of the time in `start_at`, starting at the oldest message: {error}"
            ),
        ),
    }
}

/// The stored positions of this group's partitions.
fn stored(context: &Context, prefix: &[u8]) -> Partitions<Position> {
    let mut all = Partitions::default();
    let known = context.positions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (key, value) in known.iter() {
        if let Some((topic, partition, position)) = position::read(prefix, key, value) {
            all.set(topic, partition, position);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_further_of_store_and_group_counts_unless_the_group_was_reset() {
        let store = |next, committed| Some(Position { next, committed });
        for (known, group, start) in [
            (None, None, StartOffset::Group),
            (None, Some(5), StartOffset::Group),
            // Crash before the commit.
            (store(10, 4), Some(4), StartOffset::Store(10)),
            (store(10, 4), Some(7), StartOffset::Store(10)),
            // Another replica was further ahead.
            (store(10, 4), Some(30), StartOffset::Group),
            (store(10, 10), Some(10), StartOffset::Group),
            // The group's offsets expired.
            (store(10, 10), None, StartOffset::Store(10)),
            (store(10, -1), Some(0), StartOffset::Store(10)),
            (store(10, 8), Some(2), StartOffset::GroupReset),
        ] {
            assert_eq!(decide(known, group), start, "{known:?} {group:?}");
        }
    }
}
