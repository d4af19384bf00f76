//! The memtable against an ordered map, alone and under concurrent inserts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use siltstone_sstable::{InternalIterator, ValueKind};

use super::*;

/// User key and tag.
type ModelKey = (Vec<u8>, Reverse<u64>);
type Model = BTreeMap<ModelKey, Vec<u8>>;

const BLOCK_BYTES: usize = 64 << 10;

/// How often a loop runs: miri is some hundred times slower.
fn rounds(native: usize, miri: usize) -> usize {
    if cfg!(miri) { miri } else { native }
}

fn put(seqno: u64) -> Tag {
    Tag::new(SeqNo(seqno), ValueKind::Put)
}

/// Keys that differ before, at and behind the eighth byte, are prefixes of each other, end in zeros, are empty or
/// long; few enough to come again.
fn random_key(rng: &mut SmallRng) -> Vec<u8> {
    let mut key = match rng.random_range(0..5) {
        0 => Vec::new(),
        1 => b"user".to_vec(),
        2 => b"common prefix of many keys".to_vec(),
        3 => vec![0xff; 8],
        _ => vec![0; rng.random_range(0..12)],
    };
    for _ in 0..rng.random_range(0..4) {
        key.push([0, 1, b'a', 0xff][rng.random_range(0..4)]);
    }
    if rng.random_range(0..40) == 0 {
        key.resize(rng.random_range(0..3000), b'l');
    }
    key
}

fn random_entry(rng: &mut SmallRng, seqno: u64) -> (Vec<u8>, Tag, Vec<u8>) {
    let key = random_key(rng);
    if rng.random_range(0..5) == 0 {
        return (key, Tag::new(SeqNo(seqno), ValueKind::Delete), Vec::new());
    }
    let len = if rng.random_range(0..50) == 0 {
        rng.random_range(0..40_000)
    } else {
        rng.random_range(0..60)
    };
    (key, put(seqno), vec![rng.random(); len])
}

fn filled(rng: &mut SmallRng, count: usize) -> (Arc<Memtable>, Model) {
    let memtable = Arc::new(Memtable::new(BLOCK_BYTES));
    let mut model = Model::new();
    // Every number once, in an order that is neither rising nor falling.
    let count = count as u64;
    for i in 0..count {
        let (key, tag, value) = random_entry(rng, 1 + (i ^ 1) * 7919 % count.next_power_of_two());
        memtable.insert(InternalKey::new(&key, tag), &value);
        assert!(model.insert((key, Reverse(tag.bits())), value).is_none());
    }
    (memtable, model)
}

/// The entry under an iterator, in the model's terms.
fn entry(iter: &MemtableIter) -> Option<(ModelKey, Vec<u8>)> {
    iter.valid().then(|| {
        (
            (iter.user_key().to_vec(), Reverse(iter.tag().bits())),
            iter.value().to_vec(),
        )
    })
}

fn owned(entry: Option<(&ModelKey, &Vec<u8>)>) -> Option<(ModelKey, Vec<u8>)> {
    entry.map(|(key, value)| (key.clone(), value.clone()))
}

#[test]
fn an_empty_memtable_has_nothing_and_costs_nothing() {
    let memtable = Arc::new(Memtable::new(2 << 20));
    assert!(memtable.is_empty());
    assert_eq!(
        (memtable.entries(), memtable.tombstones(), memtable.bytes_used()),
        (0, 0, 0)
    );
    assert_eq!(memtable.get(b"", SeqNo::MAX), None);
    let mut iter = memtable.iter();
    assert!(!iter.valid());
    iter.seek_to_first().unwrap();
    assert!(!iter.valid());
    iter.seek_to_last().unwrap();
    assert!(!iter.valid());
    iter.seek(InternalKey::new(b"", Tag::FIRST)).unwrap();
    assert!(!iter.valid());
    iter.seek_for_prev(InternalKey::new(b"\xff", Tag::LAST)).unwrap();
    assert!(!iter.valid());
}

#[test]
fn get_finds_the_newest_entry_up_to_the_seqno() {
    let seed = 1;
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rounds(5000, 150);
    let (memtable, model) = filled(&mut rng, count);
    assert!(!memtable.is_empty());
    assert_eq!(memtable.entries(), count as u64);
    let tombstones = model
        .keys()
        .filter(|(_, tag)| Tag::from_bits(tag.0).unwrap().is_tombstone())
        .count();
    assert_eq!(memtable.tombstones(), tombstones as u64);
    for _ in 0..2 * count {
        let key = random_key(&mut rng);
        let seqno = SeqNo(rng.random_range(0..2 * count as u64));
        let from = (key.clone(), Reverse(Tag::seek_at(seqno).bits()));
        let expected = model.range(from..).next().filter(|((found, _), _)| *found == key);
        let got = memtable.get(&key, seqno);
        assert_eq!(
            got.map(|(tag, value)| (tag.bits(), value)),
            expected.map(|((_, tag), value)| (tag.0, value.as_slice())),
            "{} at {seqno}, seed {seed}",
            key.escape_ascii()
        );
    }
}

