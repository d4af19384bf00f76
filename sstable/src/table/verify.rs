//! Reading a whole table with suspicion, and describing its parts.

use siltstone_vfs::{Error, Result};

use crate::block::{BlockHeader, fingerprint};
use crate::filter::{Filter, Place};
use crate::format::{
    FOOTER_BYTES, SECTION_ALIGN_BYTES, SECTION_EVEN_INDEX, SECTION_FILTER, SECTION_INDEX, SECTION_PROPERTIES,
    checksum, index as to_index,
};
use crate::{InternalKey, SeqNo, Tag, key_hash};

use super::Table;
use super::block_access::stored_checksum;
use super::blocks::Blocks;
use super::open::INDEX_KINDS;

/// What [`Table::verify`] went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Data blocks, all sound.
    pub data_blocks: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of the file: all of them are covered.
    pub bytes: u64,
}

/// What a part of a table file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Entries.
    Data,
    /// The block index.
    Index,
    /// The filter.
    Filter,
    /// The properties.
    Properties,
    /// A section that this version does not know and may ignore.
    Unknown(u32),
    /// The section directory.
    Directory,
    /// The footer.
    Footer,
}

/// One part of a table file, as [`Table::layout`] lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// What it is.
    pub kind: BlockKind,
    /// Where it starts.
    pub offset: u64,
    /// Its length in the file, padding and trailer included.
    pub stored_bytes: u64,
    /// Its length before compression, without padding and trailer.
    pub raw_bytes: u64,
    /// As [`Compression::number`](crate::Compression::number).
    pub compression: u8,
    /// Its entries; 0 for anything but data.
    pub entries: u64,
    /// The user key of its first entry; empty for anything but data.
    pub first_key: Vec<u8>,
    /// The user key of its last entry; empty for anything but data.
    pub last_key: Vec<u8>,
}

/// Sums over the entries seen so far, to be held against the properties.
struct Walk {
    last: Option<(Vec<u8>, Tag)>,
    /// Distinct user keys.
    keys: u64,
    entries: u64,
    tombstones: u64,
    key_bytes: u64,
    value_bytes: u64,
    seqno_min: SeqNo,
    seqno_max: SeqNo,
}

impl Table {
    /// Checks everything there is to check, whatever has been verified before: every checksum, the order of all entries
    /// and of the index, counts and bounds against the properties, each key against the filter and its fingerprint, and
    /// that unused bytes are zero.
    ///
    /// # Errors
    /// The first damage found, with its place.
    pub fn verify(&self) -> Result<VerifySummary> {
        let blocks = self.verify_sections()?;
        let mut walk = Walk {
            last: None,
            keys: 0,
            entries: 0,
            tombstones: 0,
            key_bytes: 0,
            value_bytes: 0,
            seqno_min: SeqNo::MAX,
            seqno_max: SeqNo::ZERO,
        };
        for block in 0..blocks.count() {
            self.verify_data_block(blocks, block, &mut walk)?;
        }
        self.verify_totals(&walk)?;
        Ok(VerifySummary {
            data_blocks: blocks.count() as u64,
            entries: walk.entries,
            bytes: self.size_bytes(),
        })
    }

    /// The parts of the file in their order.
    ///
    /// # Errors
    /// Those of reading the data blocks.
    pub fn layout(&self) -> Result<Vec<BlockLayout>> {
        let blocks = self.blocks()?;
        let mut parts = Vec::with_capacity(blocks.count() + self.sections.len() + 2);
        for block in 0..blocks.count() {
            parts.push(self.data_layout(block, blocks.range_of(&self.mapping, block))?);
        }
        let plain = |kind, offset, len| BlockLayout {
            kind,
            offset,
            stored_bytes: len,
            raw_bytes: len,
            compression: 0,
            entries: 0,
            first_key: Vec::new(),
            last_key: Vec::new(),
        };
        for section in &self.sections {
            let kind = match section.kind {
                SECTION_INDEX | SECTION_EVEN_INDEX => BlockKind::Index,
                SECTION_FILTER => BlockKind::Filter,
                SECTION_PROPERTIES => BlockKind::Properties,
                other => BlockKind::Unknown(other),
            };
            parts.push(plain(kind, section.offset, section.len));
        }
        let footer = super::open::read_footer(&self.mapping)?;
        parts.push(plain(
            BlockKind::Directory,
            footer.directory_offset,
            footer.directory_len,
        ));
        let footer_bytes = FOOTER_BYTES as u64;
        parts.push(plain(
            BlockKind::Footer,
            self.size_bytes() - footer_bytes,
            footer_bytes,
        ));
        Ok(parts)
    }

