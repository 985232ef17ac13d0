//! Classifies files whose inode is unknown: new, already read under another name, or a copy.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::FilePrefix;
use super::file_id::FileId;
use super::{
    Checkpoint, Incident, LogFollower, NewFile, StartAt, has_grown, is_compressed, may_be_incomplete,
};

impl LogFollower {
    /// Decides how to read files whose inode is unknown.
    pub(super) fn classify_new_files(&mut self, files: Vec<PathBuf>) {
        let mut candidates: Vec<(PathBuf, FilePrefix)> = Vec::new();
        for path in files {
            match FilePrefix::of(&path) {
                Ok(prefix) => candidates.push((path, prefix)),
                // Renamed or removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Retried when it changes; by then it is either complete or permanently broken.
                Err(_) if may_be_incomplete(&path) => {}
                Err(error) => {
                    self.skip(&path);
                    self.report_unreadable(path, &error);
                }
            }
        }
        for file in &mut self.tracked {
            // An open file may have grown since the scan began, and a copy of it may exist already.
            file.extend_fingerprint();
        }
        let mut reopened = Vec::new();
        let mut new_files: Vec<NewFile> = Vec::new();
        for at in 0..candidates.len() {
            let (path, prefix) = &candidates[at];
            // A compressed or plain copy of a file that was already read.
            if let Some(done) = self.finished.iter().position(|(_, checkpoint)| prefix.matches(checkpoint)) {
                let checkpoint = &self.finished[done].1;
                if checkpoint.is_finished && !has_grown(path, checkpoint) {
                    self.skip(path);
                } else if let Some((number, checkpoint)) = self.finished.remove(done) {
                    reopened.push((path.clone(), Checkpoint { is_finished: false, ..checkpoint }, number));
                }
                continue;
            }
            if self.tracked.iter().any(|file| prefix.matches(&file.checkpoint())) {
                self.skip(path);
                continue;
            }
            // Checked again by the next scan: the original may disappear before it is opened, and then the copy is needed.
            if self.is_copy(at, &candidates) {
                continue;
            }
            if *path != self.live && self.may_be_unfinished_copy(at, &candidates) {
                continue;
            }
            let before = self.previous.iter().position(|checkpoint| prefix.matches(checkpoint));
            let checkpoint = before.map(|at| self.previous.swap_remove(at));
            new_files.push(NewFile { path: path.clone(), checkpoint, start: prefix.fingerprint() });
        }
        for (path, checkpoint, number) in reopened {
            // It keeps its number, so that younger files are remembered as long as it is read.
            self.open_as(path, Some(checkpoint), number);
        }
        if self.is_first_scan {
            self.start(new_files);
            return;
        }
        for file in new_files {
            self.open_new(file);
        }
    }

    /// Whether a candidate is a copy of another candidate that should be read instead.
    fn is_copy(&self, at: usize, candidates: &[(PathBuf, FilePrefix)]) -> bool {
        let (path, prefix) = &candidates[at];
        let checkpoint = self.previous.iter().find(|checkpoint| prefix.matches(checkpoint));
        let is_same = |other: &FilePrefix| match checkpoint {
            Some(checkpoint) => other.matches(checkpoint),
            None => !other.text().is_empty() && other.text() == prefix.text(),
        };
        // Prefer the file of the checkpoint, then the live one, then a plain one, then the first.
        let rank = |path: &Path| {
            let is_known = checkpoint.is_some_and(|checkpoint| {
                FileId::of(path)
                    .is_ok_and(|own| (own.device, own.inode) == (checkpoint.device, checkpoint.inode))
            });
            (is_known, path == self.live, !is_compressed(path))
        };
        let own = rank(path);
        candidates.iter().enumerate().any(|(other, (path, prefix))| {
            other != at && is_same(prefix) && (rank(path) > own || rank(path) == own && other < at)
        })
    }

    /// Whether a file is empty, or a prefix of another one: it may be an unfinished copy, so the next scan decides.
    fn may_be_unfinished_copy(&self, at: usize, candidates: &[(PathBuf, FilePrefix)]) -> bool {
        let prefix = &candidates[at].1;
        let text = prefix.text();
        prefix.is_short()
            && (text.is_empty()
                || self.tracked.iter().any(|file| file.starts_with(text))
                || candidates
                    .iter()
                    .any(|(_, other)| other.text().len() > text.len() && other.text().starts_with(text)))
    }

    /// First scan: resume where the last run stopped, or start as configured.
    fn start(&mut self, mut files: Vec<NewFile>) {
        let first_known = files.iter().position(|file| file.checkpoint.is_some());
        match first_known {
            // Files older than all known ones existed before the first run, or were read already.
            Some(first) => {
                for NewFile { path, .. } in files.drain(..first) {
                    match Checkpoint::at_end(&path) {
                        Ok(checkpoint) => {
                            let number = self.next_number();
                            self.finish(checkpoint, number);
                            self.skip(&path);
                        }
                        Err(error) => self.report_unreadable(path, &error),
                    }
                }
            }
            // A log that was empty in the last run has no fingerprint.
            None if self.previous.iter().any(|checkpoint| checkpoint.start.length > 0) => {
                self.incidents.push(Incident::Gap(self.live.clone()));
            }
            None if self.start_at == StartAt::End => {
                for NewFile { path, .. } in files {
                    let checkpoint = Checkpoint::at_end(&path);
                    let is_live = path == self.live;
                    match checkpoint {
                        Ok(checkpoint) if is_live => self.open(path, Some(checkpoint)),
                        Ok(checkpoint) => {
                            let number = self.next_number();
                            self.finish(checkpoint, number);
                            self.skip(&path);
                        }
                        Err(error) => self.report_unreadable(path, &error),
                    }
                }
                return;
            }
            None => {}
        }
        // The files of the remaining checkpoints no longer exist. If this applies to all known files, it is reported above.
        if first_known.is_some() {
            let unread = |checkpoint: &Checkpoint| checkpoint.size.saturating_sub(checkpoint.offset);
            let deleted = self.previous.iter().filter(|checkpoint| !checkpoint.is_finished);
            let bytes: u64 = deleted.map(unread).sum();
            if bytes > 0 {
                self.incidents.push(Incident::Deleted(self.live.clone(), bytes));
            }
        }
        self.previous.clear();
        for file in files {
            self.open_new(file);
        }
    }
}
