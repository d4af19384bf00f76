//! Which tables a read asks. The tables have no files: only what versions and slices tell is looked at.

use siltstone_compaction::VersionEdit;
use siltstone_sstable::{SeqNo, key_hash};
use siltstone_vfs::{Error, ErrorKind};

use super::*;
use crate::sliced_filter::Slicer;

const MEMTABLE_BYTES: u64 = 8 << 10;

fn meta(id: u64, smallest: &str, largest: &str) -> TableMeta {
    TableMeta {
        id: TableId(id),
        size_bytes: 1,
        entries: 2,
        tombstones: 0,
        smallest: smallest.as_bytes().into(),
        largest: largest.as_bytes().into(),
        seqno_min: SeqNo(10 * id),
        seqno_max: SeqNo(10 * id + 5),
    }
}

fn handle(meta: TableMeta) -> Arc<TableHandle> {
    let unopened = Err(Error::new(ErrorKind::NotFound, "a test has no files"));
    let (garbage, _) = crossbeam_channel::unbounded();
    TableHandle::new(Arc::new(meta), "table".into(), unopened, garbage)
}

/// A keyspace's tables, and what it takes to change them.
#[derive(Default)]
struct Tables {
    slicer: Slicer,
    set: TableSet,
}

impl Tables {
    /// A flush of `keys` as table `id` of level 0.
    fn flush(&mut self, id: u64, keys: &[&str], sliced: bool) {
        let meta = meta(id, keys[0], keys[keys.len() - 1]);
        let hashes = keys.iter().map(|key| key_hash(key.as_bytes()));
        let slice = sliced
            .then(|| self.slicer.slice(MEMTABLE_BYTES, hashes))
            .flatten();
        let opened = Opened {
            handle: handle(meta.clone()),
            slice,
        };
        self.change(vec![(0, meta)], Vec::new(), vec![opened]);
    }

    fn change(&mut self, added: Vec<(u8, TableMeta)>, removed: Vec<(u8, TableId)>, opened: Vec<Opened>) {
        let edit = VersionEdit { added, removed };
        let version = self.set.version.apply(&edit).unwrap();
        self.set = TableSet::new(version, &self.set, opened);
    }

    fn asked(&self, key: &str) -> Vec<u64> {
        let mut ids = Vec::new();
        let (key, hash) = (key.as_bytes(), key_hash(key.as_bytes()));
        self.set
            .candidates(key, hash, |handle| ids.push(handle.meta().id.0));
        ids
    }
}

#[test]
fn slices_spare_tables_and_order_stays() {
    let mut tables = Tables::default();
    tables.flush(1, &["a", "k", "z"], false);
    tables.flush(2, &["a", "k", "z"], true);
    tables.flush(3, &["a", "m", "z"], true);
    tables.flush(4, &["a", "z"], false);
    tables.flush(5, &["a", "k", "z"], true);
    assert_eq!(tables.asked("k"), [5, 4, 2, 1]);
    assert_eq!(tables.asked("m"), [4, 3, 1]);
    assert_eq!(tables.asked("n"), [4, 1]);
    assert_eq!(tables.asked("a"), [5, 4, 3, 2, 1]);
    assert!(tables.asked("zz").is_empty());
}

#[test]
fn what_has_no_slice_left_is_asked_and_so_is_what_no_bit_stands_for() {
    let mut tables = Tables::default();
    for id in 1..=100 {
        let own = format!("k{id}");
        tables.flush(id, &["a", &own, "z"], true);
    }
    let all: Vec<u64> = (1..=100).rev().collect();
    assert_eq!(tables.asked("z"), all);
    // 32 tables have slices, the oldest ones, of which the 64 newest runs hold none.
    assert_eq!(tables.asked("b"), all);
    let removed = (37..=100).map(|id| (0, TableId(id))).collect();
    tables.change(Vec::new(), removed, Vec::new());
    assert_eq!(tables.asked("b"), [36, 35, 34, 33]);
    assert_eq!(tables.asked("k7"), [36, 35, 34, 33, 7]);
}

#[test]
fn a_view_keeps_the_slices_that_later_ones_have_lost() {
    let mut tables = Tables::default();
    for id in 1..=32 {
        tables.flush(id, &["a", "k", "z"], true);
    }
    let all: Vec<u64> = (1..=32).rev().collect();
    let old = std::mem::take(&mut tables.set);
    let mut later = Tables {
        set: TableSet::new(old.version.clone(), &old, Vec::new()),
        slicer: std::mem::take(&mut tables.slicer),
    };
    assert_eq!(later.asked("k"), all);
    let removed = (1..=32).map(|id| (0, TableId(id))).collect();
    later.change(Vec::new(), removed, Vec::new());
    for id in 33..=64 {
        later.flush(id, &["a", "m", "z"], true);
    }
    tables.set = old;
    assert_eq!(tables.asked("k"), all);
    assert!(tables.asked("m").is_empty());
    // The slices were not free, so those that came later went without.
    assert_eq!(later.asked("k").len(), 32);
    drop(tables);
    later.flush(65, &["a", "q", "z"], true);
    assert_eq!(later.asked("m").len(), 32);
    assert_eq!(later.asked("q").len(), 33);
}

#[test]
fn a_table_that_moves_down_is_found_by_its_range() {
    let mut tables = Tables::default();
    tables.flush(1, &["a", "k", "z"], true);
    tables.flush(2, &["a", "m", "z"], true);
    assert_eq!(tables.asked("n"), Vec::<u64>::new());
    let moved = meta(1, "a", "z");
    tables.change(vec![(1, moved)], vec![(0, TableId(1))], Vec::new());
    assert_eq!(tables.asked("n"), [1]);
    assert_eq!(tables.asked("m"), [2, 1]);
    // Its slice went with its place: the filter lives for the other table only.
    let removed = vec![(0, TableId(2))];
    tables.change(Vec::new(), removed, Vec::new());
    assert!(tables.set.sliced.is_none());
}

#[test]
fn tables_whose_memtables_had_another_size_are_asked() {
    let mut tables = Tables::default();
    tables.flush(1, &["a", "k", "z"], true);
    let meta = meta(2, "a", "z");
    let hashes = ["a", "m", "z"].map(|key| key_hash(key.as_bytes()));
    let slice = tables.slicer.slice(2 * MEMTABLE_BYTES, hashes.into_iter());
    let handle = handle(meta.clone());
    tables.change(vec![(0, meta)], Vec::new(), vec![Opened { handle, slice }]);
    assert_eq!(tables.asked("k"), [1]);
    assert_eq!(tables.asked("m"), [2, 1]);
}
