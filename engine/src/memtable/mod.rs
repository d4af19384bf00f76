//! The memtable: the newest entries of a keyspace, in memory, in internal order.
//!
//! A B-link tree. An entry is one piece of an arena block: lengths, key and value in a row, so that an insert allocates
//! nothing by itself and everything is freed at once when the memtable is dropped. Any number of threads insert at
//! once, each locking a single node for as long as it takes to put a pointer there; readers write nothing, wait at most
//! that long, and read keys and values in place. Entries are never changed or removed: an overwrite or a delete is one
//! more entry with a larger tag.
//!
//! `docs/notes/0002-memtable.md` has the comparison with other structures and why this one was chosen.

mod arena;
mod entry;
mod filter;
mod iter;
mod locked;
mod node;
mod pool;
mod shards;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

use siltstone_sstable::{InternalKey, SeqNo, Tag, key_hash};

use arena::Arena;
use entry::{Border, EntryRef};
use filter::KeyFilter;
pub(crate) use iter::MemtableIter;
pub(crate) use pool::BlockPool;
use shards::Shards;
use tree::Tree;

/// How many entries a node has when it is full.
const NODE_ENTRIES: usize = 64;

/// Ordered entries in memory; shared as `Arc<Memtable>`. `N` is the number of entries in a full node.
///
/// An entry is visible to every thread that learns, by any synchronising means, that its `insert` has returned.
/// While `insert` runs, others may or may not see the entry, but never a part of it.
pub(crate) struct Memtable<const N: usize = NODE_ENTRIES> {
    tree: Tree<N>,
    entries: Shards,
    /// Of nodes and entries: two arenas would each lose a part of their last block.
    arena: Arc<Arena>,
    filter: KeyFilter,
}

impl Memtable {
    /// An empty memtable, which takes no memory from the heap before its first entry. `arena_block_bytes` is the
    /// size that its blocks grow to; those of 2 MiB, a huge page, come from `pool`. `size_bytes` is what it will hold when
    /// it is full, which the size of its filter follows from.
    pub(crate) fn new(arena_block_bytes: usize, size_bytes: u64, pool: Arc<BlockPool>) -> Self {
        Self::with_node_size(arena_block_bytes, size_bytes, pool)
    }
}

impl<const N: usize> Memtable<N> {
    fn with_node_size(arena_block_bytes: usize, size_bytes: u64, pool: Arc<BlockPool>) -> Self {
        let arena = Arc::new(Arena::new(arena_block_bytes, pool));
        Self {
            tree: Tree::new(Arc::clone(&arena)),
            entries: Shards::new(arena_block_bytes, Arc::clone(&arena)),
            arena,
            filter: KeyFilter::new(size_bytes),
        }
    }

    /// Inserts an entry. No two entries may have the same user key and tag; seqnos are unique, so none do.
    ///
    /// # Panics
    /// If key or value are longer than 4 GiB (the write path refuses them long before, see
    /// [`check_entry_size`](siltstone_sstable::check_entry_size)); the memtable is as it was then.
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        let hash = key_hash(key.user_key);
        self.filter.prefetch(hash);
        self.tree.insert(EntryRef::create(&self.entries, key, value));
        self.filter.add(hash);
        self.entries.count(key.tag.is_tombstone());
    }

    /// Starts to load what a [`get`](Self::get) of `hash` looks at first.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        self.filter.prefetch(hash);
    }

    /// The newest entry of a key with a seqno of at most `seqno`; `hash` is the key's. A tombstone is an entry, with an
    /// empty value.
    #[inline]
    pub(crate) fn get<'m>(&'m self, user_key: &[u8], hash: u64, seqno: SeqNo) -> Option<(Tag, &'m [u8])> {
        if self.filter.may_hold(hash) {
            self.find(user_key, seqno)
        } else {
            None
        }
    }

    fn find<'m>(&'m self, user_key: &[u8], seqno: SeqNo) -> Option<(Tag, &'m [u8])> {
        let border = Border::before(InternalKey::new(user_key, Tag::seek_at(seqno)));
        let entry = self.tree.after(&border)?;
        (entry.user_key() == user_key).then(|| (entry.tag(), entry.value()))
    }

    /// An iterator over the entries; see there about those that are inserted while it is in use.
    pub(crate) fn iter(self: &Arc<Self>) -> MemtableIter<N> {
        MemtableIter::new(Arc::clone(self))
    }

    /// How many entries there are, tombstones included.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.entries()
    }

    /// How many of the entries are tombstones.
    pub(crate) fn tombstones(&self) -> u64 {
        self.entries.tombstones()
    }

    /// Bytes of arena memory taken by entries and nodes, with what is lost at the ends of blocks and chunks: what counts
    /// against the memtable's size. 0 for an empty memtable, and never decreases.
    pub(crate) fn bytes_used(&self) -> u64 {
        self.arena.bytes_used()
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }
}
