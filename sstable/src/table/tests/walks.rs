//! Long walks over tables that are not in the page cache, which are read beside their mapping. On a file system that is itself
//! memory there is nothing to see.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{Advice, fadvise};
use siltstone_vfs::{ErrorKind, Fs, MapMode, OsFs, cached_pages};

use crate::fixture::{Entry, Move, any_move, any_options, build, cases, check_moves, key_of, put};
use crate::table::TableIter;
use crate::{BlockCache, BlockKind, InternalIterator, Table, TableId, TableOptions};

/// More than a walk reads in the mapping before it is a long one.
const DATA_BYTES: usize = 6 << 20;

/// Values that nothing compresses, of these lengths in turn.
fn entries_of(lengths: &[usize]) -> Vec<Entry> {
    let mut random = 1_u64;
    let mut byte = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()[0]
    };
    let mut entries = Vec::new();
    let mut bytes = 0;
    while bytes < DATA_BYTES || !entries.len().is_multiple_of(lengths.len()) {
        let number = entries.len();
        let value: Vec<u8> = (0..lengths[number % lengths.len()]).map(|_| byte()).collect();
        bytes += value.len() + 10;
        entries.push(put(format!("key{number:07}"), 5, value));
    }
    entries
}

/// Fixed and mixed sizes; blocks that fill half a piece, and ones that are longer than one.
fn any_lengths() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![100]),
        Just(vec![0, 3000, 17, 900]),
        Just(vec![61 << 10]),
        Just(vec![70 << 10, 100, 20 << 10]),
        Just([vec![61 << 10; 40], vec![3 << 20], vec![100, 400 << 10, 61 << 10]].concat()),
    ]
}

struct Cold {
    _dir: tempfile::TempDir,
    path: PathBuf,
    table: Arc<Table>,
}

impl Cold {
    /// A table none of which is in the page cache but what opening it reads. `None` where it stays there.
    fn new(bytes: &[u8]) -> Option<Cold> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let is_cached = || cached_pages(&file, 0..u64::MAX).unwrap().contains(&true);
        for _ in 0..100 {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            if !is_cached() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if is_cached() {
            println!("the table stays in the page cache: nothing is tested");
            return None;
        }
        let lock = OsFs.lock_dir(dir.path()).unwrap();
        let mapping = OsFs.open_table(&path, &lock, MapMode::Map).unwrap();
        mapping.advise(siltstone_vfs::Advice::Random).unwrap();
        let table = Table::open(mapping, TableId(1), BlockCache::new(1 << 20)).unwrap();
        Some(Cold {
            _dir: dir,
            path,
            table: Arc::new(table),
        })
    }
}

/// The whole table, from its first entry on.
fn check_walk(iter: &mut TableIter, entries: &[Entry]) {
    iter.seek_to_first().unwrap();
    for entry in entries {
        assert_eq!((iter.key(), iter.value()), (key_of(entry), &*entry.2));
        iter.next().unwrap();
    }
    assert!(!iter.valid());
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_is_read_beside_the_mapping_is_what_was_put(
        lengths in any_lengths(), options in any_options(), part in 1_usize..5,
        moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let entries = entries_of(&lengths);
        let (bytes, _) = build(&entries, options);
        let Some(cold) = Cold::new(&bytes) else { return Ok(()) };
        let mut walk = vec![Move::First, Move::Next((entries.len() * part / 4).saturating_sub(1))];
        walk.extend(moves);
        check_moves(&mut cold.table.iter(), &entries, &walk);
        let Some(cold) = Cold::new(&bytes) else { return Ok(()) };
        let mut iter = cold.table.iter();
        check_walk(&mut iter, &entries);
        let blocks = cold.table.properties().data_blocks;
        let (is_fetching, reads) = iter.fetches();
        // Of blocks of a megabyte there are too few.
        prop_assert!(is_fetching && reads > 20 || options.block_size_bytes > 1 << 19, "{reads} of {blocks}");
    }
}

#[test]
fn a_damaged_block_is_told_of_where_the_walk_meets_it() {
    let entries = entries_of(&[100]);
    let (mut bytes, _) = build(&entries, TableOptions::default());
    let Some(cold) = Cold::new(&bytes) else { return };
    let layout = cold.table.layout().unwrap();
    let blocks: Vec<_> = layout
        .iter()
        .filter(|part| part.kind == BlockKind::Data)
        .collect();
    let damaged = blocks[blocks.len() - 3];
    bytes[usize::try_from(damaged.offset).unwrap() + 50] ^= 1;
    let Some(cold) = Cold::new(&bytes) else { return };
    let mut iter = cold.table.iter();
    let mut read = 0;
    iter.seek_to_first().unwrap();
    let error = loop {
        assert_eq!(iter.value(), entries[read].2);
        read += 1;
        if let Err(error) = iter.next() {
            break error;
        }
    };
    assert!(iter.fetches().0 && !iter.valid());
    assert_eq!(
        (error.kind(), error.offset()),
        (ErrorKind::Corruption, Some(damaged.offset))
    );
    let before: u64 = blocks[..blocks.len() - 3].iter().map(|block| block.entries).sum();
    assert_eq!(read as u64, before);
    iter.seek_to_last().unwrap();
    assert_eq!(iter.value(), entries[entries.len() - 1].2);
}