    fn data_layout(&self, block: usize, range: (u64, u64)) -> Result<BlockLayout> {
        let stored = self.stored(range)?;
        let trailer = self.verify_block(block, range.0, &stored)?;
        let content = self.unpack(block, range.0, &stored, trailer)?;
        let header = BlockHeader::parse(&content).map_err(|damage| self.damaged_block(block, damage))?;
        let key = |entry| {
            header
                .entry(&content, entry)
                .map(|raw| [&content[header.prefix()], &content[raw.suffix()]].concat())
                .map_err(|damage| self.damaged_block(block, damage))
        };
        Ok(BlockLayout {
            kind: BlockKind::Data,
            offset: range.0,
            stored_bytes: range.1 - range.0,
            raw_bytes: u64::from(trailer.raw_len),
            compression: trailer.compression,
            entries: header.count() as u64,
            first_key: key(0)?,
            last_key: key(header.count() - 1)?,
        })
    }

    fn verify_data_block(&self, blocks: &Blocks, block: usize, walk: &mut Walk) -> Result<()> {
        let (index, view) = (&blocks.index, blocks.index.view(&self.mapping));
        let range = index.block_range(view, block);
        let damaged = |what: String| {
            Err(Error::corruption(
                self.path(),
                range.0,
                format!("data block {block}: {what}"),
            ))
        };
        let stored = self.stored(range)?;
        let trailer = self.verify_block(block, range.0, &stored)?;
        debug_assert!(
            stored_checksum(&stored) == Some(trailer.checksum),
            "the trailer ends with its checksum"
        );
        let padding = usize::from(trailer.padding);
        let content_end = stored.len() - crate::format::BLOCK_TRAILER_BYTES;
        if stored[content_end - padding..content_end]
            .iter()
            .any(|&byte| byte != 0)
        {
            return damaged("padding is not zero".into());
        }
        let content = self.unpack(block, range.0, &stored, trailer)?;
        let header = BlockHeader::parse(&content).map_err(|damage| self.damaged_block(block, damage))?;
        // All keys of the block lie above the separator before, and up to its own.
        let above = block.checked_sub(1).map(|before| index.separator(view, before));
        let up_to = index.separator(view, block);
        // Entries lie one behind the other and fill the content.
        let mut expected_slot = header.entries_start();
        for entry in 0..header.count() {
            let raw = header
                .entry(&content, entry)
                .map_err(|damage| self.damaged_block(block, damage))?;
            if header.uniform_end().is_none() {
                if header.slot(&content, entry) != Some(expected_slot) {
                    return damaged(format!("entry {entry} does not start where the one before ends"));
                }
                expected_slot = raw.value_end;
            }
            let user_key = [&content[header.prefix()], &content[raw.suffix()]].concat();
            let key = InternalKey::new(&user_key, raw.tag);
            if let Some((last, tag)) = &walk.last
                && InternalKey::new(last, *tag) >= key
            {
                return damaged(format!("entry {entry}, {key:?}, is out of order"));
            }
            if walk.last.is_none() && user_key != self.properties.smallest_key {
                return damaged(format!("first key, {key:?}, is not the properties' smallest"));
            }
            let spans = |above: &Vec<u8>| {
                *above < user_key
                    || (*above == user_key && walk.last.as_ref().is_some_and(|last| last.0 == user_key))
            };
            if user_key > up_to || !above.as_ref().is_none_or(spans) {
                return damaged(format!(
                    "entry {entry}, {key:?}, lies outside of the index's separators"
                ));
            }
            let hash = key_hash(&user_key);
            if header
                .fingerprints()
                .is_some_and(|range| content[range][entry] != fingerprint(hash))
            {
                return damaged(format!("entry {entry}, {key:?}, has a wrong fingerprint"));
            }
            if !self.may_contain(hash) {
                return damaged(format!("entry {entry}, {key:?}, is missing in the filter"));
            }
            if walk.last.as_ref().is_none_or(|last| last.0 != user_key) {
                walk.keys += 1;
                if !self.is_indexed(hash, Place::new(block, entry)) {
                    return damaged(format!("entry {entry}, {key:?}, is missing in the hash index"));
                }
            }
            walk.count(&user_key, raw.tag, raw.value().len());
        }
        let used = header.uniform_end().unwrap_or(expected_slot);
        if used != content.len() {
            return damaged(format!("{} bytes after the last entry", content.len() - used));
        }
        Ok(())
    }

