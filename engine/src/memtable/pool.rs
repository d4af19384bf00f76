//! Memory that memtables have let go of, kept for the next ones.
//!
//! A database under writes fills one memtable after the other. Fresh memory costs a page fault and the zeroing of each
//! page, a fifth of all the time of a writer; memory that has been used once costs nothing (`docs/notes/0002-memtable.md`).

use parking_lot::Mutex;
use siltstone_vfs::{AnonymousMemory, HUGE_PAGE_BYTES, Result};

/// Blocks of one huge page each. Shared by the memtables of a database.
#[derive(Debug, Default)]
pub(crate) struct BlockPool {
    free: Mutex<Vec<AnonymousMemory>>,
    blocks_max: usize,
}

impl BlockPool {
    /// A pool that keeps up to `bytes_max` of what is given back to it. The default keeps nothing.
    pub(crate) fn new(bytes_max: u64) -> BlockPool {
        let blocks = bytes_max / HUGE_PAGE_BYTES as u64;
        BlockPool {
            free: Mutex::default(),
            blocks_max: usize::try_from(blocks).unwrap_or(usize::MAX),
        }
    }

    /// `len_bytes`, a multiple of a huge page, with whatever content.
    ///
    /// # Errors
    /// As [`AnonymousMemory::new`].
    pub(super) fn take(&self, len_bytes: usize) -> Result<AnonymousMemory> {
        let kept = (len_bytes == HUGE_PAGE_BYTES)
            .then(|| self.free.lock().pop())
            .flatten();
        kept.map_or_else(|| AnonymousMemory::new(len_bytes), Ok)
    }

    /// Keeps the memory, or gives it back to the system.
    pub(super) fn give_back(&self, memory: AnonymousMemory) {
        if memory.len_bytes() == HUGE_PAGE_BYTES {
            let mut free = self.free.lock();
            if free.len() < self.blocks_max {
                free.push(memory);
                return;
            }
        }
        drop(memory);
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn keeps_single_huge_pages_up_to_its_bound_and_hands_them_out_again() {
        let pool = BlockPool::new(2 * HUGE_PAGE_BYTES as u64 + 1);
        let taken: Vec<_> = (0..3).map(|_| pool.take(HUGE_PAGE_BYTES).unwrap()).collect();
        let large = pool.take(2 * HUGE_PAGE_BYTES).unwrap();
        let starts: Vec<_> = taken.iter().map(|memory| memory.start()).collect();
        taken
            .into_iter()
            .chain([large])
            .for_each(|memory| pool.give_back(memory));
        assert_eq!(pool.free.lock().len(), 2);
        let again = pool.take(HUGE_PAGE_BYTES).unwrap();
        assert!(starts.contains(&again.start()));
        assert_eq!(
            pool.take(2 * HUGE_PAGE_BYTES).unwrap().len_bytes(),
            2 * HUGE_PAGE_BYTES
        );
        assert_eq!(pool.free.lock().len(), 1);
    }

    #[test]
    fn the_default_keeps_nothing() {
        let pool = BlockPool::default();
        pool.give_back(pool.take(HUGE_PAGE_BYTES).unwrap());
        assert!(pool.free.lock().is_empty());
    }
}
