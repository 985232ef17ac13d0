//! From the sources to the store: the loop that `pullwatch run` drives.
//!
//! One thread does it all, one batch after the other: it takes what a source has, judges it, and puts the alerts, what was
//! learned and the source's new position into the store in one transaction. Only then the sinks are woken and a webhook is
//! answered. While the store is full nothing is taken from a source; what waits there waits on.

mod kafka;
mod maintenance;
mod repartition;
mod status;
mod two_phase;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use maintenance::Mind;
use maintenance::secret_name;
pub use repartition::Shared;
pub use status::Status;
use status::complain;

use crate::daemon::kafka::Transact;
use crate::daemon::metrics::{Metrics, RuleNames, WebhookMetrics};
use crate::daemon::source::files::Files;
use crate::daemon::source::follow::Step;
use crate::daemon::source::webhook::WebhookBatch;
use crate::daemon::store::{self, Batch, Store};
use crate::detection::alert::NewAlert;
use crate::detection::audit::event::Event;
use crate::detection::detector::repartition::Outgoing;
use crate::detection::detector::{Detector, Options, Session};
use crate::detection::engine::alert::Alert;
use crate::detection::rules::ast::RuleSet;
use crate::detection::state::{StateChange, kind};

/// So much is judged before the store hears of it: enough that a transaction costs little beside it, and little enough that
/// alerts come at once.
const BATCH: usize = 4 << 20;

/// How long the pipeline waits before it tries again to write to a store that takes nothing.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How often old alerts are looked for.
const RETAIN: Duration = Duration::from_secs(60);

/// How often gauges are set that take a look at everything, where anything changed.
const GAUGE: Duration = Duration::from_secs(5);

/// What the pipeline is told.
#[derive(Debug)]
pub enum Message {
    /// A file may have changed.
    Wake,
    /// A webhook got a batch; which, by its place among the sources. The answer says that the next may come: what waits meanwhile
    /// waits in the webhook's own queue, which has a bound.
    WebhookBatch(usize, WebhookBatch, SyncSender<()>),
    /// Messages out of Kafka. A source sends the next when it knows what became of these.
    Messages(usize, crate::daemon::source::kafka::Batch),
    /// Standard input gave whole records; the answer says when there is room for more.
    Records(usize, Vec<u8>, SyncSender<()>),
    /// Other rules hold from now on.
    Rules(Box<Rules>),
    /// It is over.
    Stop,
}

/// Rules to judge by.
#[derive(Debug)]
pub struct Rules {
    /// The rules.
    pub set: RuleSet,
    /// How to judge by them.
    pub options: Options,
}

/// A source of files, by name.
#[derive(Debug)]
pub struct FileSource {
    /// Its name.
    pub name: String,
    /// Its logs.
    pub files: Files,
    /// How often to look where nobody tells of changes.
    pub poll: Duration,
    /// When to look next.
    pub look_at: Instant,
}

/// Everything that the pipeline works with.
#[derive(Debug)]
pub struct Pipeline {
    /// Where alerts, positions and state go.
    pub store: Store,
    /// How long alerts are kept.
    pub retention: store::Retention,
    /// The file sources.
    pub files: Vec<FileSource>,
    /// The names of all sources; those of files come first.
    pub names: Vec<String>,
    /// Puts alerts and offsets of Kafka into one transaction, where that is asked for.
    pub transactions: Option<Box<dyn Transact>>,
    /// What is exchanged with other replicas, where something is.
    pub shared: Shared,
    /// What webhooks count, by source.
    pub webhooks: Vec<Option<WebhookMetrics>>,
    /// It is to stop as soon as it can.
    pub should_stop: Arc<AtomicBool>,
    /// What it is told.
    pub inbox: Receiver<Message>,
    /// A [`Message::Wake`] is on its way.
    pub is_woken: Arc<AtomicBool>,
    /// The newest alert's place in the store, for the sinks.
    pub news: watch::Sender<i64>,
    /// Stats.
    pub metrics: Arc<Metrics>,
    /// How it is.
    pub status: Arc<Status>,
    /// What it keeps in mind beside the session.
    pub mind: Mind,
}

