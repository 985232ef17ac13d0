//! What the rooms that listen tell: each has the words it needs and no more.

use std::sync::Arc;

use super::{Metrics, result};
use crate::daemon::source::webhook::{CODES, Witness};

/// Counts what a webhook receiver does.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    metrics: Arc<Metrics>,
    source: String,
}

impl WebhookMetrics {
    /// For the source of that name.
    pub fn new(metrics: Arc<Metrics>, source: &str) -> Self {
        let all = &metrics.instruments;
        for code in CODES {
            all.webhook_requests.with_label_values(&[source, code.to_string().as_str()]).reset();
        }
        all.webhook_batches.with_label_values(&[source]).reset();
        all.webhook_repeated.with_label_values(&[source]).reset();
        all.webhook_memory.with_label_values(&[source]).set(0);
        for taken in [true, false] {
            all.file_reloads.with_label_values(&[source, result(taken)]).reset();
        }
        WebhookMetrics { source: source.to_owned(), metrics }
    }

    /// The pipeline dropped so many events that were sent again.
    pub fn repeated(&self, events: u64) {
        self.metrics.instruments.webhook_repeated.with_label_values(&[self.source.as_str()]).inc_by(events);
    }
}

impl Witness for WebhookMetrics {
    fn answered(&self, code: u16) {
        let code = code.to_string();
        let labels = [self.source.as_str(), code.as_str()];
        self.metrics.instruments.webhook_requests.with_label_values(&labels).inc();
    }

    fn handed_on(&self, bytes: usize) {
        self.metrics.read(&self.source, bytes as u64);
        self.metrics.instruments.webhook_batches.with_label_values(&[self.source.as_str()]).inc();
    }

    fn memory(&self, change: i64) {
        self.metrics.instruments.webhook_memory.with_label_values(&[self.source.as_str()]).add(change);
    }

    fn reloaded(&self, taken: bool) {
        let labels = [self.source.as_str(), result(taken)];
        self.metrics.instruments.file_reloads.with_label_values(&labels).inc();
    }
}

/// The word for the server's own port among those whose files are read again.
const SERVER: &str = "server";

/// Counts what the server does.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    metrics: Arc<Metrics>,
}

impl ListenerMetrics {
    /// For these paths; any other is `other`. Each has been asked for with code 200 no times.
    pub fn new(metrics: Arc<Metrics>, paths: &[&str]) -> Self {
        let all = &metrics.instruments;
        for path in paths {
            all.http_requests.with_label_values(&[path, "200"]).reset();
        }
        for taken in [true, false] {
            all.file_reloads.with_label_values(&[SERVER, result(taken)]).reset();
        }
        ListenerMetrics { metrics }
    }

    /// A request to one of the paths was answered.
    pub fn answered(&self, path: &'static str, code: u16) {
        let code = code.to_string();
        self.metrics.instruments.http_requests.with_label_values(&[path, code.as_str()]).inc();
    }

    /// A client follows the alerts.
    pub fn stream_started(&self) {
        self.metrics.instruments.streams.with_label_values::<&str>(&[]).inc();
    }

    /// It follows them no more.
    pub fn stream_ended(&self) {
        self.metrics.instruments.streams.with_label_values::<&str>(&[]).dec();
    }

    /// A file of certificates or the token changed.
    pub fn reloaded(&self, taken: bool) {
        self.metrics.instruments.file_reloads.with_label_values(&[SERVER, result(taken)]).inc();
    }
}
