//! The logs of one file source: expands its names and patterns again at every scan, and follows each log through rotation.
//!
//! Takes names, patterns and the stored position; returns buffers of whole records and the position to store. This module opens no file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::discover;
use super::follow::{Checkpoint, Fingerprint, Incident, LogFollower, ReadStep, StartAt};
use super::input::Input;
use super::rotation;
use super::watch::Targets;

#[derive(Debug)]
pub struct Files {
    names: Vec<OsString>,
    start_at: StartAt,
    max_record: usize,
    logs: BTreeMap<PathBuf, LogFollower>,
    /// Checkpoints of the last run, for logs that were not found yet.
    previous: BTreeMap<PathBuf, Vec<Checkpoint>>,
    /// Time since which no file of a log exists.
    missing_since: BTreeMap<PathBuf, Instant>,
    forget_after: Duration,
    is_first_scan: bool,
    /// Directories of plain names, and whether they existed at the last scan.
    directory_exists: BTreeMap<PathBuf, bool>,
    incidents: Vec<Incident>,
}

/// A log that matched a pattern is forgotten if none of its files existed for this long. Until then it may reappear, for example after a
/// volume was remounted.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Maximum number of symbolic links from a path to its file, as in Linux.
const MAX_LINKS: usize = 40;

/// The stored form (JSON) of a checkpoint.
#[derive(Serialize, Deserialize)]
struct StoredCheckpoint {
    device: u64,
    inode: u64,
    length: u32,
    hash: [u8; 32],
    offset: u64,
    size: u64,
    done: bool,
    #[serde(default)]
    in_skipped_line: bool,
}

impl Files {
    /// `position` is what the last run stored. If it is unreadable, all logs start over.
    pub fn new(names: &[String], start_at: StartAt, max_record: usize, position: Option<&[u8]>) -> Self {
        let stored: BTreeMap<PathBuf, Vec<StoredCheckpoint>> =
            position.and_then(|position| serde_json::from_slice(position).ok()).unwrap_or_default();
        let before = stored
            .into_iter()
            .map(|(path, checkpoints)| (path, checkpoints.into_iter().map(Checkpoint::from).collect()))
            .collect();
        Files {
            // Absolute, so that the stored position remains valid if the working directory changes.
            names: names
                .iter()
                .map(|name| std::path::absolute(name).map_or_else(|_| name.into(), PathBuf::into_os_string))
                .collect(),
            start_at,
            max_record,
            logs: BTreeMap::new(),
            previous: before,
            missing_since: BTreeMap::new(),
            forget_after: FORGET_AFTER,
            is_first_scan: true,
            directory_exists: BTreeMap::new(),
            incidents: Vec::new(),
        }
    }

    /// Expands names and patterns, and lists the files of each log.
    pub fn rescan(&mut self) {
        self.check_directories();
        let (inputs, _) = discover::inputs(&self.names);
        let found = inputs.into_iter().filter_map(|input| match input {
            Input::File(path) => Some(rotation::live(&path)),
            Input::Stdin => None,
        });
        // A plain name that does not exist yet is followed as well.
        let plain = self.names.iter().map(PathBuf::from).filter(|path| !is_pattern(path) && !path.is_dir());
        let plain: Vec<PathBuf> = plain.collect();
        for live in found.chain(plain.iter().cloned()).collect::<Vec<_>>() {
            if !self.logs.contains_key(&live) {
                // A log that appears after the first scan was written after it.
                let start_at = if self.is_first_scan { self.start_at } else { StartAt::Beginning };
                let checkpoints = self.previous.remove(&live).unwrap_or_default();
                let start_at = if checkpoints.is_empty() { start_at } else { StartAt::Beginning };
                self.logs
                    .insert(live.clone(), LogFollower::new(live, start_at, self.max_record, checkpoints));
            }
        }
        self.is_first_scan = false;
        for log in self.logs.values_mut() {
            log.rescan();
        }
        self.forget(&plain);
    }

