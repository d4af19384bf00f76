//! All entries of a table, both ways, in place.

use std::fmt;
use std::sync::Arc;

use siltstone_vfs::{CACHE_LINE_BYTES, Result, prefetch, prefetch_range};

use crate::block::{BlockHeader, RawEntry, samples};
use crate::format::BLOCK_TRAILER_BYTES;
use crate::index::block_span;
use crate::iterator::pass_user_key;
use crate::key_buf::{is_same, put_suffix};
use crate::{InternalIterator, InternalKey, SeqNo, Tag, ValueKind};

use super::Table;
use super::blocks::Blocks;
use super::pinned::PinnedBlock;
use super::read_ahead::ReadAhead;

/// Lines at a block's start that a search is sure to look at, or likely: the header, the fingerprints, and the key records of a
/// block of small entries.
const SEARCHED_LINES: usize = 9;

/// Within a record, about the middle of what a search compares.
const KEY_HEAD: usize = 4;

/// Lines at the end of a block that a walk backwards asks for while it is in the block behind: all of a block of 4 KiB.
/// Forwards the processor sees by itself what comes; backwards it does not look beyond a page.
const PRECEDING_LINES: usize = 64;

/// Lines from the value that a seek has found on: its own and those of the next entries.
const FOUND_LINES: usize = 4;

/// Iterates over a table. Steps within a block allocate nothing and read keys and values where they lie; where a
/// block's keys share a prefix, the current key is put together in a buffer that is reused.
pub struct TableIter {
    /// Before what pins the table: it may have the file open.
    ahead: ReadAhead,
    /// The current block's content.
    pinned: PinnedBlock,
    fill_cache: bool,
    /// The current block's number and header. Meaningful while `loaded`.
    block: usize,
    header: BlockHeader,
    loaded: bool,
    /// The current entry. Meaningful, as is all that follows, while `valid`; then the block is loaded.
    entry: usize,
    /// The current user key, if the block has a prefix.
    key: Vec<u8>,
    raw: RawEntry,
    valid: bool,
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
            pinned: PinnedBlock::none(table),
            fill_cache: true,
            ahead: ReadAhead::default(),
            block: 0,
            header: BlockHeader::NONE,
            loaded: false,
            entry: 0,
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
        self.pinned.table()
    }

    /// To the first entry, as [`seek_to_first`](InternalIterator::seek_to_first), where `before` has come to the end of the table
    /// before: what it had learnt of the walk holds on here.
    ///
    /// # Errors
    /// Those of the index and of the first block; the iterator is not valid then.
    pub fn go_on_from(&mut self, before: TableIter) -> Result<()> {
        self.valid = false;
        let TableIter { ahead, pinned, .. } = before;
        self.ahead = ahead.next_table();
        // What the walk has read into can then be read into again.
        drop(pinned);
        let table = self.pinned.table();
        self.ahead.begin(&table.mapping, &table.blocks()?.walked);
        self.first_of(0)
    }

    /// Whether it reads beside the mapping now, and how often it has.
    #[cfg(all(test, target_os = "linux", not(miri)))]
    pub(super) fn fetches(&self) -> (bool, u32) {
        (self.ahead.is_fetching(), self.ahead.piece.reads)
    }

    /// Makes `block` the current block, without an entry yet.
    #[inline]
    fn load_block(&mut self, block: usize) -> Result<()> {
        self.valid = false;
        if self.loaded && self.block == block {
            return Ok(());
        }
        self.loaded = false;
        self.pinned.load(block, self.fill_cache, &mut self.ahead)?;
        let bytes = self.pinned.bytes();
        self.header =
            BlockHeader::parse(bytes).map_err(|damage| self.pinned.table().damaged_block(block, damage))?;
        self.key.clear();
        self.key.extend_from_slice(&bytes[self.header.prefix()]);
        self.block = block;
        self.loaded = true;
        Ok(())
    }

    /// Decodes entry `entry` of the current block.
    #[inline]
    fn entry(&self, entry: usize) -> Result<RawEntry> {
        self.header
            .entry(self.pinned.bytes(), entry)
            .map_err(|damage| self.pinned.table().damaged_block(self.block, damage))
    }

    /// Makes `entry` of the current block the current entry.
    #[inline]
    fn load_entry(&mut self, entry: usize) -> Result<()> {
        self.valid = false;
        let raw = self.entry(entry)?;
        self.stand_on(entry, raw);
        Ok(())
    }

    #[inline]
    fn stand_on(&mut self, entry: usize, raw: RawEntry) {
        let prefix_len = self.header.prefix().len();
        if prefix_len > 0 {
            put_suffix(&mut self.key, prefix_len, &self.pinned.bytes()[raw.suffix()]);
        }
        self.raw = raw;
        self.entry = entry;
        self.valid = true;
    }

    /// Whether entry `other` of the current block has the current user key.
    #[inline]
    fn has_current_key(&self, other: usize) -> Result<bool> {
        let bytes = self.pinned.bytes();
        match self.header.suffix(bytes, other) {
            Ok(suffix) => Ok(is_same(&bytes[suffix], &bytes[self.raw.suffix()])),
            Err(damage) => Err(self.pinned.table().damaged_block(self.block, damage)),
        }
    }

    #[inline(never)]
    fn first_of(&mut self, block: usize) -> Result<()> {
        self.valid = false;
        let table = self.pinned.table();
        let blocks = table.blocks()?;
        if block == blocks.count() {
            return Ok(());
        }
        let range = blocks.range_of(&table.mapping, block);
        self.ahead.forwards(&table.mapping, &blocks.walked, range);
        self.load_block(block)?;
        // A walk that has come here will get there.
        if !self.ahead.is_fetching() {
            let table = self.pinned.table();
            table.prefetch_block(table.blocks()?, block + 1, SEARCHED_LINES);
        }
        self.load_entry(0)
    }

    #[inline(never)]
    fn last_of(&mut self, block: usize) -> Result<()> {
        let table = self.pinned.table();
        let range = table.blocks()?.range_of(&table.mapping, block);
        self.ahead.backwards(&table.mapping, range);
        self.load_block(block)?;
        if let Some(before) = block.checked_sub(1) {
            let table = self.pinned.table();
            let blocks = table.blocks()?;
            table.prefetch_block(blocks, before, SEARCHED_LINES);
            table.prefetch_block_end(blocks, before, PRECEDING_LINES);
        }
        self.load_entry(self.header.count() - 1)
    }
}

