//! The logs of one source: those that its names and patterns stand for now, each followed through its rotation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::discover::{self, Input};
use super::follow::{Fingerprint, Follow, Incident, Mark, StartAt, Step};
use super::rotation;

/// The logs of one source.
#[derive(Debug)]
pub struct Files {
    names: Vec<OsString>,
    start_at: StartAt,
    longest: usize,
    logs: BTreeMap<PathBuf, Follow>,
    /// Marks of the run before, of logs that were not found yet.
    before: BTreeMap<PathBuf, Vec<Mark>>,
    /// Since when there is nothing of a log any more.
    gone: BTreeMap<PathBuf, Instant>,
    remembered_for: Duration,
    is_first_look: bool,
}

/// A log that a pattern found and of which nothing is left is forgotten after so long. Until then it may come back, as that of
/// a folder that is mounted anew.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A mark as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredMark {
    device: u64,
    inode: u64,
    length: u32,
    hash: [u8; 32],
    offset: u64,
    size: u64,
    done: bool,
    #[serde(default)]
    skips: bool,
}

impl Files {
    /// Follows what these names and patterns stand for. `position` is what an earlier run left; what of it is not
    /// understood is left out, and its log starts anew.
    pub fn new(names: &[String], start_at: StartAt, longest: usize, position: Option<&[u8]>) -> Self {
        let stored: BTreeMap<PathBuf, Vec<StoredMark>> =
            position.and_then(|position| serde_json::from_slice(position).ok()).unwrap_or_default();
        let before = stored
            .into_iter()
            .map(|(path, marks)| (path, marks.into_iter().map(Mark::from).collect()))
            .collect();
        Files {
            // Also from another folder it is the same log, with the same position.
            names: names
                .iter()
                .map(|name| std::path::absolute(name).map_or_else(|_| name.into(), PathBuf::into_os_string))
                .collect(),
            start_at,
            longest,
            logs: BTreeMap::new(),
            before,
            gone: BTreeMap::new(),
            remembered_for: REMEMBERED,
            is_first_look: true,
        }
    }

    /// Looks which logs there are, and which files each has.
    pub fn look(&mut self) {
        let (inputs, _) = discover::inputs(&self.names);
        let found = inputs.into_iter().filter_map(|input| match input {
            Input::File(path) => Some(rotation::live(&path)),
            Input::Stdin => None,
        });
        // A name that stands for nothing yet may do so later.
        let plain = self.names.iter().map(PathBuf::from).filter(|path| !is_pattern(path) && !path.is_dir());
        let plain: Vec<PathBuf> = plain.collect();
        for live in found.chain(plain.iter().cloned()).collect::<Vec<_>>() {
            if !self.logs.contains_key(&live) {
                // What appears later was written since.
                let start_at = if self.is_first_look { self.start_at } else { StartAt::Beginning };
                let marks = self.before.remove(&live).unwrap_or_default();
                let start_at = if marks.is_empty() { start_at } else { StartAt::Beginning };
                self.logs.insert(live.clone(), Follow::new(live, start_at, self.longest, marks));
            }
        }
        self.is_first_look = false;
        for log in self.logs.values_mut() {
            log.look();
        }
        self.forget(&plain);
    }

    /// Forgets logs of which nothing is left, but for those that were named.
    fn forget(&mut self, named: &[PathBuf]) {
        let left = |path: &PathBuf, log: Option<&Follow>| {
            log.is_some_and(|log| !log.is_gone()) || named.contains(path)
        };
        let all = self.logs.keys().chain(self.before.keys());
        let gone: Vec<PathBuf> = all.filter(|path| !left(path, self.logs.get(*path))).cloned().collect();
        self.gone.retain(|path, _| gone.contains(path));
        for path in gone {
            let since = self.gone.entry(path.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= self.remembered_for {
                self.logs.remove(&path);
                self.before.remove(&path);
                self.gone.remove(&path);
            }
        }
    }

    /// Reads the next records of any log into `buffer`, which was emptied before.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Step {
        for log in self.logs.values_mut() {
            match log.next(buffer) {
                Step::Idle => {}
                step => return step,
            }
        }
        Step::Idle
    }

