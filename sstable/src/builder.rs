//! From sorted entries to a table file, in bounded memory.

mod output;

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use siltstone_vfs::{Error, Result, WriteFile};
use xxhash_rust::xxh3::Xxh3;

use crate::block::{BlockBuilder, encode_lone_head, lone_content_len};
use crate::filter::{FilterBuilder, Place};
use crate::format::{
    BLOCK_TRAILER_BYTES, BlockTrailer, CONTENT_BYTES_MAX, FORMAT_VERSION, Footer, PAD_BYTES_MAX, PAGE_BYTES,
    SECTION_ALIGN_BYTES, SECTION_FILTER, SECTION_PROPERTIES, Section, checksum, index, u32_len,
};
use crate::index::{IndexBuilder, separator};
use crate::{
    Compression, InternalKey, KeyBuf, Properties, SeqNo, TableId, TableOptions, Tag, check_entry_size,
    key_hash,
};

use output::{Compressor, Output};

const TRAILER: u64 = BLOCK_TRAILER_BYTES as u64;

/// Writes one table.
///
/// Holds one block, the index so far and up to 24 bytes a distinct key; entries go out in chunks of 2 MiB. After an error
/// the file is useless and every further call reports that error. Dropping a builder leaves a partial file, which no
/// reader accepts.
pub struct TableBuilder {
    output: Output,
    path: PathBuf,
    id: TableId,
    options: TableOptions,
    /// What made the builder unusable.
    failed: Option<Error>,
    block: BlockBuilder,
    /// Where the block in `block` must end, trailer included; set for its first entry, and 0 while there is none, for which there
    /// is no room then. In a compressed table this counts from the block's start, elsewhere from the file's.
    block_end: u64,
    /// The block that is written except for its padding and trailer.
    open_block: Option<OpenBlock>,
    /// Of the open block's bytes.
    hasher: Box<Xxh3>,
    /// What [`size_bytes`](Self::size_bytes) was when the last block was complete.
    size_to_last_block: u64,
    /// The last complete block waits for its separator, which needs the next key.
    separator_due: bool,
    index: IndexBuilder,
    filter: FilterBuilder,
    compressor: Option<Compressor>,
    content: Vec<u8>,
    scratch: Vec<u8>,
    last_key: KeyBuf,
    last_tag: Option<Tag>,
    totals: Properties,
}

struct OpenBlock {
    compression: u8,
    raw_len: u32,
}

/// What a finished table holds: enough to describe it in a manifest without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// The file's length.
    pub size_bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Entries that are tombstones.
    pub tombstones: u64,
    /// The first user key.
    pub smallest_key: Vec<u8>,
    /// The last user key.
    pub largest_key: Vec<u8>,
    /// The smallest seqno of an entry.
    pub seqno_min: SeqNo,
    /// The largest seqno of an entry.
    pub seqno_max: SeqNo,
    /// Bytes of all user keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Bytes of the data blocks in the file.
    pub data_bytes: u64,
    /// Bytes of the index section.
    pub index_bytes: u64,
    /// Bytes of the filter section.
    pub filter_bytes: u64,
}

impl TableBuilder {
    /// Builds into `file`, which is empty. `path` is for error messages. Options that are out of range are reported by
    /// the first [`add`](Self::add).
    pub fn new(file: Box<dyn WriteFile>, path: &Path, options: TableOptions) -> Self {
        let filter = FilterBuilder::new(options.filter, options.compression != Compression::None);
        Self {
            output: Output::new(file),
            path: path.to_owned(),
            id: TableId::default(),
            options,
            failed: options.validate().err(),
            block: BlockBuilder::new(filter.fingerprints_below()),
            block_end: 0,
            open_block: None,
            hasher: Box::new(Xxh3::new()),
            size_to_last_block: 0,
            separator_due: false,
            index: IndexBuilder::default(),
            filter,
            compressor: None,
            content: Vec::new(),
            scratch: Vec::new(),
            last_key: KeyBuf::default(),
            last_tag: None,
            totals: Properties {
                entries: 0,
                tombstones: 0,
                key_bytes: 0,
                value_bytes: 0,
                data_blocks: 0,
                smallest_key: Vec::new(),
                largest_key: Vec::new(),
                seqno_min: SeqNo::MAX,
                seqno_max: SeqNo::ZERO,
                compression: options.compression.number(),
                filter_kind: 0,
                block_size_bytes: options.block_size_bytes as u64,
                creator: Properties::this_creator(),
                format_version: FORMAT_VERSION,
            },
        }
    }

