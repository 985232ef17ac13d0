//! Calls back when a file changes, using the kernel's notifications (inotify, kqueue).
//!
//! A notification only means that something may have changed. Notifications can be lost, late or unsupported (network file systems), so
//! callers poll as well.
//!
//! For a watched directory, the kernel reports every write to every file in it, and `notify` cannot restrict this. So files are watched
//! individually, and a directory only while a file is expected in it. A directory with frequent writes to other files is temporarily not
//! watched.

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
    /// Directories in which files may be created, removed or renamed. Other changes to a file in them are not reported, unless the file is
    /// one of `files`.
    pub directories: BTreeSet<PathBuf>,
}

/// When watching a directory is too expensive.
#[derive(Clone, Copy, Debug)]
struct BusyLimit {
    /// Minimum time for which a directory is watched.
    period: Duration,
    /// Maximum number of notifications per second about other files, on average over this time.
    rate: u64,
    /// Time for which it is then not watched.
    pause: Duration,
}

/// 1,000 notifications per second cost less than 1 % of a core. A directory with files that are written at full speed, which costs 25 %, is
/// watched for 10 seconds out of 10 minutes.
const BUSY_LIMIT: BusyLimit =
    BusyLimit { period: Duration::from_secs(10), rate: 1_000, pause: Duration::from_secs(600) };

impl BusyLimit {
    /// Number of notifications about other files after which a sleeping caller is called, to determine whether the directory is too busy.
    fn notifications(self) -> u64 {
        (self.rate * self.period.as_secs()).max(1)
    }
}

#[derive(Debug)]
pub struct PathWatcher {
    /// `None` if the kernel has no watches left: callers only poll.
    watcher: Option<RecommendedWatcher>,
    /// One path for each watched file: the kernel has one watch for all its paths, which is removed with any of them.
    watched: HashMap<FileId, PathBuf>,
    /// Watched directories, with the starts of the periods in which their notifications are counted.
    periods: BTreeMap<PathBuf, Instant>,
    /// Directories that are not watched until the given time.
    paused: BTreeMap<PathBuf, Instant>,
    needs_polling: bool,
    limit: BusyLimit,
    shared: Arc<Mutex<Shared>>,
}

/// State of `notify`'s thread. The lock is not held while a request to that thread is pending, because the thread may wait for the lock.
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
    /// The names of a watched file may have changed, for which there is no other notification.
    is_unclear: bool,
}

impl Shared {
    /// Whether to report an event.
    fn note(&mut self, event: &notify::Event, limit: BusyLimit) -> bool {
        if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
            // Includes paths below them.
            let is_lost = |watched: &&PathBuf| event.paths.iter().any(|path| watched.starts_with(path));
            self.lost.extend(self.watched.keys().filter(is_lost).cloned());
        }
        // Reading a file changes nothing; any unclear event may be a change.
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

    /// Replaces the watched paths by these directories. Everything that happens in them is reported.
    pub fn watch_all_of(&mut self, directories: impl IntoIterator<Item = PathBuf>) {
        lock(&self.shared).reports_all = true;
        self.watch(Targets { directories: directories.into_iter().collect(), ..Targets::default() });
    }

    /// Replaces the watched paths. Returns whether any of them was not watched before, so that earlier changes to it were not notified.
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
                // The directory reports that change.
                Err(_) => directories.extend(file.parent().map(Path::to_owned)),
            }
        }
        // A file with several names may have lost this one.
        self.needs_polling = is_unclear;
        for path in directories {
            // It may have been removed since the caller saw it; then its parent directory reports when it is created again.
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
        // Last, so that either the file or its directory is watched at any time.
        self.release(|_, id| !wanted.contains(&id));
        !wanted.is_subset(&before)
    }

    /// Whether to poll soon: because a directory is not watched while other files in it are busy, or because a name may have just been
    /// removed.
    pub fn needs_polling(&self) -> bool {
        self.needs_polling
    }

    /// Finds directories with too many notifications about other files, and those whose pause has ended.
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
        // `notify` has one watch per path: this one belonged to another file before.
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
                // Fails for a removed file, whose watch ended with it.
                let _ = watcher.unwatch(path);
                lock(shared).watched.remove(path);
                periods.remove(path);
            }
            is_wanted
        });
    }
}

/// The reason why a path is not watched.
#[derive(Clone, Copy, Debug)]
enum Unwatched {
    Missing,
    /// It is not readable, or the kernel has no watches left.
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

/// The file at a path. Linux reports the removal of a file before its name is gone, when its link count is already 0.
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
            // A sleeping caller is notified of it.
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
        // Written under the other name.
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
        // File systems reuse the number of a removed file.
        for round in 0..50 {
            fs::write(&file, "").unwrap();
            watcher.watch(targets(&[&file], &[]));
            // With and without a watch of the directory, because the watch of the file is lost in different ways.
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

    /// The caller sleeps until it is called, updates the watches, and checks the file, like a follower without polling.
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
                        // It may not exist yet.
                        let _ = fs::remove_dir_all(if round % 2 == 0 { &root } else { &directory });
                        for _ in 0..round % 20 {
                            std::thread::yield_now();
                        }
                        fs::create_dir_all(&directory).unwrap();
                        // It appears with its content, which is not reported for a directory.
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
