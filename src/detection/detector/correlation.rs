//! What the ordered pass emits: throttled alerts of rules, and alerts of correlations over several matches.
//!
//! It takes an event with the rules that it matched, or a match that another replica found, and hands alerts to a
//! callback. Matches go through the throttle of their rule and into the windows of the correlations that the rule
//! feeds; the alert of a correlation may feed further correlations. With repartitioning, matches are sent away instead
//! and come back through [`AlertEmitter::on_remote_match`].

use std::collections::VecDeque;
use std::rc::Rc;

use super::repartition::{DecodedMessage, RemoteMatch, Repartition};
use super::stats::{Stats, malformed};
use super::{Detector, OnAlert};
use crate::detection::alert::push_hex;
use crate::detection::audit::event::Event;
use crate::detection::audit::redact::ShowList;
use crate::detection::audit::time::ReferenceClock;
use crate::detection::correlate::{Correlator, Decision, Fired, Observation, Throttle};
use crate::detection::engine::alert::Alert;
use crate::detection::engine::alert_context::AlertContext;
use crate::detection::engine::evaluator::{EvalCache, EvalContext, WindowSummary};
use crate::detection::engine::extract::InputContext;
use crate::detection::engine::plan::{CorrelationPlan, FeedPlan, OperandId, RulePlan};
use crate::detection::engine::value::Value;

/// Everything that depends on several matches.
#[derive(Debug)]
pub(super) struct CorrelationState {
    pub correlator: Correlator,
    pub throttle: Throttle,
    /// Replaces `correlator` if matches are repartitioned among replicas.
    pub repartition: Option<Repartition>,
    /// Limits how far in the future an event's time may be.
    pub clock: ReferenceClock,
}

impl CorrelationState {
    pub fn new(detector: &Detector) -> Self {
        let repartition = detector
            .repartitioned
            .as_ref()
            .map(|(blank, correlations)| Repartition::new(blank.clone(), correlations));
        CorrelationState {
            correlator: detector.correlator.clone(),
            throttle: detector.throttle.clone(),
            repartition,
            clock: ReferenceClock::default(),
        }
    }

    /// The event's time, or the current time if the event claims to be too far in the future.
    fn time(&self, incident: &AlertContext<'_>) -> i64 {
        self.clock.clamp(incident.time())
    }
}

/// Emits the alerts of one step of the ordered pass.
pub(super) struct AlertEmitter<'p, 'd> {
    pub detector: &'d Detector,
    pub state: &'p mut CorrelationState,
    pub on_alert: OnAlert<'p>,
}

/// Observations to make: which correlation, and the id of the alert that feeds it.
type Pending = VecDeque<(FeedPlan, [u8; 16])>;

