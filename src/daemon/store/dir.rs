//! The state directory: its location, its files, its lock.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::error::WithPath as _;
use crate::detection::audit::time::{self, Clock};

/// Name of the database.
const FILE: &str = "pullwatch.db";
/// Name of the file that the daemon locks.
const LOCK: &str = "pullwatch.lock";

/// The default state directory: `$PULLWATCH_STATE_DIR`, else `/var/lib/pullwatch` for root, else `$XDG_STATE_HOME/pullwatch`, else
/// `~/.local/state/pullwatch`. For a user without a home, as in a container, `/var/lib/pullwatch`.
pub fn default_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose(
        variable("PULLWATCH_STATE_DIR"),
        rustix::process::geteuid().is_root(),
        variable("XDG_STATE_HOME"),
        variable("HOME"),
    )
}

fn choose(
    explicit: Option<PathBuf>,
    is_root: bool,
    xdg_state: Option<PathBuf>,
    home: Option<PathBuf>,
) -> PathBuf {
    // The XDG specification says to ignore relative paths.
    let of_user = xdg_state
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")))
        .filter(|_| !is_root)
        .map(|base| base.join("pullwatch"));
    explicit.or(of_user).unwrap_or_else(|| PathBuf::from("/var/lib/pullwatch"))
}

/// The path of the database in a state directory.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Creates the directory and its parents with mode 0700. A directory that exists keeps its mode.
pub(super) fn create(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).at(dir)
}

/// The lock of a state directory, held until it is dropped. The kernel releases it however the process ends.
#[derive(Debug)]
pub(super) struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file is not sufficient: a child process being started by another thread has a copy of the descriptor until it
        // executes its program, and thereby holds the lock. If this call fails, closing is the only option left.
        let _ = self.0.unlock();
    }
}

/// Takes the lock.
pub(super) fn lock(dir: &Path) -> Result<DirLock, Error> {
    let path = dir.join(LOCK);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).at(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::of_io(&path, error)),
    }
}

/// Creates an empty database file with mode 0600 if there is none, since SQLite would use the umask. Returns whether there was an empty
/// one.
pub(super) fn create_file(path: &Path) -> Result<bool, Error> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // The content of a database that was not closed may be only in its write-ahead log.
            let is_empty =
                |suffix| fs::metadata(with_suffix(path, suffix)).map_or(true, |file| file.len() == 0);
            Ok(is_empty("") && is_empty("-wal"))
        }
        Err(error) => Err(Error::of_io(path, error)),
    }
}

/// The permission bits of a directory that any user can write to: such a user can replace the store. With the sticky bit, as on `/tmp`,
/// this is impossible.
pub(super) fn world_writable(dir: &Path) -> Result<Option<u32>, Error> {
    let mode = fs::metadata(dir).at(dir)?.permissions().mode() & 0o7777;
    Ok((mode & 0o002 != 0 && mode & 0o1000 == 0).then_some(mode))
}

/// Distinguishes a file from others, including one that has its name later.
pub(super) type FileIdentity = (u64, u64);

/// Returns the identity of the file that has this path now.
pub(super) fn identity(path: &Path) -> std::io::Result<FileIdentity> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Renames a damaged database and its log. The log is renamed first: after a kill in between, the database is moved aside at the next
/// start, and no new database is opened with an old log.
pub(super) fn set_aside(path: &Path, now: i64) -> Result<PathBuf, Error> {
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

/// Size of the database and its log on the disk, in bytes.
pub(super) fn bytes(path: &Path) -> u64 {
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
    fn the_default_directory_depends_on_user_and_environment() {
        let path = |text: &str| Some(PathBuf::from(text));
        let (home, state) = (path("/home/ada"), path("/state"));
        assert_eq!(choose(path("here"), true, None, None), PathBuf::from("here"));
        assert_eq!(choose(None, true, state.clone(), home.clone()), PathBuf::from("/var/lib/pullwatch"));
        assert_eq!(choose(None, false, state, home.clone()), PathBuf::from("/state/pullwatch"));
        assert_eq!(choose(None, false, path("odd"), home), PathBuf::from("/home/ada/.local/state/pullwatch"));
        assert_eq!(choose(None, false, None, None), PathBuf::from("/var/lib/pullwatch"));
    }

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        // Like the copy that a child process has for a moment.
        let copy = held.0.try_clone().unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::InUse { .. })));
        drop(held);
        drop(lock(dir.path()).unwrap());
        drop(copy);
    }

    #[test]
    fn moving_a_file_aside_replaces_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        let mut names = Vec::new();
        for text in ["a", "b", "c"] {
            fs::write(&path, text).unwrap();
            fs::write(with_suffix(&path, "-wal"), text).unwrap();
            names.push(set_aside(&path, 1_795_428_000_000_000_000).unwrap());
        }
        let content = |number: usize| fs::read_to_string(with_suffix(&names[number], "-wal")).unwrap();
        assert_eq!([content(0), content(1), content(2)], ["a", "b", "c"]);
        assert!(names[0].ends_with("pullwatch.db.corrupt-20261123T100000Z"));
        assert!(names[2].ends_with("pullwatch.db.corrupt-20261123T100000Z-2"));
    }
}
