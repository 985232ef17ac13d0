//! Repartitioning of matches among replicas, so that each correlation group has one owner.
//!
//! ```text
//! events ──► matches that feed a correlation ──► outbox ┄┄┄ topic, keyed by group ┄┄┄► on_remote_match ──► alerts
//! ```
//!
//! Each replica reads a part of all events. An ordered pass with repartitioning does not feed its own correlations: it puts each
//! observation into the outbox, as a message with everything about the event that the correlation's alert needs (its redacted head, its
//! hash, what it exposed). The topic has partitions, each with its own groups and one owner at a time. A new owner rebuilds the groups of a
//! partition by [replaying](Repartition::replay) the topic: matches and the markers of windows that fired or closed.
//!
//! A message is versioned JSON and as untrusted as an event: anyone may be able to write to the topic.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::detection::correlate::{
    self, Correlator, Digest, Fired, Observation, WindowMarker, WindowOutcome,
};
use crate::detection::engine::alert_context::AlertContext;
use crate::detection::registry::Exposure;
use crate::detection::rules::ast::Correlation;

/// How matches are repartitioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Number of partitions. They share the memory limits.
    pub partitions: usize,
    /// Allowed lateness of a match, in nanoseconds of event time: how far one replica may lag behind another.
    pub allowed_lateness: i64,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Partition key. Messages of one key have to stay in order, in one partition.
    pub key: String,
    /// Event time, in nanoseconds since 1970-01-01T00:00:00Z.
    pub time: i64,
    /// The payload.
    pub value: Vec<u8>,
    /// The message is the marker of a closed window. The window's alert has to be delivered before the marker is sent:
    /// a new owner does not emit that alert again.
    pub is_close_marker: bool,
}

/// The end of the replay of a partition of the repartition topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayEnd {
    /// Matches before this offset were evaluated by an earlier owner.
    pub offset: i64,
    /// Window markers at or after that offset are applied too, since they were committed together with the alerts they report.
    pub is_final: bool,
}

/// Version of the message format.
const VERSION: u8 = 1;

/// A partition without messages for this long, in nanoseconds, is idle: its windows close by the clock.
const IDLE_TIMEOUT: i64 = 60_000_000_000;

#[derive(Serialize, Deserialize)]
struct Message {
    v: u8,
    /// Digest of the correlation's definition.
    of: String,
    /// Name of the correlation, for people who read the topic.
    correlation: String,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Match(Box<MatchMessage>),
    /// A window fired, from its first match to its last, when the match at offset `at` came.
    Fired {
        group: String,
        first: i64,
        last: i64,
        at: i64,
    },
    /// A tumbling window was closed.
    Closed {
        group: String,
        until: i64,
    },
}

/// A match as JSON. Bytes are base64.
#[derive(Serialize, Deserialize)]
struct MatchMessage {
    rule: usize,
    time: i64,
    id: String,
    key: Vec<String>,
    values: Vec<String>,
    /// The redacted head of the event, as in alerts.
    event: String,
    hash: String,
    #[serde(default, skip_serializing_if = "is_nothing")]
    registry: Exposure,
}

fn is_nothing(exposure: &Exposure) -> bool {
    *exposure == Exposure::default()
}

/// A match from the topic, with the event data for its alert.
#[derive(Debug)]
pub(super) struct RemoteMatch {
    /// Index of the correlation.
    pub correlation: usize,
    pub observation: Observation,
    /// The redacted head of the event, as an event of its own.
    pub event: Vec<u8>,
    /// SHA-256 of the event's content.
    pub hash: [u8; 32],
    pub exposure: Rc<Exposure>,
}

/// A decoded message.
pub(super) enum DecodedMessage {
    Match(Box<RemoteMatch>),
    /// The outcome of a window, and the offset of the match that led to it, if known.
    Marker(WindowMarker, Option<i64>),
    /// It belongs to a correlation that this rule set does not have.
    ForeignRuleSet,
}

/// The groups of one assigned partition.
#[derive(Debug)]
struct Partition {
    correlator: Correlator,
    /// Offset of the next message.
    next: i64,
    /// `next` is the offset that the group's owner committed; no message was read since, and the first one may have a higher offset.
    offset_is_tentative: bool,
    /// Wall-clock time of the last message.
    last_message: i64,
}

