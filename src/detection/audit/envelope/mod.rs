//! What events are wrapped in on their way here: records of log shippers and clouds.
//!
//! In come bytes that hold wrapped events, told by their shape alone, record by record; out come the events, one a line. Raw events,
//! arrays and `EventList`s are left as they are, and cost one look at how their line starts. An event keeps its text: its alert
//! has the same id, wrapped or not. Only Google's entries, which hold no audit event, are made into one (`google`).
//!
//! Wrappers may stand in each other, up to a depth. What is compressed or encoded grows up to a limit and no further. A record that is
//! a wrapper and holds no event is counted under a reason ([`skipped`]); what is no wrapper is left to those who read events. Nothing
//! here does I/O.
//!
//! | wrapper | told by |
//! | --- | --- |
//! | Fluent Bit, container logs | `log`, a text |
//! | Vector, Filebeat, Elastic Agent | `message`, a text |
//! | Filebeat, parsed | `kubernetes.audit` |
//! | OpenTelemetry logs | `resourceLogs`, or a record's `body` |
//! | Azure diagnostic records | `records[].properties` |
//! | CloudWatch Logs subscription | `logEvents`; inside Firehose, Kinesis, Lambda as base64 of gzip |
//! | Google Cloud Logging | `protoPayload`; inside Pub/Sub as base64 |
//! | OpenShift ViaQ | `k8s_audit_level` in the event |

mod google;
mod packed;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::BTreeMap;

use super::json::{Cursor, JsonError, Raw, Type};

/// Why a wrapper held no event to judge.
pub mod skipped {
    /// A text of another log.
    pub const OTHER_LOG: &str = "line of another log";
    /// Azure's other categories, CloudWatch's other streams, Google's other services.
    pub const OTHER_KIND: &str = "record of another kind";
    /// What a cloud sends to see whether somebody is there.
    pub const CONTROL: &str = "control message";
    /// An object that Azure found too large to send.
    pub const TOO_BIG: &str = "left out by its sender as too big";
    /// Nothing in it, as a tombstone of Kafka.
    pub const EMPTY: &str = "empty";
    /// Not what its encoding says: base64 or gzip that is broken.
    pub const UNREADABLE: &str = "unreadable packing";
    /// Wrappers in wrappers, too many.
    pub const TOO_DEEP: &str = "wrapped too often";
    /// It unpacked to more than the limit; up to there it was judged.
    pub const TOO_LARGE: &str = "unpacks to more than --max-event-size (judged up to there)";

    /// All of them.
    pub const ALL: [&str; 8] =
        [OTHER_LOG, OTHER_KIND, CONTROL, TOO_BIG, EMPTY, UNREADABLE, TOO_DEEP, TOO_LARGE];
}

/// How a line starts that is one event as the apiserver writes it.
const PLAIN_START: &[u8] = br#"{"kind":"Event","#;

/// Steps into wrappers, of which each takes two or three: several in each other, and no more.
const DEEPEST: usize = 16;

/// In front of an event's text a container runtime or syslog writes no more than so many bytes.
const LONGEST_PREFIX: usize = 512;

/// How CloudWatch ends what it cut.
const CUT_MARK: &[u8] = b"[Truncated...]";

/// Takes events out of what wraps them.
#[derive(Clone, Debug)]
pub struct Unwrapper {
    /// So many bytes are unpacked of one record.
    limit: usize,
    skipped: BTreeMap<&'static str, u64>,
}

/// What the members of a record say of its shape.
#[derive(Default)]
struct Shape<'a> {
    is_event: bool,
    is_other: bool,
    viaq_level: Option<Raw<'a>>,
    log: Option<Raw<'a>>,
    message: Option<Raw<'a>>,
    kubernetes: Option<Raw<'a>>,
    resource_logs: Option<Raw<'a>>,
    body: Option<Raw<'a>>,
    records: Option<Raw<'a>>,
    log_events: Option<Raw<'a>>,
    awslogs: Option<Raw<'a>>,
    proto_payload: Option<Raw<'a>>,
    data: Option<Raw<'a>>,
    kinesis: Option<Raw<'a>>,
    properties: Option<Raw<'a>>,
}

