//! A disk that fills up under writers that sync: nobody dies, nothing acknowledged is lost, and writes go on once there is room.
//!
//! `tests/full_disk.sh` makes the file systems and runs it on each. A store into a mapped log for which no block can be had
//! is a SIGBUS, and only a real file system does that: btrfs did, until its logs were no longer mapped.
//!
//! Arguments: an empty directory on the disk to fill, and how the log is written (`mapped` or `written`).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use siltstone::vfs::LogIo;
use siltstone::{Db, Durability, ErrorKind, Options};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

const WRITERS: usize = 4;
/// Of each writer, before the disk is filled, and once there is room again.
const PUTS: u64 = 1000;
/// Of each writer, at most, until it meets the full disk.
const PUTS_MAX: u64 = 200_000;
const VALUE_BYTES: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [dir, io] = &arguments[..] else {
        eprintln!("usage: full_disk DIR mapped|written");
        return ExitCode::from(2);
    };
    let io = if io == "mapped" {
        LogIo::Mapped
    } else {
        LogIo::Write
    };
    match run(Path::new(dir), io) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("full_disk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, io: LogIo) -> Outcome<()> {
    let options = Options::default().durability(Durability::Sync).log_io(io);
    let db = options.open(dir.join("db"))?;
    let mut acknowledged = [0; WRITERS];
    if let Some(error) = put(&db, &mut acknowledged, PUTS)? {
        return Err(error);
    }
    let filler = dir.join("filler");
    fill(&filler)?;
    let refused = put(&db, &mut acknowledged, PUTS_MAX)?.ok_or("the disk is full, and no put was refused")?;
    println!("{acknowledged:?} puts acknowledged, then: {refused}");
    fs::remove_file(&filler)?;
    db.resume()?;
    wait_for_room(&db)?;
    if let Some(error) = put(&db, &mut acknowledged, PUTS)? {
        return Err(error);
    }
    db.close()?;

    let db = Options::default().open(dir.join("db"))?;
    for (writer, &puts) in (0..).zip(&acknowledged) {
        for n in 0..puts {
            let value = db.get(key(writer, n))?;
            if value.is_none_or(|value| *value != value_of(writer, n)) {
                return Err(format!("put {n} of writer {writer} was acknowledged and is lost").into());
            }
        }
    }
    Ok(db.close()?)
}

/// Waits until the engine has noticed that there is room, which it looks for once in a while.
fn wait_for_room(db: &Db) -> Outcome<()> {
    for _ in 0..600 {
        match db.put("room", "") {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NoSpace => thread::sleep(Duration::from_millis(100)),
            Err(error) => return Err(error.into()),
        }
    }
    Err("puts are still refused a minute after there was room again".into())
}

/// Has each writer put `puts` more keys, or fewer where that is refused: what the first refusal said. Adds those that were
/// acknowledged.
fn put(db: &Db, acknowledged: &mut [u64], puts: u64) -> Outcome<Option<Failure>> {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..)
            .zip(acknowledged)
            .map(|(writer, acknowledged)| {
                scope.spawn(move || {
                    for _ in 0..puts {
                        db.put(key(writer, *acknowledged), value_of(writer, *acknowledged))?;
                        *acknowledged += 1;
                    }
                    Ok::<_, siltstone::Error>(())
                })
            })
            .collect();
        writers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut refused = None;
    for outcome in outcomes {
        if let Err(error) = outcome.map_err(|_| "a writer panicked")? {
            refused = refused.or(Some(error.into()));
        }
    }
    Ok(refused)
}

fn key(writer: u64, n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    key[8..].copy_from_slice(&writer.to_be_bytes());
    key
}

fn value_of(writer: u64, n: u64) -> Vec<u8> {
    let mut value = vec![n.to_le_bytes()[0]; VALUE_BYTES];
    value[..16].copy_from_slice(&key(writer, n));
    value
}

/// Writes to a file until nothing fits any more.
fn fill(path: &Path) -> Outcome<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for bytes in [1 << 20, 4096, 512] {
        while file
            .write_all(&zeros[..bytes])
            .and_then(|()| file.sync_data())
            .is_ok()
        {}
    }
    Ok(())
}
