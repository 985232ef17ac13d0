//! The topic through which replicas exchange matches that feed correlations, known as a repartition topic in Kafka Streams.
//!
//! Messages have the time of their event as timestamp, so that the start of a window can be looked up by time, regardless of when the match
//! was written. For this reason, retention is by size, never by age.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::settings::{Correlate, Settings};
use super::membership::Membership;
use crate::daemon::kafka::client::{self, Context, LastError, error_kind};
use crate::daemon::kafka::client::{is_too_large, log_too_large, send};
use crate::daemon::kafka::{AssignedPartition, KafkaErrorKind, MatchExchange};
use crate::daemon::log_limit::LogLimits;
use crate::detection::detector::repartition::Outgoing;

/// Timeout of one request to the brokers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the consumer checks for shutdown while flushing.
const FLUSH_STEP: Duration = Duration::from_millis(200);

/// Retention of a partition: 256 MiB, about 500,000 matches.
const RETENTION_BYTES: &str = "268435456";

/// Segment size, the unit of retention: 64 MiB.
const SEGMENT_BYTES: &str = "67108864";

pub struct RepartitionTopic {
    topic: String,
    producer_config: ClientConfig,
    reader_config: ClientConfig,
    oauth_token_file: Option<std::path::PathBuf>,
    group: Membership,
    delivered_seq: Box<dyn Fn() -> Option<i64> + Send>,
    failed: Box<dyn Fn(KafkaErrorKind) + Send>,
    should_stop: Arc<AtomicBool>,
    last: LastError,
    producer: Option<FutureProducer<Context>>,
    log_limits: LogLimits<KafkaErrorKind>,
}

impl std::fmt::Debug for RepartitionTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RepartitionTopic({})", self.topic)
    }
}

impl RepartitionTopic {
    /// Creates the exchange without connecting.
    pub fn new(
        settings: &Settings,
        correlate: &Correlate,
        group: Membership,
        delivered_seq: Box<dyn Fn() -> Option<i64> + Send>,
        failed: Box<dyn Fn(KafkaErrorKind) + Send>,
        should_stop: Arc<AtomicBool>,
    ) -> Self {
        let assigned = [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "30000")];
        let defaults = [
            ("ssl.ca.location", "probe"),
            ("linger.ms", "1"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.kbytes", "16384"),
        ];
        let reads = [
            ("group.id", settings.group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
            ("queued.max.messages.kbytes", "8192"),
        ];
        RepartitionTopic {
            topic: correlate.topic.clone(),
            producer_config: client::config(&settings.cluster, &defaults, &assigned),
            reader_config: client::config(&settings.cluster, &defaults[..1], &reads),
            oauth_token_file: settings.cluster.oauth_token_file.clone(),
            group,
            delivered_seq,
            failed,
            should_stop,
            last: LastError::default(),
            producer: None,
            log_limits: LogLimits::default(),
        }
    }

    fn context(&self) -> Context {
        Context::new(self.last.clone(), self.oauth_token_file.clone())
    }

    fn report(&mut self, what: &str, error: &KafkaError) {
        let reason = error.rdkafka_error_code().map_or(KafkaErrorKind::Other, error_kind);
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (reason, detail) = last.unwrap_or((reason, String::new()));
        (self.failed)(reason);
        if let Some(suppressed) = self.log_limits.admit(reason) {
            tracing::warn!(
                topic = self.topic, reason = reason.name(), suppressed, %error, detail,
                "{what}; retrying. {}", reason.hint()
            );
        }
    }

    fn try_send(&mut self, messages: &[Outgoing]) -> Result<(), KafkaError> {
        let producer = match &self.producer {
            Some(producer) => producer.clone(),
            None => {
                let producer = self.producer_config.create_with_context(self.context())?;
                FutureProducer::clone(self.producer.insert(producer))
            }
        };
        let refused = self.deliver(&producer, messages.iter())?;
        // A broker rejects a whole batch if one message in it is too large.
        let is_one = refused.len() == 1;
        for message in refused {
            if is_one || !self.deliver(&producer, std::iter::once(message))?.is_empty() {
                log_too_large(&self.topic);
                (self.failed)(KafkaErrorKind::Other);
            }
        }
        Ok(())
    }

    /// Sends messages and waits for their acknowledgement. Returns those that were rejected as too large, individually or with their batch.
    fn deliver<'m>(
        &self,
        producer: &FutureProducer<Context>,
        messages: impl Iterator<Item = &'m Outgoing>,
    ) -> Result<Vec<&'m Outgoing>, KafkaError> {
        let (mut sent, mut refused) = (Vec::new(), Vec::new());
        for message in messages {
            match send(producer, &self.topic, message)? {
                Some(acknowledged) => sent.push((message, acknowledged)),
                None => refused.push(message),
            }
        }
        let deadline = Instant::now() + BROKER_TIMEOUT * 4;
        // In short steps, so that shutdown does not wait for unreachable brokers.
        while let Err(error) = producer.flush(FLUSH_STEP) {
            if Instant::now() >= deadline || self.should_stop.load(Ordering::Acquire) {
                return Err(error);
            }
        }
        for (message, acknowledged) in sent {
            match acknowledged.now_or_never() {
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err((error, _)))) if is_too_large(&error) => refused.push(message),
                Some(Ok(Err((error, _)))) => return Err(error),
                Some(Err(_)) | None => return Err(KafkaError::Canceled),
            }
        }
        Ok(refused)
    }

    fn try_replay(
        &self,
        partition: i32,
        until: i64,
        reach: i64,
        take: &mut dyn FnMut(i64, &[u8]),
    ) -> Result<(), KafkaError> {
        let reader: BaseConsumer<Context> =
            BaseConsumer::from_config_and_context(&self.reader_config, self.context())?;
        // Polling triggers the callback that provides the OAuth token.
        let _ = reader.poll(Duration::ZERO);
        let (low, _) = reader.fetch_watermarks(&self.topic, partition, BROKER_TIMEOUT)?;
        let Some(time) = self.time_before(&reader, partition, low, until)? else { return Ok(()) };
        let from = time.saturating_sub(reach / 1_000_000).max(0);
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&self.topic, partition, Offset::Offset(from))?;
        let found = reader.offsets_for_times(asked, BROKER_TIMEOUT)?;
        let start = match found.find_partition(&self.topic, partition).map(|one| one.offset()) {
            Some(Offset::Offset(offset)) => offset.max(low),
            _ => low,
        };
        self.read(&reader, partition, start, |offset, _, message| {
            take(offset, message);
            true
        })
    }

    /// Event time of a message shortly before an offset, in milliseconds; `None` if there is no message before it.
    fn time_before(
        &self,
        reader: &BaseConsumer<Context>,
        partition: i32,
        low: i64,
        until: i64,
    ) -> Result<Option<i64>, KafkaError> {
        if until <= low {
            return Ok(None);
        }
        // Transaction markers occupy offsets without a message.
        let mut back = 1_i64;
        loop {
            let start = until.saturating_sub(back).max(low);
            let mut found = None;
            self.read(reader, partition, start, |offset, time, _| {
                found = (offset < until).then_some(time);
                false
            })?;
            if found.is_some() || start == low {
                return Ok(found);
            }
            back = back.saturating_mul(16);
        }
    }

    /// Reads a partition from an offset until its end or until `take` returns false.
    fn read(
        &self,
        reader: &BaseConsumer<Context>,
        partition: i32,
        start: i64,
        mut take: impl FnMut(i64, i64, &[u8]) -> bool,
    ) -> Result<(), KafkaError> {
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, partition, Offset::Offset(start))?;
        reader.assign(&place)?;
        let mut deadline = Instant::now() + BROKER_TIMEOUT;
        while Instant::now() < deadline {
            match reader.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // librdkafka reconnects by itself.
                    Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut) => {}
                    _ => return Err(error),
                },
                Some(Ok(message)) => {
                    deadline = Instant::now() + BROKER_TIMEOUT;
                    let time = message.timestamp().to_millis().unwrap_or(0);
                    if !take(message.offset(), time, message.payload().unwrap_or_default()) {
                        return Ok(());
                    }
                }
            }
        }
        Err(KafkaError::Global(Code::OperationTimedOut))
    }
}

