#![allow(clippy::cast_possible_truncation)] // test sizes are small
//! Tables against a model: what was put in comes out, by every way there is.

mod damage;
mod loading;
mod space;
#[cfg(all(target_os = "linux", not(miri)))]
mod walks;

use std::sync::Arc;

use proptest::prelude::*;
use siltstone_vfs::{ErrorKind, MapMode};

use crate::fixture::{
    Entry, any_entries, any_key, any_mode, any_move, any_options, build, cases, check_moves, delete, key_of,
    model_get, open, open_with_cache, put,
};
use crate::{
    BlockCache, BlockKind, Compression, FilterKind, InternalIterator, InternalKey, KEY_BYTES_MAX, SeqNo,
    Table, TableOptions, TableValue, key_hash,
};

fn check_get(table: &Table, entries: &[Entry], user_key: &[u8], seqno: SeqNo) {
    let found = table.get(user_key, key_hash(user_key), seqno).unwrap();
    let expected = model_get(entries, user_key, seqno);
    assert_eq!(
        found.is_some(),
        expected.is_some(),
        "{} at {seqno}",
        user_key.escape_ascii()
    );
    if let (Some(found), Some(expected)) = (found, expected) {
        assert_eq!(found.tag, expected.1);
        assert_eq!(*found.value, expected.2);
    }
}

/// Every key at every seqno where the answer changes.
fn check_all_gets(table: &Table, entries: &[Entry]) {
    for (key, tag, _) in entries {
        let seqno = tag.seqno();
        check_get(table, entries, key, seqno);
        check_get(table, entries, key, SeqNo(seqno.0.saturating_sub(1)));
        check_get(table, entries, key, SeqNo((seqno.0 + 1).min(SeqNo::MAX.0)));
        check_get(table, entries, key, SeqNo::MAX);
        check_get(table, entries, key, SeqNo::ZERO);
    }
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn what_is_built_is_read(
        entries in any_entries(400), options in any_options(), mode in any_mode(),
        others in prop::collection::vec(any_key(), 0..40), moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let (bytes, summary) = build(&entries, options);
        let table = open(&bytes, mode).unwrap();
        let verified = table.verify().unwrap();
        prop_assert_eq!(verified.entries, entries.len() as u64);
        prop_assert_eq!(summary.entries, verified.entries);
        prop_assert_eq!(summary.data_blocks, verified.data_blocks);
        prop_assert_eq!(&summary.smallest_key, &entries[0].0);
        prop_assert_eq!(&summary.largest_key, &entries[entries.len() - 1].0);
        prop_assert_eq!(summary.seqno_min, entries.iter().map(|entry| entry.1.seqno()).min().unwrap());
        prop_assert_eq!(summary.seqno_max, entries.iter().map(|entry| entry.1.seqno()).max().unwrap());
        prop_assert_eq!(summary.tombstones, entries.iter().filter(|entry| entry.1.is_tombstone()).count() as u64);
        check_all_gets(&table, &entries);
        for key in &others {
            check_get(&table, &entries, key, SeqNo(3));
            check_get(&table, &entries, key, SeqNo::MAX);
        }
        check_moves(&mut table.iter(), &entries, &moves);
        check_moves(&mut table.iter().fill_cache(false), &entries, &moves);
        check_full_scans(&table, &entries);
        check_layout(&table, &entries);
    }
}

fn check_full_scans(table: &Arc<Table>, entries: &[Entry]) {
    let mut iter = table.iter();
    iter.seek_to_first().unwrap();
    for entry in entries {
        assert_eq!((iter.key(), iter.value()), (key_of(entry), &entry.2[..]));
        iter.next().unwrap();
    }
    assert!(!iter.valid());
    iter.seek_to_last().unwrap();
    for entry in entries.iter().rev() {
        assert_eq!((iter.key(), iter.value()), (key_of(entry), &entry.2[..]));
        iter.prev().unwrap();
    }
    assert!(!iter.valid());
}

/// The parts follow each other and cover the file; data blocks hold the entries in order.
fn check_layout(table: &Table, entries: &[Entry]) {
    let parts = table.layout().unwrap();
    let mut end = 0;
    let mut first = 0;
    for part in &parts {
        assert!(
            part.offset >= end && part.offset - end < 64,
            "{part:?} after {end}"
        );
        end = part.offset + part.stored_bytes;
        if part.kind == BlockKind::Data {
            let last = first + usize::try_from(part.entries).unwrap();
            assert_eq!(
                (&part.first_key, &part.last_key),
                (&entries[first].0, &entries[last - 1].0)
            );
            assert!(table.approximate_bytes_before(&part.last_key).unwrap() <= part.offset);
            first = last;
        }
    }
    assert_eq!((first, end), (entries.len(), table.size_bytes()));
    let blocks = parts.iter().filter(|part| part.kind == BlockKind::Data);
    let blocks: Vec<_> = blocks.collect();
    for parts in [1, 2, 3, blocks.len(), usize::MAX] {
        let keys = table.dividing_keys(parts).unwrap();
        assert_eq!(keys.len(), parts.min(blocks.len()));
        for (part, key) in keys.iter().enumerate() {
            // The part's last block, and the one behind it.
            let end = (part + 1) * blocks.len() / keys.len();
            assert!(blocks[end - 1].last_key <= *key, "{part} of {parts}");
            assert!(
                blocks
                    .get(end)
                    .is_none_or(|next| *key < next.first_key || *key == blocks[end - 1].last_key)
            );
        }
    }
    assert!(table.dividing_keys(0).unwrap().is_empty());
}

