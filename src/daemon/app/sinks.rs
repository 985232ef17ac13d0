//! Starts the sinks, and applies other settings while they run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::{Context, SHUTDOWN_GRACE, kafka};
use crate::daemon::pipeline::Status;
use crate::daemon::sink::deliveries;
use crate::daemon::sink::resend::Resender;
use crate::daemon::sink::resolve::{self, ResolveFeed};
use crate::daemon::sink::{
    DeliveryObserver as _, Reopen, Sink, SinkConfig, SinkError, SinkMetrics, StoreFeed,
};
use crate::daemon::store::Cursor;

/// Running sinks.
pub(super) struct Sinks {
    running: Vec<Running>,
    starter: Starter,
}

/// One running sink.
struct Running {
    config: SinkConfig,
    stop: watch::Sender<bool>,
    reopen: Reopen,
    task: tokio::task::JoinHandle<()>,
    /// Resolves the incidents that the sink opens.
    resolving: Option<tokio::task::JoinHandle<()>>,
    /// Sends active alerts again.
    resending: Option<tokio::task::JoinHandle<()>>,
}

/// A sink whose settings were checked.
struct Checked {
    sink: Sink,
    config: SinkConfig,
    resolving: Option<(Sink, ResolveFeed, Duration)>,
    resender: Option<Resender>,
}

/// The context from which sinks are started.
struct Starter {
    state_dir: PathBuf,
    metrics: SinkMetrics,
    latest_seq: watch::Receiver<i64>,
    status: Arc<Status>,
    /// Name of the sink whose alerts are committed in Kafka transactions.
    transactional: Option<String>,
}

impl Starter {
    /// Checks the settings of a sink.
    fn check(&self, config: &SinkConfig) -> anyhow::Result<Checked> {
        let sink = self.sink(config.clone())?;
        let resolving = match resolve::resolving(config) {
            None => None,
            Some((other, after)) => {
                Some((self.sink(other)?, ResolveFeed::new(&self.state_dir, config, after)?, after))
            }
        };
        let resender = sink.resender(&self.metrics).with_context(|| format!("sink {}", config.name))?;
        Ok(Checked { sink, config: config.clone(), resolving, resender })
    }

    fn sink(&self, config: SinkConfig) -> anyhow::Result<Sink> {
        let mut config = SinkConfig { grace: SHUTDOWN_GRACE, ..config };
        if let Some(dead_letter) = &mut config.dead_letter {
            dead_letter.path = self.state_dir.join(&dead_letter.path);
        }
        let name = config.name.clone();
        let sink = Sink::new(config, &self.metrics).with_context(|| format!("sink {name}"))?;
        Ok(sink.observed_by(self.status.clone()))
    }

    fn start(&self, checked: Checked) -> Running {
        let Checked { sink, config, resolving, resender } = checked;
        let feed = || StoreFeed::new(self.state_dir.clone(), config.name.clone());
        let (stop, stop_requested) = watch::channel(false);
        let reopen = sink.reopen();
        let resolving = resolving.map(|(sink, feed, after)| {
            let (ticks, due) = watch::channel(0);
            tokio::spawn(resolve::tick(ticks, after));
            self.spawn(resolve::resolving_name(&config.name), sink.run(feed, due, stop_requested.clone()))
        });
        let resending = resender.map(|resender| {
            resender.keep_in(&self.state_dir);
            tokio::spawn(resender.run(feed(), stop_requested.clone()))
        });
        let run = sink.run(feed(), self.latest_seq.clone(), stop_requested);
        let task = self.spawn(config.name.clone(), run);
        Running { config, stop, reopen, task, resolving, resending }
    }

    fn spawn(
        &self,
        name: String,
        run: impl Future<Output = Result<(), SinkError>> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let status = self.status.clone();
        tokio::spawn(async move {
            if let Err(error) = run.await {
                status.set_sink_ended(&name);
                tracing::error!(%error, "sink ended; its alerts are kept in the store");
            }
        })
    }
}

