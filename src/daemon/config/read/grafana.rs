//! The settings of Alertmanager and Loki sinks.

use std::time::Duration;

use super::super::keys;
use super::ConfigReader;
use crate::daemon::sink::{Alertmanager, Format, Http, Kind, Loki, Secret};
use crate::detection::alert::Priority;
use crate::text::yaml::Node;

/// Every active alert is sent at this interval.
const MIN_RESEND_INTERVAL: Duration = Duration::from_secs(1);

impl ConfigReader<'_> {
    pub(super) fn alertmanager(&mut self, node: &Node) -> Kind {
        self.keys(node, &keys::ALERTMANAGER_SINK);
        let default = Alertmanager::default();
        let urls: Vec<Secret> = self.texts(node, "urls").into_iter().map(Secret::new).collect();
        if urls.is_empty() {
            self.error(node, "`urls` is missing", "add `urls: [http://alertmanager:9093]`");
        }
        let mut severities = default.severities.clone();
        for entry in self.entries(node, "severities") {
            let Some(severity) = self.value(&entry.value, &entry.key) else { continue };
            match Priority::parse(&entry.key) {
                Some(priority) if !severity.is_empty() => severities.0[priority as usize] = severity,
                Some(_) => self.error(&entry.value, "empty severity", "expected a text such as `critical`"),
                None => self.error(
                    &entry.value,
                    format!("unknown priority `{}`", entry.key),
                    "expected emergency, alert, critical, error, warning, notice, informational or debug",
                ),
            }
        }
        let resend_interval = match self.boolean_or_text(node, "resend_interval") {
            Some(Ok(false)) => None,
            Some(Err(_)) => {
                let interval = self.duration(node, "resend_interval");
                if interval.is_some_and(|interval| interval < MIN_RESEND_INTERVAL)
                    && let Some(found) = node.get("resend_interval")
                {
                    self.error(found, "`resend_interval` is too short", "expected 1s or more, or false");
                }
                interval
            }
            Some(Ok(true)) | None => default.resend_interval,
        };
        Kind::Alertmanager(Alertmanager {
            urls,
            http: self.http_client(node),
            resolve_after: self.duration(node, "resolve_after").unwrap_or(default.resolve_after),
            resend_interval,
            severities,
            page_url: self.text(node, "page_url"),
            runbook_url: self.text(node, "runbook_url"),
        })
    }

    pub(super) fn loki(&mut self, node: &Node) -> Option<Kind> {
        self.keys(node, &keys::LOKI_SINK);
        let default = Loki::default();
        Some(Kind::Loki(Loki {
            http: Http {
                url: self.secret(node, "url")?,
                gzip: self.boolean(node, "gzip").unwrap_or(default.http.gzip),
                ..self.http_client(node)
            },
            tenant: self.text(node, "tenant"),
            job: self.text(node, "job").unwrap_or(default.job),
            format: self.format(node, Format::Text),
        }))
    }
}
