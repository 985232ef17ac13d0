//! Where reading stands in a file, and how the file is known again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::file::Identity;
use crate::daemon::source::decompress;
use crate::daemon::source::discover::Input;

/// So many bytes of a file's beginning tell it from all others: an audit event has an id, a time and a user by then.
const BEGINNING: usize = 1024;

/// The beginning of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of so many bytes.
    pub length: u32,
    /// Their SHA-256.
    pub hash: [u8; 32],
}

impl Fingerprint {
    /// Of a file's first bytes.
    pub fn of(beginning: &[u8]) -> Self {
        let beginning = &beginning[..beginning.len().min(BEGINNING)];
        let length = u32::try_from(beginning.len()).unwrap_or(u32::MAX);
        Fingerprint { length, hash: Sha256::digest(beginning).into() }
    }

    /// Whether a longer beginning would tell more.
    pub fn is_short(&self) -> bool {
        (self.length as usize) < BEGINNING
    }

    /// Whether a file starts so. An empty beginning is that of no file.
    pub fn fits(&self, beginning: &[u8]) -> bool {
        let length = self.length as usize;
        length > 0 && beginning.len() >= length && Fingerprint::of(&beginning[..length]) == *self
    }
}

/// The first bytes of a file, decompressed.
pub struct Beginning {
    text: Vec<u8>,
    whole: Fingerprint,
}

impl Beginning {
    /// Reads them.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut text = Vec::with_capacity(BEGINNING);
        let reader = decompress::open(&Input::File(path.to_owned()), Arc::default())?;
        reader.take(BEGINNING as u64).read_to_end(&mut text)?;
        Ok(Beginning { whole: Fingerprint::of(&text), text })
    }

    /// As far as it goes.
    pub fn fingerprint(&self) -> Fingerprint {
        self.whole
    }

    /// Whether it is so short that another file's may only look like it.
    pub fn is_short(&self) -> bool {
        self.whole.is_short()
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the file is the one of a mark, renamed, copied, compressed or longer by now.
    pub fn is_of(&self, mark: &Mark) -> bool {
        self.whole.length > 0 && self.whole == mark.start || mark.start.fits(&self.text)
    }
}

/// Up to where a file was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Device and inode, as long as they last.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// The file's beginning.
    pub start: Fingerprint,
    /// Bytes read, as they are when decompressed.
    pub offset: u64,
    /// Bytes there when it was last looked at.
    pub size: u64,
    /// Nothing more is to be read of it.
    pub is_done: bool,
    /// The offset is inside a line whose head was handed on: the rest of it is passed over.
    pub skips: bool,
}

impl Mark {
    /// At the end of the last line of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at_end(path: &Path) -> io::Result<Self> {
        let identity = Identity::of(path)?;
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let offset = last_line_end(&mut file, size)?;
        let start = Beginning::of(path)?.fingerprint();
        Ok(Mark {
            device: identity.device,
            inode: identity.inode,
            start,
            offset,
            size,
            is_done: false,
            skips: false,
        })
    }
}

/// Behind the last line break of a file.
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
