//! From a block's number to its content, verified once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use siltstone_vfs::{Advice, Error, Result};

use crate::block::BlockDamage;
use crate::cache::CachedBlock;
use crate::format::{
    BLOCK_TRAILER_BYTES, BlockTrailer, CONTENT_BYTES_MAX, PAGE_BYTES, ZSTD_EXPANSION_MAX, checksum, u64_at,
};
use crate::index::block_span;
use crate::options::unknown;

use super::Table;
use super::blocks::Blocks;
use super::piece::Fetched;

/// A block's content.
pub(super) enum Content<'t> {
    /// In the mapping. Padding may follow the content proper.
    Mapped(&'t [u8]),
    Cached(CachedBlock),
}

impl Content<'_> {
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Mapped(bytes) => bytes,
            Content::Cached(block) => block,
        }
    }
}

impl Table {
    /// The content of block `block`, which must be below the count of `blocks`, the table's. Blocks that had to be fetched or
    /// decompressed go into the cache if `fill_cache`. `is_asked_for` says whether a place in the file is on its way from
    /// the disk already.
    #[inline]
    pub(super) fn content(
        &self,
        blocks: &Blocks,
        block: usize,
        fill_cache: bool,
        is_asked_for: impl FnOnce((u64, u64)) -> bool,
    ) -> Result<Content<'_>> {
        let range = blocks.range_of(&self.mapping, block);
        if let Some(bytes) = self.mapping.bytes()
            && !self.compressed
            && let Some(stored) = bytes.get(block_span(range))
            && let Some((content, _)) = stored.split_last_chunk::<BLOCK_TRAILER_BYTES>()
        {
            if !blocks.is_verified(block) {
                self.verify_first(blocks, block, range, stored, is_asked_for(range))?;
            }
            return Ok(Content::Mapped(content));
        }
        self.content_elsewhere(blocks, range, block, fill_cache, is_asked_for(range))
    }

    /// Blocks of compressed tables, and of tables that are not mapped.
    fn content_elsewhere(
        &self,
        blocks: &Blocks,
        range: (u64, u64),
        block: usize,
        fill_cache: bool,
        is_asked_for: bool,
    ) -> Result<Content<'_>> {
        if let Some(bytes) = self.mapping.bytes() {
            let stored = bytes.get(block_span(range)).unwrap_or_default();
            let trailer = BlockTrailer::decode(stored);
            if trailer.is_some_and(|trailer| trailer.compression == 0) {
                if !blocks.is_verified(block) {
                    self.verify_first(blocks, block, range, stored, is_asked_for)?;
                }
                let content = stored.len().saturating_sub(BLOCK_TRAILER_BYTES);
                return Ok(Content::Mapped(&stored[..content]));
            }
        }
        if let Some(content) = self.cache.get(self.id, block) {
            return Ok(Content::Cached(content));
        }
        let stored = self.stored(range)?;
        let content = self.unpacked(block, range.0, &stored, fill_cache)?;
        Ok(Content::Cached(content))
    }

    /// The content of a stored block, on the heap.
    fn unpacked(&self, block: usize, offset: u64, stored: &[u8], fill_cache: bool) -> Result<CachedBlock> {
        let trailer = self.verify_block(block, offset, stored)?;
        let content = self.unpack(block, offset, stored, trailer)?;
        if fill_cache {
            self.cache.insert(self.id, block, Arc::clone(&content));
        }
        Ok(content)
    }

    /// The content of block `block` of a mapped table, which has been read beside the mapping: what it lies in, and where.
    pub(super) fn content_of(
        &self,
        fetched: &Fetched<'_>,
        blocks: &Blocks,
        block: usize,
        fill_cache: bool,
    ) -> Result<(CachedBlock, Range<usize>)> {
        let Fetched { piece, block: place } = fetched;
        let stored = &piece[place.clone()];
        let offset = blocks.range_of(&self.mapping, block).0;
        let is_packed =
            self.compressed && BlockTrailer::decode(stored).is_none_or(|trailer| trailer.compression != 0);
        if !is_packed {
            if !blocks.is_verified(block) {
                self.verify_block(block, offset, stored)?;
                blocks.set_verified(block);
            }
            let content_bytes = stored.len().saturating_sub(BLOCK_TRAILER_BYTES);
            return Ok((Arc::clone(piece), place.start..place.start + content_bytes));
        }
        let content = match self.cache.get(self.id, block) {
            Some(content) => content,
            None => self.unpacked(block, offset, stored, fill_cache)?,
        };
        let whole = 0..content.len();
        Ok((content, whole))
    }

    /// A block as it is in the file, its trailer included.
    pub(super) fn stored(&self, range: (u64, u64)) -> Result<Cow<'_, [u8]>> {
        let span = block_span(range);
        let stored = self.mapping.read_at(range.0, span.len())?;
        if stored.len() != span.len() {
            let what = format!(
                "data block could be read for {} of {} bytes",
                stored.len(),
                span.len()
            );
            return Err(Error::corruption(self.path(), range.0, what));
        }
        Ok(stored)
    }

    /// Verifies a block that is touched for the first time, and so may have to come from the disk: all its pages at
    /// once, not one after the other.
    #[cold]
    fn verify_first(
        &self,
        blocks: &Blocks,
        block: usize,
        range: (u64, u64),
        stored: &[u8],
        is_asked_for: bool,
    ) -> Result<()> {
        let (offset, len) = (range.0, range.1 - range.0);
        if !is_asked_for {
            // Advice makes it faster, never right or wrong.
            let _ = self.mapping.advise(Advice::WillNeed { offset, len });
        }
        self.verify_block(block, offset, stored)?;
        blocks.set_verified(block);
        Ok(())
    }

    /// Verifies checksum and trailer of a block at `offset`.
    #[cold]
    pub(super) fn verify_block(&self, block: usize, offset: u64, stored: &[u8]) -> Result<BlockTrailer> {
        let damaged = |what: String| {
            Err(
                Error::corruption(self.path(), offset, format!("data block {block} {what}"))
                    .with_advice("restore the file from a copy, or compact the key range away"),
            )
        };
        let Some((body, sum)) = stored.split_last_chunk::<8>() else {
            return damaged(format!("has {} bytes only", stored.len()));
        };
        let (expected, found) = (u64::from_le_bytes(*sum), checksum(body));
        if expected != found {
            return damaged(format!(
                "of {} bytes has checksum {found:016x}, expected {expected:016x}",
                stored.len()
            ));
        }
        let Some(trailer) = BlockTrailer::decode(stored) else {
            return damaged("has a trailer with a reserved byte that is not zero".into());
        };
        let room = (stored.len() - BLOCK_TRAILER_BYTES) as u64;
        let raw_len = trailer.raw_len as usize;
        let padding = u64::from(trailer.padding);
        if padding >= PAGE_BYTES || padding > room {
            return damaged(format!("has {padding} bytes of padding in {room}"));
        }
        let content_len = crate::format::index(room - padding);
        match trailer.compression {
            0 if raw_len != content_len => damaged(format!(
                "has {content_len} bytes of content, its trailer says {raw_len}"
            )),
            1 if !self.compressed => damaged("is compressed in a table that says it is not".into()),
            0 | 1 if raw_len > CONTENT_BYTES_MAX || raw_len / ZSTD_EXPANSION_MAX > content_len => damaged(
                format!("of {content_len} bytes claims {raw_len} bytes of content"),
            ),
            0 | 1 => Ok(trailer),
            other => Err(unknown("compression", other)
                .with_path(self.path())
                .with_offset(offset)),
        }
    }

    /// The content of a block that `verify_block` has passed, on the heap.
    pub(super) fn unpack(
        &self,
        block: usize,
        offset: u64,
        stored: &[u8],
        trailer: BlockTrailer,
    ) -> Result<CachedBlock> {
        let end = stored.len() - BLOCK_TRAILER_BYTES - usize::from(trailer.padding);
        let content = &stored[..end];
        if trailer.compression == 0 {
            return Ok(content.into());
        }
        let raw_len = trailer.raw_len as usize;
        let unpacked = decompress(content, raw_len);
        match unpacked {
            Ok(raw) if raw.len() == raw_len => Ok(raw.into()),
            Ok(raw) => {
                let what = format!(
                    "data block {block} unpacks to {} bytes, expected {raw_len}",
                    raw.len()
                );
                Err(Error::corruption(self.path(), offset, what))
            }
            Err(error) => {
                let what = format!("data block {block} cannot be decompressed");
                Err(Error::corruption(self.path(), offset, what).with_source(error))
            }
        }
    }

    #[cold]
    pub(super) fn damaged_block(&self, block: usize, damage: BlockDamage) -> Error {
        let offset = self
            .loaded_blocks()
            .map_or(0, |blocks| blocks.range_of(&self.mapping, block).0);
        damage
            .into_error()
            .context(&format!("block {block}"))
            .with_path(self.path())
            .with_offset(offset)
    }
}

/// Decompresses with a context per thread; never allocates more than `raw_len` for the result.
fn decompress(frame: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with(|context| {
        let mut context = context.borrow_mut();
        let context = match &mut *context {
            Some(context) => context,
            empty => empty.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress(frame, raw_len)
    })
}

/// The checksum that a stored block carries.
pub(super) fn stored_checksum(stored: &[u8]) -> Option<u64> {
    u64_at(stored, stored.len().checked_sub(8)?)
}
