//! Memory for entries and the counts of them, kept apart for threads that insert at the same time.
//!
//! Each shard hands out a chunk of the arena from front to back under a lock of its own. A thread keeps to the shard
//! that it used last, and goes to another one as soon as it finds that taken: threads part ways after a few
//! collisions, and from then on nothing that an insert writes here is in another core's cache.
#![allow(unsafe_code)] // Pointers into chunks, moved on by hand.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::arena::Arena;

/// The alignment of entries.
pub(super) const ENTRY_ALIGN_BYTES: usize = 8;

/// More threads than this share shards.
const SHARDS: usize = 8;

/// A chunk is this part of the arena so far: what the last chunk of every shard leaves unused stays small beside it.
const CHUNK_FRACTION: u64 = 32;

/// The smallest chunk.
const CHUNK_BYTES_MIN: usize = 1 << 10;

/// The largest chunk is this part of a block.
const CHUNKS_PER_BLOCK: usize = 32;

/// An allocation of more than this part of a chunk is made in the arena itself, which bounds what is lost at the end
/// of a chunk that the next one does not fit into.
const OWN_CHUNK_FRACTION: usize = 4;

thread_local! {
    /// The shard that this thread used last, in whatever memtable.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// The arena of the entries, its chunks, and counts.
pub(super) struct Shards {
    arena: Arc<Arena>,
    chunk_bytes_max: usize,
    shards: [Shard; SHARDS],
}

/// On cache lines (a pair: they are prefetched in pairs) of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    chunk: Mutex<Chunk>,
    entries: AtomicU64,
    tombstones: AtomicU64,
}

/// The rest of a chunk.
///
/// Invariant: `left` bytes from `next` on are part of one allocation of the arena, and nobody else's. 0 at first.
struct Chunk {
    next: NonNull<u8>,
    left: usize,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            next: NonNull::dangling(),
            left: 0,
        }
    }
}

// SAFETY: the bytes are the chunk's alone, wherever it goes.
unsafe impl Send for Chunk {}

impl Shards {
    /// Without any chunk yet. `block_bytes_max` is the arena's.
    pub(super) fn new(block_bytes_max: usize, arena: Arc<Arena>) -> Self {
        Self {
            arena,
            chunk_bytes_max: (block_bytes_max / CHUNKS_PER_BLOCK).max(CHUNK_BYTES_MIN),
            shards: Default::default(),
        }
    }

    /// Memory for `size` bytes, uninitialised, aligned to [`ENTRY_ALIGN_BYTES`]; nobody else's for as long as `self`.
    ///
    /// # Panics
    /// As [`Arena::allocate`].
    pub(super) fn allocate(&self, size: usize) -> NonNull<u8> {
        // Where this overflows, `Arena::allocate` refuses.
        let size = size.checked_next_multiple_of(ENTRY_ALIGN_BYTES).unwrap_or(size);
        let mut chunk = self.free_shard();
        if chunk.left < size {
            let chunk_bytes = usize::try_from(self.arena.bytes_used() / CHUNK_FRACTION)
                .unwrap_or(usize::MAX)
                .clamp(CHUNK_BYTES_MIN, self.chunk_bytes_max)
                .next_multiple_of(ENTRY_ALIGN_BYTES);
            if size > chunk_bytes / OWN_CHUNK_FRACTION {
                drop(chunk);
                return self.arena.allocate(size);
            }
            *chunk = Chunk {
                next: self.arena.allocate(chunk_bytes),
                left: chunk_bytes,
            };
        }
        let memory = chunk.next;
        chunk.left -= size;
        // SAFETY: `size` bytes are left by the invariant, as there were at least as many.
        chunk.next = unsafe { memory.add(size) };
        memory
    }

    /// A shard that no other thread is using at the moment, this thread's last one if possible.
    fn free_shard(&self) -> MutexGuard<'_, Chunk> {
        let last = SHARD.get();
        for shard in (last..SHARDS).chain(0..last) {
            if let Some(chunk) = self.shards[shard].chunk.try_lock() {
                if shard != last {
                    SHARD.set(shard);
                }
                return chunk;
            }
        }
        self.shards[last].chunk.lock()
    }

    /// Counts an entry.
    pub(super) fn count(&self, is_tombstone: bool) {
        let shard = &self.shards[SHARD.get()];
        shard.entries.fetch_add(1, Ordering::Relaxed);
        if is_tombstone {
            shard.tombstones.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many entries were counted.
    pub(super) fn entries(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.entries.load(Ordering::Relaxed))
            .sum()
    }

    /// How many of them were tombstones.
    pub(super) fn tombstones(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.tombstones.load(Ordering::Relaxed))
            .sum()
    }
}
