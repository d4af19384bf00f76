//! The process that `tests/concurrency.rs` starts to see what a database does when the system refuses it a thread: opens one
//! under a limit of its address space that has room for no stack, for one, for two, and so on. `RUST_MIN_STACK` is to be set to
//! a gibibyte: that much less room for everything else is never missed.
//!
//! Argument: directory. Says on its standard output how many opens were refused.

use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use siltstone::{Db, ErrorKind, Options};

const STACK_BYTES: u64 = 1 << 30;
/// For everything but stacks.
const OTHER_BYTES: u64 = STACK_BYTES * 3 / 4;
/// More threads than a database has with default options.
const THREADS_MAX: u64 = 12;
const KEYS: u32 = 500;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: thread_child DIRECTORY");
        return ExitCode::from(2);
    };
    match run(Path::new(&dir)) {
        Ok(refused) => {
            println!("{refused} refused");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("thread_child: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Options {
    Options::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(16 << 10)
        .log_size_max_bytes(64 << 10)
        .reserve_bytes(0)
}

fn write(db: &Db) -> siltstone::Result<()> {
    (0..KEYS).try_for_each(|n| db.put(n.to_be_bytes(), [7; 100]))
}

fn check(db: &Db) -> Outcome<()> {
    for n in 0..KEYS {
        db.get(n.to_be_bytes())?
            .filter(|value| value[..] == [7; 100])
            .ok_or_else(|| format!("key {n} is lost"))?;
    }
    Ok(())
}

/// Threads and open files of this process.
fn held() -> Outcome<(usize, usize)> {
    let count = |dir| std::fs::read_dir(dir).map(Iterator::count);
    Ok((count("/proc/self/task")?, count("/proc/self/fd")?))
}

/// Lets the address space grow by so much, or without a limit.
fn limit(growth_bytes: Option<u64>) -> Outcome<()> {
    let limits = getrlimit(Resource::As);
    let current = match growth_bytes {
        Some(growth) => {
            let status = std::fs::read_to_string("/proc/self/status")?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
            let kib: u64 = line
                .and_then(|line| line.split_whitespace().next())
                .ok_or("no VmSize")?
                .parse()?;
            Some(kib * 1024 + growth)
        }
        None => limits.maximum,
    };
    setrlimit(Resource::As, Rlimit { current, ..limits })?;
    Ok(())
}

fn run(dir: &Path) -> Outcome<u64> {
    let db = options().open(dir)?;
    write(&db)?;
    db.close()?;
    let before = held()?;
    for threads in 0..THREADS_MAX {
        limit(Some(threads * STACK_BYTES + OTHER_BYTES))?;
        let opened = options().open(dir);
        let error = match opened {
            Err(error) => error,
            Ok(db) => {
                // It has all its threads: flushes and compactions start no others.
                write(&db)?;
                db.flush_all()?;
                db.compact::<&[u8]>(..)?;
                check(&db)?;
                db.close()?;
                limit(None)?;
                return Ok(threads);
            }
        };
        limit(None)?;
        if error.kind() != ErrorKind::Io || !error.to_string().contains("could not start the thread") {
            return Err(format!("with {threads} threads: {error:?}").into());
        }
        // Nothing runs on, nothing stays open: the directory's lock above all.
        if held()? != before {
            return Err(format!(
                "with {threads} threads: (threads, files) were {before:?}, are {:?}",
                held()?
            )
            .into());
        }
        let db = options().open(dir)?;
        check(&db)?;
        // Not closed each time: what the refused open found is a log that was not closed as well.
        if threads.is_multiple_of(2) {
            db.close()?;
        }
    }
    Err(format!("refused with {THREADS_MAX} threads").into())
}
