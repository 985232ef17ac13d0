//! Memory for bodies: one budget for all of them, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::WebhookObserver;

/// The bytes that bodies may take.
#[derive(Clone)]
pub(super) struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    all: usize,
    taken: AtomicUsize,
    observer: Arc<dyn WebhookObserver>,
}

impl Budget {
    pub(super) fn new(all: usize, observer: Arc<dyn WebhookObserver>) -> Self {
        Budget { inner: Arc::new(Inner { all, taken: AtomicUsize::new(0), observer }) }
    }

    /// An empty part of it.
    pub(super) fn share(&self) -> Share {
        Share { inner: Some(self.inner.clone()), bytes: 0 }
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Default)]
pub struct Share {
    inner: Option<Arc<Inner>>,
    bytes: usize,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} bytes)", self.bytes)
    }
}

impl Share {
    /// Makes it larger; false where the budget has not so much left.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Some(inner) = &self.inner else { return false };
        let taken = inner.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            taken.checked_add(bytes).filter(|&taken| taken <= inner.all)
        });
        if taken.is_err() {
            return false;
        }
        self.bytes += bytes;
        inner.observer.memory(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner
            && self.bytes > 0
        {
            inner.taken.fetch_sub(self.bytes, Ordering::AcqRel);
            inner.observer.memory(-i64::try_from(self.bytes).unwrap_or(i64::MAX));
        }
    }
}
