//! A hash table from each user key to the place of its newest entry, read where it lies.
//!
//! Buckets fill one cache line each: fifteen words, each a fingerprint of a key above the place of its entry, and a word
//! about keys that had to go on. The hash's high bits choose the bucket by multiply and shift, the low ones are the
//! fingerprint. A key whose bucket is full goes to the next one, and leaves a bit behind that five bits in the middle of
//! its hash name: a search goes on where its own bit is set only, which for a key that is not there is one time in a
//! hundred. (Going on from every full bucket, one in seven, was a branch that no processor foretells.) A word that
//! matches by chance leads to an entry with another key; a key that no word matches is not in the table, which makes the
//! index a filter, too.

use siltstone_vfs::{Error, Mapping, prefetch};

use super::builder::Keys;
use crate::format::{FILTER_HEADER_BYTES, index, u16_at, u32_at};
use crate::table::SectionBytes;

const BUCKET_WORDS: usize = 16;
const BUCKET_BYTES: usize = BUCKET_WORDS * 4;
/// The word of a bucket that says who went on; the others hold keys.
const GONE_ON: usize = BUCKET_WORDS - 1;
/// Keys for each bucket on average, of the fifteen that fit.
const KEYS_PER_BUCKET: usize = 12;
/// How many keys ahead of the one that is put into its bucket a builder asks for buckets.
const KEYS_AHEAD: usize = 8;
/// What is left of a word is the fingerprint: eight bits at least.
const PLACE_BITS_MAX: u32 = 24;

/// Where an entry lies: a block, and the entry's number in it. Words have no room for places beyond 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    block: u32,
    entry: u32,
}

impl Place {
    /// Of a place that is too far out for 32 bits, one that is too far out for a word, too.
    pub(crate) fn new(block: usize, entry: usize) -> Place {
        let bounded = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Place {
            block: bounded(block),
            entry: bounded(entry),
        }
    }

    #[inline]
    pub(crate) fn block(self) -> usize {
        self.block as usize
    }

    #[inline]
    pub(crate) fn entry(self) -> usize {
        self.entry as usize
    }
}

/// What most blocks of the table look like: a hint of what to load before a block's header has been read. Where values follow
/// their key records, a record is both, and nothing is said of values. All zero where there is nothing to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TypicalBlock {
    pub(crate) keys_start: u16,
    pub(crate) key_stride: u16,
    pub(crate) values_start: u16,
    pub(crate) value_stride: u16,
}

impl TypicalBlock {
    /// Whether the whole of an entry is in its record.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.key_stride > 0 && self.value_stride == 0
    }
}

/// How words are divided.
pub(crate) struct Widths {
    place_bits: u32,
    entry_bits: u32,
}

impl Widths {
    /// Puts the widths and the hint into a filter section's header.
    pub(crate) fn encode(&self, typical: TypicalBlock, header: &mut [u8]) {
        header[4..8].copy_from_slice(&(self.place_bits | self.entry_bits << 8).to_le_bytes());
        let hints = [
            typical.keys_start,
            typical.key_stride,
            typical.values_start,
            typical.value_stride,
        ];
        for (at, hint) in hints.iter().enumerate() {
            header[24 + 2 * at..26 + 2 * at].copy_from_slice(&hint.to_le_bytes());
        }
    }
}

/// Appends the words of distinct keys, given with the places of their newest entries; `None`, and nothing appended, where
/// places do not fit into words.
pub(super) fn build(keys: &Keys, section: &mut Vec<u8>) -> Option<Widths> {
    let bits = |max: Option<u32>| u32::BITS - max.unwrap_or(0).leading_zeros();
    let entry_bits = bits(keys.iter().map(|(_, place)| place.entry).max());
    let place_bits = entry_bits + bits(keys.iter().map(|(_, place)| place.block).max());
    if place_bits > PLACE_BITS_MAX {
        return None;
    }
    let buckets = keys.len().div_ceil(KEYS_PER_BUCKET).max(1);
    let start = section.len();
    section.resize(start + buckets * BUCKET_BYTES, 0);
    let words = section[start..].as_chunks_mut::<4>().0;
    let lines = words.as_chunks_mut::<BUCKET_WORDS>().0;
    let mut to_come = keys.hashes().skip(KEYS_AHEAD);
    for (hash, place) in keys.iter() {
        if let Some(hash) = to_come.next() {
            let bytes = lines.as_flattened().as_flattened();
            prefetch(bytes, bucket_of(hash, buckets) * BUCKET_BYTES);
        }
        let word = fingerprint(hash, place_bits) | place.block << entry_bits | place.entry;
        let mut bucket = bucket_of(hash, buckets);
        // There is room: four fifths of all words at the most are taken.
        let free = loop {
            let free = words_taken(&lines[bucket]);
            if free < GONE_ON {
                break free;
            }
            let others = u32::from_le_bytes(lines[bucket][GONE_ON]);
            lines[bucket][GONE_ON] = (others | gone_on(hash)).to_le_bytes();
            bucket = (bucket + 1) % buckets;
        };
        lines[bucket][free] = word.to_le_bytes();
    }
    Some(Widths {
        place_bits,
        entry_bits,
    })
}

/// Words of a bucket that hold keys: the first ones. Looks at all of them, as no processor foretells where the last one is.
#[inline]
fn words_taken(bucket: &[[u8; 4]; BUCKET_WORDS]) -> usize {
    let taken = |word: &[u8; 4]| u32::from(*word != [0; 4]);
    let all: u32 = bucket.iter().map(taken).sum();
    (all - taken(&bucket[GONE_ON])) as usize
}

/// About how long the payload becomes for `keys` keys.
pub(crate) fn payload_bytes(keys: u64) -> u64 {
    keys.div_ceil(KEYS_PER_BUCKET as u64).max(1) * BUCKET_BYTES as u64
}

