//! Matches that are judged together by whoever has their group: one process of several, each of which reads a part of all
//! events.
//!
//! ```text
//! events ──► matches that feed a correlation ──► outbox ┄┄┄ some queue, by group ┄┄┄► meet ──► alerts
//! ```
//!
//! A sequel with an exchange feeds its own correlations nothing. It writes down what it would have observed, as a message that
//! says all the correlation's alert will need of the event: what every alert says of it, what it exposed, its hash. The
//! queue has partitions, each with groups of its own, and each partition one reader at a time. What the reader met
//! before in a partition, or another before it, is recalled from the same queue, with what was told of it.
//!
//! A message is JSON with its version, and what it says is trusted no more than an event: whoever may write to the queue
//! may be anybody.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::detection::correlate::{self, Correlator, Digest, Fired, Mark, Observation, Told};
use crate::detection::engine::alert_context::Incident;
use crate::detection::registry::Exposure;
use crate::detection::rules::ast::Correlation;

/// How matches are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many partitions there are: they share the bounds.
    pub partitions: usize,
    /// How much later than others a match may come, in nanoseconds of the time of events: as far as one of us may be behind
    /// another.
    pub lateness: i64,
}

/// A message for the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Messages of one key have to stay in order, in one partition.
    pub key: String,
    /// When it happened, in nanoseconds since 1970.
    pub time: i64,
    /// What it says.
    pub value: Vec<u8>,
    /// It says that a window was judged, whose alert has to be delivered before anybody relies on that.
    pub is_receipt: bool,
}

/// What messages before an offset are recalled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// Matches before this offset were judged.
    pub offset: i64,
    /// What was told of later ones is told for good.
    pub is_final: bool,
}

/// The version of the messages.
const VERSION: u8 = 1;

/// A partition that was quiet for so long has no more to come: its windows close by the clock. In nanoseconds.
const QUIET: i64 = 60_000_000_000;

#[derive(Serialize, Deserialize)]
struct Message {
    v: u8,
    /// Which correlation: the hash of its definition.
    of: String,
    /// What it is called, for people.
    correlation: String,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    /// A match.
    Match(Box<Match>),
    /// A window fired, from its first match to its last, at this offset.
    Fired { group: String, first: i64, last: i64, at: i64 },
    /// A window was judged at its end.
    Closed { group: String, until: i64 },
}

/// Bytes are base64.
#[derive(Serialize, Deserialize)]
struct Match {
    rule: usize,
    time: i64,
    id: String,
    key: Vec<String>,
    values: Vec<String>,
    /// What every alert says of the event.
    event: String,
    hash: String,
    #[serde(default, skip_serializing_if = "is_nothing")]
    registry: Exposure,
}

fn is_nothing(exposure: &Exposure) -> bool {
    *exposure == Exposure::default()
}

/// A match that came, and what an alert can say of its event.
#[derive(Debug)]
pub struct Met {
    /// Index of the correlation.
    pub correlation: usize,
    /// What it observes.
    pub observation: Observation,
    /// The head of the event, as an event of its own.
    pub event: Vec<u8>,
    /// The hash of its content.
    pub hash: [u8; 32],
    /// What it exposed.
    pub exposure: Rc<Exposure>,
}

/// What a message says.
pub enum Came {
    /// A match.
    Match(Box<Met>),
    /// What came of a window, and at which offset where that is known.
    Told(Mark, Option<i64>),
    /// It is of other rules.
    Strange,
}

/// The groups of one partition.
#[derive(Debug)]
struct Windows {
    correlator: Correlator,
    /// The next message.
    next: i64,
    /// Whether that is what somebody else said.
    is_fresh: bool,
    /// When a message came last, by the clock.
    heard: i64,
}

/// What is exchanged, and the partitions that are ours.
#[derive(Debug)]
pub struct Exchange {
    /// One with no groups.
    blank: Correlator,
    names: Vec<String>,
    windows: BTreeMap<i32, Windows>,
    outbox: Vec<Outgoing>,
    now: i64,
    /// What those saw that are no longer ours.
    gone: correlate::Counts,
    strange: u64,
}

impl Exchange {
    /// For these correlations. `blank` is one for one partition.
    pub fn new(blank: Correlator, correlations: &[Correlation]) -> Self {
        Exchange {
            blank,
            names: correlations.iter().map(|one| one.name.to_string()).collect(),
            windows: BTreeMap::new(),
            outbox: Vec::new(),
            now: 0,
            gone: correlate::Counts::default(),
            strange: 0,
        }
    }

    /// Says what time it is.
    pub fn set_now(&mut self, now: i64) {
        self.now = now;
    }

