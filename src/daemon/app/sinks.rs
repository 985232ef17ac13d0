//! Starts the sinks.

use anyhow::Context as _;
use tokio::sync::watch;

use super::{Context, SHUTDOWN_GRACE, kafka};
use crate::daemon::sink::{Reopen, Sink, SinkConfig, SinkMetrics, StoreFeed};

/// Running sinks.
pub(super) struct Sinks {
    stop: watch::Sender<bool>,
    reopen: Vec<Reopen>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Sinks {
    /// Makes file sinks open their path again.
    pub(super) fn reopen(&self) {
        self.reopen.iter().for_each(Reopen::reopen);
    }

    /// Lets the sinks deliver what is stored, within their grace period, and waits for their end.
    pub(super) async fn stop(self) {
        // No receiver means that all of them have ended.
        let _ = self.stop.send(true);
        for task in self.tasks {
            // A panic was reported by the panic hook.
            let _ = task.await;
        }
    }
}

/// Checks the settings of all sinks, then starts them. The sink whose alerts are committed in Kafka transactions is left to the
/// pipeline.
pub(super) fn start(context: &Context<'_>) -> anyhow::Result<Sinks> {
    let metrics = SinkMetrics::new(&context.handles.metrics);
    let (stop, stop_requested) = watch::channel(false);
    let transactional = kafka::transactional_sink(context.config).map(|sink| &sink.name);
    let configs: Vec<&SinkConfig> =
        context.config.sinks.iter().filter(|sink| Some(&sink.name) != transactional).collect();
    let mut sinks = Vec::new();
    for config in &configs {
        let mut config = SinkConfig { grace: SHUTDOWN_GRACE, ..(*config).clone() };
        if let Some(dead_letter) = &mut config.dead_letter {
            dead_letter.path = context.state_dir.join(&dead_letter.path);
        }
        let name = config.name.clone();
        sinks.push(Sink::new(config, &metrics).with_context(|| format!("sink {name}"))?);
    }
    let reopen = sinks.iter().map(Sink::reopen).collect();
    let mut tasks = Vec::new();
    for (sink, config) in sinks.into_iter().zip(configs) {
        let feed = StoreFeed::new(context.state_dir.to_owned(), config.name.clone());
        let (latest_seq, stop_requested) = (context.latest_seq.clone(), stop_requested.clone());
        let (status, name) = (context.handles.status.clone(), config.name.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = sink.run(feed, latest_seq, stop_requested).await {
                status.set_sink_ended(&name);
                tracing::error!(%error, "sink ended; its alerts are kept in the store");
            }
        }));
    }
    Ok(Sinks { stop, reopen, tasks })
}
