//! The loop of a consumer, on a thread of its assigned: take what is there, hand it on, commit, and never stop asking.

mod context;
mod in_flight;
mod membership;
mod repartition;
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

/// How often offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// So many messages are taken before we look at anything else.
const MAX_POLL_MESSAGES: usize = 1000;

/// Without room for so long, partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// How soon it is tried again to read what was not stored, where librdkafka could not.
const REWIND_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked whether a topic is there that was not.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What holds where the configuration says nothing else.
const DEFAULTS: [(&str, &str); 7] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Read ahead: so much memory, and no second without reading when it is used up.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "5"),
    // A fetch is unpacked as a whole, and audit events become ten times as much. A larger message comes by itself.
    ("fetch.message.max.bytes", "131072"),
    ("fetch.max.bytes", "1000000"),
    // Found where this system keeps its authorities.
    ("ssl.ca.location", "probe"),
    // A message of this size comes, though it is more than one fetch has.
    ("receive.message.max.bytes", "268435456"),
];

/// What a consumer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Consume,
    /// Hand on nothing more.
    Drain,
    /// Commit what is to be committed, and leave.
    Leave,
}

/// A member of a consumer group, at state.
pub struct Consumer {
    client: Arc<Client>,
    phase: watch::Sender<Phase>,
    thread: JoinHandle<()>,
}

/// The consumer of librdkafka, with our context.
pub type Client = StreamConsumer<Context>;

impl Consumer {
    /// Joins the group. To be called inside a runtime. Waits for no broker.
    ///
    /// # Errors
    /// When the settings cannot state.
    pub fn start(source: &str, settings: &Settings, dependencies: Dependencies) -> Result<Self, Error> {
        let context = Context::new(source, settings, dependencies);
        let client: Client = config(settings)
            .create_with_context(context)
            .map_err(|error: KafkaError| Error::Client(client::property_error(&error)))?;
        if settings.correlate.is_none() {
            client.subscribe(&topics(settings)).map_err(|error| Error::Topics(error.to_string()))?;
        }
        let (phase, told) = watch::channel(Phase::Consume);
        let runtime = tokio::runtime::Handle::current();
        let settings = settings.clone();
        let client = Arc::new(client);
        let ours = client.clone();
        let thread = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || runtime.block_on(ConsumerLoop { client: &ours, phase: told, settings }.run()))
            .map_err(Error::Thread)?;
        Ok(Consumer { client, phase, thread })
    }

    /// For transactions: who we are in the group, and what is ours.
    pub fn membership(&self) -> Membership {
        Membership::new(self.client.clone())
    }

    /// Hands on nothing more.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Drain);
    }

    /// Commits what the sinks have, and leaves the group. Waits for so long at most.
    pub async fn stop(self, grace: Duration) {
        self.phase.send_replace(Phase::Leave);
        let thread = self.thread;
        // One that panicked has said so; one that hangs ends with the process.
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
    // The newer protocol of groups has its strategies at the broker, and refuses the client's.
    let is_newer = settings
        .cluster
        .properties
        .iter()
        .any(|(name, value)| name == "group.protocol" && value.reveal() == "consumer");
    client::config(&settings.cluster, if is_newer { &DEFAULTS[1..] } else { &DEFAULTS }, &owned)
}