    /// Writes the table's number into it: a reader that opens the file as another table is then refused. Without, any
    /// number opens it.
    pub fn with_id(mut self, id: TableId) -> Self {
        self.id = id;
        self
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `InvalidInput` where the entry does not sort after the last one or is over a size limit (the builder stays
    /// usable), or where the options are out of range; `Io` and `NoSpace` from the file.
    pub fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        check_entry_size(key.user_key, value)?;
        let new_key = self.check_order(key)?;
        let added = self.place(key, value, new_key);
        if let Err(error) = &added {
            self.failed = Some(error.clone());
        }
        added
    }

    /// Hashes of the distinct keys added so far ([`key_hash`]), in key order; none where the table has no filter.
    pub fn key_hashes(&self) -> impl Iterator<Item = u64> + Clone {
        self.filter.key_hashes()
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.totals.entries
    }

    /// About how long the file would be if it were finished now: compression of the last block is not foreseen, nor what index and
    /// filter will hold of it.
    #[inline]
    pub fn size_bytes(&self) -> u64 {
        self.size_to_last_block + self.block.content_len() as u64
    }

    /// Notes how long the file would be if it ended with the last complete block.
    fn measure(&mut self) {
        let keys = self.totals.smallest_key.len() + self.last_key.as_slice().len();
        self.size_to_last_block = self.output.offset()
            + self.index.size_bytes()
            + self.filter.size_bytes(self.totals.entries, self.entry_bytes())
            + (keys + 256) as u64;
    }

    /// Writes what is left and syncs the file; its directory is the caller's business.
    ///
    /// # Errors
    /// `InvalidInput` without entries; `Io` and `NoSpace`.
    pub fn finish(mut self) -> Result<TableSummary> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.totals.entries == 0 {
            return Err(Error::invalid("a table needs at least one entry").with_path(&self.path));
        }
        self.cut()?;
        self.settle(0)?;
        self.push_separator(None);
        let data_end = self.output.offset();
        self.totals.data_blocks = self.index.blocks() as u64;
        self.totals.largest_key = self.last_key.as_slice().to_vec();

        let mut sections = Vec::new();
        let (kind, index_section) = std::mem::take(&mut self.index).finish(data_end)?;
        self.write_section(kind, &index_section, &mut sections)?;
        let entry_bytes = self.entry_bytes();
        let filter = std::mem::take(&mut self.filter).finish(self.totals.entries, entry_bytes);
        if let Some(filter) = &filter {
            self.totals.filter_kind = filter[0];
            self.write_section(SECTION_FILTER, filter, &mut sections)?;
        }
        let properties = self.totals.encode()?;
        self.write_section(SECTION_PROPERTIES, &properties, &mut sections)?;
        let size_bytes = self.write_footer(&sections)?;
        self.output.finish()?;

        let totals = self.totals;
        Ok(TableSummary {
            size_bytes,
            entries: totals.entries,
            tombstones: totals.tombstones,
            smallest_key: totals.smallest_key,
            largest_key: totals.largest_key,
            seqno_min: totals.seqno_min,
            seqno_max: totals.seqno_max,
            key_bytes: totals.key_bytes,
            value_bytes: totals.value_bytes,
            data_blocks: totals.data_blocks,
            data_bytes: data_end,
            index_bytes: index_section.len() as u64,
            filter_bytes: filter.map_or(0, |filter| filter.len() as u64),
        })
    }

    /// Whether the entry is the first one of its user key.
    fn check_order(&self, key: InternalKey<'_>) -> Result<bool> {
        let Some(last_tag) = self.last_tag else {
            return Ok(true);
        };
        match self.last_key.order_of(key.user_key) {
            Ordering::Greater => Ok(true),
            Ordering::Equal if key.tag < last_tag => Ok(false),
            _ => {
                let last = InternalKey::new(self.last_key.as_slice(), last_tag);
                let what = format!("entry {key:?} does not sort after {last:?}");
                Err(Error::invalid(what).with_path(&self.path))
            }
        }
    }

