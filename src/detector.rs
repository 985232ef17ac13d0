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

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::audit::event::{Event, Member};
use crate::audit::json::{Broken, Cursor, Raw, Type};
use crate::audit::notes::{Notes, Searcher};
use crate::correlate::{Correlator, Decision, Fired, Observation, Throttle};
use crate::engine::alert::{Alert, Incident, push_hex};
use crate::engine::extract::Context;
use crate::engine::judge::{Case, Judge, Sight, Window};
use crate::engine::plan::{CorrelationPlan, FeedPlan, OperandId, Plan};
use crate::engine::prefilter::Prefilter;
use crate::engine::value::Value;
use crate::registry::{self, Knowledge};
use crate::rules::Matching;
use crate::rules::ast::{Priority, RuleSet};

/// Why a line, or a part of it, is no sound audit event.
pub mod malformed {
    /// The line is not JSON at all.
    pub const NOT_JSON: &str = "not JSON";
    /// It starts as JSON and goes on as something else.
    pub const SYNTAX: &str = "broken JSON";
    /// It is JSON, but neither an audit event nor a list of them.
    pub const NO_EVENT: &str = "no audit event";
    /// Something follows an event on its line that is none.
    pub const TRAILING: &str = "text behind an event";
    /// The event was judged; the first of equal members counted.
    pub const REPEATED: &str = "member given twice (judged by the first)";
    /// The event was judged; what is no UTF-8 was read as U+FFFD.
    pub const UTF8: &str = "invalid UTF-8 (judged, read as U+FFFD)";
    /// The event was judged; half of a surrogate pair was read as U+FFFD.
    pub const SURROGATE: &str = "lone surrogate (judged, read as U+FFFD)";
}

/// Why an event was judged by a part of it.
pub mod truncated {
    /// Its line ends in the middle.
    pub const CUT: &str = "cut off in the middle";
    /// Its line is longer than the limit.
    pub const TOO_LONG: &str = "longer than --max-event-size";
    /// The apiserver took its objects out (annotation `audit.k8s.io/truncated`).
    pub const APISERVER: &str = "by the apiserver";
}

/// What was forgotten to stay within bounds.
pub mod forgotten {
    /// Secrets, pods, roles and namespaces that were learned of.
    pub const KNOWLEDGE: &str = "what was learned of secrets, pods, roles and namespaces";
    /// Groups of correlations.
    pub const WINDOWS: &str = "windows of correlations";
    /// Matches that a full window had no room for.
    pub const MATCHES: &str = "matches in windows that were full";
    /// Matches that came after their window was over.
    pub const LATE: &str = "matches that came too late for their window";
    /// Combinations of values that a throttle remembers.
    pub const THROTTLES: &str = "throttled combinations (told again)";
}

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
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Audit events, judged or passed over because no rule can match them.
    pub events: u64,
    /// Events outside the time range asked for.
    pub outside_time_range: u64,
    /// Lines by what is wrong with them.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Events of which a part is missing, by why.
    pub truncated: BTreeMap<&'static str, u64>,
    /// What was forgotten because there was too much of it, by what it was.
    pub forgotten: BTreeMap<&'static str, u64>,
    /// Alerts that a throttle held back and that no later alert tells of, by rule (its index).
    pub held_back: BTreeMap<usize, u64>,
}

impl Counts {
    /// Adds what another session saw.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.outside_time_range += other.outside_time_range;
        for (reason, count) in &other.malformed {
            *self.malformed.entry(reason).or_default() += count;
        }
        for (reason, count) in &other.truncated {
            *self.truncated.entry(reason).or_default() += count;
        }
        for (what, count) in &other.forgotten {
            *self.forgotten.entry(what).or_default() += count;
        }
        for (rule, count) in &other.held_back {
            *self.held_back.entry(*rule).or_default() += count;
        }
    }
}

