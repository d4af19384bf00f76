//! An open table file, and the only way out of it: mapped → unmapped → truncated → removed.
#![allow(unsafe_code)] // Mapping a file is unsafe: somebody has to vouch that its bytes do not change.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

#[cfg(target_os = "linux")]
use crate::HUGE_PAGE_BYTES;
use crate::fetcher::{FileId, read_up_to};
use crate::lock::TableClaim;
use crate::page_cache::pages_in_cache;
use crate::{DirLock, Error, Fetcher, ReadFile, Result, Unmapped};

/// The file name extension of tables, the only files that are ever mapped for reading.
pub const TABLE_EXTENSION: &str = "sst";

/// The smallest page of any system.
#[cfg(target_os = "linux")]
const PAGE_BYTES_MIN: usize = 4 << 10;

/// Whether the path names a table. The comparison ignores case: some file systems do.
pub(crate) fn is_table_path(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(TABLE_EXTENSION))
}

/// What the owner of a [`Mapping`] is going to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Point reads: no read-ahead.
    Random,
    /// The system's own read-ahead.
    Normal,
    /// This part will be read soon: fetch it in the background.
    WillNeed {
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its length in bytes; what lies past the end of the table is ignored.
        len: u64,
    },
    /// Fills the page tables for what is in the page cache, so that no later access to it faults. Reads nothing: a table
    /// that is larger than memory stays where it is. Without effect on a kernel without `MADV_POPULATE_READ` (before
    /// Linux 5.14).
    PopulateCached,
}

/// A table file opened read-only, in memory or behind positioned reads ([`MapMode`](crate::MapMode)).
///
/// There is no way to write through a mapping. Dropping it lets go of the memory and leaves the file alone;
/// [`unmap`](Mapping::unmap) is the first step towards the file's removal. Each step takes the one before, so
/// that the wrong order does not compile. A mapping cannot be truncated:
///
/// ```compile_fail,E0599
/// # use siltstone_vfs::{Fs, Mapping};
/// fn retire(fs: &dyn Fs, table: Mapping) {
///     let _ = table.truncate(fs, 1 << 20, &mut || {});
/// }
/// ```
///
/// nor can the file system be made to truncate it:
///
/// ```compile_fail,E0308
/// # use siltstone_vfs::{Fs, Mapping};
/// fn retire(fs: &dyn Fs, table: &Mapping) {
///     let _ = fs.truncate(table, 0);
/// }
/// ```
///
/// nor can it be removed:
///
/// ```compile_fail,E0599
/// # use siltstone_vfs::{Fs, Mapping};
/// fn retire(fs: &dyn Fs, table: Mapping) {
///     let _ = table.remove(fs);
/// }
/// ```
///
/// nor read after it has been unmapped, not even through a slice that was taken before:
///
/// ```compile_fail,E0382
/// # use siltstone_vfs::Mapping;
/// fn read_late(table: Mapping) {
///     let _unmapped = table.unmap();
///     let _ = table.bytes();
/// }
/// ```
///
/// ```compile_fail,E0505
/// # use siltstone_vfs::Mapping;
/// fn keep_a_slice(table: Mapping) {
///     let bytes = table.bytes().unwrap();
///     let _unmapped = table.unmap();
///     assert_eq!(bytes[0], 0);
/// }
/// ```
pub struct Mapping {
    path: PathBuf,
    // Dropped before the claim: while the claim stands, the bytes may still be mapped.
    backing: Backing,
    claim: TableClaim,
}

enum Backing {
    /// The map, and of which file it is.
    Mapped(Mmap, FileId),
    Heap(Arc<[u8]>),
    Shared(Arc<Vec<u8>>),
    Reader {
        file: Arc<dyn ReadFile>,
        len: u64,
    },
}

impl Mapping {
    /// A table whose bytes are on the heap.
    ///
    /// # Errors
    /// `InvalidInput` where `path` is not a table in the lock's directory, or is being retired.
    pub fn from_heap(path: impl Into<PathBuf>, bytes: Arc<[u8]>, lock: &DirLock) -> Result<Self> {
        let path = path.into();
        let claim = lock.claim_open(&path)?;
        Ok(Self {
            path,
            backing: Backing::Heap(bytes),
            claim,
        })
    }

    /// A table that is read with positioned reads; its length is what the file says now.
    ///
    /// # Errors
    /// As [`from_heap`](Self::from_heap), and what asking for the length gives.
    pub fn from_reader(path: impl Into<PathBuf>, file: Arc<dyn ReadFile>, lock: &DirLock) -> Result<Self> {
        let path = path.into();
        let claim = lock.claim_open(&path)?;
        let len = file.len()?;
        Ok(Self {
            path,
            backing: Backing::Reader { file, len },
            claim,
        })
    }

