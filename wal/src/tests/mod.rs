//! The log as a whole, on file systems in memory.
#![allow(clippy::cast_possible_truncation)] // Small numbers, made here.

mod close;
mod concurrency;
mod crash;
mod damage;
mod failures;
mod os;
mod recovery;
mod reuse;
mod round_trip;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use siltstone_vfs::{Fs, LogIo, MemFs, Result};

use crate::{
    Log, LogOptions, LogSyncer, RecordSeq, Replay, SegmentId, Tail, TailPolicy, parse_segment_name, replay,
    segment_path,
};

const DIR: &str = "/db";

fn small() -> LogOptions {
    LogOptions {
        segment_size_bytes: 4096,
        io: LogIo::Mapped,
    }
}

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn mem_fs() -> Arc<MemFs> {
    let fs = MemFs::new();
    fs.create_dir_all(dir()).expect("a directory");
    fs.sync_dir(Path::new("/")).expect("synced");
    Arc::new(fs)
}

fn create(fs: &Arc<MemFs>) -> (Log, Arc<LogSyncer>) {
    Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(1), small()).expect("a log")
}

/// The segment files there are.
fn segments(fs: &dyn Fs) -> Vec<SegmentId> {
    let mut ids: Vec<_> = fs
        .list(dir())
        .expect("listed")
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    ids.sort();
    ids
}

/// All records and what replay says.
fn read(fs: &dyn Fs, policy: TailPolicy) -> (Vec<(u64, Vec<u8>)>, Result<Replay>) {
    let mut records = Vec::new();
    let outcome = replay(fs, dir(), &segments(fs), policy, &mut |record| {
        records.push((record.sequence.0, record.payload.to_vec()));
        Ok(())
    });
    (records, outcome)
}

fn read_strict(fs: &dyn Fs) -> (Vec<(u64, Vec<u8>)>, Replay) {
    let (records, outcome) = read(fs, TailPolicy::Strict);
    (records, outcome.expect("a log that can be read"))
}

/// A payload that its sequence tells.
fn payload(sequence: u64) -> Vec<u8> {
    let len = (sequence * 37 % 300) as usize;
    (0..len)
        .map(|at| (sequence as usize * 31 + at * 7) as u8 | 1)
        .collect()
}

/// The records that a log of `payload`s has up to `last`.
fn expected(last: u64) -> Vec<(u64, Vec<u8>)> {
    (1..=last).map(|sequence| (sequence, payload(sequence))).collect()
}

/// What holds after a power loss, or after the death of the process alone: the last record read is one of those that it
/// may be, no watermark says more than was `synced`, and where no power was lost nothing is.
fn check_recovered(
    what: &str,
    replay: &Replay,
    recovered: u64,
    allowed: RangeInclusive<u64>,
    synced: u64,
    process_only: bool,
) {
    assert!(
        allowed.contains(&recovered),
        "{what}: {recovered} is none of {allowed:?}"
    );
    assert!(
        replay.synced.0 <= synced,
        "{what}: a watermark that was never true"
    );
    if process_only {
        assert_eq!(
            (recovered, &replay.tail),
            (*allowed.end(), &Tail::Clean),
            "{what}"
        );
    }
}

fn append_to(log: &mut Log, last: u64) {
    while log.next_sequence() <= RecordSeq(last) {
        let bytes = payload(log.next_sequence().0);
        log.append(&[&bytes]).expect("appended");
    }
}

fn corrupt(fs: &MemFs, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let path = segment_path(dir(), SegmentId(segment));
    let mut bytes = fs.read_file(&path).expect("a segment");
    change(&mut bytes);
    fs.write_file(&path, bytes).expect("written");
}

/// A generator for tests: xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
