//! The loop of a sink: read after the cursor, deliver, save the cursor, wait.

mod log;
mod shutdown;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::config::{SettingsError, SinkConfig};
use super::dead_letter::{self, Dead, Loss};
use super::destination::{self, Carrier, Failure, Reason, Remedy};
use super::feed::{Away, Feed, FeedError, Gone};
use super::metrics::{Counts, SinkMetrics};
use super::now;
use crate::detection::alert::Priority;
use crate::detection::alert::StoredAlert;
use crate::text::name_patterns::NamePatterns;
use log::Log;
use shutdown::Stop;

/// So many alerts are read at once.
const PAGE: usize = 256;

/// A sink whose settings are sound.
#[derive(Debug)]
pub struct Sink {
    config: SinkConfig,
    filter: Filter,
    carrier: Carrier,
    counts: Counts,
    reopen: Reopen,
}

/// Makes a sink open its file anew: for `SIGHUP`.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<(AtomicBool, Notify)>);

impl Reopen {
    /// Lets go of the file as soon as no write runs. The next alert goes to what is at the path then.
    pub fn reopen(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_one();
    }

    fn take(&self) -> bool {
        self.0.0.swap(false, Ordering::Acquire)
    }
}

/// Why a sink ended, other than being told to.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Its settings cannot work.
    #[error("sink {sink}: {error}")]
    Settings {
        /// Its name.
        sink: String,
        /// Why not.
        #[source]
        error: SettingsError,
    },
    /// Nobody will ever take an alert again.
    #[error("sink {sink}: {detail}")]
    Ended {
        /// Its name.
        sink: String,
        /// Why not.
        detail: String,
    },
    /// What it reads from is gone.
    #[error("sink {sink}: {error}")]
    Store {
        /// Its name.
        sink: String,
        /// How.
        #[source]
        error: Gone,
    },
}

/// Makes a sink and runs it: see [`Sink::new`] and [`Sink::run`].
///
/// # Errors
/// When the settings cannot work, or the sink ended without being told to.
pub async fn run<F: Feed>(
    config: SinkConfig,
    feed: F,
    wake: watch::Receiver<i64>,
    shutdown: watch::Receiver<bool>,
    metrics: Arc<SinkMetrics>,
) -> Result<(), SinkError> {
    let name = config.name.clone();
    match Sink::new(config, &metrics) {
        Ok(sink) => sink.run(feed, wake, shutdown).await,
        Err(error) => Err(SinkError::Settings { sink: name, error }),
    }
}

impl Sink {
    /// Checks the settings and reads the files of certificates. Opens nothing and connects to nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn new(config: SinkConfig, metrics: &SinkMetrics) -> Result<Self, SettingsError> {
        if config.timeout.is_zero() {
            return Err(SettingsError::Zero("the timeout"));
        }
        let filter = Filter::new(&config)?;
        let counts = metrics.of(&config.name);
        let carrier = Carrier::new(&config, &counts)?;
        Ok(Sink { config, filter, carrier, counts, reopen: Reopen::default() })
    }

    /// What makes it open its file anew.
    pub fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Delivers what the feed has and will have.
    ///
    /// `wake` holds the newest `seq`, and changes when alerts are stored; when its sender is gone, no more will come. Told to
    /// stop (or when that sender is gone), a sink goes on with what is stored until all is delivered, a delivery fails, or the
    /// grace is over, and the cursor says how far it got. A write to a file or to standard output that hangs even then goes on in
    /// its thread: end the runtime with `shutdown_timeout`.
    ///
    /// # Errors
    /// When it ended without being told to.
    pub async fn run<F: Feed>(
        self,
        feed: F,
        wake: watch::Receiver<i64>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), SinkError> {
        let sink = self.config.name.clone();
        let most = destination::most(&self.config.kind);
        let mut work = Work {
            stop: Stop::new(shutdown, self.config.grace),
            backoff: Backoff::new(&self.config.retry),
            log: Log::new(&sink),
            feed: Away::new(feed),
            wake,
            cursor: 0,
            most,
            chunk: most,
            sink: self,
        };
        match work.run().await {
            Ok(()) | Err(End::Stopped) => Ok(()),
            Err(End::Nobody(detail)) => Err(SinkError::Ended { sink, detail }),
            Err(End::Gone(error)) => Err(SinkError::Store { sink, error }),
        }
    }
}

/// Which alerts are for a sink.
#[derive(Debug)]
pub(super) struct Filter {
    min_priority: Priority,
    /// No list of rules to include is no restriction.
    all_rules: bool,
    include: NamePatterns,
    exclude: NamePatterns,
}

impl Filter {
    pub fn new(config: &SinkConfig) -> Result<Self, SettingsError> {
        Ok(Filter {
            min_priority: config.min_priority,
            all_rules: config.include.is_empty(),
            include: patterns(&config.include)?,
            exclude: patterns(&config.exclude)?,
        })
    }