#[inline]
fn bucket_of(hash: u64, buckets: usize) -> usize {
    index(((u128::from(hash) * buckets as u128) >> 64) as u64)
}

/// The hash's low bits at the top of a word, never zero: a word that is taken is not zero either.
#[inline]
fn fingerprint(hash: u64, place_bits: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    let low = hash as u32;
    (low << place_bits).max(1 << place_bits)
}

/// The bit of keys with this hash in the last word of a full bucket.
#[inline]
fn gone_on(hash: u64) -> u32 {
    1 << (hash >> 32 & 31)
}

/// An index whose header has been checked.
pub(crate) struct HashIndex {
    bytes: SectionBytes,
    buckets: usize,
    place_bits: u32,
    entry_bits: u32,
    pub(crate) typical: TypicalBlock,
}

/// A search in progress.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    wanted: u32,
    gone_on: u32,
    bucket: usize,
    /// Words of the bucket that match and have not been returned yet, one bit each.
    matches: u32,
    /// Whether the bucket has been looked at.
    loaded: bool,
    /// Buckets that may still be looked at.
    left: usize,
}

impl HashIndex {
    /// Checks header and length of a section; in words what is wrong otherwise.
    pub(crate) fn open(
        bytes: SectionBytes,
        mapping: &Mapping,
    ) -> std::result::Result<HashIndex, &'static str> {
        let view = bytes.get(mapping);
        let widths = u32_at(view, 4).unwrap_or_default();
        let (place_bits, entry_bits) = (widths & 0xff, widths >> 8 & 0xff);
        let payload = view.get(FILTER_HEADER_BYTES..).unwrap_or_default();
        if widths >> 16 != 0 || place_bits > PLACE_BITS_MAX || entry_bits > place_bits {
            return Err("the widths of its places are out of range");
        }
        if payload.is_empty() || !payload.len().is_multiple_of(BUCKET_BYTES) {
            return Err("it does not consist of whole buckets");
        }
        let hint = |at: usize| u16_at(view, 24 + 2 * at).unwrap_or_default();
        Ok(HashIndex {
            buckets: payload.len() / BUCKET_BYTES,
            place_bits,
            entry_bits,
            typical: TypicalBlock {
                keys_start: hint(0),
                key_stride: hint(1),
                values_start: hint(2),
                value_stride: hint(3),
            },
            bytes,
        })
    }

    /// Starts to load what [`probe`](Self::probe) looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, mapping: &Mapping, hash: u64) {
        let at = FILTER_HEADER_BYTES + bucket_of(hash, self.buckets) * BUCKET_BYTES;
        prefetch(self.bytes.get(mapping), at);
    }

    /// Begins a search for the keys with this hash.
    #[inline]
    pub(crate) fn probe(&self, hash: u64) -> Probe {
        Probe {
            wanted: fingerprint(hash, self.place_bits),
            gone_on: gone_on(hash),
            bucket: bucket_of(hash, self.buckets),
            matches: 0,
            loaded: false,
            left: self.buckets,
        }
    }

    /// The next place that may hold the key; `None` when there is none left.
    #[inline]
    pub(crate) fn next(&self, probe: &mut Probe, mapping: &Mapping) -> Option<Place> {
        let view = self.bytes.get(mapping);
        loop {
            // Checked when the index was opened: every bucket lies in the section.
            let rest = view.get(FILTER_HEADER_BYTES + probe.bucket * BUCKET_BYTES..)?;
            let bucket = rest.first_chunk::<BUCKET_BYTES>()?;
            let words = bucket.as_chunks::<4>().0;
            if !probe.loaded {
                probe.loaded = true;
                probe.matches = matching(bucket, probe.wanted, self.place_bits) & ((1 << GONE_ON) - 1);
            }
            if probe.matches != 0 {
                let at = probe.matches.trailing_zeros() as usize;
                probe.matches &= probe.matches - 1;
                let place = u32::from_le_bytes(words[at]) & ((1 << self.place_bits) - 1);
                return Some(Place {
                    block: place >> self.entry_bits,
                    entry: place & ((1 << self.entry_bits) - 1),
                });
            }
            probe.left -= 1;
            if u32::from_le_bytes(words[GONE_ON]) & probe.gone_on == 0 || probe.left == 0 {
                return None;
            }
            probe.bucket = (probe.bucket + 1) % self.buckets;
            probe.loaded = false;
        }
    }

    /// Words that are taken: as many as there are distinct keys.
    pub(crate) fn words(&self, mapping: &Mapping) -> u64 {
        let payload = &self.bytes.get(mapping)[FILTER_HEADER_BYTES..];
        let buckets = payload.as_chunks::<4>().0.as_chunks::<BUCKET_WORDS>().0;
        buckets.iter().map(words_taken).sum::<usize>() as u64
    }
}

/// One bit for each word that is `wanted` above its place. Written so that compilers make vectors of it.
#[inline]
fn matching(bucket: &[u8; BUCKET_BYTES], wanted: u32, place_bits: u32) -> u32 {
    let mut bits = 0;
    for (at, word) in bucket.as_chunks::<4>().0.iter().enumerate() {
        let differs = (u32::from_le_bytes(*word) ^ wanted) >> place_bits;
        bits |= if differs == 0 { 1 << at } else { 0 };
    }
    bits
}

/// The error for a place that is not in the table.
#[cold]
pub(crate) fn misplaced(mapping: &Mapping, place: Place) -> Error {
    let what = format!(
        "hash index names entry {} of data block {}, which is not there",
        place.entry, place.block
    );
    Error::corruption(mapping.path(), 0, what).with_advice("restore the file from a copy")
}
