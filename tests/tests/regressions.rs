//! Bugs that a review found by reading, each with the history that showed it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use siltstone::vfs::{Fault, FaultEffect, FaultFs, Fs, ManualClock, MemFs, OpKind, Removed};
use siltstone::{BackgroundMode, Db, Environment, ErrorKind, KeyspaceOptions, Options, WriteBatch};

fn small() -> Options {
    Options::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(64 << 10)
        .log_size_max_bytes(256 << 10)
        .reserve_bytes(256 << 10)
}

fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .l0_compaction_trigger(2)
}

fn fault(kind: OpKind, effect: FaultEffect, path: &str) -> Fault {
    Fault {
        nth: 0,
        kinds: Some(vec![kind]),
        path_contains: (!path.is_empty()).then(|| path.to_owned()),
        effect,
        repeat: false,
    }
}

fn manual(fs: &(impl Fs + Clone)) -> Environment {
    Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    }
}

fn threads(fs: &(impl Fs + Clone)) -> Environment {
    Environment {
        fs: Arc::new(fs.clone()),
        ..Environment::default()
    }
}

fn tables(fs: &MemFs) -> usize {
    let table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    fs.files().iter().filter(|(path, _)| table(path)).count()
}

/// Was: a compaction that cannot read a table was tried again for ever, at full speed.
#[test]
fn a_missing_table_is_put_aside_and_the_rest_goes_on() {
    let fs = MemFs::new();
    let db = small().open_with("db", manual(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    for n in 0..3 {
        keyspace.put("a", format!("{n}")).unwrap();
        keyspace.put("z", "1").unwrap();
        keyspace.flush().unwrap();
    }
    drop(keyspace);
    db.close().unwrap();
    let mut paths = fs.files().into_iter().map(|(path, _)| path);
    let table = paths.rfind(|path| path.to_string_lossy().ends_with(".sst"));
    let lock = fs.lock_dir(Path::new("db")).unwrap();
    let _gone: Removed = lock
        .claim_orphan(table.unwrap())
        .unwrap()
        .remove(&fs)
        .map_err(|(_, error)| error)
        .unwrap();
    drop(lock);

    let db = small().open_with("db", manual(&fs)).unwrap();
    assert_eq!(db.recovery().damaged_tables.len(), 1);
    let jobs = (0..100).take_while(|_| db.run_background_job().unwrap()).count();
    assert!(jobs < 20, "{jobs} jobs, and still no end");
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    assert_eq!(keyspace.get("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!db.metrics().background_errors.is_empty());
    db.put("x", "y").unwrap();
}

/// Was: `get_ref` answered `None` for a key of a dropped keyspace.
#[test]
fn every_read_of_a_dropped_keyspace_says_so() {
    let fs = MemFs::new();
    let db = small().open_with("db", manual(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    keyspace.put("a", "1").unwrap();
    let snapshot = db.snapshot().unwrap().keyspace(&keyspace).unwrap();
    db.drop_keyspace("k").unwrap();
    assert_eq!(snapshot.get("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(snapshot.get_ref("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        keyspace.cursor::<&str>(..).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(keyspace.put("a", "1").unwrap_err().kind(), ErrorKind::NotFound);
}

/// Was: resuming synced the very file whose sync had failed, and believed it.
#[test]
fn resume_never_syncs_again_what_failed_to_sync() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().open_with("db", manual(&fs)).unwrap();
    db.put("a", "1").unwrap();
    fs.clear_trace();
    fs.inject(fault(OpKind::SyncLog, FaultEffect::Eio, ""));
    db.sync().unwrap_err();
    fs.clear();
    assert_eq!(db.put("b", "2").unwrap_err().kind(), ErrorKind::Poisoned);
    db.resume().unwrap();
    let trace = fs.trace();
    let failed = trace
        .iter()
        .find(|line| line.starts_with("synclog") && line.contains('!'))
        .unwrap();
    let file = failed.split(' ').nth(1).unwrap();
    let again = |line: &&String| line.starts_with("sync") && line.contains(file) && !line.contains('!');
    assert_eq!(trace.iter().find(again), None);
    db.put("b", "2").unwrap();
    db.sync().unwrap();
    let db = small().open_with("db", manual(&mem.crash_clone(1))).unwrap();
    assert_eq!(db.get("a").unwrap().unwrap(), "1");
    assert_eq!(db.get("b").unwrap().unwrap(), "2");
}

/// Was: a keyspace dropped between the planning and the start of its compaction panicked the worker.
#[test]
fn keyspaces_dropped_under_compaction_do_no_harm() {
    let fs = MemFs::new();
    let db = small()
        .background_threads(4)
        .open_with("db", threads(&fs))
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..150_u32 {
                    let name = format!("{thread}-{round}");
                    let keyspace = db.keyspace(&name, keyspace_options()).unwrap();
                    for _ in 0..2 {
                        keyspace.put("a", "1").unwrap();
                        keyspace.put("z", "2").unwrap();
                        keyspace.flush().unwrap();
                    }
                    (0..round * 37 % 400).for_each(|_| std::hint::spin_loop());
                    db.drop_keyspace(&name).unwrap();
                }
            });
        }
    });
    db.put("x", "y").unwrap();
    db.wait_idle().unwrap();
    assert_eq!(tables(&fs), 0);
}

/// Was: each failed `resume` left the tables behind that it had written.
#[test]
fn a_failed_resume_leaves_no_tables() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().open_with("db", manual(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    db.put("a", "1").unwrap();
    keyspace.put("b", "2").unwrap();
    fs.inject(fault(OpKind::SyncLog, FaultEffect::Eio, ""));
    db.sync().unwrap_err();
    for round in 1..4 {
        fs.clear();
        fs.inject(fault(
            OpKind::Create,
            FaultEffect::Enospc,
            &format!("{:06}.sst", 2 * round),
        ));
        assert_eq!(db.resume().unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(tables(&mem), 0);
    }
    fs.clear();
    db.resume().unwrap();
    assert_eq!(tables(&mem), 2);
}

/// Was: a sector of one table that could not be read refused all writes.
#[test]
fn an_unreadable_compaction_input_does_not_refuse_writes() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().mapped_tables_max(0).open_with("db", manual(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    for n in 0..4 {
        keyspace.put("a", format!("{n}")).unwrap();
        keyspace.put("z", "1").unwrap();
        keyspace.flush().unwrap();
    }
    fs.inject(Fault {
        repeat: true,
        ..fault(OpKind::Read, FaultEffect::Eio, ".sst")
    });
    while db.run_background_job().unwrap() {}
    fs.clear();
    db.put("x", "y").unwrap();
    assert_eq!(keyspace.get("a").unwrap().unwrap(), "3");
    assert!(!db.metrics().background_errors.is_empty());
}

/// Was: an edit whose sync failed for want of space took effect after a crash, although writes had gone on.
#[test]
fn a_failed_manifest_sync_is_sticky_also_for_want_of_space() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().open_with("db", manual(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    keyspace.put("a", "1").unwrap();
    db.sync().unwrap();
    fs.inject(fault(OpKind::Sync, FaultEffect::Enospc, "MANIFEST"));
    db.drop_keyspace("k").unwrap_err();
    fs.clear();
    assert_eq!(keyspace.put("b", "2").unwrap_err().kind(), ErrorKind::Poisoned);
    db.resume().unwrap();
    keyspace.put("b", "2").unwrap();
    db.sync().unwrap();
    let db = small()
        .open_with("db", manual(&mem.process_crash_clone()))
        .unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    assert_eq!(keyspace.get("b").unwrap().unwrap(), "2");
}

/// Was: `wait_idle` held up every writer for as long as an obsolete file was being cut.
#[test]
fn writers_go_on_while_wait_idle_waits_for_the_reaper() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let options = small().memtable_size_bytes(8 << 20).log_size_max_bytes(16 << 20);
    let db = options.open_with("db", threads(&fs)).unwrap();
    let keyspace = db.keyspace("k", keyspace_options()).unwrap();
    keyspace.put("a", "1").unwrap();
    keyspace.flush().unwrap();
    let (cutting, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    fs.on_op(Box::new({
        let (cutting, go_on) = (Arc::clone(&cutting), Arc::clone(&go_on));
        move |op| {
            if op.kind == OpKind::Truncate {
                cutting.store(true, Ordering::SeqCst);
                while !go_on.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
        }
    }));
    drop(keyspace);
    db.drop_keyspace("k").unwrap();
    while !cutting.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| db.wait_idle());
        // Hangs if the writer has to wait for the reaper: several log segments are begun.
        for n in 0..500_u32 {
            db.put(n.to_be_bytes(), vec![7; 1000]).unwrap();
        }
        go_on.store(true, Ordering::SeqCst);
        waiter.join().unwrap().unwrap();
    });
}

/// Was: with the reserve given up before, a database on a full disk could not be opened again.
#[test]
fn a_full_disk_does_not_keep_a_database_shut() {
    let fs = MemFs::new();
    let open = || {
        let options = small().log_segment_bytes(1 << 20).log_size_max_bytes(4 << 20);
        options.open_with("db", manual(&fs))
    };
    fs.set_capacity(Some(4 << 20));
    let db = open().unwrap();
    let mut written = 0_u32;
    while db
        .put(written.to_be_bytes(), vec![written.to_le_bytes()[0]; 1000])
        .is_ok()
    {
        written += 1;
        let _ = db.run_background_job();
    }
    db.delete(1_u32.to_be_bytes()).unwrap();
    drop(db);
    // No reserve, and room for little more than the smallest segment.
    if fs.exists(Path::new("db/RESERVE")).unwrap() {
        fs.remove(&siltstone::vfs::Removable::plain(Path::new("db/RESERVE")).unwrap())
            .unwrap();
    }
    fs.set_capacity(Some(fs.bytes_used() + (40 << 10)));
    let db = open().unwrap();
    assert!(db.get(1_u32.to_be_bytes()).unwrap().is_none());
    assert!(db.get(2_u32.to_be_bytes()).unwrap().is_some());
    db.delete(2_u32.to_be_bytes()).unwrap();
}

/// Was: a snapshot's scan read on through newer entries behind its upper bound.
#[test]
fn a_bounded_scan_stops_at_its_bound() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem));
    let db = small()
        .mapped_tables_max(0)
        .block_cache_bytes(0)
        .open_with("db", manual(&fs))
        .unwrap();
    db.put("a", "1").unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut batch = WriteBatch::new();
    (0..3000_u32).for_each(|n| _ = batch.put(format!("z{n:06}"), [7; 100]));
    db.write(batch).unwrap();
    db.flush().unwrap();
    let mut cursor = snapshot.cursor("a".."b").unwrap();
    cursor.first().unwrap();
    assert_eq!(cursor.key(), b"a");
    let before = fs.op_count();
    cursor.next().unwrap();
    assert!(!cursor.valid());
    assert!(
        fs.op_count() - before < 5,
        "{} blocks were read behind the bound",
        fs.op_count() - before
    );
}

/// An open database answers within any patience that a test has; this is only here to fail loudly instead of hanging.
#[test]
fn a_closed_database_refuses_at_once() {
    let fs = MemFs::new();
    let db: Db = small()
        .stall_timeout(Duration::from_secs(3600))
        .open_with("db", threads(&fs))
        .unwrap();
    let other = db.clone();
    db.close().unwrap();
    assert_eq!(other.put("a", "1").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.get("a").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.wait_idle().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.close().unwrap_err().kind(), ErrorKind::Closed);
}

/// Was: what a killed process had written of a manifest, and not synced, was believed at once. Tables that it no longer
/// named were removed for good before anything had made it durable; a power loss then brought back the older manifest,
/// which names them.
#[test]
fn nothing_is_removed_on_the_word_of_a_manifest_that_a_power_loss_can_undo() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().open_with("db", manual(&fs)).unwrap();
    for round in 0..2 {
        for n in 0..50_u32 {
            db.put(n.to_be_bytes(), [round; 100]).unwrap();
        }
        db.flush().unwrap();
    }
    // The process dies after it has written the edit, before that is synced.
    fs.inject(fault(OpKind::Sync, FaultEffect::Eio, "MANIFEST"));
    db.compact::<&[u8]>(..).unwrap_err();
    assert_eq!(fs.faults_struck(), 1);
    drop(db);
    // The next one finds the edit, and dies before it writes a manifest of its own.
    fs.inject(fault(OpKind::Create, FaultEffect::Eio, "MANIFEST"));
    if let Ok(db) = small().open_with("db", manual(&fs)) {
        db.put("more", "").unwrap();
        db.flush().unwrap_err();
    }
    assert_eq!(fs.faults_struck(), 2);
    for seed in 0..64 {
        let db = small().open_with("db", manual(&mem.crash_clone(seed))).unwrap();
        assert!(
            db.recovery().damaged_tables.is_empty(),
            "{seed}: {:?}",
            db.recovery()
        );
        for n in 0..50_u32 {
            assert_eq!(&db.get(n.to_be_bytes()).unwrap().unwrap()[..], [1; 100], "{seed}");
        }
    }
}

