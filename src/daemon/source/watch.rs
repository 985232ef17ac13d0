//! Calls back when something in a directory changes, by the kernel's notifications (inotify, kqueue).
//!
//! A notification says only that something may have changed. Notifications can be lost, late or unsupported (network file
//! systems), so callers poll as well.

use std::collections::BTreeSet;
use std::path::PathBuf;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

#[derive(Debug)]
pub struct DirectoryWatcher {
    /// `None` if the kernel has no watches left: callers only poll.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl DirectoryWatcher {
    /// `on_change` is called at each change, on another thread.
    pub fn new(on_change: impl Fn() + Send + 'static) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An access changes nothing; anything unclear may be a change.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                on_change();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "file notifications are not available; polling instead");
        }
        DirectoryWatcher { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Replaces the watched directories.
    pub fn watch(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<PathBuf> = directories.into_iter().collect();
        for directory in self.watched.difference(&wanted) {
            // A directory that was removed is not watched any more.
            let _ = watcher.unwatch(directory);
        }
        let mut watched: BTreeSet<PathBuf> = self.watched.intersection(&wanted).cloned().collect();
        for directory in wanted.difference(&self.watched) {
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(directory.clone())),
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), %error, "cannot watch a directory; polling it");
                }
            }
        }
        self.watched = watched;
    }
}
