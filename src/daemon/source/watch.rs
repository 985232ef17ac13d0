//! Hears of changes in folders, where the kernel tells of them.
//!
//! Whoever listens looks for itself what changed: a notice may be lost or late, and some file systems send none, so that
//! looking now and then is needed anyway.

use std::collections::BTreeSet;
use std::path::PathBuf;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Watches folders, and calls back when something in one changes.
#[derive(Debug)]
pub struct DirectoryWatcher {
    /// Nothing where the kernel has no more watches to give: then whoever asks looks now and then.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl DirectoryWatcher {
    /// Calls `on_change` at each change, on a thread of its own.
    pub fn new(on_change: impl Fn() + Send + 'static) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading changes nothing; whatever is unclear may be a change.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                on_change();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the kernel does not tell of changes of files; looking now and then instead");
        }
        DirectoryWatcher { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches these folders from now on, and no others.
    pub fn watch(&mut self, folders: impl IntoIterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = folders.into_iter().collect();
        for folder in self.watched.difference(&wanted) {
            // One that is gone is watched no more anyway.
            let _ = watcher.unwatch(folder);
        }
        let mut watched: BTreeSet<PathBuf> = self.watched.intersection(&wanted).cloned().collect();
        for folder in wanted.difference(&self.watched) {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(folder.clone())),
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "cannot watch a folder; looking now and then");
                }
            }
        }
        self.watched = watched;
    }
}
