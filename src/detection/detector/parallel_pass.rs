//! The parallel pass: reads every record of a buffer, evaluates events that are independent of each other, and defers
//! the others to the ordered pass.
//!
//! It takes buffers that are cut at record boundaries, and hands alerts and deferred events to a callback in input
//! order. It counts every record that it cannot evaluate.

use std::sync::Arc;

use super::non_events::other_event;
use super::stats::{Stats, malformed, truncated};
use super::{DeferredEvent, Detector, LogContext, OnOutput, Output};
use crate::detection::audit::apiserver_head::ApiserverHead;
use crate::detection::audit::buffer_scan::BufferScan;
use crate::detection::audit::envelope::{self, Columns, Unwrapper};
use crate::detection::audit::event::{self, Event, Member};
use crate::detection::audit::event_end::{ends_like_a_received_event, ends_like_an_event};
use crate::detection::audit::json::{Cursor, JsonError, Raw, Type};
use crate::detection::audit::json_prefix::JsonPrefix;
use crate::detection::audit::origin::{Records, TimeSource, Unwrapped, last_time};
use crate::detection::audit::steps;
use crate::detection::engine::alert::Alert;
use crate::detection::engine::evaluator::{EvalCache, EvalContext, Evaluator};
use crate::detection::engine::extract::InputContext;

/// Decides whether the prefilter is worth its cost: if most lines are candidates, it is pure overhead. The decision is revised every few
/// buffers, since the content of a log changes.
#[derive(Debug, Default)]
struct PrefilterSwitch {
    lines: u64,
    candidates: u64,
    /// Remaining buffers to read without the prefilter.
    pause: u32,
}

impl PrefilterSwitch {
    /// Number of lines after which to decide.
    const SAMPLE_LINES: u64 = 1024;
    /// Number of buffers for which the prefilter stays off.
    const PAUSE_BUFFERS: u32 = 256;

    fn is_worthwhile(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if self.lines < Self::SAMPLE_LINES {
            return true;
        }
        let is_worthwhile = self.candidates * 2 < self.lines;
        *self = PrefilterSwitch {
            pause: if is_worthwhile { 0 } else { Self::PAUSE_BUFFERS },
            ..PrefilterSwitch::default()
        };
        is_worthwhile
    }
}

/// Nesting limit of event lists: the webhook's `EventList` inside an array, with room to spare.
const MAX_LIST_DEPTH: usize = 4;

/// Evaluates records in any order, and defers those that depend on order.
#[derive(Debug)]
pub struct ParallelPass<'d> {
    detector: &'d Detector,
    evaluator: Evaluator,
    stats: Stats,
    position: u64,
    matches: Vec<usize>,
    /// Whether the current event is deferred to the ordered pass.
    is_deferred: bool,
    /// Whether every event that matches a rule is deferred.
    defers_matches: bool,
    prefilter_switch: PrefilterSwitch,
    unwrapper: Unwrapper,
}

/// State while reading one buffer.
struct Buffer<'c, 'f> {
    bytes: &'c [u8],
    records: Records<'c>,
    /// The time of the last event before the offset, if it was determined.
    neighbor: (usize, Option<i64>),
    scan: BufferScan,
    /// Start of the next line that begins with `{`, as far as determined.
    next_object: usize,
    /// Lines before this position are known not to be continued by the next line.
    not_continued: usize,
    /// The end of the last line that was searched for the end of another event, and whether it contains one.
    tail: (usize, bool),
    cache: EvalCache<'c>,
    on_output: OnOutput<'f, 'c>,
}

/// Longer lines are not skipped; in shorter lines no member is [oversized](Event::oversized).
const MAX_SKIPPED_LEN: usize = event::MIN_OVERSIZED_LEN;

/// The start of a line that contains one event in the apiserver's format. Events of other APIs start in the same way, up to the version.
const PLAIN_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

