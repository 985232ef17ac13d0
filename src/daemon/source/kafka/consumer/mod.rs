//! The consumer loop, on its own thread: poll, submit batches, commit, and keep polling so that the group keeps this member.

mod context;
mod in_flight;
mod membership;
mod repartition;
mod split_messages;
mod start_offset;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::consumer::{CommitMode, Consumer as _, MessageStream, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;

pub use membership::Membership;
pub use repartition::RepartitionTopic;

use super::{Dependencies, Error, Settings};
use crate::daemon::kafka::KafkaErrorKind;
use crate::daemon::kafka::client::{self, error_kind};
use context::Context;
use in_flight::Accepted;
use repartition::create_topic;

const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum number of messages polled before other work is done.
const MAX_POLL_MESSAGES: usize = 1000;

/// Partitions are paused when the batch was full for this long.
const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// Retry interval of a rewind that librdkafka rejected.
const REWIND_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How often the consumer checks for missing topics.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Properties that the configuration may override.
const DEFAULTS: [(&str, &str); 7] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Limits memory for prefetched messages, without the pause of one second when the limit is reached.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "5"),
    // A fetch is decompressed as a whole, and audit events grow tenfold. A larger message is fetched separately.
    ("fetch.message.max.bytes", "131072"),
    ("fetch.max.bytes", "1000000"),
    // Use the system's CA certificates.
    ("ssl.ca.location", "probe"),
    // Maximum size of a single message, which may exceed a fetch.
    ("receive.message.max.bytes", "268435456"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Consume,
    /// Submit no more batches.
    Drain,
    /// Commit and leave the group.
    Leave,
}

/// A running member of a consumer group.
pub struct Consumer {
    client: Arc<Client>,
    phase: watch::Sender<Phase>,
    thread: JoinHandle<()>,
}

pub type Client = StreamConsumer<Context>;

impl Consumer {
    /// Joins the group in the background. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the settings are invalid.
    pub fn start(source: &str, settings: &Settings, dependencies: Dependencies) -> Result<Self, Error> {
        let context = Context::new(source, settings, dependencies);
        let client: Client = config(settings)
            .create_with_context(context)
            .map_err(|error: KafkaError| Error::Client(client::property_error(&error)))?;
        if settings.correlate.is_none() {
            client.subscribe(&topics(settings)).map_err(|error| Error::Topics(error.to_string()))?;
        }
        let (phase, phase_receiver) = watch::channel(Phase::Consume);
        let runtime = tokio::runtime::Handle::current();
        let settings = settings.clone();
        let client = Arc::new(client);
        let loop_client = client.clone();
        let thread = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || {
                runtime
                    .block_on(ConsumerLoop { client: &loop_client, phase: phase_receiver, settings }.run());
            })
            .map_err(Error::Thread)?;
        Ok(Consumer { client, phase, thread })
    }

    pub fn membership(&self) -> Membership {
        Membership::new(self.client.clone())
    }

    /// Submits no more batches; the outcomes of submitted ones are still processed.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Drain);
    }

    /// Commits what the sinks have processed and leaves the group, within `grace`.
    pub async fn stop(self, grace: Duration) {
        self.phase.send_replace(Phase::Leave);
        let thread = self.thread;
        // A panic was logged. A thread that hangs ends with the process.
        let _ = tokio::time::timeout(grace, tokio::task::spawn_blocking(move || thread.join())).await;
    }
}

fn config(settings: &Settings) -> rdkafka::ClientConfig {
    let mut owned = vec![
        ("group.id", settings.group.as_str()),
        ("auto.offset.reset", settings.start_at.reset()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "false"),
        ("statistics.interval.ms", "5000"),
    ];
    if let Some(instance) = &settings.instance_id {
        owned.push(("group.instance.id", instance));
    }
    // With the new group protocol, the broker assigns partitions, and this property is rejected.
    let is_newer = settings
        .cluster
        .properties
        .iter()
        .any(|(name, value)| name == "group.protocol" && value.reveal() == "consumer");
    client::config(&settings.cluster, if is_newer { &DEFAULTS[1..] } else { &DEFAULTS }, &owned)
}

/// All topics that are read, including the exchange topic.
fn topics(settings: &Settings) -> Vec<&str> {
    let exchange = settings.correlate.as_ref().map(|correlate| &correlate.topic);
    settings.topics.iter().chain(exchange).map(String::as_str).collect()
}

struct ConsumerLoop<'c> {
    client: &'c Arc<Client>,
    phase: watch::Receiver<Phase>,
    settings: Settings,
}

