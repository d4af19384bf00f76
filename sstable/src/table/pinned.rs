#![allow(unsafe_code)] // Holds a block's bytes beside what keeps them in memory, which the borrow checker cannot see.

//! A block's content, found once and kept: an iterator's steps go straight to the bytes.

use std::ptr;
use std::sync::Arc;

use siltstone_vfs::Result;

use super::Table;
use super::block_access::Content;
use crate::cache::CachedBlock;

/// The content of one block, with what it lies in.
pub(super) struct PinnedBlock {
    table: Arc<Table>,
    /// Where the block was decompressed or fetched.
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
    pub(super) fn load(
        &mut self,
        block: usize,
        fill_cache: bool,
        is_asked_for: impl FnOnce((u64, u64)) -> bool,
    ) -> Result<()> {
        self.bytes = ptr::slice_from_raw_parts(ptr::dangling(), 0);
        let table = &*self.table;
        match table.content(table.blocks()?, block, fill_cache, is_asked_for)? {
            Content::Mapped(bytes) => self.bytes = bytes,
            Content::Cached(block) => self.bytes = &raw const **self.cached.insert(block),
        }
        Ok(())
    }

    /// The content.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` is empty, or lies in the table's mapping, or in `cached`. A table gives its mapping up only
        // by value, so not while `self.table` is a share of it; `cached` is replaced only together with `bytes`, by
        // `load`, which has `self` to itself. Neither ever changes its bytes or moves them: a table file is immutable
        // while it is mapped, and a cached block is an `Arc<[u8]>`. The borrow ends with that of `self`.
        unsafe { &*self.bytes }
    }
}
