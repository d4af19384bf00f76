//! Opening a table: everything but the data blocks is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use siltstone_vfs::{Advice, Error, Mapping, Result};

use crate::filter::Filter;
use crate::format::{
    BLOCK_HEADER_BYTES, BLOCK_TRAILER_BYTES, FILTER_STANDARD, FOOTER_BYTES, Footer, SECTION_ENTRY_BYTES,
    SECTION_EVEN_INDEX, SECTION_FILTER, SECTION_INDEX, SECTION_PROPERTIES, SECTIONS_MAX, Section, checksum,
    index,
};
use crate::index::Index;
use crate::{BlockCache, Properties, TableId};

use super::{SectionBytes, Table};

impl Table {
    /// Opens a finished table file.
    ///
    /// Reads and verifies footer, section directory, index, filter and properties; touches no data block. `id` is the
    /// number under which the table is known, and must be the one that it was written under; 0 opens any.
    ///
    /// # Errors
    /// `Corruption`, with the place; `Unsupported` for a newer format; `Io`.
    pub fn open(mapping: Mapping, id: TableId, cache: Arc<BlockCache>) -> Result<Table> {
        let table = Self::open_without_filter(mapping, id, cache)?;
        table.verify_filter()?;
        Ok(table)
    }

    /// As [`open`](Table::open), but for the filter, which is most of what opening a table reads: it is neither verified
    /// nor asked before [`verify_filter`](Table::verify_filter) has found it sound. Until then, and for ever if it is
    /// not, reads go by the index: their answers are the same.
    ///
    /// # Errors
    /// As [`open`](Table::open).
    pub fn open_without_filter(mapping: Mapping, id: TableId, cache: Arc<BlockCache>) -> Result<Table> {
        let footer = read_footer(&mapping)?;
        if id.0 != 0 && footer.table_id != 0 && id.0 != footer.table_id {
            let at = mapping.len() - FOOTER_BYTES as u64 + 32;
            let what = format!(
                "table says that it is {}, expected {id}",
                TableId(footer.table_id)
            );
            return Err(Error::corruption(mapping.path(), at, what)
                .with_advice("the file has another one's name; restore it from a copy"));
        }
        let sections = read_directory(&mapping, &footer)?;
        let section = |kinds: &[u32], name: &str| {
            let mut of_kind = sections.iter().filter(|section| kinds.contains(&section.kind));
            match (of_kind.next(), of_kind.next()) {
                (Some(section), None) => Ok(section),
                (None, _) => {
                    let what = format!("table has no {name} section");
                    Err(Error::corruption(mapping.path(), footer.directory_offset, what))
                }
                (Some(_), Some(_)) => {
                    let what = format!("table has more than one {name} section");
                    Err(Error::corruption(mapping.path(), footer.directory_offset, what))
                }
            }
        };
        let at = section(&[SECTION_PROPERTIES], "properties")?;
        let bytes = SectionBytes::open(&mapping, at)?;
        let properties = Properties::decode(bytes.get(&mapping), mapping.path(), at.offset)?;

        let at = section(&[SECTION_INDEX, SECTION_EVEN_INDEX], "index")?;
        let index = Index::open(SectionBytes::open(&mapping, at)?, &mapping, at)?;
        check_blocks(&index, &mapping, &sections, &properties, at.offset)?;

        // What is copied is verified before, what is asked where it lies may wait.
        let in_place = mapping.bytes().is_some() && properties.filter_kind != FILTER_STANDARD;
        let filter = match sections.iter().find(|section| section.kind == SECTION_FILTER) {
            Some(at) => {
                let bytes = if in_place {
                    SectionBytes::open_unverified(&mapping, at)?
                } else {
                    SectionBytes::open(&mapping, at)?
                };
                Filter::open(bytes, &mapping, at.offset)?
            }
            None => Filter::Absent,
        };
        let verified = (0..index.count().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let compressed = properties.compression != 0;
        Ok(Table {
            mapping,
            id,
            cache,
            index,
            filter,
            filter_is_sound: AtomicBool::new(!in_place),
            properties,
            sections,
            verified,
            compressed,
        })
    }
}

impl Table {
    /// Verifies the filter's checksum; from then on reads ask the filter. Not necessary after [`open`](Table::open).
    ///
    /// # Errors
    /// `Corruption`.
    pub fn verify_filter(&self) -> Result<()> {
        if !self.filter_is_sound.load(Ordering::Acquire)
            && let Some(at) = self
                .sections
                .iter()
                .find(|section| section.kind == SECTION_FILTER)
        {
            // Advice makes it faster, never right or wrong.
            let (offset, len) = (at.offset, at.len);
            let _ = self.mapping.advise(Advice::WillNeed { offset, len });
            SectionBytes::open(&self.mapping, at)?;
        }
        self.filter_is_sound.store(true, Ordering::Release);
        Ok(())
    }
}

pub(super) fn read_footer(mapping: &Mapping) -> Result<Footer> {
    let file_len = mapping.len();
    let Some(at) = file_len.checked_sub(FOOTER_BYTES as u64) else {
        let what = format!("file has {file_len} bytes, a table has at least {FOOTER_BYTES}");
        return Err(Error::corruption(mapping.path(), 0, what).with_advice("restore the file from a copy"));
    };
    let bytes = mapping.read_at(at, FOOTER_BYTES)?;
    let Some(footer) = bytes.first_chunk::<FOOTER_BYTES>() else {
        return Err(Error::corruption(
            mapping.path(),
            at,
            "footer could not be read whole",
        ));
    };
    Footer::decode(footer, mapping.path(), file_len)
}

fn read_directory(mapping: &Mapping, footer: &Footer) -> Result<Vec<Section>> {
    let path = mapping.path();
    // The footer's check has shown that the directory lies inside the file.
    if footer.directory_len > (SECTIONS_MAX * SECTION_ENTRY_BYTES) as u64 {
        let what = format!(
            "section directory of {} bytes is longer than any",
            footer.directory_len
        );
        return Err(Error::corruption(path, footer.directory_offset, what));
    }
    let bytes = mapping.read_at(footer.directory_offset, index(footer.directory_len))?;
    let found = checksum(&bytes);
    if found != footer.directory_checksum {
        let expected = footer.directory_checksum;
        let what = format!("section directory has checksum {found:016x}, expected {expected:016x}");
        return Err(Error::corruption(path, footer.directory_offset, what)
            .with_advice("restore the file from a copy"));
    }
    Section::decode_all(&bytes, footer, path)
}

/// Blocks lie before all sections, are long enough to be blocks, and are as many as the properties say.
fn check_blocks(
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
