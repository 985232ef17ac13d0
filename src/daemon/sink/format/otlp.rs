//! Renders alerts as log records of the OpenTelemetry protocol, encoded as protobuf.
//!
//! Field numbers are those of `opentelemetry/proto/logs/v1/logs.proto` and `common/v1/common.proto`; they never change.

use serde_json::Value;

use super::view::View;
use crate::detection::alert::{Priority, StoredAlert};
use crate::text::escape::visible;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | LENGTH, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn fixed64(field: u64, value: i64, out: &mut Vec<u8>) {
    varint(field << 3 | FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `AnyValue`.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        // Collectors and their backends print values as they are, and a terminal must not interpret them.
        Value::String(text) => bytes(1, visible(text).as_bytes(), &mut out),
        Value::Bool(value) => {
            varint(2 << 3 | VARINT, &mut out);
            varint(u64::from(*value), &mut out);
        }
        Value::Number(number) => {
            varint(3 << 3 | VARINT, &mut out);
            // Negative numbers take ten bytes.
            varint(number.as_i64().unwrap_or_default().cast_unsigned(), &mut out);
        }
        Value::Array(items) => {
            let mut array = Vec::new();
            for item in items {
                bytes(1, &any(item), &mut array);
            }
            bytes(5, &array, &mut out);
        }
        other => bytes(1, other.to_string().as_bytes(), &mut out),
    }
    out
}

/// A `KeyValue`, as a field of the enclosing message.
fn attribute(field: u64, name: &str, value: &Value, out: &mut Vec<u8>) {
    let is_empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if is_empty {
        return;
    }
    let mut pair = Vec::new();
    bytes(1, name.as_bytes(), &mut pair);
    bytes(2, &any(value), &mut pair);
    bytes(field, &pair, out);
}

/// The severity numbers that OpenTelemetry assigns to syslog severities.
fn severity(priority: Priority) -> u64 {
    match priority {
        Priority::Emergency => 21,
        Priority::Alert => 19,
        Priority::Critical => 18,
        Priority::Error => 17,
        Priority::Warning => 13,
        Priority::Notice => 10,
        Priority::Informational => 9,
        Priority::Debug => 5,
    }
}

/// Returns the `LogRecord` of an alert.
pub(crate) fn record(alert: &StoredAlert) -> Vec<u8> {
    let view = View::new(alert);
    let mut out = Vec::new();
    fixed64(1, if alert.time == 0 { alert.stored } else { alert.time }, &mut out);
    fixed64(11, alert.stored, &mut out);
    varint(2 << 3 | VARINT, &mut out);
    varint(severity(alert.priority), &mut out);
    bytes(3, alert.priority.name().as_bytes(), &mut out);
    bytes(5, &any(&alert.message.trim().into()), &mut out);
    for (name, value) in [
        ("rule", alert.rule.clone().into()),
        ("priority", alert.priority.name().into()),
        ("alert_id", view.id.clone().into()),
        ("actor", alert.actor.clone().into()),
        ("target", alert.target.clone().into()),
        ("verb", view.text("/event/verb")),
        ("exposure", view.text("/exposure")),
        ("credential", view.text("/credential")),
        ("registry_host", view.text("/registry_host")),
        ("registry.hosts", view.value("/registry/hosts")),
        ("registry.secrets", view.value("/registry/secrets")),
        ("tags", view.value("/tags")),
        ("shortened", view.value("/shortened")),
        ("k8s.namespace.name", view.text("/namespace")),
        ("audit_id", view.text("/event/auditID")),
        ("client.address", view.client().into()),
        ("user_agent.original", view.text("/event/userAgent")),
        ("http.response.status_code", view.value("/event/code")),
    ] {
        attribute(6, name, &value, &mut out);
    }
    for (name, value) in view.fields.labels() {
        let name = if name == "cluster" { "k8s.cluster.name" } else { name };
        attribute(6, name, &value.into(), &mut out);
    }
    out
}

/// Returns the `ExportLogsServiceRequest` with these records.
pub(crate) fn request(records: &[Vec<u8>], hostname: &str) -> Vec<u8> {
    let mut resource = Vec::new();
    attribute(1, "service.name", &"pullwatch".into(), &mut resource);
    attribute(1, "service.version", &env!("CARGO_PKG_VERSION").into(), &mut resource);
    attribute(1, "host.name", &hostname.into(), &mut resource);
    let mut scope = Vec::new();
    bytes(1, b"pullwatch", &mut scope);
    let mut logs = Vec::new();
    bytes(1, &scope, &mut logs);
    for record in records {
        bytes(2, record, &mut logs);
    }
    let mut resource_logs = Vec::new();
    bytes(1, &resource, &mut resource_logs);
    bytes(2, &logs, &mut resource_logs);
    let mut out = Vec::new();
    bytes(1, &resource_logs, &mut out);
    out
}

/// Reads the number of rejected records from an `ExportLogsServiceResponse`. Any other response counts as a success.
pub(crate) fn rejected(response: &[u8]) -> u64 {
    let partial_success = field(response, 1).and_then(|(_, content)| content);
    partial_success.and_then(|content| field(content, 1)).map_or(0, |(number, _)| number)
}

/// The first field with this number: its value, or its content if it is length-delimited.
fn field(mut message: &[u8], wanted: u64) -> Option<(u64, Option<&[u8]>)> {
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        let (value, content) = match tag & 7 {
            VARINT => (read_varint(&mut message)?, None),
            LENGTH => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                let (content, rest) = message.split_at_checked(length)?;
                message = rest;
                (0, Some(content))
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some((value, content));
        }
    }
    None
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::alert;

    #[test]
    fn a_record_can_be_read_back() {
        let record = record(&alert(1));
        assert_eq!(record[0], 1 << 3 | 1);
        let request = request(&[record.clone(), record], "node");
        let resource_logs = field(&request, 1).unwrap().1.unwrap();
        let scope_logs = field(resource_logs, 2).unwrap().1.unwrap();
        let scope = field(scope_logs, 1).unwrap().1.unwrap();
        assert_eq!(field(scope, 1).unwrap().1.unwrap(), b"pullwatch");
    }

    #[test]
    fn reads_partial_success() {
        let mut partial = vec![1 << 3];
        varint(300, &mut partial);
        let mut response = Vec::new();
        bytes(1, &partial, &mut response);
        assert_eq!(rejected(&response), 300);
        assert_eq!((rejected(b""), rejected(b"\xff\xff"), rejected(b"{}")), (0, 0, 0));
    }
}
