#![doc = include_str!("../FORMAT.md")]

use std::path::Path;

use siltstone_vfs::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::options::unknown;
use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The version that this crate writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The last bytes of every table.
pub const MAGIC: [u8; 8] = [0x8f, b'S', b'I', b'L', b'T', b'S', b'S', b'T'];

/// The unit of placement: what one page fault or one disk read brings.
pub const PAGE_BYTES: u64 = 4096;

/// The most bytes of a page that are given up so that the next block starts on the following page.
pub const PAD_BYTES_MAX: u64 = 512;

/// Length of the footer.
pub const FOOTER_BYTES: usize = 64;

/// Length of one entry of the section directory.
pub const SECTION_ENTRY_BYTES: usize = 28;

/// The most sections a table may have.
pub const SECTIONS_MAX: usize = 64;

/// Alignment of every section: a cache line.
pub const SECTION_ALIGN_BYTES: u64 = 64;

/// Length of a data block's header.
pub const BLOCK_HEADER_BYTES: usize = 16;

/// Length of a data block's trailer.
pub const BLOCK_TRAILER_BYTES: usize = 16;

/// The most entries a block with fingerprints has.
pub const FINGERPRINTS_MAX: usize = 256;

/// The longest prefix that the keys of a block share by storing it once.
pub const BLOCK_PREFIX_BYTES_MAX: usize = u16::MAX as usize;

/// The longest content of a block, uncompressed: one entry of the greatest size.
pub const CONTENT_BYTES_MAX: usize = VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX + 64;

/// The most bytes that one byte of zstd can stand for, rounded up: a four-byte RLE block makes 128 KiB.
pub const ZSTD_EXPANSION_MAX: usize = 1 << 16;

/// Length of the index section's header.
pub const INDEX_HEADER_BYTES: usize = 32;

/// Length of the filter section's header, a cache line so that the blocks behind it are aligned.
pub const FILTER_HEADER_BYTES: usize = 64;

/// A filter of the `bloomfilter` crate.
pub const FILTER_STANDARD: u8 = 1;
/// A Bloom filter in blocks of a cache line.
pub const FILTER_BLOCKED: u8 = 2;
/// A hash table of the places of entries.
pub const FILTER_HASH_INDEX: u8 = 3;

/// Length of one block of the blocked filter: a cache line.
pub const FILTER_BLOCK_BYTES: usize = 64;

/// Block flag: slots have four bytes instead of two.
pub const BLOCK_WIDE: u8 = 1;
/// Block flag: all entries have keys of one length and values of one length; there are no slots.
pub const BLOCK_UNIFORM: u8 = 2;
/// Block flag: a byte of each key's hash follows the header.
pub const BLOCK_FINGERPRINTS: u8 = 4;
/// Block flag, only where entries are uniform: each value follows its key record.
pub const BLOCK_WHOLE: u8 = 8;
/// Block flag, only where entries are uniform: tags are stored as what they are above the block's smallest one.
pub const BLOCK_TAG_BASE: u8 = 16;

/// Length of a block's smallest tag, where it has one to itself.
pub const TAG_BASE_BYTES: usize = 8;

/// Section kinds with this bit must be understood by whoever reads the table.
pub const SECTION_REQUIRED: u32 = 0x8000_0000;
/// The block index.
pub const SECTION_INDEX: u32 = SECTION_REQUIRED | 1;
/// The properties.
pub const SECTION_PROPERTIES: u32 = SECTION_REQUIRED | 2;
/// The block index of a table whose blocks are all equally long, but for the last; instead of the other.
pub const SECTION_EVEN_INDEX: u32 = SECTION_REQUIRED | 4;
/// The filter; a reader that ignores it is slow, not wrong.
pub const SECTION_FILTER: u32 = 3;

