//! The idempotent producer.

mod transaction;

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::daemon::kafka::client::{self, Context, LastError, error_kind};
use crate::daemon::kafka::{self};
use crate::daemon::sink::config::{Format, Kafka, Key};
use crate::daemon::sink::error::SettingsError;
use crate::daemon::sink::failure::{Failure, Reason, Remedy};
use crate::daemon::sink::fields::Fields;
use crate::daemon::sink::format;
use crate::daemon::sink::output::Rendering;
use crate::detection::alert::StoredAlert;

pub use transaction::TransactionalProducer;

/// Properties that the configuration may override.
const DEFAULTS: [(&str, &str); 3] =
    [("linger.ms", "1"), ("ssl.ca.location", "probe"), ("queue.buffering.max.kbytes", "16384")];

pub struct KafkaSink {
    settings: Kafka,
    shape: Rendering,
    config: ClientConfig,
    last: LastError,
    /// Created on first use, and again after a fatal error.
    producer: Option<FutureProducer<Context>>,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KafkaSink({})", self.settings.topic)
    }
}

pub fn config(settings: &Kafka, timeout: Duration) -> ClientConfig {
    let timeout = timeout.as_millis().max(1).to_string();
    let owned = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("compression.type", settings.compression.name()),
        ("message.timeout.ms", timeout.as_str()),
    ];
    client::config(&settings.cluster, &DEFAULTS, &owned)
}

/// Default of `message.max.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// Upper bound, in bytes, of a record's overhead in addition to payload, key and rule name, as librdkafka counts it.
const RECORD_OVERHEAD: usize = 1024;

/// Minimum length to which a record is shortened, in bytes, whatever limit the broker states.
const MIN_MESSAGE_BYTES: usize = 512;

/// Maximum length of a record's payload.
pub fn max_payload(config: &ClientConfig, max_message: Option<usize>) -> usize {
    let client = config.get("message.max.bytes").and_then(|text| text.parse().ok());
    client.unwrap_or(MAX_MESSAGE_BYTES).min(max_message.unwrap_or(usize::MAX))
}

/// Renders the payload of a record, so that the record including key and headers has at most `max_len` bytes.
pub fn payload<'a>(
    format: Format,
    alert: &'a StoredAlert,
    key: &str,
    max_len: usize,
) -> Result<format::Message<'a>, Failure> {
    let around = key.len() + alert.rule.len() + RECORD_OVERHEAD;
    format::message(format, alert, Some(max_len.saturating_sub(around).max(MIN_MESSAGE_BYTES)))
}

pub fn record<'a>(
    settings: &'a Kafka,
    alert: &'a StoredAlert,
    key: &'a str,
    payload: &'a [u8],
) -> FutureRecord<'a, str, [u8]> {
    let record = FutureRecord::to(&settings.topic).payload(payload).headers(headers(settings, alert));
    if settings.key == Key::None { record } else { record.key(key) }
}

