//! Where a memtable's entries and nodes live: blocks of memory that are handed out from front to back and freed all together.
//!
//! Any number of threads allocate at once. An allocation is one `fetch_add` in the current block; a mutex is taken
//! only to add a block. The first block is made by the first allocation and is small, each next one is sixteen times
//! as large, up to the arena's block size: an idle memtable costs next to nothing, a busy one asks for memory rarely.
#![allow(unsafe_code)] // Raw memory, shared between threads without a lock.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use siltstone_vfs::HUGE_PAGE_BYTES;

use super::pool::{BlockPool, PooledBlock};

/// The size of the first block.
const FIRST_BLOCK_BYTES: usize = 16 << 10;

/// How much larger each block is than the one before, until they have their full size. The smaller ones come from the
/// heap and go back to it with each memtable: few, so that they do not add up.
const GROWTH: usize = 16;

/// An allocation of more than this part of the largest block gets a block of its own, which bounds what is lost at
/// the end of a block that the next allocation does not fit into.
const OWN_BLOCK_FRACTION: usize = 4;

/// What stands at the start of every block; the bytes handed out follow. Fills a cache line, so that the counter
/// that every insert writes does not share one with a node.
#[repr(C, align(64))]
struct Block {
    /// Bytes handed out, this header included. Goes past `size` when an allocation does not fit.
    used: AtomicUsize,
    /// Bytes in all, this header included.
    size: usize,
    /// The sizes of the ordinary blocks before this one.
    bytes_before: u64,
}

const HEADER_BYTES: usize = size_of::<Block>();
const _: () = assert!(HEADER_BYTES < FIRST_BLOCK_BYTES);

/// The alignment of every allocation, whose size is rounded up to a multiple of it: a cache line, for nodes.
pub(super) const ARENA_ALIGN_BYTES: usize = 64;
/// Blocks are aligned like their headers, and every piece of one starts at a multiple of the alignment in it.
const _: () = assert!(
    HEADER_BYTES.is_multiple_of(ARENA_ALIGN_BYTES) && align_of::<Block>().is_multiple_of(ARENA_ALIGN_BYTES)
);

/// Concurrent bump allocator. Everything it handed out stays valid, and in place, until the arena is dropped.
pub(super) struct Arena {
    /// The block that allocations come from; null until the first one.
    ///
    /// The pointers in here come straight from the allocator: they are valid for their whole block, and a pointer
    /// made from one by an offset may reach all of it.
    current: AtomicPtr<Block>,
    /// Bytes in blocks that hold a single large allocation.
    own_block_bytes: AtomicU64,
    /// The size of the largest ordinary block.
    block_bytes_max: usize,
    /// Every block, to free it. Locked to add one.
    blocks: Mutex<Vec<Owned>>,
    /// Where blocks of whole huge pages come from and go to.
    pool: Arc<BlockPool>,
}

/// A block's memory and the way it is freed.
enum Owned {
    /// From the global allocator.
    Heap(NonNull<Block>, Layout),
    /// Whole huge pages, mapped for this block alone: a global allocator keeps freed blocks of this size, and nobody
    /// could say how many.
    Mapped(PooledBlock),
}

