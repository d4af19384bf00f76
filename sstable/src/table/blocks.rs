//! What leads to a table's blocks: read and checked when a block is first wanted.

use std::sync::atomic::{AtomicU64, Ordering};

use siltstone_vfs::{Error, Mapping, Result};

use crate::Properties;
use crate::format::{BLOCK_HEADER_BYTES, BLOCK_TRAILER_BYTES, Section};
use crate::index::Index;

use super::SectionBytes;
use super::read_ahead::Walked;

/// The index, found sound, and which blocks have been.
pub(super) struct Blocks {
    pub(super) index: Index,
    pub(super) walked: Walked,
    /// One bit a block: its checksum has been verified. Only ever set.
    verified: Box<[AtomicU64]>,
}

impl Blocks {
    /// Verifies the index in `section`, one of `sections`.
    pub(super) fn open(
        mapping: &Mapping,
        section: &Section,
        sections: &[Section],
        properties: &Properties,
    ) -> Result<Blocks> {
        let index = Index::open(SectionBytes::open(mapping, section)?, mapping, section)?;
        check(&index, mapping, sections, properties, section.offset)?;
        let verified = (0..index.count().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let in_file = |at: usize| section.offset + at as u64;
        let offsets = index.offsets();
        let walked = Walked {
            data_end: index.block_range(index.view(mapping), index.count() - 1).1,
            offsets: in_file(offsets.start)..in_file(offsets.end),
        };
        Ok(Blocks {
            index,
            walked,
            verified,
        })
    }

    /// How many there are, at least one.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.index.count()
    }

    /// Where block `block` starts and ends in the file, its trailer included.
    #[inline]
    pub(super) fn range_of(&self, mapping: &Mapping, block: usize) -> (u64, u64) {
        self.index.block_range(self.index.view(mapping), block)
    }

    /// Relaxed is enough, here and in `set_verified`: the bit stands for no memory that the thread which set it has
    /// written. The bytes are those of a file that is mapped (or read beside its mapping), the same for all threads and never written; a thread that misses the bit
    /// verifies once more.
    #[inline]
    pub(super) fn is_verified(&self, block: usize) -> bool {
        self.verified[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) != 0
    }

    pub(super) fn set_verified(&self, block: usize) {
        self.verified[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
    }
}

/// Blocks lie before all sections, are long enough to be blocks, and are as many as the properties say.
fn check(
    index: &Index,
    mapping: &Mapping,
    sections: &[Section],
    properties: &Properties,
    at: u64,
) -> Result<()> {
    let damaged = |what: String| Err(Error::corruption(mapping.path(), at, what));
    let view = index.view(mapping);
    let limit = sections.iter().map(|section| section.offset).min().unwrap_or(0);
    let (_, data_end) = index.block_range(view, index.count() - 1);
    if data_end > limit {
        return damaged(format!("data blocks end at {data_end}, expected at most {limit}"));
    }
    let shortest = (BLOCK_HEADER_BYTES.min(4) + BLOCK_TRAILER_BYTES) as u64;
    if let Some((block, found)) = index.find_shorter(view, shortest) {
        return damaged(format!(
            "block {block} has {found} bytes, expected at least {shortest}"
        ));
    }
    if properties.data_blocks != index.count() as u64 {
        return damaged(format!(
            "index has {} blocks, the properties say {}",
            index.count(),
            properties.data_blocks
        ));
    }
    Ok(())
}
