//! Where a section's bytes are.

use std::ops::Range;

use siltstone_vfs::{Error, Mapping, Result};

use crate::format::{Section, checksum, index};

/// A section in the mapping, or a copy of it where the table is not mapped.
#[derive(Debug)]
pub(crate) enum SectionBytes {
    Mapped(Range<usize>),
    Copied(Box<[u8]>),
}

impl SectionBytes {
    /// Fetches a section, whose place has been checked against the file's length, and verifies its checksum.
    pub(crate) fn open(mapping: &Mapping, section: &Section) -> Result<SectionBytes> {
        let bytes = match mapping.bytes() {
            Some(_) => SectionBytes::Mapped(index(section.offset)..index(section.offset + section.len)),
            None => SectionBytes::Copied(mapping.read_at(section.offset, index(section.len))?.into()),
        };
        let view = bytes.get(mapping);
        let found = checksum(view);
        if view.len() as u64 != section.len || found != section.checksum {
            let what = format!(
                "section {:#010x} of {} bytes has checksum {found:016x}, expected {:016x}",
                section.kind, section.len, section.checksum
            );
            return Err(Error::corruption(mapping.path(), section.offset, what)
                .with_advice("restore the file from a copy"));
        }
        Ok(bytes)
    }

    /// The bytes; `mapping` is the one that it was opened with.
    #[inline]
    pub(crate) fn get<'m>(&'m self, mapping: &'m Mapping) -> &'m [u8] {
        match self {
            SectionBytes::Mapped(range) => mapping
                .bytes()
                .and_then(|bytes| bytes.get(range.clone()))
                .unwrap_or_default(),
            SectionBytes::Copied(bytes) => bytes,
        }
    }
}
