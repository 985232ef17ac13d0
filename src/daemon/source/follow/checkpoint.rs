//! Records how far a file was read, and recognizes the file after a restart, a rename, a copy or compression.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::file_id::FileId;
use crate::daemon::source::decompress;
use crate::daemon::source::input::Input;

/// Length of the fingerprinted prefix, in bytes. It contains the id, time and user of an audit event, so two logs differ within it.
const PREFIX_BYTES: usize = 1024;

/// Identifies a file by the hash of its first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of bytes hashed, at most [`PREFIX_BYTES`]. 0: unknown.
    pub length: u32,
    /// SHA-256 of these bytes.
    pub hash: [u8; 32],
}

impl Fingerprint {
    pub fn of(prefix: &[u8]) -> Self {
        let prefix = &prefix[..prefix.len().min(PREFIX_BYTES)];
        let length = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
        Fingerprint { length, hash: Sha256::digest(prefix).into() }
    }

    /// Whether hashing more bytes would make it more specific.
    pub fn is_short(&self) -> bool {
        (self.length as usize) < PREFIX_BYTES
    }

    /// Whether a file with this prefix is the fingerprinted one. An unknown fingerprint matches nothing.
    pub fn matches(&self, prefix: &[u8]) -> bool {
        let length = self.length as usize;
        length > 0 && prefix.len() >= length && Fingerprint::of(&prefix[..length]) == *self
    }
}

pub struct FilePrefix {
    text: Vec<u8>,
    whole: Fingerprint,
}

impl FilePrefix {
    /// Reads the first [`PREFIX_BYTES`] bytes, decompressed.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut text = Vec::with_capacity(PREFIX_BYTES);
        let reader = decompress::open(&Input::File(path.to_owned()), Arc::default())?;
        reader.take(PREFIX_BYTES as u64).read_to_end(&mut text)?;
        Ok(FilePrefix { whole: Fingerprint::of(&text), text })
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.whole
    }

    /// Whether the file is so short that another file may have the same content by chance.
    pub fn is_short(&self) -> bool {
        self.whole.is_short()
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether this is the file of the checkpoint, which may have been renamed, copied, compressed or extended since.
    pub fn matches(&self, checkpoint: &Checkpoint) -> bool {
        self.whole.length > 0 && self.whole == checkpoint.start || checkpoint.start.matches(&self.text)
    }
}

/// How far a file was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Device and inode. They identify the file until it is renamed across file systems, copied or compressed.
    pub device: u64,
    pub inode: u64,
    pub start: Fingerprint,
    /// Number of decompressed bytes that were returned to the caller.
    pub offset: u64,
    /// File size at the last scan.
    pub size: u64,
    /// Nothing more will be read unless the file grows.
    pub is_finished: bool,
    /// The offset is inside a line whose head was already returned as truncated; the rest of the line is skipped.
    pub in_skipped_line: bool,
}

impl Checkpoint {
    /// Positions after the last complete line of a file.
    pub fn at_end(path: &Path) -> io::Result<Self> {
        let id = FileId::of(path)?;
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let offset = last_line_end(&mut file, size)?;
        let start = FilePrefix::of(path)?.fingerprint();
        Ok(Checkpoint {
            device: id.device,
            inode: id.inode,
            start,
            offset,
            size,
            is_finished: false,
            in_skipped_line: false,
        })
    }
}

/// The offset after the last line break.
fn last_line_end(file: &mut File, size: u64) -> io::Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    const STEP: u64 = 64 * 1024;
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
