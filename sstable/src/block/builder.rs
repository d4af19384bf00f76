//! Collects the entries of one block and encodes them at once.

use crate::filter::TypicalBlock;
use crate::format::{
    BLOCK_FINGERPRINTS, BLOCK_HEADER_BYTES, BLOCK_PREFIX_BYTES_MAX, BLOCK_TAG_BASE, BLOCK_UNIFORM,
    BLOCK_WHOLE, BLOCK_WIDE, FINGERPRINTS_MAX, TAG_BASE_BYTES, u32_len,
};
use crate::index::head;
use crate::key_buf::copy_short;
use crate::{InternalKey, varint};

use super::{fingerprint, pack_tag};

/// The longest content whose entries two-byte slots can reach.
const NARROW_BYTES_MAX: usize = 1 << 16;

/// The entries of a block that is not complete yet: bounded by the block size.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    /// Key and value of each entry, one after the other.
    arena: Vec<u8>,
    entries: Vec<Pending>,
    /// Of the first key.
    first_head: u64,
    sizes: Sizes,
    /// What the sizes come to; 0 without entries.
    content_len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    start: usize,
    key_len: usize,
    value_len: usize,
    packed: u64,
    fingerprint: u8,
}

/// What the encoded length depends on.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Fingerprints are kept while keys and values average less than this.
    fingerprints_below: usize,
    count: usize,
    prefix_len: usize,
    key_bytes: usize,
    value_bytes: usize,
    /// Of the tags as varints.
    tag_varint_bytes: usize,
    /// Of the lengths as varints, once they are not all alike. An upper bound: suffixes are counted as whole keys.
    len_varint_bytes: usize,
    packed_min: u64,
    packed_max: u64,
    /// The lengths of key and value that all entries have so far.
    uniform: Option<(usize, usize)>,
}

impl Sizes {
    fn new(fingerprints_below: usize) -> Sizes {
        Sizes {
            fingerprints_below,
            count: 0,
            prefix_len: 0,
            key_bytes: 0,
            value_bytes: 0,
            tag_varint_bytes: 0,
            len_varint_bytes: 0,
            packed_min: u64::MAX,
            packed_max: 0,
            uniform: None,
        }
    }

    fn with(mut self, key_len: usize, value_len: usize, packed: u64, prefix_len: usize) -> Sizes {
        let lens = (key_len, value_len);
        if self.count == 0 {
            self.uniform = Some(lens);
        } else if let Some(all) = self.uniform
            && all != lens
        {
            self.uniform = None;
            self.len_varint_bytes = self.count * len_varint_bytes(all);
        }
        if self.uniform.is_none() {
            self.len_varint_bytes += len_varint_bytes(lens);
        }
        self.count += 1;
        self.prefix_len = prefix_len;
        self.key_bytes += key_len;
        self.value_bytes += value_len;
        self.tag_varint_bytes += varint::len(packed);
        self.packed_min = self.packed_min.min(packed);
        self.packed_max = self.packed_max.max(packed);
        self
    }

    /// How tags are stored in a uniform block: above the smallest one, which is stored once, where that is shorter.
    fn tags(&self) -> Tags {
        let plain = byte_width(self.packed_max);
        let above = byte_width(self.packed_max.saturating_sub(self.packed_min));
        if TAG_BASE_BYTES + self.count * above < self.count * plain {
            Tags {
                base: Some(self.packed_min),
                width: above,
            }
        } else {
            Tags {
                base: None,
                width: plain,
            }
        }
    }

    /// Whether point reads have to search the block, as no hash index leads them to the entry.
    fn searched(&self) -> bool {
        self.key_bytes + self.value_bytes < self.count.saturating_mul(self.fingerprints_below)
    }

    /// Whether each value follows its key record. A read that knows where the entry is finds all of it in one place then; a
    /// search has its keys closer together if they lie apart.
    fn whole(&self) -> bool {
        self.uniform.is_some() && self.count > 1 && !self.searched()
    }

    fn fingerprints(&self) -> usize {
        if self.searched() && (2..=FINGERPRINTS_MAX).contains(&self.count) {
            self.count
        } else {
            0
        }
    }

    /// The length of the content, or a little more.
    fn content_len(&self) -> usize {
        let suffixes = self.key_bytes - self.count * self.prefix_len;
        let base = BLOCK_HEADER_BYTES + self.fingerprints() + self.prefix_len + suffixes + self.value_bytes;
        if self.uniform.is_some() {
            let tags = self.tags();
            return base + tags.base_bytes() + self.count * tags.width;
        }
        let narrow = base + self.tag_varint_bytes + self.len_varint_bytes + 2 * self.count;
        if narrow <= NARROW_BYTES_MAX {
            narrow
        } else {
            narrow + 2 * self.count
        }
    }

