//! The structure of wrappers.
//!
//! Takes a JSON object, which may be truncated; returns the members by which a wrapper is recognized, found in one pass.

use std::borrow::Cow;

use super::super::event::Member;
use super::super::json::{Cursor, JsonError, Raw, Type};
use super::{azure_table, prefix, stream, truncated};

/// A member by which a wrapper is recognized, or that contains the wrapped content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    // Wrappers with a specific structure.
    ProtoPayload,
    LogEvents,
    Kubernetes,
    Azure,
    ResourceLogs,
    Records,
    Properties,
    Kinesis,
    AwsLogs,
    Events,
    Results,
    Values,
    Body,
    DataBase64,
    // Members that hold a record, a line, or a list of them.
    Hits,
    SourceObject,
    Streams,
    TextPayload,
    JsonPayload,
    Log,
    Json,
    Message,
    JournalMessage,
    AtMessage,
    FullMessage,
    ShortMessage,
    Line,
    RawText,
    Content,
    LogColumn,
    Payload,
    Value,
    Data,
    Result,
    Event,
    Original,
    Parsed,
    Fields,
    Audit,
    // Tables: column names, and rows or columns of values.
    Rows,
    Columns,
    Schema,
    // Metadata of a record.
    Level,
    LogTag,
    Partial,
    PartialLast,
    LineBreak,
    Time(u8),
}

/// The number of slots.
const SLOTS: usize = 64;

/// The first slot for a time; there is one for each of [`TIMES`].
const FIRST_TIME: usize = 48;

/// Members that hold the time of a record, most precise first.
const TIMES: [&[u8]; 14] = [
    b"__REALTIME_TIMESTAMP",
    b"__time__",
    b"_time",
    b"timeUnixNano",
    b"observedTimeUnixNano",
    b"time",
    b"timestamp",
    b"@timestamp",
    b"ts",
    b"date",
    b"TimeGenerated",
    b"eventTime",
    b"Timestamp",
    b"Time",
];

