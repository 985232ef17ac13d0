//! Follows logs that are still written to, through every way in which they are rotated.
//!
//! In go the paths that a user named, and the marks of an earlier run; out come buffers of whole records, each with the mark
//! up to which it reads. What was read is told by what stands in a file, not by its name: a file is known by device and
//! inode as long as it stays open, and by the hash of its beginning from one run to the next, renamed or compressed.
//!
//! * **rename, then create** (the apiserver, logrotate): the file stays open and is read to its end under whatever name,
//!   and for a while longer, since its writer may be late to notice.
//! * **copytruncate**: where a file became shorter, or its beginning another, what was not read of it is in a copy, which is
//!   found by its beginning and read from there on. Until then a copy, and one that is just being made, is passed over.
//! * **links that move, files that appear later**: each is a new file at a known name.
//!
//! Nothing here waits. Whoever calls decides when to look again.

mod checkpoint;
mod file;
mod new_files;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use checkpoint::{Fingerprint, Mark};

use super::rotation;
use checkpoint::Beginning;
use file::{Identity, State, Tracked};

/// A file that was renamed is closed when nothing was written to it for so long.
const LINGER: Duration = Duration::from_secs(60);

/// Of more files than this those that were read to their ends are closed at once. They are opened again should they grow.
const MOST_OPEN: usize = 64;

/// So many files that were read are remembered, to know a copy of one when it appears.
const MOST_DONE: usize = 4096;

/// So many of them at least are remembered from one run to the next.
const FEWEST_DONE_KEPT: usize = 16;

/// Where to start in a file that was never seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With all that is there, rotated files too.
    #[default]
    Beginning,
    /// With what is written from now on.
    End,
}

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The buffer holds whole records.
    Records,
    /// The buffer holds the beginning of a record that is longer than the limit, or that will not be finished.
    Head,
    /// There is nothing to read now.
    Idle,
}

/// What went wrong and was got over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A file cannot be read.
    Unreadable(PathBuf, String),
    /// Of a truncated file so many bytes were not read and no copy was found.
    Lost(PathBuf, u64),
    /// None of the files known from an earlier run is there any more: what was written in between may be gone.
    Gap(PathBuf),
}

/// A file that was not known.
struct Fresh {
    path: PathBuf,
    /// Of the run before.
    mark: Option<Mark>,
    start: Fingerprint,
}

/// Follows one log: a name, and the files that rotation makes of it.
#[derive(Debug)]
pub struct Follow {
    live: PathBuf,
    start_at: StartAt,
    longest: usize,
    /// Being read, oldest first.
    tracked: VecDeque<Tracked>,
    /// Read to their ends, or not to be read; each with its number. One that is not done could not be read further, and is
    /// gone on with when it changes.
    done: VecDeque<(u64, Mark)>,
    /// Counts files that were opened or done with.
    number: u64,
    /// Files that need not be looked at again as long as they are as they were.
    passed: HashMap<Identity, State>,
    /// Marks of the run before, until their files are found.
    found_before: Vec<Mark>,
    is_first_look: bool,
    incidents: Vec<Incident>,
}

impl Follow {
    /// Follows the log of that name. `marks` are what an earlier run left, `longest` is the longest record in bytes that is
    /// handed on whole.
    pub fn new(live: PathBuf, start_at: StartAt, longest: usize, marks: Vec<Mark>) -> Self {
        Follow {
            live,
            start_at,
            longest,
            tracked: VecDeque::new(),
            done: VecDeque::new(),
            number: 0,
            passed: HashMap::new(),
            found_before: marks,
            is_first_look: true,
            incidents: Vec::new(),
        }
    }

    /// The log's name.
    pub fn path(&self) -> &Path {
        &self.live
    }

