//! Sends alerts to Grafana Loki (push API, JSON).
//!
//! Sends one entry per alert, in a stream per rule and priority. Actor, credential, namespace, registry and id are structured metadata,
//! because a label with many values makes Loki slow. VictoriaLogs accepts this format as well.
//!
//! A request contains entries of one stream: the response to a request with several streams only covers the last one, and Loki silently
//! drops entries of the others. Loki rejects entries that are much older than the newest one of their stream, or too old in general, with
//! status 400, and keeps the other entries of the request. Such an entry gets another time, and the time of the event as metadata.

mod refusal;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::config::Loki;
use super::error::SettingsError;
use super::failure::{Failure, Reason, Remedy};
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
use refusal::Refusal;

/// Maximum number of alerts in a delivery.
pub(crate) const MAX_ALERTS: usize = 256;

/// Maximum size of the entries of a delivery before compression, in bytes; a single entry may exceed it.
const MAX_DELIVERY_BYTES: usize = 1 << 20;

/// Minimum size to which a delivery is reduced, in bytes, whatever Loki's limits are.
const MIN_DELIVERY_BYTES: usize = 1 << 10;

/// Maximum size of a line, in bytes: the default of `limits_config.max_line_size`.
const MAX_LINE_BYTES: usize = 256 << 10;

/// Minimum length to which a line is shortened, in bytes, whatever limit Loki states.
const MIN_LINE_BYTES: usize = 512;

/// Maximum number of labels of a stream: the default of `limits_config.max_label_names_per_series`.
const MAX_LABELS: usize = 15;

/// Maximum length of a label or metadata value, in bytes: `limits_config.max_label_value_length` is 2048.
const MAX_VALUE_BYTES: usize = 2000;

/// Entries older than this, in nanoseconds, get a later time. Loki accepts entries up to half of `max_chunk_age` (2 h) older than
/// the newest of their stream.
const MAX_ENTRY_AGE: i64 = 45 * 60 * 1_000_000_000;

/// Lower bound, in nanoseconds, of the age that Loki is assumed to accept.
const MIN_ENTRY_AGE: i64 = 1_000_000_000;

/// After this time, a delivery ends with the streams sent so far, so that many streams do not exceed the sink's timeout.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(2);

/// Status of a Loki that blocks ingestion and stores nothing.
const MAX_SUCCESS: u16 = 206;

/// Statuses that mean that the request was wrong, rather than an alert in it.
const WRONG_REQUEST: [u16; 6] = [401, 403, 404, 405, 407, 415];

/// Sends entries to one Loki.
#[derive(Debug)]
pub(crate) struct LokiSink {
    settings: Loki,
    shape: Rendering,
    http: HttpSink,
    /// Entries older than this get a later time. It is reduced if Loki rejects younger entries.
    max_age: i64,
    /// It is reduced while Loki rejects larger deliveries.
    max_delivery: usize,
}

/// An entry without its time.
struct Entry<'a> {
    alert: &'a StoredAlert,
    line: String,
    metadata: Map<String, Value>,
}

impl Entry<'_> {
    fn size(&self) -> usize {
        self.line.len() + self.metadata.values().map(|value| value.to_string().len()).sum::<usize>()
    }
}

