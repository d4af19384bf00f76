use siltstone_sstable::{SeqNo, TableId};

use super::*;

fn grandparents(tables: &[(&str, &str, u64)]) -> Vec<Arc<TableMeta>> {
    let meta = |(id, (smallest, largest, size_bytes)): (usize, &(&str, &str, u64))| {
        Arc::new(TableMeta {
            id: TableId(u64::try_from(id).unwrap()),
            size_bytes: *size_bytes,
            entries: 1,
            tombstones: 0,
            smallest: smallest.as_bytes().into(),
            largest: largest.as_bytes().into(),
            seqno_min: SeqNo(0),
            seqno_max: SeqNo(0),
        })
    };
    tables.iter().enumerate().map(meta).collect()
}

/// Splits keys, each `entry_bytes` long, and shows the outputs.
fn split(target: u64, tables: &[(&str, &str, u64)], keys: &str, entry_bytes: u64) -> String {
    show(
        OutputSplitter::new(target, grandparents(tables)),
        keys,
        entry_bytes,
    )
}

fn show(mut splitter: OutputSplitter, keys: &str, entry_bytes: u64) -> String {
    let mut shown = String::new();
    let mut size_bytes = 0;
    for key in keys.chars() {
        if splitter.should_cut_before(key.to_string().as_bytes(), size_bytes) {
            shown.push('|');
            size_bytes = 0;
        }
        shown.push(key);
        size_bytes += entry_bytes;
    }
    shown
}

/// As [`split`], of a run of level 0.
fn split_run(target: u64, tables: &[(&str, &str, u64)], keys: &str) -> String {
    let splitter = OutputSplitter::new(target, grandparents(tables));
    let splitter = OutputSplitter {
        aligned: true,
        ..splitter
    };
    show(splitter, keys, 10)
}

#[test]
fn a_run_of_level_0_ends_its_tables_where_others_do() {
    let others = &[("b", "c", 50), ("e", "e", 50), ("h", "m", 50)];
    // Without another run in sight, a quarter of the target.
    assert_eq!(split_run(80, &[], "abcdefg"), "ab|cd|ef|g");
    assert_eq!(
        split_run(1000, others, "abcdefghijklmnopq"),
        "abc|de|fghijklm|nopq"
    );
    assert_eq!(
        split_run(1000, others, "acfgno"),
        "ac|fg|no",
        "also where none of their ends is a key"
    );
    assert_eq!(split_run(1000, others, "adgn"), "a|d|g|n");
    // Within another's range up to the target.
    assert_eq!(split_run(40, others, "hijklmnop"), "hijk|lm|n|o|p");
}

#[test]
fn without_grandparents_size_decides() {
    assert_eq!(split(30, &[], "abcdefgh", 10), "abc|def|gh");
    assert_eq!(split(1, &[], "abc", 10), "a|b|c");
    assert_eq!(split(30, &[], "", 10), "");
}

#[test]
fn the_versions_of_a_key_stay_together() {
    assert_eq!(split(30, &[], "abcccccccccd", 10), "abccccccccc|d");
    assert_eq!(
        split(1, &[("a", "a", 9), ("b", "b", 9)], "aaabbbccc", 10),
        "aaa|bbb|ccc"
    );
}

#[test]
fn near_the_target_an_output_ends_with_a_grandparent() {
    let tables = &[("a", "c", 50), ("d", "f", 50), ("g", "n", 50), ("o", "z", 50)];
    // abcdef is 60% of the target, at the second boundary; the rule asks for 55%.
    assert_eq!(
        split(100, tables, "abcdefghijklmnopqr", 10),
        "abcdef|ghijklmn|opqr"
    );
    // One table below all of it: the output may grow to twice the target.
    assert_eq!(
        split(50, &[("a", "z", 50)], "abcdefghijklmnop", 10),
        "abcdefghij|klmnop"
    );
    // Behind the last grandparent there is nothing to wait for.
    assert_eq!(
        split(50, &[("a", "b", 50)], "abcdefghijklmnop", 10),
        "abcde|fghij|klmno|p"
    );
}

#[test]
fn an_output_overlaps_at_most_20_targets_of_grandparents() {
    let tables = &[
        ("b", "b", 90),
        ("d", "d", 90),
        ("f", "f", 90),
        ("h", "h", 30),
        ("j", "j", 90),
    ];
    assert_eq!(
        split(10, tables, "abcdefghijk", 0),
        "abcdefghijk",
        "an empty output is not cut"
    );
    assert_eq!(
        split(100, tables, "abcdefghijk", 1),
        "abcdefghijk",
        "390 bytes are few"
    );
    assert_eq!(split(9, tables, "bdfhj", 1), "bd|fh|j", "180 bytes are the most");
    // Also those that lie between two keys.
    assert_eq!(split(9, tables, "aceg", 1), "ace|g");
    assert_eq!(split(9, tables, "ak", 1), "a|k");
}
