//! Loads rules at the start, and reloads them when their files change or on request.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::status::LoadedRules;
use super::{Context, kafka};
use crate::daemon::config::Config;
use crate::daemon::inventory;
use crate::daemon::pipeline::{Message, Rules};
use crate::daemon::source::watch::PathWatcher;
use crate::detection::audit::redact::RedactionKey;
use crate::detection::detector::Options;
use crate::detection::rules::ast::RuleSet;
use crate::detection::rules::{self, Loaded, Matching, Severity, SourceFile};
use crate::text::name_patterns::NamePatterns;

/// Time without changes after which rule files are reloaded: editors write a file in several steps, and tools several files.
const QUIET_PERIOD: Duration = Duration::from_millis(300);

/// How often inventory files are checked.
const INVENTORY_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Reads all rule files from disk: those at the given paths, or the default ones if there are none.
pub(crate) type ReadRuleFiles = Arc<dyn Fn(&[PathBuf]) -> anyhow::Result<Vec<SourceFile>> + Send + Sync>;

/// Where rules are read from, and how they are evaluated.
#[derive(Clone)]
pub(crate) struct RuleLoader {
    read: ReadRuleFiles,
    /// Configured rule files and directories; empty for the defaults.
    paths: Vec<PathBuf>,
    matching: Matching,
    options: Options,
    /// Configured inventory files.
    inventory: Vec<PathBuf>,
    state_dir: PathBuf,
}

/// The rules whose events a sink delivers.
fn event_rules(config: &Config) -> anyhow::Result<NamePatterns> {
    Ok(NamePatterns::new(config.sinks.iter().flat_map(|sink| &sink.events).map(String::as_str))?)
}

impl RuleLoader {
    /// # Errors If the inventory cannot be read.
    pub(crate) fn new(
        config: &Config,
        state_dir: &Path,
        hostname: String,
        read: ReadRuleFiles,
    ) -> anyhow::Result<Self> {
        let options = Options {
            matching: config.matching,
            minimum: config.priority,
            max_event_size: config.max_event_size,
            limits: config.limits,
            hostname,
            labels: config.labels.clone(),
            repeats_fields: true,
            event_rules: event_rules(config)?,
            networks: config.networks.clone(),
            repartition: kafka::repartition_settings(config),
            inventory: inventory::load_with_imported(&config.inventory, state_dir)?,
            ..Options::default()
        };
        Ok(RuleLoader {
            read,
            paths: config.rules.clone(),
            matching: config.matching,
            options,
            inventory: config.inventory.clone(),
            state_dir: state_dir.to_owned(),
        })
    }

    /// A copy with the settings of a changed configuration. Settings that require a restart keep their values.
    fn reconfigured(&self, config: &Config) -> Self {
        RuleLoader {
            read: self.read.clone(),
            paths: config.rules.clone(),
            matching: config.matching,
            options: Options {
                matching: config.matching,
                minimum: config.priority,
                limits: config.limits,
                labels: config.labels.clone(),
                networks: config.networks.clone(),
                // Patterns that do not compile are reported as an error of their sink.
                event_rules: event_rules(config).unwrap_or_default(),
                ..self.options.clone()
            },
            inventory: config.inventory.clone(),
            state_dir: self.state_dir.clone(),
        }
    }

    /// Sets the key of the hashes of redacted values.
    pub(crate) fn set_redaction_key(&mut self, key: RedactionKey) {
        self.options.redaction_key = key;
    }

    /// The pipeline's input for loaded rules.
    pub(crate) fn with_options(&self, set: RuleSet) -> Rules {
        Rules { set, options: self.options.clone() }
    }

    /// Reads and loads the rules and the inventory. Returns `None` if both are unchanged: the rules have this `version`, and the inventory
    /// is the one in use.
    ///
    /// # Errors
    /// The diagnostics if the rules are invalid, or the reason why the inventory cannot be read.
    fn reload(&mut self, version: &str) -> Result<Option<Rules>, String> {
        let files = (self.read)(&self.paths).map_err(|error| format!("{error:#}"))?;
        let loaded = rules::load(&files, &rules::Options { matching: self.matching });
        let errors: Vec<_> =
            loaded.diagnostics.iter().filter(|one| one.severity == Severity::Error).cloned().collect();
        if !errors.is_empty() {
            return Err(rules::render(&errors, &files, false));
        }
        if let Some(reason) = loaded.why_empty() {
            return Err(format!("no rule to evaluate: {reason}"));
        }
        let inventory = inventory::load_with_imported(&self.inventory, &self.state_dir)
            .map_err(|error| format!("{error:#}"))?;
        let is_new = *loaded.rules.version != *version || self.options.inventory != inventory;
        if *loaded.rules.version != *version {
            warn_of_skipped(&loaded);
        }
        self.options.inventory = inventory;
        Ok(is_new.then(|| self.with_options(loaded.rules)))
    }

