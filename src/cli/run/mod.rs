//! `pullwatch run`: the daemon. Sources in, alerts into the store, and from there to the sinks.

mod components;
mod kafka;
mod rules;
mod signals;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::sync::watch;

use signals::Signals;

use crate::daemon::config::{Config, FileSource, Source, SourceKind, USUAL_PATHS};
use crate::daemon::metrics::{Metrics, WebhookMetrics};
use crate::daemon::pipeline::{self, Message, Pipeline, Status};
use crate::daemon::sink::{Format, Kind};
use crate::daemon::source::files::Files;
use crate::daemon::source::follow::StartAt;
use crate::daemon::source::kafka::Consumer;
use crate::daemon::source::watch::DirectoryWatcher;
use crate::daemon::source::webhook::Receiver;
use crate::daemon::store::{self, Cursor, Start, Store};

/// Follow audit logs and deliver alerts (daemon)
///
/// Follows log files through rotation, receives the apiserver's audit webhook, and reads Kafka topics or standard input.
/// Alerts are stored and delivered to the configured sinks. After a restart, even after a crash, it resumes where it left
/// off: no event is lost and no alert is stored twice.
///
/// Without a configuration file it follows the first well-known audit log path that exists and prints alerts to standard
/// output.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch run                                  follow the well-known audit log, print alerts
  pullwatch run /var/log/kube/audit.log          follow another log
  pullwatch run --config pullwatch.yaml          sources, sinks and everything else from a file
  kubectl logs -f audit-relay | pullwatch run -  read standard input
  curl http://127.0.0.1:9417/metrics             metrics; also /healthz, /readyz, /api/v1/alerts

Signals: SIGHUP reloads rules and reopens output files; SIGTERM and SIGINT shut down gracefully.

Exit status: 0 stopped by a signal or at the end of standard input, 2 error.")]
pub struct Run {
    /// Logs to follow instead of the configured sources: files, glob patterns, or - for standard input
    #[arg(value_name = "PATH|GLOB|-")]
    paths: Vec<String>,

    /// Configuration file (see samples/pullwatch.yaml)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory for positions, alerts and learned state
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Rule file or directory of rule files; repeatable
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,

    /// Output format of the stdout sink
    #[arg(short, long, value_enum)]
    format: Option<Lines>,

    /// Listen address for metrics, health checks and the alert API
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// Output format of the stdout sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// One human-readable line per alert
    Text,
    /// One JSON object per line
    Json,
}

/// How long sinks may take at the end to deliver what is there.
const GRACE: Duration = Duration::from_secs(5);

impl Run {
    /// Runs until it is told to stop.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        // First of all: to look through a large store takes a while, and whoever stops it meanwhile wants it to end in order.
        let signals = runtime.block_on(async { Signals::listen() })?;
        raise_file_limit();
        let config = self.config()?;
        let dir = config.state_dir.clone().unwrap_or_else(store::default_dir);
        let hostname = gethostname::gethostname().to_string_lossy().into_owned();
        let loading = rules::Loading::new(&config, hostname);
        let first_rules = loading.load()?;
        let opened = Store::open(&dir, &store::Options::default())?;
        if let Some(aside) = &opened.set_aside {
            tracing::error!(kept_as = %aside.display(), "the store was damaged: it was set aside, and a new one made");
        }
        let result = runtime.block_on(work(config, &dir, opened.store, first_rules, loading, signals));
        // A thread may wait for standard input or for a pipe that nobody reads, which nothing can wake.
        runtime.shutdown_timeout(Duration::from_millis(200));
        result?;
        Ok(ExitCode::SUCCESS)
    }

    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => match super::config::read(path)? {
                (Some(config), _) => config,
                (None, _) => bail!("{} cannot be used", path.display()),
            },
            None => Config::default(),
        };
        if !self.paths.is_empty() {
            config.sources = if self.paths == ["-"] {
                vec![Source { name: "stdin".to_owned(), kind: SourceKind::Stdin }]
            } else {
                let files = FileSource { paths: self.paths.clone(), ..FileSource::default() };
                vec![Source { name: "audit".to_owned(), kind: SourceKind::File(files) }]
            };
        }
        if let Some(dir) = &self.state_dir {
            config.state_dir = Some(dir.clone());
        }
        if !self.rules.is_empty() {
            config.rules.clone_from(&self.rules);
        }
        if let (Some(listen), Some(server)) = (self.listen, &mut config.server) {
            server.listen = listen;
        }
        if let Some(lines) = self.format {
            for sink in &mut config.sinks {
                if let Kind::Stdout(stdout) = &mut sink.kind {
                    stdout.format = if lines == Lines::Json { Format::Json } else { Format::Text };
                }
            }
        }
        for source in &mut config.sources {
            if let SourceKind::File(files) = &mut source.kind
                && files.paths.is_empty()
            {
                let Some(usual) = USUAL_PATHS.iter().find(|path| Path::new(path).exists()) else {
                    bail!(
                        "no audit log at a usual place ({}); name one (pullwatch run PATH), or a configuration (--config)",
                        USUAL_PATHS.join(", ")
                    );
                };
                files.paths = vec![(*usual).to_owned()];
            }
        }
        // The pipeline numbers sources with those of files first.
        config.sources.sort_by_key(|source| !matches!(source.kind, SourceKind::File(_)));
        Ok(config)
    }
}

