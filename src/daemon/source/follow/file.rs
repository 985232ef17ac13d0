//! An open log file: reads whole lines from it, and detects that it was truncated or rewritten.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::{Checkpoint, FilePrefix, Fingerprint};
use super::file_id::{FileId, FileState};
use super::step::ReadStep;
use crate::daemon::source::input::Input;
use crate::daemon::source::{decompress, rotation};

/// Bytes read per system call.
const READ_SIZE: usize = 256 * 1024;

enum Content {
    /// May grow.
    Plain(File),
    /// Does not grow.
    Compressed(Box<dyn Read + Send>),
}

pub struct TrackedFile {
    pub path: PathBuf,
    pub id: FileId,
    /// Whether the log's own name refers to this file (it was not rotated).
    pub is_live: bool,
    /// The order in which files were opened, which is their order in time.
    pub number: u64,
    pub last_growth: Instant,
    content: Content,
    start: Fingerprint,
    /// Number of decompressed bytes that were returned to the caller.
    offset: u64,
    /// Bytes that were read but not returned: a line without its line break.
    partial: Vec<u8>,
    /// The head of the current line was returned as truncated; the rest of the line is skipped.
    in_skipped_line: bool,
    size: u64,
    /// The last read returned bytes of different content than before (truncated and rewritten). The next scan searches for a copy.
    was_replaced: bool,
    /// Metadata at the time when the content was last verified to belong to the same file.
    checked: Option<FileState>,
}

impl std::fmt::Debug for TrackedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrackedFile({} at {} of {})", self.path.display(), self.offset, self.size)
    }
}

impl TrackedFile {
    /// Opens a file and continues at the checkpoint.
    pub fn open(path: &Path, checkpoint: Option<&Checkpoint>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let offset = checkpoint.map_or(0, |checkpoint| checkpoint.offset);
        let is_compressed = rotation::uncompressed(&name).len() < name.len();
        let content = if is_compressed {
            let mut reader = decompress::open(&Input::File(path.to_owned()), Arc::default())?;
            io::copy(&mut reader.by_ref().take(offset), &mut io::sink())?;
            Content::Compressed(reader)
        } else {
            file.seek(SeekFrom::Start(offset))?;
            Content::Plain(file)
        };
        Ok(TrackedFile {
            path: path.to_owned(),
            id: FileId::from(&metadata),
            is_live: false,
            number: 0,
            last_growth: Instant::now(),
            content,
            start: checkpoint.map(|checkpoint| checkpoint.start).unwrap_or_default(),
            offset,
            partial: Vec::new(),
            in_skipped_line: checkpoint.is_some_and(|checkpoint| checkpoint.in_skipped_line),
            size: metadata.len(),
            was_replaced: false,
            checked: None,
        })
    }