/// A rule set, ready to judge.
#[derive(Debug)]
pub struct Detector {
    plan: Plan,
    prefilter: Option<Prefilter>,
    searcher: Searcher,
    options: Options,
    rule_names: Vec<String>,
    /// As they are before the first event.
    correlator: Correlator,
    throttle: Throttle,
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
        Detector {
            rule_names: names.map(ToString::to_string).collect(),
            correlator: if options.is_in_time_order {
                Correlator::new(&correlations)
            } else {
                Correlator::with_tolerance(&correlations, i64::MAX)
            },
            throttle: Throttle::new(&rules.rules),
            searcher: Searcher::new(),
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
        Scout {
            detector: self,
            judge: self.judge(),
            counts: Counts::default(),
            position: 0,
            matches: Vec::new(),
            is_later: false,
            skimming: Skimming::default(),
        }
    }

    /// Judges what scouts hand on.
    pub fn sequel(&self) -> Sequel<'_> {
        Sequel {
            detector: self,
            judge: self.judge(),
            knowledge: Knowledge::default(),
            correlator: self.correlator.clone(),
            throttle: self.throttle.clone(),
            matches: Vec::new(),
        }
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

    /// Says what an event matched.
    fn alert(&self, case: &mut Case<'_, '_, '_>, matches: &[usize], on_alert: OnAlert<'_>) {
        let exposure = case.exposure();
        let incident = Incident::new(case.event, exposure);
        for &matched in matches {
            let alert = Alert::new(&self.plan.rules[matched], case, &incident, &self.options.hostname);
            on_alert(&alert);
        }
    }
}

/// Whether looking for candidates pays: where most lines are some, it is work done twice. Asked again now and then, since a
/// log changes.
#[derive(Debug, Default)]
struct Skimming {
    lines: u64,
    candidates: u64,
    /// Buffers still to go without.
    pause: u32,
}

impl Skimming {
    /// So many lines decide.
    const ENOUGH: u64 = 1024;
    /// For so many buffers they do.
    const PAUSE: u32 = 256;

    fn pays(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if self.lines < Self::ENOUGH {
            return true;
        }
        let pays = self.candidates * 2 < self.lines;
        *self = Skimming { pause: if pays { 0 } else { Self::PAUSE }, ..Skimming::default() };
        pays
    }
}

/// How deep lists of events may stand in each other: the webhook's `EventList` in an array, and room to spare.
const DEEPEST_LIST: usize = 4;

/// Judges records, one after the other.
#[derive(Debug)]
pub struct Session<'d> {
    scout: Scout<'d>,
    sequel: Sequel<'d>,
}

/// Reads records and judges those that stand for themselves.
#[derive(Debug)]
pub struct Scout<'d> {
    detector: &'d Detector,
    judge: Judge,
    counts: Counts,
    position: u64,
    matches: Vec<usize>,
    /// The event at hand is for the sequel.
    is_later: bool,
    skimming: Skimming,
}

/// Judges, in their order, the events that do not stand for themselves.
#[derive(Debug)]
pub struct Sequel<'d> {
    detector: &'d Detector,
    judge: Judge,
    knowledge: Knowledge,
    correlator: Correlator,
    throttle: Throttle,
    matches: Vec<usize>,
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

/// One buffer on its way through a scout.
struct Buffer<'c, 'f> {
    bytes: &'c [u8],
    notes: Notes,
    /// Where the next line starts that starts with `{`, as far as it was looked for.
    next_object: usize,
    sight: Sight<'c>,
    on_found: OnFound<'f, 'c>,
}

/// How a line starts that is one event as the apiserver writes it.
const PLAIN_START: &[u8] = br#"{"kind":"Event","#;

impl Session<'_> {
    /// Judges every record of a buffer that starts and ends at record boundaries.
    pub fn chunk(&mut self, bytes: &[u8], on_alert: OnAlert<'_>) {
        let mut sight = self.sequel.sight();
        self.scout.chunk(bytes, &mut |found| match found {
            Found::Alert(alert) => on_alert(alert),
            Found::Later(event, turn) => self.sequel.judge(&mut sight, event, turn, on_alert),
        });
    }

    /// Judges an event whose line is longer than the limit by its first bytes.
    pub fn head(&mut self, head: &[u8], on_alert: OnAlert<'_>) {
        let mut sight = self.sequel.sight();
        self.scout.head(head, &mut |found| match found {
            Found::Alert(alert) => on_alert(alert),
            Found::Later(event, turn) => self.sequel.judge(&mut sight, event, turn, on_alert),
        });
    }

    /// Judges what is still open at the end of all input.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) {
        let counts = self.sequel.finish(on_alert);
        self.scout.counts.add(&counts);
    }

    /// What was seen since the last call.
    pub fn take_counts(&mut self) -> Counts {
        self.scout.take_counts()
    }
}

