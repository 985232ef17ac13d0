//! Extracts audit events from the records of log shippers, container runtimes, log stores and clouds.
//!
//! Takes a buffer of records in any wrapper; returns the events, one per line, and the metadata in their wrappers: the cluster, and a time
//! for an event that has none. Raw events, arrays and `EventList`s are left as they are, which costs one comparison per line. An event
//! keeps its text, so its alerts have the same ids with any wrapper. Google's entries contain no audit event; one is built from them.
//!
//! One rule reads all wrappers: from the outside in, up to a depth, through members that are known to hold a record or a line (`shape`),
//! and through text in the format of a header (`prefix`). The search ends at an event or any other Kubernetes object, because clients
//! control their content. No text inside a record may become a record of its own.
//!
//! If a wrapper names the stream that a record comes from, only records of the apiserver count (`stream`). Lines that a runtime split are
//! joined (`partial`); the beginning of a truncated event is completed (`truncated`); compressed data is unpacked up to a limit. A wrapper
//! without an event is counted under a reason ([`skipped`]); anything else is left to the event parser. All work is linear in the size of a
//! buffer.

mod annotations;
mod azure_table;
mod context;
mod csv;
mod encoding;
mod format;
mod google;
mod heading;
mod line_tracker;
mod object;
mod otel;
mod partial;
mod pod;
mod prefix;
mod shape;
pub mod skipped;
mod stream;
mod stringified;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod times;
mod truncated;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use csv::Row;
pub use csv::{Columns, HeaderSearch};
pub use format::Format;
pub use line_tracker::{LineRole, LineTracker};

use super::event_end::ends_like_an_event;
use super::json::{JsonError, Raw, Type};
use super::origin::Unwrapped;
use super::steps;
use context::Context;
use format::Wrapper;
use heading::Heading;
use partial::{CriLine, JoinResult, OpenLines, Piece};
use shape::{PLAIN_START, Shape};

