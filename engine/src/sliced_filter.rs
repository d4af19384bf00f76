//! Which tables of level 0 may hold a key: one cache line tells it of all of them.
//!
//! The tables of level 0 overlap, and there are dozens while writes come fast. A read that asks the filter of each waits for a
//! line of each. This filter is theirs turned by a right angle: its positions are words, with a bit for each table, its *slice*. A
//! key sets its table's bit at a few positions of one line; the words at a key's positions, and-ed, have the bits of the
//! tables that may hold it. Text retrieval knows this as bit-sliced signatures (C. Faloutsos and R. Chan, *Fast Text Access Methods
//! for Optical and Large Magnetic Disks*, VLDB 1988; B. Goodwin et al., *BitFunnel: Revisiting Signatures for Search*, SIGIR
//! 2017); the positions of a key share a line as in `memtable/filter.rs`.
//!
//! # Why no table is passed over that has the key
//!
//! A slice is filled before the view that has it is published, and never changes while anything holds it: a [`Slice`] that is
//! dropped is noted only, and its bit is cleared, and given again, under the lock of those who fill. Whoever asks holds the
//! slices whose bits it looks at; other bits of the same words may change meanwhile.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use siltstone_vfs::{AnonymousMemory, CACHE_LINE_BYTES, prefetch_value};

/// So many bytes of a memtable have one word: a filter is an eighth of a memtable, whatever the number of slices. At 174 bytes
/// an entry one key in 9 is looked for in vain in a table, one in 29 where memtables are flushed at half their size.
const MEMTABLE_BYTES_PER_WORD: u64 = 32;
/// Positions of a key, of which some may fall on each other.
const PROBES: u32 = 3;
/// Tables with more than one key for this many words get no slice: half of the reads would be told of them in vain.
const WORDS_PER_KEY_MIN: usize = 2;
/// Tables with less than one key for this many words begin no filter: of thousands of keyspaces, most may be small.
const WORDS_PER_KEY_MAX: usize = 256;
/// How many keys ahead of the one that is filled in lines are asked for.
const KEYS_AHEAD: usize = 8;

const LINE_WORDS: usize = CACHE_LINE_BYTES / size_of::<u32>();
type Line = [AtomicU32; LINE_WORDS];

/// Makes the slices of one keyspace.
#[derive(Default)]
pub(crate) struct Slicer {
    /// Lives as long as any of its slices does.
    current: Mutex<Weak<SlicedFilter>>,
}

impl Slicer {
    /// A slice for a table with keys of these hashes; `None` where there are none or too many, or few and no filter yet, or
    /// there is no slice or no memory left.
    pub(crate) fn slice(
        &self,
        memtable_size_bytes: u64,
        hashes: impl Iterator<Item = u64> + Clone,
    ) -> Option<Slice> {
        let lines = lines_for(memtable_size_bytes);
        let (keys, words) = (hashes.clone().count(), lines * LINE_WORDS);
        if keys == 0 || keys > words / WORDS_PER_KEY_MIN {
            return None;
        }
        let mut current = self.current.lock();
        let filter = match current.upgrade() {
            Some(filter) if filter.lines().len() == lines => filter,
            _ if keys < words / WORDS_PER_KEY_MAX => return None,
            _ => {
                let filter = Arc::new(SlicedFilter::new(lines)?);
                *current = Arc::downgrade(&filter);
                filter
            }
        };
        drop(current);
        let bit = filter.fill(hashes)?;
        Some(Slice { filter, bit })
    }
}

fn lines_for(memtable_size_bytes: u64) -> usize {
    let lines = memtable_size_bytes / MEMTABLE_BYTES_PER_WORD / LINE_WORDS as u64;
    usize::try_from(lines).unwrap_or(usize::MAX).clamp(1, 1 << 24)
}

/// Filters of up to 32 tables.
pub(crate) struct SlicedFilter {
    memory: AnonymousMemory,
    /// Slices that are clear and have no holder. Held while bits change.
    free: Mutex<u32>,
    /// Slices that have lost their holder and are to be cleared.
    left: AtomicU32,
}

