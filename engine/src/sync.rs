//! What the lock-free parts are made of: the usual atomics and locks, or, under `--cfg loom`, those of the model
//! checker, which runs small tests of these parts through all their schedules. `tests/loom.sh` is the command.

#[cfg(not(loom))]
pub(crate) use {
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::hint::spin_loop,
    std::sync::atomic,
    std::thread::yield_now,
};

#[cfg(loom)]
#[path = "sync/checked.rs"] // Also for an example that takes this file in by its path.
mod checked;
#[cfg(loom)]
pub(crate) use checked::{Condvar, Mutex, MutexGuard, atomic, spin_loop, yield_now};

/// Stands in what is written once and then shared: costs nothing, and lets the checker see a read that does not come
/// after the write.
#[derive(Debug, Default)]
pub(crate) struct Written {
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<()>,
}

impl Written {
    /// Called before what it stands in is read.
    #[inline]
    pub(crate) fn check(&self) {
        #[cfg(loom)]
        self.cell.with(|_| ());
    }
}