impl AlertEmitter<'_, '_> {
    fn input(&self) -> InputContext<'_> {
        self.detector.input(0)
    }

    /// Emits the alerts of all rules that an event matched, and of the correlations that these matches complete.
    pub fn emit_matches(&mut self, eval: &mut EvalContext<'_, '_, '_>, matches: &[usize]) {
        let incident = eval.alert_context();
        let time = self.state.time(&incident);
        let mut pending = Pending::new();
        for &matched in matches {
            let rule = &self.detector.plan.rules[matched];
            let decision = self.decide(rule, eval, time);
            // Correlations count matches of other rules, not the alerts emitted here.
            if rule.throttles_feeds && !matches!(decision, Decision::Emit { .. }) {
                continue;
            }
            let alert = Alert::new(rule, eval, &incident, &self.detector.options.hostname);
            if !rule.feeds.is_empty() {
                let id = alert.id_bytes();
                pending.extend(rule.feeds.iter().map(|feed| (*feed, id)));
            }
            if let Decision::Emit { throttled } = decision
                && !rule.correlation_only
            {
                (self.on_alert)(&alert.with_throttled(throttled));
            }
        }
        // Windows that ended before this event must not count it.
        self.advance(time);
        self.correlate(eval, &incident, pending);
    }

    /// Emits the alerts for an event that no other event depends on, of rules that have no throttle and feed no correlation. Does not move
    /// event time forward, nor does the parallel pass.
    pub fn emit_independent(&mut self, eval: &mut EvalContext<'_, '_, '_>, matches: &[usize]) {
        let incident = eval.alert_context();
        for &matched in matches {
            let rule = &self.detector.plan.rules[matched];
            (self.on_alert)(&Alert::new(rule, eval, &incident, &self.detector.options.hostname));
        }
    }

    /// Feeds matches to correlations, and the alerts of these to further correlations. The loader rejects cycles.
    fn correlate(
        &mut self,
        eval: &mut EvalContext<'_, '_, '_>,
        incident: &AlertContext<'_>,
        mut pending: Pending,
    ) {
        while let Some((feed, id)) = pending.pop_front() {
            let correlation = &self.detector.plan.correlations[feed.correlation];
            let values = correlation
                .field
                .map(|field| texts(eval.redacted(field, &correlation.alert.show).value()))
                .unwrap_or_default();
            let is_tumbling = self.state.correlator.is_tumbling(feed.correlation);
            let mut observation = Observation {
                source: feed.source,
                time: self.state.time(incident),
                id,
                key: key(eval, &correlation.group_by),
                values,
                note: None,
            };
            if let Some(repartition) = &mut self.state.repartition {
                repartition.send(feed.correlation, &observation, incident);
                continue;
            }
            observation.note = is_tumbling.then(|| incident.redacted_head().into());
            let Some(fired) = self.state.correlator.observe(feed.correlation, &observation) else { continue };
            eval.window = Some(Rc::new(window(correlation, &fired)));
            pending.extend(self.emit_correlation(correlation, eval, incident));
            eval.window = None;
        }
    }

    /// Emits the alert of a correlation, and returns the observations that it feeds.
    fn emit_correlation(
        &mut self,
        correlation: &CorrelationPlan,
        eval: &mut EvalContext<'_, '_, '_>,
        incident: &AlertContext<'_>,
    ) -> Pending {
        let time = self.state.time(incident);
        let decision = self.decide(&correlation.alert, eval, time);
        let alert = Alert::new(&correlation.alert, eval, incident, &self.detector.options.hostname);
        let id = alert.id_bytes();
        if let Decision::Emit { throttled } = decision
            && !correlation.alert.correlation_only
        {
            (self.on_alert)(&alert.with_throttled(throttled));
        }
        correlation.alert.feeds.iter().map(|feed| (*feed, id)).collect()
    }

    /// Decides whether the throttle of a rule or correlation lets an alert pass. A rule that makes no alerts has nothing to limit, unless
    /// its throttle limits what it feeds to correlations.
    fn decide(&mut self, rule: &RulePlan, eval: &mut EvalContext<'_, '_, '_>, time: i64) -> Decision {
        match &rule.throttle {
            Some(plan) if !rule.correlation_only || rule.throttles_feeds => {
                self.state.throttle.decide(rule.index, &key(eval, &plan.per), time)
            }
            _ => Decision::Emit { throttled: 0 },
        }
    }

    /// Takes in a message of an assigned partition, which may contain a match found by any replica.
    pub fn on_remote_match(&mut self, partition: i32, offset: i64, message: &[u8]) -> Stats {
        let mut stats = Stats::default();
        let Some(repartition) = &mut self.state.repartition else { return stats };
        repartition.mark_read(partition, offset);
        let mut remote = match repartition.read(message) {
            Some(DecodedMessage::Match(remote)) => remote,
            // Markers of assigned partitions were written by this replica.
            Some(DecodedMessage::Marker(..) | DecodedMessage::ForeignRuleSet) => return stats,
            None => {
                stats.malformed.insert(malformed::REPARTITION, 1);
                return stats;
            }
        };
        remote.observation.time = self.state.clock.clamp(remote.observation.time);
        self.advance_partition(partition, remote.observation.time);
        let Some(repartition) = &mut self.state.repartition else { return stats };
        if let Some(fired) = repartition.observe(partition, offset, remote.correlation, &remote.observation) {
            self.emit_remote(&fired, &remote);
        }
        stats
    }

    /// Emits the alert of a window that a remote match completed. The event is only known from the message.
    fn emit_remote(&mut self, fired: &Fired, remote: &RemoteMatch) {
        let mut event = Event::new(&remote.event);
        let mut cache = EvalCache::with_exposure(&self.detector.plan, remote.exposure.clone());
        let incident = AlertContext::new(
            &mut event,
            remote.exposure.clone(),
            &self.detector.plan.redaction_key,
            self.detector.plan.limits,
        )
        .with_hash(remote.hash)
        .with_fields_of(&remote.event);
        self.emit_without_event(fired, &mut event, &mut cache, &incident);
    }

    /// Emits the alerts of tumbling windows that closed. Their events are no longer available, so the alert describes the event by the
    /// window's note.
    fn emit_closed(&mut self, closed: &[Fired]) {
        for fired in closed {
            let note = fired.note.as_deref().filter(|note| !note.is_empty());
            let note = note.unwrap_or(b"{\"kind\":\"Event\"}");
            let mut event = Event::new(note);
            let mut cache = EvalCache::new(&self.detector.plan);
            let exposure = {
                let plan = &self.detector.plan;
                let input = self.input();
                let (cache, event) = (&mut cache, &mut event);
                EvalContext { plan, cache, event, input, cluster_state: None, window: None }.exposure()
            };
            let incident = AlertContext::new(
                &mut event,
                exposure,
                &self.detector.plan.redaction_key,
                self.detector.plan.limits,
            )
            .with_fields_of(note);
            self.emit_without_event(fired, &mut event, &mut cache, &incident);
        }
    }

    fn emit_without_event<'e>(
        &mut self,
        fired: &Fired,
        event: &mut Event<'e>,
        cache: &mut EvalCache<'e>,
        incident: &AlertContext<'_>,
    ) {
        let detector = self.detector;
        let correlation = &detector.plan.correlations[fired.correlation];
        let input = detector.input(0);
        let window = Some(Rc::new(window(correlation, fired)));
        let mut eval = EvalContext { plan: &detector.plan, cache, event, input, cluster_state: None, window };
        let pending = self.emit_correlation(correlation, &mut eval, incident);
        eval.window = None;
        self.correlate(&mut eval, incident, pending);
    }

    /// Closes the tumbling windows that ended before a time.
    pub fn advance(&mut self, time: i64) {
        loop {
            let closed = self.state.correlator.advance(time);
            if closed.is_empty() {
                break;
            }
            self.emit_closed(&closed);
        }
    }

    fn advance_partition(&mut self, partition: i32, time: i64) {
        while let Some(repartition) = &mut self.state.repartition {
            let closed = repartition.advance(partition, time);
            if closed.is_empty() {
                break;
            }
            self.emit_closed(&closed);
        }
    }

    /// Closes the tumbling windows of partitions without new messages, where no event moves event time forward.
    pub fn advance_idle_partitions(&mut self, time: i64) {
        let idle = self.state.repartition.as_ref().map(Repartition::idle_partitions).unwrap_or_default();
        for partition in idle {
            self.advance_partition(partition, time);
        }
    }

    /// Closes every window at the end of all input.
    pub fn finish(&mut self) {
        loop {
            let closed = self.state.correlator.finish();
            if closed.is_empty() {
                break;
            }
            self.emit_closed(&closed);
        }
    }
}

