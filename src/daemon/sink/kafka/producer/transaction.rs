//! Commits alerts, matches for other replicas and consumer offsets in one Kafka transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryFuture, FutureProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{config, key, max_payload, payload, record};
use crate::daemon::kafka::client::{self, Context, LastError, error_kind};
use crate::daemon::kafka::{self, PartitionOffset, TxnOutcome};
use crate::daemon::log_limit::LogLimits;
use crate::daemon::sink::SinkMetrics;
use crate::daemon::sink::config::Kafka;
use crate::daemon::sink::config::SinkConfig;
use crate::daemon::sink::dead_letter::{self, DeadLetterReason, DropReason};
use crate::daemon::sink::error::SettingsError;
use crate::daemon::sink::failure::Reason;
use crate::daemon::sink::filter::Filter;
use crate::daemon::sink::metrics::Counts;
use crate::daemon::source::kafka::Settings;
use crate::daemon::time::unix_nanos;
use crate::detection::alert::{AlertId, NewAlert, StoredAlert};
use crate::detection::audit::event_id;
use crate::detection::detector::repartition::Outgoing;

/// Timeout of one step of a transaction.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A record that was sent: the alert's id or the match's hash, and its pending acknowledgement.
type Sent = (AlertId, DeliveryFuture);

/// A producer whose records become visible together with the group's offsets.
pub struct TransactionalProducer {
    sink: SinkConfig,
    settings: Kafka,
    config: ClientConfig,
    /// Configuration of a client that reads the group's offsets and never joins it.
    offset_reader: ClientConfig,
    filter: Filter,
    counts: Counts,
    should_stop: Arc<AtomicBool>,
    last: LastError,
    producer: Option<FutureProducer<Context>>,
    log_limits: LogLimits<kafka::KafkaErrorKind>,
    /// Records that the broker rejects for their size: ids of alerts and hashes of matches.
    refused: HashSet<AlertId>,
    /// The exchange topic.
    exchange: Option<String>,
    /// Whether to wait for each record separately, to find the rejected one.
    one_by_one: bool,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TransactionalProducer({})", self.settings.topic)
    }
}