/// The assigned partitions with their correlation groups, and the messages to send.
#[derive(Debug)]
pub struct Repartition {
    /// A correlator without groups, copied for each partition.
    blank: Correlator,
    names: Vec<String>,
    assigned: BTreeMap<i32, Partition>,
    outbox: Vec<Outgoing>,
    now: i64,
    /// Counts of revoked partitions.
    revoked_stats: correlate::CorrelationStats,
    foreign: u64,
}

impl Repartition {
    /// `blank` is the correlator of one partition ([`Correlator::for_partition`]).
    pub(super) fn new(blank: Correlator, correlations: &[Correlation]) -> Self {
        Repartition {
            blank,
            names: correlations.iter().map(|one| one.name.to_string()).collect(),
            assigned: BTreeMap::new(),
            outbox: Vec::new(),
            now: 0,
            revoked_stats: correlate::CorrelationStats::default(),
            foreign: 0,
        }
    }

    /// Sets the current time, in nanoseconds since 1970-01-01T00:00:00Z.
    pub(super) fn set_now(&mut self, now: i64) {
        self.now = now;
    }

    /// Puts a match into the outbox.
    pub(super) fn send(
        &mut self,
        correlation: usize,
        observation: &Observation,
        incident: &AlertContext<'_>,
    ) {
        let Some(of) = self.blank.definition(correlation) else { return };
        let group = Digest::of(&observation.key);
        let bytes = |values: &[Box<[u8]>]| values.iter().map(|value| BASE64.encode(value)).collect();
        let body = Body::Match(Box::new(MatchMessage {
            rule: observation.source,
            time: observation.time,
            id: BASE64.encode(observation.id),
            key: bytes(&observation.key),
            values: bytes(&observation.values),
            event: String::from_utf8_lossy(&incident.redacted_head()).into_owned(),
            hash: BASE64.encode(incident.hash()),
            registry: incident.exposure().clone(),
        }));
        self.put(correlation, of, group, observation.time, body, false);
    }

    fn put(
        &mut self,
        correlation: usize,
        of: Digest,
        group: Digest,
        time: i64,
        body: Body,
        is_close_marker: bool,
    ) {
        let message = Message {
            v: VERSION,
            of: BASE64.encode(of.0),
            correlation: self.names.get(correlation).cloned().unwrap_or_default(),
            body,
        };
        // Serialization only fails for maps with keys that are not strings, of which there are none.
        let value = serde_json::to_vec(&message).unwrap_or_default();
        let key = BASE64.encode(Digest::of(&[of.0, group.0]).0);
        self.outbox.push(Outgoing { key, time, value, is_close_marker });
    }

    /// The messages to send, collected since the last call.
    pub fn take_outbox(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }

    /// Decodes a message; none if it is malformed.
    pub(super) fn read(&mut self, message: &[u8]) -> Option<DecodedMessage> {
        let message: Message =
            serde_json::from_slice(message).ok().filter(|one: &Message| one.v == VERSION)?;
        let Some(correlation) = self.blank.defined(Digest(array(&message.of)?)) else {
            self.foreign += 1;
            return Some(DecodedMessage::ForeignRuleSet);
        };
        let marker =
            |group: &str, what| Some(WindowMarker { correlation, group: Digest(array(group)?), what });
        Some(match message.body {
            Body::Match(one) => {
                let bytes = |values: &[String]| -> Option<Vec<Box<[u8]>>> {
                    values.iter().map(|value| Some(BASE64.decode(value).ok()?.into())).collect()
                };
                let note = self.blank.is_tumbling(correlation).then(|| one.event.as_bytes().into());
                let observation = Observation {
                    source: one.rule,
                    time: one.time,
                    id: array(&one.id)?,
                    key: bytes(&one.key)?,
                    values: bytes(&one.values)?,
                    note,
                };
                DecodedMessage::Match(Box::new(RemoteMatch {
                    correlation,
                    observation,
                    event: one.event.into_bytes(),
                    hash: array(&one.hash)?,
                    exposure: Rc::new(one.registry),
                }))
            }
            Body::Fired { group, first, last, at } => DecodedMessage::Marker(
                marker(&group, WindowOutcome::Fired(first, last.max(first)))?,
                Some(at),
            ),
            Body::Closed { group, until } => {
                DecodedMessage::Marker(marker(&group, WindowOutcome::Closed(until))?, None)
            }
        })
    }

    /// Whether everything before an offset has been taken into account.
    pub fn is_ready(&self, partition: i32, offset: i64) -> bool {
        self.assigned.get(&partition).is_some_and(|owned| !owned.offset_is_tentative || owned.next == offset)
    }

