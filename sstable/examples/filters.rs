//! Compares the filters: time of a probe, size, false positives.
//!
//! `cargo run --release -p siltstone-sstable --example filters [MILLIONS…]` (default: 1 10)

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use siltstone_sstable::{
    BlockCache, FilterKind, InternalKey, SeqNo, Table, TableBuilder, TableId, TableOptions, Tag, ValueKind,
    key_hash,
};
use siltstone_vfs::{Fs, MapMode, MemFs, Result};

const PROBES: u64 = 2_000_000;

fn main() -> Result<()> {
    let millions: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let millions = if millions.is_empty() {
        vec![1, 10]
    } else {
        millions
    };
    println!("| keys | filter | bits a key | ns a hit | ns a miss | false positives |");
    println!("|---|---|---|---|---|---|");
    for count in millions {
        for bits_per_key in [8, 10, 12, 16] {
            report(count * 1_000_000, FilterKind::Standard { bits_per_key })?;
            report(count * 1_000_000, FilterKind::Blocked { bits_per_key })?;
        }
        report(count * 1_000_000, FilterKind::HashIndex)?;
    }
    Ok(())
}

fn report(keys: u64, filter: FilterKind) -> Result<()> {
    let fs = MemFs::new();
    let dir = Path::new("/filters");
    fs.create_dir_all(dir)?;
    let path = dir.join("000001.sst");
    let mut builder = TableBuilder::new(
        fs.create(&path)?,
        &path,
        TableOptions {
            filter,
            ..Default::default()
        },
    );
    let tag = Tag::new(SeqNo(1), ValueKind::Put);
    for key in 0..keys {
        builder.add(InternalKey::new(&key.to_be_bytes(), tag), b"")?;
    }
    let summary = builder.finish()?;
    let mapping = fs.open_table(&path, &fs.lock_dir(dir)?, MapMode::Map)?;
    let table = Table::open(mapping, TableId(1), BlockCache::new(0))?;

    // Hashes are made beforehand, as a read of many tables does; keys that are there lie in random order.
    let scattered = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys;
    let (hit_ns, hits) = time(&table, (0..PROBES).map(|n| key_hash(&scattered(n).to_be_bytes())));
    let (miss_ns, passed) = time(&table, (0..PROBES).map(|n| key_hash(&(keys + n).to_be_bytes())));
    assert_eq!(hits, PROBES, "a filter never loses a key");
    let name = match filter {
        FilterKind::Standard { .. } => "standard",
        FilterKind::Blocked { .. } => "blocked",
        _ => "hash index",
    };
    let bits = summary.filter_bytes * 8 * 100 / keys;
    let rate = passed * 100_000 / PROBES;
    println!(
        "| {} M | {name} | {}.{:02} | {hit_ns} | {miss_ns} | {}.{:03} % |",
        keys / 1_000_000,
        bits / 100,
        bits % 100,
        rate / 1000,
        rate % 1000
    );
    Ok(())
}

/// Nanoseconds a probe over at least half a second, and how many of the hashes passed.
fn time(table: &Table, hashes: impl Iterator<Item = u64>) -> (u64, u64) {
    let hashes: Vec<u64> = hashes.collect();
    let started = Instant::now();
    let start = cpu_ns(started);
    let (mut spent, mut probes, mut passed) = (0, 0, 0);
    // The kernel brings a thread's time up to date at its clock ticks only, some milliseconds apart: a short
    // measurement would be off by up to a tick, and the least of several low.
    while spent < 500_000_000 {
        passed = hashes
            .iter()
            .map(|&hash| u64::from(table.may_contain(black_box(hash))))
            .sum();
        probes += hashes.len() as u64;
        spent = cpu_ns(started) - start;
    }
    (spent / probes, passed)
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
