//! Composes the daemon, runs it until a signal arrives, and shuts it down in order.
//!
//! In: a configuration, an open store, rules, signals. Out: a running pipeline between sources and sinks, with a port for metrics, health
//! checks and alerts. There is one file per component; each has a function that starts it from the [`Context`].

mod alert_log;
mod health;
mod kafka;
mod reload;
mod rules;
mod server;
mod signals;
mod sinks;
mod sources;
mod status;
mod stdin;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::bail;
use sd_notify::NotifyState;
use tokio::sync::watch;

pub(crate) use reload::ReadConfig;
pub(crate) use rules::{RuleLoader, warn_of_skipped};
pub(crate) use signals::Signals;

use crate::daemon::config::Config;
use crate::daemon::metrics::{self, Metrics};
use crate::daemon::pipeline::{Handles, Message, Pipeline, Rules, Status};
use crate::daemon::source::kafka::Consumer;
use crate::daemon::store::{self, Cursor, SinkStart, Store};

/// Time that each component has to finish its work on shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The context from which components are started.
struct Context<'a> {
    config: &'a Config,
    state_dir: &'a Path,
    handles: Handles,
    /// The pipeline's input.
    inbox: Sender<Message>,
    /// `seq` of the latest alert in the store.
    latest_seq: watch::Receiver<i64>,
}

/// Runs the daemon. The order of the starts matters: invalid settings end it before anything is evaluated.
pub(crate) async fn run(
    config: &Config,
    state_dir: &Path,
    mut store: Store,
    initial_rules: Rules,
    loader: RuleLoader,
    read_config: ReadConfig,
    signals: Signals,
) -> anyhow::Result<()> {
    let transactional_sink = kafka::transactional_sink(config).map(|sink| sink.name.clone());
    register_sinks(&mut store, config, transactional_sink.as_deref())?;
    let source_names: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
    let (inbox, messages) = mpsc::channel();
    let (latest_seq, latest_seq_receiver) = watch::channel(store.latest_seq()?);
    let context = Context {
        config,
        state_dir,
        handles: Handles {
            metrics: Metrics::with_settings(&source_names, &metrics_settings(config))?,
            status: Arc::new(Status::default()),
            should_stop: Arc::new(AtomicBool::new(false)),
            wake_pending: Arc::new(AtomicBool::new(false)),
        },
        inbox,
        latest_seq: latest_seq_receiver,
    };

    let (sources, receivers) = sources::start(&context, &store)?;
    let mut sinks = sinks::start(&context)?;
    let consumers = kafka::start_consumers(&context, &store)?;
    let transactions = kafka::transactions(&context, &consumers)?;
    let exchange = kafka::exchange(&context, &consumers);
    if !consumers.is_empty() && exchange.is_none() && !initial_rules.set.correlations.is_empty() {
        tracing::info!(
            "correlations see only the events of this replica; with several replicas in the group, set `correlate` at the kafka source"
        );
    }
    let retention = store::Retention {
        max_age: Some(config.store.max_age),
        max_bytes: Some(config.store.max_size),
        ..store::Retention::default()
    };
    let mut pipeline =
        Pipeline::new(store, retention, sources, messages, latest_seq, context.handles.clone());
    pipeline.set_kafka(transactions, exchange);
    let version = initial_rules.set.version.clone();
    let loaded_rules = status::LoadedRules::default();
    loaded_rules.set(&initial_rules);
    let configured_sinks = status::ConfiguredSinks::default();
    configured_sinks.set(&config.sinks);
    let (ended, pipeline_ended) = tokio::sync::oneshot::channel();
    let worker = std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || {
        // After a signal, the receiver is dropped.
        let _ = ended.send(pipeline.run(initial_rules));
    })?;
    let reloader = rules::watch(&context, loader, version, loaded_rules.clone());
    let mut reload =
        reload::Reload::new(config.clone(), read_config, context.handles.clone(), &reloader, &mut sinks)
            .shown_as(configured_sinks.clone());
    // Last, so that when a client gets an answer, the metrics are initialized and rule changes are watched.
    let server = server::start(&context, loaded_rules, configured_sinks)?;
    tracing::info!(state_dir = %state_dir.display(), "running");
    notify_service_manager(NotifyState::Ready);

    let result = signals.wait(pipeline_ended, &mut reload).await;
    notify_service_manager(NotifyState::Stopping);

    // Sources first, so that nothing new arrives; then the pipeline, so that the sinks have all alerts; then the sinks, so that Kafka
    // offsets that depend on deliveries can be committed.
    receivers.iter().for_each(webhook::Receiver::drain);
    consumers.iter().for_each(Consumer::drain);
    context.handles.should_stop.store(true, Ordering::Release);
    let _ = context.inbox.send(Message::Stop);
    let joined = tokio::task::spawn_blocking(move || worker.join()).await;
    for receiver in receivers {
        receiver.stop(SHUTDOWN_GRACE).await;
    }
    sinks.stop().await;
    if let Some(sink) = transactional_sink {
        // If transactions are turned off later, the sink continues from here.
        Cursor::open(state_dir, &sink, SinkStart::Newest)?;
    }
    for consumer in consumers {
        consumer.stop(SHUTDOWN_GRACE).await;
    }
    if let Some(server) = server {
        server.stop(SHUTDOWN_GRACE).await;
    }
    result?;
    if !matches!(joined, Ok(Ok(()))) {
        bail!(
            "the pipeline panicked; events that were not stored will be read again from their sources. Please report this as a bug"
        );
    }
    Ok(())
}

fn metrics_settings(config: &Config) -> metrics::Settings {
    metrics::Settings {
        identities: config.metrics.identities,
        labels: if config.metrics.labels { config.labels.clone() } else { Vec::new() },
    }
}

/// Reports the service state to systemd (`Type=notify`), if the environment contains `NOTIFY_SOCKET`.
fn notify_service_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot report the state to systemd");
    }
}

/// Removes the cursors of sinks that are no longer configured, which would count as a backlog.
fn register_sinks(
    store: &mut Store,
    config: &Config,
    transactional_sink: Option<&str>,
) -> Result<(), store::Error> {
    let mut names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let removed = store.keep_sinks(&names)?;
    if removed > 0 {
        tracing::warn!(
            sinks = removed,
            "removed sinks that are no longer configured; alerts they had not delivered stay undelivered"
        );
    }
    if transactional_sink.is_some() {
        // Its cursor would never move, and block everything that waits for all sinks.
        names.retain(|name| Some(*name) != transactional_sink);
        store.keep_sinks(&names)?;
    }
    Ok(())
}
