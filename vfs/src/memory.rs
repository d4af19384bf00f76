#![allow(unsafe_code)] // Offsets into an anonymous mapping.
//! Large pieces of memory straight from the operating system.

use std::ptr::NonNull;

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
    /// Maps `len_bytes`, a multiple of [`HUGE_PAGE_BYTES`]. Pages are taken when they are first touched.
    ///
    /// # Errors
    /// `InvalidInput` for another length; `Io` where the system has no room.
    pub fn new(len_bytes: usize) -> Result<AnonymousMemory> {
        if len_bytes == 0 || !len_bytes.is_multiple_of(HUGE_PAGE_BYTES) {
            return Err(Error::invalid(format!(
                "{len_bytes} bytes are no multiple of a huge page"
            )));
        }
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
        assert!(AnonymousMemory::new(4096).is_err());
    }
}
