//! What of a file is in the page cache.
#![allow(unsafe_code)] // Asking takes an address; the mapping that a file is given for it is never read.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Mmap, MmapOptions};

/// Which pages of a part of a file are in the page cache, from the one that holds the part's first byte on; what is past the
/// end of the file has none. Reads nothing, and brings nothing there. The answer may be out of date when it comes.
///
/// # Errors
/// Those of the system that refuses to map the file or to tell; where that is not Linux, `Unsupported`.
pub fn cached_pages(file: &File, part: Range<u64>) -> io::Result<Vec<bool>> {
    let page_bytes = rustix::param::page_size();
    let start = part.start / page_bytes as u64 * page_bytes as u64;
    let end = part.end.min(file.metadata()?.len());
    if start >= end {
        return Ok(Vec::new());
    }
    let len = usize::try_from(end - start).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: no byte of the mapping is read, so it does not matter what becomes of the file meanwhile.
    let map = unsafe { MmapOptions::new().offset(start).len(len).map(file)? };
    let mut pages = vec![0; len.div_ceil(page_bytes)];
    pages_in_cache(&map, 0..len, &mut pages)?;
    Ok(pages.iter().map(|page| page & 1 == 1).collect())
}

/// Sets the lowest bit in the byte of each page of `part`, which begins at a page, that is in the page cache.
///
/// # Panics
/// If `part` does not begin at a page, is not in the mapping, or has more pages than `pages` has bytes.
#[cfg(target_os = "linux")]
pub(crate) fn pages_in_cache(map: &Mmap, part: Range<usize>, pages: &mut [u8]) -> io::Result<()> {
    let page_bytes = rustix::param::page_size();
    assert!(part.start.is_multiple_of(page_bytes) && part.start <= part.end && part.end <= map.len());
    assert!(part.len().div_ceil(page_bytes) <= pages.len());
    // SAFETY: the range is in a live mapping and begins at a page, as the mapping does; there is a byte for each answer.
    let answer = unsafe {
        let address = map.as_ptr().add(part.start).cast_mut().cast();
        libc::mincore(address, part.len(), pages.as_mut_ptr())
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pages_in_cache(_: &Mmap, _: Range<usize>, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn tells_for_each_page_of_a_part() {
        let page_bytes = rustix::param::page_size();
        let page = page_bytes as u64;
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![7; 10 * page_bytes + 1]).unwrap();
        let of = |part| cached_pages(&file, part).unwrap();
        assert_eq!(of(0..u64::MAX), [true; 11]);
        assert_eq!(of(page + 1..2 * page + 1), [true; 2]);
        assert_eq!(of(10 * page..10 * page + 1), [true]);
        assert_eq!((of(11 * page..u64::MAX), of(0..0)), (vec![], vec![]));
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        // As long as it is asked nothing comes; unless the file system is itself memory.
        let first = of(0..page);
        assert_eq!(of(0..11 * page), [first[0]; 11]);
    }
}
