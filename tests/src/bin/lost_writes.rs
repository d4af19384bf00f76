//! Power cuts under the unmodified engine: a real ext4 on a loop device is shut down in the middle of writes.
//!
//! `tests/lost_writes.sh` builds and runs it; it needs root, loop devices and `mkfs.ext4`. A process (`crash_child`) writes
//! to a database on the file system from several threads and says what has been acknowledged. At some moment the file
//! system is told to stop as if the power had gone (`EXT4_IOC_SHUTDOWN` without flushing its journal): whatever is only in
//! the page cache is lost, log mappings included. It is mounted again, replays its journal, and the database must open
//! with a prefix of each thread's batches that has everything whose sync was acknowledged.
//!
//! Arguments: how many cuts, and a seed.
#![allow(unsafe_code)] // One ioctl; see `cut_power`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::ioctl::{Setter, ioctl, opcode};
use siltstone::vfs::OsFs;
use siltstone::{Keyspace, VerifyOptions};
use siltstone_tests::{RandomOptions, Violation, check_directory};

const THREADS: usize = 3;
/// Cuts of one database, before a new one is made with other options.
const CUTS_PER_DATABASE: u64 = 8;
const IMAGE_BYTES: u64 = 256 << 20;

/// `EXT4_IOC_SHUTDOWN`, the same number as XFS's.
const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125) as u32;
/// Without flushing the journal.
const NO_LOG_FLUSH: u32 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(cuts)), Some(Ok(seed))) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: lost_writes CUTS SEED");
        return ExitCode::from(2);
    };
    let mut figures = Figures::default();
    for n in 0..cuts.div_ceil(CUTS_PER_DATABASE) {
        let left = (cuts - n * CUTS_PER_DATABASE).min(CUTS_PER_DATABASE);
        if let Err(violation) = one_database(seed + n, left, &mut figures) {
            eprintln!("lost_writes: seed {}: {violation}", seed + n);
            return ExitCode::FAILURE;
        }
    }
    println!("{figures:?}");
    ExitCode::SUCCESS
}

#[derive(Debug, Default)]
struct Figures {
    cuts: u64,
    batches_acknowledged: u64,
    /// Of these, the ones that a power cut took: none of them had been synced.
    buffered_batches_lost: u64,
}

fn one_database(seed: u64, cuts: u64, figures: &mut Figures) -> Result<(), Violation> {
    let dir = tempfile::tempdir().map_err(io)?;
    let image = dir.path().join("image");
    File::create(&image)
        .and_then(|file| file.set_len(IMAGE_BYTES))
        .map_err(io)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    for n in 0..cuts {
        let until = 1 + (seed.wrapping_mul(7919) + n * 104_729) % 2500;
        let mounted = Mounted::new(&image, &dir.path().join("mounted"))?;
        let acknowledged = write_and_cut(&mounted, seed, until)?;
        drop(mounted);
        let mounted = Mounted::new(&image, &dir.path().join("mounted"))?;
        let lost = check(&mounted.dir.join("db"), seed, &acknowledged)
            .map_err(|violation| violation.context(format!("cut {n}")))?;
        figures.cuts += 1;
        figures.batches_acknowledged += acknowledged.iter().map(|thread| thread.written).sum::<u64>();
        figures.buffered_batches_lost += lost;
    }
    Ok(())
}

/// What one thread was told, in this life of the process.
#[derive(Clone, Copy, Default)]
struct Acknowledged {
    written: u64,
    last: Option<u64>,
    synced: Option<u64>,
}

