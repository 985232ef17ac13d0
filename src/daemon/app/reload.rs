//! Reloads the configuration on SIGHUP.
//!
//! Sinks, filters, labels, limits and rules are applied without loss: a sink that changed is stopped and started again, and continues at
//! its cursor. Changes that need a restart are listed in one log line. An invalid configuration changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rules::RuleReloader;
use super::sinks::Sinks;
use super::status::ConfiguredSinks;
use crate::daemon::config::{Config, SourceKind};
use crate::daemon::pipeline::Handles;

/// Reloads the configuration.
pub(crate) type ReadConfig = Arc<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

pub(super) struct Reload<'a> {
    /// The configuration in use.
    current: Config,
    read: ReadConfig,
    handles: Handles,
    rules: &'a RuleReloader,
    sinks: &'a mut Sinks,
    /// The state that the server shows.
    configured_sinks: ConfiguredSinks,
}

impl<'a> Reload<'a> {
    pub(super) fn new(
        current: Config,
        read: ReadConfig,
        handles: Handles,
        rules: &'a RuleReloader,
        sinks: &'a mut Sinks,
    ) -> Self {
        handles.metrics.config_reloaded(true);
        Reload { current, read, handles, rules, sinks, configured_sinks: ConfiguredSinks::default() }
    }

    /// Updates the sinks that the server shows.
    pub(super) fn shown_as(mut self, configured_sinks: ConfiguredSinks) -> Self {
        self.configured_sinks = configured_sinks;
        self
    }

    /// Reads the configuration and applies what changed.
    pub(super) async fn run(&mut self) {
        let read = self.read.clone();
        let result = match tokio::task::spawn_blocking(move || read()).await {
            Ok(Ok(config)) => self.apply(config).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!("reading it panicked")),
        };
        self.sinks.reopen();
        self.handles.metrics.config_reloaded(result.is_ok());
        self.handles.status.config_stale.store(result.is_err(), Ordering::Relaxed);
        if let Err(error) = result {
            tracing::error!("invalid configuration; the previous one stays in use: {error:#}");
            // Rule changes are detected separately.
            self.rules.request();
        }
    }

    async fn apply(&mut self, config: Config) -> anyhow::Result<()> {
        let waits_for_deliveries =
            self.current.sources.iter().any(|source| matches!(source.kind, SourceKind::Kafka(_)));
        let mut needs_restart = needs_restart(&self.current, &config);
        let names =
            |config: &Config| -> Vec<String> { config.sinks.iter().map(|sink| sink.name.clone()).collect() };
        let mut next = self.current.clone();
        if waits_for_deliveries && names(&self.current) != names(&config) {
            // Offsets are committed when all sinks that the daemon was started with have delivered.
            needs_restart.push("names of sinks");
        } else {
            let changed = self.sinks.apply(&config.sinks).await?;
            next.sinks.clone_from(&config.sinks);
            self.configured_sinks.set(&config.sinks);
            if changed > 0 {
                tracing::info!(changed, "sinks reloaded");
            }
        }
        next.rules.clone_from(&config.rules);
        next.inventory.clone_from(&config.inventory);
        next.labels.clone_from(&config.labels);
        (next.matching, next.priority, next.limits) = (config.matching, config.priority, config.limits);
        if next == self.current {
            self.rules.request();
        } else {
            self.rules.reconfigure(&next);
        }
        self.current = next;
        if needs_restart.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(
                "configuration reloaded; restart to apply changes of: {}",
                needs_restart.join(", ")
            );
        }
        Ok(())
    }
}

/// The keys whose changes require a restart.
fn needs_restart(current: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("state_dir", current.state_dir != new.state_dir),
        ("sources", current.sources != new.sources),
        ("max_event_size", current.max_event_size != new.max_event_size),
        ("server", current.server != new.server),
        ("store", current.store != new.store),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