/// The earliest position at which the next record can start.
static NEXT_OBJECT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n{"));

/// Maximum nesting, in steps into wrappers. Each wrapper takes two or three steps.
const MAX_DEPTH: usize = 16;

/// How a message ends that CloudWatch truncated.
const TRUNCATION_MARK: &[u8] = b"[Truncated...]";

/// Extracts events from their wrappers.
#[derive(Clone, Debug)]
pub struct Unwrapper {
    /// Maximum number of bytes unpacked from one record, and maximum length of a line that is joined from pieces.
    limit: usize,
    format: Format,
    skipped: BTreeMap<&'static str, u64>,
    /// Within one buffer.
    open_lines: OpenLines,
    /// The cluster of the last record. Most records have the same one.
    cluster: Option<Arc<[u8]>>,
    /// The column names, if the log consists of comma-separated values.
    columns: Option<Arc<Columns>>,
}

/// The result of unwrapping a buffer.
#[derive(Debug, Default)]
struct Output {
    unwrapped: Unwrapped,
    /// Whether anything was wrapped. Until then nothing is copied.
    is_used: bool,
}

impl Output {
    /// Appends text that is no longer wrapped.
    fn push(&mut self, text: &[u8], context: &Context) {
        self.is_used = true;
        if !text.is_empty() {
            self.unwrapped.mark(context.cluster.as_ref(), context.time);
            self.unwrapped.bytes.extend_from_slice(text);
        }
    }

    fn end_line(&mut self) {
        if self.unwrapped.bytes.last().is_some_and(|last| *last != b'\n') {
            self.unwrapped.bytes.push(b'\n');
        }
    }

    fn finish(self) -> Option<Unwrapped> {
        self.is_used.then_some(self.unwrapped)
    }
}

/// What starts at a position in a buffer.
enum Start {
    /// A wrapper of this length.
    Wrapper(usize),
    /// Something else; the next wrapper can start after this length at the earliest.
    Other(usize),
}

impl Unwrapper {
    /// An unwrapper that unpacks at most `limit` bytes per record.
    pub fn new(limit: usize) -> Self {
        Unwrapper {
            limit,
            format: Format::Auto,
            skipped: BTreeMap::new(),
            open_lines: OpenLines::default(),
            cluster: None,
            columns: None,
        }
    }

    /// Sets the column names, for a log of comma-separated values with a header. See [`HeaderSearch`].
    pub fn set_columns(&mut self, columns: Option<&Arc<Columns>>) {
        self.columns = columns.cloned();
    }

    /// Restricts the input to a format.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The number of skipped records by reason since the last call.
    pub fn take_skipped(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.skipped)
    }

    fn outermost(&self) -> Context {
        Context { is_admitted: self.format.admits_raw(), ..Context::default() }
    }

    /// Unwraps the records of a buffer; `None` if nothing is wrapped. The buffer starts and ends at record boundaries: see
    /// [`LineTracker`].
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Unwrapped> {
        let mut out = Output::default();
        self.records(bytes, 0, &self.outermost(), &mut out);
        self.finish_lines(&mut out);
        out.finish()
    }

    /// Unwraps one message of a queue, which may be compressed as a whole.
    pub fn unwrap_message(&mut self, message: &[u8]) -> Option<Unwrapped> {
        if message.trim_ascii().is_empty() {
            self.skip(skipped::EMPTY);
            return Some(Unwrapped::default());
        }
        if !encoding::is_gzip(message) {
            return self.unwrap(message);
        }
        let mut out = Output { is_used: true, ..Output::default() };
        self.unpack(message, 0, &self.outermost(), &mut out);
        self.finish_lines(&mut out);
        out.finish()
    }

    /// Unwraps the beginning of a record that exceeds the limit.
    pub fn unwrap_head(&mut self, head: &[u8]) -> Option<Unwrapped> {
        let mut out = Output::default();
        // The text ends inside a value. If it is not wrapped, it is left to the event parser.
        self.records(head, 0, &self.outermost(), &mut out);
        self.finish_lines(&mut out);
        out.finish()
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Evaluates what is available of lines whose last piece is missing.
    fn finish_lines(&mut self, out: &mut Output) {
        for line in self.open_lines.finish() {
            self.text(&line.text, 0, &line.context, out);
        }
        let dropped = std::mem::take(&mut self.open_lines.dropped_pieces);
        if dropped > 0 {
            *self.skipped.entry(skipped::PIECE).or_default() += dropped;
        }
    }

    /// Appends the part of a buffer that is not wrapped, unless the configured format requires a wrapper.
    fn raw(&mut self, text: &[u8], context: &Context, out: &mut Output) {
        if context.is_admitted {
            return out.push(text, context);
        }
        out.is_used = true;
        for _ in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            self.skip(skipped::OTHER_FORMAT);
        }
    }

    /// Unwraps the records of a buffer. As long as nothing is wrapped, nothing is copied.
    fn records(&mut self, bytes: &[u8], depth: usize, context: &Context, out: &mut Output) {
        // If `out` is used, it contains everything before `done`.
        let (mut done, mut at, mut end) = (0, 0, 0);
        // All events of a log have the same format.
        let is_changed = !context.is_admitted || is_changed(bytes);
        let has_strings = stringified::may_be_in(bytes);
        let mut next_object = 0;
        while at < bytes.len() {
            // A line with several records is searched only once.
            if at >= end {
                end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
                steps::add(end - at);
            }
            let line = &bytes[at..end];
            if line.starts_with(PLAIN_START) && !is_changed && ends_like_an_event(line) {
                if let Some(text) = has_strings.then(|| stringified::expand(line)).flatten() {
                    self.raw(&bytes[done..at], context, out);
                    self.raw(text.trim_ascii_end(), context, out);
                    out.end_line();
                    done = bytes.len().min(end + 1);
                }
                at = end + 1;
                continue;
            }
            // NUL bytes, left behind when a file is truncated while it is being written.
            if line.first() == Some(&0) {
                let hole = line.iter().take_while(|byte| **byte == 0).count();
                steps::add(hole);
                self.raw(&bytes[done..at], context, out);
                out.is_used = true;
                at += hole;
                done = at;
                continue;
            }
            if depth == 0
                && self.format != Format::Raw
                && self.columns.as_ref().is_some_and(|columns| columns.is_header(line))
            {
                // The header again, repeated in each part of concatenated files.
                self.raw(&bytes[done..at], context, out);
                out.is_used = true;
                at = end + 1;
                done = bytes.len().min(at);
                continue;
            }
            // A byte order mark, and the record separator of JSON text sequences (RFC 7464).
            let mark = line.iter().take_while(|byte| **byte == 0x1e).count();
            let start = at + if mark > 0 { mark } else { usize::from(line.starts_with(b"\xef\xbb\xbf")) * 3 };
            if !matches!(bytes.get(start), Some(b'{' | b'[')) || pod_prefix(line) {
                let is_read = self.line(
                    line,
                    |unwrapper, out| unwrapper.raw(&bytes[done..at], context, out),
                    depth,
                    context,
                    out,
                );
                if is_read {
                    done = bytes.len().min(end + 1);
                }
                if depth == 0
                    && !is_read
                    && self.format != Format::Raw
                    && let Some(heading) = Heading::of(line)
                    && let Some(record) = heading.record_below(bytes, end + 1)
                {
                    self.raw(&bytes[done..at], context, out);
                    at = record.end;
                    self.below_heading(&heading, &bytes[record], context, out);
                    // The next line, if the record ends its line.
                    at += usize::from(bytes.get(at) == Some(&b'\n'));
                    (done, end) = (at, at);
                    continue;
                }
                at = end + 1;
                continue;
            }
            // A record ends before the next line that starts with a brace.
            if next_object <= start {
                let found = NEXT_OBJECT.find(&bytes[start..]);
                next_object = found.map_or(bytes.len(), |found| start + found + 1);
                steps::add(next_object - start);
            }
            let before = &bytes[done..at];
            match self.record(&bytes[start..next_object], before, has_strings, depth, context, out) {
                Start::Wrapper(length) => {
                    at = start + length;
                    // The end of the line, and the separator between list elements.
                    while bytes.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',') {
                        at += 1;
                    }
                    done = at;
                }
                Start::Other(length) => {
                    let rest = start + length;
                    at = memchr::memchr(b'\n', &bytes[rest..]).map_or(bytes.len(), |found| rest + found + 1);
                    steps::add(at - rest);
                }
            }
        }
        if out.is_used || !context.is_admitted {
            self.raw(&bytes[done.min(bytes.len())..], context, out);
        }
    }

    /// Unwraps a line of a container log, or a line with a header. `before` appends the text before it. Returns false if the line is
    /// neither.
    fn line(
        &mut self,
        line: &[u8],
        before: impl FnOnce(&mut Self, &mut Output),
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) -> bool {
        if self.format == Format::Raw {
            return false;
        }
        if let Some(line) = CriLine::parse(line) {
            before(self, out);
            out.is_used = true;
            let mut inner = self.admit(Wrapper::Cri, context);
            inner.time = times::text(line.time).or(context.time);
            self.piece(|| line.stream.to_vec(), line.piece, depth, &inner, out);
            return true;
        }
        let line = line.trim_ascii_end();
        let columns = if depth == 0 { self.columns.clone() } else { None };
        match columns.as_ref().map(|columns| columns.row(line)) {
            Some(Row::Record(object)) => {
                before(self, out);
                out.is_used = true;
                self.value(Raw::assume(&object), depth, &self.admit(Wrapper::Text, context), out);
                return true;
            }
            Some(Row::Mismatch) => {
                before(self, out);
                out.is_used = true;
                self.skip(skipped::OTHER_COLUMNS);
                return true;
            }
            Some(Row::Other) | None => {}
        }
        if columns.is_none()
            && let Some(field) = csv::event(line)
        {
            before(self, out);
            out.is_used = true;
            if let Some(reason) = field.source.skip_reason() {
                self.skip(reason);
                return true;
            }
            let mut inner = self.admit(Wrapper::Text, context);
            inner.time = field.time.or(context.time);
            self.text(&field.event, depth, &inner, out);
            return true;
        }
        // A line that is a JSON string.
        if line.starts_with(b"\"{")
            && let Ok(text) = Raw::first(line)
            && text.bytes().len() == line.len()
        {
            before(self, out);
            out.is_used = true;
            self.value(text, depth, &self.admit(Wrapper::Json, context), out);
            return true;
        }
        let prefix = if depth == 0 { prefix::strip(line) } else { prefix::strip_nested(line) };
        let Some(prefix) = prefix else { return false };
        before(self, out);
        out.is_used = true;
        if let Err(reason) = prefix.check_stream() {
            self.skip(reason);
            return true;
        }
        let wrapper = if prefix.log_stream.is_some() { Wrapper::Cloudwatch } else { Wrapper::Text };
        let mut inner = self.admit(wrapper, context);
        // Lines of CloudWatch exports to S3 start with a time only.
        inner.is_admitted |= self.format == Format::In(Wrapper::Cloudwatch) && prefix.stream.is_empty();
        inner.time = prefix.time.or(context.time);
        match CriLine::parse(prefix.text) {
            Some(line) => {
                let stream = || [&partial::stream_of_prefix(prefix.stream), line.stream].concat();
                self.piece(stream, line.piece, depth, &inner, out);
            }
            None => {
                let piece = Piece::after_prefix(prefix.text);
                self.piece(|| partial::stream_of_prefix(prefix.stream), piece, depth, &inner, out);
            }
        }
        true
    }

    /// Unwraps an indented record below a line that names its log stream.
    fn below_heading(&mut self, heading: &Heading<'_>, record: &[u8], context: &Context, out: &mut Output) {
        out.is_used = true;
        if let Some(reason) = heading.skip_reason() {
            return self.skip(reason);
        }
        let mut inner = self.admit(Wrapper::Cloudwatch, context);
        inner.time = heading.time.or(context.time);
        self.value(Raw::first(record).unwrap_or(Raw::assume(record)), 1, &inner, out);
    }

    /// The context of the wrapper's content.
    fn admit(&self, wrapper: Wrapper, context: &Context) -> Context {
        Context { is_admitted: context.is_admitted || self.format.admits(wrapper), ..context.clone() }
    }

    /// Reads the record at the start of `bytes`, which end before the next record. `before` is the preceding text that was not copied yet.
    fn record(
        &mut self,
        bytes: &[u8],
        before: &[u8],
        has_strings: bool,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) -> Start {
        // The first line by itself: a search through all bytes for each of many lines that were cut would take quadratic time.
        let line = &bytes[..memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1)];
        let (mut bytes, mut is_marked) = (bytes, false);
        let (record, is_truncated) = if let Ok(record) = Raw::first(line) {
            (record, false)
        } else if let Some(text) = truncated::without_mark(line) {
            (bytes, is_marked) = (line, true);
            (Raw::assume(text), true)
        } else {
            match Raw::first(bytes) {
                Ok(record) => (record, false),
                // The line feed before the next record is not a part of it.
                Err(JsonError::Truncated) => (Raw::assume(bytes.trim_ascii_end()), true),
                Err(JsonError::Syntax) => return Start::Other(1),
            }
        };
        let length = if is_truncated { bytes.len() } else { record.bytes().len() };
        if self.format == Format::Raw {
            return Start::Other(record.bytes().len());
        }
        let shape = (record.kind() == Type::Object).then(|| Shape::of(record));
        let is_wrapper = match &shape {
            Some(shape) => shape.is_wrapper() || annotations::is_dedotted(record),
            // The first element determines how the list is read.
            None => truncated::items(record).next().is_some_and(|first| match first.kind() {
                Type::Object => Shape::of(first).is_wrapper() || annotations::is_dedotted(first),
                // Strings: the result of an AWS command line query for messages only.
                Type::String => truncated::string_of(first).trim_ascii_start().starts_with(b"{"),
                _ => false,
            }),
        };
        if is_wrapper {
            self.raw(before, context, out);
            out.is_used = true;
            match &shape {
                Some(shape) if depth <= MAX_DEPTH => self.object(record, shape, depth, context, out),
                _ => self.value(record, depth, context, out),
            }
            return Start::Wrapper(length);
        }
        let changed = if is_truncated {
            truncated::with_target(record.bytes()).or_else(|| is_marked.then(|| record.bytes().to_vec()))
        } else if has_strings {
            stringified::expand(record.bytes())
        } else {
            None
        };
        match changed {
            Some(text) => {
                self.raw(before, context, out);
                self.raw(&text, context, out);
                out.end_line();
                Start::Wrapper(length)
            }
            None => Start::Other(record.bytes().len()),
        }
    }

    /// Unwraps a record, or a list of them.
    fn value(&mut self, value: Raw<'_>, depth: usize, context: &Context, out: &mut Output) {
        match value.kind() {
            _ if depth > MAX_DEPTH => self.skip(skipped::TOO_DEEP),
            Type::Array => {
                for item in truncated::items(value) {
                    self.value(item, depth + 1, context, out);
                }
            }
            Type::Object => self.object(value, &Shape::of(value), depth, context, out),
            Type::String => self.text(&truncated::string_of(value), depth, context, out),
            Type::Scalar => self.skip(skipped::OTHER_LOG),
        }
    }

    /// Unwraps a line of a container log once all its pieces are available.
    fn piece(
        &mut self,
        stream: impl Fn() -> Vec<u8>,
        piece: Piece<'_>,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) {
        let (lines, is_whole) = match self.open_lines.push(stream, piece, context, self.limit) {
            JoinResult::Incomplete => return,
            JoinResult::Piece => (Vec::new(), true),
            JoinResult::Lines(lines) => (lines, false),
            JoinResult::LinesAndPiece(lines) => (lines, true),
        };
        for line in lines {
            self.text(&line.text, depth, &line.context, out);
        }
        if is_whole {
            self.text(piece.text, depth, context, out);
        }
    }

    /// Unwraps a text that should contain an event.
    fn text(&mut self, text: &[u8], depth: usize, context: &Context, out: &mut Output) {
        let is_blank = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
        let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(start, |at| at + 1);
        let text = &text[start..end];
        let text = text.strip_suffix(TRUNCATION_MARK).unwrap_or(text);
        if depth >= MAX_DEPTH {
            return self.skip(skipped::TOO_DEEP);
        }
        match text.first() {
            None => self.skip(skipped::EMPTY),
            Some(b'{' | b'[') if !pod_prefix(text) => {
                self.records(text, depth + 1, context, out);
                out.end_line();
            }
            // Some producers encode text twice.
            Some(b'"') => match Raw::first(text) {
                Ok(inner) if inner.bytes().len() == text.len() => self.value(inner, depth + 1, context, out),
                _ => self.skip(skipped::OTHER_LOG),
            },
            Some(_) => {
                // One line only: if a text has several, a client may have chosen the line breaks.
                let is_read = memchr::memchr(b'\n', text).is_none()
                    && self.line(text, |_, _| {}, depth + 1, context, out);
                if !is_read {
                    self.skip(skipped::OTHER_LOG);
                }
            }
        }
    }

    fn base64(&mut self, text: &[u8], depth: usize, context: &Context, out: &mut Output) {
        match encoding::base64(text) {
            Some(bytes) if encoding::is_gzip(&bytes) => self.unpack(&bytes, depth + 1, context, out),
            Some(bytes) => self.text(&bytes, depth + 1, context, out),
            None => self.skip(skipped::UNREADABLE),
        }
    }

    fn unpack(&mut self, bytes: &[u8], depth: usize, context: &Context, out: &mut Output) {
        let unpacked = encoding::gunzip(bytes, self.limit);
        match unpacked.end {
            encoding::End::Complete => {}
            encoding::End::TooLarge => self.skip(skipped::TOO_LARGE),
            encoding::End::Malformed => self.skip(skipped::UNREADABLE),
        }
        // The part that could be unpacked is evaluated.
        if !unpacked.bytes.is_empty() {
            self.text(&unpacked.bytes, depth, context, out);
        }
    }
}

