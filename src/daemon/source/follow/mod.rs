//! Follows a log while it is being written, through every kind of rotation.
//!
//! Takes the path of a log and the checkpoints of an earlier run. Returns buffers of whole records, and checkpoints up to which everything
//! was returned. A file is identified by device and inode while it is open, and by a hash of its first bytes after a restart, renamed or
//! compressed; never by its name.
//!
//! * **rename and create** (kube-apiserver, logrotate): the old file stays open and is read to its end under its new name, and for
//!   [`CLOSE_DELAY`] longer, because the writer may reopen late.
//! * **copytruncate**: when a file shrinks or its prefix changes, its unread bytes are in a copy, which is found by its prefix and read
//!   from the old position. Otherwise copies are skipped, including unfinished ones.
//! * **symbolic links that change, files that appear later**: each is a new file of a known log.
//!
//! This module neither blocks nor watches; the caller decides when to rescan. It does not know the format of records (see `chunker`) and
//! matches no patterns (see `discover`).

mod checkpoint;
mod file;
mod file_id;
mod new_files;
mod step;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use checkpoint::{Checkpoint, Fingerprint};
pub use file_id::FileId;
pub use step::{Incident, ReadStep, StartAt};

use super::open_lines::PendingLines;
use super::rotation;
use checkpoint::FilePrefix;
use file::TrackedFile;
use file_id::FileState;

/// A rotated file is closed if nothing was written to it for this long.
const CLOSE_DELAY: Duration = Duration::from_secs(60);

/// If more files than this are open, those that were read to their end are closed immediately. They are reopened if they grow.
const MAX_OPEN_FILES: usize = 64;

/// Number of finished files that are remembered, to recognize copies of them.
const MAX_FINISHED: usize = 4096;

/// Minimum number of finished files that are persisted, to recognize copies of them after a restart.
const MIN_FINISHED_CHECKPOINTS: usize = 16;

/// A file that was not open and not finished before.
struct NewFile {
    path: PathBuf,
    /// Checkpoint of the last run.
    checkpoint: Option<Checkpoint>,
    start: Fingerprint,
}

/// Number of bytes before the position of the last run that are read again to find lines that were given up. A piece of a line has at most
/// 16 KiB of content.
const MAX_LOOK_BACK: u64 = 256 << 10;

/// Data that was read, with the number of its file.
enum ReadResult {
    /// Whole lines.
    Lines(u64),
    /// The first bytes of a line.
    Head(u64),
    /// A file with pending split lines has to be closed.
    Closing,
    Nothing,
}

/// Follows one log: a path, and the files created from it by rotation.
#[derive(Debug)]
pub struct LogFollower {
    live: PathBuf,
    start_at: StartAt,
    max_record: usize,
    /// Open files, oldest first.
    tracked: VecDeque<TrackedFile>,
    /// Closed files with their numbers: read to the end, skipped, or (if not `is_finished`) unreadable and to be resumed when they change.
    finished: VecDeque<(u64, Checkpoint)>,
    /// Number of the newest file.
    number: u64,
    /// Files that are ignored until their metadata changes.
    skipped: HashMap<FileId, FileState>,
    /// Files that could not be opened (or the directory, if it could not be listed) with the reason, until they can be opened or no longer
    /// exist.
    unreadable: BTreeMap<PathBuf, String>,
    /// Whether the directory could be listed the last time.
    is_listed: bool,
    /// Checkpoints of the last run whose files were not found yet.
    previous: Vec<Checkpoint>,
    is_first_scan: bool,
    /// A file was opened, so `open_lines` needs to know what precedes its position.
    is_resumed: bool,
    /// Lines that were read but are incomplete.
    open_lines: PendingLines,
    incidents: Vec<Incident>,
}

impl LogFollower {
    /// `checkpoints` are those of the last run. Records longer than `max_record` bytes are truncated.
    pub fn new(live: PathBuf, start_at: StartAt, max_record: usize, checkpoints: Vec<Checkpoint>) -> Self {
        LogFollower {
            live,
            start_at,
            max_record,
            tracked: VecDeque::new(),
            finished: VecDeque::new(),
            number: 0,
            skipped: HashMap::new(),
            unreadable: BTreeMap::new(),
            is_listed: true,
            previous: checkpoints,
            is_first_scan: true,
            is_resumed: false,
            open_lines: PendingLines::default(),
            incidents: Vec::new(),
        }
    }