/// Whether a line is one complete event without anomalies, judging by its form alone.
#[inline]
fn is_skippable(line: &[u8]) -> bool {
    line.starts_with(PLAIN_START) && line.len() <= MAX_SKIPPED_LEN && ends_like_an_event(line)
}

/// Whether a text that starts with a bracket can be JSON, judging by the characters after its first brackets. Otherwise the brackets belong
/// to a header, such as `[pod/web-0/web] `, and the text after it was written by the pod: an event in it is not the record of an
/// interrupted writer.
fn starts_json(text: &[u8]) -> bool {
    let is_start = |byte: &u8| matches!(byte, b'{' | b'[') || byte.is_ascii_whitespace();
    let next = text.iter().find(|byte| !is_start(byte));
    next.is_none_or(|byte| matches!(byte, b'"' | b'}' | b']' | 0))
}

impl<'d> ParallelPass<'d> {
    pub(super) fn new(detector: &'d Detector) -> Self {
        ParallelPass {
            detector,
            evaluator: detector.evaluator(),
            stats: Stats::default(),
            position: 0,
            matches: Vec::new(),
            is_deferred: false,
            defers_matches: false,
            prefilter_switch: PrefilterSwitch::default(),
            unwrapper: Unwrapper::new(detector.options.max_event_size),
        }
    }