impl Slot {
    fn index(self) -> usize {
        match self {
            Slot::Time(at) => FIRST_TIME + usize::from(at),
            Slot::ProtoPayload => 0,
            Slot::LogEvents => 1,
            Slot::Kubernetes => 2,
            Slot::ResourceLogs => 3,
            Slot::Records => 4,
            Slot::Properties => 5,
            Slot::Kinesis => 6,
            Slot::AwsLogs => 7,
            Slot::Events => 8,
            Slot::Results => 9,
            Slot::Values => 10,
            Slot::Body => 11,
            Slot::DataBase64 => 12,
            Slot::Hits => 13,
            Slot::SourceObject => 14,
            Slot::Streams => 15,
            Slot::TextPayload => 16,
            Slot::JsonPayload => 17,
            Slot::Log => 18,
            Slot::Message => 19,
            Slot::JournalMessage => 20,
            Slot::AtMessage => 21,
            Slot::FullMessage => 22,
            Slot::ShortMessage => 23,
            Slot::Line => 24,
            Slot::RawText => 25,
            Slot::Content => 26,
            Slot::LogColumn => 27,
            Slot::Payload => 28,
            Slot::Value => 29,
            Slot::Data => 30,
            Slot::Result => 31,
            Slot::Event => 32,
            Slot::Original => 33,
            Slot::Parsed => 34,
            Slot::Fields => 35,
            Slot::Level => 36,
            Slot::LogTag => 37,
            Slot::Partial => 38,
            Slot::PartialLast => 39,
            Slot::LineBreak => 40,
            Slot::Azure => 41,
            Slot::Json => 42,
            Slot::Audit => 43,
            Slot::Rows => 44,
            Slot::Columns => 45,
            Slot::Schema => 46,
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        let slot = match name {
            b"protoPayload" => Slot::ProtoPayload,
            b"logEvents" => Slot::LogEvents,
            b"kubernetes" => Slot::Kubernetes,
            b"azure" => Slot::Azure,
            b"resourceLogs" => Slot::ResourceLogs,
            b"records" | b"Records" | b"messages" | b"responses" | b"tables" | b"frames" => Slot::Records,
            b"properties" | b"Properties" => Slot::Properties,
            b"kinesis" => Slot::Kinesis,
            b"awslogs" => Slot::AwsLogs,
            b"events" => Slot::Events,
            b"results" => Slot::Results,
            b"values" => Slot::Values,
            b"body" | b"Body" => Slot::Body,
            b"data_base64" => Slot::DataBase64,
            b"hits" => Slot::Hits,
            b"_source" => Slot::SourceObject,
            b"streams" => Slot::Streams,
            b"textPayload" => Slot::TextPayload,
            b"jsonPayload" => Slot::JsonPayload,
            b"log" => Slot::Log,
            b"json" => Slot::Json,
            b"message" | b"Message" | b"LogMessage" | b"LogEntry" => Slot::Message,
            b"MESSAGE" => Slot::JournalMessage,
            b"@message" => Slot::AtMessage,
            b"full_message" => Slot::FullMessage,
            b"short_message" => Slot::ShortMessage,
            b"line" | b"Line" => Slot::Line,
            b"_raw" => Slot::RawText,
            b"content" | b"contents" | b"__CONTENT__" => Slot::Content,
            b"log_s" => Slot::LogColumn,
            b"payload" => Slot::Payload,
            b"value" => Slot::Value,
            b"data" => Slot::Data,
            b"result" => Slot::Result,
            b"event" => Slot::Event,
            b"original" | b"event.original" => Slot::Original,
            b"log_processed" => Slot::Parsed,
            b"fields" => Slot::Fields,
            b"audit" | b"audit_event" | b"auditEvent" => Slot::Audit,
            b"rows" => Slot::Rows,
            b"columns" => Slot::Columns,
            b"schema" => Slot::Schema,
            b"k8s_audit_level" => Slot::Level,
            b"logtag" => Slot::LogTag,
            b"partial_message" | b"_partial" => Slot::Partial,
            b"partial_last" => Slot::PartialLast,
            b"_LINE_BREAK" => Slot::LineBreak,
            _ => {
                let at = TIMES.iter().position(|time| *time == name)?;
                return u8::try_from(at).ok().map(Slot::Time);
            }
        };
        Some(slot)
    }
}

/// Members of wrappers that have their own unwrapping code.
const OWN_FORMS: [Slot; 9] = [
    Slot::ProtoPayload,
    Slot::LogEvents,
    Slot::ResourceLogs,
    Slot::Records,
    Slot::Kinesis,
    Slot::AwsLogs,
    Slot::Events,
    Slot::Results,
    Slot::Values,
];

/// Members that hold a record, a line or a list of them, in the order in which they are tried. The first one that can hold an event is
/// read, since shippers keep the text next to what they parsed from it.
pub(super) const CARRIERS: [Slot; 25] = [
    Slot::Hits,
    Slot::SourceObject,
    Slot::Streams,
    Slot::TextPayload,
    Slot::JsonPayload,
    Slot::Log,
    Slot::Message,
    Slot::JournalMessage,
    Slot::AtMessage,
    Slot::FullMessage,
    Slot::ShortMessage,
    Slot::Line,
    Slot::RawText,
    Slot::Content,
    Slot::LogColumn,
    Slot::Payload,
    Slot::Value,
    Slot::Data,
    Slot::Result,
    Slot::Event,
    Slot::Original,
    Slot::Parsed,
    Slot::Fields,
    Slot::Json,
    Slot::Audit,
];

/// What an object is, other than a wrapper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Content {
    /// An audit event, a list of events, or another object that is not searched for events.
    Final,
    #[default]
    Unknown,
}

/// The members of a record by which its wrapper is recognized.
#[derive(Clone)]
pub(super) struct Shape<'a> {
    pub(super) content: Content,
    slots: [Option<Raw<'a>>; SLOTS],
    /// An event under a custom name, as set by Fluent Bit's `Merge_Log_Key`.
    merged: Option<Raw<'a>>,
    /// Another member shows that this is an OpenTelemetry record.
    is_log_record: bool,
    /// An event at the root of a record, with members added by a shipper, or with objects as strings.
    is_decorated: bool,
    /// The event has its own time.
    has_time: bool,
    /// Number of columns present of those that identify an event in an Azure table.
    azure_columns: usize,
}

/// The start of a line with one event in the apiserver's format.
pub(super) const PLAIN_START: &[u8] = br#"{"kind":"Event","#;

/// How an audit event starts.
const EVENT_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;

