//! The shapes of wrappers.
//!
//! Takes a JSON object; returns the members by which a wrapper is recognized, found in one pass.

use std::borrow::Cow;

use super::super::json::{Raw, Type};

/// The members of a record by which its wrapper is recognized.
#[derive(Default)]
pub(super) struct Shape<'a> {
    pub(super) is_event: bool,
    pub(super) is_other: bool,
    pub(super) viaq_level: Option<Raw<'a>>,
    pub(super) log: Option<Raw<'a>>,
    pub(super) message: Option<Raw<'a>>,
    pub(super) kubernetes: Option<Raw<'a>>,
    pub(super) resource_logs: Option<Raw<'a>>,
    pub(super) body: Option<Raw<'a>>,
    pub(super) records: Option<Raw<'a>>,
    pub(super) log_events: Option<Raw<'a>>,
    pub(super) awslogs: Option<Raw<'a>>,
    pub(super) proto_payload: Option<Raw<'a>>,
    pub(super) data: Option<Raw<'a>>,
    pub(super) kinesis: Option<Raw<'a>>,
    pub(super) properties: Option<Raw<'a>>,
    /// The tags of a container runtime.
    pub(super) log_tag: Option<Raw<'a>>,
    /// Whether the line continues in the next record.
    pub(super) partial: Option<Raw<'a>>,
    /// Whether the record is the last one of a line.
    pub(super) partial_last: Option<Raw<'a>>,
}

impl<'a> Shape<'a> {
    pub(super) fn of(record: Raw<'a>) -> Self {
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
                b"logtag" => &mut shape.log_tag,
                b"partial_message" | b"_partial" => &mut shape.partial,
                b"partial_last" => &mut shape.partial_last,
                _ => continue,
            };
            // Of repeated members the first counts.
            slot.get_or_insert(value);
        }
        shape
    }

    /// Whether the record is a wrapper.
    pub(super) fn is_wrapper(&self) -> bool {
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

    /// The text of a record that holds a line of a log, if none of its members takes precedence.
    pub(super) fn container_text(&self) -> Option<Cow<'a, [u8]>> {
        let others = [
            self.proto_payload,
            self.log_events,
            self.kubernetes.and_then(|kubernetes| kubernetes.get("audit")),
            self.resource_logs,
            self.records,
            self.properties,
            self.kinesis,
            self.awslogs,
            self.body,
        ];
        if self.is_event || others.iter().any(Option::is_some) {
            return None;
        }
        // A `log` that is an object describes a file; the text is in `message`.
        let log = self.log.filter(|log| log.kind() == Type::String);
        log.or(self.message).and_then(Raw::string)
    }
}
