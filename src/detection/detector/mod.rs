//! The detector: takes bytes of audit logs, returns alerts.
//!
//! A [`Detector`] is a compiled rule set, made once and shared. A [`Session`] takes buffers that are cut at record boundaries and evaluates
//! every event in them: one per line as the apiserver writes it, an `EventList`, an array, or an event over several lines, in any known
//! wrapper. It does no I/O and reads no clock.
//!
//! Most events can be evaluated in any order. The others update the cluster state (which secrets are credentials, what pods reference) or
//! depend on it. So a session has two halves: a [`ParallelPass`] reads everything, evaluates what is independent and defers the rest; an
//! [`OrderedPass`] evaluates the deferred events in input order, and keeps throttles and the windows of correlations. Several parallel
//! passes may run on threads of their own in front of one ordered pass; the alerts are the same as from one session.
//!
//! Invariant: every record is evaluated or counted under a named reason ([`malformed`], [`truncated`]), and no record can stop the rest.

mod correlation;
mod non_events;
mod ordered_pass;
mod parallel_pass;
pub mod repartition;
mod screening;
mod snapshot;
pub mod stats;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tracking;

use std::sync::Arc;

use crate::detection::alert::Priority;
use crate::detection::audit::buffer_scan::BufferScanner;
use crate::detection::audit::envelope::{Columns, Format};
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::{Records, TimeSource, Unwrapped, last_time};
use crate::detection::audit::redact::RedactionKey;
use crate::detection::correlate::{Correlator, Throttle};
use crate::detection::engine::alert::Alert;
use crate::detection::engine::evaluator::{Evaluator, ignores_stage};
use crate::detection::engine::extract::InputContext;
use crate::detection::engine::plan::Plan;
use crate::detection::engine::prefilter::{Guards, Prefilter};
use crate::detection::networks::Networks;
use crate::detection::registry::{ClusterState, Inventory};
use crate::detection::rules::Matching;
use crate::detection::rules::ast::{Correlation, RuleSet};
use crate::detection::shorten::Limits;
use crate::text::name_patterns::NamePatterns;

pub use ordered_pass::OrderedPass;
pub use parallel_pass::ParallelPass;
pub use screening::{Screened, Screening};
pub use stats::{Stats, evicted, malformed, truncated};

/// Options of a detector, apart from its rules.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether every rule that matches an event emits an alert, or only the first.
    pub matching: Matching,
    /// Minimum rule priority; rules of lower priority are disabled.
    pub minimum: Priority,
    /// Events before this time (nanoseconds since 1970-01-01T00:00:00Z) emit no alerts, but update the cluster state.
    pub since: Option<i64>,
    /// Events at or after this time are treated likewise.
    pub until: Option<i64>,
    /// Maximum length of a record in bytes. Only the head of a longer one is evaluated.
    pub max_event_size: usize,
    /// The host name that alerts carry.
    pub hostname: String,
    /// Whether events arrive roughly in time order, within the allowed lateness. False for logs of several apiservers
    /// that are read one after the other and cover the same time.
    pub is_in_time_order: bool,
    /// How to share correlation groups with other replicas; none if this process has all groups.
    pub repartition: Option<repartition::Settings>,
    /// Key of the hashes of redacted values. Replicas that share groups need the same.
    pub redaction_key: RedactionKey,
    /// Static labels that all alerts carry, as names and values. The names must not be in
    /// [`RESERVED_MEMBERS`](crate::detection::alert::RESERVED_MEMBERS).
    pub labels: Vec<(String, String)>,
    /// Whether `output_fields` repeats the fields that every alert has at its top level, for receivers that drop members that they do
    /// not know. Otherwise `output_fields` holds what the rule's output names, as in the reference engine.
    pub repeats_fields: bool,
    /// Rules and correlations whose alerts contain the event that they are about, redacted, as a member `audit_event`.
    pub event_rules: NamePatterns,
    /// Limits of what alerts show.
    pub limits: Limits,
    /// The networks of the cluster.
    pub networks: Networks,
    /// What is declared of the cluster.
    pub inventory: Arc<Inventory>,
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
            repartition: None,
            redaction_key: RedactionKey::default(),
            labels: Vec::new(),
            repeats_fields: false,
            event_rules: NamePatterns::default(),
            limits: Limits::default(),
            networks: Networks::default(),
            inventory: Arc::default(),
        }
    }
}