    /// Unwraps the records of a buffer, for [`ParallelPass::chunk`]; none if they have no wrapper.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Unwrapped> {
        let plain = self.unwrapper.unwrap(bytes);
        self.count_skipped(bytes);
        plain
    }

    /// Unwraps one queue message, which may be compressed as a whole.
    pub fn unwrap_message(&mut self, message: &[u8]) -> Option<Unwrapped> {
        let plain = self.unwrapper.unwrap_message(message);
        self.count_skipped(message);
        plain
    }

    /// Unwraps the head of a record that is longer than the limit, for [`ParallelPass::head`].
    pub fn unwrap_head(&mut self, head: &[u8]) -> Option<Unwrapped> {
        let plain = self.unwrapper.unwrap_head(head);
        self.count_skipped(head);
        plain
    }

    pub(super) fn detector(&self) -> &'d Detector {
        self.detector
    }

    /// Defers every event that matches a rule from now on, so that the output consists of deferred events only.
    pub(super) fn defer_matches(&mut self) {
        self.defers_matches = true;
    }

    /// Sets the log that the next records come from.
    pub fn set_log(&mut self, log: &LogContext) {
        self.unwrapper.set_format(log.format);
    }

    /// Sets the column names, if the log consists of comma-separated values with a header.
    pub fn set_columns(&mut self, columns: Option<&Arc<Columns>>) {
        self.unwrapper.set_columns(columns);
    }

    fn count_skipped(&mut self, bytes: &[u8]) {
        for (reason, count) in self.unwrapper.take_skipped() {
            *self.stats.skipped.entry(reason).or_default() += count;
            self.stats.note_shape(reason, bytes);
        }
    }

    /// Counts a whole record that contains no audit event.
    fn count_non_event(&mut self, reason: &'static str, record: &[u8]) {
        self.count_malformed(reason, 1);
        self.stats.note_shape(reason, record);
    }

    /// Counts an event of another log.
    fn count_other_event(&mut self, reason: &'static str, record: &[u8]) {
        *self.stats.skipped.entry(reason).or_default() += 1;
        self.stats.note_shape(reason, record);
    }

    /// Adds the counts of another pass.
    pub(super) fn add_stats(&mut self, stats: &Stats) {
        self.stats.add(stats);
    }

    /// Continues with the counts and positions of an earlier pass.
    pub(super) fn resume_from(&mut self, old: ParallelPass<'_>) {
        self.position = old.position;
        self.stats = old.stats;
    }

    /// Evaluates every record of a buffer that starts and ends at record boundaries.
    pub fn chunk<'c>(&mut self, records: Records<'c>, on_output: OnOutput<'_, 'c>) {
        let bytes = records.bytes;
        let mut buffer = self.open(records, on_output);
        let detector = self.detector;
        let prefilter = detector.prefilter.as_ref().filter(|_| self.prefilter_switch.is_worthwhile());
        let mut candidate = None;
        let (mut at, mut end, mut text_end) = (0, 0, 0);
        while at < bytes.len() {
            // A line with several records is searched only once.
            if at >= end {
                end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
                text_end = at + bytes[at..end].trim_ascii_end().len();
                steps::add(2 * (end - at));
            }
            if end - at > self.detector.options.max_event_size {
                let head = &bytes[at..at + self.detector.options.max_event_size];
                self.truncated_record(&mut buffer, head, truncated::TOO_LONG, 0);
                at = end + 1;
                continue;
            }
            let line = &bytes[at..end];
            if (detector.ignores_received || prefilter.is_some())
                && is_skippable(line)
                && !buffer.has_inner_start(at, end)
            {
                let is_ignored = detector.ignores_received
                    && ends_like_a_received_event(line)
                    && ApiserverHead::read(line).is_some_and(|head| head.is_request_received());
                let is_skipped = is_ignored
                    || prefilter.is_some_and(|prefilter| {
                        let next = match candidate {
                            Some(next) if next >= at => next,
                            _ => prefilter.find(bytes, at).unwrap_or(usize::MAX),
                        };
                        candidate = Some(next);
                        self.prefilter_switch.lines += 1;
                        self.prefilter_switch.candidates += u64::from(next < end);
                        next >= end
                    });
                if is_skipped {
                    self.stats.events += 1;
                    self.position += 1;
                    at = end + 1;
                    continue;
                }
            }
            at = self.line(&mut buffer, at, text_end.max(at), end);
        }
        self.count_notes(&buffer);
    }

    /// Evaluates an event from the first bytes of its record, which exceeds the limit.
    pub fn head<'c>(&mut self, head: Records<'c>, on_output: OnOutput<'_, 'c>) {
        let mut buffer = self.open(head, on_output);
        self.truncated_record(&mut buffer, head.bytes, truncated::TOO_LONG, 0);
        self.count_notes(&buffer);
    }

    /// The counts since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    fn open<'c, 'f>(&self, records: Records<'c>, on_output: OnOutput<'f, 'c>) -> Buffer<'c, 'f> {
        let scan = self.detector.scanner.search(records.bytes);
        Buffer {
            bytes: records.bytes,
            records,
            neighbor: (0, None),
            scan,
            next_object: 0,
            not_continued: 0,
            tail: (0, false),
            cache: EvalCache::new(&self.detector.plan),
            on_output,
        }
    }

    fn count_notes(&mut self, buffer: &Buffer<'_, '_>) {
        self.count_malformed(malformed::UTF8, buffer.scan.invalid_utf8);
        self.count_malformed(malformed::SURROGATE, buffer.scan.lone_surrogates);
        if buffer.scan.truncated > 0 {
            *self.stats.truncated.entry(truncated::APISERVER).or_default() += buffer.scan.truncated;
        }
    }

    fn count_malformed(&mut self, reason: &'static str, lines: u64) {
        if lines > 0 {
            *self.stats.malformed.entry(reason).or_default() += lines;
        }
    }

    /// Evaluates the record that starts on the line at `at`, and returns where to continue. `text_end` is the end of the line without
    /// trailing whitespace.
    fn line(&mut self, buffer: &mut Buffer<'_, '_>, at: usize, text_end: usize, end: usize) -> usize {
        let line = &buffer.bytes[at..text_end];
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start();
        // Fast path for the common case: a line that is one complete event.
        if text.first() == Some(&b'{')
            && text.last() == Some(&b'}')
            && !buffer.has_inner_start(at, end)
            && self.object(buffer, text, 0) == Ok(())
        {
            return end + 1;
        }
        match text.first() {
            None => end + 1,
            Some(b'{' | b'[') if starts_json(text) => {
                let start = at + line.len()
                    - line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start().len();
                self.record(buffer, start)
            }
            Some(first @ (b'{' | b'[')) => {
                let reason = match first {
                    b'{' => malformed::SYNTAX,
                    _ if Raw::first(text).is_ok() => malformed::NO_EVENT,
                    _ => malformed::NOT_JSON,
                };
                self.count_non_event(reason, line);
                end + 1
            }
            // The end of a list with one element per line.
            _ if text.iter().all(|byte| matches!(byte, b']' | b'}' | b',') || byte.is_ascii_whitespace()) => {
                end + 1
            }
            Some(_) => {
                self.count_non_event(malformed::NOT_JSON, line);
                end + 1
            }
        }
    }

    /// Evaluates the record that starts at `at` and may span several lines, and returns where to continue.
    ///
    /// The record ends where its brackets close, but before the next line that starts with `{`: no line inside an indented value starts
    /// like that.
    fn record(&mut self, buffer: &mut Buffer<'_, '_>, at: usize) -> usize {
        let bytes = buffer.bytes;
        let extent = buffer.extent(at);
        if let Extent::Closed(end) = extent
            && let Some(line_end) = buffer.end_of_tail(at, end)
        {
            self.count_malformed(malformed::TAIL, 1);
            return line_end;
        }
        let end = match extent {
            Extent::Closed(end) if self.value(buffer, Raw::assume(&bytes[at..end])) == Ok(()) => end,
            Extent::Closed(end) => {
                let limit = buffer.next_object(end - 1);
                self.truncated_record(buffer, &bytes[at..limit], truncated::CUT, 0);
                return limit;
            }
            Extent::Open(end) => {
                self.truncated_record(buffer, &bytes[at..end], truncated::CUT, 0);
                return end;
            }
        };
        let limit = buffer.next_object(end - 1);
        let rest = &bytes[end..limit];
        let Some(next) =
            rest.iter().position(|byte| !(matches!(byte, b',' | b']') || byte.is_ascii_whitespace()))
        else {
            return limit;
        };
        if !matches!(rest[next], b'{' | b'[') {
            self.count_malformed(malformed::TRAILING, 1);
            return memchr::memchr(b'\n', rest).map_or(limit, |newline| end + newline + 1);
        }
        end + next
    }

    /// Evaluates a whole JSON value: an event or a list of events.
    fn value<'c>(&mut self, buffer: &mut Buffer<'c, '_>, raw: Raw<'c>) -> Result<(), JsonError> {
        if raw.kind() == Type::Object {
            return self.object(buffer, raw.bytes(), 0);
        }
        self.elements(buffer, raw, truncated::CUT, 0);
        Ok(())
    }

    /// Evaluates the elements of a list. A malformed element does not affect the others.
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
                        self.count_non_event(malformed::SYNTAX, item.bytes());
                    }
                }
                Ok(item) => self.count_non_event(malformed::NO_EVENT, item.bytes()),
                Err(JsonError::Truncated) => {
                    self.truncated_record(buffer, cursor.remainder(), reason, depth + 1);
                }
                Err(JsonError::Syntax) => self.count_non_event(malformed::SYNTAX, list.bytes()),
            }
        }
    }

    /// Evaluates an object: an event or an `EventList`. On error nothing was counted or emitted.
    fn object<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        bytes: &'c [u8],
        depth: usize,
    ) -> Result<(), JsonError> {
        let mut event = Event::new(bytes);
        event.set_origin(buffer.records.origin_of(bytes));
        if !bytes.starts_with(PLAIN_START) {
            match event.text(Member::Kind).as_deref() {
                Some(b"Event") => {}
                Some(b"EventList") if depth < MAX_LIST_DEPTH => {
                    event.finish()?;
                    if let Some(items) = event.member_by_name("items") {
                        self.elements(buffer, items, truncated::CUT, depth + 1);
                    }
                    return Ok(());
                }
                None if event.get(Member::AuditId).is_some() => {}
                _ => {
                    event.finish()?;
                    self.count_non_event(malformed::NO_EVENT, bytes);
                    return Ok(());
                }
            }
            if let Some(reason) = other_event(&mut event) {
                event.finish()?;
                self.count_other_event(reason, bytes);
                return Ok(());
            }
            event.state()?;
        }
        self.event(buffer, &mut event)
    }

    /// Evaluates one event that must be complete.
    fn event<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) -> Result<(), JsonError> {
        self.match_rules(buffer, event);
        if self.is_deferred || !self.matches.is_empty() {
            event.finish()?;
            if event.is_followed() {
                // The line contains more than one record, or the end of another one, and is read accordingly.
                return Err(JsonError::Syntax);
            }
            if self.is_of_other_stream(event) {
                return Ok(());
            }
        }
        event.state()?;
        self.report(buffer, event);
        Ok(())
    }

    /// Whether members that a shipper added to an event name a stream other than an apiserver's. If so, counts the event. It must have been
    /// read to its end.
    fn is_of_other_stream(&mut self, event: &mut Event<'_>) -> bool {
        if !event.has_other_members() {
            return false;
        }
        let reason = envelope::skip_reason(event.bytes());
        if let Some(reason) = reason {
            self.count_other_event(reason, event.bytes());
        }
        reason.is_some()
    }

    /// Evaluates the available part of a truncated record.
    fn truncated_record<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        bytes: &'c [u8],
        reason: &'static str,
        depth: usize,
    ) {
        // NUL bytes are left of a line after a crash or a truncation of the file.
        let is_blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
        let end = bytes.iter().rposition(|byte| !is_blank(byte)).map_or(0, |at| at + 1);
        let text = bytes[..end].trim_ascii();
        // A lone bracket opens a list with one element per line.
        if text.is_empty() || text == b"[" {
            return;
        }
        if text.first() == Some(&b'[') && depth < MAX_LIST_DEPTH {
            return self.elements(buffer, Raw::assume(text), reason, depth + 1);
        }
        let mut event = Event::new(text);
        event.set_origin(buffer.records.origin_of(text));
        if event.finish() == Err(JsonError::Syntax) {
            return self.count_non_event(malformed::SYNTAX, text);
        }
        if let Some(reason) = other_event(&mut event) {
            return self.count_other_event(reason, text);
        }
        let is_audit = event.get(Member::AuditId).is_some()
            || event.text(Member::ApiVersion).is_none_or(|version| version.starts_with(b"audit.k8s.io/"));
        match event.text(Member::Kind).as_deref() {
            Some(b"EventList") if depth < MAX_LIST_DEPTH => {
                if let Some(items) = event.member_by_name("items") {
                    self.elements(buffer, items, reason, depth + 1);
                }
            }
            // The audit id may be longer than the available part of the line.
            Some(b"Event") if is_audit => self.truncated_event(buffer, &mut event, reason),
            None if event.get(Member::AuditId).is_some() => self.truncated_event(buffer, &mut event, reason),
            None => self.count_non_event(malformed::SYNTAX, text),
            Some(_) => self.count_non_event(malformed::NO_EVENT, text),
        }
    }

    fn truncated_event<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        event: &mut Event<'c>,
        reason: &'static str,
    ) {
        *self.stats.truncated.entry(reason).or_default() += 1;
        if event.time().is_none() {
            let neighbor = buffer.neighbor_time(event);
            event.set_time(neighbor.map(|time| (time, TimeSource::PreviousEvent)));
        }
        self.match_rules(buffer, event);
        if (self.is_deferred || !self.matches.is_empty()) && self.is_of_other_stream(event) {
            return;
        }
        self.report(buffer, event);
    }

    fn match_rules<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) {
        self.matches.clear();
        self.is_deferred = false;
        buffer.cache.next_event();
        let input = self.input();
        let mut eval = EvalContext {
            plan: &self.detector.plan,
            cache: &mut buffer.cache,
            event,
            input,
            cluster_state: None,
            window: None,
        };
        let is_outside = self.detector.is_outside_range(eval.event);
        if is_outside && !self.detector.plan.needs_cluster_state {
            return;
        }
        let residual = self.evaluator.residual_rules(&mut eval);
        if residual.order_dependency.applies_to(eval.event) {
            self.is_deferred = true;
        } else if !is_outside {
            residual.evaluate(&mut eval, &self.detector.guards, &mut self.matches);
            // Throttles and correlations depend on the order of matches.
            let needs_order = |&rule: &usize| self.detector.plan.rules[rule].needs_ordered_pass();
            self.is_deferred = self.matches.iter().any(needs_order);
        }
    }

    /// Counts an event and emits or defers what it matched.
    fn report<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) {
        let updates_state_only = self.detector.is_outside_range(event);
        let input = self.input();
        // The ordered pass knows the records before this buffer.
        if !self.matches.is_empty() && event.time().is_none() {
            self.is_deferred = true;
        }
        let is_independent = !self.is_deferred;
        if updates_state_only {
            self.stats.outside_time_range += 1;
        } else {
            self.stats.events += 1;
            self.position += 1;
            if event.has_duplicate_members() {
                self.count_malformed(malformed::REPEATED, 1);
            }
        }
        if self.is_deferred || self.defers_matches && !self.matches.is_empty() {
            let time = event.time_and_source().filter(|(_, source)| *source == TimeSource::PreviousEvent);
            (buffer.on_output)(Output::Deferred(
                event,
                DeferredEvent { position: input.position, updates_state_only, is_independent, time },
            ));
        } else if !self.matches.is_empty() {
            let plan = &self.detector.plan;
            let mut eval = EvalContext {
                plan,
                cache: &mut buffer.cache,
                event,
                input,
                cluster_state: None,
                window: None,
            };
            let incident = eval.alert_context();
            let hostname = &self.detector.options.hostname;
            for &matched in &self.matches {
                let alert = Alert::new(&plan.rules[matched], &mut eval, &incident, hostname);
                (buffer.on_output)(Output::Alert(&alert));
            }
        }
    }

    fn input(&self) -> InputContext<'d> {
        self.detector.input(self.position + 1)
    }
}

