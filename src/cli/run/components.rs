//! The parts that `run` puts together: receivers, the server, sinks.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::daemon::config::{Config, ServerTls, WebhookSource};
use crate::daemon::metrics::Metrics;
use crate::daemon::net::Tls;
use crate::daemon::pipeline::{Message, Status};
use crate::daemon::server::{self, AlertLog, AlertQuery, Check, Health, LogError, Parts, Server};
use crate::daemon::sink::{Reopen, Sink, SinkConfig, SinkMetrics, StoreFeed};
use crate::daemon::source::webhook::{self, WebhookBatch};
use crate::daemon::store::{Filter, Reader};
use crate::detection::alert::StoredAlert;

fn tls(tls: Option<&ServerTls>) -> Option<Tls> {
    tls.map(|tls| Tls {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
    })
}

/// How a webhook source receives.
pub fn webhook_settings(source: &WebhookSource) -> webhook::Settings {
    webhook::Settings {
        address: source.listen,
        path: source.path.clone(),
        tls: tls(source.tls.as_ref()),
        token_file: source.token_file.clone(),
        max_body: source.max_body,
        ..webhook::Settings::default()
    }
}

/// Hands batches on to the pipeline, one after the other: the next when it took the last.
pub fn forward(
    source: usize,
    mut deliveries: tokio::sync::mpsc::Receiver<WebhookBatch>,
    inbox: Sender<Message>,
) {
    std::thread::spawn(move || {
        while let Some(delivery) = deliveries.blocking_recv() {
            // One for each: a pipeline that ended drops it, and that ends this too.
            let (taken, is_taken) = mpsc::sync_channel(1);
            if inbox.send(Message::WebhookBatch(source, delivery, taken)).is_err() || is_taken.recv().is_err()
            {
                return;
            }
        }
    });
}

/// Reads standard input, a buffer of whole lines at a time, as fast as the pipeline takes them. At its end all is over if there is
/// no other source.
pub fn read_stdin(source: usize, longest: usize, is_only: bool, inbox: Sender<Message>) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut rest = Vec::new();
        let mut block = vec![0; 256 * 1024];
        let (done, room) = mpsc::sync_channel(1);
        loop {
            let read = match input.read(&mut block) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be read");
                    0
                }
            };
            rest.extend_from_slice(&block[..read]);
            let end = match memchr::memrchr(b'\n', &rest) {
                Some(at) => at + 1,
                // What is there of a line is judged at the end, or where it is too long.
                None if read == 0 || rest.len() > longest => rest.len(),
                None => 0,
            };
            let end = if read == 0 { rest.len() } else { end };
            if end > 0 {
                let records: Vec<u8> = rest.drain(..end).collect();
                if inbox.send(Message::Records(source, records, done.clone())).is_err()
                    || room.recv().is_err()
                {
                    return;
                }
            }
            if read == 0 {
                tracing::info!("standard input ended");
                if is_only {
                    let _ = inbox.send(Message::Stop);
                }
                return;
            }
        }
    });
}

/// The store, as the server reads it.
struct Log {
    dir: PathBuf,
    /// Opened when it is first asked for.
    reader: Mutex<Option<Reader>>,
}

impl Log {
    fn with<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, crate::daemon::store::Error>,
    ) -> Result<T, LogError> {
        let failed = |error: crate::daemon::store::Error| LogError(error.to_string());
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match &mut *reader {
            Some(reader) => reader,
            none => none.insert(Reader::open(&self.dir).map_err(failed)?),
        };
        read(reader).map_err(failed)
    }
}

impl AlertLog for Log {
    fn list(&self, query: &AlertQuery) -> Result<Vec<StoredAlert>, LogError> {
        let filter = Filter {
            rule: query.rule.clone(),
            min_priority: query.priority,
            actor: query.user.clone(),
            since: query.since,
            until: query.until,
            acknowledged: None,
            limit: Some(u32::try_from(query.limit).unwrap_or(u32::MAX)),
            before_seq: query.before,
        };
        let listed = self.with(|reader| reader.list(&filter))?;
        // The store looks for a part of a name, the query means a whole one.
        Ok(listed.into_iter().map(|one| one.alert).filter(|alert| query.matches(alert)).collect())
    }

    fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, LogError> {
        self.with(|reader| reader.after(seq, u32::try_from(limit).unwrap_or(u32::MAX)))
    }
}

/// A pipeline that did not go round for so long is stuck.
const STUCK: Duration = Duration::from_secs(120);

