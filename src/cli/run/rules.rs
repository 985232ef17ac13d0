//! Rules: read at the start, and again when they change or somebody asks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::super::rule_files;
use crate::daemon::config::Config;
use crate::daemon::metrics::Metrics;
use crate::daemon::pipeline::{Message, Rules, Status};
use crate::daemon::source::watch::DirectoryWatcher;
use crate::detection::detector::Options;
use crate::detection::rules::{self, Matching, Severity};

/// Whoever edits rules writes a file in several steps, and several files: they are read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(300);

/// Where rules come from, and how they are judged by.
#[derive(Clone, Debug)]
pub struct Loading {
    paths: Vec<PathBuf>,
    matching: Matching,
    options: Options,
}

impl Loading {
    /// As the configuration says.
    pub fn new(config: &Config, hostname: String) -> Self {
        let options = Options {
            matching: config.matching,
            minimum: config.priority,
            max_event_size: config.max_event_size,
            hostname,
            repartition: super::kafka::exchange_settings(config),
            ..Options::default()
        };
        Loading { paths: config.rules.clone(), matching: config.matching, options }
    }

    /// Reads the rules. Errors are shown, and end it.
    pub fn load(&self) -> anyhow::Result<Rules> {
        let files = rule_files::read(&self.paths)?;
        let loaded = rule_files::load_files(&files, self.matching)?;
        tracing::info!(rules = loaded.rules.rules.len(), version = %loaded.rules.version, "rules are in use");
        Ok(Rules { set: loaded.rules, options: self.options.clone() })
    }

    /// Reads the rules while others are in use: what is wrong is said in the log. Nothing where they are the same.
    fn reload(&self, before: &str) -> Result<Option<Rules>, String> {
        let files = rule_files::read(&self.paths).map_err(|error| format!("{error:#}"))?;
        let loaded = rules::load(&files, &rules::Options { matching: self.matching });
        let wrong: Vec<_> =
            loaded.diagnostics.iter().filter(|one| one.severity == Severity::Error).cloned().collect();
        if !wrong.is_empty() {
            return Err(rules::render(&wrong, &files, false));
        }
        let is_new = *loaded.rules.version != *before;
        Ok(is_new.then(|| Rules { set: loaded.rules, options: self.options.clone() }))
    }

    fn folders(&self) -> Vec<PathBuf> {
        let default = PathBuf::from("rules.d");
        let named = if self.paths.is_empty() { std::slice::from_ref(&default) } else { &self.paths };
        let folder = |path: &PathBuf| {
            if path.is_dir() { Some(path.clone()) } else { path.parent().map(std::path::Path::to_owned) }
        };
        named.iter().filter_map(folder).filter(|folder| folder.is_dir()).collect()
    }
}

/// Reads rules again when told to.
#[derive(Debug)]
pub struct Reloading {
    asked: Arc<Notify>,
    /// Watches for as long as this is there.
    _folders: Mutex<DirectoryWatcher>,
}

impl Reloading {
    /// Somebody asks for it.
    pub fn ask(&self) {
        self.asked.notify_one();
    }
}

/// Reads the rules again when they change, and hands sound ones to the pipeline. Broken ones leave those in use alone.
pub fn watch(
    loading: Loading,
    mut version: Arc<str>,
    inbox: Sender<Message>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
) -> Reloading {
    let asked = Arc::new(Notify::new());
    let changed = Arc::new(AtomicBool::new(false));
    let mut folders = DirectoryWatcher::new({
        let (asked, changed) = (asked.clone(), changed.clone());
        move || {
            changed.store(true, Ordering::Release);
            asked.notify_one();
        }
    });
    folders.watch(loading.folders());
    tokio::spawn({
        let asked = asked.clone();
        async move {
            loop {
                asked.notified().await;
                while changed.swap(false, Ordering::AcqRel) {
                    tokio::time::sleep(QUIET).await;
                }
                let (own, before) = (loading.clone(), version.clone());
                // Reads files.
                let read = tokio::task::spawn_blocking(move || own.reload(&before)).await;
                match read {
                    Ok(Ok(Some(rules))) => {
                        version = rules.set.version.clone();
                        tracing::info!(rules = rules.set.rules.len(), %version, "new rules are in use");
                        metrics.rules_reloaded(true);
                        status.rules_are_old.store(false, Ordering::Relaxed);
                        if inbox.send(Message::Rules(Box::new(rules))).is_err() {
                            return;
                        }
                    }
                    Ok(Ok(None)) => status.rules_are_old.store(false, Ordering::Relaxed),
                    Ok(Err(error)) => {
                        metrics.rules_reloaded(false);
                        status.rules_are_old.store(true, Ordering::Relaxed);
                        tracing::error!("the new rules are broken, the old ones stay in use:\n{error}");
                    }
                    Err(error) => tracing::error!(%error, "reading the rules failed"),
                }
            }
        }
    });
    Reloading { asked, _folders: Mutex::new(folders) }
}