// SAFETY: the arena owns its blocks; the raw pointers are what keep it from being Send by itself. Block headers are
// atomics or never written after the block is published, and the bytes handed out are reached only through the
// pointers that `allocate` returned.
unsafe impl Send for Arena {}
// SAFETY: as above; all shared state is atomic or behind the mutex.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena without any memory yet, whose blocks grow up to `block_bytes_max` (at least 4 KiB, at most 1 GiB).
    /// Those of a huge page come from `pool` and go back to it.
    pub(super) fn new(block_bytes_max: usize, pool: Arc<BlockPool>) -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            own_block_bytes: AtomicU64::new(0),
            block_bytes_max: block_bytes_max.clamp(4 << 10, 1 << 30).next_multiple_of(4 << 10),
            blocks: Mutex::new(Vec::new()),
            pool,
        }
    }

    /// Memory for `size` bytes, uninitialised, aligned to [`ARENA_ALIGN_BYTES`]; nobody else's until the arena is dropped.
    ///
    /// # Panics
    /// If `size` is beyond all reason. Lack of memory ends the process, as it does for `Vec`.
    pub(super) fn allocate(&self, size: usize) -> NonNull<u8> {
        assert!(
            size <= usize::MAX / 4,
            "an entry of {size} bytes: the caller checks sizes"
        );
        let size = size.next_multiple_of(ARENA_ALIGN_BYTES);
        if size > self.block_bytes_max / OWN_BLOCK_FRACTION {
            return self.allocate_own_block(size);
        }
        loop {
            let block = self.current.load(Ordering::Acquire);
            if let Some(memory) = Self::allocate_in(block, size) {
                return memory;
            }
            self.add_block(block, size);
        }
    }

    /// Bytes of memory taken: what was handed out, and what was lost at the ends of full blocks. Never decreases.
    pub(super) fn bytes_used(&self) -> u64 {
        let block = self.current.load(Ordering::Acquire);
        let ordinary = if block.is_null() {
            0
        } else {
            // SAFETY: a block that was published as `current` is initialised and lives as long as `self`.
            let block = unsafe { &*block };
            block.bytes_before + block.used.load(Ordering::Relaxed).min(block.size) as u64
        };
        ordinary + self.own_block_bytes.load(Ordering::Relaxed)
    }

    /// Takes `size` bytes out of `block`, if it is not null and has them.
    fn allocate_in(block: *mut Block, size: usize) -> Option<NonNull<u8>> {
        let block = NonNull::new(block)?;
        // SAFETY: `block` was published as `current`, so its header is initialised and lives as long as the arena;
        // the reference covers the header only, and the header is never written but through the atomic.
        let header = unsafe { block.as_ref() };
        // Each failed attempt adds at most a quarter of a block, and is followed by a new current block: the
        // counter cannot come anywhere near overflow.
        let start = header.used.fetch_add(size, Ordering::Relaxed);
        if start + size > header.size {
            return None;
        }
        // SAFETY: `start + size` is within the block, and the pointer has come from the allocator through `current`
        // and not from the reference above, so it may reach the whole block. Nobody else gets these bytes: `used`
        // only grows.
        Some(unsafe { block.cast::<u8>().add(start) })
    }

    /// Replaces the current block, if it still is `full`, by one that has room for `size`.
    #[cold]
    fn add_block(&self, full: *mut Block, size: usize) {
        let mut blocks = self.blocks.lock();
        if self.current.load(Ordering::Relaxed) != full {
            return; // Somebody else added one.
        }
        let (size_before, bytes_before) = match NonNull::new(full) {
            None => (0, 0),
            Some(full) => {
                // SAFETY: published as `current`, so initialised and alive as long as `self`.
                let full = unsafe { full.as_ref() };
                (full.size, full.bytes_before + full.size as u64)
            }
        };
        let block_size = (size_before * GROWTH)
            .max(FIRST_BLOCK_BYTES)
            .max((size * OWN_BLOCK_FRACTION + HEADER_BYTES).next_power_of_two())
            .min(self.block_bytes_max);
        let block = self.new_block(&mut blocks, block_size, bytes_before);
        self.current.store(block.as_ptr(), Ordering::Release);
    }

    /// A block for one allocation of `size` bytes.
    #[cold]
    fn allocate_own_block(&self, size: usize) -> NonNull<u8> {
        let block_size = size + HEADER_BYTES;
        let block = self.new_block(&mut self.blocks.lock(), block_size, 0);
        self.own_block_bytes
            .fetch_add(block_size as u64, Ordering::Relaxed);
        // SAFETY: the block has `size` bytes behind its header, and as it never becomes `current`, nobody else gets
        // them. The pointer has come from the allocator and may reach the whole block.
        unsafe { block.cast::<u8>().add(HEADER_BYTES) }
    }

    /// Allocates and registers a block of `size` bytes, header included.
    fn new_block(&self, blocks: &mut Vec<Owned>, size: usize, bytes_before: u64) -> NonNull<Block> {
        // Before the memory exists, so that a panic here (a Vec too long) leaks nothing.
        blocks.reserve(1);
        // miri has no mappings.
        let mapped = (size.is_multiple_of(HUGE_PAGE_BYTES) && !cfg!(miri))
            .then(|| self.pool.take(size).ok())
            .flatten();
        let (block, owned) = match mapped {
            Some(pooled) => (pooled.memory.start().cast::<Block>(), Owned::Mapped(pooled)),
            None => {
                let layout = Layout::from_size_align(size, align_of::<Block>())
                    .expect("sizes are checked by allocate");
                // SAFETY: the size is not zero, it includes the header.
                let Some(block) = NonNull::new(unsafe { alloc(layout) }.cast::<Block>()) else {
                    handle_alloc_error(layout)
                };
                self.pool.note_taken(size);
                (block, Owned::Heap(block, layout))
            }
        };
        // SAFETY: just allocated with at least the header's size and alignment, and not shared yet.
        unsafe {
            block.write(Block {
                used: AtomicUsize::new(HEADER_BYTES),
                size,
                bytes_before,
            })
        };
        blocks.push(owned);
        #[cfg(test)]
        tests::LIVE_BYTES.set(tests::LIVE_BYTES.get().wrapping_add(size));
        block
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for owned in self.blocks.get_mut().drain(..) {
            #[cfg(test)]
            tests::LIVE_BYTES.set(tests::LIVE_BYTES.get().wrapping_sub(owned.len_bytes()));
            match owned {
                Owned::Heap(block, layout) => {
                    // SAFETY: allocated by `new_block` with this layout and freed only here; `&mut self` shows that
                    // nobody uses the arena, and what it handed out is valid only as long as it.
                    unsafe { dealloc(block.cast::<u8>().as_ptr(), layout) };
                    self.pool.note_given_back(layout.size());
                }
                Owned::Mapped(pooled) => self.pool.give_back(pooled),
            }
        }
    }
}

