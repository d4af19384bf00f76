//! The single measurements.
#![allow(unsafe_code)] // files are mapped; each is this program's own and is neither truncated nor removed meanwhile

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memmap2::{Mmap, MmapMut};
use rustix::fs::{Advice, FallocateFlags, OFlags};

use crate::data::mix;
use crate::engine::{Result, sum};
use crate::limit::Memory;

/// What the device is read in multiples of.
pub(super) const PAGE_BYTES: usize = 4096;
const LINE_BYTES: usize = 64;
const CHUNK_BYTES: usize = 1 << 20;
/// Of the file that is written and read in order.
pub(super) const FILE_BYTES: u64 = 512 << 20;

fn ns_each(begun: Instant, count: u64) -> f64 {
    begun.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// Reads of `memory`.
pub(super) fn memory(memory: &[u8], value_bytes: usize) -> Memory {
    let reads = |bytes: usize| (BYTES_READ_MAX / bytes.max(1) as u64).clamp(1_000, 1_000_000);
    let at = |draw: u64, bytes: usize| {
        let span = (memory.len() - bytes) as u64;
        let start = usize::try_from(draw % span).unwrap_or(0);
        &memory[start..start + bytes]
    };
    // Within one cache line, whatever the mapping's offset: it starts at a page.
    let line = |draw: u64| {
        let start = usize::try_from(draw % (memory.len() / LINE_BYTES) as u64).unwrap_or(0) * LINE_BYTES;
        sum(&memory[start..start + 8])
    };
    let independent = |bytes: usize, read: &dyn Fn(u64) -> u64| {
        let begun = Instant::now();
        let total = (0..reads(bytes)).fold(0_u64, |total, i| total.wrapping_add(read(mix(i))));
        std::hint::black_box(total);
        ns_each(begun, reads(bytes))
    };
    let dependent = |bytes: usize, read: &dyn Fn(u64) -> u64| {
        let begun = Instant::now();
        let last = (0..reads(bytes)).fold(0_u64, |last, i| read(mix(last ^ i)));
        std::hint::black_box(last);
        ns_each(begun, reads(bytes))
    };
    let value = |draw: u64| sum(at(draw, value_bytes));
    let begun = Instant::now();
    std::hint::black_box(sum(memory));
    let scan_s = begun.elapsed().as_secs_f64();
    Memory {
        independent_line_ns: independent(8, &line),
        dependent_line_ns: dependent(8, &line),
        independent_value_ns: independent(value_bytes, &value),
        dependent_value_ns: dependent(value_bytes, &value),
        scan_mib_per_s: memory.len() as f64 / f64::from(1 << 20) / scan_s,
    }
}

const BYTES_READ_MAX: u64 = 512 << 20;

/// Reads of a file that holds the bytes of `words` and is mapped.
pub(super) fn mapped_memory(path: &Path, words: Vec<u8>, value_bytes: usize) -> Result<Memory> {
    let mut file = create(path)?;
    for chunk in words.chunks(2 << 20) {
        file.write_all(chunk)?;
    }
    drop(words);
    // SAFETY: the file lies in this run's own directory; nobody truncates or writes it while it is mapped.
    let map = unsafe { Mmap::map(&file)? };
    std::hint::black_box(sum(&map));
    let figures = memory(&map, value_bytes);
    drop(map);
    std::fs::remove_file(path)?;
    Ok(figures)
}

fn create(path: &Path) -> Result<File> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?)
}

