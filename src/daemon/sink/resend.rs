//! Sends active alerts to Alertmanager again, which keeps alerts in memory only: one that restarts, or that was down when an alert was
//! delivered, learns of them within the interval. Prometheus does the same.
//!
//! Takes the alerts of the store, the cursor of the sink, and its [`Deliveries`]. Sends the last alert of each label set to every
//! Alertmanager, with the start and end from its delivery, so that it is resolved at the original time. It has separate connections and
//! does not wait for the sink, nor the sink for it. It moves no cursor. A failed round is not retried; the next round sends everything
//! again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::alertmanager::{AlertmanagerSink, MAX_ALERTS};
use super::deliveries::{self, Deliveries};
use super::failure::{Failure, Reason, Remedy};
use super::feed::{BlockingFeed, Feed, FeedClosed, FeedError};
use super::filter::Filter;
use super::format::template::Fingerprint;
use super::http::HttpSink;
use super::metrics::ResendCounts;
use crate::daemon::log_limit::LogLimit;
use crate::daemon::time::unix_nanos;
use crate::detection::alert::StoredAlert;
use crate::detection::lru::LruMap;

/// Maximum number of alerts that are sent again. If there are more, those renewed least recently are omitted, since they end first.
/// Prometheus uses the same queue length.
const MAX_ACTIVE: usize = 10_000;

/// Number of alerts that are read from the store at once.
const PAGE_LEN: usize = 256;

/// Sends the active alerts of one sink again.
#[derive(Debug)]
pub(crate) struct Resender {
    settings: Settings,
    active: Active,
    receivers: Vec<ReceiverState>,
    evictions: LogLimit,
}

/// The parts of its sink that a [`Resender`] needs.
#[derive(Debug)]
pub(super) struct Settings {
    /// Name of the sink.
    pub(super) sink: String,
    /// Connections of its own.
    pub(super) alertmanagers: AlertmanagerSink,
    pub(super) deliveries: Arc<Deliveries>,
    /// Whether the sink is waiting because its receiver fails or rejects everything.
    pub(super) is_failing: Arc<AtomicBool>,
    pub(super) filter: Filter,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    pub(super) counts: ResendCounts,
}

/// One of the Alertmanagers.
#[derive(Debug, Default)]
struct ReceiverState {
    /// It failed in this round, and is skipped for the rest of it.
    is_failing: bool,
    /// A failure was logged, but not its end yet.
    outage_logged: bool,
    failures: LogLimit,
}

/// The outcome of a request.
#[derive(Default)]
struct PostResult {
    accepted: usize,
    failed: usize,
    /// The last failure.
    failure: Option<Failure>,
}

impl Resender {
    pub(super) fn new(settings: Settings) -> Self {
        Resender {
            settings,
            active: Active::new(MAX_ACTIVE),
            receivers: Vec::new(),
            evictions: LogLimit::default(),
        }
    }

    /// Keeps the deliveries of the sink in the state directory from now on. Must be called before the sink runs.
    pub(crate) fn keep_in(&self, dir: &Path) {
        let Settings { sink, deliveries, .. } = &self.settings;
        if let Err(error) = deliveries.keep_in(deliveries::file(dir, sink)) {
            tracing::warn!(%error, sink, "cannot read which alerts are active; they are not sent again until they recur");
        }
    }

