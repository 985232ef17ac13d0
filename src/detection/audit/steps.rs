//! Counts the work done while reading, for tests and fuzzing.
//!
//! A step is one byte processed by a loop or a search. Tests double an input and compare the steps, which detects quadratic time without a
//! clock. In other builds counting is compiled out.

#[cfg(any(test, fuzzing))]
thread_local! {
    static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts steps of this thread.
#[inline]
pub(crate) fn add(steps: usize) {
    #[cfg(any(test, fuzzing))]
    COUNT.with(|count| count.set(count.get() + steps as u64));
    #[cfg(not(any(test, fuzzing)))]
    let _ = steps;
}

/// The number of steps of this thread since the last call.
#[cfg(any(test, fuzzing))]
pub fn take() -> u64 {
    COUNT.with(std::cell::Cell::take)
}
