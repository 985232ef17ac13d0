//! What ties consumers of Kafka to the pipeline, the store and the metrics.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, SourceKind};
use crate::kafka::Reason;
use crate::metrics::{KafkaMetrics, Metrics};
use crate::pipeline::{Message, Status};
use crate::source::kafka::{Consumer, Parts, Witness};
use crate::state::kind;
use crate::store::{Reader, Store};

/// Counts what a consumer does, and tells the health checks.
struct Watcher {
    source: String,
    metrics: KafkaMetrics,
    status: Arc<Status>,
}

impl Witness for Watcher {
    fn messages(&self, all: u64, empty: u64) {
        self.metrics.messages(all, empty);
    }

    fn rebalanced(&self, what: &'static str) {
        self.metrics.rebalanced(what);
    }

    fn failed(&self, reason: Reason) {
        self.metrics.failed(reason);
    }

    fn lag(&self, topic: &str, partition: i32, messages: u64) {
        self.metrics.lag(topic, partition, messages);
    }

    fn let_go(&self, topic: &str, partition: i32) {
        self.metrics.let_go(topic, partition);
    }

    fn behind(&self, age: Duration) {
        self.metrics.behind(age);
    }

    fn trouble(&self, what: Option<String>) {
        self.status.trouble(&self.source, what);
    }
}

/// How far all sinks are, out of the store.
struct Sinks {
    dir: PathBuf,
    names: Vec<String>,
    /// Opened when it is first asked for, and again after an error.
    reader: Mutex<Option<Reader>>,
}

impl Sinks {
    fn delivered(&self) -> Option<i64> {
        let mut open = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match open.take() {
            Some(reader) => reader,
            None => Reader::open(&self.dir).ok()?,
        };
        let delivered = reader.delivered(&self.names).ok()?;
        *open = Some(reader);
        Some(delivered)
    }
}

/// Starts the consumers of all sources over Kafka.
pub fn consume(
    config: &Config,
    dir: &Path,
    store: &Store,
    inbox: &Sender<Message>,
    metrics: &Arc<Metrics>,
    status: &Arc<Status>,
) -> anyhow::Result<Vec<Consumer>> {
    let mut consumers = Vec::new();
    for (at, source) in config.sources.iter().enumerate() {
        let SourceKind::Kafka(settings) = &source.kind else { continue };
        let sinks = Sinks {
            dir: dir.to_owned(),
            names: config.sinks.iter().map(|sink| sink.name.clone()).collect(),
            reader: Mutex::default(),
        };
        let inbox = inbox.clone();
        let parts = Parts {
            hand_on: Box::new(move |batch| inbox.send(Message::Messages(at, batch)).is_ok()),
            delivered: Box::new(move || sinks.delivered()),
            witness: Box::new(Watcher {
                source: source.name.clone(),
                metrics: KafkaMetrics::new(metrics.clone(), &source.name),
                status: status.clone(),
            }),
            positions: store.state(kind::PARTITION)?,
        };
        let consumer = Consumer::start(&source.name, settings, parts)
            .with_context(|| format!("source {}", source.name))?;
        tracing::info!(source = source.name, group = settings.group, topics = ?settings.topics, "joining the group");
        consumers.push(consumer);
    }
    Ok(consumers)
}