impl Running {
    /// Lets the sink deliver the stored alerts within its grace period, and waits for its end.
    async fn stop(self) {
        // If there is no receiver, it has ended.
        let _ = self.stop.send(true);
        // A panic was reported by the panic hook.
        let _ = self.task.await;
        for task in [self.resolving, self.resending].into_iter().flatten() {
            let _ = task.await;
        }
    }
}

impl Sinks {
    /// Makes file sinks reopen their path.
    pub(super) fn reopen(&self) {
        self.running.iter().for_each(|sink| sink.reopen.reopen());
    }

    /// Lets all sinks deliver the stored alerts within their grace periods, and waits for their end.
    pub(super) async fn stop(self) {
        for sink in &self.running {
            let _ = sink.stop.send(true);
        }
        for sink in self.running {
            sink.stop().await;
        }
    }

    /// Applies new settings: stops changed and removed sinks, and starts changed and new ones. A sink continues at its cursor. Returns the
    /// number of changed sinks.
    ///
    /// # Errors
    /// If settings cannot work; then nothing was changed.
    pub(super) async fn apply(&mut self, configs: &[SinkConfig]) -> anyhow::Result<usize> {
        let is_ours = |config: &&SinkConfig| Some(&config.name) != self.starter.transactional.as_ref();
        let is_running = |config: &SinkConfig| self.running.iter().any(|sink| sink.config == *config);
        let mut new = Vec::new();
        for config in configs.iter().filter(is_ours).filter(|config| !is_running(config)) {
            new.push(self.starter.check(config)?);
        }
        let (kept, ended): (Vec<Running>, Vec<Running>) =
            std::mem::take(&mut self.running).into_iter().partition(|sink| configs.contains(&sink.config));
        self.running = kept;
        let removed: Vec<String> = ended.iter().map(|sink| sink.config.name.clone()).collect();
        let changed = new.len()
            + removed.iter().filter(|name| !new.iter().any(|new| new.config.name == **name)).count();
        for sink in &ended {
            let _ = sink.stop.send(true);
        }
        for sink in ended {
            sink.stop().await;
        }
        for name in removed {
            let resolving = resolve::resolving_name(&name);
            for name in [&name, &resolving] {
                self.starter.status.recovered(name);
                self.starter.status.forget_ended_sink(name);
            }
            if configs.iter().all(|config| config.name != name) {
                self.starter.metrics.forget(&name);
                self.starter.metrics.forget(&resolving);
                let (dir, sink) = (self.starter.state_dir.clone(), name.clone());
                let removed = tokio::task::spawn_blocking(move || {
                    // Without the cursor all alerts are delivered again, so the remaining state is not needed.
                    let _ = std::fs::remove_file(deliveries::file(&dir, &sink));
                    Cursor::remove(&dir, &sink)
                });
                let removed = removed.await;
                if let Ok(Err(error)) = removed {
                    tracing::warn!(%error, sink = name, "cannot remove the cursor of a removed sink");
                }
            }
        }
        for checked in new {
            self.running.push(self.starter.start(checked));
        }
        Ok(changed)
    }
}

/// Checks the settings of all sinks, then starts them, except for the sink whose alerts the pipeline commits in Kafka transactions.
pub(super) fn start(context: &Context<'_>) -> anyhow::Result<Sinks> {
    let starter = Starter {
        state_dir: context.state_dir.to_owned(),
        metrics: SinkMetrics::new(&context.handles.metrics),
        latest_seq: context.latest_seq.clone(),
        status: context.handles.status.clone(),
        transactional: kafka::transactional_sink(context.config).map(|sink| sink.name.clone()),
    };
    let configs =
        context.config.sinks.iter().filter(|sink| Some(&sink.name) != starter.transactional.as_ref());
    let checked: Vec<Checked> = configs.map(|config| starter.check(config)).collect::<anyhow::Result<_>>()?;
    let running = checked.into_iter().map(|checked| starter.start(checked)).collect();
    Ok(Sinks { running, starter })
}
