//! What a read looks at: one immutable view of a keyspace's memtables and tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siltstone_sstable::{SeqNo, TableValue, Tag, key_hash};
use siltstone_vfs::{HUGE_PAGE_BYTES, Result};
use siltstone_wal::RecordSeq;
use smallvec::SmallVec;

use crate::dead_ranges::DeadRanges;
use crate::memtable::{BlockPool, Memtable};
use crate::table_handle::TableHandle;
use crate::table_set::TableSet;

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
        self.tables.prefetch(hash);
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
        self.tables
            .candidates(key, hash, |handle| candidates.push(handle));
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