/// The entries of one stream, in the order of the alerts.
struct Stream<'a> {
    labels: Map<String, Value>,
    /// Number of the first alert within the delivery.
    first: usize,
    entries: Vec<Entry<'a>>,
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
        Ok(LokiSink {
            settings: settings.clone(),
            http: HttpSink::new(&http, shape.clone())?,
            shape,
            max_age: MAX_ENTRY_AGE,
            max_delivery: MAX_DELIVERY_BYTES,
        })
    }

    /// Sends as many alerts as fit, in one request for each stream.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let start = Instant::now();
        let (count, size, streams) = self.streams(alerts)?;
        for mut stream in streams {
            // Streams are ordered by their first alerts, so all alerts before this one are delivered. Later ones that are delivered too are
            // sent again, and stored once.
            let (first, len) = (stream.first, stream.entries.len());
            if first > 0 && start.elapsed() > MAX_DELIVERY_TIME {
                return Ok(first);
            }
            if let Err(mut failure) = self.send(&mut stream).await {
                if failure.reason == Reason::Throttled && count > 1 {
                    // Loki never accepts more at once than the burst size of its rate limit.
                    self.max_delivery = (size / 2).max(MIN_DELIVERY_BYTES);
                }
                if len > 1 && matches!(failure.remedy, Remedy::GiveUp(_)) {
                    failure.remedy = Remedy::GiveUp(count - first);
                }
                return Err(failure.after(first));
            }
        }
        self.max_delivery = self.max_delivery.saturating_mul(2).min(MAX_DELIVERY_BYTES);
        Ok(count)
    }

    /// Sends the entries of one stream. If Loki rejects them because of their times or line lengths, sends them again with other times or
    /// shorter lines.
    async fn send(&mut self, stream: &mut Stream<'_>) -> Result<(), Failure> {
        let now = unix_nanos();
        let mut max_age = self.max_age;
        loop {
            let answer = self.http.exchange(body(stream, now, max_age)).await?;
            let status = answer.status.as_u16();
            if (MAX_SUCCESS + 1..300).contains(&status) {
                let detail = format!("HTTP {status}: Loki keeps no entries (`block_ingestion_until`)");
                return Err(Failure::transient(Reason::Unexpected, detail));
            }
            let Err(mut failure) = self.http.classify(&answer, 1) else { return Ok(()) };
            let refusal = Refusal::of(status, &answer.body);
            if let Some(advice) = refusal.advice() {
                failure.detail = format!("{}: {advice}", failure.detail);
            }
            match refusal {
                Refusal::Setting(_) => failure.remedy = Remedy::Retry(None),
                Refusal::Time(_) if max_age > 0 => {
                    // Half the age of the oldest entry: a few attempts are sufficient to find the accepted age, which also applies to later
                    // deliveries.
                    let oldest =
                        stream.entries.iter().map(|entry| entry_time(entry.alert, now, max_age)).min();
                    let age = oldest.map_or(0, |oldest| now.saturating_sub(oldest));
                    max_age = if age > MIN_ENTRY_AGE { age / 2 } else { 0 };
                    self.max_age = max_age.max(MIN_ENTRY_AGE);
                    continue;
                }
                Refusal::LongLine(Some(max)) if self.shorten(stream, max)? => continue,
                // A receiver with other error texts may also mean the time.
                Refusal::Other
                    if matches!(failure.remedy, Remedy::GiveUp(_))
                        && stream.entries.len() == 1
                        && stream.entries[0].alert.time != 0
                        && max_age > 0 =>
                {
                    max_age = 0;
                    continue;
                }
                _ => {}
            }
            return Err(failure);
        }
    }

    /// Shortens the lines to a limit that Loki stated. Returns whether any line became shorter.
    fn shorten(&mut self, stream: &mut Stream<'_>, max: usize) -> Result<bool, Failure> {
        if max < MIN_LINE_BYTES || stream.entries.iter().all(|entry| entry.line.len() <= max) {
            return Ok(false);
        }
        self.shape.max_len = Some(self.shape.max_len.map_or(max, |before| before.min(max)));
        for entry in &mut stream.entries {
            entry.line = self.line(entry.alert)?;
        }
        Ok(true)
    }

    fn line(&self, alert: &StoredAlert) -> Result<String, Failure> {
        let (line, is_short) = format::message(self.shape.format, alert, self.shape.max_len)?;
        if is_short {
            self.shape.shortened.inc();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// As many alerts as fit, at least one, grouped by stream: their number, their size, and the streams in the order of their first
    /// alerts.
    fn streams<'a>(&self, alerts: &'a [StoredAlert]) -> Result<(usize, usize, Vec<Stream<'a>>), Failure> {
        let (mut streams, mut places) = (Vec::<Stream<'a>>::new(), HashMap::new());
        let (mut size, mut count) = (0, 0);
        for alert in alerts {
            let fields = Fields::of(alert);
            let (labels, metadata) = self.labels(alert, &fields);
            let line = match self.line(alert) {
                Ok(line) => line,
                Err(failure) if count == 0 => return Err(failure),
                Err(_) => break,
            };
            let entry = Entry { alert, line, metadata };
            if count > 0 && size + entry.size() > self.max_delivery {
                break;
            }
            size += entry.size();
            let key = Value::Object(labels.clone()).to_string();
            let place = *places.entry(key).or_insert(streams.len());
            if place == streams.len() {
                streams.push(Stream { labels, first: count, entries: Vec::new() });
            }
            streams[place].entries.push(entry);
            count += 1;
        }
        Ok((count, size, streams))
    }

    /// The labels of a stream, which are few and from closed sets, and the structured metadata of an entry.
    fn labels(&self, alert: &StoredAlert, fields: &Fields) -> (Map<String, Value>, Map<String, Value>) {
        let (mut labels, mut metadata) = (Map::new(), metadata(alert, fields));
        labels.insert("job".to_owned(), self.settings.job.as_str().into());
        labels.insert("rule".to_owned(), value(&alert.rule));
        labels.insert("priority".to_owned(), alert.priority.name().into());
        for (name, text) in fields.labels() {
            let place = if labels.len() < MAX_LABELS { &mut labels } else { &mut metadata };
            place.entry(name).or_insert_with(|| value(text));
        }
        (labels, metadata)
    }
}

/// A request with the entries of one stream.
fn body(stream: &Stream, now: i64, max_age: i64) -> Vec<u8> {
    let mut entries: Vec<(i64, Value)> = stream
        .entries
        .iter()
        .map(|entry| {
            let at = entry_time(entry.alert, now, max_age);
            (at, json!([at.to_string(), entry.line, entry.metadata]))
        })
        .collect();
    entries.sort_by_key(|(at, _)| *at);
    let values: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    json!({"streams": [{"stream": stream.labels, "values": values}]}).to_string().into_bytes()
}

/// The time of an entry: that of the event if it is recent, else that at which the alert was stored if it is recent, else the current time.
/// With the first two, an entry that is sent again is equal to the previous one, so that Loki stores only one of them.
fn entry_time(alert: &StoredAlert, now: i64, max_age: i64) -> i64 {
    let is_recent = |at: &i64| *at > 0 && *at <= now && now.saturating_sub(*at) < max_age;
    [alert.time, alert.stored].into_iter().find(is_recent).unwrap_or(now)
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
    // Characters that are made visible become several times longer, and the limit applies to the result.
    shorten::str(&visible(text), MAX_VALUE_BYTES).into()
}
