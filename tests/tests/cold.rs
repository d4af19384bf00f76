//! What is read of files that are not in the page cache.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use siltstone::Options;
use siltstone::vfs::{Fs, MapMode, OsFs};
use siltstone_sstable::{BlockCache, Table, TableId};

const MIB: u64 = 1 << 20;

/// Whether the page that holds byte `at` is in the page cache. Asking brings it there.
fn is_cached(file: &File, at: u64) -> bool {
    let mut byte = [0];
    match preadv2(
        file,
        &mut [IoSliceMut::new(&mut byte)],
        at,
        ReadWriteFlags::NOWAIT,
    ) {
        Err(Errno::AGAIN) => false,
        // Also where the file system cannot tell.
        _ => true,
    }
}

/// The tables of the database in `dir`, which is closed, in key order, with none of their pages in the cache; nothing on a
/// file system that is itself memory. With their smallest keys.
fn dropped_tables(dir: &Path) -> Vec<(Vec<u8>, File)> {
    let lock = OsFs.lock_dir(dir).expect("locked");
    let entries = std::fs::read_dir(dir).expect("listed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut tables = Vec::new();
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst")) {
        let mapping = OsFs.open_table(&path, &lock, MapMode::Read).expect("opened");
        let table = Table::open(mapping, TableId(0), BlockCache::new(0)).expect("opened");
        let file = File::open(&path).expect("opened");
        file.sync_all().expect("synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
        // What is asked for by this is not read around, either.
        fadvise(&file, 0, None, Advice::Random).expect("advised");
        if !is_cached(&file, 0) {
            tables.push((table.properties().smallest_key.to_vec(), file));
        }
    }
    tables.sort_by(|(a, _), (b, _)| a.cmp(b));
    tables
}

/// Writes `count` records of 1 KiB in order, and closes.
fn fill(dir: &Path, count: u32) {
    let db = Options::default().open(dir).expect("opened");
    for n in 0..count {
        db.put(n.to_be_bytes(), [7; 1024]).expect("written");
    }
    db.flush().expect("flushed");
    db.wait_idle().expect("idle");
}

#[test]
fn a_cold_open_reads_none_of_the_data() {
    let dir = tempfile::tempdir().expect("made");
    fill(dir.path(), 6000);
    let tables = dropped_tables(dir.path());
    let db = Options::default().open(dir.path()).expect("opened");
    db.wait_idle().expect("idle");
    for (_, file) in &tables {
        let len = file.metadata().expect("known").len();
        assert!(len > 3 * MIB, "{len}");
        // Footer, directory, properties, index and filter lie behind this. How far the system reads around what is touched
        // is up to the machine: 64 KiB by default, megabytes on some.
        for at in (4096..len - MIB / 2).step_by(4096) {
            assert!(!is_cached(file, at), "byte {at} of {len}");
        }
    }
}

#[test]
fn a_long_walk_goes_on_from_table_to_table() {
    let dir = tempfile::tempdir().expect("made");
    fill(dir.path(), 40_000);
    let tables = dropped_tables(dir.path());
    let db = Options::default().open(dir.path()).expect("opened");
    db.wait_idle().expect("idle");
    let mut cursor = db.cursor::<&[u8]>(..).expect("opened");
    cursor.first().expect("read");
    for (smallest, file) in tables.get(1..).unwrap_or_default() {
        while cursor.key() < smallest.as_slice() {
            cursor.next().expect("read");
        }
        let read_ahead = 3 * MIB;
        assert!(file.metadata().expect("known").len() > read_ahead + MIB);
        assert!(is_cached(file, read_ahead), "{smallest:?}");
    }
    assert_ne!(tables.len(), 1);
}
