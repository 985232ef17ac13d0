//! The loop of a sink: read alerts after the cursor, deliver them, save the cursor, wait for more.
//!
//! Takes alerts from a [`Feed`], a channel with the latest `seq`, and a request to stop. Delivers the alerts, saves the cursor and counts.
//! The cursor is saved after a delivery and never before it.

mod log;
mod shutdown;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::config::{Kind, SinkConfig};
use super::dead_letter::{self, DeadLetterReason, DropReason};
use super::destination::{self, Destination};
use super::error::SettingsError;
use super::failure::{Failure, Reason, Remedy};
use super::feed::{BlockingFeed, Feed, FeedClosed, FeedError};
use super::filter::Filter;
use super::metrics::{Counts, SinkMetrics};
use super::resend::{self, Resender};
use crate::daemon::time::unix_nanos;
use crate::detection::alert::StoredAlert;
use log::DeliveryLog;
use shutdown::Shutdown;

/// Number of alerts that are read from the store at once.
const PAGE_LEN: usize = 256;

/// A sink whose settings were checked.
#[derive(Debug)]
pub struct Sink {
    config: SinkConfig,
    filter: Filter,
    destination: Destination,
    counts: Counts,
    reopen: Reopen,
    observer: Option<Arc<dyn DeliveryObserver>>,
    /// Whether the receiver fails or rejects everything.
    is_failing: Arc<AtomicBool>,
}

/// Is notified when a sink stops or resumes deliveries, for health checks. Must return immediately.
pub trait DeliveryObserver: Send + Sync + std::fmt::Debug {
    /// Deliveries fail. `waiting` is the number of undelivered alerts.
    fn failing(&self, sink: &str, waiting: i64, detail: &str);

    /// A delivery succeeded.
    fn recovered(&self, sink: &str);
}

/// Makes a sink open its file again: for `SIGHUP`.
#[derive(Clone, Debug, Default)]
pub struct Reopen(Arc<(AtomicBool, Notify)>);

impl Reopen {
    /// Closes the file after the current write. The next alert is written to the file that is at the path then.
    pub fn reopen(&self) {
        self.0.0.store(true, Ordering::Release);
        self.0.1.notify_one();
    }

    fn take(&self) -> bool {
        self.0.0.swap(false, Ordering::Acquire)
    }
}

/// The reason why a sink ended without a request to stop.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Its settings cannot work.
    #[error("sink {sink}: {error}")]
    Settings {
        /// The sink's name.
        sink: String,
        /// A description of the error.
        #[source]
        error: SettingsError,
    },
    /// Its receiver is permanently gone, such as a closed pipe.
    #[error("sink {sink}: {detail}")]
    Ended {
        /// The sink's name.
        sink: String,
        /// What happened.
        detail: String,
    },
    /// The feed it reads from is gone.
    #[error("sink {sink}: {error}")]
    Store {
        /// The sink's name.
        sink: String,
        /// What happened.
        #[source]
        error: FeedClosed,
    },
}

/// Checks the settings of a sink and runs it: see [`Sink::new`] and [`Sink::run`].
///
/// # Errors
/// When the settings cannot work, or the sink ended without a request to stop.
pub async fn run<F: Feed>(
    config: SinkConfig,
    feed: F,
    latest_seq: watch::Receiver<i64>,
    shutdown: watch::Receiver<bool>,
    metrics: Arc<SinkMetrics>,
) -> Result<(), SinkError> {
    let name = config.name.clone();
    match Sink::new(config, &metrics) {
        Ok(sink) => sink.run(feed, latest_seq, shutdown).await,
        Err(error) => Err(SinkError::Settings { sink: name, error }),
    }
}