    fn header(&self, wide: bool) -> [u8; BLOCK_HEADER_BYTES] {
        let mut flags = if self.fingerprints() > 0 {
            BLOCK_FINGERPRINTS
        } else {
            0
        };
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[0..4].copy_from_slice(&u32_len(self.count).to_le_bytes());
        let prefix_len = u16::try_from(self.prefix_len).expect("a prefix is cut at two bytes' worth");
        out[4..6].copy_from_slice(&prefix_len.to_le_bytes());
        if let Some((key_len, value_len)) = self.uniform {
            let tags = self.tags();
            flags |= BLOCK_UNIFORM | if tags.base.is_some() { BLOCK_TAG_BASE } else { 0 };
            out[7] = tags.width.to_le_bytes()[0];
            out[8..12].copy_from_slice(&u32_len(key_len - self.prefix_len).to_le_bytes());
            out[12..16].copy_from_slice(&u32_len(value_len).to_le_bytes());
        } else if wide {
            flags |= BLOCK_WIDE;
        }
        if self.whole() {
            flags |= BLOCK_WHOLE;
        }
        out[6] = flags;
        out
    }
}

#[derive(Clone, Copy, Debug)]
struct Tags {
    base: Option<u64>,
    /// Bytes for each.
    width: usize,
}

impl Tags {
    fn base_bytes(&self) -> usize {
        self.base.map_or(0, |_| TAG_BASE_BYTES)
    }

    /// What is stored of a tag: the first `width` bytes of this.
    fn stored(&self, packed: u64) -> [u8; 8] {
        (packed - self.base.unwrap_or(0)).to_le_bytes()
    }
}

fn len_varint_bytes((key_len, value_len): (usize, usize)) -> usize {
    varint::len(key_len as u64) + varint::len(value_len as u64)
}

fn byte_width(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(8)
}

/// The content's length of a block with this entry only.
pub(crate) fn lone_content_len(key: InternalKey<'_>, value_len: usize) -> usize {
    lone_sizes(key, value_len).content_len()
}

fn lone_sizes(key: InternalKey<'_>, value_len: usize) -> Sizes {
    let key_len = key.user_key.len();
    Sizes::new(0).with(
        key_len,
        value_len,
        pack_tag(key.tag),
        key_len.min(BLOCK_PREFIX_BYTES_MAX),
    )
}

/// Everything before the value in the content of a block with this entry only, so that a large value need not be
/// copied behind it.
pub(crate) fn encode_lone_head(key: InternalKey<'_>, value_len: usize) -> Vec<u8> {
    let sizes = lone_sizes(key, value_len);
    let (prefix, suffix) = key.user_key.split_at(sizes.prefix_len);
    let mut out = Vec::with_capacity(sizes.content_len() - value_len);
    out.extend_from_slice(&sizes.header(false));
    out.extend_from_slice(prefix);
    // One tag is not shorter than itself: there is no base.
    let tags = sizes.tags();
    out.extend_from_slice(&tags.stored(pack_tag(key.tag))[..tags.width]);
    out.extend_from_slice(suffix);
    out
}

