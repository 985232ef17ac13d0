//! The loop of `pullwatch run`: batches from the sources are evaluated and stored.
//!
//! Takes raw records from files, the webhook, Kafka and standard input, and new rules. Produces one transaction of the store per batch,
//! with the alerts, the changes of learned state and the source's new position. Only after the transaction are sinks woken and the
//! webhook's sender answered. Nothing here may wait for a network, except for the brokers of an exchange.
//!
//! A batch with a large output is stored in parts; `commit` explains why a crash between two parts is harmless.
//!
//! One thread evaluates and stores, one batch after the other, so events are evaluated in their order. While a file source is behind, a
//! second thread screens records that were read ahead (`catch_up`). While the store does not accept writes, nothing is taken from a source.

mod catch_up;
mod commit;
mod event_yield;
mod kafka;
mod maintenance;
mod output;
mod repartition;
mod retention_clock;
mod sources;
mod status;
mod two_phase;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use event_yield::{EventYield, Verdict};
use maintenance::{Maintenance, secret_name};
use output::BatchOutput;
use repartition::ExchangeState;
pub(crate) use sources::Sources;
pub(crate) use status::Status;
use status::log_incident;

use crate::daemon::kafka::{MatchExchange, Transact};
use crate::daemon::metrics::{Metrics, RuleNames};
use crate::daemon::source::follow::ReadStep;
use crate::daemon::source::webhook::WebhookBatch;
use crate::daemon::store::{self, Store};
use crate::daemon::time::unix_nanos;
use crate::detection::alert::Priority;
use crate::detection::audit::event::Event;
use crate::detection::audit::origin::Records;
use crate::detection::detector::{Detector, Options, Session};
use crate::detection::engine::alert::Alert;
use crate::detection::rules::ast::RuleSet;
use crate::detection::state::kind;

/// Bytes of a file that are evaluated per transaction: enough to amortize its cost, few enough to store alerts without delay.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Time between attempts to write to a store, or to brokers, that do not accept writes.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Number of stored event digests after which retention is applied ahead of time.
const MAX_UNCHECKED_DIGESTS: usize = 100_000;

/// Minimum time between refreshes of the gauges, some of which iterate over all learned state.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

/// Input of the pipeline. The number is the index of the source.
#[derive(Debug)]
pub(crate) enum Message {
    /// A log file may have changed.
    Wake,
    /// A batch from a webhook. A message on the channel requests the next one: until then, batches wait in the webhook's own bounded queue.
    WebhookBatch(usize, WebhookBatch, SyncSender<()>),
    /// A batch of Kafka messages. The source sends the next one after this one is stored.
    KafkaBatch(usize, crate::daemon::source::kafka::Batch),
    /// Whole records from standard input. A message on the channel requests the next ones.
    Records(usize, Vec<u8>, SyncSender<()>),
    ReloadRules(Box<Rules>),
    Stop,
}

/// Rules and how they are evaluated.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) set: RuleSet,
    pub(crate) options: Options,
}

/// State shared by the pipeline and the rest of the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Arc<Status>,
    /// Ends all waiting, so that [`Message::Stop`] is received.
    pub(crate) should_stop: Arc<AtomicBool>,
    /// A [`Message::Wake`] is in the channel.
    pub(crate) wake_pending: Arc<AtomicBool>,
}

impl Handles {
    fn should_stop(&self) -> bool {
        self.should_stop.load(Ordering::Acquire)
    }
}

/// Evaluates and stores the batches of all sources.
#[derive(Debug)]
pub(crate) struct Pipeline {
    store: Store,
    retention: store::Retention,
    sources: Sources,
    /// Present if alerts and Kafka offsets are committed in one transaction.
    transactions: Option<Box<dyn Transact>>,
    exchange: ExchangeState,
    inbox: Receiver<Message>,
    /// `seq` of the latest alert, for the sinks.
    latest_seq: watch::Sender<i64>,
    handles: Handles,
    maintenance: Maintenance,
    /// Whether a second thread may help while a source is behind.
    has_second_core: bool,
}

/// The reason why the session of one rule set ended.
enum SessionEnd {
    Stop,
    /// The last batch was discarded: start again from the stored state.
    Restart,
    ReloadRules(Box<Rules>),
}

/// What to do after a batch.
enum Flow {
    Continue,
    Stop,
    /// The batch is not stored and will not be stored: discard the state learned from it.
    Restart,
}

impl From<bool> for Flow {
    /// Converts whether the batch was stored; if not, a stop was requested.
    fn from(is_stored: bool) -> Self {
        if is_stored { Flow::Continue } else { Flow::Stop }
    }
}

