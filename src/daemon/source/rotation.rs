//! The order of time: which file of a rotated set comes first, and which set.
//!
//! Within a set the names say it: `audit-2026-11-23T03-53-15.501.log` and the like by the time in the name (as the
//! apiserver rotates), `audit.log.2` before `audit.log.1`, `audit.log-20261123` by its date (as logrotate does),
//! the live `audit.log` last. Sets that were found together, in a directory or by a pattern, come in the order of
//! their first events: a copy loses a file's time of change, but not what is in it. What has no time comes last,
//! by name. Files that are named one by one keep their order, but a set stays together.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use regex::Regex;

use super::decompress;
use super::input::Input;

/// Where the first event's time is looked for, in bytes: it stands at the end of its line.
const FIRST_EVENT: usize = 1024 * 1024;

/// The name without the ending of a compression.
pub fn uncompressed(name: &str) -> &str {
    [".gz", ".zst", ".zstd"].into_iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Files that were found together, in the order of time.
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

/// Brings the files of a set together, where the first of it stands, in the order of time.
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

/// The name of the log that rotation made a file of, or that it is itself.
pub fn live(path: &Path) -> PathBuf {
    let name = rank(path).set;
    let name = name.rsplit('/').next().unwrap_or(&name);
    path.with_file_name(name)
}

/// Whether rotation of `live` makes a file of that name beside it, or it is `live` itself. Folders are not looked at: one has many
/// spellings.
pub fn is_of_set(path: &Path, live: &Path) -> bool {
    self::live(path).file_name() == self::live(live).file_name()
}

/// When the first event of a file was received, if it says so.
fn first_event(path: &Path) -> Option<Timestamp> {
    let mut reader = decompress::open(&Input::File(path.to_owned()), Arc::default()).ok()?;
    let mut text = Vec::new();
    // Most first lines are much shorter than the longest.
    let mut size = 16 * 1024;
    while size <= FIRST_EVENT {
        let more = (size - text.len()) as u64;
        let read = reader.by_ref().take(more).read_to_end(&mut text);
        // What was read before an error counts.
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
    fn files_named_one_by_one_keep_their_order_but_sets_stay_together() {
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
    fn the_time_of_an_event_is_found() {
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