impl Sink {
    /// Checks the settings and reads the certificate files. Opens no destination and connects to nothing.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn new(config: SinkConfig, metrics: &SinkMetrics) -> Result<Self, SettingsError> {
        if config.timeout.is_zero() {
            return Err(SettingsError::Zero("the timeout"));
        }
        let filter = Filter::new(&config)?;
        let counts = metrics.of(&config.name);
        let destination = Destination::new(&config, &counts)?;
        Ok(Sink {
            config,
            filter,
            destination,
            counts,
            reopen: Reopen::default(),
            observer: None,
            is_failing: Arc::default(),
        })
    }

    /// The resender for active alerts of this sink, if its receiver needs one and the settings enable it.
    ///
    /// # Errors
    ///
    /// When the settings cannot work.
    pub(crate) fn resender(&self, metrics: &SinkMetrics) -> Result<Option<Resender>, SettingsError> {
        let (Destination::Alertmanager(sink), Kind::Alertmanager(settings)) =
            (&self.destination, &self.config.kind)
        else {
            return Ok(None);
        };
        let Some(interval) = settings.resend_interval else { return Ok(None) };
        Ok(Some(Resender::new(resend::Settings {
            sink: self.config.name.clone(),
            alertmanagers: sink.again()?,
            deliveries: sink.deliveries().clone(),
            is_failing: self.is_failing.clone(),
            filter: Filter::new(&self.config)?,
            timeout: self.config.timeout,
            interval,
            counts: metrics.of_resends(&self.config.name),
        })))
    }

    /// Reports failing deliveries to an observer.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn DeliveryObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns a handle that makes the sink reopen its file.
    pub fn reopen(&self) -> Reopen {
        self.reopen.clone()
    }

    /// Delivers the alerts of the feed until it is stopped.
    ///
    /// `latest_seq` holds the `seq` of the latest alert and changes when alerts are stored. A dropped sender means that no more alerts will
    /// come. After a request to stop (or a dropped sender), the sink delivers stored alerts until none is left, a delivery fails, or the
    /// grace period expires; the cursor records its progress. A write to a file or to standard output that still hangs keeps its thread, so
    /// end the runtime with `shutdown_timeout`.
    ///
    /// # Errors
    /// When it ended without a request to stop.
    pub async fn run<F: Feed>(
        self,
        feed: F,
        latest_seq: watch::Receiver<i64>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), SinkError> {
        let sink = self.config.name.clone();
        let max_batch_len = destination::max_batch_len(&self.config.kind);
        let mut worker = Worker {
            shutdown: Shutdown::new(shutdown, self.config.grace),
            backoff: Backoff::new(&self.config.retry),
            log: DeliveryLog::new(&sink),
            feed: BlockingFeed::new(feed),
            latest_seq,
            cursor: 0,
            max_batch_len,
            batch_len: max_batch_len,
            refused_in_a_row: 0,
            sink: self,
        };
        match worker.run().await {
            Ok(()) | Err(WorkerEnd::Stopped) => Ok(()),
            Err(WorkerEnd::NoReceiver(detail)) => Err(SinkError::Ended { sink, detail }),
            Err(WorkerEnd::FeedClosed(error)) => Err(SinkError::Store { sink, error }),
        }
    }
}

/// The reason why the loop ends.
enum WorkerEnd {
    Stopped,
    NoReceiver(String),
    FeedClosed(FeedClosed),
}

/// A running sink.
struct Worker<F> {
    sink: Sink,
    feed: BlockingFeed<F>,
    latest_seq: watch::Receiver<i64>,
    shutdown: Shutdown,
    backoff: Backoff,
    log: DeliveryLog,
    /// All alerts up to this `seq` are delivered, filtered or dead letters.
    cursor: i64,
    max_batch_len: usize,
    /// Number of alerts rejected since the receiver last accepted one.
    refused_in_a_row: u32,
    /// Current limit of one delivery: below `max_batch_len` while a rejected alert is being isolated.
    batch_len: usize,
}

