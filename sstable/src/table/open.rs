//! Opening a table: what everything else depends on is checked at once, index and filter when they are needed.

use std::sync::{Arc, OnceLock};

use siltstone_vfs::{Advice, Error, ErrorKind, Mapping, Result};

use crate::filter::Filter;
use crate::format::{
    FOOTER_BYTES, Footer, SECTION_ENTRY_BYTES, SECTION_EVEN_INDEX, SECTION_FILTER, SECTION_INDEX,
    SECTION_PROPERTIES, SECTIONS_MAX, Section, checksum, index,
};
use crate::{BlockCache, Properties, TableId};

use super::blocks::Blocks;
use super::{SectionBytes, Table};

impl Table {
    /// Opens a finished table file.
    ///
    /// Reads and verifies footer, section directory, properties, index and filter; touches no data block. `id` is the
    /// number under which the table is known, and must be the one that it was written under; 0 opens any.
    ///
    /// # Errors
    /// `Corruption`, with the place; `Unsupported` for a newer format; `Io`.
    pub fn open(mapping: Mapping, id: TableId, cache: Arc<BlockCache>) -> Result<Table> {
        let table = Self::open_lazily(mapping, id, cache)?;
        table.load()?;
        Ok(table)
    }

    /// As [`open`](Table::open), but for index and filter, which are most of what opening a table reads. The index is read
    /// and verified by the first read that needs it, which fails if it is damaged, or by [`load`](Table::load). The filter is
    /// not asked before `load` has found it sound: until then, and for ever if it is not, reads go by the index, and their
    /// answers are the same.
    ///
    /// # Errors
    /// As [`open`](Table::open).
    pub fn open_lazily(mapping: Mapping, id: TableId, cache: Arc<BlockCache>) -> Result<Table> {
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
        let only = |kinds: &[u32], name: &str| {
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
        let at = only(&[SECTION_PROPERTIES], "properties")?;
        let bytes = SectionBytes::open(&mapping, at)?;
        let properties = Properties::decode(bytes.get(&mapping), mapping.path(), at.offset)?;
        only(&INDEX_KINDS, "index")?;
        let compressed = properties.compression != 0;
        Ok(Table {
            mapping,
            id,
            written_as: TableId(footer.table_id),
            cache,
            blocks: OnceLock::new(),
            filter: OnceLock::new(),
            properties,
            sections,
            compressed,
        })
    }

    /// Reads and verifies what [`open_lazily`](Table::open_lazily) has left: the index, and the filter, which reads ask from
    /// then on. What has been found sound is not looked at again, nor an index that has been found damaged.
    ///
    /// # Errors
    /// `Corruption` and `Io`. With a damaged index every read fails; with a damaged filter they go on without.
    pub fn load(&self) -> Result<()> {
        self.blocks()?;
        if self.filter.get().is_none() {
            let filter = match self.section(&[SECTION_FILTER]) {
                Some(at) => {
                    self.will_need(at);
                    Filter::open(SectionBytes::open(&self.mapping, at)?, &self.mapping, at.offset)?
                }
                None => Filter::Absent,
            };
            let _same = self.filter.set(filter);
        }
        Ok(())
    }

    /// What leads to the blocks.
    #[inline]
    pub(super) fn blocks(&self) -> Result<&Blocks> {
        match self.blocks.get() {
            Some(Ok(blocks)) => Ok(blocks),
            Some(Err(error)) => Err(error.clone()),
            None => self.load_blocks(),
        }
    }

    /// The same, if some read has been there before.
    #[inline]
    pub(super) fn loaded_blocks(&self) -> Option<&Blocks> {
        self.blocks.get()?.as_ref().ok()
    }

    #[cold]
    fn load_blocks(&self) -> Result<&Blocks> {
        let at = self.section(&INDEX_KINDS).expect("the table was opened with one");
        self.will_need(at);
        let outcome = Blocks::open(&self.mapping, at, &self.sections, &self.properties);
        // Damage stays: no later read need look at all of the index again. What could not be read may be another time.
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::Corruption
        {
            return Err(error.clone());
        }
        // Of threads that come together each verifies it; they find the same.
        self.blocks.get_or_init(|| outcome).as_ref().map_err(Error::clone)
    }

    /// The first section of one of these kinds.
    pub(super) fn section(&self, kinds: &[u32]) -> Option<&Section> {
        self.sections.iter().find(|section| kinds.contains(&section.kind))
    }

    /// Asks for a section as a whole: a mapping that is advised for point reads comes a page at a time.
    fn will_need(&self, section: &Section) {
        let (offset, len) = (section.offset, section.len);
        // Advice makes it faster, never right or wrong.
        let _ = self.mapping.advise(Advice::WillNeed { offset, len });
    }
}

/// A table has one section of one of these.
pub(super) const INDEX_KINDS: [u32; 2] = [SECTION_INDEX, SECTION_EVEN_INDEX];

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
