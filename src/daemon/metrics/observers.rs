//! Metrics of the listeners: the audit webhook and the server.

use std::sync::Arc;

use super::{Metrics, result};
use crate::daemon::source::webhook::{CODES, WebhookObserver};

/// Metrics of one webhook source.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    metrics: Arc<Metrics>,
    source: String,
}

impl WebhookMetrics {
    /// Creates the series of the source with this name.
    pub fn new(metrics: Arc<Metrics>, source: &str) -> Self {
        let all = &metrics.instruments;
        for code in CODES {
            all.webhook_requests.with_label_values(&[source, code.to_string().as_str()]).reset();
        }
        all.webhook_batches.with_label_values(&[source]).reset();
        all.webhook_duplicates.with_label_values(&[source]).reset();
        all.webhook_dropped_events.with_label_values(&[source]).reset();
        all.webhook_dropped_bytes.with_label_values(&[source]).reset();
        all.webhook_memory.with_label_values(&[source]).set(0);
        for success in [true, false] {
            all.file_reloads.with_label_values(&[source, result(success)]).reset();
        }
        WebhookMetrics { source: source.to_owned(), metrics }
    }

    /// Adds events that the pipeline dropped as duplicates.
    pub(crate) fn duplicates(&self, events: u64) {
        self.metrics.instruments.webhook_duplicates.with_label_values(&[self.source.as_str()]).inc_by(events);
    }
}

impl WebhookObserver for WebhookMetrics {
    fn answered(&self, code: u16) {
        let code = code.to_string();
        let labels = [self.source.as_str(), code.as_str()];
        self.metrics.instruments.webhook_requests.with_label_values(&labels).inc();
    }

    fn submitted(&self, bytes: usize) {
        self.metrics.add_bytes(&self.source, bytes as u64);
        self.metrics.instruments.webhook_batches.with_label_values(&[self.source.as_str()]).inc();
    }

    fn memory(&self, change: i64) {
        self.metrics.instruments.webhook_memory.with_label_values(&[self.source.as_str()]).add(change);
    }

    fn dropped(&self, events: u64, bytes: u64) {
        let source = [self.source.as_str()];
        self.metrics.instruments.webhook_dropped_events.with_label_values(&source).inc_by(events);
        self.metrics.instruments.webhook_dropped_bytes.with_label_values(&source).inc_by(bytes);
    }

    fn reloaded(&self, success: bool) {
        let labels = [self.source.as_str(), result(success)];
        self.metrics.instruments.file_reloads.with_label_values(&labels).inc();
    }
}

/// Value of the label `listener` for the server's own port.
const SERVER: &str = "server";

/// Metrics of the server.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    metrics: Arc<Metrics>,
}

impl ListenerMetrics {
    /// Creates the series of these paths with code 200.
    pub fn new(metrics: Arc<Metrics>, paths: &[&str]) -> Self {
        let all = &metrics.instruments;
        for path in paths {
            all.http_requests.with_label_values(&[path, "200"]).reset();
        }
        for success in [true, false] {
            all.file_reloads.with_label_values(&[SERVER, result(success)]).reset();
        }
        ListenerMetrics { metrics }
    }

    pub(crate) fn answered(&self, path: &'static str, code: u16) {
        let code = code.to_string();
        self.metrics.instruments.http_requests.with_label_values(&[path, code.as_str()]).inc();
    }

    pub(crate) fn stream_started(&self) {
        self.metrics.instruments.streams.with_label_values::<&str>(&[]).inc();
    }

    pub(crate) fn stream_ended(&self) {
        self.metrics.instruments.streams.with_label_values::<&str>(&[]).dec();
    }

    /// Counts a reload of certificate, key and token files.
    pub(crate) fn reloaded(&self, success: bool) {
        self.metrics.instruments.file_reloads.with_label_values(&[SERVER, result(success)]).inc();
    }
}