/// Whether a path names the log of a container other than an apiserver: below `/var/log/containers` or `/var/log/pods`.
pub fn is_log_of_other_pod(path: &[u8]) -> bool {
    stream::is_other_path(path)
}

/// The reason to skip an event whose extra members show that it comes from a stream other than the apiserver's: a shipper merged what a pod
/// printed with the metadata of the pod. These members can be anywhere, because a pod chooses the position of the members it prints, and
/// some shippers replace values in place.
pub fn skip_reason(event: &[u8]) -> Option<&'static str> {
    stream::RecordSource::of(Raw::assume(event)).skip_reason()
}

/// Whether log shippers modified the events in a buffer, or appended members to them; all events of a log have the same format. For single
/// events, such members are found during evaluation: see [`skip_reason`].
fn is_changed(bytes: &[u8]) -> bool {
    /// The ViaQ member, Kubernetes metadata, and annotation names without dots.
    static MARKS: LazyLock<[Finder<'static>; 3]> =
        LazyLock::new(|| [&b"\"k8s_audit_level\""[..], b"\"kubernetes\":{", b"_k8s_io/"].map(Finder::new));
    const TAIL: usize = 2048;
    let text = bytes.trim_ascii_end();
    let line_end = memchr::memchr(b'\n', text);
    let first = line_end.map(|end| &text[..end]);
    first.into_iter().chain([text]).any(|text| {
        let tail = &text[text.len().saturating_sub(TAIL)..];
        let line = &tail[memchr::memrchr(b'\n', tail).map_or(0, |at| at + 1)..];
        MARKS.iter().any(|mark| mark.find(line).is_some())
    })
}

/// Whether a line starts with a bracket that does not open an array, as `kubectl logs --prefix` or a time since boot does.
fn pod_prefix(line: &[u8]) -> bool {
    line.starts_with(b"[pod/")
        || matches!(line, [b'[', b' ' | b'0'..=b'9', ..]) && prefix::strip(line).is_some()
}