    fn place(&mut self, key: InternalKey<'_>, value: &[u8], new_key: bool) -> Result<()> {
        let hash = key_hash(key.user_key);
        let alone = self.is_alone(key, value);
        let place = if alone {
            self.cut()?;
            self.push_separator(Some(key.user_key));
            let place = Place::new(self.index.blocks(), 0);
            self.write_alone(key, value)?;
            place
        } else {
            let room = self.block_end.saturating_sub(self.block_start() + TRAILER);
            if !self.block.push_within(index(room), key, hash, value) {
                self.cut()?;
                self.push_separator(Some(key.user_key));
                self.begin_block(self.stored_alone_len(key, value))?;
                self.block.push(key, hash, value);
            }
            Place::new(self.index.blocks(), self.block.count() - 1)
        };
        if new_key {
            self.filter.push(hash, place);
        }
        self.count(key, value);
        if alone {
            self.measure();
        }
        Ok(())
    }

    /// How long a block of this entry only is in the file, uncompressed.
    fn stored_alone_len(&self, key: InternalKey<'_>, value: &[u8]) -> u64 {
        lone_content_len(key, value.len()) as u64 + TRAILER
    }

    /// Whether the entry is too long for a block that others share.
    #[inline]
    fn is_alone(&self, key: InternalKey<'_>, value: &[u8]) -> bool {
        let block_size_bytes = self.options.block_size_bytes;
        // Most are not, by far.
        key.user_key.len() + value.len() > block_size_bytes / 2
            && self.stored_alone_len(key, value) > block_size_bytes as u64
    }

    #[inline]
    fn count(&mut self, key: InternalKey<'_>, value: &[u8]) {
        let totals = &mut self.totals;
        if totals.entries == 0 {
            totals.smallest_key = key.user_key.to_vec();
        }
        totals.entries += 1;
        totals.tombstones += u64::from(key.tag.is_tombstone());
        totals.key_bytes += key.user_key.len() as u64;
        totals.value_bytes += value.len() as u64;
        totals.seqno_min = totals.seqno_min.min(key.tag.seqno());
        totals.seqno_max = totals.seqno_max.max(key.tag.seqno());
        self.last_key.set(key.user_key);
        self.last_tag = Some(key.tag);
    }

    fn entry_bytes(&self) -> u64 {
        self.totals.key_bytes + self.totals.value_bytes
    }

    fn compressed(&self) -> bool {
        self.options.compression != Compression::None
    }

    /// Where the unfinished block starts, in the terms of `block_end`.
    fn block_start(&self) -> u64 {
        if self.compressed() {
            0
        } else {
            self.output.offset()
        }
    }

    /// Decides where the new block starts and how far it may go. Compressed blocks are placed when their size is known.
    fn begin_block(&mut self, first_len: u64) -> Result<()> {
        let size = self.options.block_size_bytes as u64;
        if self.compressed() {
            self.block_end = size;
            return Ok(());
        }
        self.settle(first_len)?;
        let start = self.output.offset();
        let (first_end, end) = (start + first_len, start + size);
        let page_end = end - end % PAGE_BYTES;
        // An entry that crosses a page end, and has to, draws no others with it: who reads those would wait for two pages.
        let first_crosses = start / PAGE_BYTES != (first_end - 1) / PAGE_BYTES;
        self.block_end = if first_end <= page_end {
            page_end
        } else if first_crosses {
            first_end
        } else {
            end
        };
        Ok(())
    }

    /// Writes the block in `block`, if there is one.
    fn cut(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.block_end = 0;
        if let Some(typical) = self.block.typical() {
            self.filter.note_block(typical);
        }
        let mut content = std::mem::take(&mut self.content);
        self.block.encode(&mut content);
        let raw_len = u32_len(content.len());
        let mut stored = std::mem::take(&mut self.scratch);
        let compressed = match self.compressor()? {
            Some(compressor) => compressor.compress(&[&content], &mut stored)?,
            None => false,
        };
        let bytes = if compressed { &stored } else { &content };
        self.write_block(&[bytes], raw_len, compressed)?;
        self.content = content;
        self.scratch = stored;
        self.measure();
        Ok(())
    }

