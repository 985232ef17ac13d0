//! A process that writes a log and rotates it in each supported way.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::event;
use crate::rig::{Ledger, Random};

/// A rotated file and its events.
struct Rotated {
    path: PathBuf,
    events: Range<usize>,
}

/// Writes `audit.log` in a folder.
pub struct Writer {
    folder: PathBuf,
    /// Events written so far; they are numbered.
    pub written: usize,
    /// All lines, noise among them.
    pub lines: usize,
    /// The first event of the file at hand.
    first: usize,
    pub rotations: usize,
    rotated: Vec<Rotated>,
    pub random: Random,
    pub bytes: usize,
}

/// How to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Rename, then a new file.
    Rename,
    /// And the renamed file is compressed, in steps.
    Compress,
    /// A copy, a pause, and the file is cut to nothing.
    CopyTruncate,
    /// The copy is a compressed one.
    CompressTruncate,
}

impl Writer {
    pub fn new(folder: &Path, seed: u64) -> Self {
        Writer {
            folder: folder.to_owned(),
            written: 0,
            lines: 0,
            first: 0,
            rotations: 0,
            rotated: Vec::new(),
            random: Random(seed),
            bytes: 0,
        }
    }

    fn live(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Writes bytes to the log, now and then in two pieces.
    fn append(&mut self, bytes: &[u8]) {
        let mut log = OpenOptions::new().create(true).append(true).open(self.live()).unwrap();
        let cut = if self.random.below(4) == 0 { self.random.count(bytes.len() + 1) } else { 0 };
        log.write_all(&bytes[..cut]).unwrap();
        if cut > 0 {
            self.random.sleep(4);
        }
        log.write_all(&bytes[cut..]).unwrap();
        self.bytes += bytes.len();
    }

    /// Writes so many events that make alerts.
    pub fn events(&mut self, count: usize) {
        let numbers = self.written..self.written + count;
        let lines: Vec<String> =
            numbers.map(|number| format!("{}\n", event(&number.to_string(), "get", "registry"))).collect();
        self.written += count;
        self.lines += count;
        self.append(lines.concat().as_bytes());
    }

    /// Writes about so many bytes, of which one line in thirty makes alerts.
    pub fn bytes(&mut self, size: usize) {
        let mut left = size;
        while left > 0 {
            let mut block = String::new();
            while left > 0 && block.len() < 64 << 10 {
                let number = self.lines;
                let line = if number.is_multiple_of(30) {
                    self.written += 1;
                    event(&(self.written - 1).to_string(), "get", "registry")
                } else {
                    event(&format!("noise-{number}"), "patch", "settings")
                };
                self.lines += 1;
                left = left.saturating_sub(line.len() + 1);
                block.push_str(&line);
                block.push('\n');
            }
            self.append(block.as_bytes());
        }
    }

    /// Rotates the log.
    pub fn rotate(&mut self, how: How) {
        let (live, round) = (self.live(), self.rotations);
        if !live.exists() {
            return;
        }
        self.rotations += 1;
        let name =
            format!("audit-2026-11-23T{:02}-{:02}-{:02}.000.log", round / 3600, round / 60 % 60, round % 60);
        let rotated = self.folder.join(&name);
        let packed = self.folder.join(format!("{name}.gz"));
        let last = match how {
            How::Rename => {
                fs::rename(&live, &rotated).unwrap();
                rotated
            }
            How::Compress => {
                fs::rename(&live, &rotated).unwrap();
                self.pack(&rotated, &packed);
                fs::remove_file(rotated).unwrap();
                packed
            }
            How::CopyTruncate => {
                self.copy(&live, &rotated);
                self.random.sleep(300);
                File::create(&live).unwrap();
                rotated
            }
            How::CompressTruncate => {
                self.pack(&live, &packed);
                self.random.sleep(300);
                File::create(&live).unwrap();
                packed
            }
        };
        self.rotated.push(Rotated { path: last, events: self.first..self.written });
        self.first = self.written;
    }

    pub fn rotate_somehow(&mut self) {
        let how = [How::Rename, How::Rename, How::Compress, How::CopyTruncate, How::CompressTruncate];
        let how = how[self.random.count(how.len())];
        self.rotate(how);
    }

    /// Copies with pauses, the first of them while the copy is empty.
    fn copy(&mut self, from: &Path, to: &Path) {
        let mut from = File::open(from).unwrap();
        let mut copy = File::create(to).unwrap();
        self.random.sleep(30);
        let mut block = vec![0; [700, 4096, 128 << 10][self.random.count(3)]];
        loop {
            let read = from.read(&mut block).unwrap();
            if read == 0 {
                return;
            }
            copy.write_all(&block[..read]).unwrap();
            if self.random.below(20) == 0 {
                self.random.sleep(20);
            }
        }
    }

    fn pack(&mut self, from: &Path, to: &Path) {
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
        self.random.sleep(30);
        for block in fs::read(from).unwrap().chunks(100_000) {
            encoder.write_all(block).unwrap();
            if self.random.below(4) == 0 {
                self.random.sleep(20);
            }
        }
        encoder.finish().unwrap();
    }

    /// Removes the rotated files that were read to their ends, but for the last of them.
    pub fn clean(&mut self, ledger: &Ledger) {
        // Noise is in no store: it was read where an event that was written after it is.
        let is_read = |file: &Rotated| file.events.clone().all(|event| ledger.has(event));
        let known = self.rotated.iter().take_while(|file| is_read(file)).count();
        let last = self.rotated[..known].iter().rposition(|file| !file.events.is_empty()).unwrap_or(0);
        for file in self.rotated.drain(..last) {
            fs::remove_file(&file.path).unwrap();
        }
    }

    /// Writes and rotates for a while.
    pub fn work(&mut self, steps: usize, most: usize) {
        for _ in 0..steps {
            let count = self.random.count(most);
            self.events(count);
            match self.random.below(5) {
                0 | 1 => self.rotate_somehow(),
                _ => {}
            }
            let pause = self.random.below(40);
            std::thread::sleep(Duration::from_millis(pause));
        }
    }
}
