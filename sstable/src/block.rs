//! A data block's content, in place: header, fingerprints, slots, shared prefix, entries.
//!
//! Nothing here trusts the bytes: [`BlockHeader::parse`] checks that every array lies inside the content, and what
//! an entry says is checked as it is decoded.

mod builder;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use siltstone_vfs::{Error, ErrorKind, prefetch_range};

use crate::format::{
    BLOCK_FINGERPRINTS, BLOCK_HEADER_BYTES, BLOCK_TAG_BASE, BLOCK_UNIFORM, BLOCK_WHOLE, BLOCK_WIDE,
    CONTENT_BYTES_MAX, FINGERPRINTS_MAX, TAG_BASE_BYTES, array, u16_at, u32_at, u64_at,
};
use crate::index::head;
use crate::key_buf::is_same;
use crate::search::partition_point;
use crate::{InternalKey, SeqNo, Tag, ValueKind, varint};

pub(crate) use builder::{BlockBuilder, encode_lone_head, lone_content_len};

/// Why a block cannot be read. Small and without allocation; the table adds file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockDamage {
    /// The header contradicts itself or the block's length.
    Header,
    /// A flag that this version does not know.
    Flags(u8),
    /// An entry lies outside the block.
    Entry(usize),
    /// An entry has a tag that cannot be.
    Tag(usize, u64),
}

impl BlockDamage {
    pub(crate) fn into_error(self) -> Error {
        match self {
            BlockDamage::Flags(flags) => crate::options::unknown("data block with flags", flags),
            BlockDamage::Tag(_, packed) => match ValueKind::from_number(kind_of(packed)) {
                Err(error) => error.context(&self.to_string()),
                Ok(_) => Error::new(ErrorKind::Corruption, self.to_string()),
            },
            _ => Error::new(ErrorKind::Corruption, self.to_string()),
        }
    }
}

impl fmt::Display for BlockDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockDamage::Header => write!(f, "data block has a header that does not fit its length"),
            BlockDamage::Flags(flags) => write!(f, "data block has unknown flags {flags:#04x}"),
            BlockDamage::Entry(entry) => write!(f, "entry {entry} of the data block lies outside of it"),
            BlockDamage::Tag(entry, packed) => {
                write!(f, "entry {entry} of the data block has tag {packed:#x}")
            }
        }
    }
}

/// Bits of a packed tag that hold the kind: `seqno << 3 | kind`. Kind 0 is left for kinds past 7.
const KIND_BITS: u32 = 3;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

/// A tag as it is stored.
pub(crate) fn pack_tag(tag: Tag) -> u64 {
    let kind = tag.kind() as u8;
    debug_assert!(u64::from(kind) <= KIND_MASK, "kinds past 7 need the escape");
    (tag.seqno().0 << KIND_BITS) | u64::from(kind)
}

fn kind_of(packed: u64) -> u8 {
    (packed & KIND_MASK).to_le_bytes()[0]
}

/// Undoes [`pack_tag`]; `None` where no tag is packed like this.
#[inline]
fn unpack_tag(packed: u64) -> Option<Tag> {
    let seqno = packed >> KIND_BITS;
    let kind = packed & KIND_MASK;
    if seqno > SeqNo::MAX.0 {
        return None;
    }
    // The two kinds there are, without the detour over an error.
    if kind == ValueKind::Put as u64 || kind == ValueKind::Delete as u64 {
        let kind = if kind == ValueKind::Put as u64 {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        return Some(Tag::new(SeqNo(seqno), kind));
    }
    None
}

/// The byte of a key's hash that blocks keep. Blocked filters choose their line by the hash's high bits, so this takes
/// the low ones.
#[inline]
pub(crate) fn fingerprint(hash: u64) -> u8 {
    hash.to_le_bytes()[0]
}

/// Where the parts of a block lie, as positions in its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockHeader {
    count: usize,
    fingerprints: bool,
    prefix_start: usize,
    prefix_len: usize,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Key records (tag, suffix) from `keys` on, values from `values` on, each of one length and at one distance from the
    /// next: apart from each other, or each value behind its key record.
    Uniform {
        /// What is stored of each tag is to be added to this.
        tag_base: u64,
        tag_width: usize,
        suffix_len: usize,
        value_len: usize,
        keys: usize,
        key_stride: usize,
        values: usize,
        value_stride: usize,
    },
    /// Slots with the position of each entry.
    Slotted { slots: usize, wide: bool },
}

