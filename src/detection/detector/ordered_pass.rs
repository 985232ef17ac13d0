//! The ordered pass: evaluates, in input order, the events whose outcome depends on earlier ones.
//!
//! It takes the events that a parallel pass deferred, keeps the cluster state that they update, and hands alerts to a callback. Throttles
//! and correlations, which depend on several matches, are in [`super::correlation`].

use std::collections::BTreeMap;

use super::correlation::{AlertEmitter, CorrelationState};
use super::repartition::Repartition;
use super::stats::{Stats, evicted};
use super::tracking::Tracking;
use super::{DeferredEvent, Detector, OnAlert};
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::TimeSource;
use crate::detection::engine::evaluator::{EvalCache, EvalContext, Evaluator};
use crate::detection::registry::{self, ClusterState};

/// Evaluates deferred events in input order.
#[derive(Debug)]
pub struct OrderedPass<'d> {
    pub(super) detector: &'d Detector,
    evaluator: Evaluator,
    pub(super) cluster_state: ClusterState,
    pub(super) correlation: CorrelationState,
    pub(super) tracking: Tracking,
    matches: Vec<usize>,
    /// The time of the last event of the log before the current records.
    previous_time: Option<i64>,
    /// When the current records were received.
    pub(super) received: Option<i64>,
}

impl<'d> OrderedPass<'d> {
    pub(super) fn new(detector: &'d Detector) -> Self {
        let mut cluster_state = detector.initial_state.clone();
        cluster_state.set_inventory(detector.options.inventory.clone());
        OrderedPass {
            detector,
            evaluator: detector.evaluator(),
            cluster_state,
            correlation: CorrelationState::new(detector),
            tracking: Tracking::default(),
            matches: Vec::new(),
            previous_time: None,
            received: None,
        }
    }

    /// Starts another log, whose first event has no preceding event.
    pub fn begin_log(&mut self) {
        self.previous_time = None;
    }

    /// Sets when the next records were received, in nanoseconds since 1970-01-01T00:00:00Z. This time is used for events without a better
    /// one.
    pub fn set_received(&mut self, time: Option<i64>) {
        self.received = time;
    }

    /// Sets the time of the last event of records that were read, if they have one.
    pub fn set_previous_time(&mut self, time: Option<i64>) {
        self.previous_time = time.or(self.previous_time);
    }

    fn emitter<'p>(&'p mut self, on_alert: OnAlert<'p>) -> AlertEmitter<'p, 'd> {
        AlertEmitter { detector: self.detector, state: &mut self.correlation, on_alert }
    }

    /// A cache of evaluated values for the events of one buffer.
    pub(crate) fn cache<'c>(&self) -> EvalCache<'c> {
        EvalCache::new(&self.detector.plan)
    }

    /// Evaluates an event, emits its alerts and updates the cluster state with it.
    pub(crate) fn evaluate<'c>(
        &mut self,
        cache: &mut EvalCache<'c>,
        event: &mut Event<'c>,
        deferred: DeferredEvent,
        on_alert: OnAlert<'_>,
    ) {
        cache.next_event();
        self.matches.clear();
        event.set_time(deferred.time);
        if event.time().is_none() {
            let previous = self.previous_time.map(|time| (time, TimeSource::PreviousEvent));
            event.set_time(previous.or(self.received.map(|time| (time, TimeSource::Receipt))));
        }
        let input = self.detector.input(deferred.position);
        let plan = &self.detector.plan;
        let mut eval = EvalContext { plan, cache, event, input, cluster_state: None, window: None };
        let residual = self.evaluator.residual_rules(&mut eval);
        let concerns = residual.order_dependency.applies_to(eval.event);
        if concerns {
            eval.cluster_state = Some(&mut self.cluster_state);
            // The cluster state is updated even if no rule reads a `registry.*` field of this event.
            eval.exposure();
        }
        if !deferred.updates_state_only {
            residual.evaluate(&mut eval, &self.detector.guards, &mut self.matches);
            if !self.matches.is_empty() {
                let state = &mut self.correlation;
                let mut emitter = AlertEmitter { detector: self.detector, state, on_alert };
                if deferred.is_independent {
                    emitter.emit_independent(&mut eval, &self.matches);
                } else {
                    emitter.emit_matches(&mut eval, &self.matches);
                }
            }
        }
        if concerns {
            let request = eval.request();
            registry::learn_after_evaluation(event, &request, &mut self.cluster_state);
        }
    }

    /// Takes in a message of an assigned partition. Returns the counts.
    pub(super) fn on_remote_match(
        &mut self,
        partition: i32,
        offset: i64,
        message: &[u8],
        on_alert: OnAlert<'_>,
    ) -> Stats {
        self.emitter(on_alert).on_remote_match(partition, offset, message)
    }

    /// Closes all windows at the end of all input, and returns the counts of evictions and throttled alerts.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) -> Stats {
        self.emitter(on_alert).finish();
        let mut stats = Stats { evicted: self.evicted(), ..Stats::default() };
        for throttled in self.correlation.throttle.finish() {
            *stats.throttled.entry(throttled.rule).or_default() += throttled.count;
        }
        stats
    }

    /// Moves event time forward in the absence of events: closes the windows that ended before it, and counts throttled alerts that no
    /// later alert will mention. For callers that wait for more input.
    pub(super) fn advance(&mut self, time: i64, on_alert: OnAlert<'_>) -> Stats {
        let mut emitter = self.emitter(on_alert);
        emitter.advance(time);
        emitter.advance_idle_partitions(time);
        let mut stats = Stats::default();
        for throttled in self.correlation.throttle.due(time) {
            *stats.throttled.entry(throttled.rule).or_default() += throttled.count;
        }
        stats
    }

    /// Removes windows and throttles that cannot affect events at this time or later, so that they need not be stored.
    /// Its cost is linear in the number of groups.
    pub(super) fn expire(&mut self, before: i64) {
        self.correlation.correlator.expire(before);
        self.correlation.throttle.expire(before);
    }

    /// How many entries were evicted or dropped so far, by kind ([`evicted`]).
    pub(super) fn evicted(&self) -> BTreeMap<&'static str, u64> {
        let CorrelationState { correlator, throttle, repartition, .. } = &self.correlation;
        let lost = repartition.as_ref().map_or_else(|| correlator.stats(), Repartition::stats);
        [
            (evicted::CLUSTER_STATE, self.cluster_state.evicted()),
            (evicted::CREDENTIALS, self.cluster_state.evicted_credentials()),
            (evicted::READERS, self.cluster_state.readers().evicted()),
            (evicted::GROUPS, lost.evicted_groups),
            (evicted::ADVANCED_GROUPS, lost.evicted_advanced_groups),
            (evicted::OBSERVATIONS, lost.dropped),
            (evicted::LATE, lost.too_late),
            (evicted::THROTTLES, throttle.evicted()),
            (evicted::STATE, self.tracking.rejected()),
            (evicted::FOREIGN_RULE_SET, repartition.as_ref().map_or(0, Repartition::foreign)),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
    }

    pub(super) fn cluster_state(&self) -> &ClusterState {
        &self.cluster_state
    }
}
