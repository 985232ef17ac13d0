//! Sends alerts to Alertmanager (API v2).
//!
//! Sends stored alerts to each of several Alertmanagers. Labels identify an alert there: they contain who read which credential, and
//! nothing that differs between two reads of the same reader, so that a second read renews the first alert, while a second reader causes a
//! separate alert. Alertmanager resolves an alert at its `endsAt`, which every read moves; this does not need a running pullwatch.
//! Alertmanager keeps alerts in memory only: `resend` sends those that are active again.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::config::Alertmanager;
use super::deliveries::Deliveries;
use super::error::SettingsError;
use super::failure::{Failure, Reason, Remedy};
use super::fields::Fields;
use super::format::template::Fingerprint;
use super::http::HttpSink;
use super::output::Rendering;
use crate::daemon::log_limit::LogLimit;
use crate::daemon::secret::Secret;
use crate::daemon::time::unix_nanos;
use crate::detection::alert::{StoredAlert, push_hex};
use crate::detection::audit::time;
use crate::detection::shorten;
use crate::text::escape::visible;

/// Maximum number of alerts in a request.
pub(crate) const MAX_ALERTS: usize = 64;

/// Maximum length of a label value, and of the description, in bytes. Chat templates truncate far earlier.
const MAX_LABEL_BYTES: usize = 1024;
const MAX_DESCRIPTION_BYTES: usize = 8 << 10;

/// Path of the API below the URL of an Alertmanager.
const PATH: &str = "api/v2/alerts";

/// Statuses that mean that the request was wrong, rather than an alert in it.
const WRONG_REQUEST: [u16; 6] = [401, 403, 404, 405, 407, 415];

/// Sends alerts to all Alertmanagers of a cluster.
#[derive(Debug)]
pub(crate) struct AlertmanagerSink {
    settings: Alertmanager,
    shape: Rendering,
    receivers: Vec<HttpSink>,
    /// Whether the last delivery to each of them failed.
    is_failing: Vec<bool>,
    deliveries: Arc<Deliveries>,
    unsaved: LogLimit,
}

