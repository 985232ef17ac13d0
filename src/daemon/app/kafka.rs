//! Connects Kafka consumers, transactions and the exchange of matches to the pipeline, the store and the metrics.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::Context;

use crate::daemon::config::{Config, Source, SourceKind};
use crate::daemon::kafka::{KafkaErrorKind, MatchExchange, Transact};
use crate::daemon::kafka::{PartitionOffset, TxnOutcome};
use crate::daemon::metrics::KafkaMetrics;
use crate::daemon::pipeline::{Message, Status};
use crate::daemon::sink::{Kind, SinkConfig};
use crate::daemon::sink::{SinkMetrics, TransactionalProducer};
use crate::daemon::source::kafka::{Consumer, ConsumerObserver, Dependencies};
use crate::daemon::source::kafka::{Membership, RepartitionTopic, Settings};
use crate::daemon::store::{LazyReader, Store};
use crate::detection::alert::NewAlert;
use crate::detection::detector::repartition;
use crate::detection::detector::repartition::Outgoing;
use crate::detection::state::kind;

/// Updates metrics and health checks with reports from a consumer.
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

    fn report_problem(&self, what: Option<String>) {
        self.metrics.set_up(what.is_none());
        self.status.set_source_problem(&self.source, what);
    }
}

/// The progress of all sinks, read from the store.
struct SinkProgress {
    sinks: Vec<String>,
    reader: LazyReader,
}

impl SinkProgress {
    fn new(context: &Context<'_>) -> Self {
        SinkProgress {
            sinks: context.config.sinks.iter().map(|sink| sink.name.clone()).collect(),
            reader: LazyReader::new(context.state_dir.to_owned()),
        }
    }

    /// `seq` of the last alert that every sink has processed; `None` if the store cannot be read now.
    fn delivered_seq(&self) -> Option<i64> {
        self.reader.with(|reader| reader.delivered(&self.sinks)).ok()
    }
}

/// The sink whose alerts are committed in one transaction with the offsets of their events, if a source is configured for that.
pub(super) fn transactional_sink(config: &Config) -> Option<&SinkConfig> {
    let is_exactly_once =
        |source: &Source| matches!(&source.kind, SourceKind::Kafka(kafka) if kafka.exactly_once);
    config.sources.iter().find(|source| is_exactly_once(source))?;
    config.sinks.iter().find(|sink| matches!(sink.kind, Kind::Kafka(_)))
}

/// The transactions of alerts and offsets, if the configuration asks for exactly-once delivery.
pub(super) fn transactions(
    context: &Context<'_>,
    consumers: &[Consumer],
) -> anyhow::Result<Option<Box<dyn Transact>>> {
    let config = context.config;
    let Some(sink) = transactional_sink(config) else { return Ok(None) };
    let (Kind::Kafka(kafka), Some(SourceKind::Kafka(source)), Some(consumer)) =
        (&sink.kind, config.sources.first().map(|source| &source.kind), consumers.first())
    else {
        return Ok(None);
    };
    let mut sink = sink.clone();
    if let Some(dead_letter) = &mut sink.dead_letter {
        dead_letter.path = context.state_dir.join(&dead_letter.path);
    }
    let metrics = SinkMetrics::new(&context.handles.metrics);
    let id = transactional_id(source, context.state_dir);
    tracing::info!(sink = sink.name, id, "committing alerts and offsets in one transaction");
    let inner =
        TransactionalProducer::new(&sink, kafka, source, &id, &metrics, context.handles.should_stop.clone())
            .with_context(|| format!("sink {}", sink.name))?;
    Ok(Some(Box::new(GroupTransactions { inner, group: consumer.membership() })))
}

/// An id that is stable across restarts and unique among replicas: from `instance_id`, or else from the host name and the state
/// directory.
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

/// The sink's producer together with the source's membership in its group.
struct GroupTransactions {
    inner: TransactionalProducer,
    group: Membership,
}

impl std::fmt::Debug for GroupTransactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Transact for GroupTransactions {
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
        // Read after the membership: any later rebalance makes the membership stale, so that the brokers reject it.
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

/// How the detector partitions matches, if replicas exchange them.
pub(super) fn repartition_settings(config: &Config) -> Option<repartition::Settings> {
    let correlate = config.sources.iter().find_map(|source| match &source.kind {
        SourceKind::Kafka(settings) => settings.correlate.as_ref(),
        _ => None,
    })?;
    let allowed_lateness = i64::try_from(correlate.lateness.as_nanos()).unwrap_or(i64::MAX);
    Some(repartition::Settings { partitions: correlate.partitions, allowed_lateness })
}

/// The topic through which replicas exchange matches, if one is configured.
pub(super) fn exchange(context: &Context<'_>, consumers: &[Consumer]) -> Option<Box<dyn MatchExchange>> {
    let sources = context.config.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Kafka(settings) => Some((&source.name, settings)),
        _ => None,
    });
    let ((name, settings), consumer) =
        sources.zip(consumers).find(|((_, settings), _)| settings.correlate.is_some())?;
    let correlate = settings.correlate.as_ref()?;
    let progress = SinkProgress::new(context);
    let metrics = KafkaMetrics::new(context.handles.metrics.clone(), name);
    Some(Box::new(RepartitionTopic::new(
        settings,
        correlate,
        consumer.membership(),
        Box::new(move || progress.delivered_seq()),
        Box::new(move |reason| metrics.failed(reason)),
        context.handles.should_stop.clone(),
    )))
}

/// Starts the consumers of all Kafka sources.
pub(super) fn start_consumers(context: &Context<'_>, store: &Store) -> anyhow::Result<Vec<Consumer>> {
    let mut consumers = Vec::new();
    for (index, source) in context.config.sources.iter().enumerate() {
        let SourceKind::Kafka(settings) = &source.kind else { continue };
        let progress = SinkProgress::new(context);
        let inbox = context.inbox.clone();
        let dependencies = Dependencies {
            submit: Box::new(move |batch| inbox.send(Message::KafkaBatch(index, batch)).is_ok()),
            delivered_seq: Box::new(move || progress.delivered_seq()),
            observer: Box::new(Observer {
                source: source.name.clone(),
                metrics: KafkaMetrics::new(context.handles.metrics.clone(), &source.name),
                status: context.handles.status.clone(),
            }),
            latest_seq: store.latest_seq()?,
            positions: store.state(kind::PARTITION)?,
        };
        let consumer = Consumer::start(&source.name, settings, dependencies)
            .with_context(|| format!("source {}", source.name))?;
        tracing::info!(source = source.name, group = settings.group, topics = ?settings.topics, "joining the consumer group");
        consumers.push(consumer);
    }
    Ok(consumers)
}
