//! What opening costs, in I/O, and that what is put off until after it survives a crash at any time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::vfs::{Fault, FaultEffect, FaultFs, Fs, ManualClock, MapMode, MemFs, OpKind};
use siltstone::{
    BackgroundMode, Db, Durability, Environment, ErrorKind, KeyspaceOptions, Options, VerifyOptions,
    WriteOptions,
};
use siltstone_sstable::{BlockCache, BlockKind, Table, TableId};

fn small() -> Options {
    Options::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(64 << 10)
        .log_size_max_bytes(256 << 10)
        .reserve_bytes(64 << 10)
}

fn open(fs: &(impl Fs + Clone)) -> Db {
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    small().open_with("db", environment).expect("opened")
}

fn put(db: &Db, from: u32, to: u32) {
    for n in from..to {
        db.put(n.to_be_bytes(), [7; 100]).expect("written");
    }
}

fn check(db: &Db, to: u32, what: &str) {
    for n in 0..to {
        let value = db.get(n.to_be_bytes()).expect("read");
        assert!(
            value.is_some_and(|value| value[..] == [7; 100]),
            "{what}: key {n}"
        );
    }
    assert!(db.get(to.to_be_bytes()).expect("read").is_none(), "{what}");
}

fn files(fs: &MemFs, extension: &str) -> usize {
    let of_kind = |path: &std::path::Path| path.to_string_lossy().contains(extension);
    fs.files().iter().filter(|(path, _)| of_kind(path)).count()
}

/// A database of 50 keys that was closed, with everything in tables or with everything in the log.
fn closed(settled: bool) -> MemFs {
    let fs = MemFs::new();
    let db = open(&fs);
    // An edit of the manifest.
    let other = KeyspaceOptions::default().memtable_size_bytes(16 << 10);
    db.keyspace("other", other).expect("created");
    put(&db, 0, 50);
    if settled {
        db.flush_all().expect("flushed");
        db.wait_idle().expect("idle");
    }
    db.close().expect("closed");
    fs
}

#[test]
fn opening_what_was_closed_writes_nothing_and_syncs_nothing() {
    for settled in [false, true] {
        let mem = closed(settled);
        assert_eq!(files(&mem, ".wal"), usize::from(!settled));
        let fs = FaultFs::new(Arc::new(mem.clone()));
        fs.set_tracing(true);
        let db = open(&fs);
        let harmless = [
            "mkdir",
            "lock",
            "list",
            "open",
            "opentable",
            "len",
            "exists",
            "read",
            "space",
        ];
        for line in fs.trace() {
            let word = line.split(' ').next().unwrap_or_default();
            assert!(harmless.contains(&word), "settled {settled}: {line}");
        }
        check(&db, 50, "after opening");
        assert_eq!(db.recovery().records, if settled { 0 } else { 50 });
        drop(db);
        assert_eq!(files(&mem, ".wal"), usize::from(!settled), "nothing was written");
        check(&open(&mem), 50, "after dropping");
    }
}

/// The first segment, the first manifest edit and the spare come after opening now; a power loss or the death of the
/// process may come between any of them.
#[test]
fn what_comes_after_opening_survives_a_crash_before_any_io() {
    for (settled, segment_first) in [(false, false), (false, true), (true, false), (true, true)] {
        for seed in 0..20 {
            let mem = closed(settled);
            let fs = FaultFs::new(Arc::new(mem.clone()));
            let crashes: Arc<parking_lot::Mutex<Vec<(MemFs, String)>>> = Arc::default();
            let db = open(&fs);
            let (crashed, list) = (mem.clone(), Arc::clone(&crashes));
            fs.on_op(Box::new(move |op| {
                let what = format!("{op:?}, settled {settled}, {segment_first}, seed {seed}");
                let mut list = list.lock();
                list.push((crashed.crash_clone(seed), what.clone()));
                list.push((crashed.process_crash_clone(), what));
            }));
            if segment_first {
                assert!(db.run_background_job().expect("prepared"));
            }
            let mut acknowledged = Vec::new();
            for n in 50..53_u32 {
                let sync = WriteOptions::default().durability(Durability::Sync);
                let mut batch = siltstone::WriteBatch::new();
                batch.put(n.to_be_bytes(), [7; 100]);
                db.write_with(batch, &sync).expect("written");
                acknowledged.push(crashes.lock().len());
            }
            db.flush_all().expect("flushed");
            db.close().expect("closed");
            fs.clear_on_op();
            let crashes = std::mem::take(&mut *crashes.lock());
            assert!(crashes.len() > 40, "{}", crashes.len());
            for (nth, (crashed, what)) in crashes.into_iter().enumerate() {
                let least = (50_u32..)
                    .zip(&acknowledged)
                    .find(|(_, at)| **at > nth)
                    .map_or(53, |(n, _)| n);
                let db = open(&crashed);
                let recovered = (least..=53)
                    .rev()
                    .find(|n| *n == least || db.get((n - 1).to_be_bytes()).expect("read").is_some())
                    .unwrap_or(least);
                check(&db, recovered, &what);
                // And it goes on from there.
                put(&db, recovered, 60);
                db.close().expect("closed");
                check(&open(&crashed), 60, &what);
            }
        }
    }
}