    fn verify_totals(&self, walk: &Walk) -> Result<()> {
        let properties = &self.properties;
        let fields = [
            ("entries", walk.entries, properties.entries),
            ("tombstones", walk.tombstones, properties.tombstones),
            ("key bytes", walk.key_bytes, properties.key_bytes),
            ("value bytes", walk.value_bytes, properties.value_bytes),
            ("smallest seqno", walk.seqno_min.0, properties.seqno_min.0),
            ("largest seqno", walk.seqno_max.0, properties.seqno_max.0),
        ];
        let at = self.section_offset(&[SECTION_PROPERTIES]);
        for (name, found, expected) in fields {
            if found != expected {
                let what = format!("table's {name}: found {found}, the properties say {expected}");
                return Err(Error::corruption(self.path(), at, what));
            }
        }
        if walk
            .last
            .as_ref()
            .is_none_or(|last| last.0 != properties.largest_key)
        {
            return Err(Error::corruption(
                self.path(),
                at,
                "last key is not the properties' largest",
            ));
        }
        let has_filter = self.section(&[SECTION_FILTER]).is_some();
        if let Filter::HashIndex(hashed) = self.filter()
            && hashed.words(&self.mapping) != walk.keys
        {
            let what = format!(
                "hash index has {} words, the table has {} keys",
                hashed.words(&self.mapping),
                walk.keys
            );
            return Err(Error::corruption(
                self.path(),
                self.section_offset(&[SECTION_FILTER]),
                what,
            ));
        }
        if has_filter == (properties.filter_kind == 0) {
            return Err(Error::corruption(
                self.path(),
                at,
                "properties and filter section do not agree",
            ));
        }
        Ok(())
    }

    /// Whether a hash index, if there is one, knows that the newest entry of a key with this hash is at `place`.
    fn is_indexed(&self, hash: u64, place: Place) -> bool {
        let Filter::HashIndex(hashed) = self.filter() else {
            return true;
        };
        let mut probe = hashed.probe(hash);
        std::iter::from_fn(|| hashed.next(&mut probe, &self.mapping)).any(|found| found == place)
    }

    fn section_offset(&self, kinds: &[u32]) -> u64 {
        self.section(kinds).map_or(0, |section| section.offset)
    }

    /// Checksums of all sections, known or not; zero bytes between them; the index's inner order. Loads what has not been.
    fn verify_sections(&self) -> Result<&Blocks> {
        self.load()?;
        let (path, blocks) = (self.path(), self.blocks()?);
        let (_, mut end) = blocks.range_of(&self.mapping, blocks.count() - 1);
        for section in &self.sections {
            self.verify_gap(end, section.offset)?;
            end = section.offset + section.len;
            let bytes = self.mapping.read_at(section.offset, to_index(section.len))?;
            let found = checksum(&bytes);
            if found != section.checksum {
                let (kind, expected) = (section.kind, section.checksum);
                let what =
                    format!("section {kind:#010x} has checksum {found:016x}, expected {expected:016x}");
                return Err(Error::corruption(path, section.offset, what));
            }
        }
        self.verify_gap(end, super::open::read_footer(&self.mapping)?.directory_offset)?;
        let view = blocks.index.view(&self.mapping);
        blocks.index.check_separators(view).map_err(|what| {
            let at = self.section_offset(&INDEX_KINDS);
            Error::corruption(path, at, what)
        })?;
        Ok(blocks)
    }

    fn verify_gap(&self, start: u64, end: u64) -> Result<()> {
        if end - start >= SECTION_ALIGN_BYTES {
            return Err(Error::corruption(
                self.path(),
                start,
                format!("{} bytes belong to nothing", end - start),
            ));
        }
        let gap = self.mapping.read_at(start, to_index(end - start))?;
        if let Some(at) = gap.iter().position(|&byte| byte != 0) {
            return Err(Error::corruption(
                self.path(),
                start + at as u64,
                "unused byte is not zero",
            ));
        }
        Ok(())
    }
}

impl Walk {
    fn count(&mut self, user_key: &[u8], tag: Tag, value_len: usize) {
        self.entries += 1;
        self.tombstones += u64::from(tag.is_tombstone());
        self.key_bytes += user_key.len() as u64;
        self.value_bytes += value_len as u64;
        self.seqno_min = self.seqno_min.min(tag.seqno());
        self.seqno_max = self.seqno_max.max(tag.seqno());
        let last = self.last.get_or_insert_with(|| (Vec::new(), tag));
        last.0.clear();
        last.0.extend_from_slice(user_key);
        last.1 = tag;
    }
}