    /// A table whose bytes are shared with a file in memory, which copies them before it changes them.
    pub(crate) fn from_shared(path: &Path, bytes: Arc<Vec<u8>>, lock: &DirLock) -> Result<Self> {
        let claim = lock.claim_open(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            backing: Backing::Shared(bytes),
            claim,
        })
    }

    /// A table of the operating system's, mapped. The file can be closed afterwards.
    pub(crate) fn map_file(path: &Path, lock: &DirLock) -> Result<Self> {
        if !lock.is_from_os() {
            return Err(Error::invalid("a mapping needs a lock of the same file system").with_path(path));
        }
        let claim = lock.claim_open(path)?;
        let file = File::open(path).map_err(|source| Error::io("open table", path, source))?;
        let metadata = file
            .metadata()
            .map_err(|source| Error::io("read the length of table", path, source))?;
        let len = metadata.len();
        let backing = if len == 0 {
            Backing::Heap(Arc::from([]))
        } else {
            let len = usize::try_from(len).map_err(|_| {
                Error::new(
                    crate::ErrorKind::Unsupported,
                    "the table exceeds the address space",
                )
                .with_path(path)
            })?;
            // SAFETY: the slice handed out by `bytes` must not change while it lives. A file with a table's
            // name is written by appending only, before it is opened here; `Fs` creates no log and renames no
            // file under such a name; and it is truncated through `Unmapped` only, of which `claim` rules out
            // that one exists while this mapping does, in this process and, by the operating system's lock,
            // in any other that uses this crate. What is left are programs that ignore the lock; `bytes`
            // names that condition.
            let mapped = unsafe { MmapOptions::new().len(len).map(&file) };
            let mapped = mapped.map_err(|source| Error::io("map table", path, source))?;
            Backing::Mapped(mapped, FileId::of(&metadata))
        };
        Ok(Self {
            path: path.to_path_buf(),
            backing,
            claim,
        })
    }

    /// The path it was opened under.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table's length in bytes when it was opened.
    pub fn len(&self) -> u64 {
        match &self.backing {
            Backing::Reader { len, .. } => *len,
            // No allocation and no mapping is longer than `isize::MAX` bytes.
            memory => memory.bytes().map_or(0, |bytes| bytes.len() as u64),
        }
    }

    /// Whether the table has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole table, in place; `None` where it was opened with [`MapMode::Read`](crate::MapMode::Read).
    ///
    /// On [`OsFs`](crate::OsFs) this is the page cache itself, and rests on three things: tables are
    /// immutable once they are synced, the directory's lock is held for as long as the mapping lives, and
    /// within the lock the owner of an [`Unmapped`] is the only one who truncates. A program that ignores the
    /// lock and rewrites or cuts a table file breaks this: the slice changes under its reader, or the process
    /// gets a SIGBUS.
    #[inline]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.backing {
            Backing::Mapped(map, _) => Some(map),
            other => other.bytes(),
        }
    }

    /// Exactly `len` bytes from `offset` on: borrowed from memory, or fetched.
    ///
    /// # Errors
    /// `Corruption` with path and offset where the range does not lie within the table.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        // usize has at most 64 bits on every platform that Rust supports.
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.len());
        let Some(end) = end else {
            return Err(self.past_the_end(offset, len, self.len()));
        };
        if let Some(bytes) = self.bytes() {
            let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
            return range
                .and_then(|(start, end)| bytes.get(start..end))
                .map(Cow::Borrowed)
                .ok_or_else(|| self.past_the_end(offset, len, self.len()));
        }
        let Backing::Reader { file, .. } = &self.backing else {
            return Ok(Cow::Borrowed(&[]));
        };
        let mut buffer = vec![0; len];
        let count = file.read_at(offset, &mut buffer)?;
        if count < len {
            return Err(self.past_the_end(offset, len, offset.saturating_add(count as u64)));
        }
        Ok(Cow::Owned(buffer))
    }

    fn past_the_end(&self, offset: u64, len: usize, end: u64) -> Error {
        Error::corruption(
            &self.path,
            offset,
            format!("expected {len} bytes here, but the table ends at {end}"),
        )
    }

    /// Tells the operating system what is coming. Does nothing for a table that is not mapped by it.
    ///
    /// # Errors
    /// `Io` where the system refuses.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        let Backing::Mapped(map, _) = &self.backing else {
            return Ok(());
        };
        let answer = match advice {
            Advice::Random => map.advise(memmap2::Advice::Random),
            Advice::Normal => map.advise(memmap2::Advice::Normal),
            Advice::WillNeed { offset, len } => will_need(map, offset, len),
            Advice::PopulateCached => populate_cached(map),
        };
        answer.map_err(|source| Error::io("advise the system about table", &self.path, source))
    }

    /// Has a part that will be read soon fetched in the background, unless it ends in the page cache: then it has most
    /// likely been asked for before. Does nothing for a table that is not mapped, or where the system refuses.
    pub fn read_ahead(&self, part: Range<u64>) {
        if self.is_cold(part.clone()) {
            let (offset, len) = (part.start, part.end - part.start);
            // Advice makes it faster, never right or wrong.
            let _ = self.advise(Advice::WillNeed { offset, len });
        }
    }

    /// Whether `part` has to come from the disk, as far as one page tells: its last one is not in the page cache. Never where
    /// the table is not mapped.
    pub fn is_cold(&self, part: Range<u64>) -> bool {
        let Backing::Mapped(map, _) = &self.backing else {
            return false;
        };
        let within = clamp(map, &part);
        !within.is_empty() && !ends_in_cache(map, within.end)
    }

    /// Reads from `offset` on, as much as `piece` has room for, and at least `needed` bytes if the file has them: for a long walk
    /// forwards over what [is cold](Self::is_cold), one piece after the other through one [`Fetcher`]. The system reads ahead of
    /// these by itself, in large pages. Returns how many bytes there are; `None` where the table is not mapped, or cannot be
    /// opened a second time: then the mapping has to do.
    ///
    /// # Errors
    /// `Io` where not even `needed` bytes can be read.
    pub fn fetch(
        &self,
        offset: u64,
        needed: usize,
        fetcher: &mut Fetcher,
        piece: &mut [u8],
    ) -> Result<Option<usize>> {
        let Backing::Mapped(_, id) = &self.backing else {
            return Ok(None);
        };
        match fetcher.open(&self.path, *id) {
            Some(file) => read_up_to(file, &self.path, offset, piece, needed).map(Some),
            None => Ok(None),
        }
    }

    /// Takes the table out of memory: the first step of its removal.
    pub fn unmap(self) -> Unmapped {
        let Self { path, backing, claim } = self;
        drop(backing);
        Unmapped::new(path, claim.retire())
    }
}

