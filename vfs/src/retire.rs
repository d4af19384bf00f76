//! The last steps of a table's life: unmapped → truncated → removed, and the proofs that each step hands on.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::lock::TableClaim;
use crate::mapping::{TABLE_EXTENSION, is_table_path};
use crate::{Error, Fs, Result};

/// A table that its owner has taken out of memory, or never mapped: proof that it may be cut and removed.
///
/// From [`Mapping::unmap`](crate::Mapping::unmap) or [`DirLock::claim_orphan`](crate::DirLock::claim_orphan).
/// Dropping it leaves the file where it is. A step uses it up:
///
/// ```compile_fail,E0382
/// # use siltstone_vfs::{Fs, Unmapped};
/// fn twice(fs: &dyn Fs, table: Unmapped) {
///     let _ = table.remove(fs);
///     let _ = table.truncate(fs, 1 << 20, &mut || {});
/// }
/// ```
pub struct Unmapped {
    path: PathBuf,
    claim: TableClaim,
}

impl Unmapped {
    pub(crate) fn new(path: PathBuf, claim: TableClaim) -> Self {
        Self { path, claim }
    }

    /// The table's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the table is not open a second time through the same lock. Every implementation of
    /// [`Fs::truncate`] asks this first.
    ///
    /// # Errors
    /// `InvalidInput` where it is.
    pub fn check_not_open(&self) -> Result<()> {
        if self.claim.is_open_elsewhere() {
            let message = "the table is open a second time and cannot be truncated";
            return Err(Error::invalid(message).with_path(&self.path));
        }
        Ok(())
    }

    pub(crate) fn is_from_os(&self) -> bool {
        self.claim.is_from_os()
    }

    /// Cuts the file down to nothing, from its end, `chunk_bytes` at a time, and calls `pace` between two
    /// cuts: freeing a large file at once keeps the disk busy for everybody.
    ///
    /// # Errors
    /// The proof comes back with the error, so that the caller can try again or go on to
    /// [`remove`](Self::remove): `InvalidInput` where `chunk_bytes` is zero, the table is open a second time,
    /// or the file has a second name (a hard link of a checkpoint, whose bytes these are too).
    pub fn truncate(
        self,
        fs: &dyn Fs,
        chunk_bytes: u64,
        pace: &mut dyn FnMut(),
    ) -> Result<Truncated, (Self, Error)> {
        match self.cut(fs, chunk_bytes, pace) {
            Ok(()) => Ok(Truncated {
                path: self.path,
                claim: self.claim,
            }),
            Err(error) => Err((self, error)),
        }
    }

    fn cut(&self, fs: &dyn Fs, chunk_bytes: u64, pace: &mut dyn FnMut()) -> Result<()> {
        if chunk_bytes == 0 {
            return Err(Error::invalid(
                "a table cannot be truncated in steps of zero bytes",
            ));
        }
        self.check_not_open()?;
        let mut len = fs.len(&self.path)?;
        while len > 0 {
            // Cuts fall on multiples of the chunk, so that no huge folio is split by two of them.
            len = (len - 1) / chunk_bytes * chunk_bytes;
            fs.truncate(self, len)?;
            if len > 0 {
                pace();
            }
        }
        Ok(())
    }

    /// Removes the file without truncating it: for a file that another process may have mapped, and for one
    /// with a second name.
    ///
    /// # Errors
    /// The proof comes back with the error.
    pub fn remove(self, fs: &dyn Fs) -> Result<Removed, (Self, Error)> {
        match fs.remove(&Removable { path: &self.path }) {
            Ok(()) => Ok(Removed { path: self.path }),
            Err(error) => Err((self, error)),
        }
    }
}

/// A table that has been cut down to nothing and still has its name.
pub struct Truncated {
    path: PathBuf,
    claim: TableClaim,
}

impl Truncated {
    /// The table's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the name.
    ///
    /// # Errors
    /// The proof comes back with the error.
    pub fn remove(self, fs: &dyn Fs) -> Result<Removed, (Self, Error)> {
        match fs.remove(&Removable { path: &self.path }) {
            Ok(()) => {
                drop(self.claim);
                Ok(Removed { path: self.path })
            }
            Err(error) => Err((self, error)),
        }
    }
}

/// Proof that a table's name is gone. The removal is durable once its directory has been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the removal is durable only after the directory's sync"]
pub struct Removed {
    path: PathBuf,
}

impl Removed {
    /// The path that was removed.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A file that may be removed: one that is never mapped, or a table that is not mapped any more.
#[derive(Debug)]
pub struct Removable<'a> {
    path: &'a Path,
}

impl<'a> Removable<'a> {
    /// A file that is never mapped.
    ///
    /// # Errors
    /// `InvalidInput` for a path with the [extension of tables](TABLE_EXTENSION).
    pub fn plain(path: &'a Path) -> Result<Self> {
        if is_table_path(path) {
            let message = format!("a file with the extension {TABLE_EXTENSION} is removed as a table only");
            return Err(Error::invalid(message)
                .with_path(path)
                .with_advice("unmap its mapping, or claim it as an orphan"));
        }
        Ok(Self { path })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.path
    }
}

impl fmt::Debug for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmapped")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truncated")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
