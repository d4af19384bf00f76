//! What the machine could do at best: the figures that results are to be held against.
#![allow(unsafe_code)] // files are mapped; each is this program's own and is neither truncated nor removed meanwhile

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use memmap2::{Mmap, MmapMut};

use crate::data::mix;
use crate::engine::{Result, sum};

const READ_BYTES: u64 = 100;
const READS: u64 = 1_000_000;
const RECORD_BYTES: u64 = 128;
const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS: u64 = 512;

/// Measures and prints.
pub(crate) fn print(bytes: usize, dir: Option<&Path>) -> Result<()> {
    let root = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    if bytes < CHUNK_BYTES {
        return Err("at least 1 MiB of memory is needed".into());
    }
    let show = |name: &str, figure: String| println!("{name:<48} {figure}");
    let heap: Vec<u8> = (0..bytes as u64 / 8)
        .flat_map(|word| mix(word).to_le_bytes())
        .collect();
    reads("heap", &heap, &show);
    let path = root.path().join("mapped");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    for chunk in heap.chunks(2 << 20) {
        file.write_all(chunk)?;
    }
    drop(heap);
    // SAFETY: the file lies in this run's own directory; nobody truncates or writes it while it is mapped.
    let map = unsafe { Mmap::map(&file)? };
    std::hint::black_box(sum(&map));
    reads("file mapping", &map, &show);
    appends(root.path(), &show)?;
    sequential(root.path(), &show)
}

fn reads(what: &str, memory: &[u8], show: &impl Fn(&str, String)) {
    let span = memory.len() as u64 - READ_BYTES;
    let at = |draw: u64| {
        let start = usize::try_from(draw % span).unwrap_or(0);
        &memory[start..start + 100]
    };
    let begun = Instant::now();
    let total = (0..READS).fold(0_u64, |total, i| total.wrapping_add(sum(at(mix(i)))));
    std::hint::black_box(total);
    let independent = begun.elapsed().as_secs_f64() * 1e9 / READS as f64;
    show(
        &format!("100 B read, {what}, independent"),
        format!("{independent:.1} ns"),
    );
    let begun = Instant::now();
    let last = (0..READS).fold(0_u64, |last, i| sum(at(mix(last ^ i))));
    std::hint::black_box(last);
    let dependent = begun.elapsed().as_secs_f64() * 1e9 / READS as f64;
    show(
        &format!("100 B read, {what}, each after the last"),
        format!("{dependent:.1} ns"),
    );
}

fn preallocated(path: &Path, bytes: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(file)
}

fn appends(dir: &Path, show: &impl Fn(&str, String)) -> Result<()> {
    const COPIES: u64 = 500_000;
    const SYNCS: u64 = 1_000;
    let record = [7_u8; 128];

    let mut file = File::create(dir.join("appended"))?;
    let begun = Instant::now();
    for _ in 0..COPIES {
        file.write_all(&record)?;
    }
    let each = begun.elapsed().as_secs_f64() * 1e9 / COPIES as f64;
    show("append of 128 B, write(2)", format!("{each:.0} ns"));

    let file = preallocated(&dir.join("copied"), COPIES * RECORD_BYTES)?;
    // SAFETY: as in `print`; this is the only mapping, and nothing else uses the file.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    let begun = Instant::now();
    for slot in map.chunks_exact_mut(128) {
        slot.copy_from_slice(&record);
    }
    let each = begun.elapsed().as_secs_f64() * 1e9 / COPIES as f64;
    show(
        "append of 128 B, copy into a preallocated mapping",
        format!("{each:.0} ns"),
    );
    drop(map);

    let file = preallocated(&dir.join("synced"), SYNCS * RECORD_BYTES)?;
    file.sync_all()?;
    let begun = Instant::now();
    for i in 0..SYNCS {
        file.write_all_at(&record, i * RECORD_BYTES)?;
        file.sync_data()?;
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / SYNCS as f64;
    show(
        "append of 128 B and fdatasync, preallocated",
        format!("{each:.1} us"),
    );
    Ok(())
}

fn sequential(dir: &Path, show: &impl Fn(&str, String)) -> Result<()> {
    let path = dir.join("sequential");
    let mut chunk = vec![3_u8; CHUNK_BYTES];
    let begun = Instant::now();
    let mut file = File::create(&path)?;
    for _ in 0..CHUNKS {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    let rate = CHUNKS as f64 / begun.elapsed().as_secs_f64();
    show(
        "sequential write of 512 MiB and fdatasync",
        format!("{rate:.0} MiB/s"),
    );
    // Synced pages are clean, so this drops them all.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut file = File::open(&path)?;
    let begun = Instant::now();
    while file.read(&mut chunk)? > 0 {
        std::hint::black_box(sum(&chunk));
    }
    let rate = CHUNKS as f64 / begun.elapsed().as_secs_f64();
    show(
        "sequential read of 512 MiB, not cached (guest)",
        format!("{rate:.0} MiB/s"),
    );
    Ok(())
}