const _: () = assert!(
    usize::BITS == 64,
    "tables are mapped: Siltstone needs a 64-bit address space"
);
const _: () = assert!(
    CONTENT_BYTES_MAX <= u32::MAX as usize,
    "raw lengths have four bytes"
);
const _: () = assert!(
    (FILTER_HEADER_BYTES as u64).is_multiple_of(SECTION_ALIGN_BYTES),
    "filter blocks are aligned"
);
const _: () = assert!(
    PAGE_BYTES.is_multiple_of(SECTION_ALIGN_BYTES),
    "sections are aligned in memory too"
);
const _: () = assert!(
    PAD_BYTES_MAX < PAGE_BYTES && PAGE_BYTES <= u16::MAX as u64,
    "padding has two bytes"
);

/// XXH3-64, the checksum of everything in a table.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A `u64` as an index. Lossless: the crate compiles for 64-bit targets only (asserted above).
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, asserted above"
)]
#[inline]
pub(crate) const fn index(value: u64) -> usize {
    value as usize
}

/// A length that the format's limits keep below 2^32.
///
/// # Panics
/// On a larger one: that is a bug in the builder, which checks sizes before it comes here.
pub(crate) fn u32_len(len: usize) -> u32 {
    u32::try_from(len).expect("the format's limits keep this length below 2^32")
}

/// The `N` bytes at `at`, if they are there.
#[inline]
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// The footer's fields; the layout is in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the section directory starts.
    pub directory_offset: u64,
    /// Its length in bytes.
    pub directory_len: u64,
    /// Its checksum.
    pub directory_checksum: u64,
    /// The length of the whole file.
    pub file_len: u64,
    /// The number that the table was written under; 0 where its writer did not say.
    pub table_id: u64,
}

impl Footer {
    /// The bytes of the footer.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[0..8].copy_from_slice(&self.directory_offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.directory_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.directory_checksum.to_le_bytes());
        out[24..32].copy_from_slice(&self.file_len.to_le_bytes());
        out[32..40].copy_from_slice(&self.table_id.to_le_bytes());
        out[40..44].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let sum = checksum(&out[..48]);
        out[48..56].copy_from_slice(&sum.to_le_bytes());
        out[56..].copy_from_slice(&MAGIC);
        out
    }

    /// Decodes and checks the footer of a file of `file_len` bytes.
    ///
    /// # Errors
    /// `Corruption`; `Unsupported` for another format version.
    pub fn decode(bytes: &[u8; FOOTER_BYTES], path: &Path, file_len: u64) -> Result<Footer> {
        let at = file_len - (FOOTER_BYTES as u64).min(file_len);
        let word = |index: usize| u64_at(bytes, index).unwrap_or_default();
        let damaged = |field: u64, what: String| {
            Err(Error::corruption(path, at + field, what).with_advice("restore the file from a copy"))
        };
        if bytes[56..] != MAGIC {
            let found = bytes[56..].escape_ascii();
            return damaged(
                56,
                format!("file does not end as a table does: expected the magic, found {found}"),
            );
        }
        let (expected, found) = (word(48), checksum(&bytes[..48]));
        if expected != found {
            return damaged(
                0,
                format!("footer has checksum {found:016x}, expected {expected:016x}"),
            );
        }
        let version = u32_at(bytes, 40).unwrap_or_default();
        if version != FORMAT_VERSION {
            return Err(unknown("table format version", version)
                .with_path(path)
                .with_offset(at + 40));
        }
        if u32_at(bytes, 44) != Some(0) {
            return damaged(44, "footer has reserved bytes that are not zero".into());
        }
        let footer = Footer {
            directory_offset: word(0),
            directory_len: word(8),
            directory_checksum: word(16),
            file_len: word(24),
            table_id: word(32),
        };
        if footer.file_len != file_len {
            return damaged(
                24,
                format!("file has {file_len} bytes, expected {}", footer.file_len),
            );
        }
        if footer.directory_offset.checked_add(footer.directory_len) != Some(at) {
            return damaged(0, "section directory does not end where the footer starts".into());
        }
        Ok(footer)
    }
}

/// One entry of the section directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// One of the `SECTION_` kinds, or one that this version does not know.
    pub kind: u32,
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its checksum.
    pub checksum: u64,
}