/// One decoded entry: positions in the block's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry {
    pub(crate) tag: Tag,
    pub(crate) suffix_start: usize,
    pub(crate) suffix_end: usize,
    pub(crate) value_start: usize,
    pub(crate) value_end: usize,
}

impl RawEntry {
    pub(crate) fn suffix(&self) -> Range<usize> {
        self.suffix_start..self.suffix_end
    }

    pub(crate) fn value(&self) -> Range<usize> {
        self.value_start..self.value_end
    }
}

impl BlockHeader {
    /// The header of no block: no entries, no prefix.
    pub(crate) const NONE: BlockHeader = BlockHeader {
        count: 0,
        fingerprints: false,
        prefix_start: 0,
        prefix_len: 0,
        shape: Shape::Slotted {
            slots: 0,
            wide: false,
        },
    };

    /// Reads the header and checks that everything it describes lies inside `content`.
    #[inline]
    pub(crate) fn parse(content: &[u8]) -> Result<BlockHeader, BlockDamage> {
        let head = content
            .first_chunk::<BLOCK_HEADER_BYTES>()
            .ok_or(BlockDamage::Header)?;
        let word = |at| u32_at(head, at).unwrap_or_default() as usize;
        let (count, suffix_len, value_len) = (word(0), word(8), word(12));
        let prefix_len = usize::from(u16_at(head, 4).unwrap_or_default());
        let (flags, tag_width) = (head[6], usize::from(head[7]));
        let limit = content.len();
        if flags & !(BLOCK_WIDE | BLOCK_UNIFORM | BLOCK_FINGERPRINTS | BLOCK_WHOLE | BLOCK_TAG_BASE) != 0 {
            return Err(BlockDamage::Flags(flags));
        }
        let fingerprints = flags & BLOCK_FINGERPRINTS != 0;
        // With every factor at most the content's length, below 2^31 with what may follow it, no product here overflows.
        if count == 0
            || count.max(suffix_len).max(value_len) > limit
            || limit > 2 * CONTENT_BYTES_MAX
            || (fingerprints && count > FINGERPRINTS_MAX)
        {
            return Err(BlockDamage::Header);
        }
        let mut at = BLOCK_HEADER_BYTES + if fingerprints { count } else { 0 };
        let prefix_start;
        let shape = if flags & BLOCK_UNIFORM != 0 {
            if !(1..=8).contains(&tag_width) || flags & BLOCK_WIDE != 0 {
                return Err(BlockDamage::Header);
            }
            let mut tag_base = 0;
            if flags & BLOCK_TAG_BASE != 0 {
                tag_base = u64_at(content, at).ok_or(BlockDamage::Header)?;
                at += TAG_BASE_BYTES;
            }
            prefix_start = at;
            let keys = at + prefix_len;
            let record_len = tag_width + suffix_len;
            let (key_stride, values, value_stride) = if flags & BLOCK_WHOLE != 0 {
                (record_len + value_len, keys + record_len, record_len + value_len)
            } else {
                (record_len, keys + count * record_len, value_len)
            };
            at = values + (count - 1) * value_stride + value_len;
            Shape::Uniform {
                tag_base,
                tag_width,
                suffix_len,
                value_len,
                keys,
                key_stride,
                values,
                value_stride,
            }
        } else {
            let uniform_only = flags & (BLOCK_WHOLE | BLOCK_TAG_BASE);
            if tag_width != 0 || suffix_len != 0 || value_len != 0 || uniform_only != 0 {
                return Err(BlockDamage::Header);
            }
            let wide = flags & BLOCK_WIDE != 0;
            let slots = at;
            prefix_start = slots + count * if wide { 4 } else { 2 };
            at = prefix_start + prefix_len;
            Shape::Slotted { slots, wide }
        };
        if at > limit {
            return Err(BlockDamage::Header);
        }
        Ok(BlockHeader {
            count,
            fingerprints,
            prefix_start,
            prefix_len,
            shape,
        })
    }

