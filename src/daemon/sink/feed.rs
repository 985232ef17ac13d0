//! The interface through which a sink reads alerts and saves its cursor.

use std::path::PathBuf;

use crate::daemon::store::{self, Cursor, LazyReader};
use crate::detection::alert::StoredAlert;

/// The alerts of one sink and its cursor. Calls may block for the duration of a disk access.
pub trait Feed: Send + 'static {
    /// Returns the first alerts with a `seq` above this one, in order, at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read. The sink tries again later.
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError>;

    /// Returns the cursor: the `seq` that was saved last, 0 if none was.
    ///
    /// # Errors
    /// When it cannot be read. The sink tries again later.
    fn load(&mut self) -> Result<i64, FeedError>;

    /// Saves the cursor: all alerts up to this `seq` were delivered, filtered or sent to the dead letters.
    ///
    /// # Errors
    /// When it cannot be written. The sink tries again later.
    fn save(&mut self, seq: i64) -> Result<(), FeedError>;
}

/// The reason why a call of a [`Feed`] failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FeedError(Box<dyn std::error::Error + Send + Sync>);

impl FeedError {
    /// Wraps an error of the underlying store.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        FeedError(error.into())
    }
}

/// The alerts of the store in a directory. Opened on first use, and again after an error.
#[derive(Debug)]
pub(crate) struct StoreFeed {
    dir: PathBuf,
    sink: String,
    reader: LazyReader,
    cursor: Option<Cursor>,
}

impl StoreFeed {
    /// A sink that is new to the store starts with the oldest stored alert.
    pub(crate) fn new(dir: PathBuf, sink: String) -> Self {
        StoreFeed { reader: LazyReader::new(dir.clone()), dir, sink, cursor: None }
    }

    fn with_cursor<T>(
        &mut self,
        call: impl FnOnce(&Cursor) -> Result<T, store::Error>,
    ) -> Result<T, FeedError> {
        let cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::open(&self.dir, &self.sink, store::SinkStart::Oldest).map_err(FeedError::new)?,
        };
        let value = call(&cursor).map_err(FeedError::new)?;
        self.cursor = Some(cursor);
        Ok(value)
    }
}

impl Feed for StoreFeed {
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.reader.with(|reader| reader.after(seq, limit)).map_err(FeedError::new)
    }

    fn load(&mut self) -> Result<i64, FeedError> {
        self.with_cursor(Cursor::load)
    }

    fn save(&mut self, seq: i64) -> Result<(), FeedError> {
        self.with_cursor(|cursor| cursor.save(seq))
    }
}

/// Calls a blocking feed from async code, on tokio's threads for blocking work.
///
/// `block_in_place` would not need to move the feed, but panics on a single-threaded runtime.
#[derive(Debug)]
pub(crate) struct BlockingFeed<F> {
    /// Only missing while a call is running, and permanently after a call that panicked.
    feed: Option<F>,
}

/// A call of the feed panicked, or the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the store's reader is gone")]
pub struct FeedClosed;

impl<F: Feed> BlockingFeed<F> {
    pub(crate) fn new(feed: F) -> Self {
        BlockingFeed { feed: Some(feed) }
    }

    /// Runs a call of the feed.
    ///
    /// # Errors
    ///
    /// If the feed is permanently unavailable.
    pub(crate) async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut F) -> Result<T, FeedError> + Send + 'static,
    ) -> Result<Result<T, FeedError>, FeedClosed> {
        let mut feed = self.feed.take().ok_or(FeedClosed)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = call(&mut feed);
            (feed, result)
        });
        let (feed, result) = task.await.map_err(|_| FeedClosed)?;
        self.feed = Some(feed);
        Ok(result)
    }
}