#[test]
fn iterator_walks_like_the_model() {
    for seed in 0..rounds(20, 2) as u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rounds(1000, 60);
        let (memtable, model) = filled(&mut rng, count);
        let mut iter = memtable.iter();
        let mut expected = None;
        for _ in 0..rounds(5000, 200) {
            let (key, tag) = (random_key(&mut rng), put(rng.random_range(0..count as u64)));
            let target = InternalKey::new(&key, tag);
            let place = (key.clone(), Reverse(tag.bits()));
            match (rng.random_range(0..20), &expected) {
                (0, _) => {
                    iter.seek_to_first().unwrap();
                    expected = owned(model.first_key_value());
                }
                (1, _) => {
                    iter.seek_to_last().unwrap();
                    expected = owned(model.last_key_value());
                }
                (2 | 3, _) => {
                    iter.seek(target).unwrap();
                    expected = owned(model.range(place..).next());
                }
                (4 | 5, _) => {
                    iter.seek_for_prev(target).unwrap();
                    expected = owned(model.range(..=place).next_back());
                }
                (6..13, Some((at, _))) => {
                    iter.next().unwrap();
                    let after = (std::ops::Bound::Excluded(at.clone()), std::ops::Bound::Unbounded);
                    expected = owned(model.range(after).next());
                }
                (_, Some((at, _))) => {
                    iter.prev().unwrap();
                    expected = owned(model.range(..at.clone()).next_back());
                }
                _ => {}
            }
            assert_eq!(entry(&iter), expected, "seed {seed}");
        }
    }
}

#[test]
fn scans_meet_every_entry_in_order_both_ways() {
    let (memtable, model) = filled(&mut SmallRng::seed_from_u64(7), rounds(3000, 100));
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for (key, value) in &model {
        assert_eq!(entry(&iter), Some((key.clone(), value.clone())));
        iter.next().unwrap();
    }
    assert!(!iter.valid());
    iter.seek_to_last().unwrap();
    for (key, value) in model.iter().rev() {
        assert_eq!(entry(&iter), Some((key.clone(), value.clone())));
        iter.prev().unwrap();
    }
    assert!(!iter.valid());
}

#[test]
fn heads_that_are_equal_leave_the_order_to_the_rest() {
    // All of them fill up to the same first eight bytes, or to neighbours of them.
    let keys: [&[u8]; 10] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0\x01",
        b"\0\0\0\0\0\0\0\x01",
        b"\0\x01",
        b"\x01",
    ];
    let memtable = Arc::new(Memtable::new(BLOCK_BYTES));
    for (i, key) in keys.iter().enumerate().rev() {
        memtable.insert(InternalKey::new(key, put(1 + i as u64)), key);
    }
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for key in keys {
        assert_eq!((iter.user_key(), iter.value()), (key, key));
        assert_eq!(memtable.get(key, SeqNo::MAX).map(|(_, value)| value), Some(key));
        iter.next().unwrap();
    }
}

#[test]
fn the_largest_keys_and_large_values_are_stored_whole() {
    use siltstone_sstable::KEY_BYTES_MAX;
    let value_len = if cfg!(miri) { 1 << 20 } else { 64 << 20 };
    let memtable = Memtable::new(BLOCK_BYTES);
    let (key, value) = (vec![b'k'; KEY_BYTES_MAX], vec![0x5a; value_len]);
    memtable.insert(InternalKey::new(b"a", put(1)), b"small");
    memtable.insert(InternalKey::new(&key, put(2)), &value);
    memtable.insert(InternalKey::new(&key[1..], put(3)), b"small");
    assert!(
        memtable
            .get(&key, SeqNo::MAX)
            .is_some_and(|(_, found)| found == value)
    );
    assert_eq!(
        memtable.get(&key[1..], SeqNo::MAX),
        Some((put(3), b"small".as_slice()))
    );
    let entries_bytes = (value_len + 2 * KEY_BYTES_MAX) as u64;
    assert!((entries_bytes..entries_bytes + 1000).contains(&memtable.bytes_used()));
}

/// The write path never does this; where debug assertions find it out, the list must not be half changed.
#[test]
#[cfg(debug_assertions)]
fn an_insert_that_panics_leaves_the_list_as_it_was() {
    let (memtable, model) = filled(&mut SmallRng::seed_from_u64(3), rounds(200, 40));
    for (key, tag) in model.keys().take(20) {
        let twice = || memtable.insert(InternalKey::new(key, Tag::from_bits(tag.0).unwrap()), b"again");
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(twice)).is_err());
    }
    assert_eq!(memtable.entries(), model.len() as u64);
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for (key, value) in &model {
        assert_eq!(entry(&iter), Some((key.clone(), value.clone())));
        iter.next().unwrap();
    }
    assert!(!iter.valid());
}

