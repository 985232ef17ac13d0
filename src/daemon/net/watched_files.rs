//! Detects changes of files (certificates, keys) by their content.
//!
//! The modification time is not used: a mounted Secret is updated by renaming a symbolic link, which neither inotify on the file nor its
//! modification time reveals reliably.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::NetError;

/// Maximum size of a file: 1 MiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Files, and a hash of their content when a value was last built from them.
#[derive(Clone, Debug)]
pub(crate) struct WatchedFiles {
    paths: Vec<PathBuf>,
    digest: [u8; 32],
}

impl WatchedFiles {
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Result<Self, NetError> {
        let digest = digest(&paths)?;
        Ok(WatchedFiles { paths, digest })
    }

    /// Builds a new value if the content of a file changed; otherwise returns `None`. If building fails (because one of two files may not
    /// be written yet), the next call tries again.
    pub(crate) fn rebuild<T, E: From<NetError>>(
        &mut self,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        // Before `build` reads the files: a change in between is detected by the next call.
        let digest = digest(&self.paths)?;
        if digest == self.digest {
            return Ok(None);
        }
        let value = build()?;
        self.digest = digest;
        Ok(Some(value))
    }
}

fn digest(paths: &[PathBuf]) -> Result<[u8; 32], NetError> {
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(Sha256::digest(read(path)?));
    }
    Ok(hash.finalize().into())
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, NetError> {
    use std::io::Read as _;
    let failed = |source| NetError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(NetError::Content { path: path.to_owned(), reason: "larger than 1 MiB".to_owned() });
    }
    Ok(content)
}