/// A log that was closed without a sync is not taken for one that was synced.
#[test]
fn a_sync_covers_what_was_dropped_unsynced() {
    for seed in 0..64 {
        let mem = MemFs::new();
        let db = open(&mem);
        put(&db, 0, 50);
        drop(db);
        let db = open(&mem);
        db.sync().expect("synced");
        check(&open(&mem.crash_clone(seed)), 50, &format!("seed {seed}"));
    }
}

/// With threads: dropped while the segment, the reserve and the page tables are still being made ready.
#[test]
fn opened_and_dropped_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = || small().log_segment_bytes(1 << 20).log_size_max_bytes(4 << 20);
    let db = options().open(dir.path()).expect("opened");
    put(&db, 0, 500);
    db.flush_all().expect("flushed");
    db.close().expect("closed");
    for round in 0..50 {
        let db = options().open(dir.path()).expect("opened");
        if round % 3 == 0 {
            check(&db, 500, "after opening");
        }
        if round % 2 == 0 {
            drop(db)
        } else {
            db.close().expect("closed")
        }
        let logs = std::fs::read_dir(dir.path()).expect("listed").filter(|entry| {
            let name = entry.as_ref().expect("listed").file_name();
            name.to_string_lossy().ends_with(".wal")
        });
        assert_eq!(logs.count(), 0, "round {round}");
    }
}

/// A synced log that was closed, opened, and gone on with: whatever is lost of the segment that follows is noticed.
#[test]
fn damage_behind_a_closed_segment_is_refused() {
    let mem = closed(false);
    let db = open(&mem);
    put(&db, 50, 60);
    db.close().expect("closed");
    let (path, _) = mem
        .files()
        .into_iter()
        .rfind(|(path, _)| path.to_string_lossy().ends_with(".wal"))
        .expect("a segment");
    for (from, to) in [(0, 64), (0, 512), (64, 200), (700, 800)] {
        let mut bytes = mem.read_file(&path).expect("read");
        bytes[from..to].fill(0);
        let damaged = mem.process_crash_clone();
        damaged.write_file(&path, bytes).expect("written");
        let environment = Environment {
            fs: Arc::new(damaged),
            ..Environment::default()
        };
        let error = small().open_with("db", environment).expect_err("damage");
        assert_eq!(error.kind(), siltstone::ErrorKind::Corruption, "{from}: {error}");
    }
}

fn tables(mem: &MemFs) -> impl Iterator<Item = PathBuf> {
    let paths = mem.files().into_iter().map(|(path, _)| path);
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
}

/// A table of a database that is closed, by itself.
fn table_in(mem: &MemFs, path: &Path) -> Table {
    let lock = mem.lock_dir(Path::new("db")).expect("locked");
    let mapping = mem.open_table(path, &lock, MapMode::Map).expect("mapped");
    Table::open(mapping, TableId(0), BlockCache::new(0)).expect("opened")
}

/// Where its index begins.
fn index_of(table: &Table) -> u64 {
    let layout = table.layout().expect("read");
    let index = layout.iter().find(|part| part.kind == BlockKind::Index);
    index.expect("an index").offset
}