impl Backing {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Mapped(map, _) => Some(map),
            Self::Heap(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
            Self::Reader { .. } => None,
        }
    }
}

fn will_need(map: &Mmap, offset: u64, len: u64) -> std::io::Result<()> {
    let part = clamp(map, &(offset..offset.saturating_add(len)));
    if part.is_empty() {
        return Ok(());
    }
    map.advise_range(memmap2::Advice::WillNeed, part.start, part.len())
}

/// What of `part` is in the mapping.
fn clamp(map: &Mmap, part: &Range<u64>) -> Range<usize> {
    let within = |at: u64| usize::try_from(at).map_or(map.len(), |at| at.min(map.len()));
    within(part.start)..within(part.end)
}

/// Populates those huge pages of which everything is cached. What is dropped in between is read: little, and rarely.
#[cfg(target_os = "linux")]
fn populate_cached(map: &Mmap) -> std::io::Result<()> {
    for start in (0..map.len()).step_by(HUGE_PAGE_BYTES) {
        let len = HUGE_PAGE_BYTES.min(map.len() - start);
        if is_cached(map, start, len)? {
            match map.advise_range(memmap2::Advice::PopulateRead, start, len) {
                Err(refused) if refused.kind() == std::io::ErrorKind::InvalidInput => return Ok(()),
                answer => answer?,
            }
        }
    }
    Ok(())
}

/// Whether all pages of up to a huge page are in the page cache.
#[cfg(target_os = "linux")]
fn is_cached(map: &Mmap, start: usize, len: usize) -> std::io::Result<bool> {
    let mut pages = [0_u8; HUGE_PAGE_BYTES / PAGE_BYTES_MIN];
    pages_in_cache(map, start..start + len, &mut pages)?;
    let count = len.div_ceil(rustix::param::page_size());
    Ok(pages[..count].iter().all(|page| page & 1 == 1))
}

/// Whether the page of the byte before `end`, which is not 0, is in the page cache.
pub(crate) fn ends_in_cache(map: &Mmap, end: usize) -> bool {
    let page_bytes = rustix::param::page_size();
    let start = (end - 1) / page_bytes * page_bytes;
    let mut page = [0];
    pages_in_cache(map, start..end, &mut page).is_ok() && page[0] & 1 == 1
}