    /// Problems since the last call.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents)
    }

    /// Number of bytes on disk that were not read yet.
    pub fn lag(&self) -> u64 {
        self.tracked.iter().map(|file| file.lag() + self.open_lines.held_of(file.number)).sum()
    }

    /// Whether a file of this log is open.
    pub fn is_open(&self) -> bool {
        !self.tracked.is_empty()
    }

    /// Problems that prevent reading new events, with the reason: the file that the apiserver writes, or the directory, cannot be read, or
    /// another file cannot be read and none is open. An unreadable rotated file next to an open one is only an [incident](Incident).
    pub fn unreadable(&self) -> Option<(&Path, &str)> {
        let hides_new = |path: &Path| path == self.live || !self.is_listed || !self.is_open();
        self.unreadable.iter().map(|(path, error)| (&**path, &**error)).find(|(path, _)| hides_new(path))
    }

    /// Paths of the open files that may still grow, except for the log's own path.
    pub fn rotated_paths(&self) -> impl Iterator<Item = &Path> {
        let may_grow = |file: &&TrackedFile| {
            !file.is_live && !file.is_compressed() && FileId::of(&file.path).is_ok_and(|id| id == file.id)
        };
        self.tracked.iter().filter(may_grow).map(|file| &*file.path)
    }

    /// Whether no file of this log exists any more.
    pub fn is_gone(&self) -> bool {
        self.tracked.is_empty() && self.skipped.is_empty()
    }

    /// Closes all files, as after [`CLOSE_DELAY`].
    #[cfg(test)]
    pub fn close_all(&mut self) {
        while let Some(file) = self.tracked.pop_front() {
            self.finish(file.checkpoint(), file.number);
        }
    }

    /// Positions up to which everything was returned by [`LogFollower::next`]. They must be stored together with the results.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        // The next run does not read files older than all known ones, and must know the younger ones. A file of which nothing was read has
        // no fingerprint yet.
        let known = self.tracked.iter().filter(|file| file.checkpoint().start.length > 0);
        let oldest = known.map(|file| file.number).min().unwrap_or(self.number);
        let older = self.finished.partition_point(|(number, _)| *number < oldest);
        let from = older.min(self.finished.len().saturating_sub(MIN_FINISHED_CHECKPOINTS));
        let done = self.finished.iter().skip(from).map(|(_, checkpoint)| checkpoint);
        let open = self.tracked.iter().map(|file| {
            let checkpoint = file.checkpoint();
            // These lines are still incomplete, so the next run reads them again.
            let offset = checkpoint.offset.saturating_sub(self.open_lines.held_of(file.number));
            Checkpoint { offset, ..checkpoint }
        });
        self.previous.iter().chain(done).cloned().chain(open).collect()
    }

    /// Lists the files of this log, opens new ones and detects truncation.
    pub fn rescan(&mut self) {
        let is_gone = |path: &Path| {
            std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        self.unreadable.retain(|path, _| !is_gone(path));
        self.handle_truncation();
        let files = self.files();
        for file in &mut self.tracked {
            // There may be a copy with bytes that were not read yet, which has to be recognized.
            file.extend_fingerprint();
        }
        let mut unknown: Vec<PathBuf> = Vec::new();
        let mut there = HashSet::new();
        for path in files {
            let Ok((id, state)) = FileId::and_state(&path) else { continue };
            there.insert(id);
            match self.tracked.iter_mut().find(|file| file.id == id) {
                Some(file) => file.path.clone_from(&path),
                None if self.skipped.get(&id) == Some(&state) => {}
                None => unknown.push(path),
            }
        }
        self.skipped.retain(|id, _| there.contains(id));
        self.classify_new_files(unknown);
        let live = FileId::of(&self.live).ok();
        for file in &mut self.tracked {
            file.is_live = Some(file.id) == live;
        }
        self.is_first_scan = false;
    }

    /// The log and its rotated files, oldest first.
    fn files(&mut self) -> Vec<PathBuf> {
        let folder = match self.live.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                // Reported once, until it can be listed again.
                let folder = folder.to_owned();
                if std::mem::replace(&mut self.is_listed, false) {
                    self.report_unreadable(folder, &error);
                }
                return Vec::new();
            }
        };
        self.is_listed = true;
        self.unreadable.remove(folder);
        let files = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| rotation::is_of_set(path, &self.live) && path.is_file())
            .collect();
        rotation::in_time_order(files)
    }

    fn open_new(&mut self, file: NewFile) {
        // The fingerprint is taken immediately, so that copies are recognized, and a truncation before the first read is detected.
        let checkpoint = file.checkpoint.unwrap_or(Checkpoint { start: file.start, ..Checkpoint::default() });
        self.open(file.path, Some(checkpoint));
    }

    fn open(&mut self, path: PathBuf, checkpoint: Option<Checkpoint>) {
        let number = self.next_number();
        self.open_as(path, checkpoint, number);
    }

    #[allow(clippy::needless_pass_by_value)] // It is used up.
    fn open_as(&mut self, path: PathBuf, checkpoint: Option<Checkpoint>, number: u64) {
        if let Some(checkpoint) =
            checkpoint.as_ref().filter(|checkpoint| checkpoint.is_finished && !has_grown(&path, checkpoint))
        {
            self.finish(checkpoint.clone(), number);
            self.skip(&path);
            return;
        }
        // The copy was made before the end of the original was read, so it contains nothing new.
        let is_shorter = |checkpoint: &Checkpoint| {
            !is_compressed(&path)
                && path != self.live
                && std::fs::metadata(&path).is_ok_and(|file| file.len() < checkpoint.offset)
        };
        if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| is_shorter(checkpoint)) {
            self.finish(checkpoint.clone(), number);
            self.skip(&path);
            return;
        }
        match TrackedFile::open(&path, checkpoint.as_ref()) {
            Ok(mut file) => {
                tracing::debug!(?file, number, "reading");
                self.unreadable.remove(&path);
                if !std::mem::replace(&mut self.is_resumed, true) {
                    // An error occurs again when the file is read.
                    let before = file.read_before(MAX_LOOK_BACK).unwrap_or_default();
                    self.open_lines.resume(&before);
                }
                file.number = number;
                self.tracked.push_back(file);
            }
            Err(error) => {
                if let Some(checkpoint) = checkpoint {
                    // Keep the checkpoint until the file can be opened.
                    self.remember(checkpoint, number);
                }
                if error.kind() != io::ErrorKind::NotFound {
                    self.report_unreadable(path, &error);
                }
            }
        }
    }

    /// Ignores a file until its metadata changes.
    fn skip(&mut self, path: &Path) {
        tracing::debug!(path = %path.display(), "not read: it is a copy, or was read already");
        if let Ok((id, state)) = FileId::and_state(path) {
            self.skipped.insert(id, state);
        }
    }

    fn report_unreadable(&mut self, path: PathBuf, error: &io::Error) {
        // Renamed or removed between listing and opening. If it was renamed, the next scan finds it.
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        self.unreadable.insert(path.clone(), error.to_string());
        let incident = Incident::Unreadable(path, error.to_string());
        if !self.incidents.contains(&incident) {
            self.incidents.push(incident);
        }
    }

    fn finish(&mut self, mut checkpoint: Checkpoint, number: u64) {
        checkpoint.is_finished = true;
        self.remember(checkpoint, number);
    }

    /// Stores the checkpoint of a closed file. They are sorted by number, so that the oldest file is forgotten first.
    fn remember(&mut self, checkpoint: Checkpoint, number: u64) {
        if self.finished.len() >= MAX_FINISHED {
            self.finished.pop_front();
        }
        let at = self.finished.partition_point(|(other, _)| *other <= number);
        self.finished.insert(at, (number, checkpoint));
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Detects truncated and rewritten files, and reads the unread bytes of each from its copy.
    fn handle_truncation(&mut self) {
        for at in 0..self.tracked.len() {
            let Some(old) = self.tracked[at].was_truncated() else { continue };
            tracing::debug!(file = ?self.tracked[at], "it was truncated, or is a different file");
            // List the files now, because the copy was made before the truncation.
            let copy = self.files().into_iter().find(|path| {
                FileId::of(path).is_ok_and(|own| self.tracked.iter().all(|file| file.id != own))
                    && FilePrefix::of(path).is_ok_and(|beginning| beginning.matches(&old))
            });
            if copy.is_none() && old.offset < old.size {
                let path = self.tracked[at].path.clone();
                self.incidents.push(Incident::Lost(path, old.size - old.offset));
            }
            let newest = self.next_number();
            let file = &mut self.tracked[at];
            file.restart();
            // The copy takes the number of the old content; the new content is a new file.
            let number = std::mem::replace(&mut file.number, newest);
            if let Some(path) = copy {
                let known = self.tracked.len();
                self.open_as(path, Some(old), number);
                if self.tracked.len() > known
                    && let Some(copy) = self.tracked.pop_back()
                {
                    self.tracked.insert(at, copy);
                }
                return self.handle_truncation();
            }
        }
    }

    /// Appends the next records to the empty `buffer`. They count as read once [`LogFollower::checkpoints`] are stored. An
    /// unreadable file is closed and reported.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> ReadStep {
        loop {
            let read = self.read_next(buffer);
            let is_done = match read {
                ReadResult::Lines(file) => self.open_lines.push(file, buffer),
                ReadResult::Head(file) => match self.push_head(file, buffer) {
                    Some(step) => return step,
                    None => false,
                },
                ReadResult::Closing => self.open_lines.give_up(buffer),
                ReadResult::Nothing => false,
            };
            let dropped = self.open_lines.take_dropped();
            if dropped > 0 {
                self.incidents.push(Incident::Incomplete(self.live.clone(), dropped));
            }
            if is_done || self.open_lines.is_overdue(self.max_record) && self.open_lines.give_up(buffer) {
                return ReadStep::Records;
            }
            if matches!(read, ReadResult::Nothing) {
                return ReadStep::Idle;
            }
        }
    }

    /// Handles the head of a line that is too long or was never finished. It may continue pending lines.
    fn push_head(&mut self, file: u64, buffer: &mut Vec<u8>) -> Option<ReadStep> {
        if self.open_lines.is_empty() {
            return self.open_lines.push_unfinished(buffer).then_some(ReadStep::Head);
        }
        buffer.push(b'\n');
        self.open_lines.push(file, buffer);
        let mut rest = Vec::new();
        self.open_lines.give_up(&mut rest);
        buffer.append(&mut rest);
        (!buffer.is_empty()).then_some(ReadStep::Records)
    }

    /// Reads the next block of any open file.
    fn read_next(&mut self, buffer: &mut Vec<u8>) -> ReadResult {
        let now = Instant::now();
        let mut at = 0;
        while at < self.tracked.len() {
            let has_room = self.tracked.len() <= MAX_OPEN_FILES;
            let file = &mut self.tracked[at];
            match file.read(buffer, self.max_record) {
                Ok(ReadStep::Idle) => {}
                Ok(ReadStep::Records) => return ReadResult::Lines(file.number),
                Ok(ReadStep::Head) => return ReadResult::Head(file.number),
                Err(error) => {
                    let path = file.path.clone();
                    if let Some(file) = self.tracked.remove(at) {
                        // The path may belong to another file by now.
                        if FileId::of(&path).is_ok_and(|own| own == file.id) {
                            self.skip(&path);
                        }
                        self.remember(file.checkpoint(), file.number);
                    }
                    self.report_unreadable(path, &error);
                    continue;
                }
            }
            let is_over = file.is_compressed()
                || !file.is_live
                    && !file.was_replaced()
                    && (now.duration_since(file.last_growth) > CLOSE_DELAY
                        || !has_room && file.has_no_partial_line());
            if is_over && self.open_lines.held_of(file.number) > 0 {
                return ReadResult::Closing;
            }
            if is_over {
                // A line that was never finished is evaluated as far as it was written.
                if file.take_partial_line(buffer) {
                    return ReadResult::Head(file.number);
                }
                if let Some(file) = self.tracked.remove(at) {
                    tracing::debug!(?file, "read to its end");
                    self.finish(file.checkpoint(), file.number);
                }
                continue;
            }
            at += 1;
        }
        ReadResult::Nothing
    }
}

fn is_compressed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    rotation::uncompressed(&name).len() < name.len()
}

/// Whether a compressed file was modified recently, so that it may be incomplete.
fn may_be_incomplete(path: &Path) -> bool {
    let written = || std::fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
    is_compressed(path) && written().is_some_and(|ago| ago < CLOSE_DELAY)
}

/// Whether a finished file was written to again.
fn has_grown(path: &Path, checkpoint: &Checkpoint) -> bool {
    FileId::and_state(path).is_ok_and(|(id, state)| {
        (id.device, id.inode) == (checkpoint.device, checkpoint.inode)
            && !is_compressed(path)
            && state.size > checkpoint.size.max(checkpoint.offset)
    })
}