/// A compiled rule set.
#[derive(Debug)]
pub struct Detector {
    plan: Plan,
    prefilter: Option<Prefilter>,
    guards: Guards,
    /// Whether no event of the stage RequestReceived has an outcome.
    ignores_received: bool,
    scanner: BufferScanner,
    options: Options,
    rule_names: Vec<String>,
    /// Copied into each session.
    correlator: Correlator,
    throttle: Throttle,
    /// The initial state of each session.
    initial_state: ClusterState,
    /// Set if matches are repartitioned: the correlator of one partition, which is copied, and the correlations.
    repartitioned: Option<(Correlator, Vec<Correlation>)>,
}

impl Detector {
    /// Compiles the rules.
    pub fn new(rules: &RuleSet, options: Options) -> Self {
        let mut plan = Plan::new(rules, options.minimum);
        plan.redaction_key = options.redaction_key.clone();
        plan.labels.clone_from(&options.labels);
        plan.repeats_fields = options.repeats_fields;
        plan.limits = options.limits;
        plan.include_events(&options.event_rules);
        let has_range = options.since.is_some() || options.until.is_some();
        // Counting the events of a time range requires the time of each, so the prefilter cannot skip lines.
        let prefilter = if has_range { None } else { Prefilter::new(&plan) };
        let ignores_received = !has_range && ignores_stage(&plan, InputContext::default(), "RequestReceived");
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
            Correlator::with_allowed_lateness(&correlations, i64::MAX)
        };
        let name = |feed| rules.name_of(feed).unwrap_or_default().to_owned();
        correlator.name_feeds(&correlations, name);
        let repartitioned = options.repartition.map(|repartition| {
            let mut correlator = Correlator::for_partition(
                repartition.partitions,
                &correlations,
                repartition.allowed_lateness,
            );
            correlator.name_feeds(&correlations, name);
            (correlator, correlations)
        });
        Detector {
            rule_names: names.map(ToString::to_string).collect(),
            correlator,
            throttle: Throttle::new(rules),
            repartitioned,
            initial_state: ClusterState::default(),
            scanner: BufferScanner::new(),
            guards: Guards::new(&plan),
            plan,
            prefilter,
            ignores_received,
            options,
        }
    }

    /// Starts each session from earlier learned state.
    #[must_use]
    pub fn starting_from(mut self, state: ClusterState) -> Self {
        self.initial_state = state;
        self
    }

    /// Whether a rule reads an event's position in the input, which requires that one session sees all input in order.
    pub fn needs_positions(&self) -> bool {
        self.plan.needs_positions
    }

    /// The names of all rules, followed by those of all correlations, by the index that alerts carry.
    pub fn rule_names(&self) -> &[String] {
        &self.rule_names
    }

    /// Starts a session that evaluates everything in input order.
    pub fn session(&self) -> Session<'_> {
        Session {
            parallel: self.parallel_pass(),
            ordered: self.ordered_pass(),
            log: Arc::default(),
            input: None,
        }
    }

    /// Starts a pass over events that are independent of each other.
    pub fn parallel_pass(&self) -> ParallelPass<'_> {
        ParallelPass::new(self)
    }

    /// Starts a pass over deferred events.
    pub fn ordered_pass(&self) -> OrderedPass<'_> {
        OrderedPass::new(self)
    }

    /// Metadata of the event at this position that is not in its text.
    fn input(&self, position: u64) -> InputContext<'_> {
        let Options { hostname, networks, .. } = &self.options;
        InputContext { position, hostname, networks: Some(networks) }
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator::new(self.options.matching == Matching::First)
    }

    fn is_outside_range(&self, event: &mut Event<'_>) -> bool {
        let Options { since, until, .. } = self.options;
        if since.is_none() && until.is_none() {
            return false;
        }
        // An event without a time is kept, so that omitting the time does not evade detection.
        event.time().is_some_and(|time| {
            since.is_some_and(|since| time < since) || until.is_some_and(|until| time >= until)
        })
    }
}

/// Evaluates records in input order.
#[derive(Debug)]
pub struct Session<'d> {
    parallel: ParallelPass<'d>,
    ordered: OrderedPass<'d>,
    log: Arc<LogContext>,
    input: Option<usize>,
}

/// Metadata of the log that records come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogContext {
    /// The name of the cluster, for events whose wrapper does not name it.
    pub cluster: Option<String>,
    /// The wrapper that events must be in.
    pub format: Format,
}

impl LogContext {
    /// The name of the cluster.
    pub fn cluster(&self) -> Option<&[u8]> {
        self.cluster.as_deref().map(str::as_bytes)
    }
}