#[test]
#[cfg(not(miri))] // takes minutes there
fn keys_and_values_of_extreme_size() {
    let long = |byte: u8| vec![byte; KEY_BYTES_MAX];
    let mut other = long(b'm');
    *other.last_mut().unwrap() = b'z';
    let entries = vec![
        put("", 9, "first"),
        put("", 2, ""),
        put(long(b'm'), 7, vec![1; 3 << 20]),
        put(long(b'm'), 5, ""),
        delete(&other, 4),
        put(long(255), 1, vec![7; 70_000]),
    ];
    let zstd = Compression::Zstd { level: 1 };
    for compression in [Compression::None, zstd] {
        for block_size_bytes in [4096, 1 << 20] {
            let options = TableOptions {
                block_size_bytes,
                compression,
                ..TableOptions::default()
            };
            let (bytes, _) = build(&entries, options);
            for mode in [MapMode::Map, MapMode::Read] {
                let table = open(&bytes, mode).unwrap();
                table.verify().unwrap();
                check_all_gets(&table, &entries);
                check_full_scans(&table, &entries);
            }
        }
    }
}

#[test]
fn versions_of_one_key_go_on_across_blocks() {
    let mut entries = vec![put("a", 1, "before")];
    entries.extend(
        (1..=3000)
            .rev()
            .map(|seqno| put("k", seqno * 2, seqno.to_string())),
    );
    entries.push(put("z", 1, "after"));
    let (bytes, summary) = build(&entries, TableOptions::default());
    assert!(summary.data_blocks > 3);
    let table = open(&bytes, MapMode::Map).unwrap();
    table.verify().unwrap();
    for seqno in (0..=6001).step_by(if cfg!(miri) { 997 } else { 1 }) {
        check_get(&table, &entries, b"k", SeqNo(seqno));
    }
    check_get(&table, &entries, b"l", SeqNo(9));
    check_get(&table, &entries, b"z", SeqNo(9));
}

#[test]
fn an_uncompressed_value_is_returned_in_place() {
    let (bytes, _) = build(&[put("k", 1, "value in place")], TableOptions::default());
    let table = open(&bytes, MapMode::Map).unwrap();
    let file = table.mapping().bytes().unwrap().as_ptr_range();
    let found = table.get(b"k", key_hash(b"k"), SeqNo::MAX).unwrap().unwrap();
    assert!(matches!(found.value, TableValue::Mapped(_)));
    assert!(file.contains(&found.value.as_ptr()));
    let mut iter = table.iter();
    iter.seek_to_first().unwrap();
    assert!(file.contains(&iter.value().as_ptr()));
}

#[test]
fn blocks_that_are_not_mapped_come_from_the_cache() {
    let entries: Vec<_> = (0..100)
        .map(|n| put(format!("{n:04}"), 1, vec![b'v'; 100]))
        .collect();
    let (bytes, _) = build(&entries, TableOptions::default());
    let cache = BlockCache::new(1 << 20);
    let table = open_with_cache(&bytes, MapMode::Read, Arc::clone(&cache)).unwrap();
    check_get(&table, &entries, b"0001", SeqNo(1));
    assert_eq!((cache.hits(), cache.misses()), (0, 1));
    check_get(&table, &entries, b"0002", SeqNo(1));
    assert_eq!((cache.hits(), cache.misses()), (1, 1));
    let mut iter = table.iter().fill_cache(false);
    iter.seek_to_last().unwrap();
    assert_eq!(cache.blocks(), 1);
    // Mapped and uncompressed: the cache is not asked.
    let mapped = open_with_cache(&bytes, MapMode::Map, Arc::clone(&cache)).unwrap();
    check_all_gets(&mapped, &entries);
    assert_eq!((cache.hits(), cache.misses()), (1, 2));
    // A cached block stays readable after the cache has dropped it.
    let none = open_with_cache(&bytes, MapMode::Read, BlockCache::new(0)).unwrap();
    check_full_scans(&none, &entries);
}

