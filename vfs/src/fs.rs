//! The seam to the operating system: what the engine asks of a file system, and nothing else.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::{DirLock, Mapping, Removable, Result, Unmapped};

/// A file system as the engine sees it.
///
/// Implemented by [`OsFs`](crate::OsFs), by [`MemFs`](crate::MemFs), which can crash, and by
/// [`FaultFs`](crate::FaultFs), which wraps either and fails on schedule. Paths are used as they are given.
///
/// Durability follows POSIX: bytes are durable after the file's sync, a name after its directory's
/// [`sync_dir`](Fs::sync_dir); anything else may or may not survive a power loss, in any order.
pub trait Fs: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that does not exist yet, for appending.
    ///
    /// # Errors
    /// An `Io` error where the path exists; `NoSpace`; `NotFound` where the directory is missing.
    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>>;

    /// Creates a log segment of exactly `capacity_bytes`, all zero and with its space reserved, and syncs the
    /// file (not its directory). Fails, and leaves no file, where the path exists or the space cannot be had.
    ///
    /// # Errors
    /// `InvalidInput` for no capacity and for a path with the extension of tables; `NoSpace`; otherwise as
    /// [`create`](Fs::create).
    fn create_log(
        &self,
        path: &Path,
        capacity_bytes: u64,
        io: LogIo,
    ) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)>;

    /// Opens a file for positioned reads.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>>;

    /// Opens a finished table file read-only, mapped or for positioned reads. Needs the directory's lock, so
    /// that only its holder ever maps a table and unmapping our own mapping proves that nobody has it mapped.
    ///
    /// # Errors
    /// `InvalidInput` where the path lacks the [extension of tables](crate::TABLE_EXTENSION) or does not lie
    /// in the locked directory, spelled as it was when it was locked, and where the table is being retired;
    /// `NotFound`.
    fn open_table(&self, path: &Path, lock: &DirLock, mode: MapMode) -> Result<Mapping>;

    /// Makes the bytes of an existing file durable.
    fn sync_file(&self, path: &Path) -> Result<()>;

    /// Takes the directory's lock (an advisory lock on its `LOCK` file, which holds the owner's pid).
    ///
    /// # Errors
    /// `Busy` with [`BusyReason::DirectoryLocked`](crate::BusyReason) and the holder's pid in the message.
    fn lock_dir(&self, dir: &Path) -> Result<DirLock>;

    /// Creates a directory and its parents; does nothing where it exists. Not durable before the parent's
    /// sync.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;

    /// The names of the files and directories in `dir`, sorted.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;

    /// Whether the path exists.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// The file's length in bytes.
    fn len(&self, path: &Path) -> Result<u64>;

    /// Renames a file, replacing `to` atomically.
    ///
    /// # Errors
    /// `InvalidInput` where either path has the extension of tables: a table keeps its name for life.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `InvalidInput` where one path has the extension of tables and the other has not; `Io` where `to`
    /// exists.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;

    /// Makes the directory's entries durable: creations, renames and removals.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Removes a file. A [`Removable`] exists for files that are never mapped, and for tables that have been
    /// unmapped: there is no other way to remove a table.
    fn remove(&self, file: &Removable<'_>) -> Result<()>;

    /// Cuts an unmapped table file to `len_bytes`. Called by [`Unmapped::truncate`] only.
    ///
    /// # Errors
    /// `InvalidInput` where the table is open a second time, has a second name, or would get longer.
    fn truncate(&self, file: &Unmapped, len_bytes: u64) -> Result<()>;

    /// The bytes that can still be allocated where `dir` lies.
    fn space_available(&self, dir: &Path) -> Result<u64>;
}

/// A file that is being written from its beginning to its end.
pub trait WriteFile: Send {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes everything appended so far durable, and the file's length with it.
    fn sync(&mut self) -> Result<()>;
}

/// Positioned reads of a file.
pub trait ReadFile: fmt::Debug + Send + Sync {
    /// Fills `buf` from `offset` on; the count is smaller than `buf.len()` at the end of the file only.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The file's length in bytes.
    fn len(&self) -> Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The writing end of a preallocated log segment. One owner; the bytes are visible to [`Fs::open`] at once
/// and survive the death of the process.
pub trait LogWriter: Send {
    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// `InvalidInput` where they do not fit into the capacity; `Io`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// The segment's capacity in bytes.
    fn capacity_bytes(&self) -> u64;

    /// Has the system do ahead of the writes what it would do at the first one to each page. That makes writes faster,
    /// never right or wrong, takes milliseconds, and marks every page for the next sync. By default there is nothing to
    /// do.
    fn populate(&mut self) {}

    /// Makes another segment of this one, for a use of its own: all zero, under the name `to` in the same directory, with
    /// the space that was reserved and the pages that the system keeps of it. That is many times cheaper than a new one.
    /// Syncs nothing, not even the name. Until the first sync of the segment a power loss may bring back what was
    /// written in its earlier life, anywhere.
    ///
    /// REQUIRES: nothing is called `to`; it would be replaced.
    ///
    /// # Errors
    /// `InvalidInput` where `to` has the extension of tables; `Unsupported` where the file system is not known to overwrite
    /// in place (known of ext4), so that the space which was reserved would not be what is written to; `Io`. The file has
    /// its old name then, and its bytes may be gone.
    fn reuse(self: Box<Self>, to: &Path) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)>;
}

/// The syncing end of a log segment; syncs while the owner of the [`LogWriter`] goes on writing.
pub trait LogSync: Send + Sync {
    /// Makes every byte durable whose `write_at` had returned when this was called.
    fn sync(&self) -> Result<()>;
}

/// How a log segment is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogIo {
    /// A copy into a shared mapping of the preallocated file; falls back to [`LogIo::Write`] on a file system
    /// that cannot reserve space, or that needs more of it for each overwrite (btrfs, bcachefs, ZFS).
    #[default]
    Mapped,
    /// A positioned write, one system call each.
    Write,
}

/// How a table is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapMode {
    /// Mapped into memory.
    #[default]
    Map,
    /// Not mapped: blocks are fetched with positioned reads (past the limit on mappings).
    Read,
}