/// Returns whether a text that starts with a record continues as an event of which the record is a part: with the time of its stage, which
/// the apiserver writes after everything that a client sends, outside of every bracket that the text opens.
fn is_tail(text: &[u8]) -> bool {
    const TIME: &[u8] = b"stageTimestamp\"";
    steps::add(text.len());
    let (mut depth, mut at) = (0_i64, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                if depth < 0 && text[at..].starts_with(TIME) {
                    return true;
                }
                let Ok(string) = Raw::first(&text[at - 1..]) else { return false };
                at += string.bytes().len() - 1;
            }
            _ => {}
        }
    }
    false
}

/// The extent of a record's text.
enum Extent {
    /// Its brackets close before this position.
    Closed(usize),
    /// Its text ends here, inside a value.
    Open(usize),
}

impl Buffer<'_, '_> {
    /// The time of the last complete event before this one in the buffer. Each line is searched once.
    fn neighbor_time(&mut self, event: &mut Event<'_>) -> Option<i64> {
        let start = event.bytes().as_ptr().addr().saturating_sub(self.bytes.as_ptr().addr());
        let start = start.min(self.bytes.len());
        let (searched, known) = self.neighbor;
        let mut end = start;
        let mut found = None;
        while found.is_none() && end > searched {
            let line_start = match memchr::memrchr(b'\n', &self.bytes[searched..end - 1]) {
                Some(at) => searched + at + 1,
                None if searched == 0 || self.bytes[searched - 1] == b'\n' => searched,
                // Inside a line whose start was searched: the line contains more than one complete event.
                None => break,
            };
            let line = &self.bytes[line_start..end];
            steps::add(line.len());
            found = last_time(line);
            end = line_start;
        }
        let time = found.or(known);
        self.neighbor = (start.max(searched), time);
        time
    }

