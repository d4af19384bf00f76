//! Which keys a memtable may hold: most reads learn from one word that it does not hold theirs.
//!
//! A Bloom filter whose bits for a key all lie in one word, after F. Putze, P. Sanders and J. Singler, *Cache-, Hash- and
//! Space-Efficient Bloom Filters* (ACM JEA 14, 2009), with the word as the block: one line to load, one atomic operation
//! to add a key. Keys are added while others ask; none is ever taken out.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use siltstone_vfs::prefetch_value;

/// So many bytes of a memtable have one byte of filter: at 150 bytes an entry, 19 bits a key, about one key in 270 is
/// looked for in vain; at 60 bytes, 8 bits, one in 24.
const MEMTABLE_BYTES_PER_BYTE: u64 = 64;
/// Bits set for a key, of which some may fall on each other.
const BITS: u32 = 4;
const WORD_BITS: u32 = u64::BITS;

/// The filter; takes no memory before the first key.
#[derive(Debug)]
pub(super) struct KeyFilter {
    words: OnceLock<Box<[AtomicU64]>>,
    words_max: usize,
}

impl KeyFilter {
    /// For a memtable of about so many bytes; more only makes it less selective.
    pub(super) fn new(memtable_bytes: u64) -> KeyFilter {
        let words = memtable_bytes / MEMTABLE_BYTES_PER_BYTE / u64::from(WORD_BITS / 8);
        KeyFilter {
            words: OnceLock::new(),
            words_max: usize::try_from(words).unwrap_or(usize::MAX).clamp(1, 1 << 28),
        }
    }

    /// Starts to load what [`add`](Self::add) and [`may_hold`](Self::may_hold) look at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(words) = self.words.get() {
            prefetch_value(&words[place(hash, words.len())]);
        }
    }

    /// Adds the key with this hash. Whoever learns, by any synchronising means, that this has returned is told that the
    /// key may be there.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        let words = self.words.get_or_init(|| self.zeroed());
        let (word, bits) = (&words[place(hash, words.len())], bits(hash));
        // A key that is written again and again costs its writers no exclusive line.
        if word.load(Relaxed) & bits != bits {
            word.fetch_or(bits, Relaxed);
        }
    }

    /// False where no key with this hash was added.
    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.words.get().is_some_and(|words| {
            let bits = bits(hash);
            words[place(hash, words.len())].load(Relaxed) & bits == bits
        })
    }

    #[cold]
    #[allow(unsafe_code)] // Memory that is zero as it comes from the system is not touched before it is used.
    fn zeroed(&self) -> Box<[AtomicU64]> {
        // SAFETY: an atomic integer may have any bytes, zeros among them.
        unsafe { Box::new_zeroed_slice(self.words_max).assume_init() }
    }
}

/// The word of a hash, by its upper bits.
#[inline]
#[allow(clippy::cast_possible_truncation)] // The result is below `words`.
fn place(hash: u64, words: usize) -> usize {
    ((u128::from(hash) * words as u128) >> 64) as usize
}

/// The bits of a hash within its word, by its lower bits.
#[inline]
fn bits(hash: u64) -> u64 {
    let nth = |n: u32| 1 << (hash >> (n * WORD_BITS.ilog2()) & u64::from(WORD_BITS - 1));
    (0..BITS).fold(0, |bits, n| bits | nth(n))
}

#[cfg(test)]
mod tests {
    use siltstone_sstable::key_hash;

    use super::*;

    #[test]
    fn every_key_that_was_added_may_be_there_and_few_others() {
        for (entry_bytes, wrong_max) in [(150, 60), (60, 500)] {
            let filter = KeyFilter::new(10_000 * entry_bytes);
            let hash = |n: u32| key_hash(&n.to_le_bytes());
            assert!((0..100).all(|n| !filter.may_hold(hash(n))));
            for n in 0..10_000 {
                filter.add(hash(n));
                filter.prefetch(hash(n));
            }
            assert!((0..10_000).all(|n| filter.may_hold(hash(n))));
            let wrong = (10_000..20_000).filter(|n| filter.may_hold(hash(*n))).count();
            assert!(
                wrong <= wrong_max,
                "{wrong} of 10,000 in vain at {entry_bytes} bytes an entry"
            );
        }
    }

    #[test]
    fn the_smallest_has_one_word() {
        let filter = KeyFilter::new(0);
        for hash in [0, 1, u64::MAX, 1 << 63] {
            filter.add(hash);
            assert!(filter.may_hold(hash));
        }
    }
}
