//! What librdkafka calls: errors, statistics, rebalances. All of it on the thread that asks for messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::in_flight::Work;
use super::{Batch, Commit, Partitions, Settings, StartAt, Witness, position, start_offset};
use crate::daemon::kafka::{Reason, reason_of};
use crate::daemon::log_limit::LogLimits;
use crate::daemon::time::since_epoch;

/// How long a partition that is taken from us is held to finish what is in flight.
const FINISH: Duration = Duration::from_secs(10);

/// What stands between librdkafka and the rest.
pub struct Context {
    /// The source's name.
    pub source: String,
    group: String,
    commit: Commit,
    /// Offsets are committed by transactions, and by nothing else.
    pub is_transactional: bool,
    /// Where to start.
    pub start_at: StartAt,
    oauth_token_file: Option<PathBuf>,
    cluster: OnceLock<String>,
    work: Mutex<Work>,
    /// What the store has, as keys and values.
    pub positions: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    hand_on: Box<dyn Fn(Batch) -> bool + Send + Sync>,
    delivered: Box<dyn Fn() -> Option<i64> + Send + Sync>,
    /// Hears what happens.
    pub witness: Box<dyn Witness>,
    log_limits: Mutex<LogLimits<Reason>>,
    /// What keeps it from working now.
    troubles: Mutex<BTreeMap<Reason, String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// With nothing in hand.
    pub fn new(source: &str, settings: &Settings, parts: super::Parts) -> Self {
        Context {
            source: source.to_owned(),
            group: settings.group.clone(),
            commit: settings.commit,
            is_transactional: settings.exactly_once,
            start_at: settings.start_at,
            oauth_token_file: settings.cluster.oauth_token_file.clone(),
            cluster: OnceLock::new(),
            work: Mutex::new(Work::new(
                parts.newest,
                settings.correlate.as_ref().map(|correlate| correlate.topic.clone()),
            )),
            positions: Mutex::new(parts.positions.into_iter().collect()),
            hand_on: parts.hand_on,
            delivered: parts.delivered,
            witness: parts.witness,
            log_limits: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    /// What is in hand. Not to be held while librdkafka is asked for anything.
    pub fn work(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }

    /// What the keys of our positions start with.
    pub fn prefix(&self, consumer: &BaseConsumer<Context>, patience: Duration) -> Vec<u8> {
        if self.cluster.get().is_none()
            && let Some(id) = consumer.client().fetch_cluster_id(patience)
        {
            let _ = self.cluster.set(id);
        }
        position::prefix(&self.source, &self.group, self.cluster.get().map_or("", String::as_str))
    }

    /// Hands on what is gathered. False where nobody takes it.
    pub fn hand_on(&self) -> bool {
        self.work().hand_on(&self.hand_on)
    }

    /// Notes what became of a batch. False where its messages have to be read again.
    pub fn settle(&self, outcome: Result<super::Outcome, ()>) -> bool {
        let mut work = self.work();
        let is_settled = work.settle(outcome);
        if is_settled {
            // What a partition that comes back has to know.
            let mut known = lock(&self.positions);
            for (topic, partition, own) in work.own.iter().filter(|(_, _, own)| own.stored >= 0) {
                let position = super::Position { next: own.stored, committed: own.committed };
                let entry = position::entry(&work.prefix, topic, partition, position);
                known.insert(entry.key, entry.value.unwrap_or_default());
            }
        }
        is_settled
    }

    /// The offsets that may be committed now.
    fn ready(&self) -> TopicPartitionList {
        let delivered = match self.commit {
            Commit::Stored => Some(i64::MAX),
            Commit::Delivered if self.work().is_waiting() => (self.delivered)(),
            Commit::Delivered => None,
        };
        let offsets = delivered.map_or_else(Partitions::default, |delivered| self.work().ready(delivered));
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in offsets.iter() {
            // None is below 0.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(*offset));
        }
        list
    }

    /// Commits what may be committed now.
    pub fn commit(&self, consumer: &impl rdkafka::consumer::Consumer<Context>, mode: CommitMode) {
        let ready = self.ready();
        if ready.count() == 0 {
            return;
        }
        match (consumer.commit(&ready, mode), mode) {
            (Ok(()), CommitMode::Sync) => self.committed(&ready),
            (Ok(()), CommitMode::Async) => {}
            (Err(error), _) => self.complain(Reason::Commit, &error.to_string()),
        }
    }

    fn committed(&self, offsets: &TopicPartitionList) {
        let mut work = self.work();
        for one in offsets.elements() {
            if let (Offset::Offset(offset), Some(own)) =
                (one.offset(), work.own.get_mut(one.topic(), one.partition()))
                && one.error().is_ok()
            {
                own.committed = offset;
            }
        }
    }

    /// Waits until what is in hand is stored, and where offsets wait for sinks, for these; not for ever.
    fn finish(&self, consumer: &BaseConsumer<Context>) {
        let deadline = Instant::now() + FINISH;
        while Instant::now() < deadline {
            let answer = self.work().try_answer();
            if let Some(outcome) = answer {
                // What is still ours is read again when the rebalance is over.
                if !self.settle(outcome) {
                    break;
                }
            } else if !self.work().is_in_flight() {
                let _ = self.hand_on();
                if !self.work().is_in_flight() {
                    break;
                }
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        while self.work().is_waiting() {
            self.commit(consumer, CommitMode::Sync);
            if Instant::now() >= deadline || self.is_transactional {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Counts a failure.
    pub fn count(&self, reason: Reason) {
        self.witness.failed(reason);
    }

    /// Counts a failure, and says it once a minute.
    pub fn complain(&self, reason: Reason, detail: &str) {
        self.count(reason);
        let Some(held_back) = lock(&self.log_limits).admit(reason) else { return };
        tracing::warn!(
            source = self.source,
            reason = reason.name(),
            held_back,
            detail,
            "{}",
            reason.advice()
        );
    }

    /// Notes what keeps us from working.
    fn trouble(&self, reason: Reason) {
        let mut troubles = lock(&self.troubles);
        if troubles.insert(reason, reason.advice().to_owned()).is_none() {
            self.tell(&troubles);
        }
    }

    /// Something that kept us from working is over.
    pub fn works(&self, reasons: &[Reason]) {
        let mut troubles = lock(&self.troubles);
        let before = troubles.len();
        troubles.retain(|reason, _| !reasons.contains(reason));
        if troubles.len() < before {
            let mut limits = lock(&self.log_limits);
            for reason in reasons {
                limits.reset(reason);
            }
            tracing::info!(source = self.source, "what kept it from reading is over");
            self.tell(&troubles);
        }
    }

    fn tell(&self, troubles: &BTreeMap<Reason, String>) {
        let words: Vec<&str> = troubles.values().map(String::as_str).collect();
        self.witness.trouble((!words.is_empty()).then(|| words.join("; ")));
    }

    /// Whether this keeps us from working.
    pub fn is_troubled_by(&self, reason: Reason) -> bool {
        lock(&self.troubles).contains_key(&reason)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too.
        tracing::debug!(target: "librdkafka", source = self.source, ?level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.works(&[Reason::Unreachable, Reason::Authentication, Reason::Tls]);
        }
        let work = self.work();
        let mut all = 0;
        for (topic, partition, own) in work.own.iter() {
            let told = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
            let Some(told) = told else { continue };
            let next = if own.stored >= 0 { own.stored } else { told.app_offset.max(own.committed) };
            // Of an open transaction nothing can be read.
            let end = if told.ls_offset >= 0 { told.ls_offset.min(told.hi_offset) } else { told.hi_offset };
            if next >= 0 && end >= 0 {
                let lag = u64::try_from(end - next).unwrap_or(0);
                self.witness.lag(topic, partition, lag);
                all += lag;
            }
        }
        let now = since_epoch();
        let newest = work.newest.filter(|_| all > 0).and_then(|newest| u64::try_from(newest).ok());
        drop(work);
        let age = newest.map_or(Duration::ZERO, |newest| now.saturating_sub(Duration::from_millis(newest)));
        self.witness.behind(age);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let kind = reason_of(code);
        self.complain(kind, reason);
        match kind {
            // One broker of several that is gone is no trouble.
            Reason::Unreachable if code != rdkafka::error::RDKafkaErrorCode::AllBrokersDown => {}
            Reason::Unreachable
            | Reason::Authentication
            | Reason::Tls
            | Reason::Forbidden
            | Reason::UnknownTopic => self.trouble(kind),
            _ => {}
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        crate::daemon::kafka::token(self.oauth_token_file.as_deref()).inspect_err(|error| {
            self.complain(Reason::Authentication, &error.to_string());
            self.trouble(Reason::Authentication);
        })
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(given) => {
                start_offset::resume(self, consumer, given);
                if given.count() > 0 {
                    self.witness.rebalanced("assigned");
                    self.works(&[Reason::Forbidden]);
                    tracing::info!(source = self.source, partitions = given.count(), "partitions are ours");
                }
            }
            Rebalance::Revoke(taken) => {
                let is_lost = consumer.assignment_lost();
                if !is_lost {
                    self.finish(consumer);
                }
                // A pause of ours would outlive that they are ours, and nothing would come when they are ours again.
                if let Err(error) = consumer.resume(taken) {
                    tracing::debug!(source = self.source, %error, "partitions that go stay paused");
                }
                for one in taken.elements() {
                    self.work().let_go(one.topic(), one.partition());
                    self.witness.let_go(one.topic(), one.partition());
                }
                if taken.count() > 0 {
                    self.witness.rebalanced(if is_lost { "lost" } else { "revoked" });
                    tracing::info!(
                        source = self.source,
                        partitions = taken.count(),
                        is_lost,
                        "partitions went elsewhere"
                    );
                }
            }
            Rebalance::Error(error) => self.complain(Reason::Expelled, &error.to_string()),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.committed(offsets),
            Err(error) => self.complain(Reason::Commit, &error.to_string()),
        }
    }
}
