//! Request bodies, and the meaning of responses to them, for each kind of HTTP receiver.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::config::Body;
use super::failure::{Failure, Reason, Remedy};
use super::fields::Fields;
use super::format;
use super::output::Rendering;
use crate::detection::alert::{StoredAlert, push_hex};
use crate::detection::shorten;

/// A body, and the number of alerts in it.
pub(crate) struct Encoded {
    pub(crate) count: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Returns a body with as many alerts as fit, at least one.
///
/// # Errors
/// When the first alert cannot be shortened to the limit.
pub(crate) fn encode(body: &Body, alerts: &[StoredAlert], shape: &Rendering) -> Result<Encoded, Failure> {
    let (max_alerts, max_bytes) = body.batch();
    let [open, between, close] = match body {
        Body::Array { .. } => ["[", ",", "]"],
        Body::Lines { .. } => ["", "\n", "\n"],
        _ => ["", "", ""],
    };
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut length = open.len() + close.len();
    for alert in alerts.iter().take(max_alerts) {
        let (entry, is_short) = match entry(body, alert, shape) {
            Ok(entry) => entry,
            Err(failure) if entries.is_empty() => return Err(failure),
            // The next request contains it, and fails.
            Err(_) => break,
        };
        let more = between.len() + entry.len();
        if !entries.is_empty() && length + more > max_bytes {
            break;
        }
        length += more;
        shape.shortened.inc_by(u64::from(is_short));
        entries.push(entry);
    }
    let count = entries.len();
    let bytes = if let Body::Otlp { .. } = body {
        format::otlp::request(&entries, &gethostname::gethostname().to_string_lossy())
    } else {
        let mut bytes = Vec::from(open);
        bytes.extend_from_slice(&entries.join(between.as_bytes()));
        bytes.extend_from_slice(close.as_bytes());
        bytes
    };
    Ok(Encoded { count, bytes })
}

/// One alert in a body, and whether it was shortened.
fn entry(body: &Body, alert: &StoredAlert, shape: &Rendering) -> Result<(Vec<u8>, bool), Failure> {
    let max_len = shape.max_len.unwrap_or(usize::MAX);
    let fitted = match body {
        Body::Template(template) => format::fit(alert, max_len, |alert| template.write(alert)),
        Body::Otlp { .. } => format::fit(alert, max_len, format::otlp::record),
        _ => format::render(shape.format, alert, max_len),
    };
    let (message, is_short) = fitted.ok_or_else(|| format::too_long(max_len))?;
    let entry = match body {
        Body::Bulk { data_stream, .. } => {
            let mut entry = Vec::new();
            shorten::write(&json!({"create": {"_index": data_stream, "_id": hex(alert)}}), &mut entry);
            entry.push(b'\n');
            entry.extend_from_slice(&message);
            entry.push(b'\n');
            entry
        }
        Body::Splunk { .. } => splunk_event(body, alert, shape, &message),
        _ => message.into_owned(),
    };
    Ok((entry, is_short))
}

fn hex(alert: &StoredAlert) -> String {
    let mut id = Vec::with_capacity(32);
    push_hex(&alert.id, &mut id);
    String::from_utf8_lossy(&id).into_owned()
}

/// An event of the HTTP Event Collector.
fn splunk_event(body: &Body, alert: &StoredAlert, shape: &Rendering, message: &[u8]) -> Vec<u8> {
    let Body::Splunk { index, source, sourcetype, host, .. } = body else { return Vec::new() };
    let when = if alert.time == 0 { alert.stored } else { alert.time };
    // As text: a float would lose digits.
    let time =
        format!("{}.{:03}", when.div_euclid(1_000_000_000), when.rem_euclid(1_000_000_000) / 1_000_000);
    let hostname = || gethostname::gethostname().to_string_lossy().into_owned();
    let mut meta = json!({"time": time, "host": host.clone().unwrap_or_else(hostname), "source": source, "sourcetype": sourcetype});
    if let Some(index) = index {
        meta["index"] = index.as_str().into();
    }
    let fields = Fields::of(alert);
    // Indexed fields.
    let mut indexed = json!({"alert_id": hex(alert), "rule": alert.rule, "priority": alert.priority.name(), "actor": alert.actor});
    let scalars = [
        ("credential", &fields.credential),
        ("namespace", &fields.namespace),
        ("registry_host", &fields.registry),
        ("exposure", &fields.exposure),
        ("verb", &fields.verb),
    ];
    for (name, value) in scalars {
        if let Some(value) = value {
            indexed[name] = value.as_str().into();
        }
    }
    for (name, value) in fields.labels() {
        indexed[name] = value.into();
    }
    meta["fields"] = indexed;
    let mut out = Vec::new();
    shorten::write(&meta, &mut out);
    out.pop();
    out.extend_from_slice(b",\"event\":");
    if shape.format.is_json() {
        out.extend_from_slice(message);
    } else {
        crate::text::escape::push_json_string(message, &mut out);
    }
    out.push(b'}');
    out
}

/// Interprets the body of a successful response for the alerts of the request.
pub(crate) fn accepted(body: &Body, response: &[u8], count: usize) -> Result<usize, Failure> {
    match body {
        Body::Bulk { .. } => bulk_result(response, count),
        Body::Otlp { .. } if format::otlp::rejected(response) > 0 => Err(Failure {
            delivered: 0,
            reason: Reason::Rejected,
            remedy: Remedy::GiveUp(count),
            detail: "the receiver rejected log records".to_owned(),
        }),
        _ => Ok(count),
    }
}

/// Item errors that are not about its document: the index is blocked, closed, or missing.
const INDEX_ERRORS: [&str; 3] =
    ["cluster_block_exception", "index_closed_exception", "index_not_found_exception"];

/// The results of the items of a bulk request, in order. If a document already exists, the alert was sent before.
fn bulk_result(response: &[u8], count: usize) -> Result<usize, Failure> {
    let Ok(response) = serde_json::from_slice::<Value>(response) else {
        return Err(Failure::transient(
            Reason::Unexpected,
            "the response is not the result of a bulk request",
        ));
    };
    if response["errors"] == false {
        return Ok(count);
    }
    let Some(items) = response["items"].as_array().filter(|items| items.len() == count) else {
        return Err(Failure::transient(
            Reason::Unexpected,
            "the response does not have a result for each alert",
        ));
    };
    for (delivered, item) in items.iter().enumerate() {
        let result = &item["create"];
        let status = result["status"].as_u64().unwrap_or_default();
        let error = result["error"]["type"].as_str().unwrap_or_default();
        // The receiver's own error type, if it is an identifier.
        let is_word =
            error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let detail = format!("item with status {status} {}", if is_word { error } else { "" });
        let (reason, remedy) = match status {
            200..=299 | 409 => continue,
            429 => (Reason::Throttled, Remedy::Retry(None)),
            400..=499 if INDEX_ERRORS.contains(&error) => (Reason::Rejected, Remedy::Retry(None)),
            400..=499 => (Reason::Rejected, Remedy::GiveUp(1)),
            _ => (Reason::Server, Remedy::Retry(None)),
        };
        return Err(Failure { delivered, reason, remedy, detail });
    }
    Ok(count)
}

/// The id under which an HTTP Event Collector acknowledges events later.
pub(crate) fn splunk_ack_id(response: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(response).ok()?["ackId"].as_u64()
}

/// Whether a response to an acknowledgement query confirms this id.
pub(crate) fn splunk_is_acknowledged(status: StatusCode, response: &[u8], id: u64) -> bool {
    let response: Value = serde_json::from_slice(response).unwrap_or_default();
    status.is_success() && response["acks"][id.to_string()] == true
}
