//! The sources of a pipeline, by index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event_yield::EventYield;
use crate::daemon::metrics::WebhookMetrics;
use crate::daemon::source::files::Files;
use crate::daemon::source::watch::{PathWatcher, Targets};
use crate::detection::detector::LogContext;

/// Maximum time between two reads of a file while change notifications are not sufficient.
const PAUSED_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// All sources. File sources come first, so that a file source has the same index in `names` and in `files`.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(super) names: Vec<String>,
    pub(super) files: Vec<FollowedSource>,
    /// Statistics on audit events among the records, by index of the source.
    pub(super) yields: Vec<EventYield>,
    /// By index of the source; `None` for sources that are not webhooks.
    webhooks: Vec<Option<WebhookMetrics>>,
    /// Metadata of the source's log, by index of the source.
    logs: Vec<Arc<LogContext>>,
    /// Watches logs, and the directories in which they are expected.
    watcher: Option<PathWatcher>,
}

/// A source that follows log files.
#[derive(Debug)]
pub(super) struct FollowedSource {
    pub(super) name: String,
    pub(super) files: Files,
    /// How often the files are read if no change notification arrives.
    pub(super) poll_interval: Duration,
    pub(super) next_poll: Instant,
    /// More than one batch was left unread after the last read.
    pub(super) is_behind: bool,
}

impl Sources {
    /// Adds a source of files. Must be called before sources of other kinds are added.
    pub(crate) fn add_files(&mut self, name: &str, log: LogContext, files: Files, poll_interval: Duration) {
        debug_assert_eq!(self.names.len(), self.files.len(), "file sources come first");
        self.files.push(FollowedSource {
            name: name.to_owned(),
            files,
            poll_interval,
            next_poll: Instant::now(),
            is_behind: false,
        });
        self.add(name, log);
    }

    pub(crate) fn add_webhook(&mut self, name: &str, log: LogContext, metrics: WebhookMetrics) {
        self.names.push(name.to_owned());
        self.logs.push(Arc::new(log));
        self.yields.push(EventYield::default());
        self.webhooks.push(Some(metrics));
    }

    /// Adds a source of any other kind.
    pub(crate) fn add(&mut self, name: &str, log: LogContext) {
        self.names.push(name.to_owned());
        self.logs.push(Arc::new(log));
        self.yields.push(EventYield::default());
        self.webhooks.push(None);
    }

    pub(super) fn name(&self, source: usize) -> String {
        self.names.get(source).cloned().unwrap_or_default()
    }

    /// Metadata of a source's log.
    pub(super) fn log(&self, source: usize) -> Arc<LogContext> {
        self.logs.get(source).cloned().unwrap_or_default()
    }

    pub(super) fn webhook_metrics(&self, source: usize) -> Option<&WebhookMetrics> {
        self.webhooks.get(source)?.as_ref()
    }

    /// Makes all file sources due.
    pub(super) fn poll_now(&mut self) {
        let now = Instant::now();
        self.files.iter_mut().for_each(|source| source.next_poll = now);
    }

    pub(crate) fn set_watcher(&mut self, watcher: PathWatcher) {
        self.watcher = Some(watcher);
        self.watch();
    }

    /// Watches the logs and directories that exist now.
    pub(super) fn watch(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut targets = Targets::default();
        for source in &self.files {
            source.files.add_watch_targets(&mut targets);
        }
        let has_new = watcher.watch(targets);
        if watcher.needs_polling() {
            let at = Instant::now() + PAUSED_POLL_INTERVAL;
            self.files.iter_mut().for_each(|source| source.next_poll = source.next_poll.min(at));
        }
        if has_new {
            // Before it was watched, a file may have been written, renamed or created.
            self.poll_now();
        }
    }
}