#[test]
fn a_walk_over_what_is_cached_stays_in_the_mapping() {
    let entries = entries_of(&[100]);
    let Some(cold) = Cold::new(&build(&entries, TableOptions::default()).0) else {
        return;
    };
    let file = File::open(&cold.path).unwrap();
    for _ in 0..100 {
        let _ = std::fs::read(&cold.path).unwrap();
        let mut iter = cold.table.iter();
        check_walk(&mut iter, &entries);
        // Else it was taken away in between.
        if !cached_pages(&file, 0..u64::MAX).unwrap().contains(&false) {
            assert_eq!(iter.fetches(), (false, 0));
            return;
        }
    }
}

/// Of two tables that each fit into one piece, the second one's blocks are where the first one's were.
#[test]
fn a_walk_goes_on_in_the_next_table_with_what_that_holds() {
    let large = entries_of(&[100]);
    let few = |value: u8| -> Vec<Entry> {
        let key = |number: u32| format!("key{number:07}");
        (0..500).map(|number| put(key(number), 5, [value; 100])).collect()
    };
    let mut before: Option<TableIter> = None;
    for entries in [large, few(1), few(2), few(3)] {
        let Some(cold) = Cold::new(&build(&entries, TableOptions::default()).0) else {
            return;
        };
        let mut iter = cold.table.iter();
        match before.take() {
            Some(before) => iter.go_on_from(before).unwrap(),
            None => iter.seek_to_first().unwrap(),
        }
        for (_, _, value) in &entries {
            assert_eq!(iter.value(), value);
            iter.next().unwrap();
        }
        assert!(iter.fetches().0 && !iter.valid());
        before = Some(iter);
    }
}

/// Once a walk is over, reads through the same iterator read no piece for a block.
#[test]
fn reads_behind_a_walk_are_in_the_mapping() {
    let entries = entries_of(&[100]);
    let Some(cold) = Cold::new(&build(&entries, TableOptions::default()).0) else {
        return;
    };
    let last = entries.len() - 1;
    let mut iter = cold.table.iter();
    iter.seek_to_first().unwrap();
    (0..last).for_each(|_| iter.next().unwrap());
    let (is_fetching, reads) = iter.fetches();
    assert!(is_fetching && reads > 30, "{reads}");
    for entry in entries.iter().rev().take(last / 2) {
        assert_eq!((iter.key(), iter.value()), (key_of(entry), &*entry.2));
        iter.prev().unwrap();
    }
    assert_eq!(iter.fetches(), (false, reads));
    let Some(cold) = Cold::new(&build(&entries, TableOptions::default()).0) else {
        return;
    };
    let mut iter = cold.table.iter();
    iter.seek_to_first().unwrap();
    (0..last).for_each(|_| iter.next().unwrap());
    let (_, reads) = iter.fetches();
    for number in (last / 3..last - 2000).step_by(997) {
        iter.seek(key_of(&entries[number])).unwrap();
        assert_eq!(iter.value(), entries[number].2);
    }
    assert_eq!(iter.fetches(), (true, reads));
    for number in (0..last - 100).step_by(997).chain([last / 2, last / 3, last / 2]) {
        iter.seek(key_of(&entries[number])).unwrap();
        for entry in &entries[number..number + 100] {
            assert_eq!((iter.key(), iter.value()), (key_of(entry), &*entry.2));
            iter.next().unwrap();
        }
    }
    assert_eq!(iter.fetches(), (false, reads));
}

/// The name of a table is gone, or leads to another file, before a walk opens it.
#[test]
fn without_its_name_a_table_is_read_in_the_mapping() {
    let entries = entries_of(&[100]);
    let others: Vec<Entry> = entries
        .iter()
        .map(|(key, _, value)| put(key, 5, vec![7; value.len()]))
        .collect();
    let [(bytes, _), (other, _)] = [&entries, &others].map(|entries| build(entries, TableOptions::default()));
    for other in [None, Some(&other)] {
        let Some(cold) = Cold::new(&bytes) else { return };
        std::fs::remove_file(&cold.path).unwrap();
        if let Some(other) = other {
            std::fs::write(&cold.path, other).unwrap();
        }
        let mut iter = cold.table.iter();
        check_walk(&mut iter, &entries);
        // It has tried once.
        assert_eq!(iter.fetches(), (false, 1));
    }
}