#[test]
fn a_filter_keeps_most_missing_keys_away_from_the_blocks() {
    let count = if cfg!(miri) { 50 } else { 5000 };
    let entries: Vec<_> = (0..count).map(|n| put(format!("{n:06}"), 1, "")).collect();
    for (filter, percent_max) in [
        (FilterKind::None, 100),
        (FilterKind::Standard { bits_per_key: 10 }, 2),
        (FilterKind::Blocked { bits_per_key: 10 }, 2),
    ] {
        let (bytes, _) = build(
            &entries,
            TableOptions {
                filter,
                ..TableOptions::default()
            },
        );
        let table = open(&bytes, MapMode::Map).unwrap();
        let passed = (0..count)
            .filter(|n| table.may_contain(key_hash(format!("{n:06}x").as_bytes())))
            .count();
        let limit = count * percent_max / 100 + if cfg!(miri) { 5 } else { 0 };
        assert!(passed <= limit, "{filter:?} let {passed} of {count} pass");
        assert_eq!(filter == FilterKind::None, passed == count);
    }
}

#[test]
fn keys_that_a_hash_index_cannot_tell_apart_are_told_apart_by_their_entries() {
    // Of two entries in one block the words of a hash index have 31 bits of hash.
    let mut by_word = std::collections::HashMap::new();
    let (first, second) = (0u32..1 << 20)
        .find_map(|number| {
            let word = key_hash(&number.to_be_bytes()) << 33;
            by_word.insert(word, number).map(|other| (other, number))
        })
        .unwrap();
    let entries = [first, second].map(|number| put(number.to_be_bytes(), 7, number.to_le_bytes()));
    let options = TableOptions {
        filter: FilterKind::HashIndex,
        ..TableOptions::default()
    };
    let (bytes, _) = build(&entries, options);
    for mode in [MapMode::Map, MapMode::Read] {
        let table = open(&bytes, mode).unwrap();
        check_all_gets(&table, &entries);
    }
}

#[test]
fn threads_share_a_table() {
    let entries: Vec<_> = (0..200)
        .map(|n| put(format!("{n:04}"), 1, vec![b'v'; 50]))
        .collect();
    let (bytes, _) = build(&entries, TableOptions::default());
    let table = open(&bytes, MapMode::Map).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| check_all_gets(&table, &entries[..if cfg!(miri) { 9 } else { 200 }]));
        }
    });
}

#[test]
fn a_wrong_build_is_refused() {
    let builder = |options| crate::TableBuilder::new(Box::new(Nowhere), std::path::Path::new("/f"), options);
    let invalid =
        |result: siltstone_vfs::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    let empty = builder(TableOptions::default());
    assert_eq!(empty.finish().unwrap_err().kind(), ErrorKind::InvalidInput);

    let mut wrong = builder(TableOptions {
        block_size_bytes: 1,
        ..TableOptions::default()
    });
    invalid(wrong.add(key_of(&put("a", 1, "")), b""));

    let mut unordered = builder(TableOptions::default());
    unordered.add(key_of(&put("b", 5, "")), b"").unwrap();
    for entry in [put("a", 9, ""), put("b", 5, ""), put("b", 6, ""), put("", 1, "")] {
        invalid(unordered.add(key_of(&entry), b""));
    }
    let too_long = vec![b'x'; KEY_BYTES_MAX + 1];
    invalid(unordered.add(InternalKey::new(&too_long, put("", 1, "").1), b""));
    // A refused entry leaves the builder usable.
    unordered.add(key_of(&put("b", 4, "")), b"").unwrap();
    assert_eq!(unordered.finish().unwrap().entries, 2);
}

#[test]
fn the_first_write_error_sticks() {
    struct Full;
    impl siltstone_vfs::WriteFile for Full {
        fn append(&mut self, _: &[u8]) -> siltstone_vfs::Result<()> {
            Err(siltstone_vfs::Error::new(ErrorKind::NoSpace, "full"))
        }
        fn sync(&mut self) -> siltstone_vfs::Result<()> {
            Ok(())
        }
    }
    let mut builder = crate::TableBuilder::new(
        Box::new(Full),
        std::path::Path::new("/f"),
        TableOptions::default(),
    );
    let value = vec![0; 3 << 20];
    assert_eq!(
        builder.add(key_of(&put("a", 1, "")), &value).unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(
        builder.add(key_of(&put("b", 1, "")), b"").unwrap_err().kind(),
        ErrorKind::NoSpace
    );
    assert_eq!(builder.finish().unwrap_err().kind(), ErrorKind::NoSpace);
}

/// A file whose bytes nobody reads.
struct Nowhere;

impl siltstone_vfs::WriteFile for Nowhere {
    fn append(&mut self, _: &[u8]) -> siltstone_vfs::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> siltstone_vfs::Result<()> {
        Ok(())
    }
}