impl ConsumerLoop<'_> {
    fn context(&self) -> &Context {
        self.client.context()
    }

    async fn run(mut self) {
        if !self.join().await {
            return;
        }
        let mut stream = self.client.stream();
        let mut tick = tokio::time::interval(COMMIT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_paused = false;
        let mut topics_checked_at = tokio::time::Instant::now();
        let mut rewind_at = topics_checked_at;
        while *self.phase.borrow_and_update() == Phase::Consume {
            if tokio::time::Instant::now() >= rewind_at && !self.rewind() {
                rewind_at = tokio::time::Instant::now() + REWIND_RETRY_INTERVAL;
            }
            let has_room = self.drain_stream(&mut stream);
            self.count();
            if !self.context().submit() {
                break;
            }
            let answer = std::future::poll_fn(|waker| self.client.context().state().poll_answer(waker));
            tokio::select! {
                biased;
                changed = self.phase.changed() => if changed.is_err() { break },
                // A batch that was not stored is read again by the next iteration.
                outcome = answer => { self.context().settle(outcome); },
                message = stream.next(), if has_room || is_paused => if let Some(message) = message {
                    self.on_message(message);
                },
                _ = tick.tick() => {
                    self.context().commit(&**self.client, CommitMode::Async);
                    self.context().state().give_up_overdue();
                    is_paused = self.apply_backpressure(has_room, is_paused);
                    if topics_checked_at.elapsed() >= TOPIC_CHECK_INTERVAL {
                        topics_checked_at = tokio::time::Instant::now();
                        self.check_missing_topics();
                    }
                }
            }
        }
        self.leave().await;
    }

    /// Joins the group. The exchange topic must exist first, because a member that subscribes without it would miss matches. Returns false
    /// if the consumer is stopped before.
    async fn join(&mut self) -> bool {
        let Some(correlate) = &self.settings.correlate else { return true };
        while !self.topic_exists(&correlate.topic) {
            let created = create_topic(&self.settings, correlate).await;
            let Err(error) = created else { continue };
            let reason = error.rdkafka_error_code().map_or(KafkaErrorKind::Other, error_kind);
            let topic = &correlate.topic;
            self.context().report(
                reason,
                &format!(
                    "cannot create the exchange topic {topic}: {error}. Create it, or remove `correlate`"
                ),
            );
            self.context()
                .observer
                .report_problem(Some(format!("cannot create the exchange topic {topic}: {error}")));
            tokio::select! {
                _ = self.phase.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            if *self.phase.borrow_and_update() != Phase::Consume {
                return false;
            }
        }
        self.context().observer.report_problem(None);
        if let Err(error) = self.client.subscribe(&topics(&self.settings)) {
            self.context().report(KafkaErrorKind::Other, &error.to_string());
            self.context().observer.report_problem(Some(format!("invalid topics: {error}")));
        }
        true
    }

    /// Accepts available messages up to the batch limit. Returns whether there is room for more.
    fn drain_stream(&self, stream: &mut MessageStream<'_, Context>) -> bool {
        for _ in 0..MAX_POLL_MESSAGES {
            if !self.context().state().has_room() {
                return false;
            }
            match stream.next().now_or_never() {
                Some(Some(message)) => self.on_message(message),
                _ => break,
            }
        }
        self.context().state().has_room()
    }

    fn on_message(&self, message: Result<rdkafka::message::BorrowedMessage<'_>, KafkaError>) {
        use rdkafka::message::Message as _;
        // Errors are reported to the context in more detail.
        let Ok(message) = message else { return };
        let accepted = self.context().state().take(&message);
        if accepted == Accepted::Rewound {
            let detail = format!(
                "{} [{}] continues at offset {}",
                message.topic(),
                message.partition(),
                message.offset()
            );
            self.context().report(KafkaErrorKind::OffsetGone, &detail);
        }
    }

    fn count(&self) {
        let (all, empty) = self.context().state().take_counts();
        if all > 0 {
            self.context().observer.messages(all, empty);
        }
    }

    /// Pauses all partitions while the batch is full, and resumes them. Returns whether they are paused.
    fn apply_backpressure(&self, has_room: bool, is_paused: bool) -> bool {
        let is_full = self.context().state().is_full_for(PAUSE_AFTER);
        if is_full == is_paused && !is_full {
            return false;
        }
        let Ok(assignment) = self.client.assignment() else { return is_paused };
        let result = if is_full && !has_room {
            // Repeated, because partitions may have been assigned since.
            self.client.pause(&assignment)
        } else {
            self.client.resume(&assignment)
        };
        if let Err(error) = result {
            self.context().report(KafkaErrorKind::Other, &error.to_string());
        }
        is_full && !has_room
    }

    /// Seeks back to messages that were not stored. Returns false if librdkafka cannot seek yet (because of an offset lookup or an
    /// unavailable broker).
    fn rewind(&self) -> bool {
        let mut offsets = TopicPartitionList::new();
        for (topic, partition, offset) in self.context().state().to_rewind() {
            // Stored offsets are not negative.
            let _ = offsets.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
        if offsets.count() == 0 {
            return true;
        }
        let results = match self.client.seek_partitions(offsets, Duration::from_secs(10)) {
            Ok(results) => results,
            Err(error) => {
                self.context().report(KafkaErrorKind::Other, &error.to_string());
                return false;
            }
        };
        let mut all = true;
        for one in results.elements() {
            match one.error() {
                Ok(()) => self.context().state().rewound(one.topic(), one.partition()),
                Err(error) => {
                    all = false;
                    let (topic, partition) = (one.topic(), one.partition());
                    tracing::debug!(topic, partition, %error, "cannot seek yet");
                }
            }
        }
        all
    }

    /// Clears the problem when all missing topics exist.
    fn check_missing_topics(&self) {
        if !self.context().has_problem(KafkaErrorKind::UnknownTopic) {
            return;
        }
        let mut topics = self.settings.topics.iter().filter(|topic| !topic.starts_with('^'));
        if topics.all(|topic| self.topic_exists(topic)) {
            self.context().recovered(&[KafkaErrorKind::UnknownTopic]);
        }
    }

    fn topic_exists(&self, topic: &str) -> bool {
        let metadata = self.client.fetch_metadata(Some(topic), Duration::from_millis(500));
        metadata.is_ok_and(|all| {
            all.topics().iter().any(|one| one.error().is_none() && !one.partitions().is_empty())
        })
    }

    /// Waits for the batch in flight and for the sinks, commits, and leaves the group by ending.
    async fn leave(&mut self) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            let answer = self.context().state().try_answer();
            if let Some(outcome) = answer {
                let _ = self.context().settle(outcome);
            }
            if self.phase.has_changed().is_err() || *self.phase.borrow_and_update() == Phase::Leave {
                break;
            }
            tick.tick().await;
        }
        // Messages that were not submitted would not be evaluated.
        self.context().state().discard_unstored();
        self.context().commit(&**self.client, CommitMode::Sync);
    }
}
