//! Threads that insert while others insert, read and scan.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const WRITERS: u64 = 3;

/// What each writer has inserted for certain.
type Progress = [AtomicU64; 3];

/// Walks over everything, and checks order, values, and that nothing is missing that was inserted before.
fn scan<const N: usize>(iter: &mut MemtableIter<N>, progress: &Progress, backwards: bool) -> u64 {
    let before = progress.each_ref().map(|count| count.load(Ordering::Acquire));
    if backwards {
        iter.seek_to_last()
    } else {
        iter.seek_to_first()
    }
    .unwrap();
    let mut last: Option<ModelKey> = None;
    let (mut seen, mut seen_old) = (0, [0; 3]);
    while let Some((key, value)) = entry(iter) {
        let number = iter.tag().seqno().0 - 1;
        assert_eq!(value, (number + 1).to_le_bytes());
        if let Some(last) = &last {
            assert!(
                if backwards { key < *last } else { key > *last },
                "{key:?} after {last:?}"
            );
        }
        last = Some(key);
        let writer = usize::try_from(number % WRITERS).unwrap();
        seen_old[writer] += u64::from(number / WRITERS < before[writer]);
        seen += 1;
        if backwards { iter.prev() } else { iter.next() }.unwrap();
    }
    assert_eq!(seen_old, before, "entries are missing");
    seen
}

/// Threads insert while others read, scan and scan backwards. Every thread's keys come in an order that puts new
/// entries between and right beside those of the others.
fn insert_while_others_read<const N: usize>(count: u64, key_of: impl Fn(u64) -> Vec<u8> + Sync) {
    let memtable = new::<N>();
    let (done, progress) = (AtomicBool::new(false), Progress::default());
    let barrier = Barrier::new(usize::try_from(WRITERS).unwrap() + 2);
    std::thread::scope(|scope| {
        let writers: Vec<_> = progress
            .iter()
            .zip(0..)
            .map(|(progress, writer)| {
                let (memtable, barrier, key_of) = (&memtable, &barrier, &key_of);
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..count {
                        let seqno = 1 + i * WRITERS + writer;
                        memtable.insert(InternalKey::new(&key_of(i), put(seqno)), &seqno.to_le_bytes());
                        progress.store(i + 1, Ordering::Release);
                        // What this thread has inserted, it finds.
                        let (tag, value) = memtable.look_up(&key_of(i), SeqNo(seqno)).unwrap();
                        assert_eq!((tag, value), (put(seqno), &seqno.to_le_bytes()[..]));
                    }
                })
            })
            .collect();
        for backwards in [false, true] {
            let (memtable, barrier, done, progress, key_of) =
                (&memtable, &barrier, &done, &progress, &key_of);
            scope.spawn(move || {
                let mut iter = memtable.iter();
                barrier.wait();
                loop {
                    let last_round = done.load(Ordering::Acquire);
                    let seen = scan(&mut iter, progress, backwards);
                    // What others have inserted, everyone finds.
                    for (progress, writer) in progress.iter().zip(0..) {
                        if let Some(i) = progress.load(Ordering::Acquire).checked_sub(1) {
                            let seqno = 1 + i * WRITERS + writer;
                            let found = memtable.look_up(&key_of(i), SeqNo(seqno)).map(|(tag, _)| tag);
                            assert_eq!(found, Some(put(seqno)));
                        }
                    }
                    if last_round {
                        assert_eq!(seen, WRITERS * count);
                        break;
                    }
                }
            });
        }
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Release);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    assert_eq!(memtable.entries(), WRITERS * count);
    for i in 0..count {
        for writer in 0..WRITERS {
            let seqno = 1 + i * WRITERS + writer;
            assert_eq!(memtable.look_up(&key_of(i), SeqNo(seqno)).unwrap().0, put(seqno));
        }
    }
    shapes::check(&memtable);
}

/// Hashes of this many bits.
fn scattered(bits: u32) -> impl Fn(u64) -> Vec<u8> {
    move |i| {
        (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits))
            .to_be_bytes()
            .to_vec()
    }
}

#[test]
fn concurrent_inserts_lose_nothing_and_readers_see_order() {
    insert_while_others_read::<SMALL>(rounds(20_000, 12) as u64, scattered(14));
    insert_while_others_read::<NODE_ENTRIES>(rounds(50_000, 12) as u64, scattered(14));
}

/// All threads at the same few places; heads are equal, and tags decide.
#[test]
fn concurrent_versions_of_few_keys_are_told_apart() {
    insert_while_others_read::<SMALL>(rounds(20_000, 12) as u64, scattered(2));
    insert_while_others_read::<NODE_ENTRIES>(rounds(50_000, 12) as u64, scattered(2));
}

/// All threads at the end: splits follow each other before the level above knows of them.
#[test]
fn concurrent_inserts_at_the_end_lose_nothing() {
    insert_while_others_read::<3>(rounds(20_000, 12) as u64, |i| i.to_be_bytes().to_vec());
}

/// Keys that share most of what they have: heads are computed anew while others read.
#[test]
fn concurrent_changes_of_prefixes_lose_nothing() {
    let key_of = |i: u64| {
        let number = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
        [
            format!("users/{:04}", number / 64).as_bytes(),
            &[0; 9],
            &number.to_be_bytes()[..],
        ]
        .concat()
    };
    insert_while_others_read::<SMALL>(rounds(20_000, 12) as u64, key_of);
}

/// Young trees change their roots most.
#[test]
fn concurrent_first_inserts_make_one_tree() {
    for _ in 0..rounds(100, 3) {
        insert_while_others_read::<3>(rounds(20, 6) as u64, scattered(5));
    }
}
