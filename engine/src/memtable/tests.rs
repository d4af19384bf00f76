//! The memtable against an ordered map, alone and under concurrent inserts.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use siltstone_sstable::{InternalIterator, ValueKind};

use super::*;

mod concurrent;
#[cfg(loom)]
mod model;
mod shapes;
mod steps;

/// Nodes so small that a few entries make a tree of many levels.
const SMALL: usize = 4;

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

fn new<const N: usize>() -> Arc<Memtable<N>> {
    Arc::new(Memtable::with_node_size(BLOCK_BYTES, 1 << 20, Arc::default()))
}

fn filled<const N: usize>(rng: &mut SmallRng, count: usize) -> (Arc<Memtable<N>>, Model) {
    let memtable = new();
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
fn entry<const N: usize>(iter: &MemtableIter<N>) -> Option<(ModelKey, Vec<u8>)> {
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

impl<const N: usize> Memtable<N> {
    fn look_up(&self, key: &[u8], seqno: SeqNo) -> Option<(Tag, &[u8])> {
        self.get(key, key_hash(key), seqno)
    }
}

#[test]
fn an_empty_memtable_has_nothing_and_costs_nothing() {
    let memtable = Arc::new(Memtable::new(2 << 20, 1 << 20, Arc::default()));
    assert!(memtable.is_empty());
    assert_eq!(
        (memtable.entries(), memtable.tombstones(), memtable.bytes_used()),
        (0, 0, 0)
    );
    assert_eq!(memtable.look_up(b"", SeqNo::MAX), None);
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
    check_get_finds_the_newest_entry_up_to_the_seqno::<SMALL>();
    check_get_finds_the_newest_entry_up_to_the_seqno::<NODE_ENTRIES>();
}

fn check_get_finds_the_newest_entry_up_to_the_seqno<const N: usize>() {
    let seed = 1;
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rounds(5000, 150);
    let (memtable, model) = filled::<N>(&mut rng, count);
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
        let got = memtable.look_up(&key, seqno);
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
    check_iterator_walks_like_the_model::<SMALL>();
    check_iterator_walks_like_the_model::<NODE_ENTRIES>();
}

fn check_iterator_walks_like_the_model<const N: usize>() {
    for seed in 0..rounds(20, 2) as u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rounds(1000, 60);
        let (memtable, model) = filled::<N>(&mut rng, count);
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
    check_scans_meet_every_entry_in_order_both_ways::<SMALL>();
    check_scans_meet_every_entry_in_order_both_ways::<NODE_ENTRIES>();
}

fn check_scans_meet_every_entry_in_order_both_ways<const N: usize>() {
    let (memtable, model) = filled::<N>(&mut SmallRng::seed_from_u64(7), rounds(3000, 100));
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
    check_heads_that_are_equal_leave_the_order_to_the_rest::<3>();
    check_heads_that_are_equal_leave_the_order_to_the_rest::<SMALL>();
    check_heads_that_are_equal_leave_the_order_to_the_rest::<NODE_ENTRIES>();
}

fn check_heads_that_are_equal_leave_the_order_to_the_rest<const N: usize>() {
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
    let memtable = new::<N>();
    for (i, key) in keys.iter().enumerate().rev() {
        memtable.insert(InternalKey::new(key, put(1 + i as u64)), key);
    }
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for key in keys {
        assert_eq!((iter.user_key(), iter.value()), (key, key));
        assert_eq!(
            memtable.look_up(key, SeqNo::MAX).map(|(_, value)| value),
            Some(key)
        );
        iter.next().unwrap();
    }
}

#[test]
fn the_largest_keys_and_large_values_are_stored_whole() {
    use siltstone_sstable::KEY_BYTES_MAX;
    let value_len = if cfg!(miri) { 1 << 20 } else { 64 << 20 };
    let memtable = Memtable::new(BLOCK_BYTES, 1 << 20, Arc::default());
    let (key, value) = (vec![b'k'; KEY_BYTES_MAX], vec![0x5a; value_len]);
    memtable.insert(InternalKey::new(b"a", put(1)), b"small");
    memtable.insert(InternalKey::new(&key, put(2)), &value);
    memtable.insert(InternalKey::new(&key[1..], put(3)), b"small");
    assert!(
        memtable
            .look_up(&key, SeqNo::MAX)
            .is_some_and(|(_, found)| found == value)
    );
    assert_eq!(
        memtable.look_up(&key[1..], SeqNo::MAX),
        Some((put(3), b"small".as_slice()))
    );
    let entries_bytes = (value_len + 2 * KEY_BYTES_MAX) as u64;
    assert!((entries_bytes..entries_bytes + 4000).contains(&memtable.bytes_used()));
}

/// The write path never does this; where debug assertions find it out, the tree must not be half changed.
#[test]
#[cfg(debug_assertions)]
fn an_insert_that_panics_leaves_the_tree_as_it_was() {
    let (memtable, model) = filled::<SMALL>(&mut SmallRng::seed_from_u64(3), rounds(200, 40));
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
    let memtable = Arc::new(Memtable::<SMALL>::with_node_size(
        4 << 10,
        1 << 20,
        Arc::default(),
    ));
    memtable.insert(InternalKey::new(b"m", put(1)), b"value");
    let (_, value) = memtable.look_up(b"m", SeqNo::MAX).unwrap();
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

#[test]
fn versions_of_one_key_are_found_over_many_leaves() {
    check_versions_of_one_key_are_found_over_many_leaves::<SMALL>(rounds(300, 40) as u64);
    check_versions_of_one_key_are_found_over_many_leaves::<NODE_ENTRIES>(rounds(2000, 100) as u64);
}

fn check_versions_of_one_key_are_found_over_many_leaves<const N: usize>(count: u64) {
    let memtable = new::<N>();
    // Every other seqno once, in no order; neighbours before and behind the key.
    for i in 0..count {
        let seqno = 10 + 2 * (i * 7919 % count);
        memtable.insert(InternalKey::new(b"key", put(seqno)), &seqno.to_le_bytes());
        memtable.insert(InternalKey::new(b"ke", put(seqno + 1)), b"");
        memtable.insert(InternalKey::new(b"key\0", put(seqno + 1)), b"");
    }
    assert_eq!(memtable.look_up(b"key", SeqNo(9)), None);
    for seqno in 10..10 + 2 * count + 5 {
        let newest = (seqno & !1).min(10 + 2 * (count - 1));
        assert_eq!(
            memtable.look_up(b"key", SeqNo(seqno)),
            Some((put(newest), &newest.to_le_bytes()[..])),
            "at {seqno}"
        );
    }
    let mut iter = memtable.iter();
    iter.seek(InternalKey::new(b"key", Tag::FIRST)).unwrap();
    for i in (0..count).rev() {
        assert_eq!((iter.user_key(), iter.tag()), (&b"key"[..], put(10 + 2 * i)));
        iter.next().unwrap();
    }
    assert_eq!(iter.user_key(), b"key\0");
}
