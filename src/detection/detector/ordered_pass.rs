//! The second half of a session: judges, in their order, the events that do not stand for themselves, and what several
//! matches say together.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::repartition::{Came, Exchange, Met};
use super::snapshot::Kept;
use super::stats::{Counts, forgotten, malformed};
use super::{Detector, OnAlert, Turn};
use crate::detection::alert::push_hex;
use crate::detection::audit::event::Event;
use crate::detection::audit::time::ReferenceClock;
use crate::detection::correlate::{Correlator, Decision, Fired, Observation, Throttle};
use crate::detection::engine::alert::Alert;
use crate::detection::engine::alert_context::Incident;
use crate::detection::engine::evaluator::{Case, Judge, Sight, Window};
use crate::detection::engine::extract::Context;
use crate::detection::engine::plan::{CorrelationPlan, FeedPlan, OperandId};
use crate::detection::engine::value::Value;
use crate::detection::registry::{self, ClusterState};

/// Judges, in their order, the events that do not stand for themselves.
#[derive(Debug)]
pub struct Sequel<'d> {
    detector: &'d Detector,
    judge: Judge,
    pub(super) cluster_state: ClusterState,
    pub(super) together: Together,
    pub(super) kept: Kept,
    matches: Vec<usize>,
}

/// What looks at several matches.
#[derive(Debug)]
pub(super) struct Together {
    pub correlator: Correlator,
    pub throttle: Throttle,
    /// Who judges windows instead of the correlator here.
    pub exchange: Option<Exchange>,
    /// Which times are believed.
    pub clock: ReferenceClock,
}

impl Together {
    /// When an event happened, as far as it is to be believed.
    fn time(&self, incident: &Incident<'_>) -> i64 {
        self.clock.clamp(incident.time())
    }
}

impl<'d> Sequel<'d> {
    /// One that knows nothing yet.
    pub(super) fn new(detector: &'d Detector) -> Self {
        Sequel {
            detector,
            judge: detector.judge(),
            cluster_state: ClusterState::default(),
            together: Together {
                correlator: detector.correlator.clone(),
                throttle: detector.throttle.clone(),
                exchange: detector
                    .exchanged
                    .as_ref()
                    .map(|(blank, correlations)| Exchange::new(blank.clone(), correlations)),
                clock: ReferenceClock::default(),
            },
            kept: Kept::default(),
            matches: Vec::new(),
        }
    }

    /// What is known of the event at hand, for the events of one buffer.
    pub fn sight<'c>(&self) -> Sight<'c> {
        Sight::new(&self.detector.plan)
    }

