//! The model checker's atomics and locks, in the shape of those that they stand for.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool as StdAtomicBool, Ordering::Relaxed as StdRelaxed};

/// A spin is of use to the checker only as a yield: it says that another thread has to move first.
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::thread::yield_now;

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, Ordering, fence};

    /// The checker takes `SeqCst` on a load or store for `AcqRel`, and would report errors that cannot be: fences on both
    /// sides give it the order.
    fn ordered<T>(order: Ordering, operation: impl FnOnce() -> T) -> T {
        if order != Ordering::SeqCst {
            return operation();
        }
        fence(Ordering::SeqCst);
        let outcome = operation();
        fence(Ordering::SeqCst);
        outcome
    }

    macro_rules! ordered_atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    ordered(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.fetch_add(value, order))
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.fetch_sub(value, order))
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    ordered(success, || self.0.compare_exchange(from, to, success, failure))
                }
            }
        };
    }
    ordered_atomic!(AtomicU64, u64);
    ordered_atomic!(AtomicUsize, usize);
}

/// A lock that cannot be poisoned, as parking_lot's.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    lock: loom::sync::Mutex<T>,
    /// Only a hint, as with the lock that this stands for: the checker need not know.
    is_locked: StdAtomicBool,
}

pub(crate) struct MutexGuard<'a, T> {
    /// `None` only while a condition variable has it.
    guard: Option<loom::sync::MutexGuard<'a, T>>,
    is_locked: &'a StdAtomicBool,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: loom::sync::Mutex::new(value),
            is_locked: StdAtomicBool::new(false),
        }
    }

    fn guarded<'a>(&'a self, guard: loom::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.is_locked.store(true, StdRelaxed);
        MutexGuard {
            guard: Some(guard),
            is_locked: &self.is_locked,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.guarded(self.lock.lock().expect("never poisoned: a panic ends the model"))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.lock.try_lock().ok().map(|guard| self.guarded(guard))
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.is_locked.load(StdRelaxed)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.is_locked.store(false, StdRelaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("held");
        guard.is_locked.store(false, StdRelaxed);
        guard.guard = Some(self.0.wait(held).expect("never poisoned: a panic ends the model"));
        guard.is_locked.store(true, StdRelaxed);
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