/// As many open files as the system allows: a folder may hold many rotated logs at the first start, and each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Starts everything, waits for a signal, and ends everything in order.
async fn work(
    config: Config,
    dir: &Path,
    mut store: Store,
    first_rules: pipeline::Rules,
    loading: rules::Loading,
    signals: Signals,
) -> anyhow::Result<()> {
    let source_names: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
    let exact = kafka::exact_sink(&config).map(|sink| sink.name.clone());
    let mut sink_names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let forgotten = store.keep_sinks(&sink_names)?;
    if forgotten > 0 {
        tracing::warn!(
            sinks = forgotten,
            "sinks that are no longer configured: what they did not deliver stays undelivered"
        );
    }
    if exact.is_some() {
        // Transactions need no cursor, and one that does not move would hold up the rest.
        sink_names.retain(|name| Some(*name) != exact.as_deref());
        store.keep_sinks(&sink_names)?;
    }
    let metrics = Metrics::new(&source_names)?;
    let status = Arc::new(Status::default());
    let (inbox, messages) = mpsc::channel();
    let (news, newest) = watch::channel(store.newest()?);
    let is_woken = Arc::new(AtomicBool::new(false));
    let should_stop = Arc::new(AtomicBool::new(false));

    let mut files = Vec::new();
    let mut webhooks = Vec::new();
    let mut receivers = Vec::new();
    for (at, source) in config.sources.iter().enumerate() {
        let mut counts = None;
        match &source.kind {
            SourceKind::File(kind) => {
                let position = store.position(&source.name)?;
                let start_at = if kind.from_end { StartAt::End } else { StartAt::Beginning };
                files.push(pipeline::FileSource {
                    name: source.name.clone(),
                    files: Files::new(&kind.paths, start_at, config.max_event_size, position.as_deref()),
                    poll: kind.poll,
                    look_at: Instant::now(),
                });
            }
            SourceKind::Webhook(kind) => {
                let own = WebhookMetrics::new(metrics.clone(), &source.name);
                let settings = components::webhook_settings(kind);
                let (receiver, deliveries) = Receiver::start(settings, Arc::new(own.clone()))?;
                tracing::info!(source = source.name, address = %receiver.address(), "receiving audit events");
                components::forward(at, deliveries, inbox.clone());
                receivers.push(receiver);
                counts = Some(own);
            }
            // They need the sinks' cursors, and come last.
            SourceKind::Kafka(_) => {}
            SourceKind::Stdin => {
                let is_only = config.sources.len() == 1;
                components::read_stdin(at, config.max_event_size, is_only, inbox.clone());
            }
        }
        webhooks.push(counts);
    }
    let mut folders = DirectoryWatcher::new({
        let (inbox, is_woken) = (inbox.clone(), is_woken.clone());
        move || {
            if !is_woken.swap(true, Ordering::AcqRel) {
                // The pipeline may have ended.
                let _ = inbox.send(Message::Wake);
            }
        }
    });
    folders.watch(files.iter().flat_map(|source| source.files.directories()));

    let mut pipeline = Pipeline {
        store,
        retention: store::Retention {
            max_age: Some(config.store.max_age),
            max_bytes: Some(config.store.max_size),
            ..store::Retention::default()
        },
        files,
        names: source_names,
        webhooks,
        transactions: None,
        shared: pipeline::Shared::default(),
        should_stop: should_stop.clone(),
        inbox: messages,
        is_woken,
        news,
        metrics: metrics.clone(),
        status: status.clone(),
        mind: pipeline::Mind::default(),
    };
    // Before the pipeline, so that settings that cannot work end it before anything is judged.
    let sinks = components::deliver(&config, dir, &newest, &metrics, &status)?;
    let consumers = kafka::consume(&config, dir, &pipeline.store, &inbox, &metrics, &status)?;
    pipeline.transactions = kafka::transactions(&config, dir, &consumers, &metrics, &should_stop)?;
    pipeline.shared.queue = kafka::exchange(&config, dir, &consumers, &metrics, &should_stop);
    if !consumers.is_empty() && pipeline.shared.queue.is_none() && !first_rules.set.correlations.is_empty() {
        tracing::info!(
            "correlations look at what this replica reads: with several in the group, set `correlate` at the kafka source"
        );
    }
    let version = first_rules.set.version.clone();
    let (ended, pipeline_ended) = tokio::sync::oneshot::channel();
    let worker = std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || {
        let result = pipeline.run(first_rules);
        // Nobody may be left to hear it.
        let _ = ended.send(result);
    })?;
    let server = components::serve(&config, dir, metrics.clone(), status.clone(), newest.clone())?;
    let reloading = rules::watch(loading, version, inbox.clone(), metrics.clone(), status.clone());
    tracing::info!(state_dir = %dir.display(), "running");

    let result = signals.wait(pipeline_ended, &reloading, &sinks).await;
    for receiver in &receivers {
        receiver.drain();
    }
    consumers.iter().for_each(Consumer::drain);
    should_stop.store(true, Ordering::Release);
    let _ = inbox.send(Message::Stop);
    let joined = tokio::task::spawn_blocking(move || worker.join()).await;
    for receiver in receivers {
        receiver.stop(GRACE).await;
    }
    sinks.stop().await;
    if let Some(sink) = exact {
        // Without transactions, some day, it would go on here.
        Cursor::open(dir, &sink, Start::Newest)?;
    }
    for consumer in consumers {
        consumer.stop(GRACE).await;
    }
    if let Some(server) = server {
        server.stop(GRACE).await;
    }
    drop(folders);
    result?;
    if !matches!(joined, Ok(Ok(()))) {
        bail!(
            "the pipeline failed in the middle; what it did not store its sources have still. Please report this as a bug"
        );
    }
    Ok(())
}
