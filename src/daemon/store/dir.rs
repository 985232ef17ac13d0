//! The directory: where it is, what lies in it, and who holds it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::error::At as _;
use crate::detection::audit::time::{self, Clock};

/// The database in the directory.
const FILE: &str = "pullwatch.db";
/// Held by the process that writes.
const LOCK: &str = "pullwatch.lock";

/// Where state is kept unless somebody says otherwise: `$PULLWATCH_STATE_DIR`, else `/var/lib/pullwatch` for root, else
/// `$XDG_STATE_HOME/pullwatch`, else `~/.local/state/pullwatch`. A user without a home has `/var/lib/pullwatch`, as in a
/// container.
pub fn default_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose(
        variable("PULLWATCH_STATE_DIR"),
        rustix::process::geteuid().is_root(),
        variable("XDG_STATE_HOME"),
        variable("HOME"),
    )
}

fn choose(said: Option<PathBuf>, is_root: bool, state: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // The XDG specification has relative paths ignored.
    let own = state
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")))
        .filter(|_| !is_root)
        .map(|base| base.join("pullwatch"));
    said.or(own).unwrap_or_else(|| PathBuf::from("/var/lib/pullwatch"))
}

/// The database of a state directory.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Makes the directory and those above it, for its owner alone. One that is there keeps its mode.
pub fn create(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).at(dir)
}

/// Takes the lock, which lasts as long as the file is open: a process that dies gives it back, however it dies.
pub fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).at(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::of_io(&path, error)),
    }
}

/// Makes an empty database file if there is none, for its owner alone: the database would go by the umask.
pub fn create_file(path: &Path) -> Result<(), Error> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::of_io(path, error)),
        _ => Ok(()),
    }
}

/// Gives a damaged file another name, and what belongs to it. The log goes first: should we be killed in between, the file is
/// set aside at the next start, and no new file meets an old log.
pub fn set_aside(path: &Path, now: i64) -> Result<PathBuf, Error> {
    let when: String = time::format(Clock::Iso8601, now)
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|letter| !matches!(letter, '-' | ':'))
        .collect();
    let name = |number: u32| {
        let again = if number == 0 { String::new() } else { format!("-{number}") };
        with_suffix(path, &format!(".corrupt-{when}Z{again}"))
    };
    let is_free =
        |aside: &PathBuf| ["", "-wal", "-shm"].iter().all(|suffix| !with_suffix(aside, suffix).exists());
    let aside = (0..1000).map(name).find(is_free).unwrap_or_else(|| name(1000));
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        match fs::rename(&from, with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::of_io(&from, error));
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// How many bytes of the disk the database and its log take.
pub fn bytes(path: &Path) -> u64 {
    ["", "-wal"]
        .iter()
        .filter_map(|suffix| fs::metadata(with_suffix(path, suffix)).ok())
        .map(|file| file.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_directory() {
        let path = |text: &str| Some(PathBuf::from(text));
        let (home, state) = (path("/home/ada"), path("/state"));
        assert_eq!(choose(path("here"), true, None, None), PathBuf::from("here"));
        assert_eq!(choose(None, true, state.clone(), home.clone()), PathBuf::from("/var/lib/pullwatch"));
        assert_eq!(choose(None, false, state, home.clone()), PathBuf::from("/state/pullwatch"));
        assert_eq!(choose(None, false, path("odd"), home), PathBuf::from("/home/ada/.local/state/pullwatch"));
        assert_eq!(choose(None, false, None, None), PathBuf::from("/var/lib/pullwatch"));
    }

    #[test]
    fn what_is_set_aside_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        let mut names = Vec::new();
        for text in ["a", "b", "c"] {
            fs::write(&path, text).unwrap();
            fs::write(with_suffix(&path, "-wal"), text).unwrap();
            names.push(set_aside(&path, 1_795_428_000_000_000_000).unwrap());
        }
        let said = |number: usize| fs::read_to_string(with_suffix(&names[number], "-wal")).unwrap();
        assert_eq!([said(0), said(1), said(2)], ["a", "b", "c"]);
        assert!(names[0].ends_with("pullwatch.db.corrupt-20261123T100000Z"));
        assert!(names[2].ends_with("pullwatch.db.corrupt-20261123T100000Z-2"));
    }
}