    /// The latest modification time of the inventory files.
    fn inventory_times(&self) -> Vec<Option<(SystemTime, u64)>> {
        let imported = inventory::imported_path(&self.state_dir);
        let times = self.inventory.iter().chain([&imported]).map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        });
        times.collect()
    }

    /// The directories in which changes may affect the rules.
    fn directories(&self) -> Vec<PathBuf> {
        let default = PathBuf::from("rules.d");
        let paths = if self.paths.is_empty() { std::slice::from_ref(&default) } else { &self.paths };
        let directory = |path: &PathBuf| {
            if path.is_dir() { Some(path.clone()) } else { path.parent().map(std::path::Path::to_owned) }
        };
        paths.iter().filter_map(directory).filter(|directory| directory.is_dir()).collect()
    }
}

/// Logs which rules are not evaluated because of their source.
pub(crate) fn warn_of_skipped(loaded: &Loaded) {
    if let Some(skipped) = loaded.skipped() {
        tracing::warn!("{skipped}; see `pullwatch rules check`");
    }
}

/// Reloads rules on request. Watches their directories until it is dropped.
pub(super) struct RuleReloader {
    requested: Arc<Notify>,
    watcher: Mutex<PathWatcher>,
    /// The current loader, and whether its settings changed since the last reload.
    loader: Arc<Mutex<(RuleLoader, bool)>>,
}

impl RuleReloader {
    pub(super) fn request(&self) {
        self.requested.notify_one();
    }

    /// Reloads the rules with the settings of this configuration.
    pub(super) fn reconfigure(&self, config: &Config) {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        *loader = (loader.0.reconfigured(config), true);
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).watch_all_of(loader.0.directories());
        self.requested.notify_one();
    }
}

/// Reloads rules when their files change, and sends valid ones to the pipeline. If they are invalid, the current rules stay in use.
pub(super) fn watch(
    context: &Context<'_>,
    loader: RuleLoader,
    mut version: Arc<str>,
    loaded: LoadedRules,
) -> RuleReloader {
    let (inbox, handles) = (context.inbox.clone(), context.handles.clone());
    let requested = Arc::new(Notify::new());
    let has_changed = Arc::new(AtomicBool::new(false));
    let mut watcher = PathWatcher::new({
        let (requested, has_changed) = (requested.clone(), has_changed.clone());
        move || {
            has_changed.store(true, Ordering::Release);
            requested.notify_one();
        }
    });
    watcher.watch_all_of(loader.directories());
    let mut times = loader.inventory_times();
    let loader = Arc::new(Mutex::new((loader, false)));
    tokio::spawn({
        let (requested, loader) = (requested.clone(), loader.clone());
        async move {
            loop {
                // Inventories may be in directories with frequent changes, such as the state directory.
                while tokio::time::timeout(INVENTORY_POLL_INTERVAL, requested.notified()).await.is_err() {
                    let now = loader.lock().unwrap_or_else(PoisonError::into_inner).0.inventory_times();
                    if std::mem::replace(&mut times, now) != times {
                        break;
                    }
                }
                while has_changed.swap(false, Ordering::AcqRel) {
                    tokio::time::sleep(QUIET_PERIOD).await;
                }
                let (mut own, has_other_settings) = {
                    let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
                    (loader.0.clone(), std::mem::take(&mut loader.1))
                };
                // Every version differs from the empty one.
                let current = if has_other_settings { Arc::from("") } else { version.clone() };
                let reload = tokio::task::spawn_blocking(move || {
                    let reloaded = own.reload(&current);
                    (own, reloaded)
                });
                let reload = reload.await.map(|(own, reloaded)| {
                    let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
                    loader.0.options.inventory = own.options.inventory;
                    // Settings that could not be applied now are applied with the next valid rules.
                    loader.1 |= has_other_settings && reloaded.is_err();
                    reloaded
                });
                match reload {
                    Ok(Ok(Some(rules))) => {
                        version = rules.set.version.clone();
                        loaded.set(&rules);
                        handles.status.rules_stale.store(false, Ordering::Relaxed);
                        if inbox.send(Message::ReloadRules(Box::new(rules))).is_err() {
                            return;
                        }
                    }
                    Ok(Ok(None)) => handles.status.rules_stale.store(false, Ordering::Relaxed),
                    Ok(Err(diagnostics)) => {
                        handles.metrics.rules_reloaded(false);
                        handles.status.rules_stale.store(true, Ordering::Relaxed);
                        tracing::error!(
                            "invalid rules or inventory; the previous ones stay in use:\n{diagnostics}"
                        );
                    }
                    Err(error) => tracing::error!(%error, "the reload of rules panicked"),
                }
            }
        }
    });
    RuleReloader { requested, watcher: Mutex::new(watcher), loader }
}
