//! Resolves incidents that a sink opened, when their alerts have not recurred for a period.
//!
//! Takes the alerts of the store, and the position up to which the sink has delivered them. Returns the last alert of each fingerprint once
//! `resolve_after` has passed since its delivery, to resolve its incident. A second sink delivers these, with its position in a separate
//! file: neither retention nor Kafka offsets depend on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::config::{Body, Kind, SinkConfig};
use super::error::SettingsError;
use super::feed::{Feed, FeedError, StoreFeed};
use super::filter::Filter;
use super::format::template::{Fingerprint, fingerprint};
use crate::daemon::log_limit::LogLimit;
use crate::daemon::time::unix_nanos;
use crate::detection::alert::StoredAlert;
use crate::detection::lru::LruMap;

/// Maximum number of fingerprints whose last alert is remembered. Incidents of further ones stay open.
const MAX_FINGERPRINTS: usize = 100_000;

/// Number of recorded delivery positions. The time between two of them is this fraction of `resolve_after`.
const MARKS: i64 = 256;

/// Number of alerts that are read from the store at once.
const PAGE_LEN: usize = 256;

/// Maximum time between two checks for due resolutions.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum time between two checks for due resolutions.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Name of the sink that resolves the incidents opened by the sink of this name.
pub(crate) fn resolving_name(sink: &str) -> String {
    format!("{sink}/resolve")
}

/// The settings of the sink that resolves incidents opened by this one, and the time after which it does; none if incidents are not to be
/// resolved.
pub(crate) fn resolving(config: &SinkConfig) -> Option<(SinkConfig, Duration)> {
    let Kind::Http(http) = &config.kind else { return None };
    let Body::Template(template) = &http.body else { return None };
    let (template, after) = template.resolving()?;
    let http = super::Http { body: Body::Template(Box::new(template)), ..http.clone() };
    let name = resolving_name(&config.name);
    // A resolution that the receiver rejects is counted. Sending it later would close incidents opened since.
    let config = SinkConfig { name, kind: Kind::Http(http), dead_letter: None, ..config.clone() };
    Some((config, after))
}

/// Sends resolutions in the intervals in which some may be due, until there is no receiver.
pub(crate) async fn tick(ticks: watch::Sender<i64>, resolve_after: Duration) {
    let mut interval = tokio::time::interval((resolve_after / 4).clamp(MIN_INTERVAL, MAX_INTERVAL));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ticks.closed() => return,
            // Zero is never the `seq` of an alert, so incidents that are not due do not count as a backlog.
            _ = interval.tick() => { ticks.send_replace(0); }
        }
    }
}

/// The alerts after which an incident is to be resolved.
#[derive(Debug)]
pub(crate) struct ResolveFeed {
    /// The alerts and the cursor of the sink that opens incidents.
    opened: StoreFeed,
    filter: Filter,
    /// In nanoseconds.
    resolve_after: i64,
    /// File with the position.
    path: PathBuf,
    /// All alerts up to this `seq` are in `latest`.
    ahead: i64,
    latest: LruMap<Fingerprint, i64>,
    /// Delivery positions at earlier times.
    marks: VecDeque<DeliveryPosition>,
    /// Everything up to this `seq` is resolved or superseded.
    skipped: i64,
    /// Name of the sink that opens incidents.
    sink: String,
    evictions: LogLimit,
}

/// At `at` (in unix nanoseconds), all alerts up to `seq` were delivered.
#[derive(Clone, Copy, Debug)]
struct DeliveryPosition {
    seq: i64,
    at: i64,
}