    /// Finds the end of the record that starts at `at`.
    ///
    /// After an interrupted write, another event may start in the middle of a line, and a line may have been split into several. The
    /// grammar distinguishes both cases from an event that a client nested into a body, which is never a record.
    fn extent(&mut self, at: usize) -> Extent {
        let bytes = self.bytes;
        let limit = self.next_object(at);
        let mut inner = self.inner_start(at + 1, limit);
        let first_end = inner.unwrap_or(limit);
        if let Ok(raw) = Raw::first(&bytes[at..first_end]) {
            return Extent::Closed(at + raw.bytes().len());
        }
        let may_be_continued = limit < bytes.len() && limit > self.not_continued && bytes[at] == b'{';
        let is_continued = |limit: usize| {
            may_be_continued && matches!(bytes[at..limit].trim_ascii_end().last(), Some(b':' | b'[' | b','))
        };
        if inner.is_none() && !is_continued(limit) {
            return Extent::Open(limit);
        }
        let mut json = JsonPrefix::default();
        let mut from = at;
        loop {
            let to = inner.unwrap_or(limit);
            if let Some(length) = json.push(&bytes[from..to]) {
                return Extent::Closed(from + length);
            }
            if inner.is_none() {
                break;
            }
            if !json.can_continue_with(&bytes[to..limit]) {
                return Extent::Open(to);
            }
            from = to;
            inner = self.inner_start(to + 1, limit);
        }
        let mut to = limit;
        let is_continued = is_continued(limit);
        while is_continued && to < bytes.len() && json.can_continue_with(&bytes[to..]) {
            let next = self.next_object(to);
            if let Some(length) = json.push(&bytes[to..next]) {
                return Extent::Closed(to + length);
            }
            to = next;
        }
        self.not_continued = self.not_continued.max(to);
        // The search continued from here.
        self.next_object = 0;
        Extent::Open(limit)
    }

