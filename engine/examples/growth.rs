//! How speed and memory grow with the data: random puts, then warm random gets, at several sizes.
//!
//! `cargo run --release -p siltstone --example growth -- 1000000 5000000 20000000 [--dir DIR]`
//!
//! Keys are 16 bytes, values 100, in random order, each key once; default options. Gets are uniformly random, and every
//! byte of each value is read and checked. Warm: the files have just been written and fit into memory. Peak memory is
//! sampled every 20 ms from `/proc/self/status`: anonymous memory is what the engine holds, the file part is the page
//! cache's.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use siltstone::Options;

mod records;

use records::{key, scramble};

const GETS: u64 = 2_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = Vec::new();
    let mut base = std::env::temp_dir();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--dir" {
            base = PathBuf::from(args.next().ok_or("--dir needs a directory")?);
        } else {
            sizes.push(arg.parse::<u64>()?);
        }
    }
    if sizes.is_empty() {
        sizes = vec![1_000_000];
    }
    println!(
        "     keys   puts/s  settled s   gets/s  write amp.  disk/logical  peak anon MiB  drop ms  stalled s"
    );
    for keys in sizes {
        measure(&base, keys)?;
    }
    Ok(())
}

fn measure(base: &std::path::Path, keys: u64) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(base)?;
    let peak = Peak::start();
    let db = Options::default().open(dir.path())?;
    let start = Instant::now();
    for i in 0..keys {
        db.put(key(i), value(i))?;
    }
    let put_s = start.elapsed().as_secs_f64();
    db.flush()?;
    db.wait_idle()?;
    let settled_s = start.elapsed().as_secs_f64();

    let mut random = 88_172_645_463_325_252u64;
    let mut bytes = 0u64;
    let start = Instant::now();
    for _ in 0..GETS {
        random = scramble(random.wrapping_add(1));
        let i = random % keys;
        let right = db.get_with(key(i), |found| {
            bytes += found.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            found == value(i)
        })?;
        assert_eq!(right, Some(true), "key {i} has a wrong value");
    }
    let get_s = start.elapsed().as_secs_f64();
    let metrics = db.metrics();
    let disk: u64 = metrics.levels.iter().map(|(_, bytes)| bytes).sum();

    // In the middle of a compaction, if it can be had: more puts, then the doors close.
    for i in keys..keys + 1_000_000 {
        db.put(key(i), value(i))?;
    }
    let start = Instant::now();
    drop(db);
    let drop_ms = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "{keys:9} {:8.0} {settled_s:10.1} {:8.0} {:11.2} {:13.3} {:14.0} {drop_ms:8.1} {:10.2}",
        keys as f64 / put_s,
        GETS as f64 / get_s,
        metrics.write_amplification(),
        disk as f64 / (keys as f64 * 116.0),
        peak.stop() as f64 / 1024.0,
        metrics.stalled.as_secs_f64(),
    );
    std::hint::black_box(bytes);
    Ok(())
}

fn value(i: u64) -> [u8; 100] {
    let mut value = [0; 100];
    for (n, chunk) in value.chunks_mut(8).enumerate() {
        let word = scramble(i ^ ((n as u64) << 56)).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    value
}

/// Samples the process's anonymous memory and keeps the most, in KiB.
struct Peak {
    most: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn start() -> Peak {
        let (most, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (most, done) = (Arc::clone(&most), Arc::clone(&done));
            move || {
                while !done.load(Ordering::Relaxed) {
                    most.fetch_max(anonymous_kib(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Peak { most, done, thread }
    }

    fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