impl SlicedFilter {
    fn new(lines: usize) -> Option<SlicedFilter> {
        Some(SlicedFilter {
            memory: AnonymousMemory::new(lines * CACHE_LINE_BYTES).ok()?,
            free: Mutex::new(u32::MAX),
            left: AtomicU32::new(0),
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.memory.len_bytes() as u64
    }

    #[inline]
    fn lines(&self) -> &[Line] {
        self.memory.as_atomics().as_chunks().0
    }

    #[inline]
    fn line(&self, hash: u64) -> &Line {
        let lines = self.lines();
        #[expect(clippy::cast_possible_truncation, reason = "below the number of lines")]
        let at = ((u128::from(hash) * lines.len() as u128) >> u64::BITS) as usize;
        &lines[at]
    }

    /// Starts to load what [`slices_with`](Self::slices_with) looks at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch_value(self.line(hash));
    }

    /// The slices that may have a key with this hash. Means something only for those that the caller holds.
    #[inline]
    pub(crate) fn slices_with(&self, hash: u64) -> u32 {
        let line = self.line(hash);
        positions(hash).fold(u32::MAX, |all, at| all & line[at].load(Relaxed))
    }

    /// Takes a slice and puts keys of these hashes into it.
    fn fill(&self, hashes: impl Iterator<Item = u64> + Clone) -> Option<u32> {
        let mut free = self.free.lock();
        if *free == 0 {
            // Once for all that have gathered: it takes a pass over the memory.
            *free = self.left.swap(0, Acquire);
            if *free != 0 {
                self.clear(*free);
            }
        }
        let bit = *free & free.wrapping_neg();
        *free ^= bit;
        if bit == 0 {
            return None;
        }
        let mut to_come = hashes.clone().skip(KEYS_AHEAD);
        for hash in hashes {
            if let Some(hash) = to_come.next() {
                self.prefetch(hash);
            }
            let line = self.line(hash);
            for at in positions(hash) {
                // Nobody else writes: that takes the lock.
                line[at].store(line[at].load(Relaxed) | bit, Relaxed);
            }
        }
        Some(bit)
    }

    /// REQUIRES: the lock.
    fn clear(&self, slices: u32) {
        for word in self.lines().as_flattened() {
            let bits = word.load(Relaxed);
            if bits & slices != 0 {
                word.store(bits & !slices, Relaxed);
            }
        }
    }
}

/// Where in its line a key has its words: bits of the hash that neither choose the line nor are a fingerprint in a table's hash
/// index.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower bits are what is wanted"
)]
fn positions(hash: u64) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |n| (hash >> (24 + n * LINE_WORDS.ilog2())) as usize % LINE_WORDS)
}

/// The bit of one table.
pub(crate) struct Slice {
    filter: Arc<SlicedFilter>,
    /// One bit.
    bit: u32,
}

impl Slice {
    pub(crate) fn filter(&self) -> &Arc<SlicedFilter> {
        &self.filter
    }