impl<'a> Shape<'a> {
    fn of(record: Raw<'a>) -> Self {
        let mut shape = Shape::default();
        for (key, value) in record.members().map_while(Result::ok) {
            let text = key.text();
            let slot = match &*text {
                b"kind" => {
                    match value.string().as_deref() {
                        Some(b"Event") => shape.is_event = true,
                        Some(_) => shape.is_other = true,
                        None => {}
                    }
                    continue;
                }
                b"auditID" => {
                    shape.is_event = true;
                    continue;
                }
                b"k8s_audit_level" => &mut shape.viaq_level,
                b"log" => &mut shape.log,
                b"message" => &mut shape.message,
                b"kubernetes" => &mut shape.kubernetes,
                b"resourceLogs" => &mut shape.resource_logs,
                b"body" => &mut shape.body,
                b"records" | b"Records" => &mut shape.records,
                b"logEvents" => &mut shape.log_events,
                b"awslogs" => &mut shape.awslogs,
                b"protoPayload" => &mut shape.proto_payload,
                b"data" => &mut shape.data,
                b"kinesis" => &mut shape.kinesis,
                b"properties" => &mut shape.properties,
                _ => continue,
            };
            // The first of equal members counts, as everywhere.
            slot.get_or_insert(value);
        }
        shape
    }

    /// Whether there is anything to take off.
    fn is_wrapper(&self) -> bool {
        if self.is_event {
            return self.viaq_level.is_some();
        }
        let is_text = |value: Option<Raw<'_>>| value.is_some_and(|value| value.kind() == Type::String);
        let is_open = |value: Option<Raw<'_>>| {
            value.is_some_and(|value| matches!(value.kind(), Type::Object | Type::Array))
        };
        !self.is_other
            && (is_text(self.log)
                || self.message.is_some()
                || is_text(self.data)
                || is_open(self.body)
                || [
                    self.resource_logs,
                    self.records,
                    self.log_events,
                    self.awslogs,
                    self.proto_payload,
                    self.kinesis,
                ]
                .into_iter()
                .any(is_open)
                || self.kubernetes.is_some_and(|value| value.get("audit").is_some()))
    }
}

impl Unwrapper {
    /// Of one record at most so many bytes are unpacked.
    pub fn new(limit: usize) -> Self {
        Unwrapper { limit, skipped: BTreeMap::new() }
    }

