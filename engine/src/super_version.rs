//! What a read looks at: one immutable view of a keyspace's memtables and tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use siltstone_compaction::{LEVELS, Version};
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
    /// The smallest seqno that it may hold; `u64::MAX` while nothing has been committed to it.
    first: AtomicU64,
    /// Set when it becomes immutable: the last seqno given out by then, and the last record of the log.
    sealed: std::sync::OnceLock<(SeqNo, RecordSeq)>,
}

impl MemtableSlot {
    /// An empty one that is to grow to `size_bytes`.
    pub(crate) fn new(size_bytes: u64, pool: &Arc<BlockPool>) -> Arc<MemtableSlot> {
        Arc::new(MemtableSlot {
            table: Arc::new(Memtable::new(HUGE_PAGE_BYTES, size_bytes, Arc::clone(pool))),
            first: AtomicU64::new(u64::MAX),
            sealed: std::sync::OnceLock::new(),
        })
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
    levels: [Arc<[Arc<TableHandle>]>; LEVELS],
    /// The largest keys of each level's tables.
    largest: [Arc<KeyHeads>; LEVELS],
    /// The levels below 0 that have tables: few, of many.
    runs: SmallVec<[usize; LEVELS]>,
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
        let levels = std::array::from_fn(|level| {
            let open = |meta: &Arc<siltstone_compaction::TableMeta>| {
                Arc::clone(
                    handles
                        .get(&meta.id)
                        .expect("every table of a version has been opened"),
                )
            };
            version.level(level).iter().map(open).collect()
        });
        let largest = std::array::from_fn(|level| {
            // The tables of level 0 are in order of age.
            let sorted = if level == 0 { &[] } else { version.level(level) };
            Arc::new(KeyHeads::new(sorted.iter().map(|meta| &*meta.largest)))
        });
        TableSet {
            runs: (1..LEVELS)
                .filter(|level| !version.level(*level).is_empty())
                .collect(),
            version,
            levels,
            largest,
        }
    }

    pub(crate) fn level(&self, level: usize) -> &Arc<[Arc<TableHandle>]> {
        &self.levels[level]
    }

    /// The levels below 0 that have tables, from above.
    pub(crate) fn runs(&self) -> &[usize] {
        &self.runs
    }

    /// The largest keys of a level below 0, for finding the first table that reaches a key.
    pub(crate) fn largest(&self, level: usize) -> &Arc<KeyHeads> {
        &self.largest[level]
    }

    /// Hands over the tables that may hold `key`, the newest first: those of level 0 that reach over it, then one of each
    /// deeper level, where the key may lie before all that the table holds.
    #[inline]
    pub(crate) fn candidates<'t>(&'t self, key: &[u8], mut take: impl FnMut(&'t TableHandle)) {
        for handle in &*self.levels[0] {
            if handle.meta().contains(key) {
                take(handle);
            }
        }
        for &level in &self.runs {
            let tables = &self.levels[level];
            let at = self.largest[level].lower_bound(key, |at| &tables[at].meta().largest);
            if let Some(handle) = tables.get(at) {
                take(handle);
            }
        }
    }

    pub(crate) fn handles(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.levels.iter().flat_map(|level| level.iter())
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
