use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::*;

fn failure() -> Error {
    Error::new(ErrorKind::Io, "the disk went away")
}

/// How many wait for the sync after the running one.
fn gathered(group: &GroupSync) -> u32 {
    let groups = group.groups.lock();
    groups.gathering.as_ref().map_or(0, |group| group.members())
}

/// How many the running sync covers, its leader included.
fn syncing(group: &GroupSync) -> u32 {
    let groups = group.groups.lock();
    groups.syncing.as_ref().map_or(0, |(_, group)| group.members())
}

/// Returns when so many have come since the running sync began: how many of them wait for the next one.
fn wait_for(group: &GroupSync, comers: u32) -> u32 {
    loop {
        let gathered = gathered(group);
        if gathered + syncing(group) > comers {
            return gathered;
        }
        thread::yield_now();
    }
}

/// A sync that says when it begins, and ends with `end` when it is told to.
fn held<T>(end: impl FnOnce() -> T) -> (impl FnOnce() -> T, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let sync = move || {
        begun.send(()).expect("the test waits");
        may_go_on.recv().expect("the test says so");
        end()
    };
    (sync, has_begun, go_on)
}

fn nobody_leads(group: &GroupSync) -> bool {
    let groups = group.groups.lock();
    !groups.led && groups.gathering.is_none() && groups.syncing.is_none()
}

#[test]
fn a_covered_sequence_needs_no_sync() {
    let group = GroupSync::new(5);
    let first_error = FirstError::default();
    group
        .sync_to(5, &first_error, || 5, || panic!("no sync is needed"))
        .expect("covered");
}

#[test]
fn everyone_who_waits_while_a_sync_runs_shares_the_next_one() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let syncs = AtomicU64::new(0);
    let (sync, has_begun, go_on) = held(|| Ok(()));
    thread::scope(|scope| {
        let leader = scope.spawn(|| group.sync_to(1, &first_error, || 1, sync));
        has_begun.recv().expect("the first sync runs");
        let waiters: Vec<_> = (2..=9)
            .map(|sequence| {
                let (group, first_error, syncs) = (&group, &first_error, &syncs);
                scope.spawn(move || {
                    let sync = || {
                        syncs.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    };
                    group.sync_to(sequence, first_error, || 9, sync)
                })
            })
            .collect();
        let gathered = wait_for(&group, 8);
        go_on.send(()).expect("the leader waits");
        leader.join().expect("no panic").expect("synced");
        assert_eq!(gathered, 8);
        for waiter in waiters {
            waiter.join().expect("no panic").expect("synced");
        }
    });
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
    assert_eq!(group.synced(), 9);
    assert!(nobody_leads(&group));
}

#[test]
fn a_failed_sync_fails_everyone_who_waits_and_is_never_retried() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let (sync, has_begun, go_on) = held(|| Err(failure()));
    thread::scope(|scope| {
        let leader = scope.spawn(|| group.sync_to(3, &first_error, || 3, sync));
        has_begun.recv().expect("the first sync runs");
        let not_again = || panic!("a failed sync is not retried");
        let waiters = [4, 5].map(|sequence| {
            let (group, first_error) = (&group, &first_error);
            scope.spawn(move || group.sync_to(sequence, first_error, || 5, not_again))
        });
        wait_for(&group, 2);
        go_on.send(()).expect("the leader waits");
        assert!(leader.join().expect("no panic").is_err());
        for waiter in waiters {
            assert!(waiter.join().expect("no panic").is_err());
        }
    });
    let later = group.sync_to(6, &first_error, || 6, || panic!("a failed sync is not retried"));
    assert!(
        later
            .expect_err("final")
            .to_string()
            .contains("the disk went away")
    );
    group
        .sync_to(0, &first_error, || 6, || panic!("covered"))
        .expect("was durable before");
    assert!(nobody_leads(&group));
}

#[test]
fn a_panic_in_a_sync_leaves_nobody_asleep() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let (sync, has_begun, go_on) = held(|| panic!("this panic is part of the test"));
    thread::scope(|scope| {
        let leader = scope.spawn(|| group.sync_to(1, &first_error, || 1, sync));
        has_begun.recv().expect("the sync runs");
        let waiters = [2, 3].map(|sequence| {
            let (group, first_error) = (&group, &first_error);
            scope.spawn(move || group.sync_to(sequence, first_error, || 3, || Ok(())))
        });
        wait_for(&group, 2);
        go_on.send(()).expect("the leader waits");
        assert!(leader.join().is_err());
        for waiter in waiters {
            assert!(waiter.join().expect("no panic").is_err());
        }
    });
    assert!(nobody_leads(&group));
}

/// A leader that panics before its group is closed: nobody joins that group afterwards, and nobody leads it.
#[test]
fn a_panic_before_a_sync_ends_the_group() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let appended = || panic!("this panic is part of the test");
        group.sync_to(1, &first_error, appended, || Ok(()))
    }));
    assert!(panicked.is_err());
    assert!(nobody_leads(&group));
    let later = group.sync_to(2, &first_error, || 2, || panic!("the log is over"));
    assert!(later.is_err());
}

/// A thread that appended before a sync began and comes while that runs is covered by it, and needs no other.
#[test]
fn who_comes_late_is_told_by_the_sync_that_covers_it() {
    let group = GroupSync::new(0);
    let first_error = FirstError::default();
    let (sync, has_begun, go_on) = held(|| Ok(()));
    thread::scope(|scope| {
        let leader = scope.spawn(|| group.sync_to(1, &first_error, || 3, sync));
        has_begun.recv().expect("the sync runs");
        let late = scope.spawn(|| group.sync_to(3, &first_error, || 4, || panic!("no sync is needed")));
        let next = scope.spawn(|| group.sync_to(4, &first_error, || 4, || Ok(())));
        let gathered = wait_for(&group, 2);
        go_on.send(()).expect("the leader waits");
        for waiter in [leader, late, next] {
            waiter.join().expect("no panic").expect("synced");
        }
        assert_eq!(gathered, 1);
    });
    assert_eq!(group.synced(), 4);
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
                    if round % 5 == 0 {
                        thread::yield_now(); // A sync that covers it may begin meanwhile.
                    }
                    let sync = || {
                        assert!(!running.swap(true, Ordering::AcqRel), "two syncs at once");
                        let upto = appended.load(Ordering::Acquire);
                        if round % 3 == 0 {
                            thread::yield_now();
                        }
                        durable.fetch_max(upto, Ordering::AcqRel);
                        running.store(false, Ordering::Release);
                        Ok(())
                    };
                    group
                        .sync_to(sequence, &first_error, || appended.load(Ordering::Acquire), sync)
                        .expect("no failure");
                    assert!(
                        durable.load(Ordering::Acquire) >= sequence,
                        "acknowledged before it was durable"
                    );
                }
            });
        }
    });
    assert_eq!(group.synced(), (THREADS * ROUNDS) as u64);
    assert!(nobody_leads(&group));
}
