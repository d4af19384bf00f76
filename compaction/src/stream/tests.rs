use std::sync::Arc;

use proptest::prelude::*;
use siltstone_sstable::VecIterator;

use super::*;

type Entry = (Vec<u8>, Tag, Vec<u8>);

/// `a9` is a put of a at 9, `a9-` a tombstone.
fn parse(text: &str) -> Vec<Entry> {
    let entry = |word: &str| {
        let (kind, word) = match word.strip_suffix('-') {
            Some(rest) => (ValueKind::Delete, rest),
            None => (ValueKind::Put, word),
        };
        let seqno = SeqNo(word[1..].parse().unwrap());
        let value = if kind == ValueKind::Put {
            word.as_bytes().to_vec()
        } else {
            Vec::new()
        };
        (word.as_bytes()[..1].to_vec(), Tag::new(seqno, kind), value)
    };
    text.split_whitespace().map(entry).collect()
}

/// The survivors, in the same words.
fn survivors(input: Vec<Entry>, snapshots: &[u64], bottom: BottomCheck) -> String {
    let snapshots: Vec<SeqNo> = snapshots.iter().copied().map(SeqNo).collect();
    let mut stream = CompactionStream::new(VecIterator::new(Arc::new(input)), &snapshots, bottom);
    let mut words = Vec::new();
    while let Some((key, value)) = stream.next().unwrap() {
        let mark = if key.tag.is_tombstone() { "-" } else { "" };
        words.push(format!(
            "{}{}{mark}",
            key.user_key.escape_ascii(),
            key.tag.seqno()
        ));
        assert_eq!(key.tag.is_tombstone(), value.is_empty());
    }
    assert!(stream.next().unwrap().is_none(), "the end stays the end");
    words.join(" ")
}

#[test]
fn one_entry_is_kept_in_each_stripe() {
    let input = "a9 a8 a5- a3 a1 b7 c4- c2 d3-";
    for (snapshots, not_bottom, bottom) in [
        (&[][..], "a9 b7 c4- d3-", "a0 b0"),
        (&[9], "a9 b7 c4- d3-", "a0 b0"),
        (&[8], "a9 a8 b7 c4- d3-", "a9 a0 b0"),
        (&[5], "a9 a5- b7 c4- d3-", "a9 b7"),
        (&[4], "a9 a3 b7 c4- d3-", "a9 a0 b7"),
        (&[3], "a9 a3 b7 c4- c2 d3-", "a9 a0 b7 c4- c0"),
        (&[2], "a9 a1 b7 c4- c2 d3-", "a9 a0 b7 c4- c0 d3-"),
        (&[0], "a9 b7 c4- d3-", "a9 b7 c4- d3-"),
        (&[2, 5, 6], "a9 a5- a1 b7 c4- c2 d3-", "a9 a5- a0 b7 c4- c0 d3-"),
        (
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            input,
            "a9 a8 a5- a3 a0 b7 c4- c2 d3-",
        ),
    ] {
        assert_eq!(
            survivors(parse(input), snapshots, BottomCheck::never()),
            not_bottom,
            "{snapshots:?}"
        );
        let expected = bottom;
        assert_eq!(
            survivors(parse(input), snapshots, BottomCheck::always()),
            expected,
            "{snapshots:?} at the bottom"
        );
    }
}

#[test]
fn the_empty_key_and_the_empty_input_are_nothing_special() {
    assert_eq!(survivors(Vec::new(), &[], BottomCheck::always()), "");
    let put = |seqno| (Vec::new(), Tag::new(SeqNo(seqno), ValueKind::Put), b"v".to_vec());
    assert_eq!(survivors(vec![put(9), put(4)], &[4], BottomCheck::never()), "9 4");
}

/// A source that does not keep the order, as a damaged table would.
struct Unordered(Vec<Entry>, usize);

impl InternalIterator for Unordered {
    fn seek_to_first(&mut self) -> Result<()> {
        self.1 = 0;
        Ok(())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        unreachable!()
    }
    fn seek(&mut self, _: InternalKey<'_>) -> Result<()> {
        unreachable!()
    }
    fn seek_for_prev(&mut self, _: InternalKey<'_>) -> Result<()> {
        unreachable!()
    }
    fn next(&mut self) -> Result<()> {
        self.1 += 1;
        Ok(())
    }
    fn prev(&mut self) -> Result<()> {
        unreachable!()
    }
    fn valid(&self) -> bool {
        self.1 < self.0.len()
    }
    fn user_key(&self) -> &[u8] {
        &self.0[self.1].0
    }
    fn tag(&self) -> Tag {
        self.0[self.1].1
    }
    fn value(&self) -> &[u8] {
        &self.0[self.1].2
    }
}

#[test]
fn an_input_out_of_order_is_corruption_and_the_end() {
    for (input, good) in [("a1 c3 b2 d4", 2), ("a1 a2", 1)] {
        let mut stream = CompactionStream::new(Unordered(parse(input), 0), &[SeqNo(1)], BottomCheck::never());
        for _ in 0..good {
            assert!(stream.next().unwrap().is_some());
        }
        assert_eq!(
            stream.next().unwrap_err().kind(),
            ErrorKind::Corruption,
            "{input}"
        );
        assert!(stream.next().unwrap().is_none());
    }
}

