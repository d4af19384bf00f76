//! Log segments of the operating system: preallocated, written through a shared mapping or by positioned
//! writes.
#![allow(unsafe_code)] // Copies into a shared mapping of the segment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crossbeam_utils::CachePadded;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::mapping::is_table_path;
use crate::{Error, ErrorKind, LogIo, LogSync, LogWriter, Result};

/// Pages that are populated by one system call: it holds up whoever maps or unmaps something meanwhile.
const POPULATE_BYTES: usize = 256 << 10;

/// How far ahead of what is written a sync has pages made and written, at most.
const AHEAD_BYTES_MAX: usize = 256 << 10;

/// How many zeros are written at a time where space cannot be reserved.
const ZERO_FILL_BYTES: usize = 1 << 20;

/// See [`Fs::create_log`](crate::Fs::create_log).
pub(crate) fn create(
    path: &Path,
    capacity_bytes: u64,
    io: LogIo,
) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
    check_new_log(path, capacity_bytes)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| Error::io("create log segment", path, source))?;
    let prepared = prepare(&file, path, capacity_bytes, io);
    if prepared.is_err() {
        // The file is ours, new, and of no use to anybody. The first error is the one to report.
        let _ = fs::remove_file(path);
    }
    let map = prepared?;
    let file = Arc::new(file);
    let path = path.to_path_buf();
    Ok(match map {
        Some(map) => {
            let map = Arc::new(SharedMap::new(map));
            let sync = OsLogSync::new(&path, &file, Arc::downgrade(&map));
            (Box::new(MappedLog { path, file, map }), Arc::new(sync))
        }
        None => {
            let sync = OsLogSync::new(&path, &file, Weak::new());
            let writer = PositionedLog {
                path,
                file,
                capacity_bytes,
            };
            (Box::new(writer), Arc::new(sync))
        }
    })
}

/// What no file system accepts for a log.
pub(crate) fn check_new_log(path: &Path, capacity_bytes: u64) -> Result<()> {
    if capacity_bytes == 0 {
        return Err(Error::invalid("a log segment needs a capacity of at least one byte").with_path(path));
    }
    check_log_name(path)
}

/// That no log is called by the name of a table.
pub(crate) fn check_log_name(path: &Path) -> Result<()> {
    if is_table_path(path) {
        return Err(Error::invalid("a log segment cannot have the extension of a table").with_path(path));
    }
    Ok(())
}

/// Checks that `bytes` at `offset` stay within a log's capacity.
pub(crate) fn check_log_write(path: &Path, offset: u64, len: usize, capacity_bytes: u64) -> Result<()> {
    // usize has at most 64 bits on every platform that Rust supports.
    if offset
        .checked_add(len as u64)
        .is_some_and(|end| end <= capacity_bytes)
    {
        return Ok(());
    }
    let message = format!("{len} bytes do not fit into a log segment of {capacity_bytes} bytes");
    Err(Error::invalid(message).with_path(path).with_offset(offset))
}

/// Reserves the space, syncs, and maps the file if that is wanted and safe.
///
/// A store into a shared mapping whose block cannot be allocated is a SIGBUS, not an error. So a segment is
/// mapped only where the file system has reserved the blocks, and for every overwrite of them: not where it copies on
/// write, nor where writing zeros had to do for a reservation.
fn prepare(file: &File, path: &Path, capacity_bytes: u64, io: LogIo) -> Result<Option<MmapRaw>> {
    let reserved = reserve(file, capacity_bytes)
        .map_err(|source| Error::io("reserve the space of log segment", path, source))?;
    file.sync_all()
        .map_err(|source| Error::io("sync log segment", path, source))?;
    if io == LogIo::Write || !reserved || copies_on_write(file) {
        return Ok(None);
    }
    let len = usize::try_from(capacity_bytes).map_err(|_| {
        Error::new(
            ErrorKind::Unsupported,
            "the log segment exceeds the address space",
        )
        .with_path(path)
    })?;
    let map = MmapOptions::new()
        .len(len)
        .map_raw(file)
        .map_err(|source| Error::io("map log segment", path, source))?;
    // A page that is dirty is written as a whole, and pages that come by reading ahead are several times as large.
    // Nobody reads here; it is advice only.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::Random);
    Ok(Some(map))
}