#[test]
fn what_the_open_leaves_is_looked_at_in_the_background() {
    let mem = closed(true);
    let path = tables(&mem).next().expect("a table");
    let mut bytes = mem.read_file(&path).expect("read");
    let index = index_of(&table_in(&mem, &path));
    bytes[usize::try_from(index).expect("small") + 40] ^= 1;
    mem.write_file(&path, bytes).expect("damaged");
    let environment = Environment {
        fs: Arc::new(mem.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Threads,
    };
    let db = small().open_with("db", environment).expect("opened");
    db.wait_idle().expect("idle");
    let errors = db.metrics().background_errors;
    let told = errors
        .iter()
        .any(|error| error.path() == Some(&*path) && error.offset() == Some(index));
    assert!(told, "{errors:?}");
}

#[test]
fn an_index_that_cannot_be_read_is_tried_again_and_a_damaged_one_is_not() {
    let mem = closed(true);
    let open_by_reads = |fs: &FaultFs| {
        let environment = Environment {
            fs: Arc::new(fs.clone()),
            clock: Arc::new(ManualClock::new()),
            background: BackgroundMode::Manual,
        };
        small()
            .mapped_tables_max(0)
            .open_with("db", environment)
            .expect("opened")
    };
    let key = 7_u32.to_be_bytes();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = open_by_reads(&fs);
    fs.inject(Fault {
        nth: 0,
        kinds: Some(vec![OpKind::Read]),
        path_contains: Some(".sst".to_owned()),
        effect: FaultEffect::Eio,
        repeat: false,
    });
    assert_eq!(db.get(key).expect_err("the fault struck").kind(), ErrorKind::Io);
    assert!(db.get(key).expect("read").is_some());
    drop(db);

    let path = tables(&mem).next().expect("a table");
    let mut bytes = mem.read_file(&path).expect("read");
    let index = index_of(&table_in(&mem, &path));
    bytes[usize::try_from(index).expect("small") + 40] ^= 1;
    mem.write_file(&path, bytes).expect("damaged");
    let db = open_by_reads(&fs);
    fs.set_tracing(true);
    let reads = || fs.trace().iter().filter(|line| line.starts_with("read ")).count();
    assert_eq!(db.get(key).expect_err("damaged").kind(), ErrorKind::Corruption);
    let first = reads();
    assert!(first > 0);
    assert_eq!(db.get(key).expect_err("damaged").kind(), ErrorKind::Corruption);
    assert_eq!(reads(), first, "{:?}", fs.trace());
}

/// Whether damage lies in what the open looks at, or in what it leaves to the first read.
#[test]
fn a_damaged_index_is_met_by_the_reads_that_need_it_and_the_rest_goes_on() {
    let mem = MemFs::new();
    let db = open(&mem);
    put(&db, 0, 600);
    db.flush_all().expect("flushed");
    db.compact::<&[u8]>(..).expect("compacted");
    db.close().expect("closed");

    let mut tables: Vec<_> = tables(&mem)
        .map(|path| {
            let table = table_in(&mem, &path);
            let index = index_of(&table);
            let keys = table.properties().smallest_key.clone()..=table.properties().largest_key.clone();
            (keys, path, index)
        })
        .collect();
    tables.sort_by(|a, b| a.0.start().cmp(b.0.start()));
    assert!(tables.len() >= 3, "{tables:?}");
    let (keys, path, index) = &tables[1];
    let whole = mem.read_file(path).expect("read");
    let mut damaged = whole.clone();
    damaged[usize::try_from(*index).expect("small") + 40] ^= 1;
    mem.write_file(path, damaged).expect("damaged");

    let db = open(&mem);
    assert!(db.recovery().damaged_tables.is_empty(), "{:?}", db.recovery());
    let is_told = |error: &siltstone::Error| {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(
            (error.path(), error.offset()),
            (Some(&**path), Some(*index)),
            "{error}"
        );
    };
    for round in 0..2 {
        let mut failed = 0;
        for n in 0..600_u32 {
            let key = n.to_be_bytes();
            let in_range = keys.contains(&key.to_vec());
            match (db.get(key), db.multi_get([key]).remove(0)) {
                (Ok(Some(value)), Ok(Some(same))) if !in_range => assert_eq!(value, same),
                (Err(error), Err(same)) if in_range => {
                    is_told(&error);
                    is_told(&same);
                    failed += 1;
                }
                other => panic!("round {round}, key {n}: {other:?}"),
            }
        }
        assert!(failed > 50 && failed < 500, "{failed}");
        let before = u32::from_be_bytes(keys.start()[..].try_into().expect("four bytes"));
        let between = [&(before - 1).to_be_bytes()[..], &[0]].concat();
        assert!(db.get(between).expect("in no table").is_none());
        let mut walk = db.iter().expect("the first table is sound");
        for n in 0..before - 1 {
            let (key, _) = walk.next().expect("there").expect("another table");
            assert_eq!(key[..], n.to_be_bytes());
        }
        // The last one before the table, at the most: none of those behind it.
        let rest: Vec<_> = walk.by_ref().take(2).collect();
        let (error, sound) = rest.split_last().expect("the walk does not end in silence");
        let last = |entry: &siltstone::Result<(_, _)>| matches!(entry, Ok((key, _)) if *key == (before - 1).to_be_bytes());
        assert!(sound.iter().all(last), "{sound:?}");
        is_told(error.as_ref().expect_err("the walk comes to the damaged table"));
        assert!(walk.next().is_none(), "an error ends the walk");
        let report = db.verify(&VerifyOptions::default()).expect("verified");
        assert_eq!(report.damage.len(), 1);
        is_told(&report.damage[0].1);
        // The first round is before any background job has looked at the tables.
        let jobs = (0..100)
            .take_while(|_| db.run_background_job().expect("no output failed"))
            .count();
        assert!(jobs < 50, "{jobs} jobs, and still no end");
    }
    assert!(!db.metrics().background_errors.is_empty());
    put(&db, 600, 610);
    drop(db);

    mem.write_file(path, whole).expect("restored");
    check(&open(&mem), 610, "after the file was restored");
}
