//! One file that is being read.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Step;
use super::mark::{BEGINNING, Beginning, Fingerprint, Mark};
use crate::source::discover::Input;
use crate::source::{open, rotation};

/// So much is read at once.
const STEP: usize = 256 * 1024;

/// What a file is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device.
    pub device: u64,
    /// The inode on it.
    pub inode: u64,
}

impl Identity {
    /// Of the file at a path; a link is followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::and_state(path).map(|(identity, _)| identity)
    }

    /// And what changes when the file does: its size, and when it was written to.
    pub fn and_state(path: &Path) -> io::Result<(Self, (u64, Option<SystemTime>))> {
        let metadata = std::fs::metadata(path)?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        Ok((identity, (metadata.len(), metadata.modified().ok())))
    }
}

/// Where the bytes come from.
enum Content {
    /// A file that may grow.
    Plain(File),
    /// A compressed one, which does not.
    Compressed(Box<dyn Read + Send>),
}

/// A file that is being read.
pub struct Tracked {
    pub path: PathBuf,
    pub identity: Identity,
    /// It is what the log's name stands for now.
    pub is_live: bool,
    /// Which of all files it was, by when it was opened.
    pub number: u64,
    /// When it last had something new.
    pub grew_at: Instant,
    content: Content,
    start: Fingerprint,
    /// Handed on.
    offset: u64,
    /// Read, and not handed on: a line without its end.
    rest: Vec<u8>,
    /// The line at hand was handed on by its head; it is passed over up to its end.
    skips: bool,
    size: u64,
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracked({} at {} of {})", self.path.display(), self.offset, self.size)
    }
}

impl Tracked {
    /// Opens a file, to go on where a mark stands.
    pub fn open(path: &Path, mark: Option<&Mark>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_compressed = rotation::uncompressed(&name).len() < name.len();
        // Between a look at a name and opening it another file may have got that name: it begins in another way.
        let mark = match mark {
            Some(mark) if !is_compressed && mark.start.length > 0 && !mark.start.fits(&beginning(&file)?) => {
                None
            }
            mark => mark,
        };
        let offset = mark.map_or(0, |mark| mark.offset);
        let content = if is_compressed {
            let mut reader = open::open(&Input::File(path.to_owned()), Arc::default())?;
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
            Content::Compressed(reader)
        } else {
            file.seek(SeekFrom::Start(offset))?;
            Content::Plain(file)
        };
        Ok(Tracked {
            path: path.to_owned(),
            identity: Identity { device: metadata.dev(), inode: metadata.ino() },
            is_live: false,
            number: 0,
            grew_at: Instant::now(),
            content,
            start: match mark {
                Some(mark) => mark.start,
                None if is_compressed => Beginning::of(path)?.fingerprint(),
                None => Fingerprint::default(),
            },
            offset,
            rest: Vec::new(),
            skips: false,
            size: metadata.len(),
        })
    }

    /// Where reading stands.
    pub fn mark(&self) -> Mark {
        Mark {
            device: self.identity.device,
            inode: self.identity.inode,
            start: self.start,
            offset: self.offset,
            size: self.size,
            is_done: false,
        }
    }

    /// Looks at its beginning, where more of it would tell more.
    pub fn identify_if_short(&mut self) {
        if self.start.is_short() && self.offset + self.rest.len() as u64 > 0 {
            // Where this fails reading does too, and is said; where it is another file now, that is noticed next.
            let _ = self.is_the_same();
        }
    }

    /// Whether it is compressed: then it does not grow.
    pub fn is_compressed(&self) -> bool {
        matches!(self.content, Content::Compressed(_))
    }

