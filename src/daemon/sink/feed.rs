//! What a sink reads alerts from.

use std::path::PathBuf;

use crate::daemon::store::{self, Cursor, Reader};
use crate::detection::alert::StoredAlert;

/// The alerts of one sink, and how far it got. Calls may block, but not for long.
pub trait Feed: Send + 'static {
    /// The first alerts with a `seq` above this one, in order, at most so many.
    ///
    /// # Errors
    /// When they cannot be read. The sink tries again later.
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError>;

    /// The `seq` that was saved last; 0 where none was.
    ///
    /// # Errors
    /// When it cannot be read. The sink tries again later.
    fn load(&mut self) -> Result<i64, FeedError>;

    /// Saves that all alerts up to this one are done with.
    ///
    /// # Errors
    /// When it cannot be written. The sink tries again later.
    fn save(&mut self, seq: i64) -> Result<(), FeedError>;
}

/// Why a [`Feed`] did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FeedError(Box<dyn std::error::Error + Send + Sync>);

impl FeedError {
    /// An error of whatever is behind the feed.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        FeedError(error.into())
    }
}

/// The alerts of the store in a directory. Opened when it is first asked, and again after an error.
#[derive(Debug)]
pub struct StoreFeed {
    dir: PathBuf,
    sink: String,
    open: Option<(Reader, Cursor)>,
}

impl StoreFeed {
    /// A sink that is new there begins with the oldest alert that is kept.
    pub fn new(dir: PathBuf, sink: String) -> Self {
        StoreFeed { dir, sink, open: None }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&Reader, &Cursor) -> Result<T, store::Error>,
    ) -> Result<T, FeedError> {
        let (reader, cursor) = match self.open.take() {
            Some(open) => open,
            None => {
                let cursor =
                    Cursor::open(&self.dir, &self.sink, store::Start::Oldest).map_err(FeedError::new)?;
                (Reader::open(&self.dir).map_err(FeedError::new)?, cursor)
            }
        };
        let answer = call(&reader, &cursor).map_err(FeedError::new)?;
        self.open = Some((reader, cursor));
        Ok(answer)
    }
}

impl Feed for StoreFeed {
    fn after(&mut self, seq: i64, limit: usize) -> Result<Vec<StoredAlert>, FeedError> {
        self.with(|reader, _| reader.after(seq, u32::try_from(limit).unwrap_or(u32::MAX)))
    }

    fn load(&mut self) -> Result<i64, FeedError> {
        self.with(|_, cursor| cursor.load())
    }

    fn save(&mut self, seq: i64) -> Result<(), FeedError> {
        self.with(|_, cursor| cursor.save(seq))
    }
}

/// A feed that is called from async code: its calls run where blocking holds up nobody.
///
/// `block_in_place` would do without moving it about, but panics on a runtime of one thread.
#[derive(Debug)]
pub struct Away<F> {
    /// Gone only while a call runs, and for good when a call panicked.
    feed: Option<F>,
}

/// A feed that panicked, or a runtime that ends.
#[derive(Debug, thiserror::Error)]
#[error("the store's reader is gone")]
pub struct Gone;

impl<F: Feed> Away<F> {
    /// Calls to this feed.
    pub fn new(feed: F) -> Self {
        Away { feed: Some(feed) }
    }

    /// Runs a call.
    ///
    /// # Errors
    /// When the feed is gone, for good.
    pub async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut F) -> Result<T, FeedError> + Send + 'static,
    ) -> Result<Result<T, FeedError>, Gone> {
        let mut feed = self.feed.take().ok_or(Gone)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = call(&mut feed);
            (feed, result)
        });
        let (feed, result) = done.await.map_err(|_| Gone)?;
        self.feed = Some(feed);
        Ok(result)
    }
}
