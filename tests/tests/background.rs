//! What background work leaves behind, and what it holds on to meanwhile.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use siltstone::vfs::{FaultFs, Fs, ManualClock, MemFs, OpKind};
use siltstone::{BackgroundMode, Db, Environment, Options};

fn environment(fs: impl Fs, background: BackgroundMode) -> Environment {
    Environment {
        fs: Arc::new(fs),
        clock: Arc::new(ManualClock::new()),
        background,
    }
}

fn value(byte: u8) -> Vec<u8> {
    vec![byte; 1000]
}

/// One table would be enough to look through for each read; jobs alone wait for as many as the options say.
#[test]
fn wait_idle_leaves_nothing_in_level_0() {
    for background in [BackgroundMode::Manual, BackgroundMode::Threads] {
        let options = Options::default().l0_compaction_trigger(4);
        let db = options
            .open_with("db", environment(MemFs::new(), background))
            .unwrap();
        for round in 0..3_u8 {
            for key in 0..100_u8 {
                db.put([key], value(round)).unwrap();
            }
            db.flush_all().unwrap();
        }
        if background == BackgroundMode::Manual {
            while db.run_background_job().unwrap() {}
            assert_eq!(db.metrics().levels[0].0, 3);
        }
        let snapshot = db.snapshot().unwrap();
        db.wait_idle().unwrap();
        let metrics = db.metrics();
        assert_eq!(metrics.levels[0].0, 0, "{background:?}");
        assert_eq!(metrics.table_entries, 100, "{background:?}");
        assert_eq!(snapshot.get([7]).unwrap().unwrap(), value(2));
        // And it is over with the waiting.
        db.put([1], value(4)).unwrap();
        db.flush_all().unwrap();
        if background == BackgroundMode::Manual {
            while db.run_background_job().unwrap() {}
            assert_eq!(db.metrics().levels[0].0, 1);
        }
    }
}

/// A spare takes as much of the disk as a segment. What follows makes another one.
#[test]
fn wait_idle_leaves_one_log_segment() {
    for background in [BackgroundMode::Manual, BackgroundMode::Threads] {
        let fs = MemFs::new();
        let segments = || {
            let names = fs.list(Path::new("db")).unwrap();
            names.iter().filter(|name| name.ends_with(".wal")).count()
        };
        let open = || {
            let options = Options::default().log_segment_bytes(64 << 10);
            options
                .open_with("db", environment(fs.clone(), background))
                .unwrap()
        };
        let db = open();
        // The first segment is a spare until the first write.
        db.wait_idle().unwrap();
        assert!(segments() <= 1, "{background:?}");
        for round in 1..=3_u8 {
            for key in 0..100_u8 {
                db.put([key], value(round)).unwrap();
            }
            db.flush_all().unwrap();
            // A spare that was asked for before may just be made.
            let mut settled = (0..50).map(|_| db.wait_idle().map(|()| segments()).unwrap());
            assert!(settled.any(|segments| segments == 1), "{background:?}");
        }
        drop(db);
        let db = open();
        for key in 0..100_u8 {
            assert_eq!(db.get([key]).unwrap().unwrap(), value(3));
        }
    }
}

/// A compaction of seconds once pinned each memtable that was there when it began.
#[test]
fn a_compaction_holds_no_memtable() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let (merging, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    fs.on_op(Box::new({
        let (merging, go_on) = (Arc::clone(&merging), Arc::clone(&go_on));
        move |op| {
            let compacts = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("siltstone-comp"));
            if compacts && op.kind == OpKind::Create {
                merging.store(true, Ordering::SeqCst);
                while !go_on.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
        }
    }));
    let options = Options::default().l0_compaction_trigger(2);
    let db = options
        .open_with(Path::new("db"), environment(fs.clone(), BackgroundMode::Threads))
        .unwrap();
    for round in 0..2_u8 {
        db.put("key", value(round)).unwrap();
        db.flush_all().unwrap();
    }
    while !merging.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    // These go into the memtable that was the active one when the compaction began.
    for key in 0..4000_u32 {
        db.put(key.to_be_bytes(), value(7)).unwrap();
    }
    let full = db.metrics().memtable_memory_bytes;
    assert!(full > 4_000_000, "{full}");
    db.flush_all().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while db.metrics().memtable_memory_bytes > 1_000_000 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let left = db.metrics().memtable_memory_bytes;
    go_on.store(true, Ordering::SeqCst);
    db.wait_idle().unwrap();
    assert!(left < 1_000_000, "{left} of {full} bytes are still held");
}

/// Puts of a kilobyte, each of which takes so long, until the memtable is full: how many.
fn puts_to_fill_a_memtable(db: &Db, clock: &ManualClock, pause: Duration) -> usize {
    let before = db.metrics().immutable_memtables;
    for put in 0.. {
        clock.advance(pause);
        db.put([7], value(1)).unwrap();
        // The one that was full takes no more, and another one has.
        if db.metrics().immutable_memtables > before {
            return put;
        }
    }
    unreachable!()
}

/// Large memtables are for writers who are in a hurry, or would be if they were let.
#[test]
fn memtables_of_unhurried_writers_have_half_the_size() {
    const FULL: std::ops::Range<usize> = 230..260;
    const HALF: std::ops::Range<usize> = 115..130;
    let clock = ManualClock::new();
    let open = |options: Options| {
        let environment = Environment {
            fs: Arc::new(MemFs::new()),
            clock: Arc::new(clock.clone()),
            background: BackgroundMode::Manual,
        };
        options
            .memtable_size_bytes(256 << 10)
            .open_with("db", environment)
            .unwrap()
    };
    let (fast, slow) = (Duration::from_micros(50), Duration::from_micros(70));
    let db = open(Options::default());
    let fill = |pause| puts_to_fill_a_memtable(&db, &clock, pause);
    let flush = || while db.run_background_job().unwrap() {};
    assert!(HALF.contains(&fill(fast)), "of the first one nothing is known");
    flush();
    assert!(FULL.contains(&fill(slow)), "it came fast");
    flush();
    assert!(HALF.contains(&fill(slow)));
    assert!(HALF.contains(&fill(slow)), "before it nothing waited");
    flush();
    assert!(
        FULL.contains(&fill(slow)),
        "when it was made, one waited for its flush"
    );

    let db = open(Options::default().l0_compaction_trigger(2).l0_stall_tables(2, 50));
    let fill = |pause| puts_to_fill_a_memtable(&db, &clock, pause);
    for table in 0..4 {
        let puts = fill(slow);
        let expected = if table < 3 { HALF } else { FULL };
        assert!(
            expected.contains(&puts),
            "{puts} puts with {table} tables: writers are slowed down from two on"
        );
        // Flushes go before compactions.
        while db.metrics().levels[0].0 == table {
            assert!(db.run_background_job().unwrap());
        }
    }
}
