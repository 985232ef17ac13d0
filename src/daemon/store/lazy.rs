//! A [`StoreReader`] that is opened on first use.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Error, StoreReader};

/// Opens the store of a directory on first use, and again after an error: the store may not exist yet, or may have been replaced.
#[derive(Debug)]
pub(crate) struct LazyReader {
    dir: PathBuf,
    reader: Mutex<Option<StoreReader>>,
}

impl LazyReader {
    pub(crate) fn new(dir: PathBuf) -> Self {
        LazyReader { dir, reader: Mutex::default() }
    }

    /// Runs a query. One runs at a time.
    ///
    /// # Errors
    /// When the store cannot be opened or read.
    pub(crate) fn with<T>(&self, query: impl FnOnce(&StoreReader) -> Result<T, Error>) -> Result<T, Error> {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match slot.take() {
            Some(reader) => reader,
            None => StoreReader::open(&self.dir)?,
        };
        let value = query(&reader)?;
        *slot = Some(reader);
        Ok(value)
    }
}
