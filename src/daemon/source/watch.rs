//! Calls back when a file changes, by the kernel's notifications (inotify, kqueue).
//!
//! A notification says only that something may have changed. Notifications can be lost, late or unsupported (network file
//! systems), so callers poll as well.
//!
//! For a watched directory the kernel notifies of every write to every file in it, and `notify` cannot ask it for less. So files are
//! watched themselves, and a directory as long as a file is expected in it. One in which other files are busy is not watched for a
//! while.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::follow::FileId;
use notify::event::ModifyKind;
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Files whose content matters.
    pub files: BTreeSet<PathBuf>,
    /// Directories in which files may be created, removed or renamed. What else happens to a file in them is not reported, unless it
    /// is one of `files`.
    pub directories: BTreeSet<PathBuf>,
}

/// When a directory costs too much.
#[derive(Clone, Copy, Debug)]
struct BusyLimit {
    /// Time for which a directory is watched at least.
    period: Duration,
    /// Notifications per second about other files, on average of this time.
    rate: u64,
    /// Time for which it is not watched then.
    pause: Duration,
}

/// 1,000 notifications per second cost less than 1 % of a core. A directory whose files are written at full speed, which costs 25 %, is
/// watched for 10 seconds of 10 minutes.
const BUSY_LIMIT: BusyLimit =
    BusyLimit { period: Duration::from_secs(10), rate: 1_000, pause: Duration::from_secs(600) };

impl BusyLimit {
    /// Number of notifications about other files after which a sleeping caller is called, to find out whether the directory is busy.
    fn notifications(self) -> u64 {
        (self.rate * self.period.as_secs()).max(1)
    }
}

#[derive(Debug)]
pub struct PathWatcher {
    /// `None` if the kernel has no watches left: callers only poll.
    watcher: Option<RecommendedWatcher>,
    /// One path for each watched file: the kernel has one watch for all of its paths, which ends with any of them.
    watched: HashMap<FileId, PathBuf>,
    /// Watched directories, and the starts of the periods in which their notifications are counted.
    periods: BTreeMap<PathBuf, Instant>,
    /// Directories that are not watched until then.
    paused: BTreeMap<PathBuf, Instant>,
    needs_polling: bool,
    limit: BusyLimit,
    shared: Arc<Mutex<Shared>>,
}

/// What the thread of `notify` knows. The lock is not held while that thread is asked for something, since it waits for the lock.
#[derive(Debug, Default)]
struct Shared {
    /// Everything that happens in a watched directory is reported.
    reports_all: bool,
    /// Files whose content matters, watched or not.
    files: BTreeSet<PathBuf>,
    /// Number of notifications about other files, for each watched path.
    watched: HashMap<PathBuf, u64>,
    /// Watched paths that were removed or renamed. `notify` drops the watch of such a path, even if it belongs to another file by now.
    lost: HashSet<PathBuf>,
    /// The names of a watched file may have changed, of which there is no other notification.
    is_unclear: bool,
}

impl Shared {
    /// Whether to report an event.
    fn note(&mut self, event: &notify::Event, limit: BusyLimit) -> bool {
        if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
            // Also of those below it.
            let is_lost = |watched: &&PathBuf| event.paths.iter().any(|path| watched.starts_with(path));
            self.lost.extend(self.watched.keys().filter(is_lost).cloned());
        }
        // An access changes nothing; anything unclear may be a change.
        let is_access = matches!(event.kind, EventKind::Access(_));
        if self.reports_all {
            return !is_access;
        }
        let is_ours = |path: &PathBuf| self.watched.contains_key(path) || self.files.contains(path);
        if event.paths.is_empty() || event.paths.iter().any(is_ours) {
            self.is_unclear |= matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
            return !is_access;
        }
        let directories = event.paths.iter().filter_map(|path| path.parent());
        let is_of_content =
            matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
        let mut is_busy = false;
        for directory in directories {
            if let Some(notifications) = self.watched.get_mut(directory) {
                *notifications += 1;
                is_busy |= notifications.is_multiple_of(limit.notifications());
            }
        }
        is_busy || !is_access && !is_of_content
    }
}

impl PathWatcher {
    /// `on_change` is called at each change, on another thread.
    pub fn new(on_change: impl Fn() + Send + 'static) -> Self {
        Self::with_limit(on_change, BUSY_LIMIT)
    }