/// Receives alerts.
pub type OnAlert<'f> = &'f mut dyn FnMut(&Alert<'_>);

/// The output of a parallel pass.
#[derive(Debug)]
pub enum Output<'a, 'c> {
    /// An independent event matched a rule.
    Alert(&'a Alert<'a>),
    /// An event that the ordered pass has to evaluate.
    Deferred(&'a mut Event<'c>, DeferredEvent),
}

/// What the ordered pass needs to know of a deferred event beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredEvent {
    /// Number of the event in the input, from 1.
    position: u64,
    /// The event lies outside the requested time range: it updates the cluster state and emits no alert.
    updates_state_only: bool,
    /// The event does not depend on others, and does not affect them: it is only deferred so that its alerts are emitted in order.
    is_independent: bool,
    /// A time for an event without one, from the event before it.
    time: Option<(i64, TimeSource)>,
}

/// Receives the output of a parallel pass.
pub type OnOutput<'f, 'c> = &'f mut dyn FnMut(Output<'_, 'c>);

impl Session<'_> {
    /// Sets the log that the next records come from.
    pub fn set_log(&mut self, log: &Arc<LogContext>) {
        if !Arc::ptr_eq(&self.log, log) {
            self.log = log.clone();
            self.parallel.set_log(log);
            self.ordered.begin_log();
        }
    }

    /// Selects the input that the next buffers come from. If it differs from the previous one, the next event starts a new log. `received`
    /// is the modification time of the input.
    ///
    /// `columns` are the column names of a comma-separated input with a header.
    pub fn begin_input(&mut self, input: usize, received: Option<i64>, columns: Option<&Arc<Columns>>) {
        self.parallel.set_columns(columns);
        if self.input != Some(input) {
            self.input = Some(input);
            self.ordered.begin_log();
            self.ordered.set_received(received);
        }
    }

    /// Evaluates every record of a buffer that starts and ends at record boundaries, with or without a wrapper.
    pub fn chunk(&mut self, bytes: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.parallel.unwrap(bytes);
        self.records(Records::new(plain.as_ref(), bytes), on_alert);
    }

    /// Evaluates all events of one queue message, which may have any form, span several lines or be compressed as a whole.
    pub fn message(&mut self, message: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.parallel.unwrap_message(message);
        self.records(Records::new(plain.as_ref(), message), on_alert);
    }

    /// Evaluates an event from the first bytes of its record, which exceeds the limit.
    pub fn head(&mut self, head: &[u8], on_alert: OnAlert<'_>) {
        let plain = self.parallel.unwrap_head(head);
        let log = self.log.clone();
        let records = Records::new(plain.as_ref(), head).with_cluster(log.cluster());
        let mut cache = self.ordered.cache();
        self.parallel.head(records, &mut |found| match found {
            Output::Alert(alert) => on_alert(alert),
            Output::Deferred(event, deferred) => self.ordered.evaluate(&mut cache, event, deferred, on_alert),
        });
    }

    /// Takes in a message of an assigned partition: a match found by this or another replica. The partition's state up to this offset must
    /// be [complete](repartition::Repartition::is_ready).
    pub fn on_remote_match(&mut self, partition: i32, offset: i64, message: &[u8], on_alert: OnAlert<'_>) {
        let stats = self.ordered.on_remote_match(partition, offset, message, on_alert);
        self.parallel.add_stats(&stats);
    }

    /// The repartitioned correlation state, if [`Options::repartition`] is set.
    pub fn repartition(&mut self) -> Option<&mut repartition::Repartition> {
        self.ordered.correlation.repartition.as_mut()
    }

    /// Unwraps the records of a buffer; none if they have no wrapper. For callers that examine single events.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Unwrapped> {
        self.parallel.unwrap(bytes)
    }

    /// Evaluates records that are no longer wrapped.
    pub fn records(&mut self, records: Records<'_>, on_alert: OnAlert<'_>) {
        let log = self.log.clone();
        let records = records.with_cluster(log.cluster());
        let mut cache = self.ordered.cache();
        self.parallel.chunk(records, &mut |found| match found {
            Output::Alert(alert) => on_alert(alert),
            Output::Deferred(event, deferred) => self.ordered.evaluate(&mut cache, event, deferred, on_alert),
        });
        self.ordered.set_previous_time(last_time(records.bytes));
    }

    /// Emits pending alerts at the end of all input.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) {
        let stats = self.ordered.finish(on_alert);
        self.parallel.add_stats(&stats);
    }

    /// The counts since the last call.
    pub fn take_stats(&mut self) -> Stats {
        self.parallel.take_stats()
    }
}