impl Sequel<'_> {
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
        let mut case = Case { plan, sight, event, context, knowledge: None, window: None };
        let prospect = self.judge.prospect(&mut case);
        let concerns = prospect.concern.applies(case.event);
        if concerns {
            case.knowledge = Some(&mut self.knowledge);
            // Also where no rule asks: what it teaches is for others.
            case.exposure();
        }
        if !turn.only_teaches {
            self.judge.judge(&mut case, &prospect, &mut self.matches);
            if !self.matches.is_empty() {
                Self::alert(
                    self.detector,
                    &mut self.correlator,
                    &mut self.throttle,
                    &mut case,
                    &self.matches,
                    on_alert,
                );
            }
        }
        if concerns {
            registry::settle(event, &mut self.knowledge);
        }
    }

    /// Says what an event matched, and what that says together with earlier matches.
    fn alert(
        detector: &Detector,
        correlator: &mut Correlator,
        throttle: &mut Throttle,
        case: &mut Case<'_, '_, '_>,
        matches: &[usize],
        on_alert: OnAlert<'_>,
    ) {
        let exposure = case.exposure();
        let incident = Incident::new(case.event, exposure);
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
                Some(plan) => throttle.decide(rule.index, &key(case, &plan.per), incident.time()),
                None => Decision::Show { held_back: 0 },
            };
            if let Decision::Show { held_back } = decision {
                on_alert(&alert.after_holding_back(held_back));
            }
        }
        // Windows that ended before this event are judged before it counts.
        loop {
            let closed = correlator.advance(incident.time());
            if closed.is_empty() {
                break;
            }
            Self::close(detector, correlator, closed, on_alert);
        }
        Self::correlate(detector, correlator, case, &incident, feeding, on_alert);
    }

    /// Feeds matches to correlations, and their alerts to others.
    fn correlate(
        detector: &Detector,
        correlator: &mut Correlator,
        case: &mut Case<'_, '_, '_>,
        incident: &Incident<'_>,
        mut feeding: VecDeque<(FeedPlan, [u8; 16])>,
        on_alert: OnAlert<'_>,
    ) {
        while let Some((feed, id)) = feeding.pop_front() {
            let correlation = &detector.plan.correlations[feed.correlation];
            let values = correlation.field.map(|field| texts(case.shown(field).value())).unwrap_or_default();
            let is_judged_at_close = correlator.is_judged_at_close(feed.correlation);
            let observation = Observation {
                source: feed.source,
                time: incident.time(),
                id,
                key: key(case, &correlation.group_by),
                values,
                note: is_judged_at_close.then(|| incident.note().into()),
            };
            let Some(fired) = correlator.observe(feed.correlation, &observation) else { continue };
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

    /// Says what windows held that have closed. Their events are gone: what is said of one is in its note.
    fn close(detector: &Detector, correlator: &mut Correlator, closed: Vec<Fired>, on_alert: OnAlert<'_>) {
        let plan = &detector.plan;
        for fired in closed {
            let correlation = &plan.correlations[fired.correlation];
            let note = fired.note.as_deref().unwrap_or(b"{\"kind\":\"Event\"}");
            let mut event = Event::new(note);
            let mut sight = Sight::new(plan);
            let context = Context { position: 0, hostname: &detector.options.hostname };
            let window = Some(Rc::new(window(correlation, &fired)));
            let mut case =
                Case { plan, sight: &mut sight, event: &mut event, context, knowledge: None, window };
            let exposure = case.exposure();
            let incident = Incident::new(case.event, exposure);
            let alert = Alert::new(&correlation.alert, &mut case, &incident, &detector.options.hostname);
            if !correlation.alert.is_silent {
                on_alert(&alert);
            }
            let id = alert.id_bytes();
            let feeding = correlation.alert.feeds.iter().map(|feed| (*feed, id)).collect();
            case.window = None;
            Self::correlate(detector, correlator, &mut case, &incident, feeding, on_alert);
        }
    }

    /// Judges what is still open at the end of all input, and counts what was lost on the way.
    pub fn finish(&mut self, on_alert: OnAlert<'_>) -> Counts {
        loop {
            let closed = self.correlator.finish();
            if closed.is_empty() {
                break;
            }
            Self::close(self.detector, &mut self.correlator, closed, on_alert);
        }
        let mut counts = Counts::default();
        let lost = self.correlator.counts();
        for (what, count) in [
            (forgotten::KNOWLEDGE, self.knowledge.evicted()),
            (forgotten::WINDOWS, lost.evicted_groups),
            (forgotten::MATCHES, lost.dropped),
            (forgotten::LATE, lost.too_late),
            (forgotten::THROTTLES, self.throttle.evicted()),
        ] {
            if count > 0 {
                counts.forgotten.insert(what, count);
            }
        }
        for held in self.throttle.finish() {
            *counts.held_back.entry(held.rule).or_default() += held.count;
        }
        counts
    }

    /// What was learned so far.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
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

impl<'d> Scout<'d> {
    /// Judges every record of a buffer that starts and ends at record boundaries.
    pub fn chunk<'c>(&mut self, bytes: &'c [u8], on_found: OnFound<'_, 'c>) {
        let mut buffer = self.open(bytes, on_found);
        let detector = self.detector;
        let prefilter = detector.prefilter.as_ref().filter(|_| self.skimming.pays());
        let mut candidate = None;
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
            if end - at > self.detector.options.max_event_size {
                let head = &bytes[at..at + self.detector.options.max_event_size];
                self.cut(&mut buffer, head, truncated::TOO_LONG, 0);
                at = end + 1;
                continue;
            }
            let line = &bytes[at..end];
            if let Some(prefilter) = prefilter
                && line.starts_with(PLAIN_START)
                && line.trim_ascii_end().last() == Some(&b'}')
            {
                let next = match candidate {
                    Some(next) if next >= at => next,
                    _ => prefilter.find(bytes, at).unwrap_or(usize::MAX),
                };
                candidate = Some(next);
                self.skimming.lines += 1;
                if next >= end && !buffer.has_inner_start(at, end) {
                    self.counts.events += 1;
                    self.position += 1;
                    at = end + 1;
                    continue;
                }
                self.skimming.candidates += 1;
            }
            at = self.line(&mut buffer, at, end);
        }
        self.close(&buffer);
    }

    /// Judges an event whose line is longer than the limit by its first bytes.
    pub fn head<'c>(&mut self, head: &'c [u8], on_found: OnFound<'_, 'c>) {
        let mut buffer = self.open(head, on_found);
        self.cut(&mut buffer, head, truncated::TOO_LONG, 0);
        self.close(&buffer);
    }

    /// What was seen since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn open<'c, 'f>(&self, bytes: &'c [u8], on_found: OnFound<'f, 'c>) -> Buffer<'c, 'f> {
        let notes = self.detector.searcher.search(bytes);
        Buffer { bytes, notes, next_object: 0, sight: Sight::new(&self.detector.plan), on_found }
    }

    fn close(&mut self, buffer: &Buffer<'_, '_>) {
        self.malformed_lines(malformed::UTF8, buffer.notes.invalid_utf8);
        self.malformed_lines(malformed::SURROGATE, buffer.notes.lone_surrogates);
        if buffer.notes.truncated > 0 {
            *self.counts.truncated.entry(truncated::APISERVER).or_default() += buffer.notes.truncated;
        }
    }

    fn malformed_lines(&mut self, reason: &'static str, lines: u64) {
        if lines > 0 {
            *self.counts.malformed.entry(reason).or_default() += lines;
        }
    }

    /// Judges what starts on the line at `at`, and gives where to go on.
    fn line(&mut self, buffer: &mut Buffer<'_, '_>, at: usize, end: usize) -> usize {
        let line = &buffer.bytes[at..end];
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
        // The usual line: one event, whole. All else takes the careful way.
        if text.first() == Some(&b'{')
            && text.last() == Some(&b'}')
            && !buffer.has_inner_start(at, end)
            && self.object(buffer, text, 0) == Ok(())
        {
            return end + 1;
        }
        match text.first() {
            None => end + 1,
            Some(b'{' | b'[') => {
                let start = at + line.len()
                    - line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start().len();
                self.record(buffer, start)
            }
            // What is left of a list that was written a line an element.
            _ if text.iter().all(|byte| matches!(byte, b']' | b'}' | b',') || byte.is_ascii_whitespace()) => {
                end + 1
            }
            Some(_) => {
                self.malformed_lines(malformed::NOT_JSON, 1);
                end + 1
            }
        }
    }

    /// Judges the record that starts at `at` and may take several lines, and gives where to go on.
    ///
    /// It ends where its brackets close, at the latest before the next line that starts with `{`: within an
    /// indented value there is none.
    fn record(&mut self, buffer: &mut Buffer<'_, '_>, at: usize) -> usize {
        let bytes = buffer.bytes;
        let limit = buffer.next_object(at);
        let torn_at = buffer.inner_start(at + 1, limit);
        let whole = Raw::first(&bytes[at..limit]).ok().filter(|&raw| self.value(buffer, raw) == Ok(()));
        let Some(raw) = whole else {
            // Another event may start in the middle of this one's line, where the writer was interrupted.
            let end = torn_at.unwrap_or(limit);
            self.cut(buffer, &bytes[at..end], truncated::CUT, 0);
            return end;
        };
        let end = at + raw.bytes().len();
        let rest = &bytes[end..limit];
        let Some(next) =
            rest.iter().position(|byte| !(matches!(byte, b',' | b']') || byte.is_ascii_whitespace()))
        else {
            return limit;
        };
        if !matches!(rest[next], b'{' | b'[') {
            self.malformed_lines(malformed::TRAILING, 1);
            return memchr::memchr(b'\n', rest).map_or(limit, |newline| end + newline + 1);
        }
        end + next
    }

    /// Judges a whole JSON value: an event or a list of them.
    fn value<'c>(&mut self, buffer: &mut Buffer<'c, '_>, raw: Raw<'c>) -> Result<(), Broken> {
        if raw.kind() == Type::Object {
            return self.object(buffer, raw.bytes(), 0);
        }
        self.elements(buffer, raw, truncated::CUT, 0);
        Ok(())
    }

    /// Judges the elements of a list. A bad one says nothing of the others.
    fn elements<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        list: Raw<'c>,
        reason: &'static str,
        depth: usize,
    ) {
        let mut cursor = Cursor::new(list.bytes(), b'[');
        while let Some(item) = cursor.item() {
            match item {
                Ok(item) if item.kind() == Type::Object => {
                    if self.object(buffer, item.bytes(), depth + 1).is_err() {
                        self.malformed_lines(malformed::SYNTAX, 1);
                    }
                }
                Ok(_) => self.malformed_lines(malformed::NO_EVENT, 1),
                Err(Broken::Cut) => self.cut(buffer, cursor.remainder(), reason, depth + 1),
                Err(Broken::Syntax) => self.malformed_lines(malformed::SYNTAX, 1),
            }
        }
    }

    /// Judges an object: an event, or an `EventList`. Where it is broken nothing was counted or said.
    fn object<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        bytes: &'c [u8],
        depth: usize,
    ) -> Result<(), Broken> {
        let mut event = Event::new(bytes);
        if !bytes.starts_with(PLAIN_START) {
            match event.text(Member::Kind).as_deref() {
                Some(b"Event") => {}
                Some(b"EventList") if depth < DEEPEST_LIST => {
                    event.finish()?;
                    if let Some(items) = event.named("items") {
                        self.elements(buffer, items, truncated::CUT, depth + 1);
                    }
                    return Ok(());
                }
                None if event.get(Member::AuditId).is_some() => {}
                _ => {
                    event.finish()?;
                    self.malformed_lines(malformed::NO_EVENT, 1);
                    return Ok(());
                }
            }
            event.state()?;
        }
        self.event(buffer, &mut event)
    }

    /// Judges one event that should be whole.
    fn event<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) -> Result<(), Broken> {
        self.match_rules(buffer, event);
        if self.is_later || !self.matches.is_empty() {
            event.finish()?;
        }
        event.state()?;
        self.report(buffer, event);
        Ok(())
    }

    /// Judges what is there of a record whose text ends in the middle.
    fn cut<'c>(&mut self, buffer: &mut Buffer<'c, '_>, bytes: &'c [u8], reason: &'static str, depth: usize) {
        let text = bytes.trim_ascii();
        // A lone bracket opens a list that is written a line an element.
        if text.is_empty() || text == b"[" {
            return;
        }
        if text.first() == Some(&b'[') && depth < DEEPEST_LIST {
            return self.elements(buffer, Raw::assume(text), reason, depth + 1);
        }
        let mut event = Event::new(text);
        let broken = event.finish();
        match event.text(Member::Kind).as_deref() {
            _ if broken == Err(Broken::Syntax) => self.malformed_lines(malformed::SYNTAX, 1),
            Some(b"EventList") if depth < DEEPEST_LIST => {
                if let Some(items) = event.named("items") {
                    self.elements(buffer, items, reason, depth + 1);
                }
            }
            Some(b"Event") | None if event.get(Member::AuditId).is_some() => {
                *self.counts.truncated.entry(reason).or_default() += 1;
                self.match_rules(buffer, &mut event);
                self.report(buffer, &mut event);
            }
            None => self.malformed_lines(malformed::SYNTAX, 1),
            Some(_) => self.malformed_lines(malformed::NO_EVENT, 1),
        }
    }

    fn match_rules<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) {
        self.matches.clear();
        self.is_later = false;
        buffer.sight.next();
        let context = self.context();
        let mut case = Case {
            plan: &self.detector.plan,
            sight: &mut buffer.sight,
            event,
            context,
            knowledge: None,
            window: None,
        };
        let is_outside = self.detector.is_outside_range(case.event);
        if is_outside && !self.detector.plan.needs_knowledge {
            return;
        }
        let prospect = self.judge.prospect(&mut case);
        if prospect.concern.applies(case.event) {
            self.is_later = true;
        } else if !is_outside {
            self.judge.judge(&mut case, &prospect, &mut self.matches);
            // What several matches say together is said in their order.
            self.is_later = self.matches.iter().any(|&rule| self.detector.plan.rules[rule].is_in_order());
        }
    }

    /// Counts an event and says what it matched.
    fn report<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) {
        let only_teaches = self.detector.is_outside_range(event);
        let context = self.context();
        if only_teaches {
            self.counts.outside_time_range += 1;
        } else {
            self.counts.events += 1;
            self.position += 1;
            if event.has_repeated_members() {
                self.malformed_lines(malformed::REPEATED, 1);
            }
        }
        if self.is_later {
            (buffer.on_found)(Found::Later(event, Turn { position: context.position, only_teaches }));
        } else if !self.matches.is_empty() {
            let plan = &self.detector.plan;
            let mut case =
                Case { plan, sight: &mut buffer.sight, event, context, knowledge: None, window: None };
            self.detector.alert(&mut case, &self.matches, &mut |alert| {
                (buffer.on_found)(Found::Alert(alert));
            });
        }
    }

    fn context(&self) -> Context<'d> {
        Context { position: self.position + 1, hostname: &self.detector.options.hostname }
    }
}

impl Buffer<'_, '_> {
    /// Where the first line behind `at` starts that starts with `{`; the end if there is none.
    fn next_object(&mut self, at: usize) -> usize {
        if self.next_object <= at {
            let found = memchr::memmem::find(&self.bytes[at..], b"\n{");
            self.next_object = found.map_or(self.bytes.len(), |found| at + found + 1);
        }
        self.next_object
    }

    fn inner_start(&self, from: usize, to: usize) -> Option<usize> {
        let starts = &self.notes.inner_starts;
        let next = starts.partition_point(|&start| start < from);
        starts.get(next).copied().filter(|&start| start < to)
    }

    #[inline]
    fn has_inner_start(&self, from: usize, to: usize) -> bool {
        !self.notes.inner_starts.is_empty() && self.inner_start(from + 1, to).is_some()
    }
}