/// Brings the file to its length, all zero. Whether the blocks are reserved as well.
fn reserve(file: &File, capacity_bytes: u64) -> io::Result<bool> {
    loop {
        // The length is part of it (no KEEP_SIZE): a later sync then has no metadata to journal.
        match fallocate(file, FallocateFlags::empty(), 0, capacity_bytes) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let stats = rustix::fs::fstatvfs(file)?;
    if stats.f_bavail.saturating_mul(stats.f_frsize) < capacity_bytes {
        // Known without filling the disk first.
        return Err(io::ErrorKind::StorageFull.into());
    }
    zero_fill(file, capacity_bytes)?;
    Ok(false)
}

fn zero_fill(file: &File, capacity_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_FILL_BYTES];
    let mut offset = 0;
    while offset < capacity_bytes {
        let count =
            usize::try_from(capacity_bytes - offset).map_or(zeros.len(), |rest| rest.min(zeros.len()));
        file.write_all_at(zeros.get(..count).unwrap_or_default(), offset)?;
        offset = offset.saturating_add(count as u64);
    }
    Ok(())
}

/// The mapping of a segment that is written to and synced.
struct SharedMap {
    map: MmapRaw,
    /// The end of what has been written. Stored by the owner with each write, so apart from the rest.
    written: CachePadded<AtomicUsize>,
    /// That, when it was last synced, and the end of the pages that had been made by then. Stored by whoever syncs; by the
    /// owner where the segment begins another life, of which a late sync of its last one may not know. That can cost a few
    /// pages made in vain, or not made.
    synced: AtomicUsize,
    ready: AtomicUsize,
}

impl SharedMap {
    fn new(map: MmapRaw) -> Self {
        Self {
            map,
            written: CachePadded::new(AtomicUsize::new(0)),
            synced: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
        }
    }

    /// Where writes come close to the end of the pages that are ready, makes the next ones, so that the sync which
    /// follows writes them as zeros.
    ///
    /// The first time that a reserved block is written, the file system has to mark it as such, which makes that sync some
    /// 50 microseconds longer (`docs/notes/0023-many-writers-that-sync.md`). A sync that goes on to a new page or two pays for
    /// that each time; this way one pays for many. Not where a sync covers so much that it would pay anyway, and as far as
    /// has been written at most, so that little is written ahead of a short log.
    fn make_ahead(&self) {
        let written = self.written.load(Ordering::Relaxed);
        let synced = self.synced.swap(written, Ordering::Relaxed);
        let ready = self.ready.load(Ordering::Relaxed);
        let ahead = written.min(AHEAD_BYTES_MAX);
        if written + ahead / 4 <= ready || written.saturating_sub(synced) > AHEAD_BYTES_MAX / 4 {
            return;
        }
        let page_bytes = rustix::param::page_size();
        // The writes themselves have made the pages in front.
        let start = written.max(ready).next_multiple_of(page_bytes);
        let end = (written + ahead).next_multiple_of(page_bytes).min(self.map.len());
        if start < end {
            self.populate(start, end);
        }
        self.ready.store(end.max(ready), Ordering::Relaxed);
    }

    /// Whether the system knows how; nothing but time is lost where it does not.
    #[cfg(target_os = "linux")]
    fn populate(&self, start: usize, end: usize) -> bool {
        let range = self
            .map
            .advise_range(memmap2::Advice::PopulateWrite, start, end - start);
        range.is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn populate(&self, _: usize, _: usize) -> bool {
        false
    }
}

/// Writes with a copy into the page cache: no system call, and the bytes outlive the process.
struct MappedLog {
    path: PathBuf,
    file: Arc<File>,
    map: Arc<SharedMap>,
}

impl LogWriter for MappedLog {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_log_write(&self.path, offset, bytes.len(), self.capacity_bytes())?;
        let Ok(offset) = usize::try_from(offset) else {
            return Err(Error::invalid("the offset exceeds the address space").with_path(&self.path));
        };
        // SAFETY: `offset + bytes.len()` is at most the length of the mapping (checked above), which is
        // writable and lives as long as `self.map`. The source is a slice of ours and cannot overlap the
        // mapping: no Rust reference into it exists, only this raw pointer. Others who read the file
        // meanwhile do so through system calls, and who syncs makes pages at most.
        unsafe {
            let to = self.map.map.as_mut_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        // One owner writes, so nothing gets lost between the two.
        let written = self.map.written.load(Ordering::Relaxed).max(offset + bytes.len());
        self.map.written.store(written, Ordering::Relaxed);
        Ok(())
    }

    fn capacity_bytes(&self) -> u64 {
        // usize has at most 64 bits on every platform that Rust supports.
        self.map.map.len() as u64
    }

