//! The model checker's atomics and locks, in the shape of those that they stand for.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool as StdAtomicBool, Ordering::Relaxed as StdRelaxed};

/// A spin is of use to the checker only as a yield: it says that another thread has to move first.
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::thread::yield_now;

pub(crate) mod atomic {
    use loom::sync::atomic;
    pub(crate) use loom::sync::atomic::{Ordering, fence};

    /// Says to the checker that this access may not be swapped with another thread's to the same place. By itself it keeps only
    /// the last access in mind: a load followed by the same thread's store would hide another thread's load before them, and the
    /// schedules that differ in that.
    #[derive(Debug, Default)]
    struct Order(atomic::AtomicBool);

    impl Order {
        fn access<T>(&self, order: Ordering, access: impl FnOnce() -> T) -> T {
            self.0.store(true, Ordering::Relaxed);
            // The checker takes `SeqCst` on a load or store for `AcqRel`, and would report what cannot be: fences on both
            // sides give it the order.
            if order == Ordering::SeqCst {
                fence(order);
            }
            let outcome = access();
            if order == Ordering::SeqCst {
                fence(order);
            }
            outcome
        }
    }

    macro_rules! checked {
        ($name:ident $(<$parameter:ident>)?, $value:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name $(<$parameter>)? {
                value: atomic::$name $(<$parameter>)?,
                order: Order,
            }

            impl $(<$parameter>)? $name $(<$parameter>)? {
                pub(crate) fn new(value: $value) -> Self {
                    Self {
                        value: atomic::$name::new(value),
                        order: Order::default(),
                    }
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.order.access(order, || self.value.load(order))
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.order.access(order, || self.value.store(value, order));
                }
            }
        };
    }
    checked!(AtomicPtr<T>, *mut T);
    checked!(AtomicU16, u16);
    checked!(AtomicU32, u32);
    checked!(AtomicU64, u64);
    checked!(AtomicUsize, usize);

    impl AtomicU64 {
        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.order.access(success, || {
                self.value.compare_exchange(from, to, success, failure)
            })
        }
    }

    impl AtomicUsize {
        pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            self.order.access(order, || self.value.fetch_add(value, order))
        }

        pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            self.order.access(order, || self.value.fetch_sub(value, order))
        }
    }
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

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
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

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
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
