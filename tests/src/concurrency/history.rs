//! When things were done, on a clock that all threads share.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the beginnings and ends of all operations: no two have the same time.
#[derive(Debug, Default)]
pub(super) struct LogicalClock(AtomicU64);

impl LogicalClock {
    /// A time after all others so far.
    pub(super) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The last time that was given out.
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// From before a call to after its return; without an end if it is not known whether it did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
}

impl Span {
    pub(super) fn end_or_never(self) -> u64 {
        self.end.unwrap_or(u64::MAX)
    }
}