/// Why a run of one rule set ended.
enum End {
    Stop,
    /// What was judged last counts for nothing: go on from what is stored.
    Restart,
    Rules(Box<Rules>),
}

/// What to do after a batch.
enum Next {
    Go,
    Stop,
    /// It is not stored and will not be: forget what was learned from it.
    Restart,
}

impl From<bool> for Next {
    /// From whether a batch is stored: where it is not, it is to stop.
    fn from(is_stored: bool) -> Self {
        if is_stored { Next::Go } else { Next::Stop }
    }
}

/// What came of judging, before it is stored.
#[derive(Default)]
struct Judged {
    alerts: Vec<NewAlert>,
    rules: Vec<(usize, i64)>,
    changes: Vec<StateChange>,
    /// For other replicas.
    outbox: Vec<Outgoing>,
}

impl Judged {
    fn take(&mut self, alert: &Alert<'_>) {
        let mut json = Vec::with_capacity(1024);
        alert.write_json(&mut json);
        self.rules.push((alert.rule(), alert.time()));
        self.alerts.push(NewAlert {
            id: alert.id_bytes(),
            time: alert.time(),
            rule: alert.rule_name().to_owned(),
            priority: alert.priority(),
            actor: alert.actor().to_owned(),
            target: alert.target().to_owned(),
            json,
            message: alert.message().into_owned(),
        });
    }

