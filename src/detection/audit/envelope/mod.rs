//! Takes audit events out of the records of log shippers, container runtimes and clouds.
//!
//! Takes a buffer of records in any wrapper; returns the events, one a line. The wrapper is recognized by its shape, record by
//! record. Raw events, arrays and `EventList`s are left as they are, which costs one comparison per line. An event keeps its
//! text, so its alerts have the same ids with any wrapper. Google's entries contain no audit event; one is built from them.
//!
//! Wrappers may be nested up to a depth, and what is compressed is unpacked up to a limit. Lines that a runtime split are joined
//! (`partial`); the beginning of a truncated event is completed (`truncated`). A wrapper without an event is counted under a
//! reason ([`skipped`]); what is not a wrapper is left to the reader of events. All work is linear in the size of a buffer. No text
//! inside a record may become a record of its own.
//!
//! | wrapper | recognized by |
//! | --- | --- |
//! | Container runtime (CRI) | `<time> stdout\|stderr P\|F <content>` |
//! | Fluent Bit, docker | `log`, a string |
//! | Vector, Filebeat, Elastic Agent | `message`, a string |
//! | Filebeat, parsed | `kubernetes.audit` |
//! | OpenTelemetry logs | `resourceLogs`, or a record's `body` |
//! | Azure diagnostic records | `records[].properties` |
//! | CloudWatch Logs subscription | `logEvents`; in Firehose, Kinesis and Lambda as base64 of gzip |
//! | Google Cloud Logging | `protoPayload`; in Pub/Sub as base64 |
//! | OpenShift ViaQ | `k8s_audit_level` in the event |

mod encoding;
mod google;
mod line_tracker;
mod otel;
mod partial;
mod shape;
mod stringified;
mod syslog;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod truncated;

use std::collections::BTreeMap;

pub use line_tracker::{LineRole, LineTracker};

use super::event;
use super::json::{JsonError, Raw, Type};
use super::steps;
use crate::text::escape::push_json_string;
use partial::{CriLine, Joined, OpenLines, Piece};
use shape::Shape;

/// Reasons why a wrapper contained no event to evaluate.
pub mod skipped {
    /// A line of another log.
    pub const OTHER_LOG: &str = "line of another log";
    /// Azure's other categories, CloudWatch's other streams, Google's other services.
    pub const OTHER_KIND: &str = "record of another kind";
    /// A message by which a cloud tests a connection.
    pub const CONTROL: &str = "control message";
    /// An object that Azure found too large to send.
    pub const TOO_BIG: &str = "left out by its sender as too big";
    /// No content, as a tombstone of Kafka.
    pub const EMPTY: &str = "empty";
    /// Malformed base64 or gzip.
    pub const UNREADABLE: &str = "unreadable packing";
    /// More nested wrappers than the limit.
    pub const TOO_DEEP: &str = "wrapped too often";
    /// It unpacked to more than the limit; up to there it was evaluated.
    pub const TOO_LARGE: &str = "unpacks to more than --max-event-size (evaluated up to there)";
    /// A piece of a line that a container runtime split, without the pieces before it.
    pub const PIECE: &str = "piece of a line whose start is missing";

    /// All reasons.
    pub const ALL: [&str; 9] =
        [OTHER_LOG, OTHER_KIND, CONTROL, TOO_BIG, EMPTY, UNREADABLE, TOO_DEEP, TOO_LARGE, PIECE];
}

/// The start of a line with one event in the apiserver's format.
const PLAIN_START: &[u8] = br#"{"kind":"Event","#;

/// The most nested steps into wrappers, of which each wrapper takes two or three.
const MAX_DEPTH: usize = 16;

/// How CloudWatch ends a message that it truncated.
const TRUNCATION_MARK: &[u8] = b"[Truncated...]";

/// Takes events out of their wrappers.
#[derive(Clone, Debug)]
pub struct Unwrapper {
    /// The most bytes that are unpacked of one record, and the longest line that is joined from pieces.
    limit: usize,
    skipped: BTreeMap<&'static str, u64>,
    /// Within one buffer.
    open_lines: OpenLines,
}

/// What starts at a position of a buffer.
enum Start {
    /// A wrapper of this length, with this text in it.
    Wrapper(usize, Vec<u8>),
    /// Something else; a wrapper can follow after this length at the earliest.
    Other(usize),
}

impl Unwrapper {
    /// An unwrapper that unpacks at most `limit` bytes of each record.
    pub fn new(limit: usize) -> Self {
        Unwrapper { limit, skipped: BTreeMap::new(), open_lines: OpenLines::default() }
    }

