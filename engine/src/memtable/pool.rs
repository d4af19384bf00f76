//! Memory of memtables: how much there is, and what has been let go of, kept for the next ones.
//!
//! A database under writes fills one memtable after the other. Fresh memory costs a page fault and the zeroing of each
//! page, a fifth of all the time of a writer; memory that has been used once costs nothing (`docs/notes/0002-memtable.md`).
//! A writer that takes its time does not notice, and its memory is not kept.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_vfs::{AnonymousMemory, Clock, HUGE_PAGE_BYTES, Result, SystemClock};

/// What was in use for longer is not kept: who takes that long to fill and flush a memtable does not notice that the next one's
/// pages have to be zeroed.
const KEPT_AFTER_USE_MAX: Duration = Duration::from_secs(1);

/// Keeps blocks of one huge page each. Shared by the memtables of a database.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Mutex<Blocks>,
    bytes_max: u64,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Blocks {
    free: Vec<AnonymousMemory>,
    /// Of all blocks of all memtables, those from the heap included.
    bytes_in_use: u64,
}

/// A block in use.
#[derive(Debug)]
pub(super) struct PooledBlock {
    pub(super) memory: AnonymousMemory,
    taken_at: Duration,
}

/// Keeps nothing.
impl Default for BlockPool {
    fn default() -> BlockPool {
        BlockPool::new(0, Arc::new(SystemClock::new()))
    }
}

impl BlockPool {
    /// A pool that keeps what is given back to it soon, while that and what is in use are within `bytes_max` together: it
    /// does not add to what memtables take where they take that much.
    pub(crate) fn new(bytes_max: u64, clock: Arc<dyn Clock>) -> BlockPool {
        BlockPool {
            blocks: Mutex::default(),
            bytes_max,
            clock,
        }
    }

    /// The time of the database's clock.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Bytes of the blocks that memtables have.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.blocks.lock().bytes_in_use
    }

    /// Counts a block that comes from elsewhere.
    pub(super) fn note_taken(&self, len_bytes: usize) {
        self.blocks.lock().bytes_in_use += len_bytes as u64;
    }

    /// Counts a block that goes back to where it came from.
    pub(super) fn note_given_back(&self, len_bytes: usize) {
        self.blocks.lock().bytes_in_use -= len_bytes as u64;
    }

    /// `len_bytes`, a multiple of a huge page, with whatever content.
    ///
    /// # Errors
    /// As [`AnonymousMemory::new`].
    pub(super) fn take(&self, len_bytes: usize) -> Result<PooledBlock> {
        let kept = (len_bytes == HUGE_PAGE_BYTES)
            .then(|| self.blocks.lock().free.pop())
            .flatten();
        let memory = kept.map_or_else(|| AnonymousMemory::new(len_bytes), Ok)?;
        self.note_taken(len_bytes);
        let taken_at = self.now();
        Ok(PooledBlock { memory, taken_at })
    }

    /// Keeps the memory, or gives it back to the system.
    pub(super) fn give_back(&self, block: PooledBlock) {
        let PooledBlock { memory, taken_at } = block;
        let is_soon = self.now().saturating_sub(taken_at) <= KEPT_AFTER_USE_MAX;
        let len_bytes = memory.len_bytes() as u64;
        let mut blocks = self.blocks.lock();
        blocks.bytes_in_use -= len_bytes;
        let kept_bytes = (blocks.free.len() * HUGE_PAGE_BYTES) as u64;
        if is_soon
            && len_bytes == HUGE_PAGE_BYTES as u64
            && blocks.bytes_in_use + kept_bytes + len_bytes <= self.bytes_max
        {
            blocks.free.push(memory);
            return;
        }
        drop(blocks);
        drop(memory);
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use siltstone_vfs::ManualClock;

    use super::*;

    #[test]
    fn keeps_single_huge_pages_within_its_bound_and_hands_them_out_again() {
        let pool = BlockPool::new(3 * HUGE_PAGE_BYTES as u64 + 1, Arc::new(ManualClock::new()));
        let free = || pool.blocks.lock().free.len();
        let mut taken: Vec<_> = (0..5).map(|_| pool.take(HUGE_PAGE_BYTES).unwrap()).collect();
        let starts: Vec<_> = taken.iter().map(|block| block.memory.start()).collect();
        for (still_in_use, kept) in [(4, 0), (3, 0), (2, 1), (1, 2), (0, 3)] {
            pool.give_back(taken.pop().unwrap());
            assert_eq!((taken.len(), free()), (still_in_use, kept));
        }
        let again = pool.take(HUGE_PAGE_BYTES).unwrap();
        assert!(starts.contains(&again.memory.start()));
        assert_eq!(free(), 2);
        // Others are neither kept nor served from what is, but they count.
        let large = pool.take(2 * HUGE_PAGE_BYTES).unwrap();
        assert_eq!(large.memory.len_bytes(), 2 * HUGE_PAGE_BYTES);
        pool.give_back(again);
        assert_eq!(free(), 2);
        pool.give_back(large);
        assert_eq!(free(), 2);
        pool.note_taken(3);
        assert_eq!(pool.bytes_in_use(), 3);
        pool.note_given_back(3);
        assert_eq!(pool.bytes_in_use(), 0);
    }

    #[test]
    fn keeps_nothing_that_was_in_use_for_long() {
        let clock = ManualClock::new();
        let pool = BlockPool::new(u64::MAX, Arc::new(clock.clone()));
        let free = || pool.blocks.lock().free.len();
        let [first, second] = [(); 2].map(|()| pool.take(HUGE_PAGE_BYTES).unwrap());
        clock.advance(KEPT_AFTER_USE_MAX);
        pool.give_back(first);
        assert_eq!(free(), 1);
        clock.advance(Duration::from_nanos(1));
        pool.give_back(second);
        assert_eq!((free(), pool.bytes_in_use()), (1, 0));
        // What counts is the last use.
        pool.give_back(pool.take(HUGE_PAGE_BYTES).unwrap());
        assert_eq!(free(), 1);
    }

    #[test]
    fn the_default_keeps_nothing() {
        let pool = BlockPool::default();
        pool.give_back(pool.take(HUGE_PAGE_BYTES).unwrap());
        assert!(pool.blocks.lock().free.is_empty());
    }
}