    /// The number of entries, at least one.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where the prefix that all keys share lies.
    #[inline]
    pub(crate) fn prefix(&self) -> Range<usize> {
        self.prefix_start..self.prefix_start + self.prefix_len
    }

    /// The stored hash byte of each key.
    pub(crate) fn fingerprints(&self) -> Option<Range<usize>> {
        self.fingerprints
            .then_some(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + self.count)
    }

    /// Where the first entry lies.
    pub(crate) fn entries_start(&self) -> usize {
        self.prefix_start + self.prefix_len
    }

    /// Where the entries end, if they are all of one shape.
    pub(crate) fn uniform_end(&self) -> Option<usize> {
        match self.shape {
            Shape::Uniform {
                values,
                value_stride,
                value_len,
                ..
            } => Some(values + (self.count - 1) * value_stride + value_len),
            Shape::Slotted { .. } => None,
        }
    }

    /// Where entry `index` of a slotted block starts.
    pub(crate) fn slot(&self, content: &[u8], index: usize) -> Option<usize> {
        match self.shape {
            Shape::Slotted { slots, wide: false } => u16_at(content, slots + 2 * index).map(usize::from),
            Shape::Slotted { slots, wide: true } => {
                u32_at(content, slots + 4 * index).map(|slot| slot as usize)
            }
            Shape::Uniform { .. } => None,
        }
    }

    /// Decodes entry `index`, which must be below `count`.
    #[inline]
    pub(crate) fn entry(&self, content: &[u8], index: usize) -> Result<RawEntry, BlockDamage> {
        debug_assert!(index < self.count, "entry index below the count");
        match self.shape {
            Shape::Uniform {
                tag_base,
                tag_width,
                suffix_len,
                value_len,
                keys,
                key_stride,
                values,
                value_stride,
            } => {
                let record = keys + index * key_stride;
                let stored = fixed(content, record, tag_width).ok_or(BlockDamage::Entry(index))?;
                // Past the largest number there is no tag either.
                let packed = tag_base.saturating_add(stored);
                let tag = unpack_tag(packed).ok_or(BlockDamage::Tag(index, packed))?;
                let suffix_start = record + tag_width;
                let value_start = values + index * value_stride;
                Ok(RawEntry {
                    tag,
                    suffix_start,
                    suffix_end: suffix_start + suffix_len,
                    value_start,
                    value_end: value_start + value_len,
                })
            }
            Shape::Slotted { .. } => self.slotted_entry(content, index),
        }
    }

    /// Where the suffix of entry `index`, which must be below `count`, lies: no more than that is decoded.
    #[inline]
    pub(crate) fn suffix(&self, content: &[u8], index: usize) -> Result<Range<usize>, BlockDamage> {
        debug_assert!(index < self.count, "entry index below the count");
        match self.shape {
            Shape::Uniform {
                tag_width,
                suffix_len,
                keys,
                key_stride,
                ..
            } => {
                let start = keys + index * key_stride + tag_width;
                Ok(start..start + suffix_len)
            }
            Shape::Slotted { .. } => Ok(self.slotted_entry(content, index)?.suffix()),
        }
    }