/// Runs the writer until `until` batches are acknowledged, and a little further: until the power goes.
fn write_and_cut(mounted: &Mounted, seed: u64, until: u64) -> Result<[Acknowledged; THREADS], Violation> {
    let program = std::env::current_exe().map_err(io)?.with_file_name("crash_child");
    let mut child = Command::new(program)
        .arg(mounted.dir.join("db"))
        .args([THREADS.to_string(), seed.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    let output = child
        .stdout
        .take()
        .ok_or_else(|| Violation::new("the writer has no output"))?;
    let mut acknowledged = [Acknowledged::default(); THREADS];
    let mut lines = 0;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(io)?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        // The last line may be cut.
        let [thread, number, sync] = numbers[..] else {
            break;
        };
        let thread = usize::try_from(thread).unwrap_or(THREADS).min(THREADS - 1);
        acknowledged[thread].written += 1;
        acknowledged[thread].last = Some(number);
        if sync == 1 {
            acknowledged[thread].synced = Some(number);
        }
        lines += 1;
        if lines == until {
            cut_power(&mounted.dir)?;
            child.kill().map_err(io)?;
        }
    }
    let status = child.wait().map_err(io)?;
    if lines < until {
        return Err(Violation::new(format!(
            "the writer ended after {lines} batches: {status}"
        )));
    }
    Ok(acknowledged)
}

/// Says how many acknowledged batches are gone.
fn check(dir: &Path, seed: u64, acknowledged: &[Acknowledged; THREADS]) -> Result<u64, Violation> {
    let failed = |during: &'static str| move |error| Violation::unexpected(during, &error);
    let options = RandomOptions::new(seed);
    let db = options.options().open(dir).map_err(failed("recovery"))?;
    let other = db
        .keyspace("other", options.keyspace("other"))
        .map_err(failed("keyspace"))?;
    let mut lost = 0;
    for (thread, acknowledged) in acknowledged.iter().enumerate() {
        let keys = |keyspace: &Keyspace| {
            let entries = keyspace.prefix(format!("{thread}/"))?;
            entries
                .map(|entry| Ok(entry?.0))
                .collect::<siltstone::Result<Vec<_>>>()
        };
        let (here, there) = (
            keys(&db).map_err(failed("scan"))?,
            keys(&other).map_err(failed("scan"))?,
        );
        let present = here.len() as u64;
        let hole = (0..)
            .zip(&here)
            .find(|(n, key)| **key != format!("{thread}/{n:010}").as_bytes()[..]);
        if let Some((n, key)) = hole {
            return Err(Violation::new(format!(
                "thread {thread}: a hole at {n}, where {key:?} is"
            )));
        }
        if here != there {
            let what = format!(
                "thread {thread}: {present} batches in one keyspace, {} in the other",
                there.len()
            );
            return Err(Violation::new(what));
        }
        let least = acknowledged.synced.map_or(0, |last| last + 1);
        if present < least {
            return Err(Violation::new(format!(
                "thread {thread}: {present} batches, {least} were acknowledged as synced"
            )));
        }
        lost += acknowledged
            .last
            .map_or(0, |last| (last + 1).saturating_sub(present));
    }
    let report = db.verify(&VerifyOptions::default()).map_err(failed("verify"))?;
    if !report.is_sound() {
        return Err(Violation::new(format!("verify: {:?}", report.damage)));
    }
    check_directory(&OsFs::new(), dir, &db)?;
    drop(other);
    db.close().map_err(failed("close"))?;
    Ok(lost)
}

/// A mounted image; unmounted when it is dropped.
struct Mounted {
    dir: PathBuf,
}

impl Mounted {
    fn new(image: &Path, dir: &Path) -> Result<Mounted, Violation> {
        std::fs::create_dir_all(dir).map_err(io)?;
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(image)
            .arg(dir))?;
        Ok(Mounted { dir: dir.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(violation) = run(Command::new("umount").arg(&self.dir)) {
            eprintln!("lost_writes: {violation}");
        }
    }
}

/// Stops the file system below `dir` at once: nothing that it has not written reaches the device any more.
fn cut_power(dir: &Path) -> Result<(), Violation> {
    let root = File::open(dir).map_err(io)?;
    // SAFETY: the opcode takes a pointer to one u32, which is what `Setter` passes; the kernel only reads it. What it
    // stops is the file system that `Mounted` has made for this.
    let outcome = unsafe { ioctl(&root, Setter::<{ SHUTDOWN }, u32>::new(NO_LOG_FLUSH)) };
    outcome.map_err(|error| Violation::new(format!("the file system cannot be shut down: {error}")))
}

fn run(command: &mut Command) -> Result<(), Violation> {
    let output = command.output().map_err(io)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Violation::new(format!("{command:?}: {} {said}", output.status)))
}

fn io(error: std::io::Error) -> Violation {
    Violation::new(error.to_string())
}
