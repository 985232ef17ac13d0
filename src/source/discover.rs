//! From what a user names to the files to read, in the order of time.
//!
//! A rotated set is read oldest first: `audit-2026-11-23T03-53-15.501.log` and the like by the time in the
//! name (as the apiserver rotates), `audit.log.2` before `audit.log.1`, `audit.log-20261123` by its date (as
//! logrotate does), the live `audit.log` last. Sets of different names come one after the other, by name.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use globset::GlobBuilder;
use regex::Regex;

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// Its name, for people.
    pub fn name(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
        }
    }
}

/// Why something named by the user is not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{0}: no such file or directory")]
    Missing(String),
    /// No file fits the pattern.
    #[error("{0}: no file fits this pattern")]
    NoMatch(String),
    /// The pattern is none.
    #[error("{0}: {1}")]
    Pattern(String, String),
    /// The directory holds no logs.
    #[error(
        "{0}: no audit log in this directory (looked for *.log*, *.json, *.jsonl, *.ndjson; plain, .gz or .zst)"
    )]
    NoLogs(String),
    /// It cannot be read.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// How deep a pattern with `**` looks.
const DEEPEST: usize = 16;

/// The inputs that these names stand for: files, directories, patterns, `-`. Each file once.
pub fn inputs(names: &[String]) -> (Vec<Input>, Vec<Error>) {
    let (mut inputs, mut errors) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for name in names {
        match expand(name) {
            Ok(found) => {
                for input in found {
                    let identity = match &input {
                        Input::File(path) => {
                            Input::File(path.canonicalize().unwrap_or_else(|_| path.clone()))
                        }
                        Input::Stdin => Input::Stdin,
                    };
                    if seen.insert(identity) {
                        inputs.push(input);
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    // Several names may be one rotated set that the shell expanded.
    if inputs.iter().all(|input| matches!(input, Input::File(_))) {
        let mut files: Vec<PathBuf> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::File(path) => Some(path.clone()),
                Input::Stdin => None,
            })
            .collect();
        if is_one_set(&files) {
            sort(&mut files);
            inputs = files.into_iter().map(Input::File).collect();
        }
    }
    (inputs, errors)
}

fn expand(name: &str) -> Result<Vec<Input>, Error> {
    if name == "-" {
        return Ok(vec![Input::Stdin]);
    }
    let path = Path::new(name);
    let mut files = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let files = directory(path).map_err(|error| Error::Io(name.to_owned(), error))?;
            if files.is_empty() {
                return Err(Error::NoLogs(name.to_owned()));
            }
            files
        }
        Ok(_) => vec![path.to_owned()],
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.contains(['*', '?', '[', '{']) => {
            pattern(name)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(name.to_owned())),
        Err(error) => return Err(Error::Io(name.to_owned(), error)),
    };
    sort(&mut files);
    Ok(files.into_iter().map(Input::File).collect())
}

fn directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let is_log = path.file_name().and_then(OsStr::to_str).is_some_and(looks_like_log);
        if is_log && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn looks_like_log(name: &str) -> bool {
    let plain = uncompressed(name);
    let ends = |extension: &str| plain.to_ascii_lowercase().ends_with(extension);
    !name.starts_with('.') && (plain.contains(".log") || ends(".json") || ends(".jsonl") || ends(".ndjson"))
}

fn uncompressed(name: &str) -> &str {
    [".gz", ".zst"].into_iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name)
}

fn pattern(name: &str) -> Result<Vec<PathBuf>, Error> {
    let glob = GlobBuilder::new(name)
        .literal_separator(true)
        .build()
        .map_err(|error| Error::Pattern(name.to_owned(), error.kind().to_string()))?
        .compile_matcher();
    let fixed: PathBuf = Path::new(name)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
        .collect();
    let root = if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed.clone() };
    let depth = if name.contains("**") { DEEPEST } else { Path::new(name).components().count() };
    let mut files = Vec::new();
    let mut open = vec![(root, 0)];
    while let Some((folder, level)) = open.pop() {
        // A folder that cannot be read holds nothing that fits.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let path = if fixed.as_os_str().is_empty() {
                path.strip_prefix(".").unwrap_or(&path).to_owned()
            } else {
                path
            };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && level < depth {
                open.push((path, level + 1));
            } else if glob.is_match(&path) && path.is_file() {
                files.push(path);
            }
        }
    }
    if files.is_empty() { Err(Error::NoMatch(name.to_owned())) } else { Ok(files) }
}

/// The place of a file in its rotated set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The name without what rotation added.
    set: String,
    /// Rotated files before the live one.
    is_live: bool,
    /// A time in the name, as text that sorts.
    time: String,
    /// A higher number is older.
    number: std::cmp::Reverse<u64>,
    /// To be the same every time.
    name: String,
}

#[allow(clippy::unwrap_used)] // Constant expressions; a test compiles them.
static APISERVER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(.+)-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)(\.[A-Za-z]+)?$").unwrap());
#[allow(clippy::unwrap_used)]
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(.+)\.(\d{1,7})$").unwrap());
#[allow(clippy::unwrap_used)]
static DATED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(.+?)[-.](\d{8}(?:\d{2})?|\d{4}-\d\d-\d\d)(\.[A-Za-z]+)?$").unwrap());

fn rank(path: &Path) -> Rank {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let plain = uncompressed(&name);
    let part =
        |found: &regex::Captures<'_>, at: usize| found.get(at).map_or("", |part| part.as_str()).to_owned();
    let (set, time, number, is_live) = if let Some(found) = APISERVER.captures(plain) {
        (part(&found, 1) + &part(&found, 3), part(&found, 2), 0, false)
    } else if let Some(found) = DATED.captures(plain) {
        (part(&found, 1) + &part(&found, 3), part(&found, 2), 0, false)
    } else if let Some(found) = NUMBERED.captures(plain) {
        (part(&found, 1), String::new(), part(&found, 2).parse().unwrap_or(0), false)
    } else {
        (plain.to_owned(), String::new(), 0, true)
    };
    Rank { set: format!("{folder}/{set}"), is_live, time, number: std::cmp::Reverse(number), name }
}

fn sort(files: &mut [PathBuf]) {
    files.sort_by_cached_key(|path| rank(path));
}

fn is_one_set(files: &[PathBuf]) -> bool {
    let mut sets = files.iter().map(|path| rank(path).set);
    let first = sets.next();
    sets.all(|set| Some(set) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_sets_are_in_time_order() {
        let mut files: Vec<PathBuf> = [
            "/l/audit.log",
            "/l/audit-2026-11-23T04-37-59.162.log",
            "/l/audit-2026-11-23T03-53-15.501.log.gz",
            "/l/other.log.1",
            "/l/other.log",
            "/l/other.log.10.gz",
            "/l/other.log.2.zst",
            "/l/z.log-20261101.gz",
            "/l/z.log",
        ]
        .map(PathBuf::from)
        .into();
        files.reverse();
        sort(&mut files);
        let names: Vec<_> =
            files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        audit-2026-11-23T03-53-15.501.log.gz
        audit-2026-11-23T04-37-59.162.log
        audit.log
        other.log.10.gz
        other.log.2.zst
        other.log.1
        other.log
        z.log-20261101.gz
        z.log
        ");
    }
}
