//! What the fuzz programs share: the bound on memory.
//!
//! libFuzzer's own limit on allocations needs a sanitizer's runtime, which stable Rust does not have. So every program
//! counts what is allocated while it reads one input, and aborts, as on any other bug, past a bound in proportion to
//! the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use siltstone_tests::FuzzTarget;

/// What a small database takes whatever its files say: memtables, caches, buffers, several times over.
const BASE_BYTES: i64 = 192 << 20;

/// A byte of zstd may stand for this many (`sstable/FORMAT.md`), and nothing else stands for more.
const BYTES_PER_INPUT_BYTE: i64 = 1 << 16;

/// A block of a table is never longer, and one at a time is unpacked.
const BLOCK_BYTES_MAX: i64 = (1 << 30) + (1 << 20);

/// What has been allocated and not freed since the last input began, on all threads.
static ALLOCATED: AtomicI64 = AtomicI64::new(0);
static BOUND: AtomicI64 = AtomicI64::new(i64::MAX);

/// The system's allocator behind a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: i64) {
    let allocated = ALLOCATED.fetch_add(change, Ordering::Relaxed) + change;
    if allocated > BOUND.load(Ordering::Relaxed) {
        // What is printed may allocate.
        BOUND.store(i64::MAX, Ordering::Relaxed);
        eprintln!("==ERROR: {allocated} bytes are allocated at once for this input");
        std::process::abort();
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(signed(new_size) - signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

/// Has `input` read within the bound.
pub fn run(target: FuzzTarget, input: &[u8]) {
    ALLOCATED.store(0, Ordering::Relaxed);
    let hostile = signed(input.len()).saturating_mul(BYTES_PER_INPUT_BYTE).min(BLOCK_BYTES_MAX);
    BOUND.store(BASE_BYTES + hostile, Ordering::Relaxed);
    target.run(input);
    BOUND.store(i64::MAX, Ordering::Relaxed);
}
