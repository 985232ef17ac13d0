//! The detector: bytes of audit logs in, alerts out.
//!
//! It ties the rooms of the library together and keeps count of what it saw. A [`Detector`] is made once and
//! shared. A [`Session`] gets buffers that are cut at record boundaries and judges what is in them: a line an event as
//! the apiserver writes it, an `EventList`, an array, events that are spread over several lines, and whatever else a
//! file may hold.
//!
//! Most events can be judged in any order. Some cannot: they teach which secrets are credentials, or are judged by what
//! others taught. So a session has two halves. A [`Scout`] reads everything, judges what stands for itself, and hands
//! on the few others; a [`Sequel`] judges those in their order. Several scouts may work on several threads in front of
//! one sequel ([`crate::cli`]'s `scan` does so), and the alerts are the same as from one session. The sequel also
//! has what looks at several matches: windows of correlations, and throttles.
//!
//! No record is dropped without being counted, and none can stop the rest.

mod ordered_pass;
mod parallel_pass;
pub mod repartition;
mod snapshot;
pub mod stats;

use crate::detection::alert::Priority;
use crate::detection::audit::buffer_scan::BufferScanner;
use crate::detection::audit::event::Event;
use crate::detection::correlate::{Correlator, Throttle};
use crate::detection::engine::alert::Alert;
use crate::detection::engine::evaluator::Judge;
use crate::detection::engine::plan::Plan;
use crate::detection::engine::prefilter::Prefilter;
use crate::detection::rules::Matching;
use crate::detection::rules::ast::{Correlation, RuleSet};

pub use ordered_pass::Sequel;
pub use parallel_pass::Scout;
pub use stats::{Counts, forgotten, malformed, truncated};

/// What a detector is asked to do beside matching rules.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether each rule that matches an event makes an alert, or only the first.
    pub matching: Matching,
    /// Rules less bad than this are left out.
    pub minimum: Priority,
    /// Events before this time (nanoseconds since 1970) are left out.
    pub since: Option<i64>,
    /// Events at or after this time are left out.
    pub until: Option<i64>,
    /// Of a longer line only so many bytes are judged.
    pub max_event_size: usize,
    /// The host's name, for alerts.
    pub hostname: String,
    /// Whether the input is in the order of time, a few seconds apart. Logs of several apiservers that are read one after
    /// the other tell of the same time again.
    pub is_in_time_order: bool,
    /// Whether matches that feed correlations are exchanged with others, and how.
    pub exchange: Option<repartition::Settings>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            matching: Matching::All,
            minimum: Priority::Debug,
            since: None,
            until: None,
            max_event_size: usize::MAX,
            hostname: String::new(),
            is_in_time_order: true,
            exchange: None,
        }
    }
}

/// A rule set, ready to judge.
#[derive(Debug)]
pub struct Detector {
    plan: Plan,
    prefilter: Option<Prefilter>,
    scanner: BufferScanner,
    options: Options,
    rule_names: Vec<String>,
    /// As they are before the first event.
    correlator: Correlator,
    throttle: Throttle,
    /// One partition's, where matches are exchanged, and the correlations.
    exchanged: Option<(Correlator, Vec<Correlation>)>,
}

impl Detector {
    /// Compiles the rules.
    pub fn new(rules: &RuleSet, options: Options) -> Self {
        let plan = Plan::new(rules, options.minimum);
        let has_range = options.since.is_some() || options.until.is_some();
        // To count the events in a range each one's time must be read.
        let prefilter = if has_range { None } else { Prefilter::new(&plan) };
        let names = rules.rules.iter().map(|rule| &rule.name);
        let names = names.chain(rules.correlations.iter().map(|correlation| &correlation.name));
        let correlations: Vec<_> = plan
            .correlations
            .iter()
            .filter_map(|planned| rules.correlations.get(planned.alert.index - rules.rules.len()).cloned())
            .collect();
        let mut correlator = if options.is_in_time_order {
            Correlator::new(&correlations)
        } else {
            Correlator::with_tolerance(&correlations, i64::MAX)
        };
        let name = |feed| rules.name_of(feed).unwrap_or_default().to_owned();
        correlator.name_feeds(&correlations, name);
        let exchanged = options.exchange.map(|exchange| {
            let mut correlator = Correlator::shared(exchange.partitions, &correlations, exchange.lateness);
            correlator.name_feeds(&correlations, name);
            (correlator, correlations)
        });
        Detector {
            rule_names: names.map(ToString::to_string).collect(),
            correlator,
            throttle: Throttle::new(&rules.rules),
            exchanged,
            scanner: BufferScanner::new(),
            plan,
            prefilter,
            options,
        }
    }