#[test]
fn counts_add_up() {
    let input = VecIterator::new(Arc::new(parse("a9 a8 b7- c4")));
    let mut stream = CompactionStream::new(input, &[], BottomCheck::always());
    while stream.next().unwrap().is_some() {}
    assert_eq!(
        stream.counts(),
        StreamCounts {
            read: 4,
            shadowed: 1,
            tombstones_dropped: 1,
            settled: 2
        }
    );
}

/// What a reader at `seqno` sees of `key`, with tables below that hold `below`.
fn read(entries: &[Entry], below: &[Entry], key: &[u8], seqno: u64) -> Option<Vec<u8>> {
    let visible = |entry: &&Entry| entry.0 == key && entry.1.seqno().0 <= seqno;
    let newest = entries
        .iter()
        .find(visible)
        .or_else(|| below.iter().find(visible))?;
    (!newest.1.is_tombstone()).then(|| newest.2.clone())
}

proptest! {
    /// Entries in the input are newer than those below; keys a to d have something below, e to h have nothing.
    #[test]
    fn every_reader_sees_the_same_before_and_after(
        writes in prop::collection::vec((b'a'..=b'h', any::<bool>()), 0..60),
        old in 0..10_usize,
        mut snapshots in prop::collection::vec(0..70_u64, 0..5),
    ) {
        snapshots.sort_unstable();
        let mut entries: Vec<Entry> = Vec::new();
        let mut below: Vec<Entry> = Vec::new();
        for (index, (key, put)) in writes.iter().enumerate() {
            let kind = if *put { ValueKind::Put } else { ValueKind::Delete };
            let value = if *put { index.to_le_bytes().to_vec() } else { Vec::new() };
            let entry = (vec![*key], Tag::new(SeqNo(u64::try_from(index).unwrap() + 1), kind), value);
            if index < old && *key <= b'd' { &mut below } else { &mut entries }.push(entry);
        }
        for list in [&mut entries, &mut below] {
            list.sort_by(|a, b| InternalKey::new(&a.0, a.1).cmp(&InternalKey::new(&b.0, b.1)));
        }
        let bottom = covering("a", "d");
        let seqnos: Vec<SeqNo> = snapshots.iter().copied().map(SeqNo).collect();
        let mut stream = CompactionStream::new(VecIterator::new(Arc::new(entries.clone())), &seqnos, bottom);
        let mut kept: Vec<Entry> = Vec::new();
        while let Some((key, value)) = stream.next().unwrap() {
            kept.push((key.user_key.to_vec(), key.tag, value.to_vec()));
        }
        prop_assert!(kept.is_sorted_by(|a, b| InternalKey::new(&a.0, a.1) < InternalKey::new(&b.0, b.1)));
        for seqno in snapshots.iter().copied().chain([100]) {
            for key in b'a'..=b'h' {
                prop_assert_eq!(read(&entries, &below, &[key], seqno), read(&kept, &below, &[key], seqno));
            }
        }
        // No more entries than stripes, and at the bottom no tombstone that nobody needs.
        for key in b'a'..=b'h' {
            prop_assert!(kept.iter().filter(|entry| entry.0 == [key]).count() <= snapshots.len() + 1);
        }
        let oldest = snapshots.first().copied().unwrap_or(u64::MAX);
        let needless = |entry: &Entry| entry.0[0] > b'd' && entry.1.is_tombstone() && entry.1.seqno().0 <= oldest;
        prop_assert!(!kept.iter().any(needless));
    }
}

/// A check for a compaction with one table below, from `smallest` to `largest`.
fn covering(smallest: &str, largest: &str) -> BottomCheck {
    use siltstone_sstable::TableId;

    use crate::{Cursors, InFlight, LeveledOptions, TableMeta, Version, VersionEdit, pick};
    let table = |id, smallest: &str, largest: &str| TableMeta {
        id: TableId(id),
        size_bytes: 1 << 40,
        entries: 1,
        tombstones: 0,
        smallest: smallest.as_bytes().into(),
        largest: largest.as_bytes().into(),
        seqno_min: SeqNo(id),
        seqno_max: SeqNo(id),
    };
    let added = vec![
        (1, table(2, "a", "z")),
        (2, table(1, "a", "z")),
        (3, table(0, smallest, largest)),
    ];
    let version = Version::default()
        .apply(&VersionEdit {
            added,
            removed: Vec::new(),
        })
        .unwrap();
    let options = LeveledOptions {
        dynamic_levels: false,
        ..LeveledOptions::default()
    };
    let plan = pick(&version, &options, &InFlight::new(), &mut Cursors::default()).unwrap();
    assert_eq!((plan.level, plan.output_level), (1, 2));
    BottomCheck::new(&version, &plan)
}