    /// Takes what was learned, and what others are to judge.
    fn take_rest(&mut self, session: &mut Session<'_>) {
        self.changes.extend(session.take_changes());
        if let Some(exchange) = session.repartition() {
            self.outbox.extend(exchange.take_outbox());
        }
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

impl Pipeline {
    /// Works until it is told to stop.
    ///
    /// # Errors
    /// When the store fails for good.
    pub fn run(mut self, mut rules: Rules) -> Result<(), store::Error> {
        if !self.recover()? {
            return Ok(());
        }
        loop {
            let detector = Detector::new(&rules.set, rules.options.clone());
            self.metrics
                .set_rules(RuleNames { rules: names(&rules.set), version: rules.set.version.to_string() });
            let mut session = detector.session();
            session.track();
            // After a change of rules too: what was learned is stored, all of it.
            for kind in kind::ALL {
                for (key, value) in self.store.state(kind)? {
                    session.restore(kind, &key, &value);
                }
            }
            self.mind.begin(&rules.set, &self.store.state(kind::RECURRING_READ)?);
            match self.serve(&mut session)? {
                End::Stop => return Ok(()),
                End::Restart => {}
                End::Rules(new) => rules = *new,
            }
        }
    }

    fn serve(&mut self, session: &mut Session<'_>) -> Result<End, store::Error> {
        let mut buffer = Vec::new();
        let mut retain_at = Instant::now();
        self.mind.gauge_at = Some(retain_at);
        self.shared.starts_anew();
        loop {
            self.status.went_round.store(now(), Ordering::Relaxed);
            let mut is_idle = true;
            for at in 0..self.files.len() {
                is_idle &= !self.read_files(at, session, &mut buffer)?;
            }
            if Instant::now() >= retain_at {
                match self.close_windows(session)? {
                    Next::Go => {}
                    Next::Restart => return Ok(End::Restart),
                    Next::Stop => return Ok(End::Stop),
                }
                let more = self.retain()?;
                retain_at = Instant::now() + if more { Duration::ZERO } else { RETAIN };
            }
            if self.mind.gauge_at.is_some_and(|at| Instant::now() >= at) {
                self.mind.gauge_at = None;
                self.gauge(session)?;
            }
            let wait = if is_idle { self.patience(retain_at) } else { Duration::ZERO };
            match self.inbox.recv_timeout(wait) {
                Ok(Message::Wake) => {
                    self.is_woken.store(false, Ordering::Release);
                    let now = Instant::now();
                    self.files.iter_mut().for_each(|source| source.look_at = now);
                }
                Ok(Message::WebhookBatch(source, delivery, taken)) => {
                    // Whoever hands on may have ended.
                    let _ = taken.send(());
                    if !self.deliver(source, delivery, session)? {
                        return Ok(End::Stop);
                    }
                }
                Ok(Message::Messages(source, batch)) => match self.consume(source, batch, session)? {
                    Next::Go => {}
                    Next::Restart => return Ok(End::Restart),
                    Next::Stop => return Ok(End::Stop),
                },
                Ok(Message::Records(source, records, done)) => {
                    let mut judged = Judged::default();
                    self.judge(source, session, &records, Step::Records, &mut judged);
                    if !self.commit(None, &[], &judged)? {
                        tracing::error!(
                            source = self.name(source),
                            bytes = records.len(),
                            "stopped before this could be stored, and it cannot be read again: it is lost"
                        );
                        return Ok(End::Stop);
                    }
                    // Whoever reads may have ended.
                    let _ = done.send(());
                }
                Ok(Message::Rules(rules)) => return Ok(End::Rules(rules)),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Stop),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// How long there is nothing to do unless somebody says so.
    fn patience(&self, retain_at: Instant) -> Duration {
        let next =
            self.files.iter().map(|source| source.look_at).chain([retain_at]).chain(self.mind.gauge_at).min();
        next.map_or(RETAIN, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Reads one batch of a file source. False where there was nothing.
    fn read_files(
        &mut self,
        at: usize,
        session: &mut Session<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, store::Error> {
        let source = &mut self.files[at];
        if Instant::now() < source.look_at {
            return Ok(false);
        }
        source.files.rescan();
        self.status.has_log(&source.name, source.files.is_open());
        let mut judged = Judged::default();
        let mut bytes = 0;
        while bytes < BATCH {
            buffer.clear();
            let step = self.files[at].files.next(buffer);
            if step == Step::Idle {
                break;
            }
            bytes += buffer.len();
            self.judge(at, session, buffer, step, &mut judged);
        }
        let source = &mut self.files[at];
        for incident in source.files.take_incidents() {
            complain(&source.name, &incident);
            self.metrics.source_error(&source.name);
        }
        let lag = source.files.lag();
        let age = if lag == 0 { Duration::ZERO } else { age(buffer) };
        self.metrics.set_lag(&source.name, lag, age);
        if bytes < BATCH {
            source.look_at = Instant::now() + source.poll;
        }
        if bytes == 0 {
            return Ok(false);
        }
        let (name, position) = (source.name.clone(), source.files.position());
        self.commit(Some((&name, &position)), &[], &judged)
    }

    fn judge(
        &mut self,
        source: usize,
        session: &mut Session<'_>,
        bytes: &[u8],
        step: Step,
        judged: &mut Judged,
    ) {
        let started = Instant::now();
        session.set_now(now());
        let habits = &mut self.mind.habits;
        let mut on_alert = |alert: &Alert<'_>| {
            judged.take(alert);
            habits.note(alert);
        };
        match step {
            Step::Head => session.head(bytes, &mut on_alert),
            _ => session.chunk(bytes, &mut on_alert),
        }
        self.judged(&self.name(source), bytes.len(), session, started, judged);
    }

    /// Stats what was judged, and takes what was learned.
    fn judged(
        &mut self,
        source: &str,
        bytes: usize,
        session: &mut Session<'_>,
        started: Instant,
        judged: &mut Judged,
    ) {
        self.metrics.add_bytes(source, bytes as u64);
        self.metrics.add_counts(source, &session.take_stats());
        self.metrics.observe_evaluation(started.elapsed());
        judged.take_rest(session);
        judged.changes.extend(self.mind.habits.take_changes());
    }

    /// Judges windows that have closed by now, though nothing more comes.
    fn close_windows(&mut self, session: &mut Session<'_>) -> Result<Next, store::Error> {
        let anchor = match &self.transactions {
            // Without a partition of ours there is nothing to bind a transaction to: they close later.
            Some(transactions) => match transactions.anchor() {
                Some(anchor) => Some(anchor),
                None => return Ok(Next::Go),
            },
            None => None,
        };
        if !self.align(session) || !self.share_receipts() {
            return Ok(Next::Stop);
        }
        let mut judged = Judged::default();
        session.set_now(now());
        session.advance(now(), &mut |alert: &Alert<'_>| judged.take(alert));
        judged.take_rest(session);
        if judged.alerts.is_empty() && judged.changes.is_empty() && judged.outbox.is_empty() {
            return Ok(Next::Go);
        }
        match anchor {
            Some(anchor) if !judged.alerts.is_empty() || !judged.outbox.is_empty() => {
                self.exactly_once(judged, vec![anchor], None)
            }
            _ => Ok(self.commit(None, &[], &judged)?.into()),
        }
    }

    /// Stores what came of a batch, once others have what they are to judge of it. See [`Pipeline::store`].
    fn commit(
        &mut self,
        source: Option<(&str, &[u8])>,
        seen: &[[u8; 16]],
        judged: &Judged,
    ) -> Result<bool, store::Error> {
        let (receipts, matches): (Vec<_>, Vec<_>) =
            judged.outbox.iter().cloned().partition(|message| message.is_close_marker);
        if !self.share(&matches) || !self.store(source, seen, judged)? {
            return Ok(false);
        }
        if !receipts.is_empty() {
            let newest = *self.news.borrow();
            self.shared.keep(newest, receipts.into_iter());
        }
        Ok(true)
    }

    /// Stores what came of a batch, and waits for as long as the store takes nothing. False where it is to stop before that
    /// was possible: then nothing of the batch is stored, and its source has it still.
    fn store(
        &mut self,
        source: Option<(&str, &[u8])>,
        seen: &[[u8; 16]],
        judged: &Judged,
    ) -> Result<bool, store::Error> {
        loop {
            let started = Instant::now();
            let batch = Batch { source, alerts: &judged.alerts, changes: &judged.changes, seen, now: now() };
            match self.store.commit(&batch) {
                Ok(_) => {
                    self.metrics.observe_commit(started.elapsed());
                    if self.status.store_is_stuck.swap(false, Ordering::Relaxed) {
                        self.metrics.set_store_full(false);
                        tracing::info!("the store takes alerts again");
                    }
                    break;
                }
                Err(error) if error.is_transient() => {
                    if !self.status.store_is_stuck.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "the store takes nothing; what sources have waits there");
                    }
                    self.metrics.store_error();
                    self.metrics.set_store_full(matches!(error, store::Error::Full { .. }));
                }
                Err(error) => return Err(error),
            }
            self.status.went_round.store(now(), Ordering::Relaxed);
            if self.should_stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            std::thread::sleep(TRY_AGAIN);
        }
        for (rule, time) in &judged.rules {
            self.metrics.alert_stored(*rule, *time);
        }
        for change in judged.changes.iter().filter(|change| change.kind == kind::SECRET) {
            if let (None, Some((namespace, secret))) = (&change.value, secret_name(&change.key)) {
                self.metrics.credential_deleted(namespace, secret);
            }
        }
        if !judged.changes.is_empty() || !judged.alerts.is_empty() {
            self.mind.gauge_at.get_or_insert_with(|| Instant::now() + GAUGE);
        }
        if !judged.alerts.is_empty() {
            let newest = match self.store.newest() {
                // Where it cannot be asked now: sinks only have to hear that there is more.
                Err(error) if error.is_transient() => *self.news.borrow() + 1,
                newest => newest?,
            };
            self.news.send_replace(newest);
        }
        Ok(true)
    }

    fn name(&self, source: usize) -> String {
        self.names.get(source).cloned().unwrap_or_default()
    }
}

/// How old the last event of a buffer is; nothing where it does not say.
fn age(buffer: &[u8]) -> Duration {
    let records = buffer.trim_ascii_end();
    let last = memchr::memrchr(b'\n', records).map_or(records, |at| &records[at + 1..]);
    let time = Event::new(last).time().unwrap_or_else(now);
    Duration::from_nanos(u64::try_from(now().saturating_sub(time)).unwrap_or(0))
}

fn names(rules: &RuleSet) -> Vec<(String, crate::detection::alert::Priority)> {
    let correlations = rules.correlations.iter().map(|one| (one.name.to_string(), one.priority));
    rules.rules.iter().map(|rule| (rule.name.to_string(), rule.priority)).chain(correlations).collect()
}
