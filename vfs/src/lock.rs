//! The directory lock, and the record of which tables its holder has open.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::mapping::is_table_path;
use crate::{Error, Result, Unmapped};

/// The exclusive right to a database directory; from [`Fs::lock_dir`](crate::Fs::lock_dir).
///
/// Tables are opened through the lock, and it keeps count of them: a table that is open cannot be claimed for
/// retirement, and one that is being retired cannot be opened. Everything opened through the lock keeps it
/// held: the directory is released when the `DirLock` and the last [`Mapping`](crate::Mapping), [`Unmapped`]
/// and [`Truncated`](crate::Truncated) that came from it are gone. Otherwise the next holder, which knows
/// nothing of our mappings, could truncate a file under them.
pub struct DirLock {
    held: Arc<Held>,
}

/// What a lock and all that was opened through it share.
struct Held {
    dir: PathBuf,
    /// Taken from the operating system, so that it holds against every other process and handle.
    from_os: bool,
    tables: Mutex<HashMap<PathBuf, TableUse>>,
    /// Releases the directory when dropped.
    _release: Box<dyn Send + Sync>,
}

/// How many owners a table has at present, by stage of its life.
#[derive(Clone, Copy, Default)]
struct TableUse {
    open: usize,
    retiring: usize,
}

impl DirLock {
    /// A lock on `dir` whose exclusion is `release`'s business: dropping it lets the next one in. For
    /// implementations of [`Fs`](crate::Fs) that keep files somewhere else than the operating system does;
    /// [`OsFs`](crate::OsFs) opens no table with such a lock.
    pub fn new(dir: PathBuf, release: Box<dyn Send + Sync>) -> Self {
        Self::with_origin(dir, release, false)
    }

    pub(crate) fn from_os(dir: PathBuf, release: Box<dyn Send + Sync>) -> Self {
        Self::with_origin(dir, release, true)
    }

    fn with_origin(dir: PathBuf, release: Box<dyn Send + Sync>, from_os: bool) -> Self {
        Self {
            held: Arc::new(Held {
                dir,
                from_os,
                tables: Mutex::default(),
                _release: release,
            }),
        }
    }

    /// The locked directory.
    pub fn path(&self) -> &Path {
        &self.held.dir
    }

    /// Claims a table that was found in the directory at recovery and belongs to no version, so that it can
    /// be truncated and removed.
    ///
    /// # Errors
    /// `InvalidInput` where the table is open through this lock or is being retired already, where `path`
    /// does not lie in the directory, or where it is not a table by its name.
    pub fn claim_orphan(&self, path: PathBuf) -> Result<Unmapped> {
        let key = self.key(&path)?;
        let mut tables = self.held.tables.lock();
        let usage = tables.entry(key.clone()).or_default();
        if usage.open > 0 || usage.retiring > 0 {
            let state = if usage.open > 0 { "open" } else { "being retired" };
            return Err(Error::invalid(format!("the table is {state}: it is no orphan")).with_path(path));
        }
        usage.retiring += 1;
        drop(tables);
        Ok(Unmapped::new(
            path,
            TableClaim {
                held: Arc::clone(&self.held),
                key,
                stage: Stage::Retiring,
            },
        ))
    }

    /// Whether [`OsFs`](crate::OsFs) handed it out.
    pub(crate) fn is_from_os(&self) -> bool {
        self.held.from_os
    }

    /// Counts one more opening of `path`, until the claim is dropped or retired.
    pub(crate) fn claim_open(&self, path: &Path) -> Result<TableClaim> {
        let key = self.key(path)?;
        let mut tables = self.held.tables.lock();
        let usage = tables.entry(key.clone()).or_default();
        if usage.retiring > 0 {
            return Err(
                Error::invalid("the table is being retired and cannot be opened any more").with_path(path),
            );
        }
        usage.open += 1;
        drop(tables);
        Ok(TableClaim {
            held: Arc::clone(&self.held),
            key,
            stage: Stage::Open,
        })
    }

    /// The table's path within the directory: one file has one key however the directory's path is spelled.
    fn key(&self, path: &Path) -> Result<PathBuf> {
        if !is_table_path(path) {
            return Err(
                Error::invalid("only files with the extension of tables can be opened as tables")
                    .with_path(path),
            );
        }
        let inside = path.strip_prefix(&self.held.dir).ok().filter(|rest| {
            rest.components()
                .all(|component| matches!(component, std::path::Component::Normal(_)))
        });
        inside.map(Path::to_path_buf).ok_or_else(|| {
            Error::invalid(format!(
                "the table does not lie in the locked directory {}",
                self.held.dir.display()
            ))
            .with_path(path)
        })
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirLock")
            .field("dir", &self.held.dir)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Retiring,
}

/// One owner's entry in the lock's record of tables; dropping it strikes the entry out.
pub(crate) struct TableClaim {
    held: Arc<Held>,
    key: PathBuf,
    stage: Stage,
}

impl TableClaim {
    /// From open to being retired, in one step: nobody can open the table in between.
    pub(crate) fn retire(mut self) -> Self {
        {
            let mut tables = self.held.tables.lock();
            let usage = tables.entry(self.key.clone()).or_default();
            usage.open = usage.open.saturating_sub(1);
            usage.retiring += 1;
        }
        self.stage = Stage::Retiring;
        self
    }

    /// Whether somebody has the table open.
    pub(crate) fn is_open_elsewhere(&self) -> bool {
        self.held
            .tables
            .lock()
            .get(&self.key)
            .is_some_and(|usage| usage.open > 0)
    }

    /// Whether the lock behind it is the operating system's.
    pub(crate) fn is_from_os(&self) -> bool {
        self.held.from_os
    }
}

impl Drop for TableClaim {
    fn drop(&mut self) {
        let mut tables = self.held.tables.lock();
        let Some(usage) = tables.get_mut(&self.key) else {
            return;
        };
        match self.stage {
            Stage::Open => usage.open = usage.open.saturating_sub(1),
            Stage::Retiring => usage.retiring = usage.retiring.saturating_sub(1),
        }
        if usage.open == 0 && usage.retiring == 0 {
            tables.remove(&self.key);
        }
    }
}