impl<'a> Shape<'a> {
    pub(super) fn of(record: Raw<'a>) -> Self {
        let mut shape = Shape {
            content: Content::Unknown,
            slots: [None; SLOTS],
            merged: None,
            is_log_record: false,
            is_decorated: false,
            has_time: false,
            azure_columns: 0,
        };
        let (mut kind, mut has_version, mut has_audit_id, mut parts) = (None, false, false, 0);
        let mut is_shipped = false;
        let mut cursor = Cursor::new(record.bytes(), b'{');
        loop {
            let (name, value) = match cursor.member() {
                Some(Ok((key, value))) => (key.text(), value),
                Some(Err(JsonError::Truncated)) => match cursor.truncated_member() {
                    Some((name, value)) => (Cow::Borrowed(name), value),
                    None => break,
                },
                Some(Err(JsonError::Syntax)) | None => break,
            };
            match &*name {
                b"kind" => kind = kind.or(value.string()),
                b"apiVersion" => has_version |= value.kind() == Type::String,
                b"auditID" => has_audit_id = true,
                b"level" | b"stage" | b"verb" | b"requestURI" | b"items" => parts += 1,
                b"objectRef" => {
                    parts += 1;
                    shape.is_decorated |= value.kind() == Type::String;
                }
                b"severityText"
                | b"severityNumber"
                | b"severity_text"
                | b"SeverityText"
                | b"Attributes"
                | b"attributes"
                | b"timeUnixNano"
                | b"observedTimeUnixNano" => shape.is_log_record = true,
                b"kubernetes" => (is_shipped, shape.is_decorated) = (true, true),
                b"tag" | b"file" | b"filename" | b"CONTAINER_NAME" => shape.is_decorated = true,
                b"stream" | b"time" | b"@timestamp" | b"date" => is_shipped = true,
                b"user" | b"responseStatus" if value.kind() == Type::String => shape.is_decorated = true,
                b"stageTimestamp" => shape.has_time = true,
                b"AuditId" | b"RequestUri" | b"Stage" | b"Verb" => shape.azure_columns += 1,
                _ => {
                    shape.is_decorated |=
                        kind.is_some() && Member::named(&name).is_none() && stream::is_known(&name);
                }
            }
            if let Some(slot) = Slot::named(&name) {
                // If a member is repeated, the first one counts.
                shape.slots[slot.index()].get_or_insert(value);
            } else if shape.merged.is_none()
                && value.bytes().starts_with(EVENT_START)
                && !is_request_part(&name)
            {
                shape.merged = Some(value);
            }
        }
        if !is_shipped {
            shape.merged = None;
        }
        let is_event = match kind.as_deref() {
            Some(b"Event" | b"EventList") => has_version || parts > 0 || !shape.has_carrier(),
            // A Kubernetes object: its content is chosen by a client.
            Some(_) => has_version,
            None => false,
        };
        if has_audit_id || is_event {
            shape.content = Content::Final;
        }
        shape
    }