    /// Up to where everything was handed on, to be stored with what came of it.
    pub fn position(&self) -> Vec<u8> {
        let marks = self.logs.iter().map(|(path, log)| (path, log.marks()));
        let before = self.before.iter().map(|(path, marks)| (path, marks.clone()));
        let all: BTreeMap<&PathBuf, Vec<StoredMark>> = marks
            .chain(before)
            // A path that is no UTF-8 cannot be written: its log starts anew, and the others do not.
            .filter(|(path, _)| path.to_str().is_some())
            .map(|(path, marks)| (path, marks.into_iter().map(StoredMark::from).collect()))
            .collect();
        // Maps of plain numbers and paths.
        serde_json::to_vec(&all).unwrap_or_default()
    }

    /// The folders in which something may change.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self
            .names
            .iter()
            .map(PathBuf::from)
            .chain(self.logs.keys().cloned())
            .map(|path| match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                _ => PathBuf::from("."),
            })
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// How many bytes lie on the disk that were not handed on.
    pub fn lag(&self) -> u64 {
        self.logs.values().map(Follow::lag).sum()
    }

    /// Whether a log is there.
    pub fn is_open(&self) -> bool {
        self.logs.values().any(Follow::is_open)
    }

    /// What went wrong since the last call.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        self.logs.values_mut().flat_map(Follow::take_incidents).collect()
    }
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[', '{'])
}

impl From<StoredMark> for Mark {
    fn from(mark: StoredMark) -> Self {
        Mark {
            device: mark.device,
            inode: mark.inode,
            start: Fingerprint { length: mark.length, hash: mark.hash },
            offset: mark.offset,
            size: mark.size,
            is_done: mark.done,
            skips: mark.skips,
        }
    }
}

impl From<Mark> for StoredMark {
    fn from(mark: Mark) -> Self {
        StoredMark {
            device: mark.device,
            inode: mark.inode,
            length: mark.start.length,
            hash: mark.start.hash,
            offset: mark.offset,
            size: mark.size,
            done: mark.is_done,
            skips: mark.skips,
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
        files.look();
        while files.next(&mut buffer) != Step::Idle {
            all.push_str(std::str::from_utf8(&buffer).unwrap());
            buffer.clear();
        }
        all
    }

    #[test]
    fn a_log_of_a_pattern_is_forgotten_when_nothing_is_left_of_it() {
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
        // For as long as its files are open, and then for an hour.
        files.logs.values_mut().for_each(Follow::close_all);
        assert_eq!(drain(&mut files), "");
        assert_eq!(files.logs.len(), 3);
        let position = files.position();
        files.remembered_for = Duration::ZERO;
        drain(&mut files);
        let left = |files: &Files| -> Vec<String> {
            let names = files.logs.keys().chain(files.before.keys());
            names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(left(&files), ["a.log", "named.log"]);
        // So it is where they went while nobody looked.
        let mut files = Files::new(&names, StartAt::Beginning, 1000, Some(&position));
        files.remembered_for = Duration::ZERO;
        drain(&mut files);
        assert_eq!(left(&files), ["a.log", "named.log"]);
    }

    #[test]
    fn a_log_in_the_folder_at_hand_is_found_by_its_name_alone() {
        let name = "Cargo.toml".to_owned();
        let text = drain(&mut Files::new(&[name], StartAt::Beginning, 1000, None));
        assert_eq!(text, std::fs::read_to_string("Cargo.toml").unwrap());
    }

    #[test]
    fn patterns_find_logs_and_their_rotated_files_belong_to_them() {
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
        // What another version wrote is not understood.
        let mut files = Files::new(&names, StartAt::Beginning, 1000, Some(b"[]"));
        assert_eq!(drain(&mut files).len(), 16);
    }
}
