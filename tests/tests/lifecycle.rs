//! Full disks, closing at awkward moments, locks, dropped and idle keyspaces, and many threads at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use siltstone::vfs::{Clock, Fs, ManualClock, MemFs};
use siltstone::{
    BackgroundMode, BusyReason, Db, Environment, ErrorKind, KeyspaceOptions, Options, WriteBatch,
    WriteOptions,
};
use siltstone_tests::check_directory;

fn small() -> Options {
    Options::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(16 << 10)
        .log_size_max_bytes(64 << 10)
        .reserve_bytes(256 << 10)
}

fn small_keyspace() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
}

fn manual(fs: &MemFs) -> (Environment, ManualClock) {
    let clock = ManualClock::new();
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(clock.clone()),
        background: BackgroundMode::Manual,
    };
    (environment, clock)
}

fn threaded(fs: &MemFs) -> Environment {
    Environment {
        fs: Arc::new(fs.clone()),
        ..Environment::default()
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("key{n:08}").into_bytes()
}

/// A value that belongs to `n` and does not compress to nothing.
fn value(n: u64, len: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[test]
fn a_full_disk_loses_nothing_and_writes_resume_by_themselves() {
    for capacity in (1_000_000..3_400_000).step_by(52_444) {
        let fs = MemFs::new();
        let (environment, clock) = manual(&fs);
        let db = small().open_with("db", environment).unwrap();
        fs.set_capacity(Some(capacity));
        // Fill it: whatever is acknowledged counts.
        let mut acknowledged = 0;
        let full = loop {
            // Background work keeps up; it meets the full disk, too.
            match db
                .run_background_job()
                .and_then(|_| db.put(key(acknowledged), value(acknowledged, 400)))
            {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged * 400 < capacity * 4, "the disk never fills");
        };
        assert_eq!(full.kind(), ErrorKind::NoSpace, "{full:?}");
        assert!(acknowledged > 100, "{acknowledged}");
        let check = |db: &Db, from: u64| {
            for n in 0..acknowledged {
                let found = db.get(key(n)).unwrap();
                if n < from {
                    assert!(found.is_none(), "{n} is deleted");
                } else {
                    assert_eq!(found.as_deref(), Some(&value(n, 400)[..]), "{n}");
                }
            }
        };
        check(&db, 0);
        let refused = db.put("more", "more").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace, "{refused:?}");

        // Deletes and compaction go on out of the reserve, and free the space for writes without a reopen.
        let deleted = acknowledged / 2;
        for n in 0..deleted {
            clock.advance(std::time::Duration::from_millis(25));
            db.delete(key(n))
                .unwrap_or_else(|error| panic!("capacity {capacity}, delete {n}: {error:?}"));
        }
        db.compact::<&[u8]>(..)
            .unwrap_or_else(|error| panic!("capacity {capacity}: compaction on a full disk: {error:?}"));
        while db.run_background_job().unwrap() {}
        clock.advance(std::time::Duration::from_millis(25));
        db.put("resumed", "after deletes")
            .unwrap_or_else(|error| panic!("capacity {capacity}: {} used: {error:?}", fs.bytes_used()));
        check(&db, deleted);

        // Full again, and this time the disk grows.
        let mut again = 0;
        let full = loop {
            match db.put(key(10_000_000 + again), value(again, 400)) {
                Ok(()) => again += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::NoSpace, "{full:?}");
        fs.set_capacity(Some(capacity * 4));
        clock.advance(std::time::Duration::from_millis(25));
        db.put("resumed", "on a larger disk").unwrap();
        check(&db, deleted);
        drop(db);
        let (environment, _) = manual(&fs);
        let db = small().open_with("db", environment).unwrap();
        check(&db, deleted);
        for n in 0..again {
            assert_eq!(
                db.get(key(10_000_000 + n)).unwrap().unwrap(),
                value(n, 400),
                "{n}"
            );
        }
        assert_eq!(db.get("resumed").unwrap().unwrap(), "on a larger disk");
        check_directory(&fs, Path::new("db"), &db).unwrap();
        db.close().unwrap();
    }
}

#[test]
fn a_full_disk_is_left_by_itself_with_threads() {
    let fs = MemFs::new();
    let db = small().open_with("db", threaded(&fs)).unwrap();
    fs.set_capacity(Some(2 << 20));
    let mut acknowledged = 0;
    let full = loop {
        match db.put(key(acknowledged), value(acknowledged, 400)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::NoSpace, "{full:?}");
    fs.set_capacity(None);
    // The engine looks for room now and then: ask until it has.
    let mut refusals = 0u64;
    while let Err(error) = db.put("resumed", "yes") {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        refusals += 1;
        assert!(refusals < 1_000_000_000, "writes never resume");
        std::thread::yield_now();
    }
    for n in 0..acknowledged {
        assert_eq!(
            db.get(key(n)).unwrap().as_deref(),
            Some(&value(n, 400)[..]),
            "{n}"
        );
    }
    db.flush().unwrap();
    check_directory(&fs, Path::new("db"), &db).unwrap();
    db.close().unwrap();
}

#[test]
fn drop_returns_in_the_middle_of_a_compaction() {
    for round in 0..6u64 {
        let dir = tempfile::tempdir().unwrap();
        let options = || {
            small()
                .log_segment_bytes(1 << 20)
                .log_size_max_bytes(8 << 20)
                .memtable_size_bytes(256 << 10)
                .l0_stall_tables(50, 100)
        };
        let db = options().open(dir.path()).unwrap();
        for n in 0..6000 {
            db.put(key(n * 7919 % 6000), value(n + round, 200)).unwrap();
        }
        // Whatever is under way, and with everything compacting on another thread.
        let other = db.clone();
        let compacting = std::thread::spawn(move || other.compact::<&[u8]>(..));
        if round % 2 == 0 {
            db.close().unwrap();
            // Done before the doors closed, or interrupted.
            if let Err(error) = compacting.join().unwrap() {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
            }
        } else {
            drop(db);
            compacting.join().unwrap().unwrap();
        }
        let db = options().open(dir.path()).unwrap();
        assert_eq!(db.iter().unwrap().map(Result::unwrap).count(), 6000);
        check_directory(&siltstone::vfs::OsFs::new(), dir.path(), &db).unwrap();
    }
}

#[test]
fn closing_with_cursors_and_snapshots_held() {
    let fs = MemFs::new();
    let db = small().open_with("db", threaded(&fs)).unwrap();
    for n in 0..500 {
        db.put(key(n), value(n, 100)).unwrap();
    }
    db.flush().unwrap();
    let snapshot = db.snapshot().unwrap();
    let lent = snapshot.get_ref(key(7)).unwrap().unwrap();
    let mut cursor = db.cursor::<&[u8]>(..).unwrap();
    cursor.first().unwrap();
    let mut iter = db.iter().unwrap();
    iter.next().unwrap().unwrap();
    let other = db.clone();
    db.close().unwrap();
    assert_eq!(other.get(key(1)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.put("k", "v").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(snapshot.get(key(1)).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cursor.first().unwrap_err().kind(), ErrorKind::Closed);
    // What was lent out stays what it was, and the directory stays locked, until they go.
    assert_eq!(lent, value(7, 100));
    let locked = small().open_with("db", threaded(&fs)).unwrap_err();
    assert_eq!(
        locked.busy_reason(),
        Some(BusyReason::DirectoryLocked),
        "{locked:?}"
    );
    assert_eq!(other.close().unwrap_err().kind(), ErrorKind::Closed);
    drop((snapshot, cursor, iter));
    let db = small().open_with("db", threaded(&fs)).unwrap();
    assert_eq!(db.get(key(7)).unwrap().unwrap(), value(7, 100));
}

#[test]
fn a_directory_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let error = Db::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.busy_reason(), Some(BusyReason::DirectoryLocked));
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(db);
    Db::open(dir.path()).unwrap();
}

#[test]
fn a_dropped_keyspace_leaves_no_files() {
    let fs = MemFs::new();
    let (environment, _) = manual(&fs);
    let db = small().open_with("db", environment.clone()).unwrap();
    let tables = |fs: &MemFs| {
        let names = fs.list(Path::new("db")).unwrap();
        names.iter().filter(|name| name.ends_with(".sst")).count()
    };
    let gone = db.keyspace("gone", small_keyspace()).unwrap();
    for n in 0..2000 {
        gone.put(key(n), value(n, 100)).unwrap();
    }
    gone.flush().unwrap();
    db.wait_idle().unwrap();
    assert!(tables(&fs) > 3);
    // A cursor keeps its files, and its answers, until it goes.
    let mut cursor = gone.cursor::<&[u8]>(..).unwrap();
    cursor.first().unwrap();
    db.drop_keyspace("gone").unwrap();
    assert_eq!(db.keyspaces(), ["default"]);
    assert_eq!(gone.get(key(1)).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(gone.put("k", "v").unwrap_err().kind(), ErrorKind::NotFound);
    db.wait_idle().unwrap();
    assert!(tables(&fs) > 0, "the cursor's files are gone");
    let mut seen = 0;
    while cursor.valid() {
        assert_eq!(cursor.value(), value(seen, 100));
        cursor.next().unwrap();
        seen += 1;
    }
    assert_eq!(seen, 2000);
    drop(cursor);
    db.wait_idle().unwrap();
    assert_eq!(tables(&fs), 0);
    // The name is free again, and what was there is not.
    let again = db.keyspace("gone", small_keyspace()).unwrap();
    assert!(again.get(key(1)).unwrap().is_none());
    again.put("k", "v").unwrap();
    drop((db, gone, again));
    let db = small().open_with("db", environment).unwrap();
    let again = db.keyspace("gone", small_keyspace()).unwrap();
    let entries: Vec<_> = again.iter().unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(entries, ["k"]);
}

#[test]
fn an_idle_keyspace_does_not_hold_the_log_back() {
    let fs = MemFs::new();
    let (environment, _) = manual(&fs);
    let db = small().open_with("db", environment.clone()).unwrap();
    let idle = db.keyspace("idle", KeyspaceOptions::default()).unwrap();
    idle.put("rests", "here").unwrap();
    let mut segments_max = 0;
    for n in 0..5000 {
        db.put(key(n % 100), value(n, 200)).unwrap();
        while db.run_background_job().unwrap() {}
        let names = fs.list(Path::new("db")).unwrap();
        segments_max = segments_max.max(names.iter().filter(|name| name.ends_with(".wal")).count());
    }
    // 1 MB was written; the log may take 64 KiB in segments of 16 KiB, one prepared in advance, one just begun.
    assert!(segments_max <= 6, "{segments_max} segments");
    assert!(db.metrics().segments_retired > 40);
    assert_eq!(idle.get("rests").unwrap().unwrap(), "here");
    drop((db, idle));
    let db = small().open_with("db", environment).unwrap();
    let idle = db.keyspace("idle", KeyspaceOptions::default()).unwrap();
    assert_eq!(idle.get("rests").unwrap().unwrap(), "here");
}

/// Writers move amounts between accounts in two keyspaces; at every seqno the sum is the same.
#[test]
fn readers_see_whole_batches_under_load() {
    const ACCOUNTS: u64 = 40;
    const TRANSFERS: u64 = 4000;
    let fs = MemFs::new();
    let db = small()
        .l0_compaction_trigger(4)
        .l0_stall_tables(8, 16)
        .open_with("db", threaded(&fs))
        .unwrap();
    let other = db.keyspace("other", small_keyspace()).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..ACCOUNTS {
        batch
            .put(key(n), 1000u64.to_le_bytes())
            .put_in(&other, key(n), 1000u64.to_le_bytes());
    }
    db.write(batch).unwrap();
    let amount = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let done = AtomicBool::new(false);
    let sums = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (db, other) = (&db, &other);
                scope.spawn(move || {
                    // Each writer has half of the accounts: no transfer is lost.
                    for n in 0..TRANSFERS {
                        let from = key(writer * ACCOUNTS / 2 + n * 7 % (ACCOUNTS / 2));
                        let to = key(writer * ACCOUNTS / 2 + n * 11 % (ACCOUNTS / 2));
                        let (rich, poor) =
                            (db.get(&from).unwrap().unwrap(), other.get(&to).unwrap().unwrap());
                        let step = amount(&rich).min(n % 50);
                        let mut padded = (amount(&rich) - step).to_le_bytes().to_vec();
                        padded.extend(value(n, 60));
                        let mut batch = WriteBatch::new();
                        batch
                            .put(&from, padded)
                            .put_in(other, &to, (amount(&poor) + step).to_le_bytes());
                        db.write(batch).unwrap();
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            let (db, other, done, sums) = (&db, &other, &done, &sums);
            scope.spawn(move || {
                loop {
                    let last = done.load(Ordering::Acquire);
                    let snapshot = db.snapshot().unwrap();
                    let seen_there = snapshot.keyspace(other).unwrap();
                    let sum =
                        |iter: siltstone::Iter| iter.map(|entry| amount(&entry.unwrap().1)).sum::<u64>();
                    let total = if reader == 0 {
                        sum(snapshot.iter().unwrap()) + sum(seen_there.iter().unwrap())
                    } else {
                        let here = (0..ACCOUNTS).map(|n| amount(&snapshot.get(key(n)).unwrap().unwrap()));
                        let there =
                            (0..ACCOUNTS).map(|n| amount(seen_there.get_ref(key(n)).unwrap().unwrap()));
                        here.sum::<u64>() + there.sum::<u64>()
                    };
                    assert_eq!(total, ACCOUNTS * 2000, "at seqno {}", snapshot.seqno());
                    sums.fetch_add(1, Ordering::Relaxed);
                    if last {
                        return;
                    }
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert!(sums.load(Ordering::Relaxed) >= 2);
    db.flush_all().unwrap();
    check_directory(&fs, Path::new("db"), &db).unwrap();
    assert!(db.metrics().compactions > 0, "nothing was compacted on the way");
    db.close().unwrap();
}

#[test]
fn a_write_that_may_not_wait_is_busy_with_a_reason() {
    let fs = MemFs::new();
    let (environment, _clock) = manual(&fs);
    let db = small().memtables_max(2).open_with("db", environment).unwrap();
    let at_once = WriteOptions::default().deadline(Duration::ZERO);
    let put = |n: u64| {
        let mut batch = WriteBatch::new();
        batch.put(key(n), value(n, 400));
        db.write_with(batch, &at_once)
    };
    let (written, refusal) = (0..10_000)
        .find_map(|n| put(n).err().map(|error| (n, error)))
        .expect("nothing is flushed, so the queue fills");
    assert_eq!(refusal.kind(), ErrorKind::Busy, "{refusal:?}");
    assert_eq!(refusal.busy_reason(), Some(BusyReason::MemtableQueue));
    assert!(
        written > 10 && db.get(key(written)).unwrap().is_none(),
        "a refused write does nothing"
    );
    // With patience the writer does the waiting work itself, as there are no threads; and then nobody has to wait.
    db.put(key(written), value(written, 400)).unwrap();
    put(written + 1).unwrap();
    assert_eq!(db.metrics().flushes, 1);
}

#[test]
fn too_many_level_0_tables_slow_writes_down_and_then_hold_them_up() {
    let fs = MemFs::new();
    let (environment, clock) = manual(&fs);
    let options = small().l0_compaction_trigger(2).l0_stall_tables(3, 5);
    let db = options.open_with("db", environment).unwrap();
    let flush = |n: u64| {
        db.put(key(n), value(n, 400)).unwrap();
        // One flush and no compaction.
        db.flush().unwrap();
    };
    (0..3).for_each(flush);
    assert_eq!(db.metrics().levels[0].0, 3);
    let before = clock.now();
    // 31 ms at the rate that is asked for, up to 10 of which are free; then 20 puts that come to less than one.
    db.put("large", vec![7; 2 << 20]).unwrap();
    for n in 0..20 {
        db.put(key(n), value(n, 400)).unwrap();
    }
    let metrics = db.metrics();
    assert!(
        metrics.writes_delayed == 1 && metrics.stalled > Duration::from_millis(20),
        "{metrics:?}"
    );
    assert_eq!(
        clock.now() - before,
        metrics.stalled,
        "the clock that was given is the one that is slept on"
    );
    db.flush().unwrap();
    flush(3);
    assert_eq!(db.metrics().levels[0].0, 5);
    let mut batch = WriteBatch::new();
    batch.put("k", "v");
    let refusal = db
        .write_with(batch, &WriteOptions::default().deadline(Duration::ZERO))
        .unwrap_err();
    assert_eq!(refusal.busy_reason(), Some(BusyReason::L0Tables), "{refusal:?}");
    // The writer that may wait compacts.
    db.put("k", "v").unwrap();
    assert!(db.metrics().levels[0].0 < 5);
}
