//! The identity of an open file, and metadata that reveals changes to it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Identifies a file under any name, as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

impl FileId {
    /// Follows symbolic links.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::and_state(path).map(|(id, _)| id)
    }

    /// Also returns metadata that changes with every write, rename or chmod.
    pub fn and_state(path: &Path) -> io::Result<(Self, FileState)> {
        let metadata = std::fs::metadata(path)?;
        Ok((FileId::from(&metadata), FileState::of(&metadata)))
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Changes whenever the file does: size, modification time and inode change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    pub size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    pub fn of(metadata: &Metadata) -> Self {
        FileState {
            size: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