    #[inline]
    fn slotted_entry(&self, content: &[u8], index: usize) -> Result<RawEntry, BlockDamage> {
        let outside = BlockDamage::Entry(index);
        let start = self.slot(content, index).ok_or(outside)?;
        let (suffix_len, at) = varint::get(content, start).ok_or(outside)?;
        let (value_len, at) = varint::get(content, at).ok_or(outside)?;
        let (packed, suffix_start) = varint::get(content, at).ok_or(outside)?;
        let tag = unpack_tag(packed).ok_or(BlockDamage::Tag(index, packed))?;
        let limit = content.len() as u64;
        if suffix_len > limit || value_len > limit {
            return Err(outside);
        }
        let suffix_end = suffix_start + crate::format::index(suffix_len);
        let value_end = suffix_end + crate::format::index(value_len);
        if value_end > content.len() {
            return Err(outside);
        }
        Ok(RawEntry {
            tag,
            suffix_start,
            suffix_end,
            value_start: suffix_end,
            value_end,
        })
    }

    /// The first entry at or after `target`, or `count`.
    pub(crate) fn lower_bound(&self, content: &[u8], target: InternalKey<'_>) -> Result<usize, BlockDamage> {
        let prefix = &content[self.prefix()];
        let rest = match strip(prefix, target.user_key) {
            Ok(rest) => rest,
            Err(Ordering::Less) => return Ok(0),
            Err(_) => return Ok(self.count),
        };
        // After a search by heads the first one left is the answer, unless entries with the target's head follow.
        let (mut low, mut high) = (0, self.count);
        let mut middle = self.count / 2;
        if let Some(first) = self.first_with_head(content, rest) {
            (low, middle) = (first, first);
        }
        while low < high {
            let entry = self.entry(content, middle)?;
            // Tags run downwards.
            let order = content[entry.suffix()]
                .cmp(rest)
                .then_with(|| target.tag.cmp(&entry.tag));
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
            middle = low + (high - low) / 2;
        }
        Ok(low)
    }

    /// In a uniform block, the first entry whose suffix has at least the [`head`] of `rest`: a search without a branch
    /// that depends on the keys, over words at a fixed distance. No entry before it is at or after `rest`, as heads
    /// that differ order as the keys do. `None` for other blocks.
    ///
    /// First among every so many-th entry, whose lines a reader may have asked for all at once, then among those between
    /// two of them.
    #[inline]
    fn first_with_head(&self, content: &[u8], rest: &[u8]) -> Option<usize> {
        let Shape::Uniform {
            tag_width,
            suffix_len,
            keys,
            key_stride,
            ..
        } = self.shape
        else {
            return None;
        };
        let suffixes = keys + tag_width;
        let wanted = head(rest);
        // Short suffixes are read with what follows them, which is then cut off. `None` where nothing follows.
        let mask = match suffix_len {
            0 => return None,
            1..8 => u64::MAX << (64 - 8 * suffix_len),
            _ => u64::MAX,
        };
        let below = |index: usize| {
            let at = suffixes + index * key_stride;
            let found = match array::<8>(content, at) {
                Some(word) => u64::from_be_bytes(word) & mask,
                None => head(content.get(at..at + suffix_len).unwrap_or_default()),
            };
            found < wanted
        };
        let distance = sample_distance(self.count);
        let samples = partition_point(self.count / distance, |sample| below(sample_at(sample, distance)));
        let start = samples * distance;
        let between = (self.count - start).min(distance - 1);
        prefetch_range(
            content,
            suffixes + start * key_stride,
            between * key_stride,
            SAMPLES_MAX,
        );
        Some(start + partition_point(between, |index| below(start + index)))
    }

    /// Entry `index`, which must be below `count`, if it is one of `user_key`.
    #[inline]
    pub(crate) fn entry_of(
        &self,
        content: &[u8],
        index: usize,
        user_key: &[u8],
    ) -> Result<Option<RawEntry>, BlockDamage> {
        let entry = self.entry(content, index)?;
        let rest = user_key.strip_prefix(&content[self.prefix()]);
        let is_it = rest.is_some_and(|rest| is_same(&content[entry.suffix()], rest));
        Ok(is_it.then_some(entry))
    }

