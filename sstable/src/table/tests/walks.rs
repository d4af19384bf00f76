//! Long walks over tables that are not in the page cache, which are read beside their mapping.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{Advice, fadvise};
use siltstone_vfs::{ErrorKind, Fs, MapMode, OsFs};

use crate::fixture::{Entry, Move, any_move, any_options, build, cases, check_moves, put};
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

/// Fixed and mixed sizes; blocks as long as a piece, and longer; one that no piece is read for.
fn any_lengths() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![100]),
        Just(vec![0, 3000, 17, 900]),
        Just(vec![61 << 10]),
        Just(vec![300 << 10, 100, 100]),
        Just([vec![61 << 10; 40], vec![5 << 20], vec![100, 400 << 10, 61 << 10]].concat()),
    ]
}

struct Cold {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Cold {
    fn new(bytes: &[u8]) -> Cold {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, bytes).unwrap();
        Cold { _dir: dir, path }
    }

    /// The table, none of which is in the page cache but what opening it reads. `None` where the file system is itself memory.
    fn open(&self) -> Option<Arc<Table>> {
        let file = File::open(&self.path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let lock = OsFs
            .lock_dir(self.path.parent().unwrap_or(Path::new(".")))
            .unwrap();
        let mapping = OsFs.open_table(&self.path, &lock, MapMode::Map).unwrap();
        mapping.advise(siltstone_vfs::Advice::Random).unwrap();
        if !mapping.is_cold(0..1 << 20) {
            return None;
        }
        let table = Table::open(mapping, TableId(1), BlockCache::new(1 << 20));
        Some(Arc::new(table.unwrap()))
    }

    /// Does `moves` on the cold table and in the model. Whether it reads beside the mapping in the end.
    fn walk(&self, entries: &[Entry], moves: &[Move]) -> Option<bool> {
        let mut iter = self.open()?.iter();
        check_moves(&mut iter, entries, moves);
        Some(iter.is_fetching())
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_is_read_beside_the_mapping_is_what_was_put(
        lengths in any_lengths(), options in any_options(), part in 1_usize..5,
        moves in prop::collection::vec(any_move(), 0..40),
    ) {
        let entries = entries_of(&lengths);
        let cold = Cold::new(&build(&entries, options).0);
        let mut walk = vec![Move::First, Move::Next((entries.len() * part / 4).saturating_sub(1))];
        walk.extend(moves);
        if cold.walk(&entries, &walk).is_none() {
            return Ok(());
        }
        let fetches = cold.walk(&entries, &[Move::First, Move::Next(entries.len() - 1)]);
        // Of blocks of a megabyte there are too few, and one that is too long ends it.
        let may_end = options.block_size_bytes > 1 << 19 || lengths.contains(&(5 << 20));
        prop_assert!(fetches != Some(false) || may_end);
    }
}

#[test]
fn a_damaged_block_is_told_of_where_the_walk_meets_it() {
    let entries = entries_of(&[100]);
    let (mut bytes, _) = build(&entries, TableOptions::default());
    let layout = Cold::new(&bytes).open().map(|table| table.layout().unwrap());
    let Some(layout) = layout else { return };
    let blocks: Vec<_> = layout
        .iter()
        .filter(|part| part.kind == BlockKind::Data)
        .collect();
    let damaged = blocks[blocks.len() - 3];
    bytes[usize::try_from(damaged.offset).unwrap() + 50] ^= 1;
    let cold = Cold::new(&bytes);
    let Some(table) = cold.open() else { return };
    let mut iter = table.iter();
    let mut read = 0;
    iter.seek_to_first().unwrap();
    let error = loop {
        assert_eq!(iter.value(), entries[read].2);
        read += 1;
        if let Err(error) = iter.next() {
            break error;
        }
    };
    assert!(iter.is_fetching() && !iter.valid());
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
    let (bytes, _) = build(&entries, TableOptions::default());
    let cold = Cold::new(&bytes);
    let Some(table) = cold.open() else { return };
    let _ = std::fs::read(&cold.path).unwrap();
    let mut iter = table.iter();
    check_moves(&mut iter, &entries, &[Move::First, Move::Next(entries.len() - 1)]);
    assert!(!iter.is_fetching());
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
        let cold = Cold::new(&build(&entries, TableOptions::default()).0);
        let Some(table) = cold.open() else { return };
        let mut iter = table.iter();
        match before.take() {
            Some(before) => iter.go_on_from(before).unwrap(),
            None => iter.seek_to_first().unwrap(),
        }
        for (_, _, value) in &entries {
            assert_eq!(iter.value(), value);
            iter.next().unwrap();
        }
        assert!(iter.is_fetching() && !iter.valid());
        before = Some(iter);
    }
}
