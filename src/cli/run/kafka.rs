//! What ties consumers of Kafka to the pipeline, the store and the metrics.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::daemon::config::{Config, Source, SourceKind};
use crate::daemon::kafka::{KafkaErrorKind, MatchExchange, Transact};
use crate::daemon::kafka::{PartitionOffset, TxnOutcome};
use crate::daemon::metrics::{KafkaMetrics, Metrics};
use crate::daemon::pipeline::{Message, Status};
use crate::daemon::sink::{Kind, SinkConfig};
use crate::daemon::sink::{SinkMetrics, TransactionalProducer};
use crate::daemon::source::kafka::{Consumer, ConsumerObserver, Dependencies};
use crate::daemon::source::kafka::{Membership, RepartitionTopic, Settings};
use crate::daemon::store::{Reader, Store};
use crate::detection::alert::NewAlert;
use crate::detection::detector::repartition;
use crate::detection::detector::repartition::Outgoing;
use crate::detection::state::kind;

/// Counts what a consumer does, and tells the health checks.
struct Observer {
    source: String,
    metrics: KafkaMetrics,
    status: Arc<Status>,
}

impl ConsumerObserver for Observer {
    fn messages(&self, all: u64, empty: u64) {
        self.metrics.messages(all, empty);
    }

    fn rebalanced(&self, what: &'static str) {
        self.metrics.rebalanced(what);
    }

    fn failed(&self, reason: KafkaErrorKind) {
        self.metrics.failed(reason);
    }

    fn lag(&self, topic: &str, partition: i32, messages: u64) {
        self.metrics.lag(topic, partition, messages);
    }

    fn revoked(&self, topic: &str, partition: i32) {
        self.metrics.partition_removed(topic, partition);
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
    fn new(config: &Config, dir: &Path) -> Self {
        Sinks {
            dir: dir.to_owned(),
            names: config.sinks.iter().map(|sink| sink.name.clone()).collect(),
            reader: Mutex::default(),
        }
    }

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

/// The sink whose alerts go into one transaction with the offsets of their events, by name.
pub fn exact_sink(config: &Config) -> Option<&SinkConfig> {
    let is_exact = |source: &Source| matches!(&source.kind, SourceKind::Kafka(kafka) if kafka.exactly_once);
    config.sources.iter().find(|source| is_exact(source))?;
    config.sinks.iter().find(|sink| matches!(sink.kind, Kind::Kafka(_)))
}

/// What puts alerts and offsets into one transaction, where the configuration asks for that.
pub fn transactions(
    config: &Config,
    dir: &Path,
    consumers: &[Consumer],
    metrics: &Arc<Metrics>,
    should_stop: &Arc<AtomicBool>,
) -> anyhow::Result<Option<Box<dyn Transact>>> {
    let Some(sink) = exact_sink(config) else { return Ok(None) };
    let (Kind::Kafka(kafka), Some(SourceKind::Kafka(source)), Some(consumer)) =
        (&sink.kind, config.sources.first().map(|source| &source.kind), consumers.first())
    else {
        return Ok(None);
    };
    let mut sink = sink.clone();
    if let Some(dead_letter) = &mut sink.dead_letter {
        dead_letter.path = dir.join(&dead_letter.path);
    }
    let metrics = SinkMetrics::new(metrics);
    let id = transactional_id(source, dir);
    tracing::info!(sink = sink.name, id, "alerts and offsets go into one transaction");
    let inner = TransactionalProducer::new(&sink, kafka, source, &id, &metrics, should_stop.clone())
        .with_context(|| format!("sink {}", sink.name))?;
    Ok(Some(Box::new(Exactly { inner, group: consumer.membership() })))
}

/// The same after a restart, and nobody else's: by `instance_id`, else by machine and state directory.
fn transactional_id(source: &Settings, dir: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let instance = source.instance_id.clone().unwrap_or_else(|| {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let host = gethostname::gethostname();
        format!(
            "{}-{:02x}{:02x}{:02x}{:02x}",
            host.to_string_lossy(),
            digest[0],
            digest[1],
            digest[2],
            digest[3]
        )
    });
    format!("{}-{instance}", source.group)
}

/// A sink's transactions, and the source's place in its group.
struct Exactly {
    inner: TransactionalProducer,
    group: Membership,
}

impl std::fmt::Debug for Exactly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Transact for Exactly {
    fn anchor(&self) -> Option<PartitionOffset> {
        self.group.any().map(|(topic, partition, next)| PartitionOffset { topic, partition, next })
    }

    fn transact(
        &mut self,
        alerts: &[NewAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        mark: &str,
        epoch: Option<u64>,
    ) -> TxnOutcome {
        let metadata = self.group.metadata();
        // After who we are is known: what goes elsewhere from here on makes that out of date.
        let is_current = match epoch {
            Some(epoch) => self.group.epoch() == epoch,
            None => offsets.iter().all(|one| self.anchor().as_ref() == Some(one)),
        };
        self.inner.run(alerts, matches, offsets, mark, metadata.as_ref(), is_current)
    }

    fn outcome_of(&mut self, offsets: &[PartitionOffset], mark: &str) -> TxnOutcome {
        self.inner.outcome_of(offsets, mark)
    }
}

/// How matches are exchanged, where they are.
pub fn exchange_settings(config: &Config) -> Option<repartition::Settings> {
    let correlate = config.sources.iter().find_map(|source| match &source.kind {
        SourceKind::Kafka(settings) => settings.correlate.as_ref(),
        _ => None,
    })?;
    let allowed_lateness = i64::try_from(correlate.lateness.as_nanos()).unwrap_or(i64::MAX);
    Some(repartition::Settings { partitions: correlate.partitions, allowed_lateness })
}

/// What replicas exchange, where the configuration asks for that.
pub fn exchange(
    config: &Config,
    dir: &Path,
    consumers: &[Consumer],
    metrics: &Arc<Metrics>,
    should_stop: &Arc<AtomicBool>,
) -> Option<Box<dyn MatchExchange>> {
    let sources = config.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Kafka(settings) => Some((&source.name, settings)),
        _ => None,
    });
    let ((name, settings), consumer) =
        sources.zip(consumers).find(|((_, settings), _)| settings.correlate.is_some())?;
    let correlate = settings.correlate.as_ref()?;
    let sinks = Sinks::new(config, dir);
    let metrics = KafkaMetrics::new(metrics.clone(), name);
    Some(Box::new(RepartitionTopic::new(
        settings,
        correlate,
        consumer.membership(),
        Box::new(move || sinks.delivered()),
        Box::new(move |reason| metrics.failed(reason)),
        should_stop.clone(),
    )))
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
        let sinks = Sinks::new(config, dir);
        let inbox = inbox.clone();
        let dependencies = Dependencies {
            submit: Box::new(move |batch| inbox.send(Message::Messages(at, batch)).is_ok()),
            delivered_seq: Box::new(move || sinks.delivered()),
            observer: Box::new(Observer {
                source: source.name.clone(),
                metrics: KafkaMetrics::new(metrics.clone(), &source.name),
                status: status.clone(),
            }),
            latest_seq: store.newest()?,
            positions: store.state(kind::PARTITION)?,
        };
        let consumer = Consumer::start(&source.name, settings, dependencies)
            .with_context(|| format!("source {}", source.name))?;
        tracing::info!(source = source.name, group = settings.group, topics = ?settings.topics, "joining the group");
        consumers.push(consumer);
    }
    Ok(consumers)
}
