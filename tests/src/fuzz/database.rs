//! What the targets share: files of a sound database, and what is done to one that may be anything but.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::vfs::{Fs, ManualClock, MemFs};
use siltstone::{
    BackgroundMode, Compression, Db, Environment, FilterKind, Keyspace, KeyspaceOptions, Options,
    RecoveryMode,
};
use siltstone_sstable::format::checksum;

use crate::model::DEFAULT_KEYSPACE;

pub(super) const DIR: &str = "db";

/// Steps in one direction: enough for every seed, and hostile files claim more entries than they have bytes.
const STEPS_MAX: usize = 300;
/// Jobs that a few files of a few KiB can be the cause of.
const JOBS_MAX: usize = 200;

pub(super) fn options() -> Options {
    Options::default()
        .memtable_size_bytes(16 << 10)
        .block_size_bytes(512)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(4 << 10)
        .log_size_max_bytes(64 << 10)
        .block_cache_bytes(64 << 10)
        .reserve_bytes(0)
}

pub(super) fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_size_bytes(16 << 10)
        .block_size_bytes(512)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .compression(Compression::Zstd { level: 1 })
        .filter(FilterKind::Blocked { bits_per_key: 8 })
}

pub(super) fn open(fs: &MemFs, mode: RecoveryMode) -> siltstone::Result<Db> {
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    options().recovery(mode).open_with(DIR, environment)
}

/// The files that `fill` leaves of a new database, lock aside, in order of their names. It is dropped, not closed.
pub(super) fn files_of(fill: impl FnOnce(&Db) -> siltstone::Result<()>) -> Vec<(PathBuf, Vec<u8>)> {
    let fs = MemFs::new();
    let db = open(&fs, RecoveryMode::Strict).expect("a new database opens");
    fill(&db).expect("a sound database takes writes");
    drop(db);
    let read = |path: PathBuf| {
        let bytes = fs.read_file(&path).expect("a listed file can be read");
        (path, bytes)
    };
    fs.files().into_iter().map(|(path, _)| read(path)).collect()
}

/// A file system with these files.
pub(super) fn restore<'f>(files: impl IntoIterator<Item = (&'f Path, &'f [u8])>) -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new(DIR)).expect("memory has room");
    for (path, bytes) in files {
        fs.write_file(path, bytes).expect("memory has room");
    }
    fs
}

/// Opens the database in both modes and uses it.
pub(super) fn open_and_use(files: &[(&Path, &[u8])]) {
    for mode in [RecoveryMode::Strict, RecoveryMode::Salvage] {
        let fs = restore(files.iter().copied());
        if let Ok(db) = open(&fs, mode) {
            use_all(&db);
            drop(db);
            // A database that opened goes on opening.
            if let Err(error) = open(&fs, RecoveryMode::Salvage) {
                panic!("opened once, and not again: {error:?}");
            }
        }
    }
}

/// Reads, writes, flushes, compacts, verifies and closes. Errors are right answers.
fn use_all(db: &Db) {
    for name in db.keyspaces() {
        let keyspace = if name == DEFAULT_KEYSPACE {
            Ok(Keyspace::clone(db))
        } else {
            db.keyspace(&name, keyspace_options())
        };
        if let Ok(keyspace) = keyspace {
            read(&keyspace);
        }
    }
    let _ = db.put("fuzz", "value");
    let _ = db.flush_all();
    let _ = db.compact::<&[u8]>(..);
    for _ in 0..JOBS_MAX {
        if !matches!(db.run_background_job(), Ok(true)) {
            break;
        }
    }
    read(db);
    let _ = db.verify(&siltstone::VerifyOptions::default());
    let _ = db.clone().close();
}

/// Walks both ways, turns round, and asks for the keys that come up.
fn read(keyspace: &Keyspace) {
    let Ok(mut cursor) = keyspace.cursor::<&[u8]>(..) else {
        return;
    };
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let _ = cursor.first();
    for _ in 0..STEPS_MAX {
        if !cursor.valid() {
            break;
        }
        if keys.len() < 32 {
            keys.push(cursor.key().to_vec());
        }
        let _ = cursor.value();
        let _ = cursor.next();
    }
    let _ = cursor.last();
    for step in 0..STEPS_MAX {
        if !cursor.valid() {
            break;
        }
        let _ = if step % 5 == 4 {
            cursor.next()
        } else {
            cursor.prev()
        };
    }
    for key in &keys {
        let _ = cursor.seek(key);
        if cursor.valid() {
            let _ = cursor.prev();
        }
        let _ = cursor.seek_for_prev(key);
        let _ = keyspace.get(key);
    }
    let _ = keyspace.multi_get(&keys);
    let _ = keyspace.get("no such key");
}

/// Puts `number` at `at`, if there is room.
pub(super) fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<8>()) {
        *place = number.to_le_bytes();
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*word)).ok()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<8>()?;
    usize::try_from(u64::from_le_bytes(*word)).ok()
}

/// Puts the checksum of `range` at `at`; nothing where either is not there.
pub(super) fn seal(bytes: &mut [u8], range: std::ops::Range<usize>, at: usize) {
    if let Some(covered) = bytes.get(range) {
        let sum = checksum(covered);
        put_u64(bytes, at, sum);
    }
}