    fn with_limit(on_change: impl Fn() + Send + 'static, limit: BusyLimit) -> Self {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let watcher = notify::recommended_watcher({
            let shared = shared.clone();
            move |event: notify::Result<notify::Event>| {
                if event.is_err() || event.is_ok_and(|event| lock(&shared).note(&event, limit)) {
                    on_change();
                }
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "file notifications are not available; polling instead");
        }
        PathWatcher {
            watcher: watcher.ok(),
            watched: HashMap::new(),
            periods: BTreeMap::new(),
            paused: BTreeMap::new(),
            needs_polling: false,
            limit,
            shared,
        }
    }

    /// Replaces what is watched by these directories. Everything that happens in them is reported.
    pub fn watch_all_of(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        lock(&self.shared).reports_all = true;
        self.watch(Targets { directories: directories.into_iter().collect(), ..Targets::default() });
    }

    /// Replaces what is watched. Returns whether something is watched now that was not before: what happened to it until then was
    /// not notified.
    pub fn watch(&mut self, targets: Targets) -> bool {
        if self.watcher.is_none() {
            return false;
        }
        let Targets { files, mut directories } = targets;
        let (lost, is_unclear) = {
            let mut shared = lock(&self.shared);
            shared.files.clone_from(&files);
            (std::mem::take(&mut shared.lost), std::mem::take(&mut shared.is_unclear))
        };
        self.pause_busy();
        // A path that was removed and created again is another file, and has to be watched again.
        self.release(|path, id| lost.contains(path) || file_at(path).ok() != Some(id));
        let before: HashSet<FileId> = self.watched.keys().copied().collect();
        let mut wanted = HashSet::new();
        for file in &files {
            match self.add(file) {
                Ok(id) => _ = wanted.insert(id),
                // The directory notifies of the change of that.
                Err(_) => directories.extend(file.parent().map(Path::to_owned)),
            }
        }
        // A file with several names may have lost this one.
        self.needs_polling = is_unclear;
        for path in directories {
            // It may have been removed since the caller saw it: then the one above notifies of its creation.
            for directory in path.ancestors() {
                if self.paused.contains_key(directory) {
                    self.needs_polling = true;
                    break;
                }
                match self.add(directory) {
                    Ok(id) => {
                        wanted.insert(id);
                        if let Some(path) = self.watched.get(&id) {
                            self.periods.entry(path.clone()).or_insert_with(Instant::now);
                        }
                        break;
                    }
                    Err(Unwatched::Refused) => break,
                    Err(Unwatched::Missing) => {}
                }
            }
        }
        // Last, so that there is no time in which neither the file nor its directory is watched.
        self.release(|_, id| !wanted.contains(&id));
        !wanted.is_subset(&before)
    }

    /// Whether to poll soon: a directory is not watched because other files in it are busy, or a name may just be removed.
    pub fn needs_polling(&self) -> bool {
        self.needs_polling
    }

    /// Finds directories in which other files are busy, and those whose pause is over.
    fn pause_busy(&mut self) {
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        let mut shared = lock(&self.shared);
        for (directory, since) in &mut self.periods {
            let elapsed = now.duration_since(*since);
            if elapsed < self.limit.period {
                continue;
            }
            let notifications = shared.watched.get_mut(directory).map(std::mem::take).unwrap_or_default();
            *since = now;
            if u128::from(notifications) * 1_000_000 >= u128::from(self.limit.rate) * elapsed.as_micros() {
                tracing::debug!(directory = %directory.display(), notifications, "other files in a directory are busy; polling it");
                self.paused.insert(directory.clone(), now + self.limit.pause);
            }
        }
    }

    /// Watches a path, and returns its file.
    fn add(&mut self, path: &Path) -> Result<FileId, Unwatched> {
        let id = file_at(path).map_err(|error| Unwatched::from(&error))?;
        if self.watched.contains_key(&id) {
            return Ok(id);
        }
        // `notify` has one watch for each path: this one belonged to another file until now.
        self.release(|watched, _| watched == path);
        let Some(watcher) = &mut self.watcher else { return Err(Unwatched::Refused) };
        // Before it is watched, so that its removal cannot be missed.
        lock(&self.shared).watched.insert(path.to_owned(), 0);
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(id, path.to_owned());
                Ok(id)
            }
            Err(error) => {
                lock(&self.shared).watched.remove(path);
                tracing::debug!(path = %path.display(), %error, "cannot watch a path; polling it");
                Err(match &error.kind {
                    ErrorKind::PathNotFound => Unwatched::Missing,
                    ErrorKind::Io(error) => Unwatched::from(error),
                    _ => Unwatched::Refused,
                })
            }
        }
    }

    /// Stops watching.
    fn release(&mut self, is_obsolete: impl Fn(&Path, FileId) -> bool) {
        let Some(watcher) = &mut self.watcher else { return };
        let (shared, periods) = (&self.shared, &mut self.periods);
        self.watched.retain(|id, path| {
            let is_wanted = !is_obsolete(path, *id);
            if !is_wanted {
                // Fails for a file that was removed: its watch ended with it.
                let _ = watcher.unwatch(path);
                lock(shared).watched.remove(path);
                periods.remove(path);
            }
            is_wanted
        });
    }
}

/// Why a path is not watched.
#[derive(Clone, Copy, Debug)]
enum Unwatched {
    Missing,
    /// It may not be read, or the kernel has no watches left.
    Refused,
}

impl From<&io::Error> for Unwatched {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unwatched::Missing,
            _ => Unwatched::Refused,
        }
    }
}

