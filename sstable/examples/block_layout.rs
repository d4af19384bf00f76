//! What the block layout costs: size beside the entries, time of gets, seeks and scans; and the size that prefix
//! compression with restart points would give the same entries.
//!
//! `cargo run --release -p siltstone-sstable --example block_layout [ENTRIES]` (default: 1000000)

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use siltstone_sstable::{
    BlockCache, Compression, InternalIterator, InternalKey, SeqNo, Table, TableBuilder, TableId,
    TableOptions, Tag, ValueKind, key_hash,
};
use siltstone_vfs::{Fs, MapMode, MemFs, Result};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn main() -> Result<()> {
    let count: u64 = std::env::args()
        .nth(1)
        .and_then(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let zstd = Compression::Zstd { level: 1 };
    println!("| entries | file / entries | restart points / entries | ns a get | ns a seek | ns a next |");
    println!("|---|---|---|---|---|---|");
    report(
        "random 16 B keys, 100 B values",
        &random(count, false),
        Compression::None,
    )?;
    report(
        "the same, values of 90 to 110 B",
        &random(count, true),
        Compression::None,
    )?;
    report("the same, zstd level 1", &random(count, true), zstd)?;
    report(
        "keys `user:0000000000:name`, 10 B values",
        &named(count),
        Compression::None,
    )
}

fn mix(n: u64) -> u64 {
    let word = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (word >> 32)
}

fn random(count: u64, vary: bool) -> Entries {
    let mut entries: Entries = (1..=count)
        .map(|n| {
            let key = [mix(n).to_be_bytes(), mix(!n).to_be_bytes()].concat();
            let len = if vary { 90 + n % 21 } else { 100 };
            (
                key,
                (0..len)
                    .map(|at| {
                        if at % 2 == 0 {
                            b'v'
                        } else {
                            mix(n ^ at << 32).to_le_bytes()[3]
                        }
                    })
                    .collect(),
            )
        })
        .collect();
    entries.sort();
    entries
}

fn named(count: u64) -> Entries {
    (0..count)
        .map(|n| (format!("user:{n:010}:name").into_bytes(), vec![b'n'; 10]))
        .collect()
}

fn report(name: &str, entries: &Entries, compression: Compression) -> Result<()> {
    let fs = MemFs::new();
    let dir = Path::new("/layout");
    fs.create_dir_all(dir)?;
    let path = dir.join("000001.sst");
    let options = TableOptions {
        compression,
        ..TableOptions::default()
    };
    let mut builder = TableBuilder::new(fs.create(&path)?, &path, options);
    let seqno = |n: usize| SeqNo(mix(n as u64) % 5_000_000);
    for (n, (key, value)) in entries.iter().enumerate() {
        builder.add(InternalKey::new(key, Tag::new(seqno(n), ValueKind::Put)), value)?;
    }
    let summary = builder.finish()?;
    let mapping = fs.open_table(&path, &fs.lock_dir(dir)?, MapMode::Map)?;
    let table = Arc::new(Table::open(mapping, TableId(1), BlockCache::new(64 << 20))?);
    table.verify()?;

    // Key and hash of each look-up in random order, so that the look-up itself is all that is timed.
    let looked_up: Vec<&[u8]> = (0..200_000.min(entries.len() as u64))
        .map(|n| &*entries[usize::try_from(mix(n)).unwrap_or(0) % entries.len()].0)
        .collect();
    let get = time(looked_up.len(), || {
        for key in &looked_up {
            let found = table.get(key, key_hash(key), SeqNo::MAX)?;
            black_box(found.map(|entry| entry.value.iter().map(|&byte| u64::from(byte)).sum::<u64>()));
        }
        Ok(())
    })?;
    let mut iter = table.iter();
    let seek = time(looked_up.len(), || {
        for key in &looked_up {
            iter.seek(InternalKey::new(key, Tag::FIRST))?;
            black_box(iter.value().first());
        }
        Ok(())
    })?;
    let next = time(entries.len(), || {
        iter.seek_to_first()?;
        while iter.valid() {
            black_box((iter.user_key().first(), iter.value().first()));
            iter.next()?;
        }
        Ok(())
    })?;
    let logical = summary.key_bytes + summary.value_bytes;
    let restart = match compression {
        Compression::None => format!(
            "{:.3}",
            ratio(restart_point_bytes(entries) + summary.filter_bytes, logical)
        ),
        Compression::Zstd { .. } => "–".to_owned(),
    };
    println!(
        "| {name} | {:.3} | {restart} | {get} | {seek} | {next} |",
        ratio(summary.size_bytes, logical)
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
fn ratio(bytes: u64, logical: u64) -> f64 {
    bytes as f64 / logical as f64
}

/// Nanoseconds for each of the `count` steps of `run`, repeated for at least half a second.
fn time(count: usize, mut run: impl FnMut() -> Result<()>) -> Result<u64> {
    let started = Instant::now();
    let start = cpu_ns(started);
    let (mut spent, mut steps) = (0, 0);
    // The kernel brings a thread's time up to date at its clock ticks only, some milliseconds apart: a short
    // measurement would be off by up to a tick, and the least of several low.
    while spent < 500_000_000 {
        run()?;
        steps += count as u64;
        spent = cpu_ns(started) - start;
    }
    Ok(spent / steps)
}

/// The size of LevelDB-like blocks: entries of three varints (shared, unshared, value length), the unshared key with
/// eight bytes of tag, the value; a restart point of four bytes each 16 entries; blocks cut near 4 KiB with a trailer
/// of five bytes, not aligned to pages; an index entry of the last key and about ten bytes.
fn restart_point_bytes(entries: &Entries) -> u64 {
    let (mut total, mut block, mut in_block) = (0, 0, 0);
    let mut last: &[u8] = &[];
    for (key, value) in entries {
        let restart = in_block % 16 == 0;
        let shared = if restart {
            0
        } else {
            last.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        block += 3 + (key.len() - shared) + 8 + value.len() + if restart { 4 } else { 0 };
        in_block += 1;
        last = key;
        if block + 9 >= 4096 {
            total += block + 9 + key.len() + 10;
            (block, in_block) = (0, 0);
        }
    }
    (total + block) as u64
}

/// Time this thread has spent on a processor, so that other load counts little; wall time where Linux does not tell.
fn cpu_ns(started: Instant) -> u64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let wall = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    schedstat
        .split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or_else(wall)
}
