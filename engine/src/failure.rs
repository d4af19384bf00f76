//! The first write error is sticky: it is reported, with its cause, on every later write.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use siltstone_vfs::{Error, ErrorKind, Result};

/// Whether writes are refused, and why.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    failed: AtomicBool,
    cause: Mutex<Option<Error>>,
}

impl Failure {
    /// Notes a failed write. Only the first one counts.
    pub(crate) fn record(&self, error: &Error) {
        let mut cause = self.cause.lock();
        if cause.is_none() {
            *cause = Some(error.clone());
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Passes while nothing has failed.
    ///
    /// # Errors
    /// `Poisoned`, with the first cause.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            self.refuse()
        } else {
            Ok(())
        }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        match self.cause.lock().as_ref() {
            Some(cause) => Err(cause
                .clone()
                .with_kind(ErrorKind::Poisoned)
                .context("writes are refused since an earlier write failed")
                .with_advice("mend the cause, then call resume() or reopen; reads go on")),
            None => Ok(()),
        }
    }

    /// The first cause.
    pub(crate) fn cause(&self) -> Option<Error> {
        self.cause.lock().clone()
    }

    /// Forgets it.
    pub(crate) fn clear(&self) {
        *self.cause.lock() = None;
        self.failed.store(false, Ordering::Release);
    }
}
