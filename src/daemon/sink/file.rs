//! Appends alerts to a file that other programs may rotate.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::config;
use super::error::SettingsError;
use super::failure::{Failure, Reason};
use super::output::{Rendering, write_lines};
use crate::detection::alert::StoredAlert;

/// Appends lines to the file at a path.
#[derive(Debug)]
pub(crate) struct FileSink {
    settings: config::File,
    shape: Rendering,
    creation: Creation,
    /// `None` before the first delivery, after [`FileSink::close`], and while a write runs.
    open: Option<OpenFile>,
}

/// Permissions and group of a newly created file.
#[derive(Clone, Copy, Debug)]
struct Creation {
    mode: u32,
    group: Option<u32>,
}

/// Returns the number of a group, given its name in the system's group file or the number itself.
fn group_id(group: &str) -> Result<u32, SettingsError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut entries = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let number = entries.find_map(|entry| match entry[..] {
        [name, _, number, ..] if name == group => number.parse().ok(),
        _ => None,
    });
    number.ok_or_else(|| SettingsError::Group(group.to_owned()))
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// The last write ended inside a line.
    ends_mid_line: bool,
}

impl FileSink {
    /// Checks the settings. Opens nothing.
    ///
    /// # Errors
    /// If the group does not exist.
    pub(crate) fn new(settings: &config::File, shape: Rendering) -> Result<Self, SettingsError> {
        let group = settings.group.as_deref().map(group_id).transpose()?;
        let creation = Creation { mode: settings.mode.unwrap_or(0o600), group };
        Ok(FileSink { settings: settings.clone(), shape, creation, open: None })
    }

    /// Closes the file. The next delivery opens the path again.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Appends all alerts.
    pub(crate) async fn deliver(&mut self, alerts: &[StoredAlert]) -> Result<usize, Failure> {
        let mut lines = Vec::new();
        let mut ends = Vec::with_capacity(alerts.len());
        let failure = write_lines(&self.shape, alerts, &mut lines, &mut ends);
        let (open, path, sync) = (self.open.take(), self.settings.path.clone(), self.settings.sync);
        let creation = self.creation;
        let write = tokio::task::spawn_blocking(move || write(open, &path, creation, sync, &lines, &ends));
        let Ok((open, result)) = write.await else {
            return Err(Failure::transient(Reason::Io, "the write was aborted"));
        };
        self.open = open;
        match (result, failure) {
            (Ok(_), Some(failure)) => Err(failure),
            (result, _) => result,
        }
    }
}

/// Writes lines to the open file if it is still at the path; otherwise, opens the file that is at the path now. `ends` contains the end of
/// each line.
fn write(
    open: Option<OpenFile>,
    path: &Path,
    creation: Creation,
    sync: bool,
    lines: &[u8],
    ends: &[usize],
) -> (Option<OpenFile>, Result<usize, Failure>) {
    let open = match open.filter(|open| is_at(&open.file, path)) {
        Some(open) => Ok(open),
        None => OpenFile::new(path, creation),
    };
    let mut open = match open {
        Ok(open) => open,
        Err(error) => return (None, Err(io_failure(path, &error))),
    };
    let (written, result) = open.append(lines);
    let done = ends.partition_point(|end| *end <= written);
    let result = match result {
        Ok(()) if sync => open.file.sync_data(),
        result => result,
    };
    match result {
        Ok(()) => (Some(open), Ok(done)),
        // After a failed sync, the content of the disk is unknown, so everything is written again.
        Err(error) if written == lines.len() => (None, Err(io_failure(path, &error))),
        Err(error) => (Some(open), Err(io_failure(path, &error).after(done))),
    }
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::io(error);
    Failure { detail: format!("{}: {error}", path.display()), ..failure }
}

impl OpenFile {
    fn new(path: &Path, creation: Creation) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // No other user can open it before its group and mode are set.
                let file = options.create(true).mode(0o600).open(path)?;
                if creation.group.is_some() {
                    std::os::unix::fs::fchown(&file, None, creation.group)?;
                }
                if creation.mode != 0o600 {
                    file.set_permissions(std::fs::Permissions::from_mode(creation.mode))?;
                }
                file
            }
            file => file?,
        };
        let ends_mid_line = !starts_new_line(&file)?;
        Ok(OpenFile { file, ends_mid_line })
    }

    /// Appends bytes, and returns how many of them were written, even after an error.
    fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        if self.ends_mid_line {
            // An incomplete line left by a kill or a full disk becomes a separate line.
            if let Err(error) = self.file.write_all(b"\n") {
                return (0, Err(error));
            }
            self.ends_mid_line = false;
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return self.stop(bytes, written, io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.stop(bytes, written, error),
            }
        }
        (written, Ok(()))
    }

    fn stop(&mut self, bytes: &[u8], written: usize, error: io::Error) -> (usize, io::Result<()>) {
        self.ends_mid_line = written > 0 && bytes[written - 1] != b'\n';
        (written, Err(error))
    }
}

/// Whether the open file is still at the path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => ours.dev() == theirs.dev() && ours.ino() == theirs.ino(),
        _ => false,
    }
}

/// Whether appended bytes start a new line. True for pipes and devices, which cannot be read back.
pub(crate) fn starts_new_line(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let Some(last) = metadata.len().checked_sub(1).filter(|_| metadata.is_file()) else { return Ok(true) };
    let mut byte = [0];
    // The file may have been truncated meanwhile.
    Ok(file.read_at(&mut byte, last)? == 0 || byte == *b"\n")
}
