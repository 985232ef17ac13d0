//! Callbacks of librdkafka: errors, statistics, rebalances. They run on the polling thread.

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

use super::super::position::Position;
use super::super::{
    Batch, Commit, ConsumerObserver, Dependencies, KafkaBatchOutcome, Partitions, Settings, StartAt, position,
};
use super::in_flight::ConsumerState;
use super::start_offset;
use crate::daemon::kafka::KafkaErrorKind;
use crate::daemon::kafka::client::error_kind;
use crate::daemon::log_limit::LogLimits;
use crate::daemon::time::since_epoch;

/// Maximum time that a rebalance waits for the batch in flight and its commit.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumer's state shared by callbacks and loop.
pub struct Context {
    pub source: String,
    group: String,
    commit: Commit,
    /// Whether only transactions commit offsets.
    pub is_transactional: bool,
    pub start_at: StartAt,
    oauth_token_file: Option<PathBuf>,
    cluster: OnceLock<String>,
    state: Mutex<ConsumerState>,
    /// Stored positions, as keys and values.
    pub positions: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    submit: Box<dyn Fn(Batch) -> bool + Send + Sync>,
    delivered_seq: Box<dyn Fn() -> Option<i64> + Send + Sync>,
    pub observer: Box<dyn ConsumerObserver>,
    log_limits: Mutex<LogLimits<KafkaErrorKind>>,
    /// Problems that prevent reading at present.
    problems: Mutex<BTreeMap<KafkaErrorKind, String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub fn new(source: &str, settings: &Settings, dependencies: Dependencies) -> Self {
        Context {
            source: source.to_owned(),
            group: settings.group.clone(),
            commit: settings.commit,
            is_transactional: settings.exactly_once,
            start_at: settings.start_at,
            oauth_token_file: settings.cluster.oauth_token_file.clone(),
            cluster: OnceLock::new(),
            state: Mutex::new(ConsumerState::new(
                dependencies.latest_seq,
                settings.correlate.as_ref().map(|correlate| correlate.topic.clone()),
            )),
            positions: Mutex::new(dependencies.positions.into_iter().collect()),
            submit: dependencies.submit,
            delivered_seq: dependencies.delivered_seq,
            observer: dependencies.observer,
            log_limits: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    /// Must not be held while calling librdkafka, because its callbacks lock it too.
    pub fn state(&self) -> MutexGuard<'_, ConsumerState> {
        lock(&self.state)
    }

    /// Key prefix of the positions in the store. Asks the brokers for the cluster id.
    pub fn prefix(&self, consumer: &BaseConsumer<Context>, timeout: Duration) -> Vec<u8> {
        if self.cluster.get().is_none()
            && let Some(id) = consumer.client().fetch_cluster_id(timeout)
        {
            let _ = self.cluster.set(id);
        }
        position::prefix(&self.source, &self.group, self.cluster.get().map_or("", String::as_str))
    }

    /// Submits the collected batch. Returns false if the pipeline has ended.
    pub fn submit(&self) -> bool {
        self.state().submit(&self.submit)
    }

    /// Processes the outcome of a batch. Returns false if its messages have to be read again.
    pub fn settle(&self, outcome: Result<KafkaBatchOutcome, ()>) -> bool {
        let mut state = self.state();
        let is_settled = state.settle(outcome);
        if is_settled {
            // Needed if a partition is revoked and assigned again.
            let mut stored = lock(&self.positions);
            for (topic, partition, assigned) in
                state.assigned.iter().filter(|(_, _, assigned)| assigned.stored >= 0)
            {
                let position = Position { next: assigned.stored, committed: assigned.committed };
                let entry = position::entry(&state.prefix, topic, partition, position);
                stored.insert(entry.key, entry.value.unwrap_or_default());
            }
        }
        is_settled
    }

    /// Offsets that may be committed now.
    fn ready(&self) -> TopicPartitionList {
        let delivered = match self.commit {
            Commit::Stored => Some(i64::MAX),
            Commit::Delivered if self.state().has_pending_commits() => (self.delivered_seq)(),
            Commit::Delivered => None,
        };
        let offsets = delivered.map_or_else(Partitions::default, |delivered| self.state().ready(delivered));
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in offsets.iter() {
            // Stored offsets are not negative.
            let _ = list.add_partition_offset(topic, partition, Offset::Offset(*offset));
        }
        list
    }

    /// Commits the offsets that may be committed now.
    pub fn commit(&self, consumer: &impl rdkafka::consumer::Consumer<Context>, mode: CommitMode) {
        let ready = self.ready();
        if ready.count() == 0 {
            return;
        }
        match (consumer.commit(&ready, mode), mode) {
            (Ok(()), CommitMode::Sync) => self.committed(&ready),
            (Ok(()), CommitMode::Async) => {}
            (Err(error), _) => self.report(KafkaErrorKind::Commit, &error.to_string()),
        }
    }

    fn committed(&self, offsets: &TopicPartitionList) {
        let mut state = self.state();
        for one in offsets.elements() {
            if let (Offset::Offset(offset), Some(assigned)) =
                (one.offset(), state.assigned.get_mut(one.topic(), one.partition()))
                && one.error().is_ok()
            {
                assigned.committed = offset;
            }
        }
    }

    /// Waits until the batch in flight and the collected messages are stored and their offsets committed, at most
    /// [`REVOKE_TIMEOUT`].
    fn finish(&self, consumer: &BaseConsumer<Context>) {
        let deadline = Instant::now() + REVOKE_TIMEOUT;
        while Instant::now() < deadline {
            let answer = self.state().try_answer();
            if let Some(outcome) = answer {
                // Partitions that stay assigned are read again after the rebalance.
                if !self.settle(outcome) {
                    break;
                }
            } else if !self.state().is_in_flight() {
                let _ = self.submit();
                if !self.state().is_in_flight() {
                    break;
                }
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        while self.state().has_pending_commits() {
            self.commit(consumer, CommitMode::Sync);
            if Instant::now() >= deadline || self.is_transactional {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn count(&self, reason: KafkaErrorKind) {
        self.observer.failed(reason);
    }

    /// Counts an error, and logs it at a limited rate.
    pub fn report(&self, reason: KafkaErrorKind, detail: &str) {
        self.count(reason);
        let Some(suppressed) = lock(&self.log_limits).admit(reason) else { return };
        tracing::warn!(source = self.source, reason = reason.name(), suppressed, detail, "{}", reason.hint());
    }

    /// Records a problem that prevents reading.
    fn add_problem(&self, reason: KafkaErrorKind) {
        let mut problems = lock(&self.problems);
        if problems.insert(reason, reason.hint().to_owned()).is_none() {
            self.publish_problems(&problems);
        }
    }

    /// Clears problems.
    pub fn recovered(&self, reasons: &[KafkaErrorKind]) {
        let mut problems = lock(&self.problems);
        let before = problems.len();
        problems.retain(|reason, _| !reasons.contains(reason));
        if problems.len() < before {
            let mut limits = lock(&self.log_limits);
            for reason in reasons {
                limits.reset(reason);
            }
            tracing::info!(source = self.source, "source recovered");
            self.publish_problems(&problems);
        }
    }

    fn publish_problems(&self, problems: &BTreeMap<KafkaErrorKind, String>) {
        let hints: Vec<&str> = problems.values().map(String::as_str).collect();
        self.observer.report_problem((!hints.is_empty()).then(|| hints.join("; ")));
    }

    pub fn has_problem(&self, reason: KafkaErrorKind) -> bool {
        lock(&self.problems).contains_key(&reason)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Important messages are reported as errors too.
        tracing::debug!(target: "librdkafka", source = self.source, ?level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.recovered(&[
                KafkaErrorKind::Unreachable,
                KafkaErrorKind::Authentication,
                KafkaErrorKind::Tls,
            ]);
        }
        let state = self.state();
        let mut all = 0;
        for (topic, partition, assigned) in state.assigned.iter() {
            let stats = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(&partition));
            let Some(stats) = stats else { continue };
            let next =
                if assigned.stored >= 0 { assigned.stored } else { stats.app_offset.max(assigned.committed) };
            // Messages of an open transaction cannot be read yet.
            let end =
                if stats.ls_offset >= 0 { stats.ls_offset.min(stats.hi_offset) } else { stats.hi_offset };
            if next >= 0 && end >= 0 {
                let lag = u64::try_from(end - next).unwrap_or(0);
                self.observer.lag(topic, partition, lag);
                all += lag;
            }
        }
        let now = since_epoch();
        let newest = state.newest.filter(|_| all > 0).and_then(|newest| u64::try_from(newest).ok());
        drop(state);
        let age = newest.map_or(Duration::ZERO, |newest| now.saturating_sub(Duration::from_millis(newest)));
        self.observer.behind(age);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let kind = error_kind(code);
        self.report(kind, reason);
        match kind {
            // One of several brokers being down does not prevent reading.
            KafkaErrorKind::Unreachable if code != rdkafka::error::RDKafkaErrorCode::AllBrokersDown => {}
            KafkaErrorKind::Unreachable
            | KafkaErrorKind::Authentication
            | KafkaErrorKind::Tls
            | KafkaErrorKind::Forbidden
            | KafkaErrorKind::UnknownTopic => self.add_problem(kind),
            _ => {}
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        crate::daemon::kafka::client::token(self.oauth_token_file.as_deref()).inspect_err(|error| {
            self.report(KafkaErrorKind::Authentication, &error.to_string());
            self.add_problem(KafkaErrorKind::Authentication);
        })
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(given) => {
                start_offset::assign_start_offsets(self, consumer, given);
                if given.count() > 0 {
                    self.observer.rebalanced("assigned");
                    self.recovered(&[KafkaErrorKind::Forbidden]);
                    tracing::info!(source = self.source, partitions = given.count(), "partitions assigned");
                }
            }
            Rebalance::Revoke(taken) => {
                let is_lost = consumer.assignment_lost();
                if !is_lost {
                    self.finish(consumer);
                }
                // The pause would outlast the revocation, and block the partition when it is assigned again.
                if let Err(error) = consumer.resume(taken) {
                    tracing::debug!(source = self.source, %error, "cannot resume revoked partitions");
                }
                for one in taken.elements() {
                    self.state().revoked(one.topic(), one.partition());
                    self.observer.revoked(one.topic(), one.partition());
                }
                if taken.count() > 0 {
                    self.observer.rebalanced(if is_lost { "lost" } else { "revoked" });
                    tracing::info!(
                        source = self.source,
                        partitions = taken.count(),
                        is_lost,
                        "partitions revoked"
                    );
                }
            }
            Rebalance::Error(error) => self.report(KafkaErrorKind::Evicted, &error.to_string()),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.committed(offsets),
            Err(error) => self.report(KafkaErrorKind::Commit, &error.to_string()),
        }
    }
}
