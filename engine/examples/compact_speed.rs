//! What a compaction costs: CPU time for each record that it reads.
//!
//! ```text
//! cargo run --release -p siltstone --example compact_speed -- [records] [rounds] [value bytes]
//! ```
//!
//! Random puts of 16-byte keys leave level 0 full of tables; then all of them are merged into one level by jobs that this thread
//! runs itself, so that its CPU time is the compaction's (`/proc/thread-self`; waiting for the device is not counted). What the
//! engine itself takes of it is told apart: the rest is the kernel's, most of it for the pages of new files, and depends on
//! what memory there is. Each round begins anew; the files it reads are warm, those it writes are synced.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use siltstone::{BackgroundMode, Environment, Options};

mod records;

use records::key;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse::<u64>());
    let (records, rounds, value_bytes) = (number(2_000_000)?, number(3)?, number(100)?);
    let value = vec![0x5a; usize::try_from(value_bytes)?];
    println!("tables  read MiB  written MiB  CPU ns/record  of it user  elapsed ns/record");
    for _ in 0..rounds {
        let dir = tempfile::tempdir()?;
        let full = Options::default()
            .l0_compaction_trigger(100_000)
            .l0_stall_tables(100_000, 100_001);
        let db = full.open(dir.path())?;
        for i in 0..records {
            db.put(key(i), &value)?;
        }
        db.flush()?;
        db.close()?;
        // A thread with a name of its own, so that a profile can tell it from the load.
        std::thread::scope(|scope| {
            let merging = std::thread::Builder::new().name("compaction".into());
            let merging = merging.spawn_scoped(scope, || merge(dir.path(), records))?;
            merging.join().expect("the merging thread does not panic")
        })?;
    }
    Ok(())
}

/// Merges what lies in level 0 and prints what it took.
fn merge(dir: &Path, records: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let manual = Environment {
        background: BackgroundMode::Manual,
        ..Environment::default()
    };
    let db = Options::default().open_with(dir, manual)?;
    let before = db.metrics();
    let (start, cpu) = (Instant::now(), thread_cpu()?);
    while db.run_background_job()? {}
    let (elapsed, cpu_after) = (start.elapsed(), thread_cpu()?);
    let after = db.metrics();
    let per_record = |time: Duration| time.as_nanos() as f64 / records as f64;
    println!(
        "{:6} {:9} {:12} {:14.0} {:11.0} {:18.0}",
        before.levels[0].0,
        (after.compacted_bytes_in - before.compacted_bytes_in) >> 20,
        (after.compacted_bytes_out - before.compacted_bytes_out) >> 20,
        per_record(cpu_after.all - cpu.all),
        per_record(cpu_after.user - cpu.user),
        per_record(elapsed),
    );
    Ok(())
}

/// CPU time of a thread.
struct CpuTime {
    all: Duration,
    user: Duration,
}

/// CPU time of this thread so far; that in user mode to a hundredth of a second.
fn thread_cpu() -> Result<CpuTime, Box<dyn Error + Send + Sync>> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let all = schedstat.split_whitespace().next().ok_or("schedstat is empty")?;
    let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
    // The name, which ends with the last parenthesis, may hold spaces; user time is the twelfth number behind it.
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let user = behind_name
        .split_whitespace()
        .nth(11)
        .ok_or("stat has too few fields")?;
    Ok(CpuTime {
        all: Duration::from_nanos(all.parse()?),
        user: Duration::from_millis(10 * user.parse::<u64>()?),
    })
}
