#![allow(unsafe_code)] // Offsets into an anonymous mapping.
//! Large pieces of memory straight from the operating system.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use memmap2::{MmapMut, MmapRaw};

use crate::{Error, ErrorKind, Result};

/// The size and alignment of a huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory of its own mapping, aligned to [`HUGE_PAGE_BYTES`] and backed by huge pages where the system allows it
/// on request. Unlike memory from the global allocator it goes back to the system the moment it is dropped.
#[derive(Debug)]
pub struct AnonymousMemory {
    map: MmapRaw,
    offset: usize,
    len_bytes: usize,
}

impl AnonymousMemory {
    /// Maps `len_bytes`. Pages are taken when they are first touched; what is not a whole huge page never is one.
    ///
    /// # Errors
    /// `Io` where the system has no room.
    pub fn new(len_bytes: usize) -> Result<AnonymousMemory> {
        let refused = |error| {
            Error::new(
                ErrorKind::Io,
                format!("could not map {len_bytes} bytes of memory"),
            )
            .with_source(error)
        };
        // What is cut off to align the rest is never touched and takes no memory.
        let map = MmapMut::map_anon(len_bytes.saturating_add(HUGE_PAGE_BYTES)).map_err(refused)?;
        let map = MmapRaw::from(map);
        let offset = map.as_mut_ptr().align_offset(HUGE_PAGE_BYTES);
        // A system without huge pages is only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, offset, len_bytes);
        Ok(AnonymousMemory {
            map,
            offset,
            len_bytes,
        })
    }

    /// Its first byte. Valid for [`len_bytes`](AnonymousMemory::len_bytes) bytes until `self` is dropped.
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: the mapping is a huge page longer than `len_bytes`, and aligning skips less than one: the result is
        // within the mapping, whose address is not null.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(self.offset)) }
    }

    /// All of it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len_bytes` from `start` on are in the mapping, which is zeroed when it is made: initialised whatever has
        // been written since. Nobody else uses them while `self` is borrowed exclusively: who writes through `start`
        // answers for that.
        unsafe { NonNull::slice_from_raw_parts(self.start(), self.len_bytes).as_mut() }
    }

    /// All of it, for threads that share it; what is left of the length after whole words is left out.
    ///
    /// Whoever writes through [`start`](AnonymousMemory::start) meanwhile answers for it.
    #[inline]
    pub fn as_atomics(&self) -> &[AtomicU32] {
        let words = self.len_bytes / size_of::<AtomicU32>();
        // SAFETY: as for `as_mut_slice`, the bytes are in the mapping, initialised, and aligned to a huge page. An atomic may have
        // any bytes, and its sharers write by atomic operations only, while `self` is not borrowed exclusively.
        unsafe { NonNull::slice_from_raw_parts(self.start().cast(), words).as_ref() }
    }

    /// Its length.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zero_and_writable_to_its_end() {
        let memory = AnonymousMemory::new(2 * HUGE_PAGE_BYTES).unwrap();
        assert!(memory.start().as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
        for at in [0, HUGE_PAGE_BYTES, memory.len_bytes() - 1] {
            // SAFETY: within the memory, which nobody else knows.
            unsafe {
                assert_eq!(memory.start().add(at).read(), 0);
                memory.start().add(at).write(7);
                assert_eq!(memory.start().add(at).read(), 7);
            }
        }
    }

    #[test]
    fn words_are_shared_and_cover_what_is_no_huge_page() {
        use std::sync::atomic::Ordering::Relaxed;
        for len_bytes in [0, 4, 4099, HUGE_PAGE_BYTES + 4096] {
            let mut memory = AnonymousMemory::new(len_bytes).unwrap();
            assert_eq!(memory.as_atomics().len(), len_bytes / 4);
            for word in memory.as_atomics() {
                assert_eq!(word.fetch_add(1, Relaxed), 0);
            }
            let ones = memory.as_mut_slice().iter().filter(|byte| **byte == 1).count();
            assert_eq!(ones, len_bytes / 4);
        }
    }
}
