//! What no other suite noticed when it was broken on purpose: see `--bin mutants`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use siltstone::vfs::{Fault, FaultEffect, FaultFs, ManualClock, MemFs, OpKind};
use siltstone::{BackgroundMode, Db, Environment, Options, WriteBatch};
use siltstone_tests::check_directory;

fn on_faults() -> (MemFs, FaultFs, Db) {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    let db = Options::default()
        .log_segment_bytes(64 << 10)
        .log_size_max_bytes(1 << 20)
        .reserve_bytes(0)
        .open_with("db", environment)
        .unwrap();
    (mem, fs, db)
}

fn once(kind: OpKind, path: &str) -> Fault {
    Fault {
        nth: 0,
        kinds: Some(vec![kind]),
        path_contains: Some(path.to_owned()),
        effect: FaultEffect::Eio,
        repeat: false,
    }
}

fn tables(fs: &MemFs) -> usize {
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    fs.files().iter().filter(|(path, _)| is_table(path)).count()
}

#[test]
fn a_failed_flush_leaves_no_table() {
    let (mem, fs, db) = on_faults();
    db.put("a", "1").unwrap();
    fs.inject(once(OpKind::Sync, ".sst"));
    db.flush().unwrap_err();
    assert_eq!(fs.faults_struck(), 1);
    assert_eq!(tables(&mem), 0);
    db.resume().unwrap();
    assert_eq!(tables(&mem), 1);
}

#[test]
fn an_obsolete_table_that_could_not_be_cut_is_removed_later() {
    let (mem, fs, db) = on_faults();
    for round in 0..3 {
        db.put("a", format!("{round}")).unwrap();
        db.flush().unwrap();
    }
    assert_eq!(tables(&mem), 3);
    fs.inject(once(OpKind::Truncate, ".sst"));
    db.compact::<&[u8]>(..).unwrap();
    check_directory(&mem, Path::new("db"), &db).unwrap();
    assert_eq!((fs.faults_struck(), tables(&mem)), (1, 1));
}

/// One thread writes batches that take long to insert; another commits small ones in the middle of that, and takes a
/// snapshot at what is visible then; a third flushes. Whoever published before all that came before it were inserted would
/// show half of a large batch, and a flush that did not wait for it would lose the other half.
#[test]
fn small_writes_and_flushes_in_the_middle_of_large_batches() {
    const KEYS: u32 = 8_000;
    const ROUNDS: u8 = 12;
    let environment = Environment {
        fs: Arc::new(MemFs::new()),
        ..Environment::default()
    };
    let db = Options::default()
        .memtable_size_bytes(64 << 20)
        .log_segment_bytes(4 << 20)
        .reserve_bytes(0)
        .l0_stall_tables(1000, 2000)
        .open_with("db", environment)
        .unwrap();
    // The ends of a batch, and so of its insertion, are its first and last keys.
    let (first, last) = (0_u32.to_be_bytes(), (KEYS - 1).to_be_bytes());
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..ROUNDS {
                let mut batch = WriteBatch::new();
                (0..KEYS).for_each(|key| _ = batch.put(key.to_be_bytes(), [round; 20]));
                db.write(batch).unwrap();
            }
            writing.store(false, Ordering::Release);
        });
        let flusher = scope.spawn(|| {
            while writing.load(Ordering::Acquire) {
                db.flush().unwrap();
            }
        });
        let mut n = 0_u32;
        while writing.load(Ordering::Acquire) {
            db.put("small", n.to_le_bytes()).unwrap();
            let snapshot = db.snapshot().unwrap();
            let (a, b) = (snapshot.get(first).unwrap(), snapshot.get(last).unwrap());
            assert_eq!(a, b, "half of a batch is visible");
            n += 1;
        }
        writer.join().unwrap();
        flusher.join().unwrap();
    });
    let found = db.iter().unwrap().filter(|entry| {
        let (key, value) = entry.as_ref().unwrap();
        key.len() == 4 && value[..] == [ROUNDS - 1; 20]
    });
    assert_eq!(found.count(), KEYS as usize);
}
