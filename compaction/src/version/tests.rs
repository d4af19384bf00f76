use siltstone_sstable::SeqNo;

use super::*;

fn table(id: u64, keys: &str) -> TableMeta {
    let (smallest, largest) = keys.split_once('-').unwrap();
    TableMeta {
        id: TableId(id),
        size_bytes: 10,
        entries: 3,
        tombstones: 0,
        smallest: smallest.as_bytes().into(),
        largest: largest.as_bytes().into(),
        seqno_min: SeqNo(id * 10),
        seqno_max: SeqNo(id * 10 + 9),
    }
}

fn version(tables: &[(u8, u64, &str)]) -> Version {
    let added = tables
        .iter()
        .map(|(level, id, keys)| (*level, table(*id, keys)))
        .collect();
    Version::default()
        .apply(&VersionEdit {
            added,
            removed: Vec::new(),
        })
        .unwrap()
}

fn ids<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>) -> Vec<u64> {
    tables.into_iter().map(|table| table.id.0).collect()
}

#[test]
fn an_edit_moves_adds_and_removes_as_one_step() {
    let before = version(&[
        (0, 7, "a-z"),
        (0, 9, "a-z"),
        (3, 2, "m-p"),
        (3, 1, "a-c"),
        (6, 3, "a-z"),
    ]);
    assert_eq!(ids(before.level(0)), [9, 7], "newest first");
    assert_eq!(ids(before.level(3)), [1, 2], "by key");
    let edit = VersionEdit {
        added: vec![(4, table(2, "m-p")), (3, table(10, "d-z"))],
        removed: vec![(3, TableId(2)), (0, TableId(7))],
    };
    let after = before.apply(&edit).unwrap();
    assert_eq!(
        after
            .tables()
            .map(|(level, table)| (level, table.id.0))
            .collect::<Vec<_>>(),
        [(0, 9), (3, 1), (3, 10), (4, 2), (6, 3)]
    );
    assert_eq!(
        (after.level_bytes(3), after.total_bytes(), after.l0_count()),
        (20, 50, 1)
    );
    assert_eq!(ids(before.level(3)), [1, 2], "the version before stays as it was");
    assert!(
        Arc::ptr_eq(&before.levels[6].tables, &after.levels[6].tables),
        "what did not change is shared"
    );
}

#[test]
fn an_impossible_edit_is_corruption() {
    let before = version(&[(3, 1, "a-c"), (4, 2, "a-c")]);
    let remove = |level, id| VersionEdit {
        added: Vec::new(),
        removed: vec![(level, TableId(id))],
    };
    let add = |level, id, keys| VersionEdit {
        added: vec![(level, table(id, keys))],
        removed: Vec::new(),
    };
    let twice = VersionEdit {
        added: Vec::new(),
        removed: vec![(3, TableId(1)); 2],
    };
    for edit in [
        remove(3, 2),
        remove(7, 1),
        remove(255, 1),
        twice,
        add(7, 9, "a-b"),
        add(3, 9, "c-d"),
        add(3, 1, "a-c"),
    ] {
        assert_eq!(
            before.apply(&edit).unwrap_err().kind(),
            ErrorKind::Corruption,
            "{edit:?}"
        );
    }
}

#[test]
fn overlaps_are_found_by_key() {
    let version = version(&[
        (0, 20, "a-c"),
        (0, 21, "k-z"),
        (2, 1, "b-d"),
        (2, 2, "f-h"),
        (2, 3, "m-m"),
        (2, 4, "n-z"),
    ]);
    for (level, from, to, expected) in [
        (0, "d", "j", &[][..]),
        (0, "c", "k", &[21, 20]),
        (2, "", "a", &[]),
        (2, "", "b", &[1]),
        (2, "d", "f", &[1, 2]),
        (2, "e", "e", &[]),
        (2, "m", "m", &[3]),
        (2, "a", "zz", &[1, 2, 3, 4]),
        (2, "zz", "zzz", &[]),
        (5, "a", "z", &[]),
    ] {
        assert_eq!(
            ids(version.overlapping(level, from.as_bytes(), to.as_bytes())),
            expected,
            "{level} {from}-{to}"
        );
    }
    for (key, expected) in [
        ("a", None),
        ("b", Some(1)),
        ("d", Some(1)),
        ("e", None),
        ("m", Some(3)),
        ("zz", None),
    ] {
        assert_eq!(
            version.find(2, key.as_bytes()).map(|table| table.id.0),
            expected,
            "{key}"
        );
    }
}
