//! What the engine counts. Nothing is counted on the read path: a shared counter there would cost more than the read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use siltstone_compaction::LEVELS;
use siltstone_vfs::Error;

use crate::core::Core;

/// How many background errors are kept.
const BACKGROUND_ERRORS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Stored by every commit, which has it from what its lock guards.
    pub(crate) log_bytes: CachePadded<AtomicU64>,
    pub(crate) log_syncs: AtomicU64,
    pub(crate) segments_retired: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) trivial_moves: AtomicU64,
    pub(crate) compacted_bytes_in: AtomicU64,
    pub(crate) compacted_bytes_out: AtomicU64,
    pub(crate) tables_retired: AtomicU64,
    pub(crate) bytes_retired: AtomicU64,
    background_errors: Mutex<Vec<Error>>,
}

impl Counters {
    /// Keeps an error that no caller is there to receive.
    pub(crate) fn note_background_error(&self, error: &Error) {
        let mut errors = self.background_errors.lock();
        if errors.len() == BACKGROUND_ERRORS_MAX {
            errors.remove(0);
        }
        errors.push(error.clone());
    }
}

/// The state of a database at one moment, and what it has done since it was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Bytes appended to the log, without its framing.
    pub log_bytes: u64,
    /// Calls that waited for the log to be synced; calls that shared one sync count each.
    pub log_syncs: u64,
    /// Bytes of preallocated log segments that are needed for recovery or being written.
    pub log_live_bytes: u64,
    /// Log segments that nothing needs any more: removed, or kept to make the next ones of.
    pub segments_retired: u64,
    /// Memtables made into tables, in how many jobs.
    pub flushes: u64,
    /// Bytes of tables written by flushes.
    pub flushed_bytes: u64,
    /// Compactions that merged.
    pub compactions: u64,
    /// Compactions that only moved a table to a deeper level.
    pub trivial_moves: u64,
    /// Bytes of tables read by compactions.
    pub compacted_bytes_in: u64,
    /// Bytes of tables written by compactions.
    pub compacted_bytes_out: u64,
    /// Obsolete tables unmapped, truncated and removed.
    pub tables_retired: u64,
    /// Their bytes.
    pub bytes_retired: u64,
    /// Tables and bytes of each level, over all keyspaces.
    pub levels: [(usize, u64); LEVELS],
    /// Sorted runs that level 0 is, over all keyspaces: a read asks one table at the most of each. While writes come faster than they can be
    /// compacted, what flushes leave there is merged into runs of several tables.
    pub l0_runs: usize,
    /// Bytes of the filters that tell reads which tables of level 0 to ask: an eighth of `memtable_size_bytes` (1 GiB at the most) for each
    /// keyspace that has flushed more than a few keys onto three sorted runs or more, as long as such a table is in its level 0.
    pub l0_filter_bytes: u64,
    /// Entries in tables, shadowed ones and tombstones included.
    pub table_entries: u64,
    /// Bytes of all memtables that are not flushed.
    pub memtable_bytes: u64,
    /// Bytes of the blocks of memory of all memtables, unused ends and flushed memtables that a cursor or a job still
    /// holds included; without their filters, a 64th of a memtable's size each.
    pub memtable_memory_bytes: u64,
    /// Entries in memtables, shadowed ones and tombstones included.
    pub memtable_entries: u64,
    /// Tombstones in memtables.
    pub memtable_tombstones: u64,
    /// Memtables that wait for their flush.
    pub immutable_memtables: usize,
    /// Bytes of decompressed blocks in the cache.
    pub block_cache_bytes: u64,
    /// Tables that are mapped or open.
    pub open_tables: usize,
    /// Snapshots that are held.
    pub snapshots: usize,
    /// Writes that were delayed, and times a write had to wait for background work.
    pub writes_delayed: u64,
    /// See `writes_delayed`.
    pub writes_stopped: u64,
    /// Time that writes were held up, all together.
    pub stalled: Duration,
    /// The last visible seqno.
    pub seqno: u64,
    /// The last errors of background work (at most 16).
    pub background_errors: Vec<Error>,
}

impl Metrics {
    /// Bytes written to tables and log for each byte that was committed: 1.0 is the log alone.
    pub fn write_amplification(&self) -> f64 {
        if self.log_bytes == 0 {
            return 0.0;
        }
        let written = self.log_bytes + self.flushed_bytes + self.compacted_bytes_out;
        written as f64 / self.log_bytes as f64
    }

    pub(crate) fn of(core: &Core) -> Metrics {
        let counters = &core.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut metrics = Metrics {
            log_bytes: get(&counters.log_bytes),
            log_syncs: get(&counters.log_syncs),
            log_live_bytes: core
                .syncer
                .load()
                .live_segments()
                .iter()
                .map(|(_, bytes)| bytes)
                .sum(),
            segments_retired: get(&counters.segments_retired),
            flushes: get(&counters.flushes),
            flushed_bytes: get(&counters.flushed_bytes),
            compactions: get(&counters.compactions),
            trivial_moves: get(&counters.trivial_moves),
            compacted_bytes_in: get(&counters.compacted_bytes_in),
            compacted_bytes_out: get(&counters.compacted_bytes_out),
            tables_retired: get(&counters.tables_retired),
            bytes_retired: get(&counters.bytes_retired),
            memtable_memory_bytes: core.pool.bytes_in_use(),
            block_cache_bytes: core.cache.usage_bytes(),
            open_tables: core.mapped_tables.load(Ordering::Relaxed),
            snapshots: core.snapshots.count(),
            writes_delayed: get(&core.stalls.delayed),
            writes_stopped: get(&core.stalls.stopped),
            stalled: Duration::from_nanos(get(&core.stalls.waited_ns)),
            seqno: core.visible().0,
            background_errors: counters.background_errors.lock().clone(),
            ..Metrics::default()
        };
        for tree in core.trees.load().iter() {
            let view = tree.pin();
            metrics.immutable_memtables += view.immutables.len();
            let slots = std::iter::once(&view.memtable).chain(&view.immutables);
            for slot in slots {
                metrics.memtable_bytes += slot.table.bytes_used();
                metrics.memtable_entries += slot.table.entries();
                metrics.memtable_tombstones += slot.table.tombstones();
            }
            metrics.l0_runs += view.tables.version.l0_runs().len();
            metrics.l0_filter_bytes += view.tables.l0_filter_bytes();
            for (level, table) in view.tables.version.tables() {
                metrics.levels[level].0 += 1;
                metrics.levels[level].1 += table.size_bytes;
                metrics.table_entries += table.entries;
            }
        }
        metrics
    }
}