    /// Writes a match down.
    pub fn send(&mut self, correlation: usize, observation: &Observation, incident: &Incident<'_>) {
        let Some(of) = self.blank.definition(correlation) else { return };
        let group = Digest::of(&observation.key);
        let bytes = |values: &[Box<[u8]>]| values.iter().map(|value| BASE64.encode(value)).collect();
        let body = Body::Match(Box::new(Match {
            rule: observation.source,
            time: observation.time,
            id: BASE64.encode(observation.id),
            key: bytes(&observation.key),
            values: bytes(&observation.values),
            event: String::from_utf8_lossy(&incident.note()).into_owned(),
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
        is_receipt: bool,
    ) {
        let message = Message {
            v: VERSION,
            of: BASE64.encode(of.0),
            correlation: self.names.get(correlation).cloned().unwrap_or_default(),
            body,
        };
        // There is no map in it, which is all that can fail.
        let value = serde_json::to_vec(&message).unwrap_or_default();
        let key = BASE64.encode(Digest::of(&[of.0, group.0]).0);
        self.outbox.push(Outgoing { key, time, value, is_receipt });
    }

    /// What is to be sent since the last call.
    pub fn take_outbox(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }

    /// What a message says; nothing where it makes no sense.
    pub fn read(&mut self, message: &[u8]) -> Option<Came> {
        let message: Message =
            serde_json::from_slice(message).ok().filter(|one: &Message| one.v == VERSION)?;
        let Some(correlation) = self.blank.defined(Digest(array(&message.of)?)) else {
            self.strange += 1;
            return Some(Came::Strange);
        };
        let mark = |group: &str, what| Some(Mark { correlation, group: Digest(array(group)?), what });
        Some(match message.body {
            Body::Match(one) => {
                let bytes = |values: &[String]| -> Option<Vec<Box<[u8]>>> {
                    values.iter().map(|value| Some(BASE64.decode(value).ok()?.into())).collect()
                };
                let note = self.blank.is_judged_at_close(correlation).then(|| one.event.as_bytes().into());
                let observation = Observation {
                    source: one.rule,
                    time: one.time,
                    id: array(&one.id)?,
                    key: bytes(&one.key)?,
                    values: bytes(&one.values)?,
                    note,
                };
                Came::Match(Box::new(Met {
                    correlation,
                    observation,
                    event: one.event.into_bytes(),
                    hash: array(&one.hash)?,
                    exposure: Rc::new(one.registry),
                }))
            }
            Body::Fired { group, first, last, at } => {
                Came::Told(mark(&group, Told::Fired(first, last.max(first)))?, Some(at))
            }
            Body::Closed { group, until } => Came::Told(mark(&group, Told::Closed(until))?, None),
        })
    }

    /// Whether all that matters to the message at an offset is known.
    pub fn is_ready(&self, partition: i32, offset: i64) -> bool {
        self.windows.get(&partition).is_some_and(|windows| !windows.is_fresh || windows.next == offset)
    }

    /// A partition is ours from an offset on; nothing of it is known.
    pub fn take_over(&mut self, partition: i32, next: i64) {
        self.let_go(partition);
        let windows = Windows { correlator: self.blank.clone(), next, is_fresh: true, heard: self.now };
        self.windows.insert(partition, windows);
    }

    /// A partition is no longer ours.
    pub fn let_go(&mut self, partition: i32) {
        if let Some(windows) = self.windows.remove(&partition) {
            add(&mut self.gone, &windows.correlator.counts());
        }
    }

    /// The partitions that are ours.
    pub fn partitions(&self) -> Vec<i32> {
        self.windows.keys().copied().collect()
    }

    /// A message was read, whatever is in it.
    pub fn passed(&mut self, partition: i32, offset: i64) {
        if let Some(windows) = self.windows.get_mut(&partition) {
            windows.next = offset.saturating_add(1);
            windows.is_fresh = false;
            windows.heard = self.now;
        }
    }

    /// Takes in what was judged.
    pub fn recall(&mut self, partition: i32, offset: i64, message: &[u8], until: Until) {
        let came = self.read(message);
        let Some(windows) = self.windows.get_mut(&partition) else { return };
        match came {
            Some(Came::Match(met)) if offset < until.offset => {
                windows.correlator.recall(met.correlation, &met.observation);
            }
            Some(Came::Told(mark, at)) if until.is_final || at.is_none_or(|at| at < until.offset) => {
                windows.correlator.tell(&mark);
            }
            _ => {}
        }
    }

    /// Takes a match in, and says whether it completed a window.
    pub fn observe(
        &mut self,
        partition: i32,
        offset: i64,
        correlation: usize,
        observation: &Observation,
    ) -> Option<Fired> {
        let fired = self.windows.get_mut(&partition)?.correlator.observe(correlation, observation);
        self.take_marks(partition, offset);
        fired
    }

    /// Closes windows of a partition.
    pub fn advance(&mut self, partition: i32, time: i64) -> Vec<Fired> {
        let closed = self.windows.get_mut(&partition).map(|windows| windows.correlator.advance(time));
        self.take_marks(partition, i64::MAX);
        closed.unwrap_or_default()
    }

    /// The partitions where nothing more comes: there it is as late as the clock says.
    pub fn quiet(&self) -> Vec<i32> {
        let is_quiet = |windows: &Windows| self.now.saturating_sub(windows.heard) >= QUIET;
        self.windows
            .iter()
            .filter(|(_, windows)| is_quiet(windows))
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn take_marks(&mut self, partition: i32, at: i64) {
        let marks = self.windows.get_mut(&partition).map(|windows| windows.correlator.take_marks());
        for mark in marks.unwrap_or_default() {
            let Some(of) = self.blank.definition(mark.correlation) else { continue };
            let group = BASE64.encode(mark.group.0);
            let (time, body, is_receipt) = match mark.what {
                Told::Fired(first, last) => (last, Body::Fired { group, first, last, at }, false),
                Told::Closed(until) => (until, Body::Closed { group, until }, true),
            };
            self.put(mark.correlation, of, mark.group, time, body, is_receipt);
        }
    }

    /// How far before a match others can lie that matter, in nanoseconds.
    pub fn reach(&self) -> i64 {
        self.blank.reach()
    }

    /// What was seen and lost so far.
    pub fn counts(&self) -> correlate::Counts {
        let mut all = self.gone;
        self.windows.values().for_each(|windows| add(&mut all, &windows.correlator.counts()));
        all
    }

    /// How many messages were of other rules.
    pub fn strange(&self) -> u64 {
        self.strange
    }
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn add(all: &mut correlate::Counts, one: &correlate::Counts) {
    all.observed += one.observed;
    all.fired += one.fired;
    all.late += one.late;
    all.too_late += one.too_late;
    all.repeated += one.repeated;
    all.dropped += one.dropped;
    all.evicted_groups += one.evicted_groups;
}