    fn populate(&mut self) {
        // Large pages are made in half the time, and this is for logs that nobody syncs.
        #[cfg(target_os = "linux")]
        let _ = self.map.map.advise(memmap2::Advice::Normal);
        let len = self.map.map.len();
        for start in (0..len).step_by(POPULATE_BYTES) {
            if !self.map.populate(start, len.min(start + POPULATE_BYTES)) {
                return;
            }
        }
        self.map.ready.store(len, Ordering::Relaxed);
    }

    fn reuse(mut self: Box<Self>, to: &Path) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        check_reuse(&self.file, &self.path, to)?;
        // Pages that were written back since would fault one by one.
        self.populate();
        let map = &self.map.map;
        // SAFETY: the mapping is writable, has this length, and lives as long as `self.map`. No Rust reference into it
        // exists, and nobody else writes: we own the writer, and who syncs makes pages at most.
        unsafe {
            std::ptr::write_bytes(map.as_mut_ptr(), 0, map.len());
        }
        rename_log(&self.path, to)?;
        self.map.written.store(0, Ordering::Relaxed);
        self.map.synced.store(0, Ordering::Relaxed);
        let sync = OsLogSync::new(to, &self.file, Arc::downgrade(&self.map));
        self.path = to.to_path_buf();
        Ok((self, Arc::new(sync)))
    }
}

/// Writes with one system call each.
struct PositionedLog {
    path: PathBuf,
    file: Arc<File>,
    capacity_bytes: u64,
}

impl LogWriter for PositionedLog {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        check_log_write(&self.path, offset, bytes.len(), self.capacity_bytes)?;
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|source| Error::io("write to log segment", &self.path, source).with_offset(offset))
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn reuse(mut self: Box<Self>, to: &Path) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        check_reuse(&self.file, &self.path, to)?;
        zero_fill(&self.file, self.capacity_bytes)
            .map_err(|source| Error::io("clear log segment", &self.path, source))?;
        rename_log(&self.path, to)?;
        let sync = OsLogSync::new(to, &self.file, Weak::new());
        self.path = to.to_path_buf();
        Ok((self, Arc::new(sync)))
    }
}

/// The `f_type` of ext4, and of ext2 and ext3 before it.
#[cfg(target_os = "linux")]
const EXT_MAGIC: i64 = 0xef53;

/// The `f_type` of file systems that allocate anew for each overwrite of a block that was reserved (btrfs, bcachefs, ZFS).
#[cfg(target_os = "linux")]
const COPY_ON_WRITE_MAGICS: [i64; 3] = [0x9123_683e, 0xca45_1a4e, 0x2fc1_2fc1];

