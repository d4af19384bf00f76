//! All entries of a table, both ways, in place.

use std::fmt;
use std::sync::Arc;

use siltstone_vfs::Result;

use crate::block::{BlockHeader, RawEntry};
use crate::cache::CachedBlock;
use crate::index::block_span;
use crate::{InternalIterator, InternalKey, SeqNo, Tag, ValueKind};

use super::Table;
use super::block_access::Content;

/// Iterates over a table. Steps within a block allocate nothing and read keys and values where they lie; where a
/// block's keys share a prefix, the current key is put together in a buffer that is reused.
pub struct TableIter {
    table: Arc<Table>,
    fill_cache: bool,
    /// The current block's number. Meaningful, as is all that follows, while `valid`.
    block: usize,
    entry: usize,
    header: Option<BlockHeader>,
    source: Source,
    /// The current user key, if the block has a prefix.
    key: Vec<u8>,
    raw: RawEntry,
    valid: bool,
}

/// Where the current block's content is.
enum Source {
    /// In the mapping, between these positions.
    Mapped(usize, usize),
    Cached(CachedBlock),
}

#[inline]
fn content<'a>(table: &'a Table, source: &'a Source) -> &'a [u8] {
    match source {
        Source::Mapped(start, end) => table
            .mapping
            .bytes()
            .and_then(|bytes| bytes.get(*start..*end))
            .unwrap_or_default(),
        Source::Cached(block) => block,
    }
}

impl TableIter {
    pub(super) fn new(table: Arc<Table>) -> TableIter {
        let raw = RawEntry {
            tag: Tag::new(SeqNo::ZERO, ValueKind::Delete),
            suffix_start: 0,
            suffix_end: 0,
            value_start: 0,
            value_end: 0,
        };
        TableIter {
            table,
            fill_cache: true,
            block: 0,
            entry: 0,
            header: None,
            source: Source::Mapped(0, 0),
            key: Vec::new(),
            raw,
            valid: false,
        }
    }

    /// Whether blocks that had to be fetched or decompressed are put into the block cache (the default). A compaction,
    /// which reads each block once, leaves the cache to the readers.
    #[must_use]
    pub fn fill_cache(mut self, fill_cache: bool) -> TableIter {
        self.fill_cache = fill_cache;
        self
    }

    /// The table it reads.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Makes `block` the current block, without an entry yet, and returns its header.
    fn load_block(&mut self, block: usize) -> Result<BlockHeader> {
        if self.valid
            && self.block == block
            && let Some(header) = self.header
        {
            return Ok(header);
        }
        self.valid = false;
        let table = &*self.table;
        let index = table.index.view(&table.mapping);
        self.source = match table.content(index, block, self.fill_cache)? {
            Content::Mapped(bytes) => {
                let start = block_span(table.index.block_range(index, block)).start;
                Source::Mapped(start, start + bytes.len())
            }
            Content::Cached(cached) => Source::Cached(cached),
        };
        let bytes = content(table, &self.source);
        let header = BlockHeader::parse(bytes).map_err(|damage| table.damaged_block(block, damage))?;
        self.key.clear();
        self.key.extend_from_slice(&bytes[header.prefix()]);
        self.block = block;
        self.header = Some(header);
        Ok(header)
    }

    /// Makes `entry` of the current block the current entry.
    #[inline]
    fn load_entry(&mut self, header: BlockHeader, entry: usize) -> Result<()> {
        let bytes = content(&self.table, &self.source);
        match header.entry(bytes, entry) {
            Ok(raw) => {
                let prefix = header.prefix();
                if !prefix.is_empty() {
                    self.key.truncate(prefix.len());
                    self.key.extend_from_slice(&bytes[raw.suffix()]);
                }
                self.raw = raw;
                self.entry = entry;
                self.valid = true;
                Ok(())
            }
            Err(damage) => {
                self.valid = false;
                Err(self.table.damaged_block(self.block, damage))
            }
        }
    }

    fn first_of(&mut self, block: usize) -> Result<()> {
        if block == self.table.index.count() {
            self.valid = false;
            return Ok(());
        }
        let header = self.load_block(block)?;
        self.load_entry(header, 0)
    }

    fn last_of(&mut self, block: usize) -> Result<()> {
        let header = self.load_block(block)?;
        self.load_entry(header, header.count() - 1)
    }
}

impl InternalIterator for TableIter {
    fn seek_to_first(&mut self) -> Result<()> {
        self.first_of(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.last_of(self.table.index.count() - 1)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let mut block = {
            let index = &self.table.index;
            index.find(index.view(&self.table.mapping), target.user_key)
        };
        // More than one round only where versions of the target's key fill whole blocks.
        while block < self.table.index.count() {
            let header = self.load_block(block)?;
            let found = header.lower_bound(content(&self.table, &self.source), target);
            let entry = found.map_err(|damage| {
                self.valid = false;
                self.table.damaged_block(block, damage)
            })?;
            if entry < header.count() {
                return self.load_entry(header, entry);
            }
            self.valid = false;
            block += 1;
        }
        self.valid = false;
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.seek(target)?;
        if !self.valid {
            return self.seek_to_last();
        }
        if self.key() == target { Ok(()) } else { self.prev() }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid, "next requires a valid iterator");
        if let Some(header) = self.header
            && self.entry + 1 < header.count()
        {
            return self.load_entry(header, self.entry + 1);
        }
        self.first_of(self.block + 1)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid, "prev requires a valid iterator");
        if let Some(header) = self.header
            && let Some(entry) = self.entry.checked_sub(1)
        {
            return self.load_entry(header, entry);
        }
        match self.block.checked_sub(1) {
            Some(block) => self.last_of(block),
            None => {
                self.valid = false;
                Ok(())
            }
        }
    }

    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        if self.header.is_some_and(|header| !header.prefix().is_empty()) {
            return &self.key;
        }
        &content(&self.table, &self.source)[self.raw.suffix()]
    }

    #[inline]
    fn tag(&self) -> Tag {
        self.raw.tag
    }

    #[inline]
    fn value(&self) -> &[u8] {
        &content(&self.table, &self.source)[self.raw.value()]
    }
}

impl fmt::Debug for TableIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TableIter");
        out.field("table", &self.table.id);
        if self.valid {
            out.field("key", &self.key());
        }
        out.finish_non_exhaustive()
    }
}
