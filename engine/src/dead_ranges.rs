//! What cursors have found out about ranges in which everything is deleted.
//!
//! Until compaction has dropped them, a seek into deleted keys walks over every tombstone and every entry below it. A
//! cursor that had to walk far notes the range here, with its seqno; a later one jumps over it.
//!
//! # Why a jump never misses an entry
//!
//! A range with seqno `S` claims: at each seqno from `S` on at which it can be found, none of its keys has a value. At
//! `S` that is what the cursor has seen. Only a put with a larger seqno could change it (deletes cannot), so two things
//! have to hold for every put of a key in the range with a seqno past `S`.
//!
//! - *It takes the range out before any reader can have its seqno.* A writer that has its seqnos, and before it
//!   publishes them, looks at [`watches`](DeadRanges::watches) and calls [`revive`](DeadRanges::revive). A reader takes
//!   its seqno from what is published, then looks here: with that put's seqno or a later one, it finds the range gone.
//! - *It cannot have looked too early to see the range.* A range is noted under the commit lock, and only where no put
//!   has been given a seqno past `S` ([`note_put`](DeadRanges::note_put), under the same lock). A later put is given its
//!   seqno under the lock afterwards, and so sees the range when it looks. For the same reason a range that a put has
//!   taken out cannot come back with an `S` from before it.
//!
//! Where `S` was read, all operations up to it had been inserted; and a cursor with a seqno below `S` passes a range by.
//! Flush and compaction change nothing that a reader can see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use siltstone_sstable::SeqNo;

use crate::commit::Commit;

/// The most ranges that are kept; the ones noted longest ago make room.
const RANGES_MAX: usize = 16;

/// The dead ranges of one keyspace.
#[derive(Default)]
pub(crate) struct DeadRanges {
    /// How many ranges there are: all that a writer looks at as long as there are none.
    count: AtomicUsize,
    /// Disjoint, in key order. Readers take no lock.
    ranges: ArcSwap<Vec<Arc<DeadRange>>>,
    /// Held while `ranges` changes; counts the ranges that were ever noted.
    changing: Mutex<u64>,
    last_put: LastPut,
}

/// The last seqno of a batch with a put into the keyspace. Written by every such batch, so apart from what others read.
#[derive(Default)]
#[repr(align(128))]
struct LastPut(AtomicU64);

/// The keys from `start` up to `end`, that one not included; `None` for no end.
pub(crate) struct DeadRange {
    pub(crate) start: Box<[u8]>,
    pub(crate) end: Option<Box<[u8]>>,
    seqno: SeqNo,
    number: u64,
}

impl DeadRange {
    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| **end > *key)
    }
}

impl DeadRanges {
    /// Notes that a batch whose last seqno is `last` puts something.
    ///
    /// REQUIRES: the commit lock, under which the batch has got its seqnos.
    #[inline]
    pub(crate) fn note_put(&self, last: SeqNo) {
        self.last_put.0.store(last.0, Ordering::Relaxed);
    }

    /// Whether there is any range. For a put that has its seqno, `false` means that no range concerns it: one that does
    /// was noted before, under the commit lock.
    #[inline]
    pub(crate) fn watches(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// Takes out the range that `key` lies in, for a put that has its seqno and is not yet published.
    pub(crate) fn revive(&self, key: &[u8]) {
        if find(&self.ranges.load(), key).is_none() {
            return;
        }
        let _one_at_a_time = self.changing.lock();
        let mut ranges = Vec::clone(&self.ranges.load());
        if let Some(at) = find(&ranges, key) {
            ranges.remove(at);
            self.store(ranges);
        }
    }

    /// The range that `key` lies in, if a reader at `seqno` may pass it over.
    pub(crate) fn around(&self, key: &[u8], seqno: SeqNo) -> Option<Arc<DeadRange>> {
        if !self.watches() {
            return None;
        }
        let ranges = self.ranges.load();
        let range = &ranges[find(&ranges, key)?];
        (range.seqno <= seqno).then(|| Arc::clone(range))
    }

    /// Notes that at `seqno`, which has been published, no key from `start` up to `end` has a value. Does nothing where
    /// that might not hold any more, or the commit lock is taken.
    pub(crate) fn note(&self, commit: &Commit, seqno: SeqNo, start: &[u8], end: Option<&[u8]>) {
        let Some(_no_seqnos_meanwhile) = commit.try_lock() else {
            return;
        };
        if self.last_put.0.load(Ordering::Relaxed) > seqno.0 {
            return;
        }
        let mut noted = self.changing.lock();
        *noted += 1;
        let new = DeadRange {
            start: start.into(),
            end: end.map(Box::from),
            seqno,
            number: *noted,
        };
        let mut ranges = Vec::clone(&self.ranges.load());
        // The ones that overlap are covered but for their edges.
        ranges.retain(|old| !old.reaches(start) || !new.reaches(&old.start));
        if ranges.len() == RANGES_MAX {
            let oldest = (0..RANGES_MAX).min_by_key(|&at| ranges[at].number);
            ranges.remove(oldest.expect("there are ranges"));
        }
        let at = ranges.partition_point(|old| old.start < new.start);
        ranges.insert(at, Arc::new(new));
        self.store(ranges);
    }

    fn store(&self, ranges: Vec<Arc<DeadRange>>) {
        let count = ranges.len();
        self.ranges.store(Arc::new(ranges));
        self.count.store(count, Ordering::Relaxed);
    }
}

/// The position of the range that holds `key`.
fn find(ranges: &[Arc<DeadRange>], key: &[u8]) -> Option<usize> {
    let at = ranges
        .partition_point(|range| *range.start <= *key)
        .checked_sub(1)?;
    ranges[at].reaches(key).then_some(at)
}

#[cfg(test)]
mod tests;
