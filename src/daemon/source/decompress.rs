//! Opens an input and decompresses it. The format is detected by the first bytes, not by the file name.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::input::Input;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Magic numbers of unsupported formats, their names, and the command that converts them to text.
const UNSUPPORTED: [(&[u8], &str, &str); 7] = [
    (b"\xfd7zXZ\0", "compressed with xz", "xz -dc"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "lz4 -dc"),
    (b"PK\x03\x04", "a zip archive", "unzip -p"),
    (b"\x1f\x9d", "compressed with compress", "uncompress -c"),
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
];

/// Size of the read buffer before the decompressor.
const BUFFER_SIZE: usize = 128 * 1024;

/// Counts compressed bytes, for progress.
struct CountingReader<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Opens an input. `count` is increased by the number of (compressed) bytes read.
///
/// # Errors
/// If it cannot be opened, its first bytes cannot be read, or its format is unsupported.
pub fn open(input: &Input, count: Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
    match input {
        Input::Stdin => decompressed(CountingReader { inner: io::stdin(), count }),
        Input::File(path) => {
            if path.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
            }
            decompressed(CountingReader { inner: File::open(path)?, count })
        }
    }
}

fn decompressed(mut reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut start = [0; 6];
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let start = &start[..filled];
    if let Some((_, what, tool)) = UNSUPPORTED.iter().find(|(magic, ..)| start.starts_with(magic)) {
        let help =
            format!("is {what}, which is not supported; convert it first: {tool} FILE | pullwatch scan");
        return Err(io::Error::new(io::ErrorKind::Unsupported, help));
    }
    let whole = io::Cursor::new(start.to_vec()).chain(reader);
    if start.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_SIZE, whole))));
    }
    if start.starts_with(&ZSTD) {
        return Ok(Box::new(zstd::stream::read::Decoder::new(whole)?));
    }
    Ok(Box::new(whole))
}
