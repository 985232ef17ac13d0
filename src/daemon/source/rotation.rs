//! Determines the order in time of rotated files, by their names, and of sets of rotated files.
//!
//! Within a set, names decide: `audit-2026-11-23T03-53-15.501.log` by the time in the name (kube-apiserver), `audit.log.2` before
//! `audit.log.1`, `audit.log-20261123` by date (logrotate), the live `audit.log` last. Sets found together, in a directory or by a pattern,
//! are ordered by their first events, because a copied file loses its modification time; sets without a time come last, by name. Files that
//! were named individually keep their order, but sets stay together.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use regex::Regex;

use super::decompress;
use super::input::Input;

/// Number of bytes of a file that are searched for its first event's time, which is at the end of the first line.
const MAX_FIRST_EVENT: usize = 1024 * 1024;

/// The file name without a compression suffix.
pub fn uncompressed(name: &str) -> &str {
    [".gz", ".zst", ".zstd"].into_iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Orders files that were found together.
pub fn in_time_order(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut sets: HashMap<String, Vec<(Rank, PathBuf)>> = HashMap::new();
    for file in files {
        let rank = rank(&file);
        sets.entry(rank.set.clone()).or_default().push((rank, file));
    }
    let mut sets: Vec<(String, Vec<(Rank, PathBuf)>)> = sets.into_iter().collect();
    for (_, set) in &mut sets {
        set.sort();
    }
    if sets.len() > 1 {
        sets.sort_by_cached_key(|(name, set)| {
            let time = set.iter().find_map(|(_, file)| first_event(file));
            (time.is_none(), time, name.clone())
        });
    }
    sets.into_iter().flat_map(|(_, set)| set).map(|(_, file)| file).collect()
}

/// Groups the files of each rotated set at the position of its first file, in their order in time.
pub fn together(inputs: Vec<Input>) -> Vec<Input> {
    let mut sets: Vec<Vec<(Option<Rank>, Input)>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for input in inputs {
        let rank = match &input {
            Input::File(path) => Some(rank(path)),
            Input::Stdin => None,
        };
        let place = match &rank {
            Some(rank) => *places.entry(rank.set.clone()).or_insert(sets.len()),
            None => sets.len(),
        };
        if place == sets.len() {
            sets.push(Vec::new());
        }
        sets[place].push((rank, input));
    }
    for set in &mut sets {
        set.sort_by(|a, b| a.0.cmp(&b.0));
    }
    sets.into_iter().flatten().map(|(_, input)| input).collect()
}

/// The path of the live log of a set, given any file of the set.
pub fn live(path: &Path) -> PathBuf {
    let name = rank(path).set;
    let name = name.rsplit('/').next().unwrap_or(&name);
    path.with_file_name(name)
}

/// Whether the file is the live log or was rotated from it. Compares file names only, since a directory can be spelled in several
/// ways.
pub fn is_of_set(path: &Path, live: &Path) -> bool {
    self::live(path).file_name() == self::live(live).file_name()
}

/// When the first event of a file was received.
fn first_event(path: &Path) -> Option<Timestamp> {
    let mut reader = decompress::open(&Input::File(path.to_owned()), Arc::default()).ok()?;
    let mut text = Vec::new();
    // Most first lines fit into the first step.
    let mut size = 16 * 1024;
    while size <= MAX_FIRST_EVENT {
        let more = (size - text.len()) as u64;
        let read = reader.by_ref().take(more).read_to_end(&mut text);
        // The data read before an error counts.
        if let Some(time) = received(&text) {
            return Some(time);
        }
        if read.is_err() || text.len() < size {
            return None;
        }
        size *= 4;
    }
    None
}

fn received(text: &[u8]) -> Option<Timestamp> {
    const KEY: &[u8] = b"\"requestReceivedTimestamp\"";
    let value = &text[memchr::memmem::find(text, KEY)? + KEY.len()..];
    let value = value.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', value)?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

/// The position of a file in its rotated set. Fields are in the order of comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Path without the rotation suffix: the path of the live log.
    set: String,
    /// Rotated files sort before the live one.
    is_live: bool,
    /// Time in the name, in a form that sorts as a string.
    time: String,
    /// A higher number is older.
    number: std::cmp::Reverse<u64>,
    /// Makes the order total.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_sets_are_in_time_order() {
        let mut files: Vec<PathBuf> = [
            "/l/audit-2026-11-23T03-53-15.501.log.gz",
            "/l/audit-2026-11-23T04-37-59.162.log",
            "/l/audit.log",
            "/l/other.log.10.gz",
            "/l/other.log.2.zst",
            "/l/other.log.1",
            "/l/other.log",
            "/l/z.log-20261101.gz",
            "/l/z.log",
        ]
        .map(PathBuf::from)
        .into();
        let expected = files.clone();
        files.reverse();
        assert_eq!(in_time_order(files), expected);
    }

    #[test]
    fn named_files_keep_their_order_but_sets_stay_together() {
        let inputs = |names: &[&str]| -> Vec<Input> {
            names
                .iter()
                .map(|name| if *name == "-" { Input::Stdin } else { Input::File(PathBuf::from(name)) })
                .collect()
        };
        assert_eq!(
            together(inputs(&["z.log", "audit.log", "audit.log.1", "-", "a.log", "audit.log.2.gz"])),
            inputs(&["z.log", "audit.log.2.gz", "audit.log.1", "audit.log", "-", "a.log"])
        );
    }

    #[test]
    fn reads_the_time_of_the_first_event() {
        let time = "2026-11-23T10:00:00.000001Z";
        for text in [
            format!(r#"{{"requestReceivedTimestamp":"{time}","#),
            format!("{{\n  \"requestReceivedTimestamp\" : \"{time}\"\n}}"),
        ] {
            assert_eq!(received(text.as_bytes()), Some(time.parse().unwrap()));
        }
        assert_eq!(received(br#"{"requestReceivedTimestamp":"2026-11"#), None);
        assert_eq!(received(br#"{"requestReceivedTimestamp":"soon"}"#), None);
    }
}
