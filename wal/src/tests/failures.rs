use siltstone_vfs::{ErrorKind, Fault, FaultEffect, FaultFs, OpKind};

use super::*;

fn faulty() -> (FaultFs, Log, Arc<LogSyncer>) {
    let fs = FaultFs::new(mem_fs());
    let (log, syncer) =
        Log::create(Arc::new(fs.clone()), dir(), SegmentId(1), RecordSeq(1), small()).expect("a log");
    (fs, log, syncer)
}

fn fail(fs: &FaultFs, kind: OpKind, effect: FaultEffect) {
    fs.inject(Fault {
        nth: 0,
        kinds: Some(vec![kind]),
        path_contains: None,
        effect,
        repeat: false,
    });
}

#[test]
fn a_failed_sync_is_final_and_not_retried() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 2);
    syncer.sync_to(RecordSeq(2)).expect("synced");
    append_to(&mut log, 3);
    fail(&fs, OpKind::SyncLog, FaultEffect::FailedSync);
    let first = syncer.sync_to(RecordSeq(3)).expect_err("failed");
    assert_eq!(first.kind(), ErrorKind::Io);
    fs.clear_trace();
    for error in [
        syncer.sync_to(RecordSeq(3)).expect_err("final"),
        log.append(&[b"more"]).expect_err("final"),
        log.rotate().expect_err("final"),
        log.note_synced().expect_err("final"),
        syncer.prepare().expect_err("final"),
    ] {
        assert_eq!(error.to_string(), first.to_string());
    }
    assert!(fs.trace().is_empty(), "{:?}", fs.trace());
    // What had been durable before still is, and says so.
    syncer.sync_to(RecordSeq(2)).expect("durable");
    assert_eq!(syncer.synced(), RecordSeq(2));
}

#[test]
fn a_failed_write_is_final() {
    for effect in [FaultEffect::Eio, FaultEffect::Enospc, FaultEffect::ShortWrite] {
        let (fs, mut log, syncer) = faulty();
        append_to(&mut log, 2);
        fail(&fs, OpKind::Write, effect);
        let first = log.append(&[b"lost"]).expect_err("failed");
        assert_eq!(
            log.append(&[b"more"]).expect_err("final").to_string(),
            first.to_string()
        );
        assert_eq!(
            syncer.sync_to(RecordSeq(2)).expect_err("final").to_string(),
            first.to_string()
        );
        assert_eq!(
            (syncer.appended(), log.next_sequence()),
            (RecordSeq(2), RecordSeq(3))
        );
        assert_eq!(read_strict(&**fs.inner()).0, expected(2));
    }
}

#[test]
fn a_full_disk_in_a_rotation_costs_nothing_and_passes() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 1);
    let before = read_strict(&**fs.inner()).1;
    for _ in 0..3 {
        fail(&fs, OpKind::CreateLog, FaultEffect::Enospc);
        assert_eq!(log.rotate().expect_err("full").kind(), ErrorKind::NoSpace);
        fail(&fs, OpKind::CreateLog, FaultEffect::Enospc);
        assert_eq!(
            log.append(&[&[1; 4096]]).expect_err("full").kind(),
            ErrorKind::NoSpace
        );
        fail(&fs, OpKind::CreateLog, FaultEffect::Enospc);
        assert_eq!(syncer.prepare().expect_err("full").kind(), ErrorKind::NoSpace);
    }
    assert_eq!(
        read_strict(&**fs.inner()).1.segments,
        before.segments,
        "something was written"
    );
    append_to(&mut log, 60);
    syncer.sync_to(RecordSeq(60)).expect("synced");
    assert_eq!(read_strict(&**fs.inner()).0, expected(60));
}

#[test]
fn a_disk_that_is_really_full_refuses_the_rotation_until_there_is_room() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    fs.set_capacity(Some(2 * 4096 + 100));
    let mut last = 0;
    let error = loop {
        match log.append(&[&payload(last + 1)]) {
            Ok(sequence) => last = sequence.0,
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), log.segment()), (ErrorKind::NoSpace, SegmentId(2)));
    syncer
        .sync_to(RecordSeq(last))
        .expect("what there is can be synced");
    assert_eq!(read_strict(&*fs).0, expected(last));
    fs.set_capacity(None);
    append_to(&mut log, last + 20);
    assert_eq!(read_strict(&*fs).0, expected(last + 20));
}

#[test]
fn a_large_record_that_finds_no_room_leaves_the_spare_alone() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 1);
    syncer.prepare().expect("prepared");
    fail(&fs, OpKind::CreateLog, FaultEffect::Enospc);
    assert_eq!(
        log.append(&[&[1; 9000]]).expect_err("full").kind(),
        ErrorKind::NoSpace
    );
    assert!(!log.needs_preparing());
    assert_eq!(log.rotate().expect("rotated"), SegmentId(2));
}

#[test]
fn a_failed_sync_of_the_directory_ends_the_log() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 1);
    fail(&fs, OpKind::SyncDir, FaultEffect::FailedSync);
    syncer.prepare().expect_err("failed");
    assert!(log.append(&[b"more"]).is_err());
    assert!(syncer.sync_to(RecordSeq(1)).is_err());
}