#[test]
fn iterators_and_found_values_outlive_later_inserts() {
    let memtable = Arc::new(Memtable::new(4 << 10));
    memtable.insert(InternalKey::new(b"m", put(1)), b"value");
    let (_, value) = memtable.get(b"m", SeqNo::MAX).unwrap();
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for i in 0..rounds(2000, 100) as u64 {
        let key = [
            if i % 2 == 0 { b'a' } else { b'z' },
            0,
            u8::try_from(i % 200).unwrap(),
        ];
        memtable.insert(InternalKey::new(&key, put(2 + i)), &[1; 100]);
    }
    assert_eq!(
        (value, iter.user_key(), iter.value()),
        (&b"value"[..], &b"m"[..], &b"value"[..])
    );
    iter.next().unwrap();
    assert_eq!(iter.user_key(), b"z\0\x01");
    iter.prev().unwrap();
    iter.prev().unwrap();
    assert_eq!(iter.user_key()[0], b'a');
    // The iterator keeps its memtable alive.
    drop(memtable);
    assert!(iter.value().len() == 100);
}

/// Threads insert while others read, scan and scan backwards. Every thread's keys come in an order that puts new
/// nodes between and right beside those of the others.
fn insert_while_others_read(key_bits: u32) {
    let (writers, count) = (3_u64, rounds(50_000, 50) as u64);
    let memtable = Arc::new(Memtable::new(BLOCK_BYTES));
    let key_of = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - key_bits)).to_be_bytes();
    let done = AtomicBool::new(false);
    let barrier = Barrier::new(usize::try_from(writers).unwrap() + 2);
    std::thread::scope(|scope| {
        let writer_threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (memtable, barrier) = (&memtable, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..count {
                        let seqno = 1 + i * writers + writer;
                        memtable.insert(InternalKey::new(&key_of(i), put(seqno)), &seqno.to_le_bytes());
                        // What this thread has inserted, it finds.
                        let (tag, value) = memtable.get(&key_of(i), SeqNo(seqno)).unwrap();
                        assert_eq!((tag, value), (put(seqno), &seqno.to_le_bytes()[..]));
                    }
                })
            })
            .collect();
        for backwards in [false, true] {
            let (memtable, barrier, done) = (&memtable, &barrier, &done);
            scope.spawn(move || {
                let mut iter = memtable.iter();
                barrier.wait();
                let mut seen_before = 0;
                loop {
                    let last_round = done.load(Ordering::Acquire);
                    let mut seen = 0;
                    let mut last: Option<ModelKey> = None;
                    if backwards {
                        iter.seek_to_last()
                    } else {
                        iter.seek_to_first()
                    }
                    .unwrap();
                    while let Some((key, value)) = entry(&iter) {
                        assert_eq!(value, iter.tag().seqno().0.to_le_bytes());
                        if let Some(last) = &last {
                            assert!(
                                if backwards { key < *last } else { key > *last },
                                "{key:?} after {last:?}"
                            );
                        }
                        last = Some(key);
                        seen += 1;
                        if backwards { iter.prev() } else { iter.next() }.unwrap();
                    }
                    assert!(seen >= seen_before, "entries have gone");
                    seen_before = seen;
                    if last_round {
                        assert_eq!(seen, writers * count);
                        break;
                    }
                }
            });
        }
        let results: Vec<_> = writer_threads.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Release);
        assert!(results.iter().all(Result::is_ok), "a writer failed");
    });
    assert_eq!(memtable.entries(), writers * count);
    for i in 0..count {
        for writer in 0..writers {
            let seqno = 1 + i * writers + writer;
            assert_eq!(memtable.get(&key_of(i), SeqNo(seqno)).unwrap().0, put(seqno));
        }
    }
}

#[test]
fn concurrent_inserts_lose_nothing_and_readers_see_order() {
    insert_while_others_read(14);
}

/// All threads at the same few places; heads are equal, and tags decide.
#[test]
fn concurrent_versions_of_few_keys_are_told_apart() {
    insert_while_others_read(2);
}

/// Many threads insert right before the same entry, so that their stores to its back link race.
#[test]
fn back_links_lead_to_the_predecessor_after_races() {
    for round in 0..rounds(200, 4) as u64 {
        let memtable = Arc::new(Memtable::new(BLOCK_BYTES));
        memtable.insert(InternalKey::new(b"z", put(1)), b"");
        let (writers, count) = (3, rounds(50, 12) as u64);
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let (memtable, barrier) = (&memtable, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..count {
                        let seqno = 2 + i * writers + writer;
                        memtable.insert(InternalKey::new(&seqno.to_be_bytes(), put(seqno)), b"");
                    }
                });
            }
        });
        let mut iter = memtable.iter();
        iter.seek_to_last().unwrap();
        for seqno in (2..2 + writers * count).rev() {
            iter.prev().unwrap();
            assert_eq!(iter.tag().seqno(), SeqNo(seqno), "round {round}");
        }
        iter.prev().unwrap();
        assert!(!iter.valid());
    }
}