/// All topics that are read.
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
        let mut look_at = tokio::time::Instant::now();
        let mut seek_at = look_at;
        while *self.phase.borrow_and_update() == Phase::Consume {
            if tokio::time::Instant::now() >= seek_at && !self.rewind() {
                seek_at = tokio::time::Instant::now() + REWIND_RETRY_INTERVAL;
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
                // What was not stored is read again.
                outcome = answer => { self.context().settle(outcome); },
                message = stream.next(), if has_room || is_paused => if let Some(message) = message {
                    self.on_message(message);
                },
                _ = tick.tick() => {
                    self.context().commit(&**self.client, CommitMode::Async);
                    is_paused = self.apply_backpressure(has_room, is_paused);
                    if look_at.elapsed() >= TOPIC_CHECK_INTERVAL {
                        look_at = tokio::time::Instant::now();
                        self.check_missing_topics();
                    }
                }
            }
        }
        self.leave().await;
    }

    /// Joins the group. Where matches are exchanged, their topic has to be there first: whoever reads without it loses them.
    /// False where it is to leave before that.
    async fn join(&mut self) -> bool {
        let Some(correlate) = &self.settings.correlate else { return true };
        while !self.topic_exists(&correlate.topic) {
            let made = create_topic(&self.settings, correlate).await;
            let Err(error) = made else { continue };
            let reason = error.rdkafka_error_code().map_or(KafkaErrorKind::Other, error_kind);
            let topic = &correlate.topic;
            self.context().report(
                reason,
                &format!("the topic {topic} for correlations is not there and cannot be made: {error}. Make it, or leave out `correlate`"),
            );
            self.context()
                .observer
                .trouble(Some(format!("the topic {topic} for correlations cannot be made: {error}")));
            tokio::select! {
                _ = self.phase.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            if *self.phase.borrow_and_update() != Phase::Consume {
                return false;
            }
        }
        self.context().observer.trouble(None);
        if let Err(error) = self.client.subscribe(&topics(&self.settings)) {
            self.context().report(KafkaErrorKind::Other, &error.to_string());
            self.context().observer.trouble(Some(format!("librdkafka cannot use these topics: {error}")));
        }
        true
    }

    /// Takes messages for as long as there are some and there is room for them. Whether there is room for more.
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
        // Errors are told to the context too, with more words.
        let Ok(message) = message else { return };
        let accepted = self.context().state().take(&message);
        if accepted == Accepted::Rewound {
            let detail =
                format!("{} [{}] goes on at {}", message.topic(), message.partition(), message.offset());
            self.context().report(KafkaErrorKind::OffsetGone, &detail);
        }
    }

    fn count(&self) {
        let (all, empty) = self.context().state().take_counts();
        if all > 0 {
            self.context().observer.messages(all, empty);
        }
    }

    /// Pauses partitions while there is no room, and lets them go on. Whether they are paused.
    fn apply_backpressure(&self, has_room: bool, is_paused: bool) -> bool {
        let is_full = self.context().state().is_full_for(PAUSE_AFTER);
        if is_full == is_paused && !is_full {
            return false;
        }
        let Ok(assignment) = self.client.assignment() else { return is_paused };
        let result = if is_full && !has_room {
            // Again and again: some may have been given to us meanwhile.
            self.client.pause(&assignment)
        } else {
            self.client.resume(&assignment)
        };
        if let Err(error) = result {
            self.context().report(KafkaErrorKind::Other, &error.to_string());
        }
        is_full && !has_room
    }

    /// Reads again what was not stored. False where librdkafka cannot yet, as while it looks for an offset or a broker.
    fn rewind(&self) -> bool {
        let mut places = TopicPartitionList::new();
        for (topic, partition, offset) in self.context().state().to_rewind() {
            // None is below 0.
            let _ = places.add_partition_offset(topic, partition, Offset::Offset(offset));
        }
        if places.count() == 0 {
            return true;
        }
        let sought = match self.client.seek_partitions(places, Duration::from_secs(10)) {
            Ok(sought) => sought,
            Err(error) => {
                self.context().report(KafkaErrorKind::Other, &error.to_string());
                return false;
            }
        };
        let mut all = true;
        for one in sought.elements() {
            match one.error() {
                Ok(()) => self.context().state().rewound(one.topic(), one.partition()),
                Err(error) => {
                    all = false;
                    let (topic, partition) = (one.topic(), one.partition());
                    tracing::debug!(topic, partition, %error, "it cannot be read again yet");
                }
            }
        }
        all
    }

    /// Whether topics are there that were not.
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

    /// Waits until the sinks had their time, commits, and leaves the group as it ends.
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
        // What is only gathered nobody would judge.
        self.context().state().discard_unstored();
        self.context().commit(&**self.client, CommitMode::Sync);
    }
}
