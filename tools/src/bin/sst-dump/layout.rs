//! `layout`: the parts of a file in their order.

use std::io::{self, Write};

use serde::Serialize;
use siltstone_sstable::format::{
    FOOTER_BYTES, Footer, SECTION_ENTRY_BYTES, SECTION_EVEN_INDEX, SECTION_FILTER, SECTION_INDEX,
    SECTION_PROPERTIES, SECTIONS_MAX, Section, checksum,
};
use siltstone_sstable::{BlockKind, BlockLayout};
use siltstone_vfs::{Error, Mapping, Result};

use crate::keys::Notation;
use crate::output::{Bytes, Found, Record};
use crate::properties::compression_name;
use crate::source::Source;

/// The parts of one file.
#[derive(Debug, Serialize)]
pub(crate) struct Layout {
    file_bytes: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    kind: String,
    offset: u64,
    stored_bytes: u64,
    raw_bytes: u64,
    compression: String,
    #[serde(flatten)]
    data: Option<Data>,
    /// Its checksum is wrong.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
}

/// What only data blocks have.
#[derive(Debug, Serialize)]
struct Data {
    entries: u64,
    first_key: String,
    last_key: String,
}

/// The layout of a table. Where its blocks cannot be listed, the sections are, as far as the directory can be read.
pub(crate) fn layout(source: &Source, notation: Notation) -> Found<Layout> {
    let listed = source.table().and_then(|table| table.layout());
    let (parts, error) = match listed {
        Ok(parts) => (parts.iter().map(|part| Part::new(part, notation)).collect(), None),
        Err(error) => (sections(source).unwrap_or_default(), Some(error)),
    };
    Found {
        body: Some(Layout {
            file_bytes: source.len(),
            parts,
        }),
        error,
    }
}

/// The sections of a file, whatever they hold, with directory and footer.
fn sections(source: &Source) -> Result<Vec<Part>> {
    let bytes = source.bytes()?;
    let footer_bytes = FOOTER_BYTES as u64;
    let at = bytes.len().saturating_sub(footer_bytes);
    let stored = bytes.read_at(at, FOOTER_BYTES)?;
    let Some(stored) = stored.first_chunk::<FOOTER_BYTES>() else {
        return Ok(Vec::new());
    };
    let footer = Footer::decode(stored, source.path(), bytes.len())?;
    let tail = [
        Part::plain(
            "directory".to_owned(),
            footer.directory_offset,
            footer.directory_len,
        ),
        Part::plain("footer".to_owned(), at, footer_bytes),
    ];
    let mut parts = match directory(&bytes, &footer) {
        Ok(sections) => sections
            .iter()
            .map(|section| Part::section(section, &bytes))
            .collect(),
        Err(_) => Vec::new(),
    };
    parts.extend(tail);
    Ok(parts)
}

fn directory(bytes: &Mapping, footer: &Footer) -> Result<Vec<Section>> {
    let len = usize::try_from(footer.directory_len)
        .ok()
        .filter(|len| *len <= SECTIONS_MAX * SECTION_ENTRY_BYTES)
        .ok_or_else(|| {
            Error::corruption(
                bytes.path(),
                footer.directory_offset,
                "section directory is too long",
            )
        })?;
    let stored = bytes.read_at(footer.directory_offset, len)?;
    if checksum(&stored) != footer.directory_checksum {
        let what = "section directory has a wrong checksum";
        return Err(Error::corruption(bytes.path(), footer.directory_offset, what));
    }
    Section::decode_all(&stored, footer, bytes.path())
}

impl Part {
    fn new(part: &BlockLayout, notation: Notation) -> Part {
        let data = (part.kind == BlockKind::Data).then(|| Data {
            entries: part.entries,
            first_key: notation.show(&part.first_key).to_string(),
            last_key: notation.show(&part.last_key).to_string(),
        });
        Part {
            kind: kind_name(part.kind),
            offset: part.offset,
            stored_bytes: part.stored_bytes,
            raw_bytes: part.raw_bytes,
            compression: compression_name(part.compression),
            data,
            damaged: false,
        }
    }

    fn plain(kind: String, offset: u64, len: u64) -> Part {
        Part {
            kind,
            offset,
            stored_bytes: len,
            raw_bytes: len,
            compression: compression_name(0),
            data: None,
            damaged: false,
        }
    }

    fn section(section: &Section, bytes: &Mapping) -> Part {
        let kind = kind_name(match section.kind {
            SECTION_INDEX | SECTION_EVEN_INDEX => BlockKind::Index,
            SECTION_FILTER => BlockKind::Filter,
            SECTION_PROPERTIES => BlockKind::Properties,
            other => BlockKind::Unknown(other),
        });
        // A section that cannot be read is as good as damaged.
        let sound = usize::try_from(section.len)
            .ok()
            .and_then(|len| bytes.read_at(section.offset, len).ok())
            .is_some_and(|stored| checksum(&stored) == section.checksum);
        Part {
            damaged: !sound,
            ..Part::plain(kind, section.offset, section.len)
        }
    }
}

fn kind_name(kind: BlockKind) -> String {
    match kind {
        BlockKind::Data => "data".to_owned(),
        BlockKind::Index => "index".to_owned(),
        BlockKind::Filter => "filter".to_owned(),
        BlockKind::Properties => "properties".to_owned(),
        BlockKind::Unknown(number) => format!("section {number:#010x}"),
        BlockKind::Directory => "directory".to_owned(),
        BlockKind::Footer => "footer".to_owned(),
    }
}

impl Record for Layout {
    /// A tree: the data blocks as one branch, each other part as a leaf.
    fn write_text(&self, source: &Source, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: {}", source.path().display(), Bytes(self.file_bytes))?;
        let (blocks, others): (Vec<_>, Vec<_>) = self.parts.iter().partition(|part| part.data.is_some());
        let width = self.file_bytes.to_string().len();
        if !blocks.is_empty() {
            let (stored, raw) = blocks.iter().fold((0, 0), |(stored, raw), part| {
                (stored + part.stored_bytes, raw + part.raw_bytes)
            });
            let branch = if others.is_empty() { "└─" } else { "├─" };
            let count = blocks.len();
            writeln!(
                out,
                "{branch} data: {count} blocks, stored {}, raw {}",
                Bytes(stored),
                Bytes(raw)
            )?;
        }
        for (number, part) in blocks.iter().enumerate() {
            let last = number + 1 == blocks.len();
            let branch = if last { "│  └─" } else { "│  ├─" };
            write!(out, "{branch} ")?;
            part.write_sizes(width, out)?;
            if let Some(data) = &part.data {
                write!(out, "  entries {:<4}  first {}", data.entries, data.first_key)?;
            }
            writeln!(out)?;
        }
        for (number, part) in others.iter().enumerate() {
            let last = number + 1 == others.len();
            write!(out, "{} {:<10}  ", if last { "└─" } else { "├─" }, part.kind)?;
            part.write_sizes(width, out)?;
            writeln!(out, "{}", if part.damaged { "  DAMAGED" } else { "" })?;
        }
        Ok(())
    }
}

impl Part {
    fn write_sizes(&self, width: usize, out: &mut dyn Write) -> io::Result<()> {
        write!(
            out,
            "offset {:>width$}  stored {:>width$}  raw {:>width$}  {}",
            self.offset, self.stored_bytes, self.raw_bytes, self.compression
        )
    }
}
