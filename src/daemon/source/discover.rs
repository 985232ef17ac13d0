//! Expands names given by the user to the files to read: files, directories, patterns, standard input.
//!
//! A directory stands for the audit logs in it and in its subdirectories, except hidden ones; symbolic links to directories are not
//! followed. Logs are recognized by name: `*.log*`, `*.json`, `*.jsonl`, `*.ndjson`, plain or compressed. A pattern stands for all matching
//! files, and for the logs in all matching directories. Each file is read once. [`super::rotation`] determines the order.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::input::Input;
use super::rotation;
use crate::detection::audit::envelope;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: no such file or directory")]
    Missing(String),
    #[error("{0}: no file matches this pattern")]
    NoMatch(String),
    #[error("{0}: invalid pattern: {1}")]
    Pattern(String, String),
    #[error(
        "{0}: no audit log in this directory (looked for *.log*, *.json, *.jsonl, *.ndjson; plain, .gz or .zst)"
    )]
    NoLogs(String),
    #[error(
        "{0}: all logs here are of other pods than an apiserver's, which could forge events; to read one anyway, name the file"
    )]
    OtherPods(String),
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Maximum depth of subdirectories.
const MAX_DEPTH: usize = 64;

/// The inputs for the given names, in reading order, and the errors of names without input.
pub fn inputs(names: &[OsString]) -> (Vec<Input>, Vec<Error>) {
    let mut search = Search::default();
    for name in names {
        search.name(name);
    }
    // A shell expands a rotated set in the order of names, not of time.
    let inputs = rotation::together(search.found);
    (inputs, search.errors)
}

#[derive(Debug, Default)]
struct Search {
    found: Vec<Input>,
    /// Canonical paths of the files that were found.
    seen: HashSet<PathBuf>,
    errors: Vec<Error>,
}

impl Search {
    fn name(&mut self, name: &OsStr) {
        let path = Path::new(name);
        let shown = path.display().to_string();
        if name == "-" {
            if !self.found.contains(&Input::Stdin) {
                self.found.push(Input::Stdin);
            }
            return;
        }
        let mut files = Vec::new();
        let errors = self.errors.len();
        let is_named = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir());
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                self.directory(path, 0, &mut files);
                if files.is_empty() && errors == self.errors.len() {
                    self.errors.push(Error::NoLogs(shown));
                }
            }
            Ok(_) => files.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(&shown) => {
                if let Err(error) = self.pattern(&shown, &mut files) {
                    self.errors.push(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.errors.push(Error::Missing(shown)),
            Err(error) => self.errors.push(Error::Io(shown, error)),
        }
        // Any pod can print an event to its own log. A file that is named explicitly is read nevertheless.
        let had_files = !files.is_empty();
        if !is_named {
            files.retain(|file| !envelope::is_log_of_other_pod(file.as_os_str().as_encoded_bytes()));
        }
        if had_files && files.is_empty() && errors == self.errors.len() {
            self.errors.push(Error::OtherPods(path.display().to_string()));
        }
        for file in rotation::in_time_order(files) {
            if self.seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                self.found.push(Input::File(file));
            }
        }
    }

    /// Collects the logs in a directory and its subdirectories.
    fn directory(&mut self, path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                self.errors.push(Error::Io(path.display().to_string(), error));
                return;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.errors.push(Error::Io(path.display().to_string(), error));
                    continue;
                }
            };
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if depth < MAX_DEPTH {
                    self.directory(&path, depth + 1, files);
                }
            } else if looks_like_log(&entry.file_name().to_string_lossy()) && path.is_file() {
                files.push(path);
            }
        }
    }

    /// Collects the files that match a pattern, and the logs in directories that match.
    fn pattern(&mut self, name: &str, files: &mut Vec<PathBuf>) -> Result<(), Error> {
        // Normalized like the paths that are compared with it (no doubled slashes).
        let normal: PathBuf = Path::new(name).components().collect();
        let parts: Vec<_> =
            normal.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let glob = GlobBuilder::new(&normal.to_string_lossy())
            .literal_separator(true)
            .build()
            .map_err(|error| Error::Pattern(name.to_owned(), error.kind().to_string()))?
            .compile_matcher();
        let fixed: PathBuf = parts.iter().take_while(|part| !is_pattern(part)).collect();
        let below = parts.len() - fixed.components().count();
        let walk = Walk {
            glob,
            depth: if name.contains("**") { MAX_DEPTH } else { below },
            with_hidden: parts.iter().any(|part| part.starts_with('.') && part != "." && part != ".."),
        };
        self.walk(&walk, &fixed, 1, files);
        if files.is_empty() { Err(Error::NoMatch(name.to_owned())) } else { Ok(()) }
    }

    fn walk(&mut self, walk: &Walk, folder: &Path, level: usize, files: &mut Vec<PathBuf>) {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // An unreadable directory contains no match.
        let Ok(entries) = std::fs::read_dir(here) else { return };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            if is_hidden(&path) && !walk.with_hidden {
                continue;
            }
            let fits = walk.glob.is_match(&path);
            if path.is_dir() {
                // A link to a parent directory would recurse without end under `**`.
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if fits {
                    self.directory(&path, 0, files);
                }
                if level < walk.depth && !(is_link && walk.depth == MAX_DEPTH) {
                    self.walk(walk, &path, level + 1, files);
                }
            } else if fits && path.is_file() {
                files.push(path);
            }
        }
    }
}

struct Walk {
    glob: GlobMatcher,
    depth: usize,
    with_hidden: bool,
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

/// Whether a file is among the logs of a directory, judging by its path alone.
pub fn is_log_below(directory: &Path, file: &Path) -> bool {
    file.strip_prefix(directory).is_ok_and(|below| {
        below.components().all(|part| !is_hidden(Path::new(part.as_os_str())))
            && below.file_name().is_some_and(|name| looks_like_log(&name.to_string_lossy()))
    })
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn looks_like_log(name: &str) -> bool {
    let plain = rotation::uncompressed(name).to_ascii_lowercase();
    plain.contains(".log") || [".json", ".jsonl", ".ndjson"].iter().any(|ending| plain.ends_with(ending))
}