    /// Judges an event, and learns from it.
    pub fn judge<'c>(
        &mut self,
        sight: &mut Sight<'c>,
        event: &mut Event<'c>,
        turn: Turn,
        on_alert: OnAlert<'_>,
    ) {
        sight.next();
        self.matches.clear();
        let context = Context { position: turn.position, hostname: &self.detector.options.hostname };
        let plan = &self.detector.plan;
        let mut case = Case { plan, sight, event, context, cluster_state: None, window: None };
        let prospect = self.judge.prospect(&mut case);
        let concerns = prospect.order_dependency.applies_to(case.event);
        if concerns {
            case.cluster_state = Some(&mut self.cluster_state);
            // Also where no rule asks: what it teaches is for others.
            case.exposure();
        }
        if !turn.only_teaches {
            self.judge.judge(&mut case, &prospect, &mut self.matches);
            if !self.matches.is_empty() {
                Self::alert(self.detector, &mut self.together, &mut case, &self.matches, on_alert);
            }
        }
        if concerns {
            let request = case.request();
            registry::learn_after_evaluation(event, &request, &mut self.cluster_state);
        }
    }

    /// Says what an event matched, and what that says together with earlier matches.
    fn alert(
        detector: &Detector,
        together: &mut Together,
        case: &mut Case<'_, '_, '_>,
        matches: &[usize],
        on_alert: OnAlert<'_>,
    ) {
        let exposure = case.exposure();
        let incident = Incident::new(case.event, exposure);
        let time = together.time(&incident);
        let hostname = &detector.options.hostname;
        let mut feeding: VecDeque<(FeedPlan, [u8; 16])> = VecDeque::new();
        for &matched in matches {
            let rule = &detector.plan.rules[matched];
            let alert = Alert::new(rule, case, &incident, hostname);
            if !rule.feeds.is_empty() {
                let id = alert.id_bytes();
                feeding.extend(rule.feeds.iter().map(|feed| (*feed, id)));
            }
            if rule.is_silent {
                continue;
            }
            let decision = match &rule.throttle {
                Some(plan) => together.throttle.decide(rule.index, &key(case, &plan.per), time),
                None => Decision::Show { held_back: 0 },
            };
            if let Decision::Show { held_back } = decision {
                on_alert(&alert.after_holding_back(held_back));
            }
        }
        // Windows that ended before this event are judged before it counts.
        loop {
            let closed = together.correlator.advance(time);
            if closed.is_empty() {
                break;
            }
            Self::close(detector, together, closed, on_alert);
        }
        Self::correlate(detector, together, case, &incident, feeding, on_alert);
    }

    /// Feeds matches to correlations, and their alerts to others.
    fn correlate(
        detector: &Detector,
        together: &mut Together,
        case: &mut Case<'_, '_, '_>,
        incident: &Incident<'_>,
        mut feeding: VecDeque<(FeedPlan, [u8; 16])>,
        on_alert: OnAlert<'_>,
    ) {
        while let Some((feed, id)) = feeding.pop_front() {
            let correlation = &detector.plan.correlations[feed.correlation];
            let values = correlation.field.map(|field| texts(case.shown(field).value())).unwrap_or_default();
            let is_judged_at_close = together.correlator.is_judged_at_close(feed.correlation);
            let mut observation = Observation {
                source: feed.source,
                time: together.time(incident),
                id,
                key: key(case, &correlation.group_by),
                values,
                note: None,
            };
            if let Some(exchange) = &mut together.exchange {
                exchange.send(feed.correlation, &observation, incident);
                continue;
            }
            observation.note = is_judged_at_close.then(|| incident.note().into());
            let Some(fired) = together.correlator.observe(feed.correlation, &observation) else { continue };
            case.window = Some(Rc::new(window(correlation, &fired)));
            let alert = Alert::new(&correlation.alert, case, incident, &detector.options.hostname);
            if !correlation.alert.is_silent {
                on_alert(&alert);
            }
            let id = alert.id_bytes();
            feeding.extend(correlation.alert.feeds.iter().map(|feed| (*feed, id)));
            case.window = None;
        }
    }

    /// Judges a match that came out of the exchange.
    pub fn meet(&mut self, partition: i32, offset: i64, message: &[u8], on_alert: OnAlert<'_>) -> Counts {
        let (detector, together) = (self.detector, &mut self.together);
        let mut counts = Counts::default();
        let Some(exchange) = &mut together.exchange else { return counts };
        exchange.passed(partition, offset);
        let mut met = match exchange.read(message) {
            Some(Came::Match(met)) => met,
            // Of our own windows it is known already.
            Some(Came::Told(..) | Came::Strange) => return counts,
            None => {
                counts.malformed.insert(malformed::EXCHANGE, 1);
                return counts;
            }
        };
        met.observation.time = together.clock.clamp(met.observation.time);
        let time = met.observation.time;
        Self::advance_partition(detector, together, partition, time, on_alert);
        let Some(exchange) = &mut together.exchange else { return counts };
        if let Some(fired) = exchange.observe(partition, offset, met.correlation, &met.observation) {
            Self::tell(detector, together, &fired, &met, on_alert);
        }
        counts
    }

    /// Judges the windows of a partition that ended before a time.
    fn advance_partition(
        detector: &Detector,
        together: &mut Together,
        partition: i32,
        time: i64,
        on_alert: OnAlert<'_>,
    ) {
        while let Some(exchange) = &mut together.exchange {
            let closed = exchange.advance(partition, time);
            if closed.is_empty() {
                break;
            }
            Self::close(detector, together, closed, on_alert);
        }
    }

    /// Says that a match completed a window whose event somebody else judged.
    fn tell(detector: &Detector, together: &mut Together, fired: &Fired, met: &Met, on_alert: OnAlert<'_>) {
        let plan = &detector.plan;
        let correlation = &plan.correlations[fired.correlation];
        let mut event = Event::new(&met.event);
        let mut sight = Sight::of_exposure(plan, met.exposure.clone());
        let context = Context { position: 0, hostname: &detector.options.hostname };
        let window = Some(Rc::new(window(correlation, fired)));
        let mut case =
            Case { plan, sight: &mut sight, event: &mut event, context, cluster_state: None, window };
        let incident = Incident::new(case.event, met.exposure.clone()).with_hash(met.hash);
        Self::alert_of(detector, together, correlation, &mut case, &incident, on_alert);
    }

    /// The alert of a correlation, and what others make of it.
    fn alert_of(
        detector: &Detector,
        together: &mut Together,
        correlation: &CorrelationPlan,
        case: &mut Case<'_, '_, '_>,
        incident: &Incident<'_>,
        on_alert: OnAlert<'_>,
    ) {
        let alert = Alert::new(&correlation.alert, case, incident, &detector.options.hostname);
        if !correlation.alert.is_silent {
            on_alert(&alert);
        }
        let id = alert.id_bytes();
        let feeding = correlation.alert.feeds.iter().map(|feed| (*feed, id)).collect();
        case.window = None;
        Self::correlate(detector, together, case, incident, feeding, on_alert);
    }

    /// Says what windows held that have closed. Their events are gone: what is said of one is in its note.
    fn close(detector: &Detector, together: &mut Together, closed: Vec<Fired>, on_alert: OnAlert<'_>) {
        let plan = &detector.plan;
        for fired in closed {
            let correlation = &plan.correlations[fired.correlation];
            let note = fired.note.as_deref().unwrap_or(b"{\"kind\":\"Event\"}");
            let mut event = Event::new(note);
            let mut sight = Sight::new(plan);
            let context = Context { position: 0, hostname: &detector.options.hostname };
            let window = Some(Rc::new(window(correlation, &fired)));
            let mut case =
                Case { plan, sight: &mut sight, event: &mut event, context, cluster_state: None, window };
            let exposure = case.exposure();
            let incident = Incident::new(case.event, exposure);
            Self::alert_of(detector, together, correlation, &mut case, &incident, on_alert);
        }
    }

    /// Judges what is still open at the end of all input, and counts what was lost on the way.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) -> Counts {
        loop {
            let closed = self.together.correlator.finish();
            if closed.is_empty() {
                break;
            }
            Self::close(self.detector, &mut self.together, closed, on_alert);
        }
        let mut counts = Counts { forgotten: self.forgotten(), ..Counts::default() };
        for held in self.together.throttle.finish() {
            *counts.held_back.entry(held.rule).or_default() += held.count;
        }
        counts
    }

    /// Says that it is so late, by the time of events, where no event says so: judges windows that have closed by then, and
    /// counts what throttles held back and no later alert will tell of. For whoever waits for more input.
    pub fn advance(&mut self, time: i64, on_alert: OnAlert<'_>) -> Counts {
        loop {
            let closed = self.together.correlator.advance(time);
            if closed.is_empty() {
                break;
            }
            Self::close(self.detector, &mut self.together, closed, on_alert);
        }
        let quiet = self.together.exchange.as_ref().map(Exchange::quiet).unwrap_or_default();
        for partition in quiet {
            Self::advance_partition(self.detector, &mut self.together, partition, time, on_alert);
        }
        let mut counts = Counts::default();
        for held in self.together.throttle.due(time) {
            *counts.held_back.entry(held.rule).or_default() += held.count;
        }
        counts
    }

    /// Forgets windows and throttles that cannot matter to an event at this time or later, so that nobody stores them. It
    /// looks at all of them: for now and then.
    pub fn forget(&mut self, before: i64) {
        self.together.correlator.forget(before);
        self.together.throttle.forget(before);
    }

    /// What was forgotten so far to stay within bounds, by what it was.
    pub fn forgotten(&self) -> BTreeMap<&'static str, u64> {
        let exchange = self.together.exchange.as_ref();
        let lost = exchange.map_or_else(|| self.together.correlator.counts(), Exchange::counts);
        [
            (forgotten::CLUSTER_STATE, self.cluster_state.evicted()),
            (forgotten::WINDOWS, lost.evicted_groups),
            (forgotten::MATCHES, lost.dropped),
            (forgotten::LATE, lost.too_late),
            (forgotten::THROTTLES, self.together.throttle.evicted()),
            (forgotten::STATE, self.kept.refused()),
            (forgotten::STRANGE, exchange.map_or(0, Exchange::strange)),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
    }

    /// What was learned so far.
    pub fn cluster_state(&self) -> &ClusterState {
        &self.cluster_state
    }
}

