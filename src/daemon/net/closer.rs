//! Closes a connection from outside the task that reads from and writes to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// Closes a connection from outside its task.
#[derive(Clone, Debug)]
pub(super) struct Closer {
    /// Distinguishes connections that use the same client port one after the other.
    pub(super) number: u64,
    inner: Arc<CloserState>,
}

#[derive(Debug, Default)]
struct CloserState {
    is_closed: AtomicBool,
    /// Waker of the task that reads from or writes to the connection.
    waker: AtomicWaker,
}

impl Closer {
    pub(super) fn new(number: u64) -> Self {
        Closer { number, inner: Arc::default() }
    }

    pub(super) fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.waker.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.is_closed.load(Ordering::Acquire)
    }

    /// Fails if the connection was closed; otherwise registers the task to be woken when it is.
    pub(super) fn poll(&self, cx: &Context<'_>) -> io::Result<()> {
        self.inner.waker.register(cx.waker());
        if self.is_closed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}
