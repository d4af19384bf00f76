//! The first failed write or sync, remembered for good.

use std::sync::OnceLock;

use siltstone_vfs::{Error, Result};

/// Set once, by whatever fails first; from then on every append and sync is refused with it. A failed `fsync` may
/// have thrown the dirty pages away, so that a second one would succeed without having written them.
#[derive(Debug, Default)]
pub(crate) struct FirstError(OnceLock<Error>);

impl FirstError {
    /// Refuses with the first error, if there has been one. One atomic load otherwise.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(first) => Err(first.clone()),
        }
    }

    /// Remembers `error` unless there was one before, and gives back the one that counts.
    pub(crate) fn set(&self, error: Error) -> Error {
        self.0.get_or_init(|| error).clone()
    }
}
