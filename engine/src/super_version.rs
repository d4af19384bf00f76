//! What a read looks at: one immutable view of a keyspace's memtables and tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siltstone_compaction::{LEVELS, TableMeta, Version};
use siltstone_sstable::{KeyHeads, SeqNo, TableId, TableValue, Tag, key_hash};
use siltstone_vfs::{HUGE_PAGE_BYTES, Result};
use siltstone_wal::RecordSeq;
use smallvec::SmallVec;

use crate::dead_ranges::DeadRanges;
use crate::memtable::{BlockPool, Memtable};
use crate::table_handle::TableHandle;

/// A memtable with its place in the commit order.
pub(crate) struct MemtableSlot {
    pub(crate) table: Arc<Memtable>,
    /// From so many bytes on it takes no more batches.
    pub(crate) limit_bytes: u64,
    made_at: Duration,
    /// The smallest seqno that it may hold; `u64::MAX` while nothing has been committed to it.
    first: AtomicU64,
    /// Set when it becomes immutable: the last seqno given out by then, and the last record of the log.
    sealed: std::sync::OnceLock<(SeqNo, RecordSeq)>,
}

impl MemtableSlot {
    /// An empty one that is to grow to `limit_bytes`.
    pub(crate) fn new(limit_bytes: u64, pool: &Arc<BlockPool>) -> Arc<MemtableSlot> {
        Arc::new(MemtableSlot {
            table: Arc::new(Memtable::new(HUGE_PAGE_BYTES, limit_bytes, Arc::clone(pool))),
            limit_bytes,
            made_at: pool.now(),
            first: AtomicU64::new(u64::MAX),
            sealed: std::sync::OnceLock::new(),
        })
    }

    /// Whether it has taken in as much as that from when it was made until `now`.
    pub(crate) fn filled_at(&self, bytes_per_s: u64, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.made_at);
        u128::from(self.table.bytes_used()) * 1_000_000_000 >= u128::from(bytes_per_s) * elapsed.as_nanos()
    }

    /// Notes that a batch from `seqno` on goes in. Called under the commit lock, in commit order.
    #[inline]
    pub(crate) fn note_commit(&self, seqno: SeqNo) {
        if self.first.load(Ordering::Relaxed) == u64::MAX {
            self.first.store(seqno.0, Ordering::Release);
        }
    }

    /// The smallest seqno in it, or `None` while it is empty.
    pub(crate) fn first_seqno(&self) -> Option<SeqNo> {
        let first = self.first.load(Ordering::Acquire);
        (first != u64::MAX).then_some(SeqNo(first))
    }

    /// Makes it immutable.
    pub(crate) fn seal(&self, last: SeqNo, record: RecordSeq) {
        let fresh = self.sealed.set((last, record)).is_ok();
        debug_assert!(fresh, "a memtable is sealed once");
    }

    /// The last seqno and log record that it can hold; `None` while it is active.
    pub(crate) fn sealed(&self) -> Option<(SeqNo, RecordSeq)> {
        self.sealed.get().copied()
    }
}

/// Where one key may be: rarely more than the tables that level 0 gathers and one a level.
type Candidates<'t> = SmallVec<[&'t TableHandle; 12]>;

/// The tables of a version, open.
#[derive(Default)]
pub(crate) struct TableSet {
    pub(crate) version: Version,
    /// The newest first: those of level 0, then each deeper level that has tables.
    runs: Vec<SortedRun>,
}

/// Tables with disjoint keys, in key order: a level below 0, or a part of level 0.
pub(crate) struct SortedRun {
    pub(crate) tables: Box<[Arc<TableHandle>]>,
    /// Their largest keys.
    largest: KeyHeads,
    /// Whether it is a single table of level 0.
    is_flushed: bool,
}

impl SortedRun {
    fn new(
        metas: &[Arc<TableMeta>],
        level: usize,
        handles: &HashMap<TableId, Arc<TableHandle>>,
    ) -> SortedRun {
        let open = |meta: &Arc<TableMeta>| {
            Arc::clone(
                handles
                    .get(&meta.id)
                    .expect("every table of a version has been opened"),
            )
        };
        SortedRun {
            tables: metas.iter().map(open).collect(),
            largest: KeyHeads::new(metas.iter().map(|meta| &*meta.largest)),
            is_flushed: level == 0 && metas.len() == 1,
        }
    }

    /// The first table whose largest key is at least `key`, or the count.
    #[inline]
    pub(crate) fn first_reaching(&self, key: &[u8]) -> usize {
        self.largest
            .lower_bound(key, |at| &self.tables[at].meta().largest)
    }

    /// The table, if it is a single one of level 0.
    pub(crate) fn as_flushed(&self) -> Option<&Arc<TableHandle>> {
        self.tables.first().filter(|_| self.is_flushed)
    }
}