/// Was: an I/O error met while a put looked whether a full disk has room again was not sticky: the put failed with it, the
/// next one was taken.
#[test]
fn an_io_error_of_the_probe_for_room_is_sticky() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let clock = ManualClock::new();
    let environment = Environment {
        clock: Arc::new(clock.clone()),
        ..manual(&fs)
    };
    let db = small().open_with("db", environment).unwrap();
    db.put("a", "1").unwrap();
    mem.set_capacity(Some(mem.bytes_used()));
    while db.put("a", [1; 4000]).is_ok() {}
    clock.advance(Duration::from_secs(1));
    fs.inject(fault(OpKind::Exists, FaultEffect::Eio, "RESERVE"));
    assert_eq!(db.put("b", "1").unwrap_err().kind(), ErrorKind::Io);
    fs.clear();
    mem.set_capacity(None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(db.put("b", "2").unwrap_err().kind(), ErrorKind::Poisoned);
    db.resume().unwrap();
    db.put("b", "3").unwrap();
}

/// Was: segments of the log that had changed places were taken for what a crash had cut off, and what the later ones held was
/// replayed behind the hole.
#[test]
fn log_segments_that_changed_places_are_told() {
    let mem = MemFs::new();
    let options = small().log_segment_bytes(4096).log_size_max_bytes(256 << 10);
    let db = options.clone().open_with("db", manual(&mem)).unwrap();
    for n in 0..12_u8 {
        db.put([n], [n; 1000]).unwrap();
    }
    // Killed: the log is all there is.
    let left = mem.process_crash_clone();
    let (first, second) = (Path::new("db/000001.wal"), Path::new("db/000002.wal"));
    let (one, two) = (left.read_file(first).unwrap(), left.read_file(second).unwrap());
    left.write_file(first, two).unwrap();
    left.write_file(second, one).unwrap();
    let error = options.open_with("db", manual(&left)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.path(), Some(second));
    assert!(error.to_string().contains("holds segment 000001"), "{error}");
}