    /// Bytes that were not handed on.
    pub fn lag(&self) -> u64 {
        match &self.content {
            Content::Plain(file) => {
                file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.offset))
            }
            Content::Compressed(_) => 1,
        }
    }

    /// If the file was written anew from its beginning: where reading stood before.
    pub fn was_truncated(&mut self) -> Option<Mark> {
        let Content::Plain(file) = &self.content else { return None };
        let size = file.metadata().ok()?.len();
        let is_shorter = size < self.offset + self.rest.len() as u64;
        let is_another = || {
            let mut beginning = vec![0; self.start.length as usize];
            file.read_exact_at(&mut beginning, 0).is_ok() && !self.start.fits(&beginning)
        };
        if !(is_shorter || self.start.length > 0 && is_another()) {
            self.size = size;
            return None;
        }
        Some(self.mark())
    }

    /// Goes on at the beginning.
    pub fn start_anew(&mut self) {
        if let Content::Plain(file) = &mut self.content {
            // Where this fails, reading does too, and is said.
            let _ = file.seek(SeekFrom::Start(0));
        }
        self.start = Fingerprint::default();
        self.offset = 0;
        self.rest.clear();
        self.skips = false;
        self.size = 0;
    }

    /// Reads on, up to the end of the last line that is there whole.
    pub fn read(&mut self, buffer: &mut Vec<u8>, longest: usize) -> io::Result<Step> {
        loop {
            let before = self.rest.len();
            let read = match &mut self.content {
                Content::Plain(file) => file.take(STEP as u64).read_to_end(&mut self.rest)?,
                Content::Compressed(reader) => {
                    reader.by_ref().take(STEP as u64).read_to_end(&mut self.rest)?
                }
            };
            if read == 0 {
                return Ok(Step::Idle);
            }
            if !self.is_the_same()? {
                // Truncated and written anew since the last look: these bytes are of another place than they seem. The next look
                // finds out.
                self.rest.truncate(before);
                let position = self.offset + before as u64;
                if let Content::Plain(file) = &mut self.content {
                    file.seek(SeekFrom::Start(position))?;
                }
                return Ok(Step::Idle);
            }
            self.grew_at = Instant::now();
            if self.skips {
                // The rest of a line that was handed on by its head.
                let end = memchr::memchr(b'\n', &self.rest);
                let passed = end.map_or(self.rest.len(), |end| end + 1);
                self.rest.drain(..passed);
                self.offset += passed as u64;
                self.skips = end.is_none();
                if self.rest.is_empty() {
                    continue;
                }
            }
            let from = before.min(self.rest.len());
            if let Some(end) = memchr::memrchr(b'\n', &self.rest[from..]) {
                let end = from + end + 1;
                buffer.extend_from_slice(&self.rest[..end]);
                self.rest.drain(..end);
                self.offset += end as u64;
                return Ok(Step::Records);
            }
            if self.rest.len() > longest {
                buffer.extend_from_slice(&self.rest[..longest]);
                self.offset += self.rest.len() as u64;
                self.rest.clear();
                self.skips = true;
                return Ok(Step::Head);
            }
        }
    }

    /// Hands on a line that has no end, if there is one.
    pub fn take_rest(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        buffer.append(&mut self.rest);
        self.offset += buffer.len() as u64;
        true
    }

    /// Whether its beginning is the one that was there, after bytes were read. Takes note of more of it where there is more.
    fn is_the_same(&mut self) -> io::Result<bool> {
        let file = match &self.content {
            Content::Plain(file) => file,
            // Nobody writes to it any more.
            Content::Compressed(_) => return Ok(true),
        };
        let beginning = beginning(file)?;
        let is_the_same = if self.start.length > 0 {
            self.start.fits(&beginning)
        } else {
            // What was read before any of it was known has to be what it begins with.
            let length = self.rest.len().min(beginning.len());
            self.offset > 0 || length > 0 && self.rest[..length] == beginning[..length]
        };
        if is_the_same && self.start.is_short() {
            self.start = Fingerprint::of(&beginning);
        }
        Ok(is_the_same)
    }
}

/// The first bytes of an open file.
fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut beginning = vec![0; BEGINNING];
    let mut read = 0;
    while read < BEGINNING {
        match file.read_at(&mut beginning[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    beginning.truncate(read);
    Ok(beginning)
}
