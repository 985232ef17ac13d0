//! Calls back when something in a directory changes, by the kernel's notifications (inotify, kqueue).
//!
//! A notification says only that something may have changed. Notifications can be lost, late or unsupported (network file
//! systems), so callers poll as well.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::follow::FileId;
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

#[derive(Debug)]
pub struct DirectoryWatcher {
    /// `None` if the kernel has no watches left: callers only poll.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, FileId>,
    /// Beginnings of the names of files whose content matters; all if empty.
    names: Arc<RwLock<Vec<OsString>>>,
}

/// Whether an event says only that the content of other files changed.
fn is_neighbor(event: &notify::Event, names: &[OsString]) -> bool {
    let is_content = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
    let is_one_of_ours = |path: &PathBuf| {
        path.file_name().is_none_or(|file| {
            names.iter().any(|name| file.as_encoded_bytes().starts_with(name.as_encoded_bytes()))
        })
    };
    is_content && !names.is_empty() && !event.paths.is_empty() && !event.paths.iter().any(is_one_of_ours)
}

impl DirectoryWatcher {
    /// `on_change` is called at each change, on another thread.
    pub fn new(on_change: impl Fn() + Send + 'static) -> Self {
        let names: Arc<RwLock<Vec<OsString>>> = Arc::default();
        let watcher = notify::recommended_watcher({
            let names = names.clone();
            move |event: notify::Result<notify::Event>| {
                // An access changes nothing; anything unclear may be a change.
                if let Ok(event) = &event
                    && (matches!(event.kind, EventKind::Access(_))
                        || is_neighbor(event, &names.read().unwrap_or_else(PoisonError::into_inner)))
                {
                    return;
                }
                on_change();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "file notifications are not available; polling instead");
        }
        DirectoryWatcher { watcher: watcher.ok(), watched: BTreeMap::new(), names }
    }

    /// Ignores changes of the content of files whose name starts with none of these. Created, removed and renamed files are always
    /// reported: one may be a rotated log. All files are reported if `names` is empty.
    pub fn set_names(&self, names: Vec<OsString>) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Replaces the watched directories. Returns whether a directory is watched now that was not before: what happened in it until
    /// then was not notified.
    pub fn watch(&mut self, directories: impl IntoIterator<Item = PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        // A directory that was removed and created again is another one, and has to be watched again.
        let wanted: BTreeMap<PathBuf, FileId> = directories
            .into_iter()
            .filter_map(|directory| FileId::of(&directory).ok().map(|id| (directory, id)))
            .collect();
        self.watched.retain(|directory, id| {
            let is_wanted = wanted.get(directory) == Some(id);
            if !is_wanted {
                // Fails for a directory that was removed: the kernel has forgotten it.
                let _ = watcher.unwatch(directory);
            }
            is_wanted
        });
        let mut has_new = false;
        for (directory, id) in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    has_new = true;
                    self.watched.insert(directory, id);
                }
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), %error, "cannot watch a directory; polling it");
                }
            }
        }
        has_new
    }
}