    /// Sends the active alerts of the feed in every interval, until it is stopped.
    pub(crate) async fn run<F: Feed>(mut self, feed: F, mut stop: watch::Receiver<bool>) {
        let mut feed = BlockingFeed::new(feed);
        let interval = self.settings.interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // An error means that the sender was dropped.
                _ = stop.wait_for(|stop| *stop) => break,
            }
            match self.round(&mut feed, &mut stop).await {
                Err(FeedClosed) => break,
                Ok(Ok(())) => {}
                // The sink reads the same store and reports the error.
                Ok(Err(error)) => {
                    tracing::debug!(%error, sink = self.settings.sink, "cannot read active alerts");
                }
            }
        }
        // The settings may require none from now on.
        self.settings.counts.set_active(0);
    }

    /// While the sink itself fails or pauses, its retries detect when Alertmanager is available again.
    fn is_paused(&self, stop: &watch::Receiver<bool>) -> bool {
        self.settings.is_failing.load(Ordering::Acquire) || *stop.borrow()
    }

    /// Sends all active alerts once.
    async fn round<F: Feed>(
        &mut self,
        feed: &mut BlockingFeed<F>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Result<(), FeedError>, FeedClosed> {
        if self.is_paused(stop) {
            return Ok(Ok(()));
        }
        if let Err(error) = self.read_delivered(feed, stop).await? {
            return Ok(Err(error));
        }
        let due = self.active.due(&self.settings.deliveries, unix_nanos());
        self.settings.counts.set_active(due.len());
        self.receivers.resize_with(self.settings.alertmanagers.receivers().len(), ReceiverState::default);
        self.receivers.iter_mut().for_each(|receiver| receiver.is_failing = false);
        for seqs in due.chunks(MAX_ALERTS) {
            if self.is_paused(stop) || self.receivers.iter().all(|receiver| receiver.is_failing) {
                break;
            }
            let seqs = seqs.to_vec();
            let read = feed.call(move |feed| {
                let mut alerts = Vec::with_capacity(seqs.len());
                for seq in seqs {
                    // The alert may have been deleted; then this is a different one.
                    alerts.extend(feed.after(seq - 1, 1)?.into_iter().filter(|alert| alert.seq == seq));
                }
                Ok(alerts)
            });
            match read.await? {
                Ok(alerts) => self.send(&alerts, stop).await,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Learns which alerts the sink delivered since the last round. In the first round, learns all that may be active.
    async fn read_delivered<F: Feed>(
        &mut self,
        feed: &mut BlockingFeed<F>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Result<(), FeedError>, FeedClosed> {
        let cursor = match feed.call(F::load).await? {
            Ok(cursor) => cursor,
            Err(error) => return Ok(Err(error)),
        };
        let Settings { sink, alertmanagers, deliveries, filter, counts, .. } = &self.settings;
        let active = &mut self.active;
        // The cursor may have been moved back, and alerts that are delivered again end later.
        active.ahead = active.ahead.min(cursor);
        let first = deliveries.first_active(unix_nanos()).unwrap_or(i64::MAX);
        active.ahead = active.ahead.max(first.saturating_sub(1).min(cursor));
        while active.ahead < cursor && !*stop.borrow() {
            let ahead = active.ahead;
            let page = match feed.call(move |feed| feed.after(ahead, PAGE_LEN)).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            active.ahead = page.last().map_or(cursor, |last| last.seq.min(cursor));
            for alert in page.iter().filter(|alert| alert.seq <= cursor && filter.matches(alert)) {
                let period = deliveries.of(alert.seq);
                if period.is_some_and(|period| deliveries.contains(&period, alert.stored)) {
                    active.insert(alertmanagers.fingerprint(alert), alert.seq);
                }
            }
            let evicted = active.evict();
            counts.evicted(evicted);
            if evicted > 0
                && let Some(suppressed) = self.evictions.admit()
            {
                tracing::warn!(
                    sink,
                    suppressed,
                    "more than {MAX_ACTIVE} alerts are active: an Alertmanager that restarts does not learn of the oldest. Let `rules` and \
                     `priority` of the sink select fewer alerts, or shorten `resolve_after`"
                );
            }
        }
        Ok(Ok(()))
    }

    /// Sends some alerts to all Alertmanagers that did not fail in this round.
    async fn send(&mut self, alerts: &[StoredAlert], stop: &mut watch::Receiver<bool>) {
        let Settings { sink, alertmanagers, deliveries, is_failing, filter, timeout: limit, counts, .. } =
            &mut self.settings;
        let now = unix_nanos();
        let content = filter.content(alerts);
        let list = content.iter().filter_map(|alert| {
            let ends = deliveries.of(alert.seq)?.ends;
            // An alert whose period has ended meanwhile is omitted: the receiver considers it resolved.
            (ends > now).then(|| alertmanagers.alert(alert, ends))
        });
        let list: Vec<Value> = list.collect();
        if list.is_empty() {
            return;
        }
        let requests = alertmanagers.receivers().iter_mut().zip(&mut self.receivers).enumerate().map(
            |(at, (receiver, state))| {
                let (list, counts, sink, limit, is_failing) =
                    (&list, &*counts, &**sink, *limit, &**is_failing);
                async move {
                    if !state.is_failing {
                        let outcome = post(receiver, list, limit, is_failing).await;
                        counts.sent(outcome.accepted, outcome.failed);
                        state.log(outcome.failure, sink, at + 1);
                    }
                }
            },
        );
        tokio::select! {
            _ = futures_util::future::join_all(requests) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// Sends alerts in one request. If it is rejected, sends each in a separate request, so that a rejected alert or a proxy's limit does not
/// affect the others.
async fn post(
    receiver: &mut HttpSink,
    list: &[Value],
    limit: Duration,
    is_paused: &AtomicBool,
) -> PostResult {
    let mut outcome = PostResult::default();
    let mut batches = vec![list];
    while let Some(batch) = batches.pop()
        && !is_paused.load(Ordering::Acquire)
    {
        let body = Value::Array(batch.to_vec()).to_string().into_bytes();
        let result = timeout(limit, receiver.post(body, batch.len())).await.unwrap_or_else(|_| {
            Err(Failure::transient(Reason::Timeout, format!("not done after {limit:?}")))
        });
        match result {
            Ok(_) => outcome.accepted += batch.len(),
            Err(Failure { remedy: Remedy::GiveUp(_), .. }) if batch.len() > 1 => {
                batches.extend(batch.chunks(1).rev());
            }
            Err(failure) => {
                outcome.failed += batch.len();
                let is_refusal = matches!(failure.remedy, Remedy::GiveUp(_));
                outcome.failure = Some(failure);
                if !is_refusal {
                    break;
                }
            }
        }
    }
    outcome
}

impl ReceiverState {
    /// Records and logs a failure, or its end.
    fn log(&mut self, failure: Option<Failure>, sink: &str, number: usize) {
        let Some(failure) = failure else {
            if std::mem::take(&mut self.outage_logged) {
                tracing::info!(sink, number, "Alertmanager accepts active alerts again");
            }
            return;
        };
        self.is_failing = !matches!(failure.remedy, Remedy::GiveUp(_));
        if !self.outage_logged
            && let Some(suppressed) = self.failures.admit()
        {
            self.outage_logged = true;
            let (reason, detail) = (failure.reason.name(), failure.detail);
            tracing::warn!(
                sink,
                number,
                reason,
                detail,
                suppressed,
                "cannot send active alerts again; one that restarted without its data does not know them"
            );
        }
    }
}

/// The last delivered alert of each label set, if it may be active.
#[derive(Debug)]
struct Active {
    /// `seq` by label set.
    latest: LruMap<Fingerprint, i64>,
    /// All alerts up to this `seq` were read.
    ahead: i64,
}

impl Active {
    fn new(limit: usize) -> Self {
        Active { latest: LruMap::new(limit), ahead: 0 }
    }

    fn insert(&mut self, labels: Fingerprint, seq: i64) {
        *self.latest.touch(&labels) = seq;
    }

    /// Removes the least recently renewed alerts while there are too many. Returns their number.
    fn evict(&mut self) -> u64 {
        let before = self.latest.evicted();
        while self.latest.evict().is_some() {}
        self.latest.evicted() - before
    }

    /// Removes alerts that have ended, and returns the others in order.
    fn due(&mut self, deliveries: &Deliveries, now: i64) -> Vec<i64> {
        let (mut due, mut ended) = (Vec::new(), Vec::new());
        for (labels, _, seq) in self.latest.iter_with_use() {
            if *seq <= self.ahead && deliveries.of(*seq).is_some_and(|period| period.ends > now) {
                due.push(*seq);
            } else {
                ended.push(*labels);
            }
        }
        for labels in ended {
            self.latest.remove(&labels);
        }
        due.sort_unstable();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_alert_of_a_label_set_is_due_until_it_ends() {
        let deliveries = Deliveries::new(Duration::from_micros(1));
        for (first, now) in [(1, 0), (5, 100), (9, 500)] {
            deliveries.record(first, deliveries.ends(now), now);
        }
        let mut active = Active::new(3);
        for (labels, seq) in [(1, 1), (2, 5), (3, 6), (1, 9)] {
            active.insert([labels; 16], seq);
        }
        active.ahead = 9;
        assert_eq!(active.evict(), 0);
        assert_eq!(active.due(&deliveries, 999), [5, 6, 9]);
        // The least recently renewed one is omitted.
        active.insert([4; 16], 10);
        active.ahead = 10;
        assert_eq!((active.evict(), active.due(&deliveries, 999)), (1, vec![6, 9, 10]));
        assert_eq!((active.due(&deliveries, 1100), active.latest.len()), (vec![9, 10], 2));
        // The sink delivers again from an earlier alert.
        active.ahead = 9;
        assert_eq!(active.due(&deliveries, 1100), [9]);
        assert_eq!((active.due(&deliveries, 1500), active.latest.len()), (vec![], 0));
    }
}