/// Whether the file system is known to need a free block for each overwrite, whatever was reserved.
fn copies_on_write(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::fstatfs(file).is_ok_and(|stats| COPY_ON_WRITE_MAGICS.contains(&stats.f_type));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// That the log may be called `to`, and that writing it once more takes no blocks but those that it has.
///
/// A file system that copies on write allocates anew for each overwrite, whatever was reserved before the first one, and a
/// store into a mapping for which no block is left is a SIGBUS. ext4 overwrites in place; others are not known to, or
/// only while the file shares nothing with a copy of it.
fn check_reuse(file: &File, path: &Path, to: &Path) -> Result<()> {
    check_log_name(to)?;
    #[cfg(target_os = "linux")]
    if rustix::fs::fstatfs(file).is_ok_and(|stats| stats.f_type == EXT_MAGIC) {
        return Ok(());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Err(Error::new(
        ErrorKind::Unsupported,
        "the file system is not known to overwrite in place: a log segment cannot be reused",
    )
    .with_path(path))
}

fn rename_log(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .map_err(|source| Error::io(&format!("rename log segment to {}", to.display()), from, source))
}

struct OsLogSync {
    path: PathBuf,
    file: Arc<File>,
    /// Weak, so that the owner decides when it is unmapped, which may take long.
    map: Weak<SharedMap>,
    /// A failed sync is final: the system has dropped the pages, and a second sync would lie.
    failed: OnceLock<Error>,
}

impl OsLogSync {
    fn new(path: &Path, file: &Arc<File>, map: Weak<SharedMap>) -> Self {
        Self {
            path: path.to_path_buf(),
            file: Arc::clone(file),
            map,
            failed: OnceLock::new(),
        }
    }
}

impl LogSync for OsLogSync {
    /// One `fdatasync`. On Linux it writes the pages back that were dirtied through a shared mapping as well:
    /// the page cache is one, and a store has marked its page dirty by the time it has returned.
    fn sync(&self) -> Result<()> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        if let Some(map) = self.map.upgrade() {
            map.make_ahead();
        }
        self.file.sync_data().map_err(|source| {
            let error = Error::io("sync log segment", &self.path, source);
            self.failed.get_or_init(|| error).clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_reservation_the_file_is_filled_with_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create_new(dir.path().join("a")).unwrap();
        let capacity = 2 * ZERO_FILL_BYTES + 5;
        zero_fill(&file, capacity as u64).unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), vec![0; capacity]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_log_is_reused_only_where_overwriting_is_known_to_stay_in_place() {
        // Memory: not ext4, wherever it is there at all.
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        for io in [LogIo::Mapped, LogIo::Write] {
            let path = dir.path().join("1.wal");
            let (mut writer, _sync) = create(&path, 4096, io).unwrap();
            writer.write_at(0, b"kept").unwrap();
            let error = writer.reuse(&dir.path().join("2.wal")).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(&fs::read(&path).unwrap()[..5], b"kept\0");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_ahead_are_made_by_syncs_and_only_a_few() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.wal");
        let page_bytes = rustix::param::page_size();
        let capacity = 4096 * page_bytes;
        let (mut writer, sync) = create(&path, capacity as u64, LogIo::Mapped).unwrap();
        // SAFETY: nobody else knows the file, and it keeps its length.
        let map = unsafe { memmap2::Mmap::map(&File::open(&path).unwrap()) }.unwrap();
        let is_cached = |page: usize| crate::mapping::ends_in_cache(&map, (page + 1) * page_bytes);
        if is_cached(capacity / page_bytes - 1) {
            return; // A file system in memory has nowhere else to keep it.
        }
        if map.advise_range(memmap2::Advice::PopulateWrite, 0, 0).is_err() {
            return; // A kernel from before both kinds of populating.
        }
        let mut ready = 0;
        let mut synced = 0;
        for page in 0..2048 {
            writer.write_at((page * page_bytes) as u64, b"record").unwrap();
            ready = ready.max(page + 1);
            assert!(is_cached(page));
            assert!(!is_cached(ready), "made by the write to page {page}");
            // By 16 pages, which is 64 KiB, and then by more.
            if page.is_multiple_of(if page < 1000 { 16 } else { 17 }) {
                sync.sync().unwrap();
                let (written, ahead) = (
                    page * page_bytes + 6,
                    (page * page_bytes + 6).min(AHEAD_BYTES_MAX),
                );
                if written + ahead / 4 > ready * page_bytes && written - synced <= AHEAD_BYTES_MAX / 4 {
                    ready = ready.max((written + ahead).div_ceil(page_bytes));
                }
                synced = written;
                assert!(
                    is_cached(ready - 1) && !is_cached(ready),
                    "made by the sync of page {page}"
                );
            }
        }
        assert!(
            ready < 2048 + AHEAD_BYTES_MAX / 4 / page_bytes,
            "large syncs make none"
        );
    }

    /// A kernel unmaps a segment for longer than a sync should take: whoever syncs last does not.
    #[test]
    fn the_syncing_end_of_a_log_keeps_no_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, sync) = create(&dir.path().join("1.wal"), 4096, LogIo::Mapped).unwrap();
        writer.write_at(0, b"record").unwrap();
        drop(writer);
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let path = dir.path().join("1.wal");
        assert!(!maps.contains(path.to_str().unwrap()));
        sync.sync().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_are_made_ahead_to_the_end_of_the_log_and_no_farther() {
        let dir = tempfile::tempdir().unwrap();
        let capacity = 3 * rustix::param::page_size() + 100;
        let (mut writer, sync) = create(&dir.path().join("1.wal"), capacity as u64, LogIo::Mapped).unwrap();
        for offset in (0..capacity).step_by(100) {
            writer
                .write_at(offset as u64, &[7; 100][..100.min(capacity - offset)])
                .unwrap();
            sync.sync().unwrap();
        }
        assert_eq!(fs::read(dir.path().join("1.wal")).unwrap(), vec![7; capacity]);
    }

    #[test]
    fn a_failed_log_sync_is_final() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = Arc::new(File::create_new(&path).unwrap());
        let failed = OnceLock::from(Error::io("sync log segment", &path, io::ErrorKind::Other.into()));
        let sync = OsLogSync {
            path,
            file,
            map: Weak::new(),
            failed,
        };
        assert_eq!(sync.sync().unwrap_err().kind(), ErrorKind::Io);
    }
}