/// Was: where the disk was full when the directory of a new log segment was synced, opening tried to make the same file again,
/// and failed because it was there.
#[test]
fn a_full_disk_at_any_directory_sync_of_an_open_is_told_or_overcome() {
    for nth in 0..8 {
        let fs = FaultFs::new(Arc::new(MemFs::new()));
        fs.inject(Fault {
            nth,
            ..fault(OpKind::SyncDir, FaultEffect::Enospc, "")
        });
        match small().open_with("db", manual(&fs)) {
            Ok(db) => db.put("a", "1").unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{nth}: {error}"),
        }
    }
}

/// Was: where a write to the log itself met a full disk, as it may on a file system that copies on write, the log took nothing
/// any more, but nothing was sticky: puts answered `NoSpace` for good, and `resume` did nothing.
#[test]
fn a_log_that_a_full_disk_has_broken_can_be_resumed() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let db = small().open_with("db", manual(&fs)).unwrap();
    db.put("a", "1").unwrap();
    fs.inject(fault(OpKind::Write, FaultEffect::Enospc, ".wal"));
    assert_eq!(db.put("b", "1").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(db.put("b", "2").unwrap_err().kind(), ErrorKind::Poisoned);
    db.resume().unwrap();
    db.put("b", "3").unwrap();
    assert_eq!(db.get("a").unwrap().unwrap(), "1");
    assert_eq!(db.get("b").unwrap().unwrap(), "3");
}