    /// The newest entry of `user_key` with a seqno up to `seqno`.
    #[inline]
    pub(crate) fn find(
        &self,
        content: &[u8],
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<RawEntry>, BlockDamage> {
        let Ok(rest) = strip(&content[self.prefix()], user_key) else {
            return Ok(None);
        };
        if let Some(range) = self.fingerprints() {
            return self.find_by_fingerprint(content, &content[range], rest, hash, seqno);
        }
        let index = self.lower_bound(content, InternalKey::new(user_key, Tag::seek_at(seqno)))?;
        if index == self.count {
            return Ok(None);
        }
        let entry = self.entry(content, index)?;
        Ok((&content[entry.suffix()] == rest).then_some(entry))
    }

    /// Entries with the same key have the same fingerprint and come newest first, so the first match is the answer.
    #[inline]
    fn find_by_fingerprint(
        &self,
        content: &[u8],
        fingerprints: &[u8],
        rest: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<RawEntry>, BlockDamage> {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        let wanted = fingerprint(hash);
        let pattern = u64::from(wanted) * LOW;
        let (chunks, tail) = fingerprints.as_chunks::<8>();
        for (number, chunk) in chunks.iter().enumerate() {
            // The classic test for a zero byte. A byte above a true match may be flagged wrongly; the entry's key is
            // compared in any case.
            let difference = u64::from_le_bytes(*chunk) ^ pattern;
            let mut hits = difference.wrapping_sub(LOW) & !difference & HIGH;
            while hits != 0 {
                let index = number * 8 + hits.trailing_zeros() as usize / 8;
                if let Some(entry) = self.visible(content, index, rest, seqno)? {
                    return Ok(Some(entry));
                }
                hits &= hits - 1;
            }
        }
        for (number, &byte) in tail.iter().enumerate() {
            if byte == wanted
                && let Some(entry) = self.visible(content, chunks.len() * 8 + number, rest, seqno)?
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    #[inline]
    fn visible(
        &self,
        content: &[u8],
        index: usize,
        rest: &[u8],
        seqno: SeqNo,
    ) -> Result<Option<RawEntry>, BlockDamage> {
        let entry = self.entry(content, index)?;
        Ok((&content[entry.suffix()] == rest && entry.tag.seqno() <= seqno).then_some(entry))
    }
}

/// At the most this many entries are looked at to find the part of a uniform block that a search goes on in.
const SAMPLES_MAX: usize = 15;

/// How far these entries are from each other in a block of `count`.
#[inline]
fn sample_distance(count: usize) -> usize {
    (count / (SAMPLES_MAX.div_ceil(2))).next_power_of_two()
}

/// The number of entry `sample` of these.
#[inline]
fn sample_at(sample: usize, distance: usize) -> usize {
    (sample + 1) * distance - 1
}

/// Numbers of the entries that a search in a uniform block of `count` looks at first.
pub(crate) fn samples(count: usize) -> impl Iterator<Item = usize> {
    let distance = sample_distance(count);
    (0..count / distance).map(move |sample| sample_at(sample, distance))
}

/// `key` without `prefix`; where it does not start with it, on which side of all keys with that prefix it lies.
#[inline]
pub(crate) fn strip<'k>(prefix: &[u8], key: &'k [u8]) -> Result<&'k [u8], Ordering> {
    // An empty slice may lie nowhere, and there are processors and C libraries that take long to compare nothing with it.
    if prefix.is_empty() {
        return Ok(key);
    }
    if let Some(rest) = key.strip_prefix(prefix) {
        return Ok(rest);
    }
    // A key that is shorter than the prefix and agrees with it sorts before.
    Err(key.cmp(prefix))
}

/// A little-endian number of 1 to 8 bytes.
#[inline]
fn fixed(content: &[u8], at: usize, width: usize) -> Option<u64> {
    if let Some(word) = u64_at(content, at) {
        return Some(word & (u64::MAX >> (64 - 8 * width)));
    }
    let bytes = content.get(at..at + width)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| (value << 8) | u64::from(byte)),
    )
}

#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod tests;