impl TableSet {
    /// The set for `version`, with handles from `old` and from `opened`.
    ///
    /// # Panics
    /// Where a table of the version is in neither: whoever installs a version opens its tables first.
    pub(crate) fn new(
        version: Version,
        old: &TableSet,
        opened: impl IntoIterator<Item = Arc<TableHandle>>,
    ) -> Self {
        let mut handles: HashMap<TableId, Arc<TableHandle>> = old
            .handles()
            .map(|handle| (handle.meta().id, Arc::clone(handle)))
            .collect();
        handles.extend(opened.into_iter().map(|handle| (handle.meta().id, handle)));
        let l0 = version
            .l0_runs()
            .iter()
            .map(|run| SortedRun::new(&run.tables, 0, &handles));
        let deeper = (1..LEVELS).filter(|level| !version.level(*level).is_empty());
        let deeper = deeper.map(|level| SortedRun::new(version.level(level), level, &handles));
        TableSet {
            runs: l0.chain(deeper).collect(),
            version,
        }
    }

    /// All sorted runs, the newest first.
    pub(crate) fn runs(&self) -> &[SortedRun] {
        &self.runs
    }

    /// Hands over the tables that may hold `key`, the newest first: of those that level 0 has by themselves the ones that
    /// reach over it, and one of each run of several, where the key may lie before all that the table holds.
    #[inline]
    pub(crate) fn candidates<'t>(&'t self, key: &[u8], mut take: impl FnMut(&'t TableHandle)) {
        for run in &self.runs {
            if let Some(handle) = run.as_flushed() {
                if handle.meta().contains(key) {
                    take(handle);
                }
            } else if let Some(handle) = run.tables.get(run.first_reaching(key)) {
                take(handle);
            }
        }
    }

    pub(crate) fn handles(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.runs.iter().flat_map(|run| &run.tables)
    }

    pub(crate) fn find(&self, id: TableId) -> Option<&Arc<TableHandle>> {
        self.handles().find(|handle| handle.meta().id == id)
    }
}

/// One view. Never changes; replaced as a whole.
pub(crate) struct SuperVersion {
    pub(crate) memtable: Arc<MemtableSlot>,
    /// Memtables that wait for their flush, the newest first.
    pub(crate) immutables: Vec<Arc<MemtableSlot>>,
    pub(crate) tables: Arc<TableSet>,
    /// The keyspace's own: the same in all its views.
    pub(crate) dead: Arc<DeadRanges>,
}

/// A value where it lies.
pub(crate) enum Found<'v> {
    Memtable(&'v [u8]),
    Table(TableValue<'v>),
}

impl std::ops::Deref for Found<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Found::Memtable(bytes) => bytes,
            Found::Table(value) => value,
        }
    }
}

impl SuperVersion {
    /// The value of `key` at `seqno`; `None` where it was never set, or was deleted last.
    ///
    /// The newest source that knows the key decides: memtables, then level 0 from the newest table on, then one
    /// table of each deeper level.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], seqno: SeqNo) -> Result<Option<Found<'_>>> {
        let hash = key_hash(key);
        if !self.immutables.is_empty() {
            self.prefetch_memtables(hash);
        }
        match self.get_from_memtables(key, hash, seqno) {
            Some((tag, value)) => Ok(alive(tag, Found::Memtable(value))),
            None => self.get_from_tables(key, hash, seqno),
        }
    }

    #[inline]
    pub(crate) fn get_from_memtables(&self, key: &[u8], hash: u64, seqno: SeqNo) -> Option<(Tag, &[u8])> {
        let older = || {
            let mut slots = self.immutables.iter();
            slots.find_map(|slot| slot.table.get(key, hash, seqno))
        };
        self.memtable.table.get(key, hash, seqno).or_else(older)
    }

    /// Starts to load what [`get_from_memtables`](Self::get_from_memtables) looks at first.
    #[inline]
    pub(crate) fn prefetch_memtables(&self, hash: u64) {
        for slot in std::iter::once(&self.memtable).chain(&self.immutables) {
            slot.table.prefetch_filter(hash);
        }
    }

    fn get_from_tables(&self, key: &[u8], hash: u64, seqno: SeqNo) -> Result<Option<Found<'_>>> {
        let mut candidates: Candidates<'_> = SmallVec::new();
        self.tables.candidates(key, |handle| candidates.push(handle));
        // One miss to wait for, where asking one after the other would wait for one each.
        if candidates.len() > 1 {
            for handle in &candidates {
                handle.prefetch_filter(hash);
            }
        }
        for handle in candidates {
            if let Some(entry) = handle.get(key, hash, seqno)? {
                return Ok(alive(entry.tag, Found::Table(entry.value)));
            }
        }
        Ok(None)
    }
}

#[inline]
pub(crate) fn alive<T>(tag: Tag, found: T) -> Option<T> {
    (!tag.is_tombstone()).then_some(found)
}