impl MatchExchange for RepartitionTopic {
    fn rebalance_generation(&self) -> u64 {
        self.group.rebalance_generation()
    }

    fn assigned_partitions(&self) -> Vec<AssignedPartition> {
        self.group.partitions_of(&self.topic)
    }

    fn send(&mut self, messages: &[Outgoing]) -> bool {
        match self.try_send(messages) {
            Ok(()) => true,
            Err(error) => {
                self.report("failed to send matches to other replicas", &error);
                // A new producer has an empty queue.
                self.producer = None;
                false
            }
        }
    }

    fn replay(&mut self, partition: i32, until: i64, reach: i64, take: &mut dyn FnMut(i64, &[u8])) -> bool {
        match self.try_replay(partition, until, reach, take) {
            Ok(()) => true,
            Err(error) => {
                self.report("failed to read back the matches of windows", &error);
                false
            }
        }
    }

    fn delivered_seq(&self) -> Option<i64> {
        (self.delivered_seq)()
    }
}

pub async fn create_topic(settings: &Settings, correlate: &Correlate) -> Result<(), KafkaError> {
    let config = client::config(&settings.cluster, &[("ssl.ca.location", "probe")], &[]);
    let admin: AdminClient<Context> = AdminClient::from_config_and_context(
        &config,
        Context::new(LastError::default(), settings.cluster.oauth_token_file.clone()),
    )?;
    let topic = NewTopic {
        name: &correlate.topic,
        num_partitions: i32::try_from(correlate.partitions).unwrap_or(i32::MAX),
        // The cluster's default.
        replication: TopicReplication::Fixed(-1),
        config: vec![
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", RETENTION_BYTES),
            ("segment.bytes", SEGMENT_BYTES),
            ("message.timestamp.type", "CreateTime"),
            // Not less than librdkafka sends, whatever the brokers' default is.
            ("max.message.bytes", "1048588"),
        ],
    };
    let options =
        AdminOptions::new().request_timeout(Some(BROKER_TIMEOUT)).operation_timeout(Some(BROKER_TIMEOUT));
    for result in admin.create_topics([&topic], &options).await? {
        match result {
            Ok(_) => tracing::info!(
                topic = correlate.topic,
                partitions = correlate.partitions,
                "created the exchange topic"
            ),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}