impl ResolveFeed {
    /// Reads nothing. `config` is the sink that opens incidents.
    ///
    /// # Errors
    /// If a pattern of its filter is invalid.
    pub(crate) fn new(
        dir: &Path,
        config: &SinkConfig,
        resolve_after: Duration,
    ) -> Result<Self, SettingsError> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        // Two sinks whose names are equal after this conversion share a position, which loses nothing: resolutions are repeated.
        let file: String =
            config.name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
        Ok(ResolveFeed {
            opened: StoreFeed::new(dir.to_owned(), config.name.clone()),
            filter: Filter::new(config)?,
            resolve_after: i64::try_from(resolve_after.as_nanos()).unwrap_or(i64::MAX),
            path: dir.join(format!("resolved-{file}")),
            ahead: 0,
            latest: LruMap::new(MAX_FINGERPRINTS),
            marks: VecDeque::new(),
            skipped: 0,
            sink: config.name.clone(),
            evictions: LogLimit::default(),
        })
    }

    /// Records the current delivery position.
    fn mark(&mut self, seq: i64, now: i64) {
        match self.marks.back() {
            // It replaces the previous one, which is only slightly older: a resolution is at most this much too early.
            Some(last) if last.seq == seq || now.saturating_sub(last.at) < self.resolve_after / MARKS => {}
            _ => self.marks.push_back(DeliveryPosition { seq, at: now }),
        }
        // One position older than `resolve_after` is sufficient to determine what is due.
        let is_over = |mark: &DeliveryPosition| now.saturating_sub(mark.at) >= self.resolve_after;
        while self.marks.get(1).is_some_and(is_over) {
            self.marks.pop_front();
        }
    }

    /// Whether an alert was delivered long enough ago.
    fn is_due(&self, alert: &StoredAlert, now: i64) -> bool {
        let is_over = |at: i64| now.saturating_sub(at) >= self.resolve_after;
        let delivered = self.marks.iter().find(|mark| mark.seq >= alert.seq);
        // Alerts delivered before the start are assumed to have been delivered soon after they were stored.
        let was_delivered_before = self.marks.front().is_some_and(|first| first.seq >= alert.seq);
        delivered.is_some_and(|mark| is_over(mark.at)) || (was_delivered_before && is_over(alert.stored))
    }

    /// Learns the last alert of each fingerprint.
    fn read_ahead(&mut self, from: i64) -> Result<(), FeedError> {
        self.ahead = self.ahead.max(from);
        loop {
            let page = self.opened.after(self.ahead, PAGE_LEN)?;
            let Some(last) = page.last() else { return Ok(()) };
            self.ahead = last.seq;
            for alert in page.iter().filter(|alert| self.filter.matches(alert)) {
                *self.latest.touch(&fingerprint(alert)) = alert.seq;
                let mut evicted = 0;
                while self.latest.exceeds_limits() {
                    self.latest.evict();
                    evicted += 1;
                }
                if evicted > 0
                    && let Some(suppressed) = self.evictions.admit()
                {
                    tracing::warn!(
                        sink = self.sink,
                        suppressed,
                        "more than {MAX_FINGERPRINTS} incidents are open: the oldest are not resolved by pullwatch. Close them in the service, \
                         or let `rules` and `priority` of the sink select fewer alerts"
                    );
                }
            }
        }
    }
}

impl Feed for ResolveFeed {
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError> {
        let now = unix_nanos();
        let delivered = self.opened.load()?;
        self.mark(delivered, now);
        self.read_ahead(seq)?;
        let mut from = seq.max(self.skipped);
        let mut due = Vec::new();
        'pages: loop {
            let page = self.opened.after(from, PAGE_LEN)?;
            if page.is_empty() {
                break;
            }
            for alert in page {
                if due.len() == limit || !self.is_due(&alert, now) {
                    break 'pages;
                }
                from = alert.seq;
                if self.filter.matches(&alert) && self.latest.peek(&fingerprint(&alert)) == Some(&alert.seq) {
                    due.push(alert);
                }
            }
        }
        if due.is_empty() && from > seq.max(self.skipped) {
            self.save(from)?;
            self.skipped = from;
        }
        Ok(due)
    }

    fn load(&mut self) -> Result<i64, FeedError> {
        match std::fs::read_to_string(&self.path) {
            // Invalid content is treated like a missing file: resolutions are repeated.
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(FeedError::new(error)),
        }
    }

    fn save(&mut self, seq: i64) -> Result<(), FeedError> {
        let new = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&new)?;
            writeln!(file, "{seq}")?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(FeedError::new)
    }
}
