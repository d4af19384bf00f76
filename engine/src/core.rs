//! What all parts of an open database share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use siltstone_sstable::{BlockCache, SeqNo, Table, TableId};
use siltstone_vfs::{Advice, Clock, DirLock, Error, ErrorKind, Fs, Result};
use siltstone_wal::{LogSyncer, RecordSeq};

use crate::batch::KeyspaceId;
use crate::commit::Commit;
use crate::failure::Failure;
use crate::files;
use crate::jobs::Scheduler;
use crate::manifest::Manifest;
use crate::memtable::BlockPool;
use crate::metrics::Counters;
use crate::options::{BackgroundMode, Options};
use crate::reaper::{Garbage, Reaper};
use crate::recovery::RecoveryReport;
use crate::snapshot_list::SnapshotList;
use crate::space::Space;
use crate::stall::{Pacer, Progress, StallCounts};
use crate::tree::Tree;

/// The state of an open database. Background threads, snapshots and cursors hold it; the directory stays locked until
/// the last of them lets go, so that nobody can truncate a table that one of them still reads.
pub(crate) struct Core {
    pub(crate) commit: Commit,
    pub(crate) closed: AtomicBool,
    /// The live keyspaces, by id.
    pub(crate) trees: ArcSwap<Vec<Arc<Tree>>>,
    pub(crate) failure: Failure,
    pub(crate) space: Space,

    /// Tells this open database from every other in the process.
    pub(crate) database: u64,
    pub(crate) dir: PathBuf,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) background: BackgroundMode,
    pub(crate) options: Options,
    pub(crate) syncer: ArcSwap<LogSyncer>,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) next_table: AtomicU64,
    pub(crate) mapped_tables: AtomicUsize,
    pub(crate) cache: Arc<BlockCache>,
    /// Memory of memtables that are gone, for the next ones.
    pub(crate) pool: Arc<BlockPool>,
    pub(crate) snapshots: SnapshotList,
    pub(crate) scheduler: Scheduler,
    pub(crate) progress: Progress,
    pub(crate) pacer: Pacer,
    pub(crate) stalls: StallCounts,
    pub(crate) counters: Counters,
    pub(crate) garbage: Sender<Garbage>,
    pub(crate) reaper: Mutex<Reaper>,
    /// Held by the one that takes writes up again.
    pub(crate) resuming: Mutex<()>,
    /// Tables of a manifest edit whose fate is open: removed once a new manifest has settled it.
    pub(crate) doubtful: Mutex<Vec<PathBuf>>,
    pub(crate) report: RecoveryReport,
    pub(crate) lock: DirLock,
}

impl Core {
    /// Passes while the database is open.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            Err(closed())
        } else {
            Ok(())
        }
    }

    pub(crate) fn closing(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Calls `with` with the keyspace of this id. The count of its owners, which all threads share, is left alone.
    #[inline]
    pub(crate) fn with_tree<R>(&self, id: KeyspaceId, with: impl FnOnce(Option<&Arc<Tree>>) -> R) -> R {
        let trees = self.trees.load();
        let at = trees.binary_search_by_key(&id, |tree| tree.id);
        with(at.ok().map(|at| &trees[at]))
    }

    pub(crate) fn new_table_id(&self) -> TableId {
        TableId(self.next_table.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn table_path(&self, id: TableId) -> PathBuf {
        files::table_path(&self.dir, id)
    }

    /// Opens a finished table.
    pub(crate) fn open_table(&self, id: TableId) -> Result<Arc<Table>> {
        let max = self.options.mapped_tables_max;
        let path = self.table_path(id);
        let table = crate::table_open::open_table(
            &*self.fs,
            &path,
            &self.lock,
            id,
            &self.cache,
            &self.mapped_tables,
            max,
        )?;
        table.load().inspect_err(|_| {
            self.mapped_tables.fetch_sub(1, Ordering::Relaxed);
        })?;
        populate(&table);
        Ok(table)
    }

    /// Makes everything up to `record` survive power loss.
    pub(crate) fn sync_to(&self, record: RecordSeq) -> Result<()> {
        if let Err(error) = self.syncer.load_full().sync_to(record) {
            self.failure.record(&error);
            return Err(error.context(
                "the log could not be synced; what was written is visible but may not survive a power loss",
            ));
        }
        self.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
        // Lets recovery tell damage before this point from a torn tail. The next record would say it, too.
        if let Some(mut state) = self.commit.try_lock()
            && let Some(log) = &mut state.log
            && let Err(error) = log.note_synced()
        {
            self.failure.record(&error);
        }
        Ok(())
    }

    /// Makes everything committed so far survive power loss.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_open()?;
        self.failure.check()?;
        let record = self.commit.lock().last_record;
        self.sync_to(record)
    }

    /// The seqno that a read sees that does not say otherwise.
    #[inline]
    pub(crate) fn visible(&self) -> SeqNo {
        self.commit.visible()
    }

    /// Notes a failed write, be it of the log, a table or the manifest: a full disk is waited out, anything else refuses
    /// writes from now on.
    pub(crate) fn note_failure(&self, error: &Error) {
        match error.kind() {
            // Not even room would make a log that has failed take anything again.
            ErrorKind::NoSpace if self.syncer.load().has_failed() => self.failure.record(error),
            ErrorKind::NoSpace => self.space.note_full(self),
            ErrorKind::Closed => {}
            _ => self.failure.record(error),
        }
    }
}

/// The answer of a closed database.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database has been closed").with_advice("open it again")
}

/// Fills the page tables of a mapped table, so that no read of it faults while its pages are in memory.
pub(crate) fn populate(table: &Table) {
    // Advice makes reads faster, never right or wrong: a file system without it is no reason to fail.
    let _ = table.mapping().advise(Advice::PopulateCached);
}