    /// The number of skipped records by reason since the last call.
    pub fn take_skipped(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.skipped)
    }

    /// Unwraps the records of a buffer; `None` if nothing is wrapped. The buffer starts and ends at record boundaries: see
    /// [`LineTracker`].
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = None;
        self.records(bytes, 0, &mut out);
        self.finish_lines(&mut out);
        out
    }

    /// Unwraps one message of a queue, which may be compressed as a whole.
    pub fn unwrap_message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.trim_ascii().is_empty() {
            self.skip(skipped::EMPTY);
            return Some(Vec::new());
        }
        if !encoding::is_gzip(message) {
            return self.unwrap(message);
        }
        let mut out = Vec::new();
        self.unpack(message, 0, &mut out);
        let mut out = Some(out);
        self.finish_lines(&mut out);
        out
    }

    /// Unwraps the beginning of a record that exceeds the limit.
    pub fn unwrap_head(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        if head.starts_with(PLAIN_START) {
            return truncated::with_target(head);
        }
        let cri = CriLine::parse(head).map(|line| line.piece.text);
        let text = match cri {
            Some(text) => Some(text.to_vec()),
            None => truncated::unwrap(head),
        };
        text.map(|text| truncated::with_target(&text).unwrap_or(text))
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Reads what there is of lines whose last piece is missing.
    fn finish_lines(&mut self, out: &mut Option<Vec<u8>>) {
        if !self.open_lines.is_empty() {
            let lines = self.open_lines.finish();
            let out = out.get_or_insert_default();
            for line in lines {
                self.text(&line, 0, out);
            }
        }
        let dropped = std::mem::take(&mut self.open_lines.dropped_pieces);
        if dropped > 0 {
            *self.skipped.entry(skipped::PIECE).or_default() += dropped;
        }
    }

    /// Unwraps the records of a buffer. `out` stays `None` as long as nothing is wrapped.
    fn records(&mut self, bytes: &[u8], depth: usize, out: &mut Option<Vec<u8>>) {
        // All before `done` is in `out`, if that is not `None`.
        let (mut done, mut at, mut end) = (0, 0, 0);
        // All events of a log are alike.
        let is_viaq = is_viaq(bytes);
        let has_strings = stringified::may_be_in(bytes);
        let mut next_object = 0;
        while at < bytes.len() {
            // A line with several records is searched once.
            if at >= end {
                end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
                steps::add(end - at);
            }
            let line = &bytes[at..end];
            if line.starts_with(PLAIN_START) && !is_viaq {
                let changed =
                    if event::ends_like_an_event(line) { None } else { truncated::with_target(line) };
                let changed = changed.or_else(|| if has_strings { stringified::expand(line) } else { None });
                if let Some(text) = changed {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
                    out.extend_from_slice(&bytes[done..at]);
                    out.extend_from_slice(text.trim_ascii_end());
                    out.push(b'\n');
                    done = bytes.len().min(end + 1);
                }
                at = end + 1;
                continue;
            }
            if let Some(line) = CriLine::parse(line) {
                let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
                out.extend_from_slice(&bytes[done..at]);
                self.piece(|| line.stream.to_vec(), line.piece, depth, out);
                at = end + 1;
                done = bytes.len().min(at);
                continue;
            }
            let start = at + usize::from(line.starts_with(b"\xef\xbb\xbf")) * 3;
            if !matches!(bytes.get(start), Some(b'{' | b'[')) {
                at = end + 1;
                continue;
            }
            // A record ends before the next line that starts with a brace.
            if next_object <= start {
                let found = memchr::memmem::find(&bytes[start..], b"\n{");
                next_object = found.map_or(bytes.len(), |found| start + found + 1);
                steps::add(next_object - start);
            }
            match self.record(&bytes[start..next_object], has_strings, depth) {
                Start::Wrapper(length, mut text) => {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
                    out.extend_from_slice(&bytes[done..at]);
                    out.append(&mut text);
                    at = start + length;
                    // The end of the line, and the separator of a list.
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
        if let Some(out) = out {
            out.extend_from_slice(&bytes[done.min(bytes.len())..]);
        }
    }

    /// Reads the record at the start of `bytes`, which end before the next record.
    fn record(&mut self, bytes: &[u8], has_strings: bool, depth: usize) -> Start {
        match Raw::first(bytes) {
            Ok(record) => {
                let is_wrapper =
                    match record.kind() {
                        Type::Object => Shape::of(record).is_wrapper(),
                        // The first element decides for a list.
                        _ => record.items().next().and_then(Result::ok).is_some_and(|first| {
                            first.kind() == Type::Object && Shape::of(first).is_wrapper()
                        }),
                    };
                if !is_wrapper {
                    let length = record.bytes().len();
                    if has_strings && let Some(mut text) = stringified::expand(record.bytes()) {
                        text.push(b'\n');
                        return Start::Wrapper(length, text);
                    }
                    return Start::Other(length);
                }
                let mut out = Vec::new();
                self.value(record, depth, &mut out);
                Start::Wrapper(record.bytes().len(), out)
            }
            Err(JsonError::Truncated) => {
                // The line feed before the next record is not a part of it.
                let text = bytes.trim_ascii_end();
                match truncated::unwrap(text) {
                    Some(text) => Start::Wrapper(bytes.len(), truncated::with_target(&text).unwrap_or(text)),
                    None => Start::Other(text.len()),
                }
            }
            Err(JsonError::Syntax) => Start::Other(1),
        }
    }

    /// Unwraps a record, or a list of them.
    fn value(&mut self, value: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        match value.kind() {
            _ if depth > MAX_DEPTH => self.skip(skipped::TOO_DEEP),
            Type::Array => {
                for item in value.items().map_while(Result::ok) {
                    self.value(item, depth + 1, out);
                }
            }
            Type::Object => self.object(value, depth, out),
            Type::String => self.text(&value.string().unwrap_or_default(), depth, out),
            Type::Scalar => self.skip(skipped::OTHER_LOG),
        }
    }

    fn object(&mut self, record: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        let shape = Shape::of(record);
        if shape.is_event {
            let start = out.len();
            match shape.viaq_level {
                Some(level) => push_with_level(record, level, out),
                None => out.extend_from_slice(&record.compact()),
            }
            if stringified::may_be_in(&out[start..])
                && let Some(text) = stringified::expand(&out[start..])
            {
                out.truncate(start);
                out.extend_from_slice(&text);
            }
            out.push(b'\n');
        } else if let Some(payload) = shape.proto_payload {
            match google::event(record, payload) {
                Ok(event) => {
                    out.extend_from_slice(&event);
                    out.push(b'\n');
                }
                Err(reason) => self.skip(reason),
            }
        } else if let Some(events) = shape.log_events {
            self.cloudwatch(record, events, depth, out);
        } else if let Some(audit) = shape.kubernetes.and_then(|kubernetes| kubernetes.get("audit")) {
            self.value(audit, depth + 1, out);
        } else if let Some(logs) = shape.resource_logs {
            for record in items_at(logs, &["scopeLogs", "logRecords"]) {
                self.value(record, depth + 1, out);
            }
        } else if let Some(records) = shape.records {
            self.value(records, depth + 1, out);
        } else if let Some(properties) = shape.properties {
            self.azure(record, properties, depth, out);
        } else if let Some(kinesis) = shape.kinesis.or(shape.awslogs) {
            self.value(kinesis, depth + 1, out);
        } else if let Some(body) = shape.body {
            self.body(body, depth, out);
        } else if let Some(text) = shape.container_text() {
            let piece = Piece::of_record(&shape, &text);
            match CriLine::parse(piece.text) {
                Some(line) => {
                    let stream = || [&partial::stream_of(record)[..], line.stream].concat();
                    self.piece(stream, line.piece, depth + 1, out);
                }
                None => self.piece(|| partial::stream_of(record), piece, depth + 1, out),
            }
        } else if let Some(message) = shape.message {
            // Pub/Sub has an object there.
            self.value(message, depth + 1, out);
        } else if let Some(data) = shape.data.and_then(Raw::string) {
            self.base64(&data, depth, out);
        } else {
            self.skip(skipped::OTHER_KIND);
        }
    }

    /// Unwraps a line of a container log, once all its pieces are there.
    fn piece(&mut self, stream: impl Fn() -> Vec<u8>, piece: Piece<'_>, depth: usize, out: &mut Vec<u8>) {
        let (lines, is_whole) = match self.open_lines.push(stream, piece, self.limit) {
            Joined::Incomplete => return,
            Joined::Piece => (Vec::new(), true),
            Joined::Lines(lines) => (lines, false),
            Joined::LinesAndPiece(lines) => (lines, true),
        };
        for line in lines {
            self.text(&line, depth, out);
        }
        if is_whole {
            self.text(piece.text, depth, out);
        }
    }

    /// Unwraps a text in which an event should be.
    fn text(&mut self, text: &[u8], depth: usize, out: &mut Vec<u8>) {
        let text = text.trim_ascii();
        let text = text.strip_suffix(TRUNCATION_MARK).unwrap_or(text);
        let text = match text.first() {
            None => return self.skip(skipped::EMPTY),
            Some(b'{' | b'[') => text,
            Some(_) => match syslog::message(text) {
                Some(message) => message,
                None => return self.skip(skipped::OTHER_LOG),
            },
        };
        if depth >= MAX_DEPTH {
            return self.skip(skipped::TOO_DEEP);
        }
        let mut inner = None;
        self.records(text, depth + 1, &mut inner);
        out.extend_from_slice(inner.as_deref().unwrap_or(text));
        if out.last().is_some_and(|last| *last != b'\n') {
            out.push(b'\n');
        }
    }

    fn base64(&mut self, text: &[u8], depth: usize, out: &mut Vec<u8>) {
        match encoding::base64(text) {
            Some(bytes) if encoding::is_gzip(&bytes) => self.unpack(&bytes, depth + 1, out),
            Some(bytes) => self.text(&bytes, depth + 1, out),
            None => self.skip(skipped::UNREADABLE),
        }
    }

    fn unpack(&mut self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) {
        let unpacked = encoding::gunzip(bytes, self.limit);
        match unpacked.end {
            encoding::End::Complete => {}
            encoding::End::TooLarge => self.skip(skipped::TOO_LARGE),
            encoding::End::Malformed => self.skip(skipped::UNREADABLE),
        }
        // The part that could be unpacked is evaluated.
        if !unpacked.bytes.is_empty() {
            self.text(&unpacked.bytes, depth, out);
        }
    }

    /// Unwraps a batch of CloudWatch Logs. Audit events are in streams of their own.
    fn cloudwatch(&mut self, record: Raw<'_>, events: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        let [kind, stream] = record.get_all(["messageType", "logStream"]);
        if kind.and_then(Raw::string).as_deref() == Some(b"CONTROL_MESSAGE") {
            return self.skip(skipped::CONTROL);
        }
        let is_other =
            stream.and_then(Raw::string).is_some_and(|stream| !stream.starts_with(b"kube-apiserver-audit"));
        for event in events.items().map_while(Result::ok) {
            match event.get("message") {
                _ if is_other => self.skip(skipped::OTHER_KIND),
                Some(message) => self.value(message, depth + 1, out),
                None => self.skip(skipped::OTHER_KIND),
            }
        }
    }

    /// Unwraps a diagnostic record of Azure. Its properties may be a string of JSON.
    fn azure(&mut self, record: Raw<'_>, properties: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        let category = record.get("category").and_then(Raw::string).unwrap_or_default();
        if !category.is_empty() && !category.starts_with(b"kube-audit") {
            return self.skip(skipped::OTHER_KIND);
        }
        let text = properties.string();
        let properties = text.as_deref().map_or(properties, Raw::assume);
        match properties.get("log") {
            Some(log) if log.string().is_some_and(|log| log.starts_with(b"skipped-too-big")) => {
                self.skip(skipped::TOO_BIG);
            }
            Some(log) => self.value(log, depth + 1, out),
            None => self.skip(skipped::OTHER_KIND),
        }
    }

    /// Unwraps the body of an OpenTelemetry log record: a string, or the members of an event as a list of keys and values.
    fn body(&mut self, body: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        let [text, list] = body.get_all(["stringValue", "kvlistValue"]);
        match (text, list) {
            (Some(text), _) => self.value(text, depth + 1, out),
            (None, Some(_)) => {
                let mut event = Vec::new();
                if otel::push_any_value(body, 0, &mut event) {
                    self.text(&event, depth + 1, out);
                } else {
                    self.skip(skipped::TOO_DEEP);
                }
            }
            // Some exporters write the body without its type.
            _ if matches!(body.kind(), Type::Object | Type::String) => self.value(body, depth + 1, out),
            _ => self.skip(skipped::OTHER_LOG),
        }
    }
}

/// Whether the first event has the member of ViaQ, whose metadata is at the end.
fn is_viaq(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"\"k8s_audit_level\"";
    const TAIL: usize = 1024;
    let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
    memchr::memmem::find(&line[line.len().saturating_sub(TAIL)..], KEY).is_some()
}

/// Appends an event with its audit level, which ViaQ moved to another member.
fn push_with_level(event: Raw<'_>, level: Raw<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    let mut has_level = false;
    for (key, value) in event.members().map_while(Result::ok) {
        if key.is("k8s_audit_level") {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        push_json_string(&key.text(), out);
        out.push(b':');
        let is_level = key.is("level") && !std::mem::replace(&mut has_level, true);
        out.extend_from_slice(&if is_level { level } else { value }.compact());
    }
    out.push(b'}');
}

/// The values at a path of keys through arrays of objects.
fn items_at<'a>(list: Raw<'a>, path: &[&str]) -> Vec<Raw<'a>> {
    let mut items: Vec<Raw<'a>> = list.items().map_while(Result::ok).collect();
    for key in path {
        items = items
            .into_iter()
            .filter_map(|item| item.get(key))
            .flat_map(|list| list.items().map_while(Result::ok))
            .collect();
    }
    items
}