impl Health for Status {
    fn checks(&self) -> Vec<Check> {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let since = now.saturating_sub(self.went_round.load(Ordering::Relaxed));
        let is_stuck = u128::try_from(since).is_ok_and(|since| since > STUCK.as_nanos());
        let missing: Vec<String> = {
            let missing = self.without_log.lock().unwrap_or_else(PoisonError::into_inner);
            let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = missing.iter().map(|source| format!("{source}: no log is there"));
            missing.chain(troubles.iter().map(|(source, what)| format!("{source}: {what}"))).collect()
        };
        let check = |name: &str, ok: bool, reason: &str, is_vital: bool| Check {
            name: name.to_owned(),
            ok,
            reason: if ok { String::new() } else { reason.to_owned() },
            is_vital,
        };
        vec![
            check("pipeline", !is_stuck, "it does not go round any more", true),
            check(
                "store",
                !self.store_is_stuck.load(Ordering::Relaxed),
                "it takes nothing: the disk is full or the file is held by another process",
                false,
            ),
            check(
                "rules",
                !self.rules_are_old.load(Ordering::Relaxed),
                "the rules on the disk are broken; those before them are in use",
                false,
            ),
            check(
                "sinks",
                !self.has_lost_sink.load(Ordering::Relaxed),
                "a sink ended for good; its alerts wait in the store, and restart pullwatch to deliver them",
                false,
            ),
            check("sources", missing.is_empty(), &missing.join("; "), false),
        ]
    }
}

/// Opens the port for metrics, health and alerts, where there is to be one.
pub fn serve(
    config: &Config,
    dir: &Path,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    news: watch::Receiver<i64>,
) -> anyhow::Result<Option<Server>> {
    let Some(wanted) = &config.server else { return Ok(None) };
    let settings = server::Settings {
        address: wanted.listen,
        tls: tls(wanted.tls.as_ref()),
        token_file: wanted.token_file.clone(),
        ..server::Settings::default()
    };
    let alerts = Arc::new(Log { dir: dir.to_owned(), reader: Mutex::new(None) });
    let server = Server::start(settings, Parts { metrics, alerts, health: status, news })?;
    tracing::info!(address = %server.address(), "serving metrics, health and alerts");
    Ok(Some(server))
}

/// Sinks at work.
pub struct Sinks {
    stop: watch::Sender<bool>,
    reopen: Vec<Reopen>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Sinks {
    /// Files are opened anew, whether they were moved or not.
    pub fn reopen(&self) {
        self.reopen.iter().for_each(Reopen::reopen);
    }

    /// Lets them deliver what is there, for so long at most.
    pub async fn stop(self) {
        // They may have ended. Each gives itself a grace.
        let _ = self.stop.send(true);
        for task in self.tasks {
            // One that panicked has said so.
            let _ = task.await;
        }
    }
}

/// Checks the settings of the sinks, reads their certificates and starts them.
pub fn deliver(
    config: &Config,
    dir: &Path,
    news: &watch::Receiver<i64>,
    metrics: &Arc<Metrics>,
    status: &Arc<Status>,
) -> anyhow::Result<Sinks> {
    let metrics = SinkMetrics::new(metrics);
    let (stop, stopping) = watch::channel(false);
    let mut sinks = Vec::new();
    // One that takes part in transactions is served by the pipeline.
    let exact = super::kafka::exact_sink(config).map(|sink| &sink.name);
    let all: Vec<&SinkConfig> = config.sinks.iter().filter(|sink| Some(&sink.name) != exact).collect();
    for wanted in &all {
        let mut settings = SinkConfig { grace: super::GRACE, ..(*wanted).clone() };
        if let Some(dead_letter) = &mut settings.dead_letter {
            dead_letter.path = dir.join(&dead_letter.path);
        }
        sinks.push(Sink::new(settings, &metrics).with_context(|| format!("sink {}", wanted.name))?);
    }
    let reopen = sinks.iter().map(Sink::reopen).collect();
    let mut tasks = Vec::new();
    for (sink, wanted) in sinks.into_iter().zip(all) {
        let feed = StoreFeed::new(dir.to_owned(), wanted.name.clone());
        let (news, stopping, status) = (news.clone(), stopping.clone(), status.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = sink.run(feed, news, stopping).await {
                status.has_lost_sink.store(true, Ordering::Relaxed);
                tracing::error!(%error, "this sink ended; its alerts wait in the store");
            }
        }));
    }
    Ok(Sinks { stop, reopen, tasks })
}
