//! Alerts and the offsets of what made them, in one transaction.

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

use super::{config, key, record};
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

/// How long one step of a transaction may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before a cluster is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// A record that was sent: the alert's id or the match's hash, and what will come of it.
type Sent = (AlertId, DeliveryFuture);

/// A producer whose records count when the group's offsets do.
pub struct TransactionalProducer {
    sink: SinkConfig,
    settings: Kafka,
    config: ClientConfig,
    /// Asks what the group has, and never joins it.
    asker: ClientConfig,
    filter: Filter,
    counts: Counts,
    should_stop: Arc<AtomicBool>,
    last: LastError,
    producer: Option<FutureProducer<Context>>,
    log_limits: LogLimits<kafka::KafkaErrorKind>,
    /// Alerts, by id, and matches, by hash, that the broker never takes.
    refused: HashSet<AlertId>,
    /// Where matches go that others judge.
    exchange: Option<String>,
    /// Each record by itself, to know which one is refused.
    one_by_one: bool,
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TransactionalProducer({})", self.settings.topic)
    }
}

impl TransactionalProducer {
    /// Checks the settings. Connects to nothing. `id` is the same after a restart, and nobody else's.
    ///
    /// # Errors
    /// When the settings cannot work.
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
            // Not shorter than that of a record, or librdkafka refuses both.
            config.set("transaction.timeout.ms", sink.timeout.max(PATIENCE).as_millis().to_string());
        }
        let owned = [("group.id", source.group.as_str()), ("enable.auto.commit", "false")];
        let asker = client::config(&source.cluster, &[("ssl.ca.location", "probe")], &owned);
        Ok(TransactionalProducer {
            sink: sink.clone(),
            settings: settings.clone(),
            config,
            asker,
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

    /// The producer; a new one ends whatever an earlier one of the same id left open.
    fn producer(&mut self) -> Result<FutureProducer<Context>, KafkaError> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer<Context> = self.config.create_with_context(self.context())?;
        producer.init_transactions(PATIENCE)?;
        Ok(self.producer.insert(producer).clone())
    }

    /// Does it, or says that nothing of it is done. `is_current` says whether the partitions are still ours.
    pub fn run(
        &mut self,
        alerts: &[NewAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        mark: &str,
        group: Option<&ConsumerGroupMetadata>,
        is_current: bool,
    ) -> TxnOutcome {
        let alerts: Vec<StoredAlert> =
            alerts.iter().map(stored).filter(|alert| self.filter.matches(alert)).collect();
        // The order counts: whoever was a member when the partitions were still ours is refused later on.
        let Some(group) = group.filter(|_| is_current) else { return TxnOutcome::Aborted };
        match self.attempt(&alerts, matches, offsets, mark, group) {
            Ok(delivered) => {
                self.one_by_one = false;
                if delivered > 0 {
                    self.counts.success(delivered, unix_nanos());
                }
                TxnOutcome::Committed
            }
            Err(error) => {
                self.complain(&error);
                // A new one ends what was begun. Then the group says what became of it.
                self.producer = None;
                self.outcome_of(offsets, mark)
            }
        }
    }

    fn attempt(
        &mut self,
        alerts: &[StoredAlert],
        matches: &[Outgoing],
        offsets: &[PartitionOffset],
        mark: &str,
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
            let key = key(&self.settings, alert);
            loop {
                match producer.send_result(record(&self.settings, alert, &key)) {
                    Ok(acknowledged) => {
                        self.keep(&producer, &mut sent, (alert.id, acknowledged))?;
                        delivered += 1;
                        break;
                    }
                    Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    // Refused before it was sent: nothing is broken by that.
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
                    self.keep(&producer, &mut sent, (digest, acknowledged))?;
                } else {
                    client::log_too_large(&topic);
                    self.counts.failure(Reason::Rejected);
                }
            }
        }
        producer.flush(PATIENCE)?;
        for one in sent {
            self.settle(one)?;
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for one in offsets {
            let mut place = list.add_partition(&one.topic, one.partition);
            place.set_offset(Offset::Offset(one.next))?;
            place.set_metadata(mark);
        }
        producer.send_offsets_to_transaction(&list, group, PATIENCE)?;
        producer.commit_transaction(PATIENCE)?;
        Ok(delivered)
    }

    /// Keeps what was sent to look at it later. One by one it is last_check at now: behind a record that was refused nothing more is
    /// taken, and it has to be known which one that was.
    fn keep(
        &mut self,
        producer: &FutureProducer<Context>,
        sent: &mut Vec<Sent>,
        one: Sent,
    ) -> Result<(), KafkaError> {
        if self.one_by_one {
            producer.flush(PATIENCE)?;
            return self.settle(one);
        }
        sent.push(one);
        Ok(())
    }

    /// What came of a record.
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

    /// Whether a transaction went through, as the group's offsets tell.
    pub fn outcome_of(&mut self, offsets: &[PartitionOffset], mark: &str) -> TxnOutcome {
        while !self.should_stop.load(Ordering::Acquire) {
            let told = self.producer().and_then(|_| self.ask(offsets));
            match told {
                Ok(list) => return judge(offsets, mark, &list),
                Err(error) => {
                    self.complain(&error);
                    self.producer = None;
                    std::thread::sleep(AGAIN);
                }
            }
        }
        TxnOutcome::Unknown
    }

    fn ask(&self, offsets: &[PartitionOffset]) -> Result<TopicPartitionList, KafkaError> {
        let asker: BaseConsumer<Context> =
            BaseConsumer::from_config_and_context(&self.asker, self.context())?;
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for one in offsets {
            list.add_partition(&one.topic, one.partition);
        }
        asker.committed_offsets(list, PATIENCE / 4)
    }

    fn complain(&mut self, error: &KafkaError) {
        let reason = error.rdkafka_error_code().map_or(kafka::KafkaErrorKind::Transaction, error_kind);
        self.counts.failure(super::reason_for(reason));
        let said = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (reason, detail) = said.unwrap_or((reason, String::new()));
        if let Some(suppressed) = self.log_limits.admit(reason) {
            tracing::warn!(
                sink = self.sink.name, reason = reason.name(), suppressed, %error, detail,
                "a transaction did not go through; its messages are judged again. {}", reason.hint()
            );
        }
    }

    /// Puts an alert where those go that are not delivered.
    fn send_to_dead_letter(&self, alert: &StoredAlert) {
        const WHY: &str =
            "too large for the topic: raise `message.max.bytes` here and `max.message.bytes` of the topic";
        self.counts.dead_letter(DeadLetterReason::Rejected);
        let Some(settings) = &self.sink.dead_letter else { return self.counts.dropped(DropReason::NoFile) };
        let mut line = Vec::new();
        let now = unix_nanos();
        dead_letter::write_line(alert, &self.sink.name, DeadLetterReason::Rejected, WHY, now, &mut line);
        match dead_letter::append(settings, &line) {
            Ok(true) => tracing::warn!(sink = self.sink.name, "an alert went to the dead letters: {WHY}"),
            // It is in the store.
            Ok(false) | Err(_) => self.counts.dropped(DropReason::Full),
        }
    }
}

/// What the group's offsets say of a transaction.
fn judge(offsets: &[PartitionOffset], mark: &str, list: &TopicPartitionList) -> TxnOutcome {
    let through = offsets.iter().all(|one| {
        let Some(place) = list.find_partition(&one.topic, one.partition) else { return false };
        match place.offset() {
            Offset::Offset(found) if found > one.next => true,
            // The crate panics where another client left bytes that are no text.
            Offset::Offset(found) if found == one.next => {
                let left =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| place.metadata().to_owned()));
                left.is_ok_and(|left| left == mark)
            }
            _ => false,
        }
    });
    if through { TxnOutcome::Committed } else { TxnOutcome::Aborted }
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
