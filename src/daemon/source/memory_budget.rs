//! Bounds the memory of buffers that grow with their input, with one budget in bytes for all buffers of a kind.
//!
//! Each holder has a [`Reservation`], which grows either without waiting (a webhook answers 429) or by blocking until others release memory
//! (a file reader waits for its workers).

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes shared by several buffers.
#[derive(Clone)]
pub(crate) struct MemoryBudget(Arc<Inner>);

struct Inner {
    /// Bytes left. `None` after [`MemoryBudget::close`], when nothing is accounted for any more.
    available: Mutex<Option<usize>>,
    released: Condvar,
    on_change: Box<dyn Fn(i64) + Send + Sync>,
}

impl Inner {
    fn available(&self) -> MutexGuard<'_, Option<usize>> {
        self.available.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, bytes: usize, sign: i64) {
        (self.on_change)(sign * i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({:?} bytes available)", *self.0.available())
    }
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self::with_observer(bytes, |_| {})
    }

    /// Calls `on_change` with each number of reserved bytes, negative if released. Calls may arrive in any order, from any thread.
    pub(crate) fn with_observer(bytes: usize, on_change: impl Fn(i64) + Send + Sync + 'static) -> Self {
        MemoryBudget(Arc::new(Inner {
            available: Mutex::new(Some(bytes)),
            released: Condvar::new(),
            on_change: Box::new(on_change),
        }))
    }

    /// An empty reservation.
    pub(crate) fn reservation(&self) -> Reservation {
        Reservation { budget: Some(self.clone()), bytes: 0 }
    }

    /// Ends all waiting, to be called when nothing will be released any more.
    pub(crate) fn close(&self) {
        *self.0.available() = None;
        self.0.released.notify_all();
    }
}

/// A reserved part of a budget, which is released on drop. The default one has no budget: it is unlimited for [`Reservation::grow`], and
/// empty for [`Reservation::try_grow`].
#[derive(Default)]
pub struct Reservation {
    budget: Option<MemoryBudget>,
    bytes: usize,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes)", self.bytes)
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves more bytes, or returns false if the budget has fewer left.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let Some(MemoryBudget(inner)) = &self.budget else { return false };
        match inner.available().as_mut() {
            Some(available) if *available < bytes => return false,
            Some(available) => *available -= bytes,
            None => return true,
        }
        self.bytes += bytes;
        inner.changed(bytes, 1);
        true
    }

    /// Reserves more bytes, and blocks until they are available.
    pub(crate) fn grow(&mut self, bytes: usize) {
        let Some(MemoryBudget(inner)) = &self.budget else { return };
        let mut available = inner.available();
        while let Some(left) = available.as_mut() {
            if *left >= bytes {
                *left -= bytes;
                drop(available);
                self.bytes += bytes;
                inner.changed(bytes, 1);
                return;
            }
            available = inner.released.wait(available).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Releases all bytes.
    pub(crate) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let Some(MemoryBudget(inner)) = self.budget.as_ref().filter(|_| bytes > 0) else { return };
        if let Some(available) = inner.available().as_mut() {
            *available += bytes;
        }
        inner.released.notify_all();
        inner.changed(bytes, -1);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn a_reservation_grows_within_the_budget_and_is_released_when_dropped() {
        let used = Arc::new(AtomicI64::new(0));
        let observed = used.clone();
        let budget = MemoryBudget::with_observer(100, move |change| {
            observed.fetch_add(change, Ordering::Relaxed);
        });
        let mut first = budget.reservation();
        assert!(first.try_grow(60) && !first.try_grow(41));
        let mut second = budget.reservation();
        assert!(second.try_grow(40));
        assert_eq!((first.bytes(), second.bytes(), used.load(Ordering::Relaxed)), (60, 40, 100));
        drop(first);
        assert!(second.try_grow(60));
        drop(second);
        assert_eq!(used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn growing_blocks_until_memory_is_released_or_the_budget_is_closed() {
        let budget = MemoryBudget::new(10);
        let mut first = budget.reservation();
        first.grow(10);
        let (done, waited) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut second = budget.reservation();
                second.grow(10);
                done.send(()).unwrap();
            });
            assert!(waited.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            first.release();
            waited.recv().unwrap();
        });
        first.grow(10);
        budget.close();
        budget.reservation().grow(10);
    }
}