#[cfg(not(target_os = "linux"))]
fn populate_cached(_: &Mmap) -> std::io::Result<()> {
    Ok(())
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.backing {
            Backing::Mapped(..) => "mapped",
            Backing::Heap(_) | Backing::Shared(_) => "heap",
            Backing::Reader { .. } => "read",
        };
        f.debug_struct("Mapping")
            .field("path", &self.path)
            .field("len", &self.len())
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_part_that_is_not_cached_is_fetched() {
        use crate::{Fs, MapMode, OsFs};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000077.sst");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        let lock = OsFs.lock_dir(dir.path()).unwrap();
        let mapping = OsFs.open_table(&path, &lock, MapMode::Map).unwrap();
        mapping.advise(Advice::Random).unwrap();
        let mut fetcher = Fetcher::default();
        let mut piece = vec![0; 128 << 10];
        assert!(!mapping.is_cold(0..8 << 20), "it is in the cache");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if !mapping.is_cold(0..1 << 20) {
            return; // A file system in memory has nowhere else to keep it.
        }
        let offset = (1 << 20) + 5000;
        assert_eq!(
            mapping.fetch(offset, 1, &mut fetcher, &mut piece).unwrap(),
            Some(128 << 10)
        );
        assert!(piece.iter().all(|byte| *byte == 7));
        assert!(!mapping.is_cold(offset..offset + (128 << 10)));
        assert!(mapping.is_cold(0..1 << 20), "nothing before it");
        assert!(!mapping.is_cold(0..0) && !mapping.is_cold(9 << 20..10 << 20));
        // Past the end there is nothing.
        let end = 8 << 20;
        assert_eq!(mapping.fetch(end, 1, &mut fetcher, &mut piece).unwrap(), Some(0));
        assert_eq!(
            mapping.fetch(end - 4096, 1, &mut fetcher, &mut piece).unwrap(),
            Some(4096)
        );
        assert!(!mapping.is_cold(end - 4096..u64::MAX));
        // What cannot be read is told.
        let unreadable = File::options().write(true).open(&path).unwrap();
        let error = mapping
            .fetch(4096, 1, &mut Fetcher::of(unreadable), &mut piece)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (crate::ErrorKind::Io, Some(4096)),
            "{error}"
        );
        // Without a name there is no other way in, and the mapping stays as good as it was.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            mapping.fetch(0, 1, &mut fetcher, &mut piece).unwrap(),
            Some(128 << 10)
        );
        let mut late = Fetcher::default();
        assert_eq!(mapping.fetch(0, 1, &mut late, &mut piece).unwrap(), None);
        // Nor is there by the name of another file.
        std::fs::write(&path, vec![8; 8 << 20]).unwrap();
        assert_eq!(mapping.fetch(0, 1, &mut late, &mut piece).unwrap(), None);
        assert!(mapping.bytes().unwrap().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_is_not_mapped_is_never_cold() {
        use crate::{Fs, MemFs};
        let fs = MemFs::new();
        fs.create_dir_all(Path::new("d")).unwrap();
        let lock = fs.lock_dir(Path::new("d")).unwrap();
        let mapping = Mapping::from_heap("d/1.sst", Arc::from(vec![0; 4096]), &lock).unwrap();
        assert!(!mapping.is_cold(0..4096));
        let piece = &mut [0; 16];
        assert_eq!(mapping.fetch(0, 1, &mut Fetcher::default(), piece).unwrap(), None);
    }

    #[test]
    fn populating_reads_nothing_that_is_not_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 2 * HUGE_PAGE_BYTES + 5000]).unwrap();
        file.sync_all().unwrap();
        let drop_from = HUGE_PAGE_BYTES as u64;
        rustix::fs::fadvise(&file, drop_from, None, rustix::fs::Advice::DontNeed).unwrap();
        // SAFETY: nobody else knows the file.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        let cached = |chunk: usize| {
            let start = chunk * HUGE_PAGE_BYTES;
            is_cached(&map, start, HUGE_PAGE_BYTES.min(map.len() - start)).unwrap()
        };
        if cached(1) {
            return; // A file system in memory has nowhere else to keep it.
        }
        map.advise(memmap2::Advice::Random).unwrap();
        populate_cached(&map).unwrap();
        assert_eq!([cached(0), cached(1), cached(2)], [true, false, false]);
        assert!(map.iter().all(|byte| *byte == 7));
        assert_eq!([cached(0), cached(1), cached(2)], [true; 3]);
    }
}
