//! `pullwatch alerts resend`.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::sync::watch;

use super::super::rule_files::plural;
use super::{StateDir, find, prefix};
use crate::daemon::config::Config;
use crate::daemon::metrics::Metrics;
use crate::daemon::sink::{DeadLetterFile, Feed, FeedError, Sink, SinkConfig, SinkMetrics};
use crate::daemon::store::{IdPrefix, StoreReader};
use crate::daemon::time::unix_nanos;
use crate::detection::alert::StoredAlert;
use crate::text::timespan;

/// Deliver alerts to a sink again
///
/// Sends dead letters of the sink, stored alerts since a time, or single alerts, with the sink's settings. Works while the daemon
/// runs. Alerts that were delivered leave the dead-letter file; the others stay in it. Receivers recognize repeats by the alert's
/// id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch alerts resend --config pullwatch.yaml --sink siem --dead-letters
  pullwatch alerts resend --config pullwatch.yaml --sink siem --since 2h
  pullwatch alerts resend --config pullwatch.yaml --sink siem 289c2a7a

Exit status: 0 all delivered, 1 some not delivered, 2 error.")]
pub struct Resend {
    /// Alert ids or unique prefixes of them
    #[arg(value_name = "ID", value_parser = prefix, conflicts_with_all = ["dead_letters", "since"], required_unless_present_any = ["dead_letters", "since"])]
    ids: Vec<(String, IdPrefix)>,

    /// Configuration file of `run`
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// Name of the sink
    #[arg(long, value_name = "NAME")]
    sink: String,

    /// Send what is in the sink's dead-letter file
    #[arg(long, conflicts_with = "since")]
    dead_letters: bool,

    /// Send alerts that were stored in this time span before now, such as 2h or 7d
    #[arg(long, value_name = "SPAN")]
    since: Option<String>,

    #[command(flatten)]
    state: StateDir,
}

/// Number of alerts that are read from the store at once.
const PAGE_LEN: u32 = 1000;

/// Time for all deliveries.
const GRACE: Duration = Duration::from_secs(3600);

/// Alerts to deliver, and the sink's progress. Their `seq` is their position, from 1.
struct Queue {
    alerts: Arc<Mutex<VecDeque<StoredAlert>>>,
    delivered: Arc<AtomicI64>,
}

impl Feed for Queue {
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError> {
        let alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(alerts.iter().filter(|alert| alert.seq > seq).take(limit).cloned().collect())
    }

    fn load(&mut self) -> Result<i64, FeedError> {
        Ok(self.delivered.load(Ordering::Acquire))
    }

    fn save(&mut self, seq: i64) -> Result<(), FeedError> {
        self.delivered.store(seq, Ordering::Release);
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        while alerts.front().is_some_and(|alert| alert.seq <= seq) {
            alerts.pop_front();
        }
        Ok(())
    }
}

impl Resend {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = crate::cli::config::read(&self.config)?;
        let Some(config) = config else { bail!("invalid configuration file: {}", self.config.display()) };
        let dir = self.state_dir(&config);
        let mut sink = self.sink_config(&config)?;
        if let Some(dead_letter) = &mut sink.dead_letter {
            dead_letter.path = dir.join(&dead_letter.path);
        }
        if self.dead_letters {
            return Self::send_dead_letters(sink);
        }
        let reader = StoreReader::open(&dir)?;
        let alerts = match &self.since {
            Some(span) => since(&reader, span)?,
            None => self
                .ids
                .iter()
                .map(|id| find(&reader, id).map(|listed| listed.alert))
                .collect::<anyhow::Result<_>>()?,
        };
        let sent = deliver(sink, alerts)?;
        report(sent.delivered, sent.total)
    }

    fn state_dir(&self, config: &Config) -> PathBuf {
        match (&self.state.state_dir, &config.state_dir) {
            (None, Some(dir)) => dir.clone(),
            _ => self.state.path(),
        }
    }

    fn sink_config(&self, config: &Config) -> anyhow::Result<SinkConfig> {
        let sink = config.sinks.iter().find(|sink| sink.name == self.sink);
        let Some(sink) = sink else {
            let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
            bail!("no sink `{}` in {}: expected {}", self.sink, self.config.display(), names.join(", "))
        };
        let mut sink = sink.clone();
        // The alerts were selected explicitly, and may be old.
        sink.include.clear();
        sink.exclude.clear();
        sink.min_priority = crate::detection::alert::Priority::Debug;
        sink.retry.max_age = None;
        sink.grace = GRACE;
        Ok(sink)
    }

    fn send_dead_letters(sink: SinkConfig) -> anyhow::Result<ExitCode> {
        let Some(settings) = sink.dead_letter.clone() else {
            bail!("sink {} has no dead-letter file: `dead_letter` is false", sink.name)
        };
        let file = DeadLetterFile::take(&settings).with_context(|| shown(&settings.path))?;
        let Some(mut file) = file else { return report(0, 0) };
        let alerts = file.alerts_of(&sink.name);
        let sent = deliver(sink, alerts);
        let delivered = sent.as_ref().map_or(0, |sent| sent.delivered);
        // Undelivered lines are put back, even after an error.
        file.put_back(delivered).with_context(|| shown(&settings.path))?;
        let sent = sent?;
        report(sent.delivered, sent.total)
    }
}

fn shown(path: &Path) -> String {
    format!("cannot use the dead-letter file {}", path.display())
}

/// Returns the alerts stored in the time span before now.
fn since(reader: &StoreReader, span: &str) -> anyhow::Result<Vec<StoredAlert>> {
    let span = timespan::parse(span).map_err(|expected| anyhow::anyhow!("invalid --since: {expected}"))?;
    let start = unix_nanos().saturating_sub(span);
    let (mut alerts, mut seq) = (Vec::new(), 0);
    loop {
        let page = reader.after(seq, PAGE_LEN)?;
        let Some(last) = page.last() else { return Ok(alerts) };
        seq = last.seq;
        alerts.extend(page.into_iter().filter(|alert| alert.stored >= start));
    }
}

/// How many alerts were delivered.
struct SendResult {
    delivered: usize,
    total: usize,
}

/// Delivers alerts with the sink worker, up to the first one that cannot be delivered at present.
fn deliver(config: SinkConfig, alerts: Vec<StoredAlert>) -> anyhow::Result<SendResult> {
    let total = alerts.len();
    let last = i64::try_from(total).unwrap_or(i64::MAX);
    let alerts = (1..).zip(alerts).map(|(seq, alert)| StoredAlert { seq, ..alert }).collect();
    let delivered = Arc::new(AtomicI64::new(0));
    let queue = Queue { alerts: Arc::new(Mutex::new(alerts)), delivered: delivered.clone() };
    let name = config.name.clone();
    let metrics = Metrics::new(&[])?;
    let sink = Sink::new(config, &SinkMetrics::new(&metrics)).with_context(|| format!("sink {name}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The stop was already requested: the sink delivers the existing alerts, and ends at the first failure.
    let (_latest, latest) = watch::channel(last);
    let (_stop, stop) = watch::channel(true);
    runtime.block_on(sink.run(queue, latest, stop))?;
    Ok(SendResult {
        delivered: usize::try_from(delivered.load(Ordering::Acquire)).unwrap_or_default(),
        total,
    })
}

fn report(delivered: usize, total: usize) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if delivered == total {
        writeln!(out, "{} delivered", plural(total, "alert"))?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{delivered} of {} delivered; the rest is unchanged", plural(total, "alert"))?;
    Ok(ExitCode::from(1))
}