impl Pipeline {
    pub(crate) fn new(
        store: Store,
        retention: store::Retention,
        sources: Sources,
        inbox: Receiver<Message>,
        latest_seq: watch::Sender<i64>,
        handles: Handles,
    ) -> Self {
        Pipeline {
            store,
            retention,
            sources,
            transactions: None,
            exchange: ExchangeState::default(),
            inbox,
            latest_seq,
            handles,
            maintenance: Maintenance::default(),
            has_second_core: catch_up::has_second_core(),
        }
    }

    /// Commits alerts and offsets of the Kafka source in transactions, and exchanges matches with other replicas, if these are
    /// present.
    pub(crate) fn set_kafka(
        &mut self,
        transactions: Option<Box<dyn Transact>>,
        exchange: Option<Box<dyn MatchExchange>>,
    ) {
        self.transactions = transactions;
        self.exchange.topic = exchange;
    }

    /// Runs until a stop is requested.
    ///
    /// # Errors
    /// When the store fails for good.
    pub(crate) fn run(mut self, mut rules: Rules) -> Result<(), store::Error> {
        if !self.recover_prepared()? {
            return Ok(());
        }
        let mut is_reload = false;
        loop {
            let detector = Detector::new(&rules.set, rules.options.clone());
            self.handles.metrics.set_rules(RuleNames {
                rules: rule_names(&rules.set),
                version: rules.set.version.to_string(),
            });
            let mut session = detector.session();
            session.track();
            // Also after a reload of rules: all learned state is stored.
            for kind in kind::ALL {
                for (key, value) in self.store.state(kind)? {
                    session.restore(kind, &key, &value);
                }
            }
            self.maintenance.begin_session(&rules.set, &self.store.state(kind::RECURRING_READ)?);
            if std::mem::take(&mut is_reload) {
                // Here and not where the rules were read: all further events are evaluated with them.
                let inventory = rules.options.inventory.len();
                tracing::info!(rules = rules.set.rules.len(), inventory, version = %rules.set.version, "rules reloaded");
                self.handles.metrics.rules_reloaded(true);
            }
            match self.run_session(&mut session)? {
                SessionEnd::Stop => return Ok(()),
                SessionEnd::Restart => {}
                SessionEnd::ReloadRules(new) => {
                    rules = *new;
                    is_reload = true;
                }
            }
        }
    }