#[cfg(test)]
impl Owned {
    fn len_bytes(&self) -> usize {
        match self {
            Owned::Heap(_, layout) => layout.size(),
            Owned::Mapped(pooled) => pooled.memory.len_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Sizes of the blocks that this thread has allocated, less those that it has freed, whoever allocated them:
        /// wraps around in other tests than the one below.
        pub(super) static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn drop_frees_every_block() {
        let before = LIVE_BYTES.get();
        let arena = Arena::new(64 << 10, Arc::default());
        for i in 0..500 {
            arena.allocate(i * 97 % 20_000);
        }
        assert!(LIVE_BYTES.get() - before > 1_000_000);
        drop(arena);
        assert_eq!(LIVE_BYTES.get(), before);
        drop(Arena::new(64 << 10, Arc::default()));
        assert_eq!(LIVE_BYTES.get(), before);
    }

    #[test]
    fn blocks_grow_from_nothing_to_their_largest_size() {
        let arena = Arena::new(64 << 10, Arc::default());
        assert_eq!(arena.bytes_used(), 0);
        arena.allocate(100);
        assert_eq!(arena.bytes_used(), HEADER_BYTES as u64 + 128);
        for _ in 0..4000 {
            arena.allocate(100);
        }
        let sizes: Vec<usize> = arena.blocks.lock().iter().map(Owned::len_bytes).collect();
        assert_eq!(sizes[..2], [16 << 10, 64 << 10]);
        assert!(sizes[2..].iter().all(|&size| size == 64 << 10), "{sizes:?}");
        let all: u64 = sizes.iter().map(|&size| size as u64).sum();
        let used = arena.bytes_used();
        assert!(used <= all && used > all - (64 << 10), "{used} of {all}");
    }

    #[test]
    fn large_allocations_leave_the_current_block_alone() {
        let arena = Arena::new(64 << 10, Arc::default());
        arena.allocate(8);
        let before = arena.bytes_used();
        arena.allocate(100_000);
        assert_eq!(arena.bytes_used(), before + 100_032 + HEADER_BYTES as u64);
        arena.allocate(8);
        assert_eq!(arena.bytes_used(), before + 100_032 + HEADER_BYTES as u64 + 64);
    }

    #[test]
    fn allocations_are_aligned_and_do_not_overlap() {
        let arena = Arena::new(2 << 20, Arc::default());
        let mut ranges = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3_u8)
                .map(|thread| {
                    let arena = &arena;
                    scope.spawn(move || {
                        let mut ranges = Vec::new();
                        for i in 0..if cfg!(miri) { 60 } else { 20_000 } {
                            let size = 1 + i * 7919 % 300;
                            let memory = arena.allocate(size);
                            // SAFETY: `allocate` gave us `size` bytes; if it gave them to another thread as well,
                            // this is the race that miri and the check of the ranges below are to find.
                            unsafe { memory.write_bytes(thread, size) };
                            ranges.push((memory.addr().get(), size));
                        }
                        ranges
                    })
                })
                .collect();
            for thread in threads {
                ranges.extend(thread.join().expect("no panic"));
            }
        });
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        assert!(ranges.iter().all(|(address, _)| address % 64 == 0));
    }

    #[test]
    fn blocks_of_huge_pages_are_aligned_to_them() {
        let arena = Arena::new(2 << 20, Arc::default());
        for _ in 0..if cfg!(miri) { 12 } else { 80 } {
            arena.allocate(400 << 10);
        }
        let blocks = arena.blocks.lock();
        let huge: Vec<usize> = blocks
            .iter()
            .filter_map(|owned| match owned {
                Owned::Mapped(pooled) => Some(pooled.memory.start().addr().get()),
                Owned::Heap(..) => None,
            })
            .collect();
        assert!(cfg!(miri) || huge.len() > 1);
        assert!(huge.iter().all(|start| start % (2 << 20) == 0));
    }
}