pub fn key(settings: &Kafka, alert: &StoredAlert) -> String {
    match settings.key {
        Key::Actor => alert.actor.clone(),
        Key::Id => hex(&alert.id),
        Key::Rule => alert.rule.clone(),
        Key::None => String::new(),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn headers(settings: &Kafka, alert: &StoredAlert) -> OwnedHeaders {
    let (priority, id) = (alert.priority.name(), hex(&alert.id));
    let all = [
        ("rule", alert.rule.as_str()),
        ("priority", priority),
        ("alert_id", &id),
        ("content_type", settings.format.content_type()),
    ];
    let fields = Fields::of(alert);
    all.into_iter()
        .chain(fields.labels())
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

impl KafkaSink {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn new(settings: &Kafka, timeout: Duration, shape: Rendering) -> Result<Self, SettingsError> {
        let config = config(settings, timeout);
        let mut sink = KafkaSink {
            settings: settings.clone(),
            shape,
            config,
            last: LastError::default(),
            producer: None,
        };
        sink.producer().map_err(|error| SettingsError::Kafka(client::property_error(&error)))?;
        // A producer connects immediately.
        sink.producer = None;
        Ok(sink)
    }

    fn producer(&mut self) -> Result<&FutureProducer<Context>, KafkaError> {
        let context = Context::new(self.last.clone(), self.settings.cluster.oauth_token_file.clone());
        match &mut self.producer {
            Some(producer) => Ok(producer),
            none => Ok(none.insert(self.config.create_with_context(context)?)),
        }
    }

    /// Sends all alerts and waits for their acknowledgements.
    pub async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut max_len = max_payload(&self.config, self.shape.max_len);
        loop {
            match self.attempt(alerts, max_len).await {
                // The topic's limit is below the client's, so it would never accept this alert unchanged.
                Err(Failure { remedy: Remedy::GiveUp(1), reason: Reason::Rejected, .. })
                    if alerts.len() == 1 && max_len > 2 * MIN_MESSAGE_BYTES =>
                {
                    max_len = max_len.min(alerts[0].json.len() + RECORD_OVERHEAD) / 2;
                }
                result => return result,
            }
        }
    }

    async fn attempt(&mut self, alerts: &[StoredAlert], max_len: usize) -> Result<usize, Failure> {
        let (settings, shape) = (self.settings.clone(), self.shape.clone());
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(error) => return Err(Failure::transient(Reason::Io, client::property_error(&error))),
        };
        let mut sent = Vec::with_capacity(alerts.len());
        let mut refused = None;
        for alert in alerts {
            let key = key(&settings, alert);
            let (payload, is_short) = match payload(shape.format, alert, &key, max_len) {
                Ok(message) => message,
                Err(failure) if sent.is_empty() => return Err(failure),
                // The next delivery starts with it.
                Err(_) => break,
            };
            match producer.send_result(record(&settings, alert, &key, &payload)) {
                Ok(acknowledged) => {
                    shape.shortened.inc_by(u64::from(is_short));
                    sent.push(acknowledged);
                }
                Err((error, _)) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        // Wait for all of them, so that none is in flight when it is sent again.
        let (mut done, count) = (0, sent.len());
        let mut failed = None;
        for acknowledged in sent {
            let result = match acknowledged.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(error),
                Err(_) => Err(KafkaError::Canceled),
            };
            match result {
                Ok(()) if failed.is_none() => done += 1,
                Ok(()) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        if producer.client().fatal_error().is_some() {
            self.producer = None;
        }
        if let Some(error) = failed {
            // A broker rejects whole batches: smaller ones isolate the rejected record.
            return Err(self.failure(&error, count - done).after(done));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match refused {
            Some(KafkaError::MessageProduction(Code::QueueFull)) if done > 0 => Ok(done),
            // Rejected locally, so it is this record.
            Some(error) => Err(self.failure(&error, 1).after(done)),
            None => Ok(done),
        }
    }

    /// Classifies an error that may have been caused by any of the `suspects`.
    fn failure(&self, error: &KafkaError, suspects: usize) -> Failure {
        let code = error.rdkafka_error_code();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let passing = |kind: kafka::KafkaErrorKind, reason: Reason, detail: &str| {
            let hint = kind.hint();
            let detail = if hint.is_empty() { detail.to_owned() } else { format!("{detail}: {hint}") };
            Failure::transient(reason, detail)
        };
        match (code, last) {
            (
                Some(
                    Code::MessageSizeTooLarge
                    | Code::MessageBatchTooLarge
                    | Code::InvalidMessageSize
                    | Code::InvalidRecord,
                ),
                _,
            ) => Failure {
                delivered: 0,
                reason: Reason::Rejected,
                remedy: Remedy::GiveUp(suspects),
                detail: format!(
                    "{error}: raise `message.max.bytes` here and `max.message.bytes` of the topic for larger alerts"
                ),
            },
            (Some(Code::QueueFull), _) => Failure::transient(Reason::Throttled, error),
            // The error reported before the timeout is more specific.
            (Some(Code::MessageTimedOut | Code::TimedOutQueue), Some((kind, detail))) => {
                passing(kind, reason_for(kind), &detail)
            }
            (Some(Code::MessageTimedOut | Code::TimedOutQueue), None) => {
                Failure::transient(Reason::Timeout, error)
            }
            (Some(code), _) => {
                let kind = error_kind(code);
                passing(kind, reason_for(kind), &error.to_string())
            }
            (None, _) => Failure::transient(Reason::Server, error),
        }
    }
}

/// The corresponding label of the sink metrics.
pub fn reason_for(kind: kafka::KafkaErrorKind) -> Reason {
    match kind {
        kafka::KafkaErrorKind::Unreachable => Reason::Connection,
        kafka::KafkaErrorKind::Tls => Reason::Tls,
        kafka::KafkaErrorKind::Authentication
        | kafka::KafkaErrorKind::Forbidden
        | kafka::KafkaErrorKind::UnknownTopic => Reason::Rejected,
        _ => Reason::Server,
    }
}