    /// Writes a block of one entry straight from the caller's value.
    fn write_alone(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        let head = encode_lone_head(key, value.len());
        debug_assert_eq!(
            (head.len() + value.len()) as u64 + TRAILER,
            self.stored_alone_len(key, value),
            "a lone block's length is exact"
        );
        debug_assert!(
            head.len() + value.len() <= CONTENT_BYTES_MAX,
            "the limits on keys and values bound a block"
        );
        let raw_len = u32_len(head.len() + value.len());
        let mut stored = std::mem::take(&mut self.scratch);
        let compressed = match self.compressor()? {
            Some(compressor) => compressor.compress(&[&head, value], &mut stored)?,
            None => false,
        };
        if compressed {
            self.write_block(&[&stored], raw_len, true)?;
        } else {
            self.write_block(&[&head, value], raw_len, false)?;
        }
        // A huge buffer is not kept for the blocks to come.
        if stored.capacity() <= TableOptions::BLOCK_SIZE_BYTES_MAX {
            self.scratch = stored;
        }
        Ok(())
    }

    fn compressor(&mut self) -> Result<Option<&mut Compressor>> {
        let Compression::Zstd { level } = self.options.compression else {
            return Ok(None);
        };
        if self.compressor.is_none() {
            self.compressor = Some(Compressor::new(level, &self.path)?);
        }
        Ok(self.compressor.as_mut())
    }

    fn write_block(&mut self, parts: &[&[u8]], raw_len: u32, compressed: bool) -> Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.settle(len as u64 + TRAILER)?;
        self.index.push_offset(self.output.offset());
        self.hasher.reset();
        for part in parts {
            self.hasher.update(part);
            self.output.append(part)?;
        }
        let compression = if compressed {
            self.options.compression.number()
        } else {
            0
        };
        self.open_block = Some(OpenBlock { compression, raw_len });
        self.separator_due = true;
        Ok(())
    }

    /// Writes padding and trailer of the last block, now that the length of the next one is known, or 0 where none comes: if
    /// that would straddle a page end, or be a stub before it, and little of the page is left, it starts on the next page.
    fn settle(&mut self, next_len: u64) -> Result<()> {
        let Some(open) = self.open_block.take() else {
            return Ok(());
        };
        let end = self.output.offset() + TRAILER;
        let room = end.next_multiple_of(PAGE_BYTES) - end;
        let straddles = next_len > room;
        let stub = next_len > 0 && !self.compressed() && room <= self.options.block_size_bytes as u64 / 8;
        let padding = if room <= PAD_BYTES_MAX && (straddles || stub) {
            room
        } else {
            0
        };
        let zeros = &[0; index(PAD_BYTES_MAX)][..index(padding)];
        let mut trailer = BlockTrailer {
            compression: open.compression,
            padding: u16::try_from(padding).expect("padding is less than a page"),
            raw_len: open.raw_len,
            checksum: 0,
        };
        self.hasher.update(zeros);
        self.hasher.update(&trailer.encode_head());
        trailer.checksum = self.hasher.digest();
        self.output.append(zeros)?;
        self.output.append(&trailer.encode_head())?;
        self.output.append(&trailer.checksum.to_le_bytes())
    }

    fn push_separator(&mut self, next: Option<&[u8]>) {
        if std::mem::take(&mut self.separator_due) {
            let chosen = separator(self.last_key.as_slice(), next, &mut self.scratch);
            self.index.push_separator(chosen);
        }
    }

    fn write_section(&mut self, kind: u32, bytes: &[u8], sections: &mut Vec<Section>) -> Result<()> {
        let end = self.output.offset();
        let gap = end.next_multiple_of(SECTION_ALIGN_BYTES) - end;
        self.output
            .append(&[0; index(SECTION_ALIGN_BYTES)][..index(gap)])?;
        let offset = self.output.offset();
        sections.push(Section {
            kind,
            offset,
            len: bytes.len() as u64,
            checksum: checksum(bytes),
        });
        self.output.append(bytes)
    }

    fn write_footer(&mut self, sections: &[Section]) -> Result<u64> {
        let mut directory = Vec::new();
        for section in sections {
            section.encode(&mut directory);
        }
        let directory_offset = self.output.offset();
        self.output.append(&directory)?;
        let file_len = self.output.offset() + crate::format::FOOTER_BYTES as u64;
        let footer = Footer {
            directory_offset,
            directory_len: directory.len() as u64,
            directory_checksum: checksum(&directory),
            file_len,
            table_id: self.id.0,
        };
        self.output.append(&footer.encode())?;
        Ok(file_len)
    }
}

impl std::fmt::Debug for TableBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableBuilder")
            .field("path", &self.path)
            .field("entries", &self.entries())
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