/// A file that nobody knows of is left under the id after the spare's: whoever goes on must not come to it.
#[test]
fn a_spare_that_is_removed_gives_its_id_back_only_if_none_was_used_up_since() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 1);
    syncer.prepare().expect("prepared");
    fail(&fs, OpKind::SyncDir, FaultEffect::FailedSync);
    log.append(&[&[1; 9000]])
        .expect_err("larger than the spare, and its own segment's name is not durable");
    assert!(fs.exists(&segment_path(dir(), SegmentId(3))).expect("known"));
    syncer.remove_spare().expect("removed");
    assert_eq!(syncer.next_segment(), SegmentId(4));
}

#[test]
fn another_failure_to_create_a_segment_is_final_for_the_log_but_not_for_preparing() {
    let (fs, mut log, syncer) = faulty();
    fail(&fs, OpKind::CreateLog, FaultEffect::Eio);
    syncer.prepare().expect_err("failed");
    append_to(&mut log, 1);
    fail(&fs, OpKind::CreateLog, FaultEffect::Eio);
    log.rotate().expect_err("failed");
    log.append(&[b"more"]).expect_err("final");
}

#[test]
fn segments_are_synced_oldest_first_and_each_sealed_one_once() {
    let (fs, mut log, syncer) = faulty();
    append_to(&mut log, 1);
    log.rotate().expect("rotated");
    log.rotate().expect("rotated");
    append_to(&mut log, 2);
    fs.clear_trace();
    syncer.sync_to(RecordSeq(2)).expect("synced");
    append_to(&mut log, 3);
    syncer.sync_to(RecordSeq(3)).expect("synced");
    syncer.sync_to(RecordSeq(1)).expect("synced already");
    let syncs: Vec<_> = fs
        .trace()
        .into_iter()
        .filter(|line| line.starts_with("synclog"))
        .collect();
    assert_eq!(
        syncs,
        [1, 2, 3, 3].map(|id| format!("synclog /db/{}.wal", SegmentId(id)))
    );
}

#[test]
fn the_steps_of_a_life_in_their_order() {
    let (fs, mut log, syncer) = faulty();
    log.append(&[b"one", b"two"]).expect("appended");
    syncer.prepare().expect("prepared");
    log.rotate().expect("rotated");
    log.append(&[b"three"]).expect("appended");
    syncer.sync_to(RecordSeq(2)).expect("synced");
    log.note_synced().expect("noted");
    let expected = [
        "list /db",
        "createlog /db/000001.wal 4096",
        "syncdir /db",
        "write /db/000001.wal 0+64",
        "write /db/000001.wal 64+46",
        "createlog /db/000002.wal 4096",
        "syncdir /db",
        "write /db/000001.wal 112+40",
        "write /db/000002.wal 0+64",
        "write /db/000002.wal 64+45",
        "synclog /db/000001.wal",
        "synclog /db/000002.wal",
        "write /db/000002.wal 112+40",
    ];
    assert_eq!(fs.trace(), expected);
}

#[test]
fn every_operation_fails_once_and_nothing_acknowledged_is_lost() {
    let run = |fs: &Arc<FaultFs>| -> (u64, u64) {
        let created = Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(1), small());
        let Ok((mut log, syncer)) = created else {
            return (0, 0);
        };
        for step in 1..80_u64 {
            let _ = log.append(&[&payload(log.next_sequence().0)]);
            if step % 9 == 0 {
                let _ = syncer.sync_to(syncer.appended());
            }
            if step % 11 == 0 {
                let _ = log.note_synced();
                let _ = syncer.prepare();
            }
        }
        (syncer.synced().0, syncer.appended().0)
    };
    let counting = Arc::new(FaultFs::new(mem_fs()));
    assert_eq!(run(&counting).1, 79);
    for effect in [
        FaultEffect::Eio,
        FaultEffect::Enospc,
        FaultEffect::ShortWrite,
        FaultEffect::FailedSync,
    ] {
        for nth in 0..counting.op_count() {
            let disk = mem_fs();
            let fs = Arc::new(FaultFs::new(disk.clone()));
            fs.inject(Fault {
                nth,
                kinds: None,
                path_contains: None,
                effect,
                repeat: false,
            });
            let (synced, appended) = run(&fs);
            let (records, replay) = read_strict(&*disk);
            let recovered = replay.next_sequence.0 - 1;
            assert_eq!(
                (records, recovered),
                (expected(appended), appended),
                "{effect:?} {nth}"
            );
            let (records, replay) = read_strict(&disk.crash_clone(nth));
            let recovered = replay.next_sequence.0 - 1;
            assert_eq!(records, expected(recovered), "{effect:?} {nth}");
            assert!((synced..=appended).contains(&recovered), "{effect:?} {nth}");
        }
    }
}

#[test]
fn a_record_appended_while_a_sync_runs_is_not_covered_by_it() {
    let (fs, log, syncer) = faulty();
    let log = Arc::new(parking_lot::Mutex::new(log));
    log.lock().append(&[b"before"]).expect("appended");
    let during = Arc::clone(&log);
    fs.on_op(Box::new(move |op| {
        if op.kind == OpKind::SyncLog {
            during.lock().append(&[b"during"]).expect("appended");
        }
    }));
    syncer.sync_to(RecordSeq(1)).expect("synced");
    fs.clear_on_op();
    assert_eq!((syncer.synced(), syncer.appended()), (RecordSeq(1), RecordSeq(2)));
    fs.clear_trace();
    syncer.sync_to(RecordSeq(2)).expect("synced");
    assert_eq!(fs.trace(), ["synclog /db/000001.wal"]);
}