impl BlockBuilder {
    /// A builder whose blocks have fingerprints where keys and values average less than `fingerprints_below` bytes.
    pub(crate) fn new(fingerprints_below: usize) -> BlockBuilder {
        BlockBuilder {
            arena: Vec::new(),
            entries: Vec::new(),
            first_head: 0,
            sizes: Sizes::new(fingerprints_below),
            content_len: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries so far.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// What the block would look like if it were encoded now; `None` where its entries differ in length.
    pub(crate) fn typical(&self) -> Option<TypicalBlock> {
        let (key_len, value_len) = self.sizes.uniform?;
        let tags = self.sizes.tags();
        let keys_start =
            BLOCK_HEADER_BYTES + self.sizes.fingerprints() + tags.base_bytes() + self.sizes.prefix_len;
        let record_len = tags.width + key_len - self.sizes.prefix_len;
        let (key_stride, values_start, value_stride) = if self.sizes.whole() {
            (record_len + value_len, 0, 0)
        } else {
            (record_len, keys_start + record_len * self.count(), value_len)
        };
        Some(TypicalBlock {
            keys_start: u16::try_from(keys_start).ok()?,
            key_stride: u16::try_from(key_stride).ok()?,
            values_start: u16::try_from(values_start).ok()?,
            value_stride: u16::try_from(value_stride).ok()?,
        })
    }

    /// The content's length, or a little more; 0 for an empty block.
    #[inline]
    pub(crate) fn content_len(&self) -> usize {
        self.content_len
    }

    /// Adds an entry that sorts after all others.
    pub(crate) fn push(&mut self, key: InternalKey<'_>, hash: u64, value: &[u8]) {
        let sizes = self.sizes_with(key, value);
        self.add(sizes, sizes.content_len(), key, hash, value);
    }

    /// Adds an entry that sorts after all others, if the content's length does not go over `len_max` by it.
    #[inline]
    #[must_use]
    pub(crate) fn push_within(
        &mut self,
        len_max: usize,
        key: InternalKey<'_>,
        hash: u64,
        value: &[u8],
    ) -> bool {
        let sizes = self.sizes_with(key, value);
        let content_len = sizes.content_len();
        let fits = content_len <= len_max;
        if fits {
            self.add(sizes, content_len, key, hash, value);
        }
        fits
    }

    #[inline]
    fn sizes_with(&self, key: InternalKey<'_>, value: &[u8]) -> Sizes {
        let prefix_len = self.shared_prefix_len(key.user_key);
        self.sizes
            .with(key.user_key.len(), value.len(), pack_tag(key.tag), prefix_len)
    }

    #[inline]
    fn add(&mut self, sizes: Sizes, content_len: usize, key: InternalKey<'_>, hash: u64, value: &[u8]) {
        if self.entries.is_empty() {
            self.first_head = head(key.user_key);
        }
        (self.sizes, self.content_len) = (sizes, content_len);
        let start = self.arena.len();
        self.arena.extend_from_slice(key.user_key);
        self.arena.extend_from_slice(value);
        self.entries.push(Pending {
            start,
            key_len: key.user_key.len(),
            value_len: value.len(),
            packed: pack_tag(key.tag),
            fingerprint: fingerprint(hash),
        });
    }

    /// What all keys share with `key`, which sorts after them: as they are sorted, what the first and the last share.
    #[inline]
    fn shared_prefix_len(&self, key: &[u8]) -> usize {
        if self.entries.is_empty() {
            return key.len().min(BLOCK_PREFIX_BYTES_MAX);
        }
        const HEAD: usize = size_of::<u64>();
        let limit = self.sizes.prefix_len.min(key.len());
        let shared = (self.first_head ^ head(key)).leading_zeros() as usize / 8;
        if shared < HEAD || limit <= HEAD {
            return shared.min(limit);
        }
        // The arena begins with the first key.
        let (first, key) = (&self.arena[HEAD..limit], &key[HEAD..limit]);
        if first == key {
            return limit;
        }
        HEAD + first.iter().zip(key).take_while(|(a, b)| a == b).count()
    }

    /// Makes `out` the content, and starts an empty block.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>) {
        debug_assert!(!self.is_empty(), "a block has at least one entry");
        if self.sizes.uniform.is_some() {
            self.encode_uniform(out);
        } else {
            self.encode_slotted(out);
        }
        debug_assert!(out.len() <= self.content_len, "the estimate is an upper bound");
        self.arena.clear();
        self.entries.clear();
        self.sizes = Sizes::new(self.sizes.fingerprints_below);
        self.content_len = 0;
    }

    fn prefix(&self) -> &[u8] {
        &self.arena[self.entries[0].start..][..self.sizes.prefix_len]
    }

    fn suffix(&self, entry: &Pending) -> &[u8] {
        &self.arena[entry.start + self.sizes.prefix_len..entry.start + entry.key_len]
    }

    fn value(&self, entry: &Pending) -> &[u8] {
        &self.arena[entry.start + entry.key_len..][..entry.value_len]
    }

    fn encode_uniform(&self, out: &mut Vec<u8>) {
        let (tags, whole) = (self.sizes.tags(), self.sizes.whole());
        // What the last block left there is overwritten: all of it is put.
        out.resize(self.content_len, 0);
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            copy_short(&mut out[at..at + bytes.len()], bytes);
            at += bytes.len();
        };
        put(&self.sizes.header(false));
        if self.sizes.fingerprints() > 0 {
            self.entries.iter().for_each(|entry| put(&[entry.fingerprint]));
        }
        if let Some(base) = tags.base {
            put(&base.to_le_bytes());
        }
        put(self.prefix());
        for entry in &self.entries {
            put(&tags.stored(entry.packed)[..tags.width]);
            put(self.suffix(entry));
            if whole {
                put(self.value(entry));
            }
        }
        if !whole {
            self.entries.iter().for_each(|entry| put(self.value(entry)));
        }
        assert_eq!(at, out.len(), "the length of a uniform block is exact");
    }

    fn encode_slotted(&self, out: &mut Vec<u8>) {
        let wide = self.content_len > NARROW_BYTES_MAX;
        out.clear();
        out.extend_from_slice(&self.sizes.header(wide));
        if self.sizes.fingerprints() > 0 {
            out.extend(self.entries.iter().map(|entry| entry.fingerprint));
        }
        let slots = out.len();
        let width = if wide { 4 } else { 2 };
        out.resize(slots + width * self.entries.len(), 0);
        out.extend_from_slice(self.prefix());
        for (index, entry) in self.entries.iter().enumerate() {
            let position = u32_len(out.len()).to_le_bytes();
            debug_assert!(wide || position[2..] == [0, 0], "narrow slots reach every entry");
            out[slots + width * index..][..width].copy_from_slice(&position[..width]);
            varint::put(out, (entry.key_len - self.sizes.prefix_len) as u64);
            varint::put(out, entry.value_len as u64);
            varint::put(out, entry.packed);
            out.extend_from_slice(self.suffix(entry));
            out.extend_from_slice(self.value(entry));
        }
    }
}
