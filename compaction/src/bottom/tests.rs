use siltstone_sstable::{SeqNo, TableId};

use super::*;
use crate::{PlanKind, Reason, VersionEdit};

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

fn plan(version: &Version, level: usize, output_level: usize, ids: &[u64]) -> Plan {
    let input = |level: usize| {
        let tables = version
            .level(level)
            .iter()
            .filter(|table| ids.contains(&table.id.0));
        (level, tables.cloned().collect::<Vec<_>>())
    };
    let mut inputs = vec![input(level), input(output_level)];
    inputs.retain(|(_, tables)| !tables.is_empty());
    Plan {
        level,
        output_level,
        inputs,
        kind: PlanKind::Merge,
        bottommost: false,
        grandparents: Vec::new(),
        reason: Reason::Range,
    }
}

/// Which of the keys a to z have nothing below.
fn bottom_keys(check: &mut BottomCheck) -> String {
    ('a'..='z')
        .filter(|key| check.is_bottom(key.to_string().as_bytes()))
        .collect()
}

#[test]
fn every_deeper_level_counts() {
    let version = version(&[
        (1, 9, "a-z"),
        (2, 8, "a-z"),
        (3, 1, "b-d"),
        (3, 2, "k-k"),
        (4, 3, "c-f"),
        (4, 4, "x-z"),
        (6, 5, "m-n"),
        (6, 6, "n0-p"),
    ]);
    let plan = plan(&version, 1, 2, &[9, 8]);
    assert_eq!(
        bottom_keys(&mut BottomCheck::new(&version, &plan)),
        "aghijlqrstuvw"
    );
    assert_eq!(bottom_keys(&mut BottomCheck::always()).len(), 26);
    assert_eq!(bottom_keys(&mut BottomCheck::never()), "");
}

#[test]
fn an_older_table_left_in_level_0_counts_and_a_newer_one_does_not() {
    let version = version(&[(0, 30, "a-c"), (0, 20, "b-z"), (0, 10, "f-g")]);
    let plan = plan(&version, 0, 6, &[20]);
    assert_eq!(
        bottom_keys(&mut BottomCheck::new(&version, &plan)),
        "abcdehijklmnopqrstuvwxyz"
    );
}
