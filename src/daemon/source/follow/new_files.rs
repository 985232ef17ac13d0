//! Files that are not known by their inode: which are new, which were read before under another name, which are copies.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::Beginning;
use super::file::Identity;
use super::{Follow, Fresh, Incident, Mark, StartAt, has_grown, is_compressed, is_in_the_making};

impl Follow {
    /// Decides what to read of files that are not known by their inode.
    pub(super) fn greet(&mut self, files: Vec<PathBuf>) {
        let mut strangers: Vec<(PathBuf, Beginning)> = Vec::new();
        for path in files {
            match Beginning::of(&path) {
                Ok(beginning) => strangers.push((path, beginning)),
                // It was renamed or removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Looked at again when there is more of it; by then it is whole, or as it will stay.
                Err(_) if is_in_the_making(&path) => {}
                Err(error) => {
                    self.pass(&path);
                    self.complain(path, &error);
                }
            }
        }
        for file in &mut self.tracked {
            // What is in one now was written after the look began, and a copy of it may be there already.
            file.identify_if_short();
        }
        let mut again = Vec::new();
        let mut fresh: Vec<Fresh> = Vec::new();
        for at in 0..strangers.len() {
            let (path, beginning) = &strangers[at];
            // The compressed form of a file that is read or was, or a copy of it.
            if let Some(done) = self.done.iter().position(|(_, mark)| beginning.is_of(mark)) {
                let mark = &self.done[done].1;
                if mark.is_done && !has_grown(path, mark) {
                    self.pass(path);
                } else if let Some((number, mark)) = self.done.remove(done) {
                    again.push((path.clone(), Mark { is_done: false, ..mark }, number));
                }
                continue;
            }
            if self.tracked.iter().any(|file| beginning.is_of(&file.mark())) {
                self.pass(path);
                continue;
            }
            // Not for good: the other may be gone before it is opened, and then this one is all there is.
            if self.is_copy(at, &strangers) {
                continue;
            }
            if *path != self.live && self.is_copy_in_the_making(at, &strangers) {
                continue;
            }
            let before = self.found_before.iter().position(|mark| beginning.is_of(mark));
            let mark = before.map(|at| self.found_before.swap_remove(at));
            fresh.push(Fresh { path: path.clone(), mark, start: beginning.fingerprint() });
        }
        for (path, mark, number) in again {
            // It keeps its place, so that those after it stay known for as long as it is read.
            self.open_as(path, Some(mark), number);
        }
        if self.is_first_look {
            self.start(fresh);
            return;
        }
        for file in fresh {
            self.open_fresh(file);
        }
    }

    /// Whether one of several new files is a copy of another of them, and not the one to be read.
    fn is_copy(&self, at: usize, strangers: &[(PathBuf, Beginning)]) -> bool {
        let (path, beginning) = &strangers[at];
        let mark = self.found_before.iter().find(|mark| beginning.is_of(mark));
        let is_same = |other: &Beginning| match mark {
            Some(mark) => other.is_of(mark),
            None => !other.text().is_empty() && other.text() == beginning.text(),
        };
        // The very file that was read before, else the one that may still grow, else the first.
        let rank = |path: &Path| {
            let is_known = mark.is_some_and(|mark| {
                Identity::of(path).is_ok_and(|own| (own.device, own.inode) == (mark.device, mark.inode))
            });
            (is_known, path == self.live, !is_compressed(path))
        };
        let own = rank(path);
        strangers.iter().enumerate().any(|(other, (path, beginning))| {
            other != at && is_same(beginning) && (rank(path) > own || rank(path) == own && other < at)
        })
    }

    /// Whether a file holds nothing yet, or no more than another starts with: it is looked at again when there is more of it.
    fn is_copy_in_the_making(&self, at: usize, strangers: &[(PathBuf, Beginning)]) -> bool {
        let beginning = &strangers[at].1;
        let text = beginning.text();
        beginning.is_short()
            && (text.is_empty()
                || self.tracked.iter().any(|file| file.may_be_copied_to(text))
                || strangers
                    .iter()
                    .any(|(_, other)| other.text().len() > text.len() && other.text().starts_with(text)))
    }

    /// At the start: goes on where the run before ended, or where the user wants it.
    fn start(&mut self, mut files: Vec<Fresh>) {
        let first_known = files.iter().position(|file| file.mark.is_some());
        match first_known {
            // What is older than all that is known was there before pullwatch was, or was read.
            Some(first) => {
                for Fresh { path, .. } in files.drain(..first) {
                    match Mark::at_end(&path) {
                        Ok(mark) => {
                            let number = self.next_number();
                            self.finish(mark, number);
                            self.pass(&path);
                        }
                        Err(error) => self.complain(path, &error),
                    }
                }
            }
            // A log that was empty then is known by nothing.
            None if self.found_before.iter().any(|mark| mark.start.length > 0) => {
                self.incidents.push(Incident::Gap(self.live.clone()));
            }
            None if self.start_at == StartAt::End => {
                for Fresh { path, .. } in files {
                    let mark = Mark::at_end(&path);
                    let is_live = path == self.live;
                    match mark {
                        Ok(mark) if is_live => self.open(path, Some(mark)),
                        Ok(mark) => {
                            let number = self.next_number();
                            self.finish(mark, number);
                            self.pass(&path);
                        }
                        Err(error) => self.complain(path, &error),
                    }
                }
                return;
            }
            None => {}
        }
        // Marks whose files are gone are of files that were read, or are lost.
        self.found_before.clear();
        for file in files {
            self.open_fresh(file);
        }
    }
}