    /// What held no event since the last call, by why.
    pub fn take_skipped(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.skipped)
    }

    /// The records of a buffer without what wraps them; nothing where nothing does. The buffer starts and ends at record boundaries.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = None;
        self.records(bytes, 0, &mut out);
        out
    }

    /// The same of one message of a queue, which may be compressed as a whole.
    pub fn unwrap_message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if message.trim_ascii().is_empty() {
            self.skip(skipped::EMPTY);
            return Some(Vec::new());
        }
        if !packed::is_gzip(message) {
            return self.unwrap(message);
        }
        let mut out = Vec::new();
        self.unpack(message, 0, &mut out);
        Some(out)
    }

    /// The same of the first bytes of a record that is too long to be read whole.
    pub fn unwrap_head(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        if head.starts_with(PLAIN_START) {
            return None;
        }
        cut_text(head)
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Takes the wrappers off a buffer's records. `out` stays nothing for as long as there are none.
    fn records(&mut self, bytes: &[u8], depth: usize, out: &mut Option<Vec<u8>>) {
        // Up to here everything is in `out`, if there is one.
        let (mut done, mut at) = (0, 0);
        // What one of them is, all of a log are.
        let is_viaq = is_viaq(bytes);
        while at < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
            let line = &bytes[at..end];
            if line.starts_with(PLAIN_START) && !is_viaq {
                at = end + 1;
                continue;
            }
            let start = at + usize::from(line.starts_with(b"\xef\xbb\xbf")) * 3;
            let Some((length, mut text)) = self.record(&bytes[start..], depth) else {
                at = end + 1;
                continue;
            };
            let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
            out.extend_from_slice(&bytes[done..at]);
            out.append(&mut text);
            at = start + length;
            // Its line's end, and what separates it from the next in a list.
            while bytes.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',') {
                at += 1;
            }
            done = at;
        }
        if let Some(out) = out {
            out.extend_from_slice(&bytes[done.min(bytes.len())..]);
        }
    }

    /// The record at the start of `bytes`: how long it is, and what is in it. Nothing where it is no wrapper.
    fn record(&mut self, bytes: &[u8], depth: usize) -> Option<(usize, Vec<u8>)> {
        if !matches!(bytes.first(), Some(b'{' | b'[')) {
            return None;
        }
        // A record ends before the next line that starts with a brace.
        let limit = memchr::memmem::find(bytes, b"\n{").unwrap_or(bytes.len());
        let bytes = &bytes[..limit];
        match Raw::first(bytes) {
            Ok(record) => {
                let is_wrapper =
                    match record.kind() {
                        Type::Object => Shape::of(record).is_wrapper(),
                        // A list of wrappers, by its first one.
                        _ => record.items().next().and_then(Result::ok).is_some_and(|first| {
                            first.kind() == Type::Object && Shape::of(first).is_wrapper()
                        }),
                    };
                let mut out = Vec::new();
                is_wrapper.then(|| self.value(record, depth, &mut out)).map(|()| (record.bytes().len(), out))
            }
            Err(JsonError::Truncated) => cut_text(bytes).map(|text| (bytes.len(), text)),
            Err(JsonError::Syntax) => None,
        }
    }

    /// A record, or a list of them.
    fn value(&mut self, value: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        match value.kind() {
            _ if depth > DEEPEST => self.skip(skipped::TOO_DEEP),
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
            match shape.viaq_level {
                Some(level) => push_with_level(record, level, out),
                None => out.extend_from_slice(&record.compact()),
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
        } else if let Some(log) = shape.log.filter(|log| log.kind() == Type::String) {
            self.value(log, depth + 1, out);
        } else if let Some(message) = shape.message {
            // Pub/Sub has an object there, log shippers a text.
            self.value(message, depth + 1, out);
        } else if let Some(data) = shape.data.and_then(Raw::string) {
            self.base64(&data, depth, out);
        } else {
            self.skip(skipped::OTHER_KIND);
        }
    }

    /// A text in which an event should be.
    fn text(&mut self, text: &[u8], depth: usize, out: &mut Vec<u8>) {
        let text = text.trim_ascii();
        let text = text.strip_suffix(CUT_MARK).unwrap_or(text);
        let text = match text.first() {
            None => return self.skip(skipped::EMPTY),
            Some(b'{' | b'[') => text,
            // A container runtime's time and stream, or syslog's header.
            Some(_) => match memchr::memmem::find(&text[..text.len().min(LONGEST_PREFIX)], b" {") {
                Some(at) => &text[at + 1..],
                None => return self.skip(skipped::OTHER_LOG),
            },
        };
        if depth >= DEEPEST {
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
        match packed::base64(text) {
            Some(bytes) if packed::is_gzip(&bytes) => self.unpack(&bytes, depth + 1, out),
            Some(bytes) => self.text(&bytes, depth + 1, out),
            None => self.skip(skipped::UNREADABLE),
        }
    }

    fn unpack(&mut self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) {
        let unpacked = packed::gunzip(bytes, self.limit);
        match unpacked.end {
            packed::End::Whole => {}
            packed::End::TooLarge => self.skip(skipped::TOO_LARGE),
            packed::End::Broken => self.skip(skipped::UNREADABLE),
        }
        // What is there of it is judged.
        if !unpacked.bytes.is_empty() {
            self.text(&unpacked.bytes, depth, out);
        }
    }

    /// A batch of CloudWatch Logs; the audit log is in streams of its own.
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

    /// A diagnostic record of Azure. Its properties may be a text of JSON.
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

    /// The body of an OpenTelemetry log record: a text, or the members of an event as a list of keys and values.
    fn body(&mut self, body: Raw<'_>, depth: usize, out: &mut Vec<u8>) {
        let [text, list] = body.get_all(["stringValue", "kvlistValue"]);
        match (text, list) {
            (Some(text), _) => self.value(text, depth + 1, out),
            (None, Some(_)) => {
                let mut event = Vec::new();
                if push_any_value(body, 0, &mut event) {
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

/// Whether the first event has ViaQ's own member. Its metadata stand at the end.
fn is_viaq(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"\"k8s_audit_level\"";
    const TAIL: usize = 1024;
    let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
    memchr::memmem::find(&line[line.len().saturating_sub(TAIL)..], KEY).is_some()
}

/// Appends an event with the audit level that ViaQ moved elsewhere.
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
        crate::text::escape::push_json_string(&key.text(), out);
        out.push(b':');
        let is_level = key.is("level") && !std::mem::replace(&mut has_level, true);
        out.extend_from_slice(&if is_level { level } else { value }.compact());
    }
    out.push(b'}');
}

/// The values at a path through arrays of objects.
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

/// Events nest less deep than this.
const DEEPEST_VALUE: usize = 100;

/// Appends a value in OpenTelemetry's words as plain JSON. False where it nests too deep.
fn push_any_value(value: Raw<'_>, depth: usize, out: &mut Vec<u8>) -> bool {
    if depth > DEEPEST_VALUE {
        return false;
    }
    let Some(Ok((kind, inner))) = value.members().next() else {
        out.extend_from_slice(b"null");
        return true;
    };
    let (open, close, is_list) = match &*kind.text() {
        b"kvlistValue" => (b'{', b'}', false),
        b"arrayValue" => (b'[', b']', true),
        b"intValue" => {
            // A number too large for some readers is a text.
            out.extend_from_slice(&inner.text());
            return true;
        }
        _ => {
            out.extend_from_slice(&inner.compact());
            return true;
        }
    };
    out.push(open);
    for (at, item) in inner.get("values").into_iter().flat_map(Raw::items).map_while(Result::ok).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let value = if is_list {
            Some(item)
        } else {
            crate::text::escape::push_json_string(
                &item.get("key").and_then(Raw::string).unwrap_or_default(),
                out,
            );
            out.push(b':');
            item.get("value")
        };
        match value {
            Some(value) if !push_any_value(value, depth + 1, out) => return false,
            Some(_) => {}
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(close);
    true
}

/// The event in a record that ends in the middle: what there is of it. Nothing where it is not in a wrapper.
fn cut_text(record: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(record, b'{');
    let mut read_to = 0;
    let mut whole = None;
    while let Some(member) = cursor.member() {
        match member {
            Ok((key, _)) if key.is("kind") || key.is("auditID") => return None,
            Ok((key, value)) => {
                if key.is("log") || key.is("message") {
                    whole = whole.or_else(|| value.string());
                }
                read_to = cursor.position();
            }
            Err(JsonError::Syntax) => return None,
            Err(JsonError::Truncated) => break,
        }
    }
    let mut text = match whole {
        Some(text) => text.into_owned(),
        None => cut_string(record.get(read_to..)?)?,
    };
    if !text.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    text.push(b'\n');
    Some(text)
}

/// What there is of a member's text that ends in the middle.
fn cut_string(member: &[u8]) -> Option<Vec<u8>> {
    // Between one member and the next is little more than a comma.
    const BEFORE: usize = 64;
    let text = [&b"\"log\":\""[..], b"\"message\":\""].into_iter().find_map(|key| {
        let at = memchr::memmem::find(&member[..member.len().min(BEFORE)], key)?;
        member.get(at + key.len()..)
    })?;
    // An escape that was cut says nothing. The longest has six bytes.
    let from = text.len().saturating_sub(6);
    let mut end = text.len();
    for at in from..text.len() {
        let before = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        let length = if text.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        if text[at] == b'\\' && before % 2 == 0 && at + length > text.len() {
            end = at;
            break;
        }
    }
    let quoted = [b"\"", &text[..end], b"\""].concat();
    Raw::assume(&quoted).string().map(std::borrow::Cow::into_owned)
}