/// Was: `resume` began the new log with the first number that no file had. A creation that had failed for want of space had left one
/// free below a segment that was there, and the new log's next segment was "already there", for ever.
#[test]
fn resume_goes_on_above_all_segments_of_the_log_that_it_leaves() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let clock = ManualClock::new();
    let environment = Environment {
        clock: Arc::new(clock.clone()),
        ..manual(&fs)
    };
    let options = small().log_segment_bytes(16 << 10).reserve_bytes(0);
    let db = options.open_with("db", environment).unwrap();
    // Segment 2 is refused.
    fs.inject(fault(OpKind::CreateLog, FaultEffect::Enospc, ""));
    db.put("a", vec![1; 9_000]).unwrap();
    db.run_background_job().unwrap_err();
    fs.clear();
    clock.advance(Duration::from_secs(10));
    // Segment 3 is made, and not known to be durable.
    fs.inject(fault(OpKind::SyncDir, FaultEffect::Eio, ""));
    db.put("b", vec![2; 9_000]).unwrap_err();
    fs.clear();
    let there = |n: u32| mem.exists(Path::new(&format!("db/{n:06}.wal"))).unwrap();
    assert_eq!([1, 2, 3, 4].map(there), [true, false, true, false]);
    db.resume().unwrap();
    for n in 0..20_u8 {
        db.put([n], vec![n; 9_000]).unwrap();
        db.wait_idle().unwrap();
    }
    assert_eq!(db.get([7]).unwrap().as_deref(), Some(&[7; 9_000][..]));
}