    /// Forgets logs that no longer exist, except those that were configured by name.
    fn forget(&mut self, named: &[PathBuf]) {
        let left = |path: &PathBuf, log: Option<&LogFollower>| {
            log.is_some_and(|log| !log.is_gone()) || named.contains(path)
        };
        let all = self.logs.keys().chain(self.previous.keys());
        let missing: Vec<PathBuf> = all.filter(|path| !left(path, self.logs.get(*path))).cloned().collect();
        self.missing_since.retain(|path, _| missing.contains(path));
        for path in missing {
            let since = self.missing_since.entry(path.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= self.forget_after {
                self.logs.remove(&path);
                self.previous.remove(&path);
                self.missing_since.remove(&path);
            }
        }
    }

    /// Appends the next records of any log to the empty `buffer`.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> ReadStep {
        for log in self.logs.values_mut() {
            match log.next(buffer) {
                ReadStep::Idle => {}
                step => return step,
            }
        }
        ReadStep::Idle
    }

    /// The position up to which everything was returned, which must be stored together with the results.
    pub fn position(&self) -> Vec<u8> {
        let checkpoints = self.logs.iter().map(|(path, log)| (path, log.checkpoints()));
        let before = self.previous.iter().map(|(path, checkpoints)| (path, checkpoints.clone()));
        let all: BTreeMap<&PathBuf, Vec<StoredCheckpoint>> = checkpoints
            .chain(before)
            // A path that is not UTF-8 cannot be stored as JSON; such a log starts over after a restart.
            .filter(|(path, _)| path.to_str().is_some())
            .map(|(path, checkpoints)| (path, checkpoints.into_iter().map(StoredCheckpoint::from).collect()))
            .collect();
        // Serializing numbers and strings cannot fail.
        serde_json::to_vec(&all).unwrap_or_default()
    }

    /// Adds the paths to watch for changes: the logs, and the directories in which files of this source may appear.
    pub fn add_watch_targets(&self, targets: &mut Targets) {
        let mut named = BTreeSet::new();
        for name in &self.names {
            let path = PathBuf::from(name);
            if path.is_dir() {
                targets.directories.insert(path);
            } else if is_pattern(&path) {
                targets.directories.extend(existing_directory(&path));
            } else {
                named.insert(rotation::live(&path));
                named.insert(path);
            }
        }
        for (path, log) in &self.logs {
            targets.files.extend(log.rotated_paths().map(Path::to_owned));
            if !named.contains(path) {
                // Another log may appear next to it.
                targets.directories.extend(existing_directory(path));
            }
        }
        for path in named.into_iter().chain(self.logs.keys().cloned()) {
            add_links(&path, targets);
            targets.files.insert(path);
        }
    }

    /// A directory of a log that does not exist.
    pub fn missing_directory(&self) -> Option<&Path> {
        self.directory_exists.iter().find(|(_, exists)| !**exists).map(|(directory, _)| directory.as_path())
    }

    /// Checks the directories of plain names. Open files of a removed directory can still be read, but nothing new appears in it.
    fn check_directories(&mut self) {
        let names = self.names.iter().map(Path::new).filter(|name| !is_pattern(name));
        for directory in names.filter_map(Path::parent) {
            let exists = directory.is_dir();
            let existed = self.directory_exists.insert(directory.to_owned(), exists);
            if existed == Some(true) && !exists {
                self.incidents.push(Incident::DirectoryRemoved(directory.to_owned()));
            }
        }
    }

    /// Bytes on disk that were not returned yet.
    pub fn lag(&self) -> u64 {
        self.logs.values().map(LogFollower::lag).sum()
    }

    /// Problems that prevent reading new events of a log, with the reason.
    pub fn unreadable(&self) -> Option<(&Path, &str)> {
        self.logs.values().find_map(LogFollower::unreadable)
    }

    /// Whether a log file exists and is open.
    pub fn is_open(&self) -> bool {
        self.logs.values().any(LogFollower::is_open)
    }

    /// Problems since the last call.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        let mut incidents = std::mem::take(&mut self.incidents);
        incidents.extend(self.logs.values_mut().flat_map(LogFollower::take_incidents));
        incidents
    }
}

/// The directory of a path, or its nearest existing ancestor, so that the creation of the others is noticed.
fn existing_directory(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned)
}