impl TransactionalProducer {
    /// Checks the settings. Connects to nothing. `id` must be the same after a restart, and unique.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn new(
        sink: &SinkConfig,
        settings: &Kafka,
        source: &Settings,
        id: &str,
        metrics: &SinkMetrics,
        should_stop: Arc<AtomicBool>,
    ) -> Result<Self, SettingsError> {
        let mut config = config(settings, sink.timeout);
        config.set("transactional.id", id);
        if config.get("transaction.timeout.ms").is_none() {
            // librdkafka requires it to be no shorter than the timeout of a record.
            config.set("transaction.timeout.ms", sink.timeout.max(STEP_TIMEOUT).as_millis().to_string());
        }
        let owned = [("group.id", source.group.as_str()), ("enable.auto.commit", "false")];
        let offset_reader = client::config(&source.cluster, &[("ssl.ca.location", "probe")], &owned);
        Ok(TransactionalProducer {
            sink: sink.clone(),
            settings: settings.clone(),
            config,
            offset_reader,
            filter: Filter::new(sink)?,
            counts: metrics.of(&sink.name),
            should_stop,
            last: LastError::default(),
            producer: None,
            log_limits: LogLimits::default(),
            refused: HashSet::new(),
            exchange: source.correlate.as_ref().map(|correlate| correlate.topic.clone()),
            one_by_one: false,
        })
    }

    fn context(&self) -> Context {
        Context::new(self.last.clone(), self.settings.cluster.oauth_token_file.clone())
    }

    /// The producer. Initializing a new one aborts the open transaction of an earlier one with the same id.
    fn producer(&mut self) -> Result<FutureProducer<Context>, KafkaError> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer<Context> = self.config.create_with_context(self.context())?;
        producer.init_transactions(STEP_TIMEOUT)?;
        Ok(self.producer.insert(producer).clone())
    }

    /// Runs a transaction. `is_current`: whether the batch's partitions are still assigned.
    pub fn run(
        &mut self,
        alerts: &[NewAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        commit_metadata: &str,
        group: Option<&ConsumerGroupMetadata>,
        is_current: bool,
    ) -> TxnOutcome {
        let alerts: Vec<StoredAlert> =
            alerts.iter().map(stored).filter(|alert| self.filter.matches(alert)).collect();
        // `group` was read before `is_current`: if partitions are revoked later, the coordinator rejects this older group metadata.
        let Some(group) = group.filter(|_| is_current) else { return TxnOutcome::Aborted };
        match self.attempt(&alerts, matches, offsets, commit_metadata, group) {
            Ok(delivered) => {
                self.one_by_one = false;
                if delivered > 0 {
                    self.counts.success(delivered, unix_nanos());
                }
                TxnOutcome::Committed
            }
            Err(error) => {
                self.report(&error);
                // A new producer aborts the open transaction; the group's offsets show whether it had been committed.
                self.producer = None;
                self.outcome_of(offsets, commit_metadata)
            }
        }
    }

    fn attempt(
        &mut self,
        alerts: &[StoredAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        commit_metadata: &str,
        group: &ConsumerGroupMetadata,
    ) -> Result<usize, KafkaError> {
        let producer = self.producer()?;
        producer.begin_transaction()?;
        let mut sent = Vec::with_capacity(alerts.len() + matches.len());
        let mut delivered = 0;
        for alert in alerts {
            if self.refused.contains(&alert.id) {
                self.send_to_dead_letter(alert);
                continue;
            }
            let content = self.filter.content(std::slice::from_ref(alert));
            let shown = content.first().unwrap_or(alert);
            let key = key(&self.settings, alert);
            let max_len = max_payload(&self.config, self.sink.max_message);
            let Ok((payload, is_short)) = payload(self.settings.format, shown, &key, max_len) else {
                self.send_to_dead_letter(alert);
                continue;
            };
            loop {
                match producer.send_result(record(&self.settings, shown, &key, &payload)) {
                    Ok(acknowledged) => {
                        self.track(&producer, &mut sent, (alert.id, acknowledged))?;
                        delivered += 1;
                        self.counts.shortened.inc_by(u64::from(is_short));
                        break;
                    }
                    Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    // Rejected locally, which does not abort the transaction.
                    Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                        self.send_to_dead_letter(alert);
                        break;
                    }
                    Err((error, _)) => return Err(error),
                }
            }
        }
        if let Some(topic) = self.exchange.clone() {
            for message in matches {
                let digest = event_id::digest(&message.value);
                let acknowledged = if self.refused.contains(&digest) {
                    None
                } else {
                    client::send(&producer, &topic, message)?
                };
                if let Some(acknowledged) = acknowledged {
                    self.track(&producer, &mut sent, (digest, acknowledged))?;
                } else {
                    client::log_too_large(&topic);
                    self.counts.failure(Reason::Rejected);
                }
            }
        }
        producer.flush(STEP_TIMEOUT)?;
        for one in sent {
            self.settle(one)?;
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for one in offsets {
            let mut place = list.add_partition(&one.topic, one.partition);
            place.set_offset(Offset::Offset(one.next))?;
            place.set_metadata(commit_metadata);
        }
        producer.send_offsets_to_transaction(&list, group, STEP_TIMEOUT)?;
        producer.commit_transaction(STEP_TIMEOUT)?;
        Ok(delivered)
    }

    /// Stores a pending acknowledgement. In one-by-one mode it is awaited immediately: after a rejected record, the transaction accepts no
    /// more, and the rejected record must be known.
    fn track(
        &mut self,
        producer: &FutureProducer<Context>,
        sent: &mut Vec<Sent>,
        one: Sent,
    ) -> Result<(), KafkaError> {
        if self.one_by_one {
            producer.flush(STEP_TIMEOUT)?;
            return self.settle(one);
        }
        sent.push(one);
        Ok(())
    }

    /// Checks an acknowledgement.
    fn settle(&mut self, (id, acknowledged): Sent) -> Result<(), KafkaError> {
        match acknowledged.now_or_never() {
            Some(Ok(Ok(_))) => Ok(()),
            Some(Ok(Err((error, _)))) => {
                let is_refused = client::is_too_large(&error);
                if is_refused && self.one_by_one {
                    self.refused.insert(id);
                }
                self.one_by_one |= is_refused;
                Err(error)
            }
            Some(Err(_)) | None => Err(KafkaError::Canceled),
        }
    }

    /// Determines from the group's offsets whether a transaction was committed.
    pub fn outcome_of(&mut self, offsets: &[PartitionOffset], commit_metadata: &str) -> TxnOutcome {
        while !self.should_stop.load(Ordering::Acquire) {
            let committed = self.producer().and_then(|_| self.committed_offsets(offsets));
            match committed {
                Ok(list) => return outcome_by_offsets(offsets, commit_metadata, &list),
                Err(error) => {
                    self.report(&error);
                    self.producer = None;
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
        TxnOutcome::Unknown
    }

    fn committed_offsets(&self, offsets: &[PartitionOffset]) -> Result<TopicPartitionList, KafkaError> {
        let offset_reader: BaseConsumer<Context> =
            BaseConsumer::from_config_and_context(&self.offset_reader, self.context())?;
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for one in offsets {
            list.add_partition(&one.topic, one.partition);
        }
        offset_reader.committed_offsets(list, STEP_TIMEOUT / 4)
    }

    fn report(&mut self, error: &KafkaError) {
        let reason = error.rdkafka_error_code().map_or(kafka::KafkaErrorKind::Transaction, error_kind);
        self.counts.failure(super::reason_for(reason));
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (reason, detail) = last.unwrap_or((reason, String::new()));
        if let Some(suppressed) = self.log_limits.admit(reason) {
            tracing::warn!(
                sink = self.sink.name, reason = reason.name(), suppressed, %error, detail,
                "transaction failed; its messages are evaluated again. {}", reason.hint()
            );
        }
    }

    fn send_to_dead_letter(&self, alert: &StoredAlert) {
        const WHY: &str =
            "too large for the topic: raise `message.max.bytes` here and `max.message.bytes` of the topic";
        self.counts.dead_letter(DeadLetterReason::Rejected);
        let Some(settings) = &self.sink.dead_letter else {
            return self.counts.dropped(DropReason::NoFile, 1);
        };
        let mut line = Vec::new();
        let now = unix_nanos();
        dead_letter::write_line(alert, &self.sink.name, DeadLetterReason::Rejected, WHY, now, &mut line);
        match dead_letter::append(settings, &line) {
            Ok(true) => tracing::warn!(sink = self.sink.name, "an alert went to the dead letters: {WHY}"),
            // It stays in the store.
            Ok(false) | Err(_) => self.counts.dropped(DropReason::Full, 1),
        }
    }
}

/// Compares the group's offsets and commit metadata with those of a transaction.
fn outcome_by_offsets(
    offsets: &[PartitionOffset],
    commit_metadata: &str,
    list: &TopicPartitionList,
) -> TxnOutcome {
    let is_committed = offsets.iter().all(|one| {
        let Some(place) = list.find_partition(&one.topic, one.partition) else { return false };
        match place.offset() {
            Offset::Offset(found) if found > one.next => true,
            // rdkafka panics on metadata of other clients that is not UTF-8.
            Offset::Offset(found) if found == one.next => {
                let left =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| place.metadata().to_owned()));
                left.is_ok_and(|left| left == commit_metadata)
            }
            _ => false,
        }
    });
    if is_committed { TxnOutcome::Committed } else { TxnOutcome::Aborted }
}

fn stored(alert: &NewAlert) -> StoredAlert {
    StoredAlert {
        seq: 0,
        id: alert.id,
        time: alert.time,
        stored: 0,
        rule: alert.rule.clone(),
        priority: alert.priority,
        actor: alert.actor.clone(),
        target: alert.target.clone(),
        json: alert.json.clone(),
        message: alert.message.clone(),
    }
}