    fn run_session(&mut self, session: &mut Session<'_>) -> Result<SessionEnd, store::Error> {
        let mut buffer = Vec::new();
        let mut next_retention = Instant::now();
        self.maintenance.next_gauges = Some(next_retention);
        self.exchange.reset_assignment();
        loop {
            self.handles.status.heartbeat();
            let mut is_idle = true;
            for source in 0..self.sources.files.len() {
                is_idle &= !self.read_files(source, session, &mut buffer)?;
            }
            let has_many_digests = self.maintenance.unchecked_digests >= MAX_UNCHECKED_DIGESTS;
            if has_many_digests || Instant::now() >= next_retention {
                match self.close_windows(session)? {
                    Flow::Continue => {}
                    Flow::Restart => return Ok(SessionEnd::Restart),
                    Flow::Stop => return Ok(SessionEnd::Stop),
                }
                let has_more = self.apply_retention()?;
                next_retention = Instant::now() + if has_more { Duration::ZERO } else { RETENTION_INTERVAL };
            }
            self.check_store()?;
            self.check_yields();
            if self.maintenance.next_gauges.is_some_and(|at| Instant::now() >= at) {
                self.maintenance.next_gauges = None;
                self.refresh_gauges(session)?;
            }
            let timeout = if is_idle { self.idle_timeout(next_retention) } else { Duration::ZERO };
            let message = match self.inbox.recv_timeout(timeout) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(SessionEnd::Stop),
            };
            let flow = match message {
                Message::Stop => return Ok(SessionEnd::Stop),
                Message::ReloadRules(rules) => return Ok(SessionEnd::ReloadRules(rules)),
                message => self.process_message(message, session)?,
            };
            match flow {
                Flow::Continue => {}
                Flow::Restart => return Ok(SessionEnd::Restart),
                Flow::Stop => return Ok(SessionEnd::Stop),
            }
        }
    }

    fn process_message(&mut self, message: Message, session: &mut Session<'_>) -> Result<Flow, store::Error> {
        // In all these cases, the receiver of the reply may have ended.
        match message {
            Message::Wake => {
                self.handles.wake_pending.store(false, Ordering::Release);
                self.sources.poll_now();
                Ok(Flow::Continue)
            }
            Message::WebhookBatch(source, batch, ready_for_next) => {
                let _ = ready_for_next.send(());
                self.process_webhook_batch(source, batch, session)
            }
            Message::KafkaBatch(source, batch) => self.process_kafka_batch(source, batch, session),
            Message::Records(source, records, ready_for_next) => {
                let mut output = BatchOutput::default();
                self.evaluate(source, session, &records, ReadStep::Records, &mut output);
                if !self.commit(None, &[], &output)? {
                    tracing::error!(
                        source = self.sources.name(source),
                        bytes = records.len(),
                        "stopped before this input was stored; it cannot be read again and is lost"
                    );
                    return Ok(Flow::Stop);
                }
                let _ = ready_for_next.send(());
                Ok(Flow::Continue)
            }
            Message::ReloadRules(_) | Message::Stop => Ok(Flow::Continue),
        }
    }

    /// Time until the next periodic work is due if no message arrives.
    fn idle_timeout(&self, next_retention: Instant) -> Duration {
        let polls = self.sources.files.iter().map(|source| source.next_poll);
        let others = [self.maintenance.next_gauges, self.maintenance.next_store_check];
        let checks = self.sources.yields.iter().filter_map(EventYield::next_check);
        let next = polls.chain([next_retention]).chain(others.into_iter().flatten()).chain(checks).min();
        next.map_or(RETENTION_INTERVAL, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Reads, evaluates and stores a batch of a file source. Returns false if there was nothing to read.
    fn read_files(
        &mut self,
        index: usize,
        session: &mut Session<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, store::Error> {
        let source = &mut self.sources.files[index];
        // After a stop was requested, a batch may not have been stored, and then nothing after it may be stored.
        if Instant::now() < source.next_poll || self.handles.should_stop() {
            return Ok(false);
        }
        source.files.rescan();
        let unreadable = source.files.unreadable();
        let is_open = source.files.is_open();
        self.handles.status.set_log_found(&source.name, is_open || unreadable.is_some());
        self.handles.metrics.set_source_up(&source.name, is_open && unreadable.is_none());
        let missing = source.files.missing_directory();
        let problem = missing
            .map(|directory| format!("log directory {} does not exist", directory.display()))
            .or_else(|| unreadable.map(|(path, error)| status::unreadable(path, error)));
        self.handles.status.set_source_problem(&source.name, problem);
        if source.is_behind && self.has_second_core && !session.detector().needs_positions() {
            return self.catch_up(index, session);
        }
        let mut output = BatchOutput::default();
        let mut bytes = 0;
        let mut is_drained = false;
        while bytes < MAX_BATCH_BYTES && !output.is_full() {
            buffer.clear();
            let step = self.sources.files[index].files.next(buffer);
            if step == ReadStep::Idle {
                is_drained = true;
                break;
            }
            bytes += buffer.len();
            self.evaluate(index, session, buffer, step, &mut output);
        }
        if bytes > 0 {
            let source = &self.sources.files[index];
            let (name, position) = (source.name.clone(), source.files.position());
            if !self.commit(Some((&name, &position)), &[], &output)? {
                return Ok(false);
            }
        }
        // A source without lag is one whose events are stored.
        let lag = self.report_progress(index, 0, buffer);
        let source = &mut self.sources.files[index];
        source.is_behind = !is_drained && (bytes >= MAX_BATCH_BYTES || lag > MAX_BATCH_BYTES as u64);
        if is_drained {
            source.next_poll = Instant::now() + source.poll_interval;
        }
        self.sources.watch();
        Ok(bytes > 0)
    }

    /// Evaluates records and adds the results to `output`.
    fn evaluate(
        &mut self,
        source: usize,
        session: &mut Session<'_>,
        bytes: &[u8],
        step: ReadStep,
        output: &mut BatchOutput,
    ) {
        let started = Instant::now();
        self.load_trusted_readers(session);
        session.set_now(unix_nanos());
        session.set_log(&self.sources.log(source));
        let recurring_reads = &mut self.maintenance.recurring_reads;
        let mut on_alert = |alert: &Alert<'_>| {
            output.push_alert(alert);
            recurring_reads.note(alert);
        };
        match step {
            ReadStep::Head => session.head(bytes, &mut on_alert),
            ReadStep::Records | ReadStep::Idle => session.chunk(bytes, &mut on_alert),
        }
        self.finish_evaluation(source, bytes.len(), session, started, output);
    }

    /// Evaluates the events selected by screening, and adds the results to `output`.
    fn evaluate_screened(
        &mut self,
        source: usize,
        session: &mut Session<'_>,
        ready: &catch_up::Ready,
        output: &mut BatchOutput,
    ) {
        let now = Instant::now();
        let started = now.checked_sub(ready.took).unwrap_or(now);
        self.load_trusted_readers(session);
        session.set_now(unix_nanos());
        session.set_log(&self.sources.log(source));
        let recurring_reads = &mut self.maintenance.recurring_reads;
        session.screened(&ready.screened, &ready.bytes, &mut |alert: &Alert<'_>| {
            output.push_alert(alert);
            recurring_reads.note(alert);
        });
        self.finish_evaluation(source, ready.bytes.len(), session, started, output);
    }

    /// Evaluates one unwrapped event, and adds the results to `output`.
    fn evaluate_event(
        &mut self,
        source: usize,
        session: &mut Session<'_>,
        event: Records<'_>,
        output: &mut BatchOutput,
    ) {
        let started = Instant::now();
        session.set_now(unix_nanos());
        let recurring_reads = &mut self.maintenance.recurring_reads;
        session.records(event, &mut |alert: &Alert<'_>| {
            output.push_alert(alert);
            recurring_reads.note(alert);
        });
        self.finish_evaluation(source, event.bytes.len(), session, started, output);
    }

    /// Updates the metrics of a source, and takes the learned state from the session.
    fn finish_evaluation(
        &mut self,
        source: usize,
        bytes: usize,
        session: &mut Session<'_>,
        started: Instant,
        output: &mut BatchOutput,
    ) {
        let name = self.sources.name(source);
        let counts = session.take_stats();
        self.handles.metrics.add_bytes(&name, bytes as u64);
        self.handles.metrics.add_counts(&name, &counts);
        if let Some(event_yield) = self.sources.yields.get_mut(source) {
            let verdict = event_yield.add(&counts, Instant::now());
            self.report_yield(source, verdict);
        }
        self.handles.metrics.observe_evaluation(started.elapsed());
        output.take_from(session);
        output.push_changes(self.maintenance.recurring_reads.take_changes());
    }

    /// Logs that the records of a source are not audit events, or are audit events again, and updates metrics and health checks.
    fn report_yield(&self, source: usize, verdict: Verdict) {
        let name = self.sources.name(source);
        let (description, is_logged) = match verdict {
            Verdict::Unchanged => return,
            Verdict::Degraded(description, is_logged) => (Some(description), is_logged),
            Verdict::Recovered => (None, true),
        };
        match &description {
            Some(description) if is_logged => tracing::warn!(source = name, "{description}"),
            None => tracing::info!(source = name, "the records are audit events again"),
            Some(_) => {}
        }
        self.handles.metrics.set_degraded(&name, description.is_some());
        self.handles.status.set_degraded(&name, description);
    }

    /// Checks whether sources yield audit events even if no more records arrive.
    fn check_yields(&mut self) {
        let now = Instant::now();
        for source in 0..self.sources.yields.len() {
            if self.sources.yields[source].next_check().is_some_and(|at| now >= at) {
                let verdict = self.sources.yields[source].check(now);
                self.report_yield(source, verdict);
            }
        }
    }

    /// Closes windows whose time is over even if no event arrives.
    fn close_windows(&mut self, session: &mut Session<'_>) -> Result<Flow, store::Error> {
        let anchor = match &self.transactions {
            // Without an assigned partition, there is no offset for a transaction, so the windows are closed later.
            Some(transactions) => match transactions.anchor() {
                Some(anchor) => Some(anchor),
                None => return Ok(Flow::Continue),
            },
            None => None,
        };
        if !self.sync_assignment(session) || !self.send_ready_markers() {
            return Ok(Flow::Stop);
        }
        let mut output = BatchOutput::default();
        session.set_now(unix_nanos());
        session.advance(unix_nanos(), &mut |alert: &Alert<'_>| output.push_alert(alert));
        output.take_from(session);
        if output.is_empty() {
            return Ok(Flow::Continue);
        }
        match anchor {
            Some(anchor) if !output.alerts.is_empty() || !output.outbox.is_empty() => {
                self.commit_exactly_once(output, vec![anchor], None)
            }
            _ => Ok(self.commit(None, &[], &output)?.into()),
        }
    }

    fn should_stop(&self) -> bool {
        self.handles.should_stop()
    }
}

/// Age of the last event in a buffer; zero if it has no timestamp.
fn last_event_age(buffer: &[u8]) -> Duration {
    let records = buffer.trim_ascii_end();
    let last = memchr::memrchr(b'\n', records).map_or(records, |at| &records[at + 1..]);
    let now = unix_nanos();
    let time = Event::new(last).time().unwrap_or(now);
    Duration::from_nanos(u64::try_from(now.saturating_sub(time)).unwrap_or(0))
}

/// Names and priorities of all rules, then of all correlations.
fn rule_names(rules: &RuleSet) -> Vec<(String, Priority)> {
    let correlations = rules.correlations.iter().map(|one| (one.name.to_string(), one.priority));
    rules.rules.iter().map(|rule| (rule.name.to_string(), rule.priority)).chain(correlations).collect()
}
