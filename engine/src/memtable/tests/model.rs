//! The tree's protocol under the model checker: every schedule of two or three threads with up to a given number of
//! preemptions, and every value that a relaxed load may see. Nodes of three entries, so that one insert can split them.
//!
//! Chunks and shards of the arenas are as always: the checker does not stop a thread within them.

use loom::thread;

use super::*;

fn model(preemptions_max: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions_max);
    builder.max_branches = 20_000;
    let schedules = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&schedules);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        test();
    });
    println!(
        "{} schedules",
        schedules.load(std::sync::atomic::Ordering::Relaxed)
    );
}

/// A tree that holds the given keys, each with its seqno: key n has seqno 1 + n.
fn tree_of(keys: &[u8]) -> Arc<Memtable<3>> {
    let memtable = Arc::new(Memtable::with_node_size(4 << 10, 1 << 20, Arc::default()));
    keys.iter().for_each(|key| insert(&memtable, *key));
    memtable
}

fn insert(memtable: &Memtable<3>, key: u8) {
    memtable.insert(InternalKey::new(&[key], put(1 + u64::from(key))), &[key]);
}

fn get(memtable: &Memtable<3>, key: u8) -> Option<u8> {
    memtable.look_up(&[key], SeqNo::MAX).map(|(tag, value)| {
        assert_eq!(tag, put(1 + u64::from(key)));
        value[0]
    })
}

/// All keys that a walk meets, in the order of the walk.
fn walk(memtable: &Arc<Memtable<3>>, backwards: bool) -> Vec<u8> {
    let mut iter = memtable.iter();
    let mut met = Vec::new();
    if backwards {
        iter.seek_to_last()
    } else {
        iter.seek_to_first()
    }
    .unwrap();
    while iter.valid() {
        assert_eq!(iter.user_key(), iter.value());
        met.push(iter.user_key()[0]);
        if backwards { iter.prev() } else { iter.next() }.unwrap();
    }
    met
}

fn assert_holds(memtable: &Arc<Memtable<3>>, keys: &[u8]) {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    assert_eq!(walk(memtable, false), keys);
    assert!(keys.iter().all(|key| get(memtable, *key) == Some(*key)));
    shapes::check(memtable);
}

/// Two threads insert, one key each, into a tree of these keys.
fn inserts_meet(before: &'static [u8], a: u8, b: u8, preemptions_max: usize) {
    model(preemptions_max, move || {
        let memtable = tree_of(before);
        let other = Arc::clone(&memtable);
        let thread = thread::spawn(move || {
            insert(&other, b);
            assert_eq!(get(&other, b), Some(b), "what a thread has inserted, it finds");
        });
        insert(&memtable, a);
        assert_eq!(get(&memtable, a), Some(a), "what a thread has inserted, it finds");
        thread.join().unwrap();
        assert_holds(&memtable, &[before, &[a, b]].concat());
    });
}

/// One thread inserts `new` in this order, another one reads a tree of `before`.
fn a_reader_meets_inserts(
    before: &'static [u8],
    new: &'static [u8],
    preemptions_max: usize,
    read: impl Fn(&Arc<Memtable<3>>) + Sync + Send + 'static,
) {
    model(preemptions_max, move || {
        let memtable = tree_of(before);
        let other = Arc::clone(&memtable);
        let thread = thread::spawn(move || new.iter().for_each(|key| insert(&other, *key)));
        read(&memtable);
        thread.join().unwrap();
        assert_holds(&memtable, &[before, new].concat());
    });
}

/// `met` is sorted, has all of `before`, and of `new` a part that was there at one moment.
fn assert_seen(met: &[u8], before: &[u8], new: &[u8]) {
    assert!(met.is_sorted_by(|a, b| a < b), "{met:?}");
    assert!(before.iter().all(|key| met.contains(key)), "{met:?}");
    assert!(
        met.iter().all(|key| before.contains(key) || new.contains(key)),
        "{met:?}"
    );
}