impl AlertmanagerSink {
    /// Checks the settings. Sends nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub(crate) fn new(
        settings: &Alertmanager,
        shape: &Rendering,
        deliveries: Arc<Deliveries>,
    ) -> Result<Self, SettingsError> {
        if settings.urls.is_empty() {
            return Err(SettingsError::Url("expected at least one in `urls`"));
        }
        let receivers: Result<Vec<_>, _> = settings
            .urls
            .iter()
            .map(|url| {
                let mut http = settings.http.clone();
                http.url = Secret::new(format!("{}/{PATH}", url.reveal().trim_end_matches('/')));
                http.retry_statuses = WRONG_REQUEST.to_vec();
                HttpSink::new(&http, shape.clone())
            })
            .collect();
        let receivers = receivers?;
        Ok(AlertmanagerSink {
            settings: settings.clone(),
            shape: shape.clone(),
            is_failing: vec![false; receivers.len()],
            receivers,
            deliveries,
            unsaved: LogLimit::default(),
        })
    }

    /// The Alertmanagers, in the order of the configuration.
    pub(super) fn receivers(&mut self) -> &mut [HttpSink] {
        &mut self.receivers
    }

    /// The same Alertmanagers, over separate connections.
    pub(super) fn again(&self) -> Result<Self, SettingsError> {
        Self::new(&self.settings, &self.shape, self.deliveries.clone())
    }

    pub(super) fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Sends these alerts to every Alertmanager. It is sufficient if one accepts them: the members of a cluster share notifications, and an
    /// unavailable one must not delay the others.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let now = unix_nanos();
        let ends = self.deliveries.ends(now);
        let list: Vec<Value> = alerts.iter().map(|alert| self.alert(alert, ends)).collect();
        let body = Value::Array(list).to_string().into_bytes();
        let requests = self.receivers.iter_mut().map(|receiver| receiver.post(body.clone(), alerts.len()));
        let outcomes = futures_util::future::join_all(requests).await;
        let is_accepted = outcomes.iter().any(Result::is_ok);
        let mut worst: Option<Failure> = None;
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let was_failing = std::mem::replace(&mut self.is_failing[at], outcome.is_err());
            match outcome {
                Err(failure) => {
                    if is_accepted && !was_failing {
                        tracing::warn!(
                            number = at + 1,
                            reason = failure.reason.name(),
                            detail = failure.detail,
                            "one of several Alertmanagers does not accept alerts; the others do"
                        );
                    }
                    // A rejection of the alert itself takes precedence over an unreachable receiver.
                    if worst.as_ref().is_none_or(|worst| worst.reason != Reason::Rejected) {
                        worst = Some(failure);
                    }
                }
                Ok(_) if was_failing => tracing::info!(number = at + 1, "Alertmanager accepts alerts again"),
                Ok(_) => {}
            }
        }
        match worst {
            Some(failure) if !is_accepted => Err(failure),
            // Alertmanager keeps the valid alerts of a request and rejects the request because of the others.
            Some(failure) if matches!(failure.remedy, Remedy::GiveUp(2..)) => Err(failure),
            _ => {
                if let Some(first) = alerts.first() {
                    self.record(first.seq, ends, now).await;
                }
                Ok(alerts.len())
            }
        }
    }

    /// Records a delivery before the cursor is saved. After a kill in between, alerts are delivered again with a later end.
    async fn record(&mut self, first: i64, ends: i64, now: i64) {
        if !self.deliveries.record(first, ends, now) {
            return;
        }
        let deliveries = self.deliveries.clone();
        let saved = tokio::task::spawn_blocking(move || deliveries.save()).await;
        if let Ok(Err(error)) = saved
            && let Some(suppressed) = self.unsaved.admit()
        {
            tracing::warn!(
                %error,
                suppressed,
                "cannot record a delivery in the state directory; after a restart, its alerts may not be sent again"
            );
        }
    }

    /// The labels of an alert, by which Alertmanager identifies it.
    fn labels(&self, alert: &StoredAlert, fields: &Fields) -> Map<String, Value> {
        let severity = self.settings.severities.of(alert.priority);
        let mut labels = Map::new();
        let mut push = |name: &str, value: &str| {
            if !value.is_empty() && !labels.contains_key(name) {
                labels.insert(name.to_owned(), shorten::str(&visible(value), MAX_LABEL_BYTES).into());
            }
        };
        push("alertname", &alert.rule);
        push("severity", severity);
        push("actor", &alert.actor);
        let texts = [
            ("credential", &fields.credential),
            ("namespace", &fields.namespace),
            ("registry", &fields.registry),
        ];
        for (name, value) in texts {
            push(name, value.as_deref().unwrap_or_default());
        }
        for (name, value) in fields.labels() {
            push(name, value);
        }
        labels
    }

    /// Identifies the alert that this one is, or renews, in Alertmanager.
    pub(super) fn fingerprint(&self, alert: &StoredAlert) -> Fingerprint {
        let labels = Value::Object(self.labels(alert, &Fields::of(alert)));
        let mut out = Fingerprint::default();
        out.copy_from_slice(&Sha256::digest(labels.to_string())[..16]);
        out
    }

    /// An alert in the format of the API. `ends` is in unix nanoseconds. The same alert and end always produce the same object.
    pub(super) fn alert(&self, alert: &StoredAlert, ends: i64) -> Value {
        let fields = Fields::of(alert);
        let labels = self.labels(alert, &fields);
        let mut id = Vec::with_capacity(32);
        push_hex(&alert.id, &mut id);
        let id = String::from_utf8_lossy(&id).into_owned();
        let mut annotations = Map::new();
        let mut summary = format!("{}: {}", alert.rule, alert.actor);
        if let Some(credential) = &fields.credential {
            summary.push_str(" (");
            summary.push_str(credential);
            summary.push(')');
        }
        annotations.insert("summary".to_owned(), shorten::str(&visible(&summary), MAX_LABEL_BYTES).into());
        let description = visible(alert.message.trim());
        annotations
            .insert("description".to_owned(), shorten::str(&description, MAX_DESCRIPTION_BYTES).into());
        annotations.insert("priority".to_owned(), alert.priority.name().into());
        annotations.insert("alert_id".to_owned(), id.as_str().into());
        for (name, value) in [("verb", &fields.verb), ("exposure", &fields.exposure)] {
            if let Some(value) = value {
                annotations.insert(name.to_owned(), shorten::str(&visible(value), MAX_LABEL_BYTES).into());
            }
        }
        if let Some(url) = &self.settings.runbook_url {
            annotations.insert("runbook_url".to_owned(), url.replace("{rule}", &slug(&alert.rule)).into());
        }
        // The clock of an apiserver may be ahead, and this machine's clock may have been set back.
        let start = if alert.time == 0 { alert.stored } else { alert.time }.min(alert.stored).min(ends);
        let mut object = json!({
            "labels": labels,
            "annotations": annotations,
            "startsAt": timestamp(start),
            "endsAt": timestamp(ends),
        });
        if let Some(url) = &self.settings.page_url {
            object["generatorURL"] = format!("{}/#/alerts/{id}", url.trim_end_matches('/')).into();
        }
        object
    }
}

