//! The cache of blocks that cannot be read in place: decompressed ones, and those of tables that are not mapped.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::TableId;

/// What one entry costs beside its bytes: key, reference counts, the cache's own slot.
const OVERHEAD_BYTES: u64 = 128;
const COUNTERS: usize = 16;

/// A bounded, sharded cache of blocks, shared by all tables of a database. Uncompressed blocks of mapped tables never
/// enter it: the page cache holds them.
pub struct BlockCache {
    cache: Cache<BlockKey, CachedBlock, ByWeight, MixKeys>,
    capacity_bytes: u64,
    /// One pair of counters per group of threads, each on its own cache line.
    counters: [Counters; COUNTERS],
}

/// The content of a block, checked and decompressed.
pub(crate) type CachedBlock = Arc<[u8]>;

/// Table and block number.
type BlockKey = (TableId, u64);

#[derive(Clone)]
struct ByWeight;

impl Weighter<BlockKey, CachedBlock> for ByWeight {
    fn weight(&self, _: &BlockKey, block: &CachedBlock) -> u64 {
        block.len() as u64 + OVERHEAD_BYTES
    }
}

#[derive(Default)]
#[repr(align(128))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    /// A cache for `capacity_bytes` of blocks; with 0 it keeps nothing.
    pub fn new(capacity_bytes: u64) -> Arc<BlockCache> {
        let items = usize::try_from(capacity_bytes / 4096)
            .unwrap_or(usize::MAX)
            .clamp(16, 1 << 24);
        Arc::new(BlockCache {
            cache: Cache::with(
                items,
                capacity_bytes,
                ByWeight,
                MixKeys,
                DefaultLifecycle::default(),
            ),
            capacity_bytes,
            counters: Default::default(),
        })
    }

    /// The bound on [`usage_bytes`](Self::usage_bytes).
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// The bytes held, with the cache's own overhead.
    pub fn usage_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The blocks held.
    pub fn blocks(&self) -> usize {
        self.cache.len()
    }

    /// Look-ups that found their block.
    pub fn hits(&self) -> u64 {
        self.counters
            .iter()
            .map(|counters| counters.hits.load(Ordering::Relaxed))
            .sum()
    }

    /// Look-ups that did not.
    pub fn misses(&self) -> u64 {
        self.counters
            .iter()
            .map(|counters| counters.misses.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn get(&self, table: TableId, block: usize) -> Option<CachedBlock> {
        let found = self.cache.get(&(table, block as u64));
        let counters = &self.counters[counter_index()];
        // Statistics only: nothing is ordered by them.
        if found.is_some() {
            &counters.hits
        } else {
            &counters.misses
        }
        .fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(crate) fn insert(&self, table: TableId, block: usize, content: CachedBlock) {
        self.cache.insert((table, block as u64), content);
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("capacity_bytes", &self.capacity_bytes)
            .field("usage_bytes", &self.usage_bytes())
            .finish_non_exhaustive()
    }
}

/// Threads take turns at the counters when they first need one.
fn counter_index() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: usize = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTERS;
    }
    INDEX.try_with(|index| *index).unwrap_or(0)
}

/// Table ids and block numbers are small and dense: two multiplications spread them.
#[derive(Clone, Copy)]
struct MixKeys;

#[derive(Default)]
struct Mixer(u64);

impl BuildHasher for MixKeys {
    type Hasher = Mixer;
    fn build_hasher(&self) -> Mixer {
        Mixer::default()
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

/// Part of a block that is held by reference count: dropped from the cache or not, it stays readable.
#[derive(Clone)]
pub struct BlockSlice {
    content: CachedBlock,
    start: usize,
    end: usize,
}

impl BlockSlice {
    pub(crate) fn new(content: CachedBlock, range: Range<usize>) -> BlockSlice {
        assert!(
            range.start <= range.end && range.end <= content.len(),
            "a slice lies inside its block"
        );
        BlockSlice {
            content,
            start: range.start,
            end: range.end,
        }
    }
}

impl Deref for BlockSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.content[self.start..self.end]
    }
}

impl fmt::Debug for BlockSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSlice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_stays_within_the_capacity_and_zero_keeps_nothing() {
        for capacity in [0, 100 << 10, 1 << 20] {
            let cache = BlockCache::new(capacity);
            let blocks = if cfg!(miri) { 60 } else { 2000 };
            for block in 0..blocks {
                cache.insert(TableId(1), block, vec![1; 4000].into());
                assert!(
                    cache.usage_bytes() <= capacity,
                    "{} of {capacity}",
                    cache.usage_bytes()
                );
            }
            assert_eq!(cache.blocks() == 0, capacity == 0);
        }
    }

    #[test]
    fn hits_and_misses_are_counted_and_tables_kept_apart() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(TableId(1), 7, vec![1].into());
        assert_eq!(cache.get(TableId(1), 7).as_deref(), Some(&[1][..]));
        assert!(cache.get(TableId(2), 7).is_none());
        assert!(cache.get(TableId(1), 8).is_none());
        assert_eq!((cache.hits(), cache.misses()), (1, 2));
    }
}
