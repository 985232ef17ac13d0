//! Sends alerts to Grafana Loki (push API, JSON).
//!
//! In: stored alerts. Out: one entry each, in a stream per rule and priority; actor, credential, namespace, registry and id are
//! structured metadata, since a label with many values makes Loki slow. Also accepted by VictoriaLogs.
//!
//! Loki refuses entries that are much older than the newest of their stream, or old in general, with 400, and keeps the others of
//! the request. Such an entry gets the time of delivery, and the time of the event as metadata.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::config::Loki;
use super::error::SettingsError;
use super::failure::{Failure, Remedy};
use super::fields::Fields;
use super::format;
use super::http::HttpSink;
use super::output::Rendering;
use crate::daemon::secret::Secret;
use crate::daemon::time::unix_nanos;
use crate::detection::alert::{StoredAlert, push_hex};
use crate::detection::audit::time;
use crate::detection::shorten;
use crate::text::escape::visible;

/// Maximum number of alerts in a request.
pub(crate) const MAX_ALERTS: usize = 256;

/// Maximum size of a request before compression, in bytes; a single entry may exceed it.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Maximum size of a line, in bytes: the default of `limits_config.max_line_size`.
const MAX_LINE_BYTES: usize = 256 << 10;

/// Maximum length of a label or metadata value, in bytes: `limits_config.max_label_value_length` is 2048.
const MAX_VALUE_BYTES: usize = 2000;

/// Events older than this, in nanoseconds, get the time of delivery. Loki accepts entries up to half of `max_chunk_age` (2 h) older
/// than the newest of their stream.
const MAX_EVENT_AGE: i64 = 45 * 60 * 1_000_000_000;

/// Statuses that say that the request was wrong, and not an alert in it.
const WRONG_REQUEST: [u16; 6] = [401, 403, 404, 405, 407, 415];

/// Sends entries to one Loki.
#[derive(Debug)]
pub(crate) struct LokiSink {
    settings: Loki,
    shape: Rendering,
    http: HttpSink,
}

impl LokiSink {
    /// Checks the settings. Sends nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(settings: &Loki, shape: Rendering) -> Result<Self, SettingsError> {
        let mut http = settings.http.clone();
        http.retry_statuses = WRONG_REQUEST.to_vec();
        if let Some(tenant) = &settings.tenant {
            http.headers.push(("X-Scope-OrgID".to_owned(), Secret::new(tenant)));
        }
        let max_len = shape.max_len.map_or(MAX_LINE_BYTES, |max| max.min(MAX_LINE_BYTES));
        let shape = Rendering { max_len: Some(max_len), ..shape };
        Ok(LokiSink { settings: settings.clone(), http: HttpSink::new(&http, shape.clone())?, shape })
    }

    /// Sends one request with as many alerts as fit.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let now = unix_nanos();
        let (count, body) = self.body(alerts, now, MAX_EVENT_AGE)?;
        let failure = match self.http.post(body, count).await {
            Err(failure) if count == 1 && matches!(failure.remedy, Remedy::GiveUp(_)) => failure,
            result => return result,
        };
        // Its stream may have newer entries than Loki allows.
        if alerts[0].time == 0 {
            return Err(failure);
        }
        let (count, body) = self.body(&alerts[..1], now, 0)?;
        self.http.post(body, count).await
    }

    /// Returns a request with as many alerts as fit, at least one, and their number. Events that are older than `max_age` get the
    /// time `now`.
    fn body(&self, alerts: &[StoredAlert], now: i64, max_age: i64) -> Result<(usize, Vec<u8>), Failure> {
        let mut streams: BTreeMap<String, (Map<String, Value>, Vec<Value>)> = BTreeMap::new();
        let (mut size, mut count) = (0, 0);
        for alert in alerts {
            let fields = Fields::of(alert);
            let labels = self.labels(alert, &fields);
            let (line, is_short) = match format::message(self.shape.format, alert, self.shape.max_len) {
                Ok(line) => line,
                Err(failure) if count == 0 => return Err(failure),
                Err(_) => break,
            };
            let metadata = metadata(alert, &fields);
            let own = line.len() + metadata.values().map(|value| value.to_string().len()).sum::<usize>();
            if count > 0 && size + own > MAX_REQUEST_BYTES {
                break;
            }
            size += own;
            count += 1;
            if is_short {
                self.shape.shortened.inc();
            }
            let is_recent = alert.time != 0 && now.saturating_sub(alert.time) < max_age && alert.time <= now;
            let at = if is_recent { alert.time } else { now };
            let entry = json!([at.to_string(), String::from_utf8_lossy(&line), metadata]);
            let key = Value::Object(labels.clone()).to_string();
            streams.entry(key).or_insert_with(|| (labels, Vec::new())).1.push(entry);
        }
        let streams: Vec<Value> = streams
            .into_values()
            .map(|(labels, mut entries)| {
                entries.sort_by(|one, other| one[0].as_str().cmp(&other[0].as_str()));
                json!({"stream": labels, "values": entries})
            })
            .collect();
        Ok((count, json!({ "streams": streams }).to_string().into_bytes()))
    }

    /// The labels of a stream: few, from closed sets.
    fn labels(&self, alert: &StoredAlert, fields: &Fields) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("job".to_owned(), self.settings.job.as_str().into());
        labels.insert("rule".to_owned(), value(&alert.rule));
        labels.insert("priority".to_owned(), alert.priority.name().into());
        for (name, text) in fields.labels() {
            labels.entry(name).or_insert_with(|| value(text));
        }
        labels
    }
}

/// The structured metadata of a log entry.
fn metadata(alert: &StoredAlert, fields: &Fields) -> Map<String, Value> {
    let mut id = Vec::with_capacity(32);
    push_hex(&alert.id, &mut id);
    let mut metadata = Map::new();
    metadata.insert("alert_id".to_owned(), String::from_utf8_lossy(&id).into());
    if alert.time != 0 {
        let mut at = Vec::new();
        time::write_rfc3339(&mut at, alert.time);
        metadata.insert("event_time".to_owned(), String::from_utf8_lossy(&at).into());
    }
    let texts = [
        ("actor", Some(&alert.actor)),
        ("credential", fields.credential.as_ref()),
        ("namespace", fields.namespace.as_ref()),
        ("registry", fields.registry.as_ref()),
        ("exposure", fields.exposure.as_ref()),
        ("verb", fields.verb.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            metadata.insert(name.to_owned(), value(text));
        }
    }
    metadata
}

fn value(text: &str) -> Value {
    // Characters that are made visible are several times as long: the limit is for what Loki gets.
    shorten::str(&visible(text), MAX_VALUE_BYTES).into()
}