fn timestamp(nanoseconds: i64) -> String {
    let mut text = Vec::with_capacity(30);
    time::write_rfc3339(&mut text, nanoseconds);
    String::from_utf8_lossy(&text).into_owned()
}

/// The rule name as a heading anchor: lower case, with hyphens between words.
fn slug(rule: &str) -> String {
    let words = rule.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::daemon::sink::config::Format;
    use crate::daemon::sink::tests::{HOSTILE, alert};

    fn sink() -> AlertmanagerSink {
        let settings = Alertmanager {
            urls: vec![Secret::new("http://a:9093/prefix/")],
            page_url: Some("https://pullwatch.example/".to_owned()),
            runbook_url: Some("https://runbooks.example/{rule}".to_owned()),
            ..Alertmanager::default()
        };
        let shortened = prometheus::IntCounter::new("a", "a").unwrap();
        let shape = Rendering { format: Format::Falco, max_len: None, shortened };
        let deliveries = Arc::new(Deliveries::new(settings.resolve_after));
        AlertmanagerSink::new(&settings, &shape, deliveries).unwrap()
    }

    #[test]
    fn labels_say_who_read_what_and_nothing_else() {
        let json = r#"{"credential":"prod/regcred","namespace":"prod","registry_host":"ghcr.io","exposure":"payload","verb":"get","cluster":"c1","team":"t","id":"x"}"#;
        let stored = StoredAlert { json: json.into(), ..alert(1) };
        let object = sink().alert(&stored, 1_795_409_200_000_000_000);
        assert_eq!(
            object["labels"],
            json!({
                "alertname": "Secret Read", "severity": "warning", "actor": "alice", "credential": "prod/regcred",
                "namespace": "prod", "registry": "ghcr.io", "cluster": "c1", "team": "t",
            })
        );
        assert_eq!(object["annotations"]["runbook_url"], "https://runbooks.example/secret-read");
        assert_eq!(
            object["generatorURL"],
            "https://pullwatch.example/#/alerts/00000000000000000000000000000001"
        );
        assert_eq!(object["startsAt"], "2026-11-23T03:45:32.270783000Z");
        assert_eq!(object["endsAt"], "2026-11-23T04:46:40.000000000Z");
        // A later read of the same reader has the same labels.
        let later = StoredAlert { time: stored.time + 1, seq: 2, id: [7; 16], ..stored.clone() };
        assert_eq!(sink().alert(&later, 0)["labels"], object["labels"]);
        assert_eq!(sink().fingerprint(&later), sink().fingerprint(&stored));
        let other = StoredAlert { actor: "bob".to_owned(), ..later };
        assert_ne!(sink().fingerprint(&other), sink().fingerprint(&stored));
        // An event from the future starts when it was stored.
        let ahead = StoredAlert { time: other.stored + 1, ..other };
        assert_eq!(sink().alert(&ahead, i64::MAX)["startsAt"], "2026-11-23T03:45:32.280000000Z");
    }

    #[test]
    fn hostile_values_are_bounded_and_visible() {
        let hostile = StoredAlert {
            actor: HOSTILE.repeat(100),
            rule: HOSTILE.into(),
            message: HOSTILE.repeat(1000),
            ..alert(1)
        };
        let text = sink().alert(&hostile, 1).to_string();
        assert!(!text.chars().any(crate::text::escape::is_disruptive), "{text}");
        assert!(text.len() < 20_000, "{}", text.len());
    }
}