    pub(crate) fn bit(&self) -> u32 {
        self.bit
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.filter.left.fetch_or(self.bit, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// For 8,192 words, so up to 4,096 keys a slice.
    const MEMTABLE_BYTES: u64 = 8_192 * MEMTABLE_BYTES_PER_WORD;

    /// Hashes of keys that no other table has.
    fn keys(table: u64, count: u64) -> impl Iterator<Item = u64> + Clone {
        (0..count).map(move |n| siltstone_sstable::key_hash(&(table << 32 | n).to_le_bytes()))
    }

    fn slice(slicer: &Slicer, table: u64, count: u64) -> Option<Slice> {
        slicer.slice(MEMTABLE_BYTES, keys(table, count))
    }

    fn has(slice: &Slice, hash: u64) -> bool {
        slice.filter().slices_with(hash) & slice.bit() != 0
    }

    #[test]
    fn a_slice_has_its_keys_and_few_of_the_others() {
        let slicer = Slicer::default();
        let slices: Vec<Slice> = (0..32).map(|table| slice(&slicer, table, 500).unwrap()).collect();
        let bits = slices.iter().fold(0, |bits, slice| bits | slice.bit());
        assert_eq!(bits, u32::MAX, "each has a bit of its own");
        for (table, slice) in (0..).zip(&slices) {
            assert!(keys(table, 500).all(|hash| has(slice, hash)));
            let wrong = keys(table + 100, 10_000).filter(|hash| has(slice, *hash)).count();
            assert!(wrong < 200, "{wrong} of 10,000 in vain");
        }
    }

    #[test]
    fn there_are_32_and_none_for_no_keys_or_too_many_and_none_begins_with_few() {
        let slicer = Slicer::default();
        assert!(slice(&slicer, 0, 0).is_none());
        assert!(slice(&slicer, 0, 31).is_none());
        assert!(slice(&slicer, 0, 4_097).is_none());
        let mut slices: Vec<Slice> = (0..32)
            .map(|table| slice(&slicer, table, 4_096).unwrap())
            .collect();
        assert!(slice(&slicer, 32, 1).is_none());
        slices.remove(7);
        assert!(slice(&slicer, 32, 1).is_some());
    }

    #[test]
    fn a_slice_that_is_used_again_has_nothing_of_before() {
        let slicer = Slicer::default();
        let mut slices: VecDeque<(u64, Slice)> = VecDeque::new();
        for table in 0..200 {
            // As many at a time as there are, or a few.
            let held = if table < 100 { 31 } else { 5 };
            while slices.len() > held {
                slices.pop_front();
            }
            slices.push_back((table, slice(&slicer, table, 500).unwrap()));
            for (table, slice) in &slices {
                assert!(keys(*table, 500).all(|hash| has(slice, hash)));
            }
            let (_, newest) = slices.back().unwrap();
            let wrong = keys(table + 1_000, 1_000)
                .filter(|hash| has(newest, *hash))
                .count();
            assert!(wrong < 40, "{wrong} of 1,000 in vain in table {table}");
        }
    }

    #[test]
    fn a_filter_lives_as_long_as_its_slices_and_goes_with_the_size_of_memtables() {
        let slicer = Slicer::default();
        let first = slice(&slicer, 0, 100).unwrap();
        let second = slice(&slicer, 1, 10).unwrap();
        assert!(Arc::ptr_eq(first.filter(), second.filter()));
        let larger = slicer.slice(2 * MEMTABLE_BYTES, keys(2, 100)).unwrap();
        assert!(!Arc::ptr_eq(first.filter(), larger.filter()));
        assert!(keys(0, 100).all(|hash| has(&first, hash)));
        let filter = Arc::downgrade(first.filter());
        drop(first);
        assert!(filter.upgrade().is_some());
        drop(second);
        assert!(filter.upgrade().is_none());
        assert!(Slicer::default().slice(u64::MAX, keys(0, 10_000)).is_none());
        for memtable_bytes in [0, 1, 16 << 10] {
            let smallest = Slicer::default().slice(memtable_bytes, keys(0, 8)).unwrap();
            assert!(keys(0, 8).all(|hash| has(&smallest, hash)), "{memtable_bytes}");
        }
    }

    #[test]
    fn others_that_come_and_go_take_no_key_from_a_slice() {
        let slicer = Slicer::default();
        let held: Vec<Slice> = (0..4).map(|table| slice(&slicer, table, 500).unwrap()).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for changer in 1..3_u64 {
                let (slicer, done) = (&slicer, &done);
                scope.spawn(move || {
                    for round in 0..200 {
                        let table = changer << 20 | round;
                        let mine = slice(slicer, table, 500).unwrap();
                        assert!(keys(table, 500).all(|hash| has(&mine, hash)));
                    }
                    done.store(true, Relaxed);
                });
            }
            while !done.load(Relaxed) {
                for (table, slice) in (0..).zip(&held) {
                    assert!(keys(table, 500).all(|hash| has(slice, hash)));
                }
            }
        });
        for (table, slice) in (0..).zip(&held) {
            assert!(keys(table, 500).all(|hash| has(slice, hash)));
        }
    }
}