impl Table {
    /// The block that a seek to `user_key` begins with, which it starts to load.
    #[inline]
    fn find_block(&self, blocks: &Blocks, user_key: &[u8]) -> usize {
        let block = blocks.index.find(blocks.index.view(&self.mapping), user_key);
        self.prefetch_search(blocks, block);
        block
    }

    /// Starts to load what a search in block `block` will look at first: if it looks like most, the entries that the search
    /// begins with, wherever they lie.
    #[inline]
    fn prefetch_search(&self, blocks: &Blocks, block: usize) {
        let Some(records) = self.filter().records() else {
            return self.prefetch_block(blocks, block, SEARCHED_LINES);
        };
        self.prefetch_block(blocks, block, 1);
        if let Some(bytes) = self.mapping.bytes()
            && block < blocks.count()
        {
            let span = block_span(blocks.range_of(&self.mapping, block));
            let first = span.start + usize::from(records.keys_start);
            let stride = usize::from(records.key_stride);
            let count = (span.end - BLOCK_TRAILER_BYTES).saturating_sub(first) / stride;
            for entry in samples(count) {
                prefetch(bytes, first + entry * stride + KEY_HEAD);
            }
        }
    }

    /// Starts to load what a seek to `user_key` will search. Where several tables are to be sought, the waits for
    /// memory then overlap.
    #[inline]
    pub fn prefetch_seek(&self, user_key: &[u8]) {
        if let Some(blocks) = self.loaded_blocks() {
            self.find_block(blocks, user_key);
        }
    }

    /// Starts to load the last lines of block `block`.
    #[inline]
    fn prefetch_block_end(&self, blocks: &Blocks, block: usize, lines: usize) {
        if let Some(bytes) = self.mapping.bytes()
            && !self.compressed
        {
            let span = block_span(blocks.range_of(&self.mapping, block));
            let start = span.start.max(span.end.saturating_sub(lines * CACHE_LINE_BYTES));
            prefetch_range(bytes, start, span.end - start, lines);
        }
    }

    /// Starts to load the first lines of block `block`, if there is one and it can be read in place.
    #[inline]
    fn prefetch_block(&self, blocks: &Blocks, block: usize, lines: usize) {
        if let Some(bytes) = self.mapping.bytes()
            && !self.compressed
            && block < blocks.count()
        {
            let span = block_span(blocks.range_of(&self.mapping, block));
            prefetch_range(bytes, span.start, span.len(), lines);
        }
    }
}

impl InternalIterator for TableIter {
    fn seek_to_first(&mut self) -> Result<()> {
        self.first_of(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.valid = false;
        let last = self.table().blocks()?.count() - 1;
        self.last_of(last)
    }

    #[inline]
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        self.table().prefetch_seek(target.user_key);
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.valid = false;
        let table = self.table();
        let blocks = table.blocks()?;
        let (mut block, count) = (table.find_block(blocks, target.user_key), blocks.count());
        // More than one round only where versions of the target's key fill whole blocks.
        while block < count {
            self.load_block(block)?;
            let bytes = self.pinned.bytes();
            let entry = self
                .header
                .lower_bound(bytes, target)
                .map_err(|damage| self.pinned.table().damaged_block(block, damage))?;
            if entry < self.header.count() {
                self.load_entry(entry)?;
                let bytes = self.pinned.bytes();
                prefetch_range(
                    bytes,
                    self.raw.value_start,
                    bytes.len() - self.raw.value_start,
                    FOUND_LINES,
                );
                return Ok(());
            }
            block += 1;
        }
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
        if self.entry + 1 < self.header.count() {
            return self.load_entry(self.entry + 1);
        }
        self.first_of(self.block + 1)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid, "prev requires a valid iterator");
        if let Some(entry) = self.entry.checked_sub(1) {
            return self.load_entry(entry);
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
    fn next_user_key(&mut self, scratch: &mut Vec<u8>) -> Result<()> {
        // Where the next entry is in the same block, nothing need be copied to be compared with it.
        let next = self.entry + 1;
        if next < self.header.count() && !self.has_current_key(next).inspect_err(|_| self.valid = false)? {
            return self.load_entry(next);
        }
        pass_user_key(self, scratch)
    }

    #[inline]
    fn begins_user_key(&self) -> bool {
        // Damage is for the step that meets it to report.
        let differs = |before| self.has_current_key(before).is_ok_and(|same| !same);
        self.entry.checked_sub(1).is_some_and(differs)
    }

    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        if self.header.prefix().is_empty() {
            &self.pinned.bytes()[self.raw.suffix()]
        } else {
            &self.key
        }
    }

    #[inline]
    fn tag(&self) -> Tag {
        self.raw.tag
    }

    #[inline]
    fn value(&self) -> &[u8] {
        &self.pinned.bytes()[self.raw.value()]
    }
}

impl fmt::Debug for TableIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("TableIter");
        out.field("table", &self.table().id);
        if self.valid {
            out.field("key", &self.key());
        }
        out.finish_non_exhaustive()
    }
}