    pub fn wants(&self, alert: &StoredAlert) -> bool {
        // The worst is the least.
        alert.priority <= self.min_priority
            && (self.all_rules || self.include.matches(&alert.rule))
            && !self.exclude.matches(&alert.rule)
    }
}

fn patterns(patterns: &[String]) -> Result<NamePatterns, SettingsError> {
    let names = NamePatterns::new(patterns.iter().map(String::as_str));
    names.map_err(|error| SettingsError::Pattern { pattern: error.pattern, reason: error.reason })
}

/// Why the loop ends.
enum End {
    /// It was told to.
    Stopped,
    /// Nobody listens.
    Nobody(String),
    /// The feed is gone.
    Gone(Gone),
}

/// A sink at work.
struct Work<F> {
    sink: Sink,
    feed: Away<F>,
    wake: watch::Receiver<i64>,
    stop: Stop,
    backoff: Backoff,
    log: Log,
    /// All up to this one are done with.
    cursor: i64,
    /// At most so many alerts in one delivery.
    most: usize,
    /// At the moment: fewer, while one that a receiver refuses is looked for.
    chunk: usize,
}

impl<F: Feed> Work<F> {
    async fn run(&mut self) -> Result<(), End> {
        self.cursor = self.ask(F::load).await?;
        loop {
            let newest = *self.wake.borrow_and_update();
            self.say_backlog(newest);
            let cursor = self.cursor;
            let page = self.ask(move |feed| feed.after(cursor, PAGE)).await?;
            if let Some(last) = page.last() {
                let newest = newest.max(last.seq);
                self.page(page, newest).await?;
            } else if self.stop.is_wanted() {
                return Ok(());
            } else {
                tokio::select! {
                    changed = self.wake.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                    }
                    () = self.stop.wanted() => {}
                    () = self.sink.reopen.0.1.notified() => self.reopen(),
                }
            }
        }
    }

    /// Delivers alerts that were read, and passes over those that are for others.
    async fn page(&mut self, page: Vec<StoredAlert>, newest: i64) -> Result<(), End> {
        let Some(last) = page.last().map(|alert| alert.seq) else { return Ok(()) };
        let read = page.len();
        let wanted: Vec<_> = page.into_iter().filter(|alert| self.sink.filter.wants(alert)).collect();
        self.sink.counts.passed_over.inc_by((read - wanted.len()) as u64);
        let mut rest = wanted.as_slice();
        while let Some(first) = rest.first() {
            self.say_backlog(newest);
            let done = match self.hopeless(first) {
                Some((dead, detail)) => {
                    self.bury(first, dead, detail).await?;
                    1
                }
                None => {
                    let hopeful = rest
                        .iter()
                        .take(self.chunk.max(1))
                        .take_while(|alert| self.hopeless(alert).is_none());
                    let count = hopeful.count();
                    self.deliver(&rest[..count]).await?
                }
            };
            rest = &rest[done..];
            if done > 0 {
                // Up to the next that is wanted: what lies between is passed over.
                self.save(rest.first().map_or(last, |next| next.seq - 1)).await?;
            }
        }
        self.save(last).await
    }

    /// Why an alert is not worth a try.
    fn hopeless(&self, alert: &StoredAlert) -> Option<(Dead, &'static str)> {
        if !is_line_of_json(&alert.json) {
            return Some((Dead::Unencodable, "not one line of JSON"));
        }
        let most = i64::try_from(self.sink.config.retry.max_age?.as_nanos()).unwrap_or(i64::MAX);
        let age = now::nanoseconds().saturating_sub(alert.stored);
        (age > most).then_some((Dead::TooOld, "waited longer than max_age"))
    }

    /// Makes one attempt, and waits where it failed; says how many alerts are done with.
    async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, End> {
        if self.sink.reopen.take() {
            self.sink.carrier.reopen();
        }
        if self.stop.is_over() {
            return Err(End::Stopped);
        }
        let start = Instant::now();
        let result = self.attempt(alerts).await?;
        self.sink.counts.attempt(start.elapsed());
        let (mut done, failure) = match result {
            Ok(done) => (done.clamp(1, alerts.len()), None),
            Err(failure) => (failure.done.min(alerts.len() - 1), Some(failure)),
        };
        if done > 0 {
            self.sink.counts.success(done, now::nanoseconds());
            self.backoff.reset();
        }
        let Some(failure) = failure else {
            self.log.works();
            self.chunk = self.chunk.saturating_mul(2).min(self.most);
            return Ok(done);
        };
        self.sink.counts.failure(failure.reason);
        match failure.remedy {
            Remedy::Retry(after) => {
                if done > 0 {
                    // What was delivered is saved before the wait, not after.
                    self.save(alerts[done - 1].seq).await?;
                }
                self.pause(&failure, after).await?;
                self.sink.counts.retries.inc();
            }
            Remedy::GiveUp(0 | 1) => {
                self.bury(&alerts[done], Dead::Rejected, &failure.detail).await?;
                done += 1;
            }
            // One of them may be the reason for all: ever fewer are sent until it stands alone.
            Remedy::GiveUp(count) => self.chunk = count / 2,
            Remedy::End => return Err(End::Nobody(failure.detail)),
        }
        Ok(done)
    }

    async fn attempt(&mut self, alerts: &[StoredAlert]) -> Result<Result<usize, Failure>, End> {
        let carrier = &mut self.sink.carrier;
        let timeout = carrier.has_timeout().then_some(self.sink.config.timeout);
        let delivery = async {
            let delivery = carrier.deliver(alerts);
            match timeout {
                None => delivery.await,
                Some(timeout) => tokio::time::timeout(timeout, delivery).await.unwrap_or_else(|_| {
                    Err(Failure::passing(Reason::Timeout, format!("not done after {timeout:?}")))
                }),
            }
        };
        tokio::select! {
            biased;
            result = delivery => Ok(result),
            () = self.stop.over() => Err(End::Stopped),
        }
    }

    /// Waits until it is time to try again. Who was told to stop does not try again.
    async fn pause(&mut self, failure: &Failure, after: Option<std::time::Duration>) -> Result<(), End> {
        let wait = self.backoff.next(after);
        self.log.fails(failure, self.backoff.failures(), wait);
        let sleep = tokio::time::sleep(wait);
        tokio::pin!(sleep);
        let mut is_open = true;
        loop {
            // The backlog grows meanwhile, and is to be seen.
            let newest = *self.wake.borrow_and_update();
            self.say_backlog(newest);
            tokio::select! {
                biased;
                () = self.stop.wanted() => return Err(End::Stopped),
                () = &mut sleep => return Ok(()),
                changed = self.wake.changed(), if is_open => is_open = changed.is_ok(),
            }
        }
    }

    /// Puts an alert where those go that are not delivered.
    async fn bury(&mut self, alert: &StoredAlert, dead: Dead, detail: &str) -> Result<(), End> {
        self.log.gives_up(dead, detail);
        let Some(settings) = &self.sink.config.dead_letter else {
            self.sink.counts.dead_letter(dead);
            self.sink.counts.loss(Loss::NoFile);
            return Ok(());
        };
        let settings = settings.clone();
        let mut line = Vec::new();
        dead_letter::write_line(alert, &self.sink.config.name, dead, detail, now::nanoseconds(), &mut line);
        loop {
            let (settings, line) = (settings.clone(), line.clone());
            let append = tokio::task::spawn_blocking(move || dead_letter::append(&settings, &line));
            let error = match append.await {
                Ok(Ok(has_room)) => {
                    if !has_room {
                        self.sink.counts.loss(Loss::Full);
                    }
                    self.sink.counts.dead_letter(dead);
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the write was abandoned".to_owned(),
            };
            self.sink.counts.failure(Reason::DeadLetter);
            let failure = Failure::passing(Reason::DeadLetter, error);
            self.pause(&failure, None).await?;
        }
    }

    /// Saves that all up to this one are done with, if that is news.
    async fn save(&mut self, seq: i64) -> Result<(), End> {
        if seq <= self.cursor {
            return Ok(());
        }
        self.ask(move |feed| feed.save(seq)).await?;
        self.cursor = seq;
        Ok(())
    }

    /// Asks the feed until it answers.
    async fn ask<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut F) -> Result<T, FeedError> + Clone + Send + 'static,
    ) -> Result<T, End> {
        let mut failed = false;
        loop {
            match self.feed.call(call.clone()).await.map_err(End::Gone)? {
                Ok(answer) => {
                    if failed {
                        self.backoff.reset();
                    }
                    return Ok(answer);
                }
                Err(error) => {
                    failed = true;
                    self.sink.counts.failure(Reason::Store);
                    self.pause(&Failure::passing(Reason::Store, error), None).await?;
                }
            }
        }
    }

    fn reopen(&mut self) {
        if self.sink.reopen.take() {
            self.sink.carrier.reopen();
        }
    }

    fn say_backlog(&self, newest: i64) {
        self.sink.counts.backlog.set((newest - self.cursor).max(0));
    }
}

/// Whether bytes are one JSON object without a line break, so that they can stand in any place for one.
fn is_line_of_json(json: &[u8]) -> bool {
    json.first() == Some(&b'{')
        && memchr::memchr2(b'\n', b'\r', json).is_none()
        && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}