    /// What went wrong since the last call.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents)
    }

    /// How many bytes lie on the disk that were not read yet.
    pub fn lag(&self) -> u64 {
        self.tracked.iter().map(Tracked::lag).sum()
    }

    /// Whether the log is there.
    pub fn is_open(&self) -> bool {
        !self.tracked.is_empty()
    }

    /// Whether no file of it is left, neither on the disk nor open.
    pub fn is_gone(&self) -> bool {
        self.tracked.is_empty() && self.passed.is_empty()
    }

    /// Lets go of all files, as when they were read to their ends long ago.
    #[cfg(test)]
    pub fn close_all(&mut self) {
        while let Some(file) = self.tracked.pop_front() {
            self.finish(file.mark(), file.number);
        }
    }

    /// Up to where everything was handed on. To be kept together with what came of it.
    pub fn marks(&self) -> Vec<Mark> {
        // What is older than all that is known is not read by the next run; what is younger has to be known.
        // A file of which nothing was read yet is known by nothing.
        let known = self.tracked.iter().filter(|file| file.mark().start.length > 0);
        let oldest = known.map(|file| file.number).min().unwrap_or(self.number);
        let older = self.done.partition_point(|(number, _)| *number < oldest);
        let from = older.min(self.done.len().saturating_sub(FEWEST_DONE_KEPT));
        let done = self.done.iter().skip(from).map(|(_, mark)| mark);
        self.found_before.iter().chain(done).cloned().chain(self.tracked.iter().map(Tracked::mark)).collect()
    }

    /// Looks which files there are.
    pub fn look(&mut self) {
        self.notice_truncation();
        let files = self.files();
        for file in &mut self.tracked {
            // A copy may be there of what was not read yet.
            file.identify_if_short();
        }
        let mut unknown: Vec<PathBuf> = Vec::new();
        let mut there = HashSet::new();
        for path in files {
            let Ok((identity, state)) = Identity::and_state(&path) else { continue };
            there.insert(identity);
            match self.tracked.iter_mut().find(|file| file.identity == identity) {
                Some(file) => file.path.clone_from(&path),
                None if self.passed.get(&identity) == Some(&state) => {}
                None => unknown.push(path),
            }
        }
        self.passed.retain(|identity, _| there.contains(identity));
        self.greet(unknown);
        let live = Identity::of(&self.live).ok();
        for file in &mut self.tracked {
            file.is_live = Some(file.identity) == live;
        }
        self.is_first_look = false;
    }

    /// The files that rotation made of the log, and the log itself, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let folder = match self.live.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let files = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| rotation::is_of_set(path, &self.live) && path.is_file())
            .collect();
        rotation::in_time_order(files)
    }

    fn open_fresh(&mut self, file: Fresh) {
        // Known by its beginning from the first: copies of it are passed over already, and it may be cut before it is read.
        let mark = file.mark.unwrap_or(Mark { start: file.start, ..Mark::default() });
        self.open(file.path, Some(mark));
    }

    fn open(&mut self, path: PathBuf, mark: Option<Mark>) {
        let number = self.next_number();
        self.open_as(path, mark, number);
    }

    #[allow(clippy::needless_pass_by_value)] // It is used up.
    fn open_as(&mut self, path: PathBuf, mark: Option<Mark>, number: u64) {
        if let Some(mark) = mark.as_ref().filter(|mark| mark.is_done && !has_grown(&path, mark)) {
            self.finish(mark.clone(), number);
            self.pass(&path);
            return;
        }
        // A copy that was made before the last of it was read: nothing in it is new.
        let is_shorter = |mark: &Mark| {
            !is_compressed(&path)
                && path != self.live
                && std::fs::metadata(&path).is_ok_and(|file| file.len() < mark.offset)
        };
        if let Some(mark) = mark.as_ref().filter(|mark| is_shorter(mark)) {
            self.finish(mark.clone(), number);
            self.pass(&path);
            return;
        }
        match Tracked::open(&path, mark.as_ref()) {
            Ok(mut file) => {
                tracing::debug!(?file, number, "reading");
                file.number = number;
                self.tracked.push_back(file);
            }
            Err(error) => {
                if let Some(mark) = mark {
                    // Until it can be.
                    self.put_by(mark, number);
                }
                if error.kind() != io::ErrorKind::NotFound {
                    self.complain(path, &error);
                }
            }
        }
    }

    /// A file that need not be looked at again as long as it is as it is.
    fn pass(&mut self, path: &Path) {
        tracing::debug!(path = %path.display(), "not read: it is a copy, or was read");
        if let Ok((identity, state)) = Identity::and_state(path) {
            self.passed.insert(identity, state);
        }
    }

    fn complain(&mut self, path: PathBuf, error: &io::Error) {
        // Renamed or removed between a look at the folder and one at the file: it is found by its other name, if it has one.
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        let incident = Incident::Unreadable(path, error.to_string());
        if !self.incidents.contains(&incident) {
            self.incidents.push(incident);
        }
    }

    fn finish(&mut self, mut mark: Mark, number: u64) {
        mark.is_done = true;
        self.put_by(mark, number);
    }

    /// Remembers a file that is not read any further for now. They stand in the order in which they were opened, which is that of
    /// time: what is forgotten first is older than all that is known.
    fn put_by(&mut self, mark: Mark, number: u64) {
        if self.done.len() >= MOST_DONE {
            self.done.pop_front();
        }
        let at = self.done.partition_point(|(other, _)| *other <= number);
        self.done.insert(at, (number, mark));
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Files that became shorter, or whose beginning is another: what was not read of them is in a copy.
    fn notice_truncation(&mut self) {
        for at in 0..self.tracked.len() {
            let Some(old) = self.tracked[at].was_truncated() else { continue };
            tracing::debug!(file = ?self.tracked[at], "it was cut, or is another");
            // Listed now: the copy was there before the file was cut.
            let copy = self.files().into_iter().find(|path| {
                Identity::of(path).is_ok_and(|own| self.tracked.iter().all(|file| file.identity != own))
                    && Beginning::of(path).is_ok_and(|beginning| beginning.is_of(&old))
            });
            if copy.is_none() && old.offset < old.size {
                let path = self.tracked[at].path.clone();
                self.incidents.push(Incident::Lost(path, old.size - old.offset));
            }
            let newest = self.next_number();
            let file = &mut self.tracked[at];
            file.start_anew();
            // The copy has its place, and what comes now is a new file.
            let number = std::mem::replace(&mut file.number, newest);
            if let Some(path) = copy {
                let known = self.tracked.len();
                self.open_as(path, Some(old), number);
                if self.tracked.len() > known
                    && let Some(copy) = self.tracked.pop_back()
                {
                    self.tracked.insert(at, copy);
                }
                return self.notice_truncation();
            }
        }
    }

    /// Reads the next records into `buffer`, which was emptied before. They count as read when [`Follow::marks`] are kept.
    /// A file that cannot be read is left alone, and said to be so.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Step {
        let now = Instant::now();
        let mut at = 0;
        while at < self.tracked.len() {
            let has_room = self.tracked.len() <= MOST_OPEN;
            let file = &mut self.tracked[at];
            match file.read(buffer, self.longest) {
                Ok(Step::Idle) => {}
                Ok(step) => return step,
                Err(error) => {
                    let path = file.path.clone();
                    if let Some(file) = self.tracked.remove(at) {
                        // It may have another name by now, and its own be another's.
                        if Identity::of(&path).is_ok_and(|own| own == file.identity) {
                            self.pass(&path);
                        }
                        self.put_by(file.mark(), file.number);
                    }
                    self.complain(path, &error);
                    continue;
                }
            }
            let is_over = file.is_compressed()
                || !file.is_live
                    && !file.is_another()
                    && (now.duration_since(file.grew_at) > LINGER || !has_room && file.is_between_lines());
            if is_over {
                // A line that was never finished is judged by what there is of it.
                if file.take_rest(buffer) {
                    return Step::Head;
                }
                if let Some(file) = self.tracked.remove(at) {
                    tracing::debug!(?file, "read to its end");
                    self.finish(file.mark(), file.number);
                }
                continue;
            }
            at += 1;
        }
        Step::Idle
    }
}

fn is_compressed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    rotation::uncompressed(&name).len() < name.len()
}

/// Whether a compressed file was written to just now: whoever writes it may not be done.
fn is_in_the_making(path: &Path) -> bool {
    let written = || std::fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
    is_compressed(path) && written().is_some_and(|ago| ago < LINGER)
}

/// Whether more was written to a file since it was done with.
fn has_grown(path: &Path, mark: &Mark) -> bool {
    Identity::and_state(path).is_ok_and(|(identity, state)| {
        (identity.device, identity.inode) == (mark.device, mark.inode)
            && !is_compressed(path)
            && state.size > mark.size.max(mark.offset)
    })
}