#[test]
fn model_two_first_inserts_make_one_root() {
    inserts_meet(&[], 10, 20, 3);
}

#[test]
fn model_inserts_into_one_leaf() {
    inserts_meet(&[10], 5, 20, 3);
}

/// One leaf is full: one thread splits it, and both make the root above it, or the other has to go right.
#[test]
fn model_inserts_into_a_full_root() {
    inserts_meet(&[10, 20, 30], 5, 25, 2);
    inserts_meet(&[10, 20, 30], 40, 50, 2);
}

/// Two leaves are full: two splits, told to the level above in either order, which splits in its turn.
#[test]
fn model_splits_of_neighbours_meet_above() {
    inserts_meet(&[10, 20, 30, 40, 50, 60], 15, 55, 2);
    inserts_meet(&[10, 20, 30, 40, 50, 60, 70, 80, 90], 15, 85, 2);
}

/// A leaf is split in two places before the level above knows of either.
#[test]
fn model_one_leaf_is_split_twice() {
    inserts_meet(&[10, 20, 30, 40, 50], 45, 47, 2);
}

#[test]
fn model_a_get_meets_a_shift() {
    a_reader_meets_inserts(&[10, 20], &[5], 3, |memtable| {
        assert_eq!(get(memtable, 10), Some(10));
        assert_eq!(get(memtable, 20), Some(20));
        assert!(get(memtable, 5).is_none_or(|value| value == 5));
    });
}

#[test]
fn model_a_get_meets_a_split_and_a_new_root() {
    a_reader_meets_inserts(&[10, 20, 30], &[15], 2, |memtable| {
        assert_eq!(get(memtable, 30), Some(30));
        assert_eq!(get(memtable, 10), Some(10));
        assert_eq!(get(memtable, 25), None);
    });
}

#[test]
fn model_a_get_meets_a_split_below_a_root() {
    a_reader_meets_inserts(&[10, 20, 30, 40, 50, 60], &[55], 2, |memtable| {
        for key in [30, 40, 50, 60] {
            assert_eq!(get(memtable, key), Some(key));
        }
    });
}

const WALKED: &[u8] = &[10, 20, 30];

/// What a walk must have met, in the order of the keys.
fn a_walk_meets_inserts(backwards: bool, new: &'static [u8], preemptions_max: usize) {
    a_reader_meets_inserts(WALKED, new, preemptions_max, move |memtable| {
        let mut met = walk(memtable, backwards);
        if backwards {
            met.reverse();
        }
        assert_seen(&met, WALKED, new);
    });
}

#[test]
fn model_a_walk_meets_splits() {
    a_walk_meets_inserts(false, &[15, 17], 2);
}

#[test]
fn model_a_walk_back_meets_a_split() {
    a_walk_meets_inserts(true, &[15], 2);
}

#[test]
fn model_a_walk_back_meets_splits() {
    a_walk_meets_inserts(true, &[15, 17], 1);
}

/// Whoever learns by a flag that an insert has returned finds the entry: the promise that commits rest on.
#[test]
fn model_what_was_published_is_found() {
    model(2, || {
        let memtable = tree_of(&[10, 20, 30]);
        let published = Arc::new(loom::sync::atomic::AtomicU32::new(0));
        let writers: Vec<_> = [15, 25]
            .map(|key| {
                let (memtable, published) = (Arc::clone(&memtable), Arc::clone(&published));
                thread::spawn(move || {
                    insert(&memtable, key);
                    published.fetch_or(u32::from(key == 15) + 1, loom::sync::atomic::Ordering::Release);
                })
            })
            .into();
        let seen = published.load(loom::sync::atomic::Ordering::Acquire);
        for key in [15, 25] {
            if seen & (u32::from(key == 15) + 1) != 0 {
                assert_eq!(get(&memtable, key), Some(key));
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_holds(&memtable, &[10, 15, 20, 25, 30]);
    });
}