/// Adds the directories of the symbolic links from a path to its file, which the kernel does not watch along with the file, and the
/// directory of the file if it does not exist.
fn add_links(path: &Path, targets: &mut Targets) {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = std::fs::read_link(&path).ok();
        if link.is_some() || !path.exists() {
            targets.directories.extend(existing_directory(&path));
        }
        let Some(target) = link else { return };
        // An absolute target replaces the whole path.
        path = path.with_file_name(target);
    }
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[', '{'])
}

impl From<StoredCheckpoint> for Checkpoint {
    fn from(checkpoint: StoredCheckpoint) -> Self {
        Checkpoint {
            device: checkpoint.device,
            inode: checkpoint.inode,
            start: Fingerprint { length: checkpoint.length, hash: checkpoint.hash },
            offset: checkpoint.offset,
            size: checkpoint.size,
            is_finished: checkpoint.done,
            in_skipped_line: checkpoint.in_skipped_line,
        }
    }
}

impl From<Checkpoint> for StoredCheckpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        StoredCheckpoint {
            device: checkpoint.device,
            inode: checkpoint.inode,
            length: checkpoint.start.length,
            hash: checkpoint.start.hash,
            offset: checkpoint.offset,
            size: checkpoint.size,
            done: checkpoint.is_finished,
            in_skipped_line: checkpoint.in_skipped_line,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn drain(files: &mut Files) -> String {
        let mut all = String::new();
        let mut buffer = Vec::new();
        files.rescan();
        while files.next(&mut buffer) != ReadStep::Idle {
            all.push_str(std::str::from_utf8(&buffer).unwrap());
            buffer.clear();
        }
        all
    }

    #[test]
    fn a_log_of_a_pattern_is_forgotten_when_its_files_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let names = [path("*.log"), path("named.log")];
        let mut files = Files::new(&names, StartAt::Beginning, 1000, None);
        for name in ["a.log", "b.log", "named.log"] {
            std::fs::write(path(name), format!("{{\"{name}\"}}\n")).unwrap();
        }
        assert_eq!(drain(&mut files).lines().count(), 3);
        std::fs::rename(path("a.log"), path("a-2026-11-23T10-00-00.000.log")).unwrap();
        for name in ["b.log", "named.log"] {
            std::fs::remove_file(path(name)).unwrap();
        }
        // First for as long as its files are open, then until `forget_after`.
        files.logs.values_mut().for_each(LogFollower::close_all);
        assert_eq!(drain(&mut files), "");
        assert_eq!(files.logs.len(), 3);
        let position = files.position();
        files.forget_after = Duration::ZERO;
        drain(&mut files);
        let left = |files: &Files| -> Vec<String> {
            let names = files.logs.keys().chain(files.previous.keys());
            names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(left(&files), ["a.log", "named.log"]);
        // A log that disappeared while the daemon was down is forgotten in the same way.
        let mut files = Files::new(&names, StartAt::Beginning, 1000, Some(&position));
        files.forget_after = Duration::ZERO;
        drain(&mut files);
        assert_eq!(left(&files), ["a.log", "named.log"]);
    }

    #[test]
    fn a_relative_name_is_found_in_the_working_directory() {
        let name = "Cargo.toml".to_owned();
        let text = drain(&mut Files::new(&[name], StartAt::Beginning, 1000, None));
        assert_eq!(text, std::fs::read_to_string("Cargo.toml").unwrap());
    }

    #[test]
    fn a_pattern_finds_logs_with_their_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let names = [folder.path().join("*.log").display().to_string()];
        write("a-2026-11-23T00-00-00.000.log", "{1}\n");
        write("a.log", "{2}\n");
        let mut files = Files::new(&names, StartAt::Beginning, 1000, None);
        assert_eq!(drain(&mut files), "{1}\n{2}\n");
        write("b.log", "{3}\n");
        assert_eq!(drain(&mut files), "{3}\n");
        assert!(files.is_open() && files.lag() == 0);
        let position = files.position();
        write("c.log", "{4}\n");
        let mut files = Files::new(&names, StartAt::Beginning, 1000, Some(&position));
        assert_eq!(drain(&mut files), "{4}\n");
        // A position in another format is ignored.
        let mut files = Files::new(&names, StartAt::Beginning, 1000, Some(b"[]"));
        assert_eq!(drain(&mut files).len(), 16);
    }
}
