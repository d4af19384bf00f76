use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::*;

fn failure() -> Error {
    Error::new(ErrorKind::Io, "the disk went away")
}

#[test]
fn a_covered_sequence_needs_no_sync() {
    let group = GroupSync::new(5);
    let first_error = FirstError::default();
    group
        .sync_to(5, &first_error, || panic!("no sync is needed"))
        .expect("covered");
}

#[test]
fn everyone_who_waits_while_a_sync_runs_shares_the_next_one() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let syncs = AtomicU64::new(0);
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            group.sync_to(1, &first_error, move || {
                begun.send(()).expect("the test waits");
                may_go_on.recv().expect("the test says so");
                Ok(1)
            })
        });
        has_begun.recv().expect("the first sync runs");
        let waiters: Vec<_> = (2..=9)
            .map(|sequence| {
                let (group, first_error, syncs) = (&group, &first_error, &syncs);
                scope.spawn(move || {
                    group.sync_to(sequence, first_error, || {
                        syncs.fetch_add(1, Ordering::Relaxed);
                        Ok(9)
                    })
                })
            })
            .collect();
        while group.queue.lock().waiting.len() < waiters.len() {
            thread::yield_now();
        }
        go_on.send(()).expect("the leader waits");
        leader.join().expect("no panic").expect("synced");
        for waiter in waiters {
            waiter.join().expect("no panic").expect("synced");
        }
    });
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
    assert_eq!(group.synced(), 9);
    assert!(!group.queue.lock().led);
}

#[test]
fn a_failed_sync_fails_everyone_who_waits_and_is_never_retried() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            group.sync_to(3, &first_error, move || {
                begun.send(()).expect("the test waits");
                may_go_on.recv().expect("the test says so");
                Err(failure())
            })
        });
        has_begun.recv().expect("the first sync runs");
        let waiter =
            scope.spawn(|| group.sync_to(4, &first_error, || panic!("a failed sync is not retried")));
        while group.queue.lock().waiting.is_empty() {
            thread::yield_now();
        }
        go_on.send(()).expect("the leader waits");
        assert!(leader.join().expect("no panic").is_err());
        assert!(waiter.join().expect("no panic").is_err());
    });
    let later = group.sync_to(5, &first_error, || panic!("a failed sync is not retried"));
    assert!(
        later
            .expect_err("final")
            .to_string()
            .contains("the disk went away")
    );
    group
        .sync_to(0, &first_error, || panic!("covered"))
        .expect("was durable before");
}

#[test]
fn a_panic_in_a_sync_leaves_nobody_asleep() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            group.sync_to(1, &first_error, move || {
                begun.send(()).expect("the test waits");
                may_go_on.recv().expect("the test says so");
                panic!("this panic is part of the test")
            })
        });
        has_begun.recv().expect("the sync runs");
        let waiter = scope.spawn(|| group.sync_to(2, &first_error, || Ok(2)));
        while group.queue.lock().waiting.is_empty() {
            thread::yield_now();
        }
        go_on.send(()).expect("the leader waits");
        assert!(leader.join().is_err());
        assert!(waiter.join().expect("no panic").is_err());
    });
}

/// Threads append and sync as fast as they can: every sync that returns covers its record, no two run at once, and
/// every thread ends, which a lost wake-up would prevent.
#[test]
fn stress() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 3000;
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let appended = AtomicU64::new(0);
    let durable = AtomicU64::new(0);
    let running = AtomicBool::new(false);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for round in 0..ROUNDS {
                    let sequence = appended.fetch_add(1, Ordering::AcqRel) + 1;
                    let sync = || {
                        assert!(!running.swap(true, Ordering::AcqRel), "two syncs at once");
                        let upto = appended.load(Ordering::Acquire);
                        if round % 3 == 0 {
                            thread::yield_now();
                        }
                        durable.fetch_max(upto, Ordering::AcqRel);
                        running.store(false, Ordering::Release);
                        Ok(upto)
                    };
                    group.sync_to(sequence, &first_error, sync).expect("no failure");
                    assert!(
                        durable.load(Ordering::Acquire) >= sequence,
                        "acknowledged before it was durable"
                    );
                }
            });
        }
    });
    assert_eq!(group.synced(), (THREADS * ROUNDS) as u64);
    let queue = group.queue.lock();
    assert!(!queue.led && queue.waiting.is_empty());
}