impl Section {
    /// Appends the entry to the directory.
    pub fn encode(&self, directory: &mut Vec<u8>) {
        directory.extend_from_slice(&self.kind.to_le_bytes());
        directory.extend_from_slice(&self.offset.to_le_bytes());
        directory.extend_from_slice(&self.len.to_le_bytes());
        directory.extend_from_slice(&self.checksum.to_le_bytes());
    }

    /// Decodes a directory that lies at `footer.directory_offset` and whose checksum has been verified.
    ///
    /// # Errors
    /// `Corruption` where sections overlap, lie outside the file or occur twice; `Unsupported` for a required kind that
    /// this version does not know.
    pub fn decode_all(directory: &[u8], footer: &Footer, path: &Path) -> Result<Vec<Section>> {
        let (entries, rest) = directory.as_chunks::<SECTION_ENTRY_BYTES>();
        if !rest.is_empty() || entries.len() > SECTIONS_MAX {
            let what = format!(
                "section directory has {} bytes, expected at most {SECTIONS_MAX} times {SECTION_ENTRY_BYTES}",
                directory.len()
            );
            return Err(Error::corruption(path, footer.directory_offset, what));
        }
        let mut sections: Vec<Section> = Vec::with_capacity(entries.len());
        let mut end = 0;
        for (number, entry) in entries.iter().enumerate() {
            let at = footer.directory_offset + (number * SECTION_ENTRY_BYTES) as u64;
            let section = Section {
                kind: u32_at(entry, 0).unwrap_or_default(),
                offset: u64_at(entry, 4).unwrap_or_default(),
                len: u64_at(entry, 12).unwrap_or_default(),
                checksum: u64_at(entry, 20).unwrap_or_default(),
            };
            let known = [
                SECTION_INDEX,
                SECTION_EVEN_INDEX,
                SECTION_PROPERTIES,
                SECTION_FILTER,
            ];
            if !known.contains(&section.kind) && section.kind & SECTION_REQUIRED != 0 {
                let kind = format!("{:#010x}", section.kind);
                return Err(unknown("table section", kind).with_path(path).with_offset(at));
            }
            let fits = section.offset >= end
                && section.offset.is_multiple_of(SECTION_ALIGN_BYTES)
                && section
                    .offset
                    .checked_add(section.len)
                    .is_some_and(|end| end <= footer.directory_offset);
            if !fits || sections.iter().any(|other| other.kind == section.kind) {
                let what = format!(
                    "section {:#010x} overlaps another or leaves the file",
                    section.kind
                );
                return Err(Error::corruption(path, at, what));
            }
            end = section.offset + section.len;
            sections.push(section);
        }
        Ok(sections)
    }
}

/// The last bytes of a stored block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTrailer {
    /// As [`Compression::number`](crate::Compression::number).
    pub compression: u8,
    /// Zero bytes between the stored content and the trailer.
    pub padding: u16,
    /// The content's length before compression.
    pub raw_len: u32,
    /// XXH3-64 of the stored content, the padding and the trailer's first eight bytes.
    pub checksum: u64,
}

impl BlockTrailer {
    /// The first eight bytes, which the checksum covers.
    pub fn encode_head(&self) -> [u8; 8] {
        let mut out = [0; 8];
        out[0] = self.compression;
        out[2..4].copy_from_slice(&self.padding.to_le_bytes());
        out[4..8].copy_from_slice(&self.raw_len.to_le_bytes());
        out
    }

    /// The trailer of a stored block; `None` where it is too short or has a reserved byte that is not zero.
    pub fn decode(stored: &[u8]) -> Option<BlockTrailer> {
        let trailer = stored.last_chunk::<BLOCK_TRAILER_BYTES>()?;
        (trailer[1] == 0).then_some(BlockTrailer {
            compression: trailer[0],
            padding: u16_at(trailer, 2)?,
            raw_len: u32_at(trailer, 4)?,
            checksum: u64_at(trailer, 8)?,
        })
    }
}
