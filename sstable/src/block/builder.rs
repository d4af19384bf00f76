//! Collects the entries of one block and encodes them at once.

use crate::filter::TypicalBlock;
use crate::format::{
    BLOCK_FINGERPRINTS, BLOCK_HEADER_BYTES, BLOCK_PREFIX_BYTES_MAX, BLOCK_TAG_BASE, BLOCK_UNIFORM,
    BLOCK_WHOLE, BLOCK_WIDE, FINGERPRINTS_MAX, TAG_BASE_BYTES, u32_len,
};
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
    sizes: Sizes,
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
    /// An upper bound: suffixes are counted as whole keys.
    varint_bytes: usize,
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
            varint_bytes: 0,
            packed_min: u64::MAX,
            packed_max: 0,
            uniform: None,
        }
    }

    fn with(mut self, key_len: usize, value_len: usize, packed: u64, prefix_len: usize) -> Sizes {
        let lens = (key_len, value_len);
        self.uniform = if self.count == 0 {
            Some(lens)
        } else {
            self.uniform.filter(|&all| all == lens)
        };
        self.count += 1;
        self.prefix_len = prefix_len;
        self.key_bytes += key_len;
        self.value_bytes += value_len;
        self.varint_bytes +=
            varint::len(key_len as u64) + varint::len(value_len as u64) + varint::len(packed);
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
        let narrow = base + self.varint_bytes + 2 * self.count;
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

    fn put(&self, out: &mut Vec<u8>, packed: u64) {
        let stored = packed - self.base.unwrap_or(0);
        out.extend_from_slice(&stored.to_le_bytes()[..self.width]);
    }
}

fn byte_width(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(8)
}

fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
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
    sizes.tags().put(&mut out, pack_tag(key.tag));
    out.extend_from_slice(suffix);
    out
}

impl BlockBuilder {
    /// A builder whose blocks have fingerprints where keys and values average less than `fingerprints_below` bytes.
    pub(crate) fn new(fingerprints_below: usize) -> BlockBuilder {
        BlockBuilder {
            arena: Vec::new(),
            entries: Vec::new(),
            sizes: Sizes::new(fingerprints_below),
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
    pub(crate) fn content_len(&self) -> usize {
        if self.is_empty() {
            0
        } else {
            self.sizes.content_len()
        }
    }

    /// What [`content_len`](Self::content_len) becomes if this entry, which sorts after all others, is added.
    pub(crate) fn content_len_with(&self, key: InternalKey<'_>, value_len: usize) -> usize {
        self.sizes_with(key, value_len).content_len()
    }

    fn sizes_with(&self, key: InternalKey<'_>, value_len: usize) -> Sizes {
        let prefix_len = match self.entries.first() {
            None => key.user_key.len().min(BLOCK_PREFIX_BYTES_MAX),
            // Keys are sorted: what the first and the last share, all share.
            Some(first) => {
                let first = &self.arena[first.start..][..self.sizes.prefix_len];
                common_prefix_len(first, key.user_key)
            }
        };
        self.sizes
            .with(key.user_key.len(), value_len, pack_tag(key.tag), prefix_len)
    }

    /// Adds an entry that sorts after all others.
    pub(crate) fn push(&mut self, key: InternalKey<'_>, hash: u64, value: &[u8]) {
        self.sizes = self.sizes_with(key, value.len());
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

    /// Writes the content to `out`, which it clears first, and starts an empty block.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>) {
        debug_assert!(!self.is_empty(), "a block has at least one entry");
        out.clear();
        let wide = self.sizes.content_len() > NARROW_BYTES_MAX;
        out.extend_from_slice(&self.sizes.header(wide));
        if self.sizes.fingerprints() > 0 {
            out.extend(self.entries.iter().map(|entry| entry.fingerprint));
        }
        if self.sizes.uniform.is_some() {
            self.encode_uniform(out)
        } else {
            self.encode_slotted(out, wide)
        }
        debug_assert!(
            out.len() <= self.sizes.content_len(),
            "the estimate is an upper bound"
        );
        self.arena.clear();
        self.entries.clear();
        self.sizes = Sizes::new(self.sizes.fingerprints_below);
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
        if let Some(base) = tags.base {
            out.extend_from_slice(&base.to_le_bytes());
        }
        out.extend_from_slice(self.prefix());
        for entry in &self.entries {
            tags.put(out, entry.packed);
            out.extend_from_slice(self.suffix(entry));
            if whole {
                out.extend_from_slice(self.value(entry));
            }
        }
        if !whole {
            for entry in &self.entries {
                out.extend_from_slice(self.value(entry));
            }
        }
    }

    fn encode_slotted(&self, out: &mut Vec<u8>, wide: bool) {
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
