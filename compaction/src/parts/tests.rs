use std::sync::Arc;

use proptest::prelude::*;
use siltstone_sstable::{InternalKey, MergeIterator, SeqNo, TableId, Tag, ValueKind, VecIterator};

use super::*;
use crate::{BottomCheck, CompactionStream, PlanKind, Reason, TableMeta};

fn table(smallest: &[u8], largest: &[u8]) -> Arc<TableMeta> {
    Arc::new(TableMeta {
        id: TableId(1),
        size_bytes: 100,
        entries: 1,
        tombstones: 0,
        smallest: smallest.into(),
        largest: largest.into(),
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(9),
    })
}

fn plan(output_level: usize, grandparents: &[(&str, &str)]) -> Plan {
    Plan {
        level: 0,
        output_level,
        inputs: vec![(0, vec![table(b"", b"z")])],
        kind: PlanKind::Merge,
        bottommost: false,
        grandparents: grandparents
            .iter()
            .map(|(smallest, largest)| table(smallest.as_bytes(), largest.as_bytes()))
            .collect(),
        reason: Reason::L0,
    }
}

/// The borders of as many parts as there may be; stretches are letters with their sizes.
fn borders(plan: &Plan, stretches: &str, parts: usize) -> String {
    let stretches = stretches.split_whitespace().map(|word| Stretch {
        last_key: word.as_bytes()[..1].to_vec(),
        size_bytes: word[1..].parse().unwrap(),
    });
    let cut = plan.key_parts(stretches.collect(), parts);
    assert_eq!((&cut[0].from, &cut[cut.len() - 1].to), (&None, &None));
    assert!(
        cut.windows(2)
            .all(|pair| pair[0].to.is_some() && pair[0].to == pair[1].from)
    );
    let shown = |part: &KeyPart| part.from().map(|from| from.escape_ascii().to_string());
    cut.iter().filter_map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn parts_have_about_as_much_to_read_as_each_other() {
    let down = plan(6, &[("a", "c"), ("d", "q")]);
    let even = "d1 b1 f1 h1 a1 c1 g1 e1";
    for (stretches, parts, expected) in [
        (even, 1, ""),
        (even, 2, "d\\x00"),
        (even, 4, "b\\x00 d\\x00 f\\x00"),
        // Several inputs have stretches with one end.
        ("a5 b5 a5 b5 c20 c20 e60", 2, "c\\x00"),
        // As many as can be told apart.
        ("a1 b1", 8, "a\\x00"),
        ("a9 a9 a9", 3, "a\\x00"),
        ("a100 b1 c1 d1", 3, "a\\x00"),
        // What lies behind the largest key is no part.
        ("z1 z1", 2, ""),
        ("", 3, ""),
        ("a0 b0", 3, ""),
        // Sizes that no file has.
        (
            "a18446744073709551615 b18446744073709551615 c18446744073709551615",
            3,
            "a\\x00 b\\x00",
        ),
    ] {
        assert_eq!(
            borders(&down, stretches, parts),
            expected,
            "{stretches:?} {parts}"
        );
    }
}

#[test]
fn a_run_of_level_0_is_cut_where_it_is_cut_anyway() {
    let even = "a1 b1 c1 d1 e1 f1 g1 h1";
    let run = plan(0, &[("a", "c"), ("d", "e"), ("f", "h")]);
    assert_eq!(borders(&run, even, 2), "e\\x00");
    assert_eq!(borders(&run, even, 8), "c\\x00 e\\x00 h\\x00");
    assert_eq!(
        borders(&plan(0, &[("a", "c")]), even, 2),
        "",
        "nothing ends behind"
    );
    assert_eq!(borders(&plan(0, &[]), even, 2), "d\\x00", "it is the first");
}

type Entry = (Vec<u8>, Tag, Vec<u8>);

/// Keys that are next to each other: the first one behind "a" is "a\0".
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xff]), 0..4)
}

fn stream_of(
    inputs: &[Arc<Vec<Entry>>],
    snapshots: &[SeqNo],
) -> CompactionStream<MergeIterator<VecIterator>> {
    let sources = inputs.iter().cloned().map(VecIterator::new).collect();
    CompactionStream::new(MergeIterator::new(sources), snapshots, BottomCheck::always())
}

fn all_of(mut stream: CompactionStream<MergeIterator<VecIterator>>, out: &mut Vec<Entry>) -> u64 {
    while let Some((key, value)) = stream.next().unwrap() {
        out.push((key.user_key.to_vec(), key.tag, value.to_vec()));
    }
    stream.counts().read
}

proptest! {
    #[test]
    fn the_parts_say_together_what_the_whole_says(
        keys in prop::collection::vec((key(), any::<bool>()), 0..60),
        ends in prop::collection::vec((key(), 0..100_u64), 0..20),
        guards in prop::collection::btree_set(key(), 0..6),
        snapshots in prop::collection::btree_set(0..60_u64, 0..4),
        parts in 1..6_usize,
        output_level in prop::sample::select(vec![0, 6]),
    ) {
        let entries = keys.iter().zip(1..).map(|((key, is_put), seqno)| {
            let kind = if *is_put { ValueKind::Put } else { ValueKind::Delete };
            (key.clone(), Tag::new(SeqNo(seqno), kind), Vec::new())
        });
        let mut inputs = [Vec::new(), Vec::new(), Vec::new()];
        entries.enumerate().for_each(|(n, entry)| inputs[n % 3].push(entry));
        let inputs = inputs.map(|mut input: Vec<Entry>| {
            input.sort_by(|a, b| InternalKey::new(&a.0, a.1).cmp(&InternalKey::new(&b.0, b.1)));
            Arc::new(input)
        });
        let mut plan = plan(output_level, &[]);
        plan.inputs = vec![(0, vec![table(&[], &[0xff; 4])])];
        plan.grandparents = guards.iter().map(|guard| table(guard, guard)).collect();
        let stretches = ends.into_iter().map(|(last_key, size_bytes)| Stretch { last_key, size_bytes });
        let cut = plan.key_parts(stretches.collect(), parts);
        prop_assert!(!cut.is_empty() && cut.len() <= parts);
        let snapshots: Vec<SeqNo> = snapshots.into_iter().map(SeqNo).collect();
        let (mut whole, mut together) = (Vec::new(), Vec::new());
        let read = all_of(stream_of(&inputs, &snapshots), &mut whole);
        let read_by_parts: u64 = cut
            .into_iter()
            .map(|part| all_of(stream_of(&inputs, &snapshots).within(part), &mut together))
            .sum();
        prop_assert_eq!(whole, together);
        prop_assert_eq!((read, read_by_parts), (keys.len() as u64, keys.len() as u64));
    }
}