impl<F: Feed> Worker<F> {
    async fn run(&mut self) -> Result<(), WorkerEnd> {
        self.cursor = self.call_feed(F::load).await?;
        loop {
            let latest = *self.latest_seq.borrow_and_update();
            self.set_backlog(latest);
            let cursor = self.cursor;
            let page = self.call_feed(move |feed| feed.after(cursor, PAGE_LEN)).await?;
            if let Some(last) = page.last() {
                let latest = latest.max(last.seq);
                self.process_page(page, latest).await?;
            } else if self.shutdown.is_requested() {
                return Ok(());
            } else {
                // Undeliverable alerts may have become dead letters.
                self.set_failing(false);
                tokio::select! {
                    changed = self.latest_seq.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                    }
                    () = self.shutdown.requested() => {}
                    () = self.sink.reopen.0.1.notified() => self.reopen_if_asked(),
                }
            }
        }
    }

    /// Delivers a page of alerts, without those that the sink's filter excludes.
    async fn process_page(&mut self, page: Vec<StoredAlert>, latest: i64) -> Result<(), WorkerEnd> {
        let Some(last) = page.last().map(|alert| alert.seq) else { return Ok(()) };
        let read = page.len();
        let matching: Vec<_> = page.into_iter().filter(|alert| self.sink.filter.matches(alert)).collect();
        self.sink.counts.filtered.inc_by((read - matching.len()) as u64);
        let mut rest = matching.as_slice();
        while let Some(first) = rest.first() {
            self.set_backlog(latest);
            let done = match self.undeliverable_reason(first) {
                Some((reason, detail)) => {
                    self.send_to_dead_letter(first, reason, detail).await?;
                    1
                }
                None => {
                    let deliverable = rest
                        .iter()
                        .take(self.batch_len.max(1))
                        .take_while(|alert| self.undeliverable_reason(alert).is_none());
                    let count = deliverable.count();
                    self.deliver(&rest[..count]).await?
                }
            };
            rest = &rest[done..];
            if done > 0 {
                // Alerts between this one and the next matching one are filtered.
                self.save_cursor(rest.first().map_or(last, |next| next.seq - 1)).await?;
            }
        }
        self.save_cursor(last).await
    }

    /// Why an alert can never be delivered, regardless of the receiver.
    fn undeliverable_reason(&self, alert: &StoredAlert) -> Option<(DeadLetterReason, &'static str)> {
        if !is_json_line(&alert.json) {
            return Some((DeadLetterReason::Unencodable, "not one line of JSON"));
        }
        let max_age = i64::try_from(self.sink.config.retry.max_age?.as_nanos()).unwrap_or(i64::MAX);
        let age = unix_nanos().saturating_sub(alert.stored);
        (age > max_age).then_some((DeadLetterReason::TooOld, "waited longer than max_age"))
    }

    /// Makes one attempt, waits if it failed, and returns the number of alerts delivered or written to the dead letters.
    async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, WorkerEnd> {
        self.reopen_if_asked();
        if self.shutdown.is_grace_expired() {
            return Err(WorkerEnd::Stopped);
        }
        let start = Instant::now();
        let result = self.attempt(alerts).await?;
        self.sink.counts.attempt(start.elapsed());
        let (mut done, failure) = match result {
            Ok(done) => (done.clamp(1, alerts.len()), None),
            Err(failure) => (failure.delivered.min(alerts.len() - 1), Some(failure)),
        };
        if done > 0 {
            self.sink.counts.success(done, unix_nanos());
            self.set_failing(false);
            self.backoff.reset();
            self.refused_in_a_row = 0;
        }
        let Some(failure) = failure else {
            self.log.attempt_succeeded();
            self.report_recovery();
            self.batch_len = self.batch_len.saturating_mul(2).min(self.max_batch_len);
            return Ok(done);
        };
        self.sink.counts.failure(failure.reason);
        match failure.remedy {
            Remedy::Retry(after) => {
                self.set_failing(true);
                if done > 0 {
                    // Before the wait, so that a kill during it does not repeat delivered alerts.
                    self.save_cursor(alerts[done - 1].seq).await?;
                }
                self.wait_to_retry(&failure, after).await?;
                self.sink.counts.retries.inc();
            }
            Remedy::GiveUp(0 | 1) => {
                let refused = &alerts[done];
                self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
                let max = self.sink.config.retry.max_refusals;
                let is_delivered = max > 0 && self.refused_in_a_row > max && {
                    if done > 0 {
                        self.save_cursor(alerts[done - 1].seq).await?;
                    }
                    Box::pin(self.pause(refused, &failure)).await?
                };
                if !is_delivered {
                    self.send_to_dead_letter(refused, DeadLetterReason::Rejected, &failure.detail).await?;
                }
                done += 1;
            }
            // Any of them may be the rejected one: the batch is halved until one is left.
            Remedy::GiveUp(suspects) => self.batch_len = suspects / 2,
            Remedy::End => return Err(WorkerEnd::NoReceiver(failure.detail)),
        }
        Ok(done)
    }

    async fn attempt(&mut self, alerts: &[StoredAlert]) -> Result<Result<usize, Failure>, WorkerEnd> {
        let content = self.sink.filter.content(alerts);
        let alerts = &*content;
        let destination = &mut self.sink.destination;
        let timeout = destination.has_timeout().then_some(self.sink.config.timeout);
        // On the heap: the futures of all kinds of destinations are large, and nested in those of the callers.
        let delivery = Box::pin(async {
            let delivery = destination.deliver(alerts);
            match timeout {
                None => delivery.await,
                Some(timeout) => tokio::time::timeout(timeout, delivery).await.unwrap_or_else(|_| {
                    Err(Failure::transient(Reason::Timeout, format!("not done after {timeout:?}")))
                }),
            }
        });
        tokio::select! {
            biased;
            result = delivery => Ok(result),
            () = self.shutdown.grace_expired() => Err(WorkerEnd::Stopped),
        }
    }

    /// Waits while a receiver rejects everything, so that a wrong token or URL does not move the whole queue to the dead letters. Returns
    /// true if it accepted the alert after all, and false if it accepts others.
    async fn pause(&mut self, refused: &StoredAlert, failure: &Failure) -> Result<bool, WorkerEnd> {
        let detail = format!(
            "paused: the receiver refused {} alerts in a row: {}",
            self.refused_in_a_row, failure.detail
        );
        self.log.paused(self.refused_in_a_row, &failure.detail);
        self.set_failing(true);
        self.sink.counts.paused.set(1);
        let accepted = loop {
            let failure = Failure::transient(Reason::Rejected, &detail);
            self.wait_to_retry(&failure, None).await?;
            self.sink.counts.retries.inc();
            if self.undeliverable_reason(refused).is_some() {
                break false;
            }
            if self.attempt(std::slice::from_ref(refused)).await?.is_ok() {
                break true;
            }
            // A client that can cause alerts which the receiver rejects must not block the others: another alert is sent to test whether
            // the receiver accepts any. It is delivered again when its turn comes.
            let latest = *self.latest_seq.borrow();
            let newest = self.call_feed(move |feed| feed.after(latest.max(1) - 1, 1)).await?;
            let other = newest.into_iter().find(|other| {
                other.seq != refused.seq
                    && self.sink.filter.matches(other)
                    && self.undeliverable_reason(other).is_none()
            });
            if let Some(other) = other
                && self.attempt(&[other]).await?.is_ok()
            {
                // The receiver may have recovered in between.
                break self.attempt(std::slice::from_ref(refused)).await?.is_ok();
            }
        };
        self.sink.counts.paused.set(0);
        self.set_failing(false);
        self.refused_in_a_row = 0;
        self.backoff.reset();
        if accepted {
            self.sink.counts.success(1, unix_nanos());
        }
        self.log.attempt_succeeded();
        self.report_recovery();
        Ok(accepted)
    }

    fn set_failing(&self, is_failing: bool) {
        self.sink.is_failing.store(is_failing, Ordering::Release);
    }

    fn report_recovery(&self) {
        if let Some(observer) = &self.sink.observer {
            observer.recovered(&self.sink.config.name);
        }
    }

    /// Waits until the next attempt is due. After a request to stop, there is no next attempt.
    async fn wait_to_retry(
        &mut self,
        failure: &Failure,
        retry_after: Option<Duration>,
    ) -> Result<(), WorkerEnd> {
        let delay = self.backoff.next_delay(retry_after);
        self.log.attempt_failed(failure, self.backoff.failures(), delay);
        if let Some(observer) = &self.sink.observer {
            let waiting = (*self.latest_seq.borrow() - self.cursor).max(0);
            observer.failing(&self.sink.config.name, waiting, &failure.detail);
        }
        let sleep = tokio::time::sleep(delay);
        tokio::pin!(sleep);
        let mut has_sender = true;
        loop {
            // The backlog grows during an outage, so the metric is updated.
            let latest = *self.latest_seq.borrow_and_update();
            self.set_backlog(latest);
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return Err(WorkerEnd::Stopped),
                () = &mut sleep => return Ok(()),
                changed = self.latest_seq.changed(), if has_sender => has_sender = changed.is_ok(),
            }
        }
    }

    /// Writes an undeliverable alert to the dead-letter file, if there is one; retries until it succeeds.
    async fn send_to_dead_letter(
        &mut self,
        alert: &StoredAlert,
        reason: DeadLetterReason,
        detail: &str,
    ) -> Result<(), WorkerEnd> {
        self.log.undeliverable(reason, detail, self.sink.config.dead_letter.is_some());
        let Some(settings) = &self.sink.config.dead_letter else {
            self.sink.counts.dead_letter(reason);
            self.sink.counts.dropped(DropReason::NoFile, 1);
            return Ok(());
        };
        let settings = settings.clone();
        let mut line = Vec::new();
        dead_letter::write_line(alert, &self.sink.config.name, reason, detail, unix_nanos(), &mut line);
        loop {
            let (settings, line) = (settings.clone(), line.clone());
            let append = tokio::task::spawn_blocking(move || dead_letter::append(&settings, &line));
            let error = match append.await {
                Ok(Ok(was_written)) => {
                    if !was_written {
                        self.sink.counts.dropped(DropReason::Full, 1);
                    }
                    self.sink.counts.dead_letter(reason);
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the write was aborted".to_owned(),
            };
            self.sink.counts.failure(Reason::DeadLetter);
            let failure = Failure::transient(Reason::DeadLetter, error);
            self.wait_to_retry(&failure, None).await?;
        }
    }

    async fn save_cursor(&mut self, seq: i64) -> Result<(), WorkerEnd> {
        if seq <= self.cursor {
            return Ok(());
        }
        self.call_feed(move |feed| feed.save(seq)).await?;
        self.cursor = seq;
        Ok(())
    }

    /// Repeats a call of the feed until it succeeds.
    async fn call_feed<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut F) -> Result<T, FeedError> + Clone + Send + 'static,
    ) -> Result<T, WorkerEnd> {
        let mut has_failed = false;
        loop {
            match self.feed.call(call.clone()).await.map_err(WorkerEnd::FeedClosed)? {
                Ok(value) => {
                    if has_failed {
                        self.backoff.reset();
                    }
                    return Ok(value);
                }
                Err(error) => {
                    has_failed = true;
                    self.sink.counts.failure(Reason::Store);
                    self.wait_to_retry(&Failure::transient(Reason::Store, error), None).await?;
                }
            }
        }
    }

    fn reopen_if_asked(&mut self) {
        if self.sink.reopen.take() {
            self.sink.destination.reopen();
        }
    }

    fn set_backlog(&self, latest: i64) {
        self.sink.counts.backlog.set((latest - self.cursor).max(0));
    }
}

/// Whether bytes are one JSON object without a line break, so that they can be embedded in a line or in another document.
fn is_json_line(json: &[u8]) -> bool {
    json.first() == Some(&b'{')
        && memchr::memchr2(b'\n', b'\r', json).is_none()
        && serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}