    pub(super) fn get(&self, slot: Slot) -> Option<Raw<'a>> {
        self.slots[slot.index()]
    }

    fn has(&self, slot: Slot, kinds: &[Type]) -> bool {
        self.get(slot).is_some_and(|value| kinds.contains(&value.kind()))
    }

    /// Whether a member could contain an event.
    fn has_carrier(&self) -> bool {
        const OPEN: &[Type] = &[Type::Object, Type::Array];
        const TEXT: &[Type] = &[Type::String];
        let mut open = OWN_FORMS.into_iter().chain([Slot::Hits, Slot::SourceObject, Slot::Streams]);
        open.any(|slot| self.has(slot, OPEN))
            || self.merged.is_some()
            || self.has(Slot::DataBase64, TEXT)
            || self.body().is_some()
            || self.azure_log().is_some()
            || self.is_azure_event()
            || self.parsed_by_elastic().is_some()
            || self.table().is_some()
            || CARRIERS.into_iter().any(|slot| {
                // A file description, and Elastic's event metadata, are objects too.
                self.get(slot).is_some_and(|value| match value.kind() {
                    Type::String | Type::Array => true,
                    Type::Object => !matches!(slot, Slot::Log | Slot::Event) || holds_event(value),
                    Type::Scalar => false,
                })
            })
    }

    /// Whether the record is a wrapper.
    pub(super) fn is_wrapper(&self) -> bool {
        match self.content {
            Content::Final => {
                self.get(Slot::Level).is_some()
                    || self.is_decorated
                    || !self.has_time && self.time().is_some()
            }
            Content::Unknown => self.has_carrier(),
        }
    }

    /// Whether a shipper added members to the event.
    pub(super) fn is_shipped(&self) -> bool {
        self.is_decorated || self.time().is_some()
    }

    /// A table, if the record is one.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        let list = |slot| self.get(slot).filter(|value| value.kind() == Type::Array);
        let (fields, columns) = (list(Slot::Fields), list(Slot::Columns));
        if let Some(cells) = list(Slot::Rows) {
            return Some(Table { names: columns.or(fields)?, cells, is_by_column: false });
        }
        if let (Some(names), Some(cells)) = (fields, columns) {
            return Some(Table { names, cells, is_by_column: true });
        }
        // A Grafana data frame.
        let names = truncated::get(self.get(Slot::Schema)?, "fields")?;
        let cells = truncated::get(self.get(Slot::Data)?, "values")?;
        Some(Table { names, cells, is_by_column: true })
    }

    /// The properties of an Azure diagnostic record.
    pub(super) fn azure_log(&self) -> Option<Raw<'a>> {
        self.get(Slot::Properties).filter(|properties| match properties.kind() {
            Type::Object => truncated::get(*properties, "log").is_some(),
            Type::String => true,
            _ => false,
        })
    }

    /// Whether the record is an event in an Azure table with a column for each member.
    pub(super) fn is_azure_event(&self) -> bool {
        self.content == Content::Unknown && self.azure_columns >= azure_table::COLUMNS.len()
    }

    /// The body of an OpenTelemetry log record. In other records, a member of this name contains text that a client sent.
    pub(super) fn body(&self) -> Option<Raw<'a>> {
        self.get(Slot::Body).filter(|body| match body.kind() {
            Type::Object => {
                self.is_log_record
                    || ["stringValue", "kvlistValue"].iter().any(|key| truncated::get(*body, key).is_some())
            }
            Type::String => self.is_log_record,
            _ => false,
        })
    }

    /// The content that Elastic parsed: an event, or an Azure diagnostic record.
    pub(super) fn parsed_by_elastic(&self) -> Option<Raw<'a>> {
        let audit = self.get(Slot::Kubernetes).and_then(|kubernetes| truncated::get(kubernetes, "audit"));
        audit.or_else(|| self.get(Slot::Azure).and_then(|azure| truncated::get(azure, "platformlogs")))
    }

    /// The value of the first member that holds a time.
    pub(super) fn time(&self) -> Option<Raw<'a>> {
        self.slots[FIRST_TIME..FIRST_TIME + TIMES.len()].iter().flatten().next().copied()
    }

    /// The member that holds an event or a wrapper of one: the first suitable member of [`CARRIERS`].
    pub(super) fn carrier(&self) -> Option<Raw<'a>> {
        // A log line: the members next to it were parsed from it.
        let lines = || {
            let slots = [Slot::Log, Slot::Message, Slot::JournalMessage].into_iter();
            slots.filter_map(|slot| self.get(slot)).filter(|value| value.kind() == Type::String)
        };
        if let Some(line) = lines().find(|line| can_hold_event(*line)).or_else(|| lines().next()) {
            return Some(line);
        }
        let values = || CARRIERS.into_iter().filter_map(|slot| self.get(slot));
        values()
            .find(|value| can_hold_event(*value))
            .or(self.merged)
            // In this case the text explains why there is no event.
            .or_else(|| values().find(|value| value.kind() == Type::String))
            .or_else(|| values().next())
    }

    /// The text of a record that contains a log line.
    pub(super) fn line(&self) -> Option<Cow<'a, [u8]>> {
        if self.content == Content::Final || self.has_own_form() {
            return None;
        }
        self.carrier().filter(|value| value.kind() == Type::String).map(truncated::string_of)
    }

    /// Whether a member comes before all members that hold a line.
    fn has_own_form(&self) -> bool {
        OWN_FORMS.into_iter().any(|slot| self.get(slot).is_some())
            || self.body().is_some()
            || self.parsed_by_elastic().is_some()
            || self.azure_log().is_some()
            || self.is_azure_event()
            || self.table().is_some()
    }
}

/// Query results in the form of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table<'a> {
    /// The column names: strings, or objects with a member `name`.
    pub(super) names: Raw<'a>,
    /// A list of rows, or of columns.
    pub(super) cells: Raw<'a>,
    pub(super) is_by_column: bool,
}

/// Whether a column of this name can contain the text of records.
pub(super) fn can_name_carrier(name: &[u8]) -> bool {
    Slot::named(name).is_some_and(|slot| CARRIERS.contains(&slot) || slot == Slot::Body)
}

/// Whether an object is an event or contains one under a known name.
fn holds_event(object: Raw<'_>) -> bool {
    const KEYS: [&str; 5] = ["auditID", "kind", "original", "message", "log"];
    object.get_all(KEYS).iter().any(Option::is_some)
}

/// Whether a member looks like a record, a list of records, or a line that contains one.
fn can_hold_event(value: Raw<'_>) -> bool {
    match value.kind() {
        Type::Object => Shape::of(value).can_be_read(),
        Type::Array => value
            .items()
            .next()
            .and_then(Result::ok)
            .is_none_or(|first| !matches!(first.kind(), Type::String) || can_hold_event(first)),
        Type::String => {
            let text = truncated::string_of(value);
            let text = text.trim_ascii();
            matches!(text.first(), Some(b'{' | b'[')) || prefix::strip_nested(text).is_some()
        }
        Type::Scalar => false,
    }
}

impl Shape<'_> {
    /// Whether the object is an event or a wrapper.
    fn can_be_read(&self) -> bool {
        self.content == Content::Final || self.has_carrier()
    }
}

/// Whether a member's name is that of text sent by a client: an event in it did not come from the apiserver.
pub(super) fn is_request_part(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"request"[..], b"response", b"body", b"header", b"param", b"query", b"arg", b"input", b"object"]
        .iter()
        .any(|word| memchr::memmem::find(&name, word).is_some())
}