    /// Takes over a partition from an offset on, without correlation groups.
    pub fn assign(&mut self, partition: i32, next: i64) {
        self.revoke(partition);
        let owned = Partition {
            correlator: self.blank.clone(),
            next,
            offset_is_tentative: true,
            last_message: self.now,
        };
        self.assigned.insert(partition, owned);
    }

    /// Removes a partition that was revoked.
    pub fn revoke(&mut self, partition: i32) {
        if let Some(owned) = self.assigned.remove(&partition) {
            add(&mut self.revoked_stats, &owned.correlator.stats());
        }
    }

    /// The assigned partitions.
    pub fn partitions(&self) -> Vec<i32> {
        self.assigned.keys().copied().collect()
    }

    /// Records that a message was read, whatever it contains.
    pub(super) fn mark_read(&mut self, partition: i32, offset: i64) {
        if let Some(owned) = self.assigned.get_mut(&partition) {
            owned.next = offset.saturating_add(1);
            owned.offset_is_tentative = false;
            owned.last_message = self.now;
        }
    }

    /// Restores state from a message that an earlier owner wrote or evaluated.
    pub fn replay(&mut self, partition: i32, offset: i64, message: &[u8], until: ReplayEnd) {
        let received = self.read(message);
        let Some(owned) = self.assigned.get_mut(&partition) else { return };
        match received {
            Some(DecodedMessage::Match(remote)) if offset < until.offset => {
                owned.correlator.replay(remote.correlation, &remote.observation);
            }
            Some(DecodedMessage::Marker(marker, at))
                if until.is_final || at.is_none_or(|at| at < until.offset) =>
            {
                owned.correlator.apply_marker(&marker);
            }
            _ => {}
        }
    }

    /// Observes a match; returns the window that it completed.
    pub(super) fn observe(
        &mut self,
        partition: i32,
        offset: i64,
        correlation: usize,
        observation: &Observation,
    ) -> Option<Fired> {
        let fired = self.assigned.get_mut(&partition)?.correlator.observe(correlation, observation);
        self.take_markers(partition, offset);
        fired
    }

    /// Closes the tumbling windows of a partition that ended before a time.
    pub(super) fn advance(&mut self, partition: i32, time: i64) -> Vec<Fired> {
        let closed = self.assigned.get_mut(&partition).map(|owned| owned.correlator.advance(time));
        self.take_markers(partition, i64::MAX);
        closed.unwrap_or_default()
    }

    /// The assigned partitions without new messages; their event time follows the clock.
    pub(super) fn idle_partitions(&self) -> Vec<i32> {
        let is_idle = |partition: &Partition| self.now.saturating_sub(partition.last_message) >= IDLE_TIMEOUT;
        self.assigned
            .iter()
            .filter(|(_, partition)| is_idle(partition))
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn take_markers(&mut self, partition: i32, at: i64) {
        let markers = self.assigned.get_mut(&partition).map(|owned| owned.correlator.take_markers());
        for marker in markers.unwrap_or_default() {
            let Some(of) = self.blank.definition(marker.correlation) else { continue };
            let group = BASE64.encode(marker.group.0);
            let (time, body, is_close_marker) = match marker.what {
                WindowOutcome::Fired(first, last) => (last, Body::Fired { group, first, last, at }, false),
                WindowOutcome::Closed(until) => (until, Body::Closed { group, until }, true),
            };
            self.put(marker.correlation, of, marker.group, time, body, is_close_marker);
        }
    }

    /// The maximum time before a match, in nanoseconds, at which other matches can affect it.
    pub fn lookback(&self) -> i64 {
        self.blank.lookback()
    }

    /// Counts of all partitions so far.
    pub(super) fn stats(&self) -> correlate::CorrelationStats {
        let mut all = self.revoked_stats;
        self.assigned.values().for_each(|owned| add(&mut all, &owned.correlator.stats()));
        all
    }

    /// Number of messages that belonged to other rule sets.
    pub(super) fn foreign(&self) -> u64 {
        self.foreign
    }
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn add(all: &mut correlate::CorrelationStats, one: &correlate::CorrelationStats) {
    all.observed += one.observed;
    all.fired += one.fired;
    all.late += one.late;
    all.too_late += one.too_late;
    all.repeated += one.repeated;
    all.dropped += one.dropped;
    all.evicted_groups += one.evicted_groups;
    all.evicted_advanced_groups += one.evicted_advanced_groups;
}