/// Was: compactions whose tables could not be read for a while were put aside until the next open. `resume` did not take them
/// up, so that level 0 grew until every write was refused.
#[test]
fn resume_takes_up_compactions_that_could_not_read() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = small().mapped_tables_max(0).open_with("db", manual(&fs)).unwrap();
    let options = keyspace_options().l0_stall_tables(3, 4);
    let keyspace = db.keyspace("k", options).unwrap();
    let write = |n: u32| -> Result<(), siltstone::Error> {
        keyspace.put("a", format!("{n}"))?;
        keyspace.put("z", "1")?;
        keyspace.flush()
    };
    write(0).unwrap();
    write(1).unwrap();
    fs.inject(Fault {
        repeat: true,
        ..fault(OpKind::Read, FaultEffect::Eio, ".sst")
    });
    while db.run_background_job().unwrap() {}
    fs.clear();
    write(2).unwrap();
    write(3).unwrap();
    let refused = write(4).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(refused.to_string().contains("resume"), "{refused}");
    db.resume().unwrap();
    write(5).unwrap();
    while db.run_background_job().unwrap() {}
    assert_eq!(keyspace.get("a").unwrap().unwrap(), "5");
    assert!(db.metrics().levels[0].0 < 2);
}

/// Was: `resume` began its new log, whose header vouches for all records before it, while the manifest still named the old one.
/// Where the manifest could then not be written, and the power failed, strict recovery missed records that nobody had
/// been promised.
#[test]
fn a_resume_that_fails_leaves_a_database_that_opens() {
    for nth in 0..4 {
        let mem = MemFs::new();
        let fs = FaultFs::new(Arc::new(mem.clone()));
        let db = small().open_with("db", manual(&fs)).unwrap();
        db.put("a", "1").unwrap();
        db.sync().unwrap();
        db.put("b", "2").unwrap();
        fs.inject(fault(OpKind::SyncLog, FaultEffect::Eio, ""));
        db.sync().unwrap_err();
        fs.clear();
        fs.inject(Fault {
            nth,
            ..fault(OpKind::Sync, FaultEffect::Eio, "MANIFEST")
        });
        let resumed = db.resume();
        for seed in 0..100 {
            let after = mem.crash_clone(seed);
            let db = small().open_with("db", manual(&after)).unwrap_or_else(|error| {
                panic!("sync {nth} of the manifest failed ({resumed:?}), crash {seed}: {error}")
            });
            assert_eq!(db.get("a").unwrap().unwrap(), "1");
        }
    }
}

/// Was: a table under the name of another one of the same size answered for it.
#[test]
fn tables_that_changed_names_are_told() {
    let fs = MemFs::new();
    let db = small().open_with("db", manual(&fs)).unwrap();
    for (name, value) in [("k", "1"), ("l", "2")] {
        let keyspace = db.keyspace(name, keyspace_options()).unwrap();
        keyspace.put("a", value).unwrap();
        keyspace.flush().unwrap();
        keyspace.compact::<&[u8]>(..).unwrap();
    }
    db.close().unwrap();
    let paths: Vec<_> = fs.files().into_iter().map(|(path, _)| path).collect();
    let tables: Vec<_> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    let [first, second] = tables[..] else {
        panic!("{tables:?}")
    };
    let bytes = fs.read_file(first).unwrap();
    fs.write_file(first, fs.read_file(second).unwrap()).unwrap();
    fs.write_file(second, bytes).unwrap();
    let db = small().open_with("db", manual(&fs)).unwrap();
    for name in ["k", "l"] {
        let error = db
            .keyspace(name, keyspace_options())
            .unwrap()
            .get("a")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    }
}

/// Was: while another thread was starting a process, which has copies of all files until it runs its program, a database that
/// had been closed was still locked.
#[cfg(unix)]
#[test]
fn a_database_opens_again_while_processes_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let mut command = std::process::Command::new("/bin/true");
                    let _ = command.status();
                }
            });
        }
        let opened: Vec<_> = (0..300)
            .map(|_| small().open(dir.path()).and_then(|db| db.close()))
            .collect();
        done.store(true, Ordering::SeqCst);
        for (nth, result) in opened.into_iter().enumerate() {
            result.unwrap_or_else(|error| panic!("opening number {nth}: {error}"));
        }
    });
}