/// The file of a path. Linux notifies of the removal of a file before its name is gone: then it has no names by its own account.
fn file_at(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path)?;
    if metadata.nlink() == 0 && !metadata.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(FileId::from(&metadata))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::sync::mpsc;

    use super::*;

    fn targets(files: &[&Path], directories: &[&Path]) -> Targets {
        let owned = |paths: &[&Path]| paths.iter().map(|path| path.to_path_buf()).collect();
        Targets { files: owned(files), directories: owned(directories) }
    }

    #[test]
    fn a_directory_is_not_watched_for_a_while_if_other_files_in_it_are_busy() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let limit =
            BusyLimit { period: Duration::from_millis(20), rate: 1, pause: Duration::from_millis(300) };
        let (sender, changes) = mpsc::channel();
        let mut watcher = PathWatcher::with_limit(move || _ = sender.send(()), limit);
        let wanted = targets(&[], &[directory]);
        let neighbor = fs::File::create(directory.join("neighbor")).unwrap();
        assert!(watcher.watch(wanted.clone()));
        std::thread::sleep(limit.period * 2);
        watcher.watch(wanted.clone());
        assert!(!watcher.needs_polling(), "nothing happened in it");
        while !watcher.needs_polling() {
            (&neighbor).write_all(b"text").unwrap();
            // A caller that is asleep learns of it.
            changes.recv().unwrap();
            watcher.watch(wanted.clone());
        }
        assert!(watcher.watched.is_empty());
        // Until the pause is over.
        while !watcher.watch(wanted.clone()) {
            assert!(watcher.needs_polling());
            std::thread::yield_now();
        }
        assert!(!watcher.needs_polling());
    }

    #[test]
    fn what_was_removed_before_it_is_watched_is_noticed_when_it_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("logs/audit");
        let file = directory.join("audit.log");
        for wanted in [targets(&[], &[&directory]), targets(&[&file], &[])] {
            let (sender, changes) = mpsc::channel();
            let mut watcher = PathWatcher::new(move || _ = sender.send(()));
            assert!(watcher.watch(wanted.clone()));
            assert!(!watcher.watch(wanted));
            fs::create_dir_all(&directory).unwrap();
            changes.recv().unwrap();
            fs::remove_dir_all(folder.path().join("logs")).unwrap();
        }
    }

    #[test]
    fn a_file_with_two_names_is_watched_until_neither_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        fs::write(&first, "").unwrap();
        fs::hard_link(&first, &second).unwrap();
        let (sender, changes) = mpsc::channel();
        let mut watcher = PathWatcher::new(move || _ = sender.send(()));
        assert!(watcher.watch(targets(&[&first, &second], &[])));
        assert!(!watcher.watch(targets(&[&second], &[])));
        // Written through the other name.
        fs::write(&first, "text").unwrap();
        changes.recv().unwrap();
        fs::remove_file(&first).unwrap();
        // Its watch ended with the name.
        while !watcher.watch(targets(&[&second], &[])) {
            std::thread::yield_now();
        }
        while changes.try_recv().is_ok() {}
        fs::write(&second, "more").unwrap();
        changes.recv().unwrap();
    }

    #[test]
    fn a_file_that_is_removed_and_created_again_is_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.log");
        let (sender, changes) = mpsc::channel();
        let mut watcher = PathWatcher::new(move || _ = sender.send(()));
        // File systems use the number of a removed file again.
        for round in 0..50 {
            fs::write(&file, "").unwrap();
            watcher.watch(targets(&[&file], &[]));
            // With and without a watch of the directory: each loses the watch of the file in another way.
            if round % 2 == 0 {
                watcher.watch(targets(&[&file], &[folder.path()]));
            }
            fs::remove_file(&file).unwrap();
            changes.recv().unwrap();
            fs::write(&file, "").unwrap();
            while changes.recv_timeout(Duration::from_millis(10)).is_ok() {}
            watcher.watch(targets(&[&file], &[]));
            fs::write(&file, "text").unwrap();
            changes.recv().unwrap();
            fs::remove_file(&file).unwrap();
        }
    }

    /// The caller sleeps until it is called, watches again, and looks, as a follower does without its poll.
    #[test]
    fn a_directory_that_is_removed_and_created_again_is_noticed_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("logs");
        let directory = root.join("audit");
        let file = directory.join("audit.log");
        for wanted in [targets(&[&file], &[]), targets(&[], &[&directory]), targets(&[&file], &[&directory])]
        {
            let (sender, changes) = mpsc::channel();
            let mut watcher = PathWatcher::new(move || _ = sender.send(()));
            for round in 0..300 {
                let content = round.to_string();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        // It may not be there yet.
                        let _ = fs::remove_dir_all(if round % 2 == 0 { &root } else { &directory });
                        for _ in 0..round % 20 {
                            std::thread::yield_now();
                        }
                        fs::create_dir_all(&directory).unwrap();
                        // Appears with its content: that is not notified for a directory.
                        fs::write(root.join("new"), &content).unwrap();
                        fs::rename(root.join("new"), &file).unwrap();
                    });
                    while !fs::read_to_string(&file).is_ok_and(|text| text == content) {
                        if !watcher.watch(wanted.clone()) {
                            changes.recv().unwrap();
                        }
                    }
                });
            }
        }
    }
}
