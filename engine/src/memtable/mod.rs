//! The memtable: the newest entries of a keyspace, in memory, in internal order.
//!
//! An arena skiplist. An entry is one piece of an arena block: links, key and value in a row, so that an insert
//! allocates nothing by itself and everything is freed at once when the memtable is dropped. Any number of threads
//! insert at once, without a lock; readers are never blocked, and read keys and values in place. Entries are never
//! changed or removed: an overwrite or a delete is one more entry with a larger tag.
//!
//! `docs/notes/0002-memtable.md` has the comparison with other structures and why this one was chosen.

mod arena;
mod iter;
mod node;
mod skiplist;
#[cfg(test)]
mod tests;
mod tower;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use siltstone_sstable::{InternalKey, SeqNo, Tag};

use arena::Arena;
pub(crate) use iter::MemtableIter;
use node::Target;
use skiplist::SkipList;

/// Ordered entries in memory; shared as `Arc<Memtable>`.
///
/// An entry is visible to every thread that learns, by any synchronising means, that its `insert` has returned.
/// While `insert` runs, others may or may not see the entry, but never a part of it.
pub(crate) struct Memtable {
    list: SkipList,
    counts: Counts,
}

/// Written by every insert, so on cache lines (a pair: they are prefetched in pairs) of their own: the links beside
/// them are read by everyone.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    entries: AtomicU64,
    tombstones: AtomicU64,
}

impl Memtable {
    /// An empty memtable, which takes no memory from the heap before its first entry. `arena_block_bytes` is the
    /// size that its blocks grow to; 2 MiB and multiples of it suit huge pages.
    pub(crate) fn new(arena_block_bytes: usize) -> Self {
        Self {
            list: SkipList::new(Arena::new(arena_block_bytes)),
            counts: Counts::default(),
        }
    }

    /// Inserts an entry. No two entries may have the same user key and tag; seqnos are unique, so none do.
    ///
    /// # Panics
    /// If key or value are longer than 4 GiB (the write path refuses them long before, see
    /// [`check_entry_size`](siltstone_sstable::check_entry_size)); the memtable is as it was then.
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        self.list.insert(key, value);
        self.counts.entries.fetch_add(1, Ordering::Relaxed);
        if key.tag.is_tombstone() {
            self.counts.tombstones.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The newest entry of a key with a seqno of at most `seqno`. A tombstone is an entry, with an empty value.
    pub(crate) fn get<'m>(&'m self, user_key: &[u8], seqno: SeqNo) -> Option<(Tag, &'m [u8])> {
        let target = Target::before(InternalKey::new(user_key, Tag::seek_at(seqno)));
        let node = self.list.after(&target)?;
        node.has_user_key_of(&target).then(|| (node.tag(), node.value()))
    }

    /// An iterator over the entries, those that are inserted while it is in use included.
    pub(crate) fn iter(self: &Arc<Self>) -> MemtableIter {
        MemtableIter::new(Arc::clone(self))
    }

    /// How many entries there are, tombstones included.
    pub(crate) fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// How many of the entries are tombstones.
    pub(crate) fn tombstones(&self) -> u64 {
        self.counts.tombstones.load(Ordering::Relaxed)
    }

    /// Bytes of arena memory taken by entries, with their links and what is lost at the ends of blocks: what counts
    /// against the memtable's size. 0 for an empty memtable, and never decreases.
    pub(crate) fn bytes_used(&self) -> u64 {
        self.list.bytes_used()
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.first().is_none()
    }
}
