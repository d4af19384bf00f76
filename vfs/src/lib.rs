//! The only crate of Siltstone that touches the operating system.
//!
//! The engine asks everything of an [`Fs`]. There are three: [`OsFs`] is the operating system's; [`MemFs`]
//! lives in memory and can be [crashed](MemFs::crash_clone) at any moment, keeping what was synced and a
//! random part of the rest; [`FaultFs`] wraps either, fails the n-th operation as told, and keeps a readable
//! trace. Time comes from a [`Clock`]. All errors are [`Error`]s: a kind that says what the caller can do,
//! the file, the offset, the cause. This crate does not know what a key is.
//!
//! # The life of a table
//!
//! Tables, the files with the extension [`TABLE_EXTENSION`], are the only files that are mapped for reading.
//! They are written with ordinary I/O ([`WriteFile`]), synced, and only then opened, through the [`DirLock`]
//! of their directory. Whoever reads a mapping of a file that gets truncated is killed by SIGBUS. So the way
//! out is a chain of types, in which each step uses up the one before it:
//!
//! ```text
//!                        DirLock::claim_orphan (left over by a crash) ─┐
//!                                                                      ▼
//! Fs::open_table ──► Mapping ──unmap──► Unmapped ──truncate──► Truncated ──remove──► Removed ──► Fs::sync_dir
//!                                           └───────────────remove──────────────────────┘
//! ```
//!
//! [`Fs::truncate`] takes an [`Unmapped`], [`Fs::remove`] a [`Removable`], and `Removable` is made from any
//! path that does not name a table, or within these steps. A table is never renamed. The lock knows which
//! tables are open, refuses to claim one that is, and is itself held until the last mapping is gone.
//!
//! ```
//! use std::path::Path;
//! use siltstone_vfs::{Fs, MapMode, MemFs, Removable};
//!
//! # fn main() -> siltstone_vfs::Result<()> {
//! let fs = MemFs::new();
//! let dir = Path::new("db");
//! fs.create_dir_all(dir)?;
//! let lock = fs.lock_dir(dir)?;
//!
//! // Write, sync, sync the directory; only then map.
//! let path = dir.join("000001.sst");
//! let mut file = fs.create(&path)?;
//! file.append(b"a finished table")?;
//! file.sync()?;
//! fs.sync_dir(dir)?;
//! let table = fs.open_table(&path, &lock, MapMode::Map)?;
//! assert_eq!(&*table.read_at(2, 8)?, b"finished");
//!
//! // Whatever the power loss, it is there.
//! let after = fs.crash_clone(7);
//! assert_eq!(after.read_file(&path)?, b"a finished table");
//!
//! // The one way to get rid of it.
//! assert!(Removable::plain(&path).is_err());
//! let truncated = table.unmap().truncate(&fs, 4, &mut || {}).map_err(|(_, error)| error)?;
//! let removed = truncated.remove(&fs).map_err(|(_, error)| error)?;
//! fs.sync_dir(removed.path().parent().unwrap_or(dir))?;
//! assert!(!fs.exists(&path)?);
//! # Ok(())
//! # }
//! ```

mod clock;
mod error;
mod fault_fs;
mod fetcher;
mod fs;
mod lock;
mod mapping;
mod mem_fs;
mod memory;
mod os_fs;
mod os_log;
mod page_cache;
mod prefetch;
mod priority;
mod retire;

#[cfg(test)]
mod conformance;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{BusyReason, Error, ErrorKind, Result};
pub use fault_fs::{Fault, FaultEffect, FaultFs, OpInfo, OpKind};
pub use fetcher::Fetcher;
pub use fs::{Fs, LogIo, LogSync, LogWriter, MapMode, ReadFile, WriteFile};
pub use lock::DirLock;
pub use mapping::{Advice, Mapping, TABLE_EXTENSION};
pub use mem_fs::MemFs;
pub use memory::{AnonymousMemory, HUGE_PAGE_BYTES};
pub use os_fs::{LOCK_FILE_NAME, OsFs};
pub use page_cache::cached_pages;
pub use prefetch::{CACHE_LINE_BYTES, prefetch, prefetch_range, prefetch_value};
pub use priority::lower_thread_priority;
pub use retire::{Removable, Removed, Truncated, Unmapped};
