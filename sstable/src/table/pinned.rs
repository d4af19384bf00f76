#![allow(unsafe_code)] // Holds a block's bytes beside what keeps them in memory, which the borrow checker cannot see.

//! A block's content, found once and kept: an iterator's steps go straight to the bytes.

use std::ptr;
use std::sync::Arc;

use siltstone_vfs::Result;

use super::Table;
use super::block_access::Content;
use super::read_ahead::ReadAhead;
use crate::cache::CachedBlock;

/// The content of one block, with what it lies in.
pub(super) struct PinnedBlock {
    table: Arc<Table>,
    /// Where the block was decompressed or fetched, or what has been read beside the mapping for a walk.
    cached: Option<CachedBlock>,
    bytes: *const [u8],
}

// SAFETY: the bytes are never written while they are pinned, and both owners are `Send` and `Sync`; they go wherever
// the pointer goes.
unsafe impl Send for PinnedBlock {}
// SAFETY: as above; nothing can be changed through a shared reference.
unsafe impl Sync for PinnedBlock {}

impl PinnedBlock {
    /// No bytes yet.
    pub(super) fn none(table: Arc<Table>) -> PinnedBlock {
        PinnedBlock {
            table,
            cached: None,
            bytes: ptr::slice_from_raw_parts(ptr::dangling(), 0),
        }
    }

    /// The table that blocks are taken from.
    #[inline]
    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Takes the content of block `block`, verified. After an error there are no bytes.
    #[inline]
    pub(super) fn load(&mut self, block: usize, fill_cache: bool, ahead: &mut ReadAhead) -> Result<()> {
        self.bytes = ptr::slice_from_raw_parts(ptr::dangling(), 0);
        if ahead.is_fetching() && self.load_fetched(block, fill_cache, ahead)? {
            return Ok(());
        }
        let table = &*self.table;
        match table.content(table.blocks()?, block, fill_cache, |range| {
            ahead.has_asked_for(range)
        })? {
            Content::Mapped(bytes) => self.bytes = bytes,
            Content::Cached(block) => self.bytes = &raw const **self.cached.insert(block),
        }
        Ok(())
    }

    /// Takes a block of which the walk knows where it is beside the mapping. False if it does not know.
    fn load_fetched(&mut self, block: usize, fill_cache: bool, ahead: &mut ReadAhead) -> Result<bool> {
        // What the last block was in can be read into again.
        self.cached = None;
        let table = &*self.table;
        let blocks = table.blocks()?;
        let range = blocks.range_of(&table.mapping, block);
        let Some(fetched) = ahead.fetched(&table.mapping, range)? else {
            return Ok(false);
        };
        let (owner, content) = table.content_of(&fetched, blocks, block, fill_cache)?;
        self.bytes = &raw const self.cached.insert(owner)[content];
        Ok(true)
    }

    /// The content.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` is empty, or lies in the table's mapping, or in `cached`. A table gives its mapping up only
        // by value, so not while `self.table` is a share of it; `cached` is replaced only together with `bytes`, by
        // `load`, which has `self` to itself. Neither ever changes its bytes or moves them: a table file is immutable
        // while it is mapped, and `cached` is an `Arc<[u8]>`, which nobody writes who shares it. The borrow ends with that of `self`.
        unsafe { &*self.bytes }
    }
}
