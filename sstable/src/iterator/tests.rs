//! Steps from user key to user key, and turns, over a table and over merges.

use std::sync::Arc;

use proptest::prelude::*;
use siltstone_vfs::MapMode;

use crate::fixture::{Entry, any_entries, any_options, build, cases, key_of, open};
use crate::{InternalIterator, MergeIterator, TableOptions, VecIterator};

/// Does each of `steps` (0 next, 1 prev, 2 next user key) from `start` on, and compares with the position in `model`.
fn walk(iter: &mut impl InternalIterator, model: &[Entry], start: usize, steps: &[u8]) {
    let mut scratch = Vec::new();
    iter.seek(key_of(&model[start])).unwrap();
    let mut at = start;
    for step in steps {
        assert_eq!(iter.key(), key_of(&model[at]));
        assert_eq!(iter.value(), model[at].2);
        let before = at.checked_sub(1).map(|before| &model[before].0);
        if iter.begins_user_key() {
            assert_ne!(before, Some(&model[at].0), "at {at}");
        }
        let next = match step {
            0 => {
                iter.next().unwrap();
                at + 1
            }
            1 => {
                iter.prev().unwrap();
                at.wrapping_sub(1)
            }
            _ => {
                iter.next_user_key(&mut scratch).unwrap();
                model.partition_point(|entry| entry.0 <= model[at].0)
            }
        };
        assert_eq!(iter.valid(), next < model.len(), "at {at}, step {step}");
        if next >= model.len() {
            return;
        }
        at = next;
    }
    assert_eq!(iter.key(), key_of(&model[at]));
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn a_table_steps_from_key_to_key(
        entries in any_entries(200), options in any_options(), start in any::<prop::sample::Index>(),
        steps in prop::collection::vec(0u8..3, 0..60),
    ) {
        let (bytes, _) = build(&entries, options);
        let table = open(&bytes, MapMode::Map).unwrap();
        walk(&mut table.iter(), &entries, start.index(entries.len()), &steps);
    }

    #[test]
    fn a_merge_steps_from_key_to_key(
        entries in any_entries(120), sources in 1usize..7, salt in any::<u64>(),
        start in any::<prop::sample::Index>(), steps in prop::collection::vec(0u8..3, 0..60),
    ) {
        let mut split = vec![Vec::new(); sources];
        for (n, entry) in entries.iter().enumerate() {
            let at = (n as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            split[usize::try_from(at).unwrap() % sources].push(entry.clone());
        }
        let start = start.index(entries.len());
        let in_memory = split.iter().map(|part| VecIterator::new(Arc::new(part.clone())));
        walk(&mut MergeIterator::new(in_memory.collect()), &entries, start, &steps);
        // Tables know more about where a user key begins.
        let tables = split.iter().filter(|part| !part.is_empty()).map(|part| {
            let options = TableOptions { block_size_bytes: 512, ..TableOptions::default() };
            open(&build(part, options).0, MapMode::Map).unwrap().iter()
        });
        walk(&mut MergeIterator::new(tables.collect()), &entries, start, &steps);
    }
}

/// Two sources, both with versions of most keys: each walk of turns from each position.
#[test]
fn turns_in_every_position() {
    let version = |key: u8, seqno| crate::fixture::put([b'k', key], seqno, [key, 9]);
    let newer = vec![version(1, 9), version(2, 9), version(2, 8), version(4, 9)];
    let older = vec![
        version(1, 3),
        version(2, 4),
        version(3, 2),
        version(3, 1),
        version(4, 1),
    ];
    let model = crate::fixture::sorted([newer.clone(), older.clone()].concat());
    let tables = [newer, older]
        .map(|entries| open(&build(&entries, TableOptions::default()).0, MapMode::Map).unwrap());
    for start in 0..model.len() {
        for walks in 0..3usize.pow(5) {
            let steps: Vec<u8> = (0..5)
                .map(|at| (walks / 3usize.pow(at) % 3).to_le_bytes()[0])
                .collect();
            let mut merge = MergeIterator::new(tables.iter().map(|table| table.iter()).collect());
            walk(&mut merge, &model, start, &steps);
        }
    }
}