/// What a correlation saw, for its alert.
fn window(correlation: &CorrelationPlan, fired: &Fired) -> Window {
    let hex = |id: &[u8; 16]| {
        let mut hex = Vec::with_capacity(32);
        push_hex(id, &mut hex);
        String::from_utf8(hex).unwrap_or_default()
    };
    Window {
        count: fired.count,
        value_count: fired.value_count,
        values: fired.values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect(),
        first: fired.first,
        last: fired.last,
        rules: fired
            .sources
            .iter()
            .filter_map(|&at| correlation.sources.get(at))
            .map(ToString::to_string)
            .collect(),
        ids: fired.ids.iter().map(hex).collect(),
        timespan: correlation.timespan,
    }
}

/// The values of several operands, each as one text. What is missing is empty.
fn key(case: &mut Case<'_, '_, '_>, operands: &[OperandId]) -> Vec<Box<[u8]>> {
    operands.iter().map(|&operand| texts(case.shown(operand).value()).join(&b',').into()).collect()
}

/// The texts of a value.
fn texts(value: &Value<'_>) -> Vec<Box<[u8]>> {
    match value {
        Value::Number(number) => vec![number.to_string().into_bytes().into()],
        value => value.texts().iter().map(|text| text.as_ref().into()).collect(),
    }
}
