//! The first half of a session: reads everything, judges what stands for itself.

use super::stats::{Counts, malformed, truncated};
use super::{Detector, Found, OnFound, Turn};
use crate::detection::audit::buffer_scan::BufferScan;
use crate::detection::audit::envelope::Unwrapper;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Cursor, JsonError, Raw, Type};
use crate::detection::engine::alert::Alert;
use crate::detection::engine::alert_context::Incident;
use crate::detection::engine::evaluator::{Case, Judge, Sight};
use crate::detection::engine::extract::Context;

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
    unwrapper: Unwrapper,
}

/// One buffer on its way through a scout.
struct Buffer<'c, 'f> {
    bytes: &'c [u8],
    scan: BufferScan,
    /// Where the next line starts that starts with `{`, as far as it was looked for.
    next_object: usize,
    sight: Sight<'c>,
    on_found: OnFound<'f, 'c>,
}

/// How a line starts that is one event as the apiserver writes it.
const PLAIN_START: &[u8] = br#"{"kind":"Event","#;

impl<'d> Scout<'d> {
    /// One that has seen nothing yet.
    pub(super) fn new(detector: &'d Detector) -> Self {
        Scout {
            detector,
            judge: detector.judge(),
            counts: Counts::default(),
            position: 0,
            matches: Vec::new(),
            is_later: false,
            skimming: Skimming::default(),
            unwrapper: Unwrapper::new(detector.options.max_event_size),
        }
    }

    /// The records of a buffer without what wraps them; nothing where nothing does. For [`Scout::chunk`].
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let plain = self.unwrapper.unwrap(bytes);
        self.count_skipped();
        plain
    }

    /// The same of one message of a queue, which may be compressed as a whole.
    pub fn unwrap_message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let plain = self.unwrapper.unwrap_message(message);
        self.count_skipped();
        plain
    }

    /// The same of the beginning of a record that is longer than the limit. For [`Scout::head`].
    pub fn unwrap_head(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        self.unwrapper.unwrap_head(head)
    }

    fn count_skipped(&mut self) {
        for (reason, count) in self.unwrapper.take_skipped() {
            *self.counts.skipped.entry(reason).or_default() += count;
        }
    }

    /// Adds what somebody else saw.
    pub(super) fn add_counts(&mut self, counts: &Counts) {
        self.counts.add(counts);
    }

    /// Counts on where another stopped.
    pub(super) fn resume_from(&mut self, old: Scout<'_>) {
        self.position = old.position;
        self.counts = old.counts;
    }

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
        let scan = self.detector.scanner.search(bytes);
        Buffer { bytes, scan, next_object: 0, sight: Sight::new(&self.detector.plan), on_found }
    }

    fn close(&mut self, buffer: &Buffer<'_, '_>) {
        self.malformed_lines(malformed::UTF8, buffer.scan.invalid_utf8);
        self.malformed_lines(malformed::SURROGATE, buffer.scan.lone_surrogates);
        if buffer.scan.truncated > 0 {
            *self.counts.truncated.entry(truncated::APISERVER).or_default() += buffer.scan.truncated;
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
    fn value<'c>(&mut self, buffer: &mut Buffer<'c, '_>, raw: Raw<'c>) -> Result<(), JsonError> {
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
                Err(JsonError::Truncated) => self.cut(buffer, cursor.remainder(), reason, depth + 1),
                Err(JsonError::Syntax) => self.malformed_lines(malformed::SYNTAX, 1),
            }
        }
    }

    /// Judges an object: an event, or an `EventList`. Where it is broken nothing was counted or said.
    fn object<'c>(
        &mut self,
        buffer: &mut Buffer<'c, '_>,
        bytes: &'c [u8],
        depth: usize,
    ) -> Result<(), JsonError> {
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
    fn event<'c>(&mut self, buffer: &mut Buffer<'c, '_>, event: &mut Event<'c>) -> Result<(), JsonError> {
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
            _ if broken == Err(JsonError::Syntax) => self.malformed_lines(malformed::SYNTAX, 1),
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
            cluster_state: None,
            window: None,
        };
        let is_outside = self.detector.is_outside_range(case.event);
        if is_outside && !self.detector.plan.needs_cluster_state {
            return;
        }
        let prospect = self.judge.prospect(&mut case);
        if prospect.order_dependency.applies_to(case.event) {
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
            if event.has_duplicate_members() {
                self.malformed_lines(malformed::REPEATED, 1);
            }
        }
        if self.is_later {
            (buffer.on_found)(Found::Later(event, Turn { position: context.position, only_teaches }));
        } else if !self.matches.is_empty() {
            let plan = &self.detector.plan;
            let mut case =
                Case { plan, sight: &mut buffer.sight, event, context, cluster_state: None, window: None };
            let exposure = case.exposure();
            let incident = Incident::new(case.event, exposure);
            let hostname = &self.detector.options.hostname;
            for &matched in &self.matches {
                let alert = Alert::new(&plan.rules[matched], &mut case, &incident, hostname);
                (buffer.on_found)(Found::Alert(&alert));
            }
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
        let starts = &self.scan.inner_starts;
        let next = starts.partition_point(|&start| start < from);
        starts.get(next).copied().filter(|&start| start < to)
    }

    #[inline]
    fn has_inner_start(&self, from: usize, to: usize) -> bool {
        !self.scan.inner_starts.is_empty() && self.inner_start(from + 1, to).is_some()
    }
}