    /// The last bytes before the position, at most `most`. Empty for compressed files, which are not written to.
    pub fn read_before(&mut self, most: u64) -> io::Result<Vec<u8>> {
        let Content::Plain(file) = &mut self.content else { return Ok(Vec::new()) };
        let from = self.offset.saturating_sub(most);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.by_ref().take(self.offset - from).read_to_end(&mut bytes)?;
        file.seek(SeekFrom::Start(self.offset))?;
        if from == 0 {
            // The first line is whole.
            bytes.insert(0, b'\n');
        }
        Ok(bytes)
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            device: self.id.device,
            inode: self.id.inode,
            start: self.start,
            offset: self.offset,
            size: self.size,
            is_finished: false,
            in_skipped_line: self.in_skipped_line,
        }
    }

    pub fn has_no_partial_line(&self) -> bool {
        self.partial.is_empty()
    }

    /// Whether the file was truncated and rewritten between the last scan and the last read.
    pub fn was_replaced(&self) -> bool {
        self.was_replaced
    }

    /// Whether this file's content starts with these bytes. If so, a file that consists of them may be an unfinished copy of it.
    pub fn starts_with(&self, beginning: &[u8]) -> bool {
        let Content::Plain(file) = &self.content else { return false };
        let mut own = vec![0; beginning.len()];
        file.read_exact_at(&mut own, 0).is_ok() && own == beginning
    }

    /// Extends the fingerprint if the file was previously shorter than the fingerprinted prefix.
    pub fn extend_fingerprint(&mut self) {
        if self.start.is_short() {
            // An error here occurs again when the file is read, and is reported there.
            let _ = self.read_fingerprint();
        }
    }

    pub fn is_compressed(&self) -> bool {
        matches!(self.content, Content::Compressed(_))
    }

    /// Bytes that were not returned yet.
    pub fn lag(&self) -> u64 {
        match &self.content {
            Content::Plain(file) => {
                file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.offset))
            }
            Content::Compressed(_) => 1,
        }
    }

    /// If the file was truncated or rewritten: the position before that.
    pub fn was_truncated(&mut self) -> Option<Checkpoint> {
        let Content::Plain(file) = &self.content else { return None };
        let state = file.metadata().ok().map(|metadata| FileState::of(&metadata));
        if state.is_some() && state == self.checked {
            return None;
        }
        match self.size_if_same(self.partial.len()) {
            Some(size) => {
                self.size = size;
                self.checked = state;
                None
            }
            None => Some(self.checkpoint()),
        }
    }

    /// The size of the file if its content up to `offset + read` is unchanged; otherwise `None` (truncated or rewritten).
    fn size_if_same(&self, read: usize) -> Option<u64> {
        let Content::Plain(file) = &self.content else { return Some(self.size) };
        // If the metadata cannot be read, the content cannot be read either, and the read reports the error.
        let Ok(metadata) = file.metadata() else { return Some(self.size) };
        let size = metadata.len();
        if size < self.offset + read as u64 || size < u64::from(self.start.length) {
            return None;
        }
        if self.start.length > 0 {
            let mut beginning = vec![0; self.start.length as usize];
            match file.read_exact_at(&mut beginning, 0) {
                Ok(()) if !self.start.matches(&beginning) => return None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
                _ => {}
            }
        }
        Some(size)
    }

    /// Starts over at the beginning of the rewritten file.
    pub fn restart(&mut self) {
        if let Content::Plain(file) = &mut self.content {
            // An error here occurs again when the file is read, and is reported there.
            let _ = file.seek(SeekFrom::Start(0));
        }
        self.start = Fingerprint::default();
        self.was_replaced = false;
        self.offset = 0;
        self.partial.clear();
        self.in_skipped_line = false;
        self.size = 0;
    }

    /// Appends all complete lines of the next block to `buffer`. A line longer than `max_record` is returned as its head.
    pub fn read(&mut self, buffer: &mut Vec<u8>, max_record: usize) -> io::Result<ReadStep> {
        loop {
            let before = self.partial.len();
            let read = match &mut self.content {
                Content::Plain(file) => file.take(READ_SIZE as u64).read_to_end(&mut self.partial)?,
                Content::Compressed(reader) => {
                    reader.by_ref().take(READ_SIZE as u64).read_to_end(&mut self.partial)?
                }
            };
            if read == 0 {
                return Ok(ReadStep::Idle);
            }
            let was_seen = self.start.length > 0 || self.offset + before as u64 > 0;
            if was_seen && self.size_if_same(self.partial.len()).is_none() {
                // Truncated since the last scan: these bytes come from the middle of the new content. Unread bytes of the old content are
                // in a copy, which the next scan searches for.
                self.partial.truncate(before);
                (self.was_replaced, self.checked) = (true, None);
                return Ok(ReadStep::Idle);
            }
            self.last_growth = Instant::now();
            if self.start.is_short() {
                if self.offset == 0 {
                    // Hash what was read, not the file: it may have been replaced since.
                    self.start = Fingerprint::of(&self.partial);
                } else {
                    self.read_fingerprint()?;
                }
            }
            if self.in_skipped_line {
                // Skips the rest of a line whose head was returned.
                let end = memchr::memchr(b'\n', &self.partial);
                let skipped = end.map_or(self.partial.len(), |end| end + 1);
                self.partial.drain(..skipped);
                self.offset += skipped as u64;
                self.in_skipped_line = end.is_none();
                if self.partial.is_empty() {
                    continue;
                }
            }
            let from = before.min(self.partial.len());
            // A NUL byte also ends a line: a file that is truncated while being written has a hole up to the old position, which may be as
            // long as everything written before.
            if let Some(end) = memchr::memrchr2(b'\n', 0, &self.partial[from..]) {
                let end = from + end + 1;
                let hole = self.partial[..end].iter().take_while(|byte| **byte == 0).count();
                buffer.extend_from_slice(&self.partial[hole..end]);
                self.partial.drain(..end);
                self.offset += end as u64;
                if buffer.is_empty() {
                    continue;
                }
                return Ok(ReadStep::Records);
            }
            if self.partial.len() > max_record {
                buffer.extend_from_slice(&self.partial[..max_record]);
                self.offset += self.partial.len() as u64;
                self.partial.clear();
                self.in_skipped_line = true;
                return Ok(ReadStep::Head);
            }
        }
    }

    /// Returns an unterminated line, if there is one.
    pub fn take_partial_line(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.partial.is_empty() {
            return false;
        }
        buffer.append(&mut self.partial);
        self.offset += buffer.len() as u64;
        true
    }

    fn read_fingerprint(&mut self) -> io::Result<()> {
        let beginning = match &self.content {
            Content::Plain(file) => {
                let mut beginning = vec![0; 1024];
                let read = file.read_at(&mut beginning, 0)?;
                beginning.truncate(read);
                beginning
            }
            Content::Compressed(_) => {
                self.start = FilePrefix::of(&self.path)?.fingerprint();
                return Ok(());
            }
        };
        // If the prefix changed, the file was truncated meanwhile: the old fingerprint is kept, so that this is detected.
        if self.start.length == 0 || self.start.matches(&beginning) {
            self.start = Fingerprint::of(&beginning);
        }
        Ok(())
    }
}
