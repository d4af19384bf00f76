//! What is read of files that are not in the page cache. On a file system that is itself memory there is nothing to see.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use siltstone::vfs::{Fs, MapMode, OsFs, cached_pages};
use siltstone::{Db, Options};
use siltstone_sstable::{BlockCache, BlockKind, Table, TableId};

const RECORD_BYTES: usize = 1024;

/// A table of a closed database, with no page in the cache.
struct Dropped {
    smallest: Vec<u8>,
    file: File,
    /// Where its blocks end.
    data_end: u64,
}

/// The tables of the database in `dir` in key order, or none where they stay in memory.
fn dropped_tables(dir: &Path) -> Vec<Dropped> {
    let lock = OsFs.lock_dir(dir).expect("locked");
    let entries = std::fs::read_dir(dir).expect("listed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut tables = Vec::new();
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst")) {
        let mapping = OsFs.open_table(&path, &lock, MapMode::Read).expect("opened");
        let table = Table::open(mapping, TableId(0), BlockCache::new(0)).expect("opened");
        let layout = table.layout().expect("read");
        let mut data = layout.iter().filter(|part| part.kind == BlockKind::Data);
        let last = data.next_back().expect("a block");
        let file = File::open(&path).expect("opened");
        file.sync_all().expect("synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
        tables.push(Dropped {
            smallest: table.properties().smallest_key.to_vec(),
            file,
            data_end: last.offset + last.stored_bytes,
        });
    }
    if tables.iter().any(|table| table.caches_any(0..u64::MAX)) {
        println!("the tables stay in the page cache: nothing is tested");
        tables.clear();
    }
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    tables
}

impl Dropped {
    fn caches_any(&self, part: std::ops::Range<u64>) -> bool {
        cached_pages(&self.file, part).expect("told").contains(&true)
    }

    fn caches_all(&self, part: std::ops::Range<u64>) -> bool {
        !cached_pages(&self.file, part).expect("told").contains(&false)
    }
}

/// Writes so many records into each of the tables, in order.
fn fill(dir: &Path, tables: &[u32]) {
    let db = Db::open(dir).expect("opened");
    let mut next = 0_u32;
    for records in tables {
        for _ in 0..*records {
            db.put(next.to_be_bytes(), [7; RECORD_BYTES]).expect("written");
            next += 1;
        }
        db.flush().expect("flushed");
    }
    db.wait_idle().expect("idle");
}

#[test]
fn a_cold_open_reads_none_of_the_data() {
    let dir = tempfile::tempdir().expect("made");
    // What lies behind the data is less than what the system reads around a page, 64 KiB before it where nobody has set more.
    fill(dir.path(), &[2000]);
    let tables = dropped_tables(dir.path());
    let db = Options::default().open(dir.path()).expect("opened");
    db.wait_idle().expect("idle");
    for table in &tables {
        let len = table.file.metadata().expect("known").len();
        assert!(len - table.data_end < 60 << 10, "{} of {len}", table.data_end);
        let page = rustix::param::page_size() as u64;
        let whole_pages = table.data_end / page * page;
        assert!(!table.caches_any(0..whole_pages), "{len}");
    }
}

#[test]
fn a_long_walk_goes_on_from_table_to_table() {
    let dir = tempfile::tempdir().expect("made");
    fill(dir.path(), &[10_000; 3]);
    let tables = dropped_tables(dir.path());
    let db = Options::default().open(dir.path()).expect("opened");
    db.wait_idle().expect("idle");
    let mut cursor = db.cursor::<&[u8]>(..).expect("opened");
    cursor.first().expect("read");
    for table in tables.get(1..).unwrap_or_default() {
        while cursor.key() < table.smallest.as_slice() {
            cursor.next().expect("read");
        }
        // A walk that begins anew has read one block, one that goes on a piece.
        assert!(table.caches_all(0..128 << 10));
    }
    assert_ne!(tables.len(), 1);
}