    /// Whether a rule asks for an event's position in the input: then one session must see all of it in order.
    pub fn needs_positions(&self) -> bool {
        self.plan.needs_positions
    }

    /// The names of all rules, and of all correlations behind them, by the index that alerts carry.
    pub fn rule_names(&self) -> &[String] {
        &self.rule_names
    }

    /// Judges everything, in order.
    pub fn session(&self) -> Session<'_> {
        Session { scout: self.scout(), sequel: self.sequel() }
    }

    /// Judges what stands for itself.
    pub fn scout(&self) -> Scout<'_> {
        Scout::new(self)
    }

    /// Judges what scouts hand on.
    pub fn sequel(&self) -> Sequel<'_> {
        Sequel::new(self)
    }

    fn judge(&self) -> Judge {
        Judge::new(self.options.matching == Matching::First)
    }

    fn is_outside_range(&self, event: &mut Event<'_>) -> bool {
        let Options { since, until, .. } = self.options;
        if since.is_none() && until.is_none() {
            return false;
        }
        // An event that does not say when it happened is kept: better one too many than one lost.
        event.time().is_some_and(|time| {
            since.is_some_and(|since| time < since) || until.is_some_and(|until| time >= until)
        })
    }
}

/// Judges records, one after the other.
#[derive(Debug)]
pub struct Session<'d> {
    scout: Scout<'d>,
    sequel: Sequel<'d>,
}

/// Takes alerts.
pub type OnAlert<'f> = &'f mut dyn FnMut(&Alert<'_>);

/// What a scout found.
#[derive(Debug)]
pub enum Found<'a, 'c> {
    /// A rule matched.
    Alert(&'a Alert<'a>),
    /// An event for the sequel.
    Later(&'a mut Event<'c>, Turn),
}

/// What the sequel has to know of an event beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its position in the input.
    position: u64,
    /// It is before the time asked for: it teaches, and nothing more.
    only_teaches: bool,
}

/// Takes what a scout finds.
pub type OnFound<'f, 'c> = &'f mut dyn FnMut(Found<'_, 'c>);

impl Session<'_> {
    /// Judges every record of a buffer that starts and ends at record boundaries, in whatever wrapper.
    pub fn chunk(&mut self, bytes: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.scout.unwrap(bytes);
        self.records(plain.as_deref().unwrap_or(bytes), on_alert);
    }

    /// Judges all events in one message of a queue: of any shape, over several lines, compressed as a whole.
    pub fn message(&mut self, message: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.scout.unwrap_message(message);
        self.records(plain.as_deref().unwrap_or(message), on_alert);
    }

    /// Judges an event whose line is longer than the limit by its first bytes.
    pub fn head(&mut self, head: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.scout.unwrap_head(head);
        let mut sight = self.sequel.sight();
        self.scout.head(plain.as_deref().unwrap_or(head), &mut |found| match found {
            Found::Alert(alert) => on_alert(alert),
            Found::Later(event, turn) => self.sequel.judge(&mut sight, event, turn, on_alert),
        });
    }

    /// Judges a match that another found, or we: a message of our partition, at this offset. All that matters to it has to be
    /// [known](repartition::Exchange::is_ready).
    pub fn meet(&mut self, partition: i32, offset: i64, message: &[u8], on_alert: OnAlert<'_>) {
        let counts = self.sequel.meet(partition, offset, message, on_alert);
        self.scout.add_counts(&counts);
    }

    /// What is exchanged with others, where something is.
    pub fn exchange(&mut self) -> Option<&mut repartition::Exchange> {
        self.sequel.together.exchange.as_mut()
    }

    /// The records of a buffer without what wraps them; nothing where nothing does. For who looks at events one by one.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.scout.unwrap(bytes)
    }

    fn records(&mut self, bytes: &[u8], on_alert: OnAlert<'_>) {
        let mut sight = self.sequel.sight();
        self.scout.chunk(bytes, &mut |found| match found {
            Found::Alert(alert) => on_alert(alert),
            Found::Later(event, turn) => self.sequel.judge(&mut sight, event, turn, on_alert),
        });
    }

    /// Judges what is still open at the end of all input.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) {
        let counts = self.sequel.finish(on_alert);
        self.scout.add_counts(&counts);
    }

    /// What was seen since the last call.
    pub fn take_counts(&mut self) -> Counts {
        self.scout.take_counts()
    }
}
