//! What it costs to append a record of 128 bytes, and to have it synced: the figures of
//! `docs/notes/0001-log-append.md`.
//!
//! ```text
//! cargo run --release -p siltstone-wal --example append_cost -- [DIR]
//! ```
//!
//! `DIR` (the system's directory for temporary files otherwise) should lie on the disk that is of interest. The
//! candidates take turns, round by round; the best and the median round of each are printed. On a machine that does
//! other things too, compare within a run, and trust the best round of an append: the median holds interruptions.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use siltstone_vfs::{Fs, LogIo, OsFs};
use siltstone_wal::{Log, LogOptions, RecordSeq, SegmentId};

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECORD_BYTES: usize = 128;
/// Many short rounds, so that some of them are not interrupted.
const APPEND_ROUNDS: usize = 41;
const APPENDS: u32 = 16_384;
const SYNC_ROUNDS: usize = 7;
const SYNCED_FOR: Duration = Duration::from_millis(250);

fn main() -> Outcome<()> {
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("siltstone-append-cost-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let outcome = measure(&dir);
    fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(dir: &Path) -> Outcome<()> {
    let mut id = 0;
    let mut next = || {
        id += 1;
        SegmentId(id * 1000)
    };

    println!("append of {RECORD_BYTES} B, segment prepared, no sync; {APPEND_ROUNDS} rounds of {APPENDS}");
    let candidates = [
        (LogIo::Mapped, 1),
        (LogIo::Write, 1),
        (LogIo::Write, 8),
        (LogIo::Write, 32),
    ];
    let mut times = vec![Vec::new(); candidates.len()];
    for _ in 0..APPEND_ROUNDS {
        for (at, &(io, group)) in candidates.iter().enumerate() {
            times[at].push(append_ns(dir, next(), io, group)?);
        }
    }
    for (&(io, group), times) in candidates.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        println!(
            "  {:<20} best {best:>6.0}, median {median:>6.0} ns a record",
            format!("{io:?}, {group} a write")
        );
    }

    println!("append and sync, each thread waits for its own record; {SYNC_ROUNDS} rounds of {SYNCED_FOR:?}");
    let candidates: Vec<_> = [1, 8, 32]
        .into_iter()
        .flat_map(|n| [(LogIo::Mapped, n), (LogIo::Write, n)])
        .collect();
    let mut rates = vec![Vec::new(); candidates.len()];
    for _ in 0..SYNC_ROUNDS {
        for (at, &(io, threads)) in candidates.iter().enumerate() {
            rates[at].push(synced_per_second(dir, next(), io, threads)?);
        }
    }
    for (&(io, threads), rates) in candidates.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let (best, median) = (rates[rates.len() - 1], rates[rates.len() / 2]);
        println!(
            "  {:<20} best {best:>6.0}, median {median:>6.0} commits a second",
            format!("{io:?}, {threads} threads")
        );
    }
    Ok(())
}

/// The time for one record, where `group` records are framed together as one append.
///
/// A group of n stands for a commit that gathers n batches before it writes: one header, one checksum, one write.
fn append_ns(dir: &Path, first: SegmentId, io: LogIo, group: u32) -> Outcome<f64> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs::new());
    let options = LogOptions {
        io,
        ..LogOptions::default()
    };
    let (mut log, _syncer) = Log::create(fs, dir, first, RecordSeq(1), options)?;
    let record = [7; RECORD_BYTES];
    let parts = vec![&record[..]; usize::try_from(group)?];
    let begin = Instant::now();
    for _ in 0..APPENDS / group {
        log.append(&parts)?;
    }
    let elapsed = begin.elapsed();
    remove_segments(dir)?;
    Ok(elapsed.as_secs_f64() * 1e9 / f64::from(APPENDS))
}

fn synced_per_second(dir: &Path, first: SegmentId, io: LogIo, threads: usize) -> Outcome<f64> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs::new());
    let options = LogOptions {
        io,
        ..LogOptions::default()
    };
    let (log, syncer) = Log::create(fs, dir, first, RecordSeq(1), options)?;
    let log = Mutex::new(log);
    let begin = Instant::now();
    let commits = thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let record = [7; RECORD_BYTES];
                    let mut commits = 0_u32;
                    while begin.elapsed() < SYNCED_FOR {
                        let sequence = log.lock().append(&[&record])?;
                        syncer.sync_to(sequence)?;
                        commits += 1;
                    }
                    Ok::<_, siltstone_vfs::Error>(commits)
                })
            })
            .collect();
        let joined = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer does not panic"));
        joined.sum::<siltstone_vfs::Result<u32>>()
    })?;
    let elapsed = begin.elapsed();
    remove_segments(dir)?;
    Ok(f64::from(commits) / elapsed.as_secs_f64())
}

fn remove_segments(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
