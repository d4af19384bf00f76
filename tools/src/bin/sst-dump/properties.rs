//! `properties`: what a table says about itself.

use std::io::{self, Write};

use serde::Serialize;
use siltstone_sstable::{Properties, TableId};
use siltstone_vfs::Result;

use crate::keys::Notation;
use crate::output::{Bytes, Found, Record};
use crate::source::Source;

/// The properties, in words where they are numbers with a meaning.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    file_bytes: u64,
    /// What the file was called when it was written; nothing for a table without a number.
    number: Option<u64>,
    format_version: u32,
    creator: String,
    entries: u64,
    tombstones: u64,
    key_bytes: u64,
    value_bytes: u64,
    data_blocks: u64,
    block_size_bytes: u64,
    compression: String,
    filter: String,
    seqno_min: u64,
    seqno_max: u64,
    smallest_key: String,
    largest_key: String,
}

/// Reads a table's properties.
pub(crate) fn properties(source: &Source, notation: Notation) -> Found<Shown> {
    read(source, notation).into()
}

fn read(source: &Source, notation: Notation) -> Result<Shown> {
    let table = source.table()?;
    let Properties {
        entries,
        tombstones,
        key_bytes,
        value_bytes,
        data_blocks,
        smallest_key,
        largest_key,
        seqno_min,
        seqno_max,
        compression,
        filter_kind,
        block_size_bytes,
        creator,
        format_version,
    } = table.properties();
    Ok(Shown {
        file_bytes: table.size_bytes(),
        number: table.written_as().map(|id| id.0),
        format_version: *format_version,
        creator: creator.clone(),
        entries: *entries,
        tombstones: *tombstones,
        key_bytes: *key_bytes,
        value_bytes: *value_bytes,
        data_blocks: *data_blocks,
        block_size_bytes: *block_size_bytes,
        compression: compression_name(*compression),
        filter: filter_name(*filter_kind),
        seqno_min: seqno_min.0,
        seqno_max: seqno_max.0,
        smallest_key: notation.show(smallest_key).to_string(),
        largest_key: notation.show(largest_key).to_string(),
    })
}

/// The name of a compression's number.
pub(crate) fn compression_name(number: u8) -> String {
    match number {
        0 => "none".to_owned(),
        1 => "zstd".to_owned(),
        other => format!("unknown ({other})"),
    }
}

fn filter_name(number: u8) -> String {
    match number {
        0 => "none".to_owned(),
        1 => "standard".to_owned(),
        2 => "blocked".to_owned(),
        3 => "hash index".to_owned(),
        other => format!("unknown ({other})"),
    }
}

impl Record for Shown {
    fn write_text(&self, source: &Source, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", source.path().display())?;
        let number = self
            .number
            .map_or("none".to_owned(), |id| TableId(id).to_string());
        let lines: [(&str, &dyn std::fmt::Display); 16] = [
            ("file", &Bytes(self.file_bytes)),
            ("written as", &number),
            ("format version", &self.format_version),
            ("creator", &self.creator.escape_default()),
            ("entries", &self.entries),
            ("tombstones", &self.tombstones),
            ("keys", &Bytes(self.key_bytes)),
            ("values", &Bytes(self.value_bytes)),
            ("data blocks", &self.data_blocks),
            ("block size", &Bytes(self.block_size_bytes)),
            ("compression", &self.compression),
            ("filter", &self.filter),
            ("smallest seqno", &self.seqno_min),
            ("largest seqno", &self.seqno_max),
            ("smallest key", &self.smallest_key),
            ("largest key", &self.largest_key),
        ];
        for (name, value) in lines {
            writeln!(out, "  {name:<14}  {value}")?;
        }
        Ok(())
    }
}
