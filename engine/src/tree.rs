//! One keyspace's tree inside the database: its options, its current view, and what stands in its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use siltstone_compaction::Cursors;
use siltstone_sstable::SeqNo;
use siltstone_wal::RecordSeq;

use crate::batch::KeyspaceId;
use crate::intake::Intake;
use crate::memtable::BlockPool;
use crate::options::KeyspaceOptions;
use crate::reaper::Garbage;
use crate::sliced_filter::Slicer;
use crate::stall::Pressure;
use crate::super_version::{MemtableSlot, SuperVersion};
use crate::table_set::TableSet;

/// A view, pinned for the length of a read without a shared reference count.
pub(crate) type ViewGuard = Guard<Arc<SuperVersion>>;

/// Writers that fill memtables at this rate gain by large ones.
const HURRIED_BYTES_PER_S: u64 = 16 << 20;
/// Elsewhere they have this part of the size: with what its flush takes (a chunk of the table, hashes and places of keys, index
/// and filter) a memtable of the default size or more is then within it (docs/notes/0020-memory-of-unhurried-writers.md).
const UNHURRIED_DIVISOR: u64 = 2;

/// The inside of a keyspace.
pub(crate) struct Tree {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) options: ArcSwap<KeyspaceOptions>,
    view: ArcSwap<SuperVersion>,
    /// Serialises changes of the view; holds what only the changers need.
    install: Mutex<()>,
    pub(crate) cursors: Mutex<Cursors>,
    pub(crate) pressure: Pressure,
    pub(crate) intake: Intake,
    pub(crate) slicer: Slicer,
    dropped: AtomicBool,
    /// The database's.
    pool: Arc<BlockPool>,
    garbage: Sender<Garbage>,
}

impl Tree {
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        options: KeyspaceOptions,
        tables: TableSet,
        pool: Arc<BlockPool>,
        garbage: Sender<Garbage>,
    ) -> Arc<Tree> {
        let view = SuperVersion {
            memtable: MemtableSlot::new(options.memtable_size_bytes / UNHURRIED_DIVISOR, &pool),
            immutables: Vec::new(),
            tables: Arc::new(tables),
            dead: Arc::default(),
        };
        let tree = Tree {
            id,
            name,
            pressure: Pressure::default(),
            intake: Intake::default(),
            slicer: Slicer::default(),
            options: ArcSwap::from_pointee(options),
            view: ArcSwap::from_pointee(view),
            install: Mutex::new(()),
            cursors: Mutex::new(Cursors::default()),
            dropped: AtomicBool::new(false),
            pool,
            garbage,
        };
        tree.pressure.update(&tree.view(), &tree.options.load());
        Arc::new(tree)
    }

    /// Pins the current view.
    #[inline]
    pub(crate) fn pin(&self) -> ViewGuard {
        self.view.load()
    }

    /// The current view, for keeping.
    pub(crate) fn view(&self) -> Arc<SuperVersion> {
        self.view.load_full()
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Makes the active memtable immutable and puts a fresh one in its place.
    ///
    /// REQUIRES: the commit lock, so that no batch is on its way between `last` and the new memtable.
    pub(crate) fn rotate(&self, last: SeqNo, record: RecordSeq) {
        self.change(|view| {
            view.memtable.seal(last, record);
            let mut immutables = Vec::with_capacity(view.immutables.len() + 1);
            immutables.push(Arc::clone(&view.memtable));
            immutables.extend(view.immutables.iter().cloned());
            SuperVersion {
                memtable: self.new_memtable(view),
                immutables,
                tables: Arc::clone(&view.tables),
                dead: Arc::clone(&view.dead),
            }
        });
    }

    /// Replaces the tables, and takes out the memtables that have become tables.
    ///
    /// REQUIRES: the manifest lock and a synced edit.
    pub(crate) fn install(&self, tables: TableSet, flushed: &[Arc<MemtableSlot>]) {
        let tables = Arc::new(tables);
        self.change(|view| {
            let waits = |slot: &&Arc<MemtableSlot>| !flushed.iter().any(|done| Arc::ptr_eq(done, slot));
            let immutables = view.immutables.iter().filter(waits).cloned().collect();
            SuperVersion {
                memtable: Arc::clone(&view.memtable),
                immutables,
                tables,
                dead: Arc::clone(&view.dead),
            }
        });
    }

    /// Lets go of everything that a dropped keyspace held; its tables are obsolete.
    ///
    /// REQUIRES: the manifest lock and a synced edit that drops the keyspace.
    pub(crate) fn discard(&self) {
        self.change(|view| {
            view.tables.handles().for_each(|handle| handle.retire());
            SuperVersion {
                memtable: self.new_memtable(view),
                immutables: Vec::new(),
                tables: Arc::default(),
                dead: Arc::clone(&view.dead),
            }
        });
    }

    /// Computes the demand on writers anew, after a change of options.
    pub(crate) fn refresh_pressure(&self) {
        let _one_at_a_time = self.install.lock();
        self.pressure.update(&self.view(), &self.options.load());
    }

    /// The one after that of `view`: of all the size that the options allow where writes come fast, or would if they were not
    /// held up.
    fn new_memtable(&self, view: &SuperVersion) -> Arc<MemtableSlot> {
        let size_bytes = self.options.load().memtable_size_bytes;
        let is_hurried = !view.immutables.is_empty()
            || self.pressure.demand().reason().is_some()
            || view.memtable.filled_at(HURRIED_BYTES_PER_S, self.pool.now());
        let divisor = if is_hurried { 1 } else { UNHURRIED_DIVISOR };
        MemtableSlot::new(size_bytes / divisor, &self.pool)
    }

    fn change(&self, next: impl FnOnce(&SuperVersion) -> SuperVersion) {
        let _one_at_a_time = self.install.lock();
        let old = self.view.load_full();
        let new = Arc::new(next(&old));
        self.pressure.update(&new, &self.options.load());
        self.view.store(new);
        // The reaper waits for the last reader to let go, so that no reader frees a memtable or a table.
        let _ = self.garbage.send(Garbage::View(old));
    }
}
