//! Writing: the load, the background load that goes on while addresses are looked up, and the delete of a country.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use siltstone::{Db, Keyspace, KeyspaceOptions, Options, WriteBatch};

use crate::Result;
use crate::entry;
use crate::source::{Country, Range};

/// Ranges that are committed together.
const RANGES_A_BATCH: usize = 512;
/// The keyspace that the background load fills with copies and drops again.
const COPY: &str = "copy";
/// The country of a copy: none, so that a copy that shows up in an answer is a wrong one.
const NO_COUNTRY: [u8; 2] = *b"--";

/// Sizes so small that this little data goes through many flushes and compactions. The defaults (64 MiB memtables
/// and tables) would keep all of it in one memtable; a program with a normal load keeps the defaults.
pub(crate) struct Sizes {
    pub(crate) memtable_bytes: u64,
    pub(crate) table_bytes: u64,
    pub(crate) level_base_bytes: u64,
    pub(crate) log_segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
}

impl Sizes {
    /// About sixteen memtables for a load of `ranges`, which take about 100 bytes of memtable each.
    pub(crate) fn of(ranges: usize) -> Sizes {
        let memtable_bytes = (ranges as u64 * 100 / 16).clamp(64 << 10, 4 << 20);
        Sizes {
            memtable_bytes,
            table_bytes: memtable_bytes,
            level_base_bytes: memtable_bytes * 4,
            log_segment_bytes: 4 << 20,
            reserve_bytes: 1 << 20,
        }
    }

    /// Opens, or creates, the database in `dir` with these sizes.
    pub(crate) fn open(&self, dir: &Path) -> Result<Db> {
        let options = Options::default()
            .memtable_size_bytes(self.memtable_bytes)
            .target_table_bytes(self.table_bytes)
            .level_base_bytes(self.level_base_bytes)
            .log_segment_bytes(self.log_segment_bytes)
            .reserve_bytes(self.reserve_bytes);
        Ok(options.open(dir)?)
    }

    fn keyspace(&self) -> KeyspaceOptions {
        KeyspaceOptions::default()
            .memtable_size_bytes(self.memtable_bytes)
            .target_table_bytes(self.table_bytes)
            .level_base_bytes(self.level_base_bytes)
    }
}

/// Writes all ranges in batches, and returns how long that took.
pub(crate) fn load(db: &Db, ranges: &[Range]) -> Result<Duration> {
    let begin = Instant::now();
    put_all(db, db, ranges, None, &AtomicBool::new(false))?;
    Ok(begin.elapsed())
}

/// Deletes the ranges of `country`, and returns how many there were.
pub(crate) fn delete(db: &Db, ranges: &[Range], country: Country) -> Result<usize> {
    let mut batch = WriteBatch::new();
    let mut deleted = 0;
    for range in ranges.iter().filter(|range| range.country == country) {
        batch.delete(entry::key(range.start));
        deleted += 1;
        if batch.len() == RANGES_A_BATCH {
            db.write(std::mem::take(&mut batch))?;
        }
    }
    db.write(batch)?;
    Ok(deleted)
}

/// What the background load did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Churned {
    pub(crate) rounds: u64,
    pub(crate) entries: u64,
}

/// Until `stop` is set: writes all ranges again as they are, writes a copy of each into another keyspace, flushes and
/// compacts both, and drops the copies. None of it may change an answer. Sets `first_done` when it has done all that
/// once (or has failed, so that nobody waits for it).
pub(crate) fn churn(
    db: &Db,
    sizes: &Sizes,
    ranges: &[Range],
    first_done: &AtomicBool,
    stop: &AtomicBool,
) -> Result<Churned> {
    let _announce = SetOnDrop(first_done);
    let mut churned = Churned::default();
    while !stop.load(Ordering::Acquire) {
        churned.entries += put_all(db, db, ranges, None, stop)?;
        let copies = db.keyspace(COPY, sizes.keyspace())?;
        churned.entries += put_all(db, &copies, ranges, Some(NO_COUNTRY), stop)?;
        if !stop.load(Ordering::Acquire) {
            db.flush_all()?;
            db.compact::<&[u8]>(..)?;
            copies.compact::<&[u8]>(..)?;
            churned.rounds += 1;
        }
        db.drop_keyspace(COPY)?;
        first_done.store(true, Ordering::Release);
    }
    Ok(churned)
}

/// Writes ranges to a keyspace until `stop` is set, and returns how many.
fn put_all(
    db: &Db,
    keyspace: &Keyspace,
    ranges: &[Range],
    country: Option<[u8; 2]>,
    stop: &AtomicBool,
) -> Result<u64> {
    let mut written = 0;
    for ranges in ranges.chunks(RANGES_A_BATCH) {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let mut batch = WriteBatch::new();
        for range in ranges {
            let value = entry::value(range.end, country.unwrap_or(range.country.bytes()));
            batch.put_in(keyspace, entry::key(range.start), value);
        }
        db.write(batch)?;
        written += ranges.len() as u64;
    }
    Ok(written)
}

/// Sets a flag however its holder ends.
pub(crate) struct SetOnDrop<'f>(pub(crate) &'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