/// The window's summary for the alert of a correlation.
fn window(correlation: &CorrelationPlan, fired: &Fired) -> WindowSummary {
    let hex = |id: &[u8; 16]| {
        let mut hex = Vec::with_capacity(32);
        push_hex(id, &mut hex);
        String::from_utf8(hex).unwrap_or_default()
    };
    let rules = fired.sources.iter().filter_map(|&source| correlation.sources.get(source));
    WindowSummary {
        count: fired.count,
        value_count: fired.value_count,
        values: fired.values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect(),
        first: fired.first,
        last: fired.last,
        rules: rules.map(ToString::to_string).collect(),
        ids: fired.ids.iter().map(hex).collect(),
        timespan: correlation.timespan,
    }
}

/// The values of several operands, each joined to one string. A missing value is the empty string.
fn key(eval: &mut EvalContext<'_, '_, '_>, operands: &[OperandId]) -> Vec<Box<[u8]>> {
    let mut text = |&operand: &OperandId| texts(eval.redacted(operand, &ShowList::EMPTY).value()).join(&b',');
    operands.iter().map(|operand| text(operand).into()).collect()
}

fn texts(value: &Value<'_>) -> Vec<Box<[u8]>> {
    match value {
        Value::Number(number) => vec![number.to_string().into_bytes().into()],
        value => value.texts().iter().map(|text| text.as_ref().into()).collect(),
    }
}