    /// Returns the end of the line if the record from `at` to `end` is part of another event whose beginning is missing, because the first
    /// piece of a split line was lost: the line closes brackets that it does not open, and members of an event follow. A client could
    /// choose the content of such a record.
    fn end_of_tail(&mut self, at: usize, end: usize) -> Option<usize> {
        let rest = &self.bytes[end..];
        let next = rest.iter().find(|byte| !matches!(byte, b',' | b' ' | b'\t' | b'\r'));
        if !matches!(next, Some(b']' | b'}')) {
            return None;
        }
        let line_end = memchr::memchr(b'\n', rest).map_or(self.bytes.len(), |newline| end + newline + 1);
        // Each line is searched once, from its first record on.
        if self.tail.0 != line_end {
            self.tail = (line_end, is_tail(&self.bytes[at..line_end]));
        }
        self.tail.1.then_some(line_end)
    }

    /// Start of the first line after `at` that begins with `{`; the end of the buffer if there is none.
    fn next_object(&mut self, at: usize) -> usize {
        if self.next_object <= at {
            let found = memchr::memmem::find(&self.bytes[at..], b"\n{");
            self.next_object = found.map_or(self.bytes.len(), |found| at + found + 1);
            steps::add(self.next_object - at);
        }
        self.next_object
    }

    fn inner_start(&self, from: usize, to: usize) -> Option<usize> {
        let starts = &self.scan.inner_starts;
        let next = starts.partition_point(|&start| start < from);
        starts.get(next).copied().filter(|&start| start < to)
    }

    #[inline]
    fn has_inner_start(&self, from: usize, to: usize) -> bool {
        !self.scan.inner_starts.is_empty() && self.inner_start(from + 1, to).is_some()
    }
}