fn preallocated(path: &Path, bytes: u64) -> Result<File> {
    let file = create(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    Ok(file)
}

/// As many records as make 64 MiB, within reason.
fn appends(record: &[u8]) -> u64 {
    ((64 << 20) / record.len().max(1) as u64).clamp(100, 500_000)
}

/// Nanoseconds a `write(2)`.
pub(super) fn append_by_write(dir: &Path, record: &[u8]) -> Result<f64> {
    let path = dir.join("appended");
    let mut file = create(&path)?;
    let begun = Instant::now();
    for _ in 0..appends(record) {
        file.write_all(record)?;
    }
    let each = ns_each(begun, appends(record));
    std::fs::remove_file(path)?;
    Ok(each)
}

/// Nanoseconds a copy into a mapping of a preallocated file.
pub(super) fn append_by_copy(dir: &Path, record: &[u8]) -> Result<f64> {
    let path = dir.join("copied");
    let file = preallocated(&path, appends(record) * record.len() as u64)?;
    // SAFETY: the file lies in this run's own directory and is not truncated while mapped; this is the only mapping, and nothing else uses the file.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    let begun = Instant::now();
    for slot in map.chunks_exact_mut(record.len()) {
        slot.copy_from_slice(record);
    }
    let each = ns_each(begun, appends(record));
    drop(map);
    std::fs::remove_file(path)?;
    Ok(each)
}

/// Nanoseconds a write into a preallocated file and its sync.
pub(super) fn append_and_sync(dir: &Path, record: &[u8]) -> Result<f64> {
    const SYNCS: u64 = 1_000;
    let path = dir.join("synced");
    let file = preallocated(&path, SYNCS * record.len() as u64)?;
    file.sync_all()?;
    let begun = Instant::now();
    for i in 0..SYNCS {
        file.write_all_at(record, i * record.len() as u64)?;
        file.sync_data()?;
    }
    let each = ns_each(begun, SYNCS);
    std::fs::remove_file(path)?;
    Ok(each)
}

/// MiB a second, synced; the file stays.
pub(super) fn write_in_order(path: &Path) -> Result<f64> {
    let chunk = vec![3_u8; CHUNK_BYTES];
    let mut file = create(path)?;
    let begun = Instant::now();
    for _ in 0..FILE_BYTES / CHUNK_BYTES as u64 {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    Ok((FILE_BYTES >> 20) as f64 / begun.elapsed().as_secs_f64())
}

/// MiB a second of a synced file, which no page is cached of.
pub(super) fn read_in_order(path: &Path) -> Result<f64> {
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut file = File::open(path)?;
    // Synced pages are clean, so this drops them all.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    let begun = Instant::now();
    while file.read(&mut chunk)? > 0 {
        std::hint::black_box(sum(&chunk));
    }
    Ok((FILE_BYTES >> 20) as f64 / begun.elapsed().as_secs_f64())
}

/// Reads a second of `bytes` bytes at page-aligned offsets; `None` where the file system knows no `O_DIRECT`.
pub(super) fn read_at_random(path: &Path, threads: u64, bytes: usize) -> Result<Option<f64>> {
    const TAKES: Duration = Duration::from_millis(500);
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Ok(None),
        file => file?,
    };
    let places = (FILE_BYTES - bytes as u64) / PAGE_BYTES as u64;
    let over = AtomicBool::new(false);
    let one = |thread: u64| -> Result<u64> {
        // O_DIRECT wants an aligned buffer, which an anonymous mapping is.
        let mut buffer = MmapMut::map_anon(bytes)?;
        let mut done = 0;
        while !over.load(Ordering::Relaxed) {
            let page = mix(done ^ (thread << 40)) % places;
            file.read_exact_at(&mut buffer, page * PAGE_BYTES as u64)?;
            std::hint::black_box(sum(&buffer));
            done += 1;
        }
        Ok(done)
    };
    let begun = Instant::now();
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        while begun.elapsed() < TAKES {
            std::thread::park_timeout(TAKES.saturating_sub(begun.elapsed()));
        }
        over.store(true, Ordering::Relaxed);
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a reading thread panicked")?)
            .sum::<Result<u64>>()
    })?;
    Ok(Some(done as f64 / begun.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_stay_within_a_memory_that_is_no_multiple_of_anything() {
        let figures = memory(&vec![1; (1 << 20) + 13], 100_000);
        assert!(figures.dependent_value_ns > 0.0 && figures.scan_mib_per_s > 0.0);
    }
}
