use std::thread;

use parking_lot::Mutex;

use super::*;

#[test]
fn many_threads_append_and_sync_while_segments_are_prepared_and_released() {
    const THREADS: u64 = 8;
    const RECORDS: u64 = 300;
    let fs = mem_fs();
    let (log, syncer) = create(&fs);
    let log = Mutex::new(log);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..RECORDS {
                    let sequence = {
                        let mut log = log.lock();
                        let bytes = payload(log.next_sequence().0);
                        log.append(&[&bytes]).expect("appended")
                    };
                    syncer.sync_to(sequence).expect("synced");
                    assert!(syncer.synced() >= sequence);
                }
            });
        }
        scope.spawn(|| {
            while syncer.appended() < RecordSeq(THREADS * RECORDS) {
                syncer.prepare().expect("prepared");
                log.lock().note_synced().expect("noted");
                thread::yield_now();
            }
        });
    });
    let total = THREADS * RECORDS;
    assert_eq!(
        (syncer.synced(), syncer.appended()),
        (RecordSeq(total), RecordSeq(total))
    );
    // Nothing but what was synced is left after a power loss that takes all the rest, and that is everything.
    for seed in 0..8 {
        assert_eq!(
            read_strict(&fs.crash_clone(seed)).0,
            expected(total),
            "seed {seed}"
        );
    }
}

#[test]
fn a_power_loss_at_any_moment_of_a_concurrent_run_keeps_what_was_acknowledged() {
    let fs = mem_fs();
    let (log, syncer) = create(&fs);
    let log = Mutex::new(log);
    let total = 1200;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let sequence = {
                        let mut log = log.lock();
                        let next = log.next_sequence().0;
                        if next > total {
                            return;
                        }
                        log.append(&[&payload(next)]).expect("appended")
                    };
                    if sequence.0 % 3 == 0 {
                        syncer.sync_to(sequence).expect("synced");
                    }
                }
            });
        }
        let mut seed = 0;
        while syncer.appended() < RecordSeq(total) {
            seed += 1;
            let acknowledged = syncer.synced().0;
            let crashed = fs.crash_clone(seed);
            let (records, replay) = read_strict(&crashed);
            let recovered = replay.next_sequence.0 - 1;
            assert_eq!(records, expected(recovered), "seed {seed}");
            assert!(
                recovered >= acknowledged,
                "seed {seed}: {recovered} of {acknowledged}"
            );
        }
    });
}
