//! One file that is being read.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::Step;
use super::checkpoint::{Beginning, Fingerprint, Mark};
use crate::daemon::source::discover::Input;
use crate::daemon::source::{decompress, rotation};

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

    /// And what changes when the file does.
    pub fn and_state(path: &Path) -> io::Result<(Self, State)> {
        let metadata = std::fs::metadata(path)?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        Ok((identity, State::of(&metadata)))
    }
}

/// Where the bytes come from.
enum Content {
    /// A file that may grow.
    Plain(File),
    /// A compressed one, which does not.
    Compressed(Box<dyn Read + Send>),
}

/// What changes when a file does: its size, when it was written to, and when its name or mode changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(metadata: &std::fs::Metadata) -> Self {
        State {
            size: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
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
    /// What was read last was not of the file that was read before: the next look sees to it.
    is_another: bool,
    /// As it was when it was last seen to be the same file.
    checked: Option<State>,
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
        let offset = mark.map_or(0, |mark| mark.offset);
        let is_compressed = rotation::uncompressed(&name).len() < name.len();
        let content = if is_compressed {
            let mut reader = decompress::open(&Input::File(path.to_owned()), Arc::default())?;
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
            start: mark.map(|mark| mark.start).unwrap_or_default(),
            offset,
            rest: Vec::new(),
            skips: mark.is_some_and(|mark| mark.skips),
            size: metadata.len(),
            is_another: false,
            checked: None,
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
            skips: self.skips,
        }
    }

    /// Whether nothing is left that was read and not handed on.
    pub fn is_between_lines(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether it was cut to nothing since it was last looked at, and read since.
    pub fn is_another(&self) -> bool {
        self.is_another
    }

    /// Whether a file that starts so, and holds no more yet, may be a copy of this one in the making.
    pub fn may_be_copied_to(&self, beginning: &[u8]) -> bool {
        let Content::Plain(file) = &self.content else { return false };
        let mut own = vec![0; beginning.len()];
        file.read_exact_at(&mut own, 0).is_ok() && own == beginning
    }

    /// Looks at its beginning, where more of it would tell more.
    pub fn identify_if_short(&mut self) {
        if self.start.is_short() {
            // Where this fails reading does too, and is said.
            let _ = self.identify();
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
        let state = file.metadata().ok().map(|metadata| State::of(&metadata));
        if state.is_some() && state == self.checked {
            return None;
        }
        match self.size_if_same(self.rest.len()) {
            Some(size) => {
                self.size = size;
                self.checked = state;
                None
            }
            None => Some(self.mark()),
        }
    }

    /// The size of the file, if it is still the one that was read up to the offset and `read` bytes further; else it was cut to
    /// nothing since, whatever is in it now.
    fn size_if_same(&self, read: usize) -> Option<u64> {
        let Content::Plain(file) = &self.content else { return Some(self.size) };
        // Where it cannot be asked it cannot be read, which is said there.
        let Ok(metadata) = file.metadata() else { return Some(self.size) };
        let size = metadata.len();
        if size < self.offset + read as u64 || size < u64::from(self.start.length) {
            return None;
        }
        if self.start.length > 0 {
            let mut beginning = vec![0; self.start.length as usize];
            match file.read_exact_at(&mut beginning, 0) {
                Ok(()) if !self.start.fits(&beginning) => return None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
                _ => {}
            }
        }
        Some(size)
    }

    /// Goes on at the beginning.
    pub fn start_anew(&mut self) {
        if let Content::Plain(file) = &mut self.content {
            // Where this fails, reading does too, and is said.
            let _ = file.seek(SeekFrom::Start(0));
        }
        self.start = Fingerprint::default();
        self.is_another = false;
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
            let was_seen = self.start.length > 0 || self.offset + before as u64 > 0;
            if was_seen && self.size_if_same(self.rest.len()).is_none() {
                // It was cut to nothing since it was last looked at: this is of what was written then, from its middle. What
                // is missing before it is in a copy, and is looked for at the next look.
                self.rest.truncate(before);
                (self.is_another, self.checked) = (true, None);
                return Ok(Step::Idle);
            }
            self.grew_at = Instant::now();
            if self.start.is_short() {
                if self.offset == 0 {
                    // By what was read and nothing else: by now the file may be another.
                    self.start = Fingerprint::of(&self.rest);
                } else {
                    self.identify()?;
                }
            }
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

    fn identify(&mut self) -> io::Result<()> {
        let beginning = match &self.content {
            Content::Plain(file) => {
                let mut beginning = vec![0; 1024];
                let read = file.read_at(&mut beginning, 0)?;
                beginning.truncate(read);
                beginning
            }
            Content::Compressed(_) => {
                self.start = Beginning::of(&self.path)?.fingerprint();
                return Ok(());
            }
        };
        // Where it was cut to nothing meanwhile this is another file's beginning.
        if self.start.length == 0 || self.start.fits(&beginning) {
            self.start = Fingerprint::of(&beginning);
        }
        Ok(())
    }
}
