//! The merge against a sorted vector.

use std::sync::Arc;

use proptest::prelude::*;
use siltstone_vfs::{Error, ErrorKind, Result};

use super::MergeIterator;
use crate::fixture::{Entry, any_entries, any_move, cases, check_moves, key_of, put, sorted};
use crate::{InternalIterator, InternalKey, Tag, VecIterator};

/// Merged by sorting: ties stay in the order of the sources.
fn merged(sources: &[Vec<Entry>]) -> Vec<Entry> {
    let mut all: Vec<Entry> = sources.concat();
    all.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    all
}

fn merge(sources: &[Vec<Entry>]) -> MergeIterator<VecIterator> {
    MergeIterator::new(
        sources
            .iter()
            .map(|source| VecIterator::new(Arc::new(source.clone())))
            .collect(),
    )
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn sources_without_ties(
        entries in any_entries(200), sources in 1usize..7, salt in any::<u64>(),
        moves in prop::collection::vec(any_move(), 0..60),
    ) {
        let mut split = vec![Vec::new(); sources];
        for (n, entry) in entries.iter().enumerate() {
            let at = (n as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            split[usize::try_from(at).unwrap() % sources].push(entry.clone());
        }
        check_moves(&mut merge(&split), &entries, &moves);
    }
}

/// With ties a seek to an equal key lands on the first of them, a backward seek on the last.
#[test]
fn ties_come_out_in_the_order_of_the_sources_both_ways() {
    let sources = vec![
        vec![put("a", 5, "a0"), put("b", 5, "b0"), put("d", 1, "d0")],
        vec![put("b", 5, "b1"), put("c", 1, "c1")],
        vec![put("a", 5, "a2"), put("b", 5, "b2"), put("d", 1, "d2")],
    ];
    let model = merged(&sources);
    let values: Vec<_> = model.iter().map(|entry| entry.2.clone()).collect();
    let mut iter = merge(&sources);
    // From every position, every short walk of turns.
    for start in 0..model.len() {
        for walk in 0..64u32 {
            iter.seek_to_first().unwrap();
            for _ in 0..start {
                iter.next().unwrap();
            }
            let mut at = start;
            for step in 0..6 {
                let forward = walk >> step & 1 == 1;
                if forward {
                    iter.next().unwrap()
                } else {
                    iter.prev().unwrap()
                }
                let Some(next) = (if forward {
                    Some(at + 1).filter(|&at| at < model.len())
                } else {
                    at.checked_sub(1)
                }) else {
                    assert!(!iter.valid());
                    break;
                };
                at = next;
                assert_eq!(
                    iter.value(),
                    values[at],
                    "start {start}, walk {walk:06b}, step {step}"
                );
            }
        }
    }
    let b = put("b", 5, "");
    iter.seek(key_of(&b)).unwrap();
    assert_eq!((iter.value(), iter.source_index()), (&b"b0"[..], 0));
    iter.seek_for_prev(key_of(&b)).unwrap();
    assert_eq!((iter.value(), iter.source_index()), (&b"b2"[..], 2));
}

#[test]
fn no_sources_and_empty_sources_are_never_valid() {
    for sources in [vec![], vec![vec![], vec![]]] {
        check_moves(
            &mut merge(&sources),
            &[],
            &[
                crate::fixture::Move::First,
                crate::fixture::Move::Last,
                crate::fixture::Move::Seek(vec![], 1),
                crate::fixture::Move::SeekForPrev(vec![], 1),
            ],
        );
    }
}

/// Fails on the n-th call that moves it.
struct Failing {
    inner: VecIterator,
    left: usize,
}

impl Failing {
    fn tick(&mut self) -> Result<()> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Error::invalid("as planned"))?;
        Ok(())
    }
}

impl InternalIterator for Failing {
    fn seek_to_first(&mut self) -> Result<()> {
        self.tick()?;
        self.inner.seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.tick()?;
        self.inner.seek_to_last()
    }
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.tick()?;
        self.inner.seek(target)
    }
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.tick()?;
        self.inner.seek_for_prev(target)
    }
    fn next(&mut self) -> Result<()> {
        self.tick()?;
        self.inner.next()
    }
    fn prev(&mut self) -> Result<()> {
        self.tick()?;
        self.inner.prev()
    }
    fn valid(&self) -> bool {
        self.inner.valid()
    }
    fn user_key(&self) -> &[u8] {
        self.inner.user_key()
    }
    fn tag(&self) -> Tag {
        self.inner.tag()
    }
    fn value(&self) -> &[u8] {
        self.inner.value()
    }
}

#[test]
fn after_an_error_the_merge_is_not_valid_until_the_next_seek() {
    let entries = sorted((0..6).map(|n| put([n], 1, "")).collect());
    for left in 0..12 {
        let whole = VecIterator::new(Arc::new(vec![put("z", 1, "")]));
        let sources = vec![
            Failing {
                inner: VecIterator::new(Arc::new(entries.clone())),
                left,
            },
            Failing {
                inner: whole,
                left: usize::MAX,
            },
        ];
        let mut iter = MergeIterator::new(sources);
        let result = (|| {
            iter.seek_to_first()?;
            for _ in 0..3 {
                iter.next()?;
            }
            for _ in 0..2 {
                iter.prev()?;
            }
            iter.seek_to_last()
        })();
        assert_eq!(result.is_err(), left < 7, "{left}");
        if result.is_err() {
            assert!(!iter.valid(), "{left}");
        }
    }
}

/// A source that is not in order: whatever is sought backwards, it stands on its last entry.
struct Disordered(VecIterator);

impl InternalIterator for Disordered {
    fn seek_to_first(&mut self) -> Result<()> {
        self.0.seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.0.seek_to_last()
    }
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.0.seek(target)
    }
    fn seek_for_prev(&mut self, _: InternalKey<'_>) -> Result<()> {
        self.0.seek_to_last()
    }
    fn next(&mut self) -> Result<()> {
        self.0.next()
    }
    fn prev(&mut self) -> Result<()> {
        self.0.prev()
    }
    fn valid(&self) -> bool {
        self.0.valid()
    }
    fn user_key(&self) -> &[u8] {
        self.0.user_key()
    }
    fn tag(&self) -> Tag {
        self.0.tag()
    }
    fn value(&self) -> &[u8] {
        self.0.value()
    }
}

/// A regression: a table with sound checksums and disordered entries ran into an assertion.
#[test]
fn turning_round_on_a_disordered_source_is_corruption() {
    let source = |entries| Disordered(VecIterator::new(Arc::new(entries)));
    let mut iter = MergeIterator::new(vec![
        source(vec![put("b", 1, "")]),
        source(vec![put("a", 1, ""), put("c", 1, "")]),
    ]);
    iter.seek_to_first().unwrap();
    iter.next().unwrap();
    assert_eq!(iter.user_key(), b"b");
    assert_eq!(iter.prev().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(!iter.valid());
}
