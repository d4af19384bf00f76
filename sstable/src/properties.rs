//! What a table says about itself.

use std::path::Path;

use serde::{Deserialize, Serialize};
use siltstone_vfs::{Error, Result};

use crate::format::FORMAT_VERSION;
use crate::{SeqNo, codec};

/// Counts and bounds of a table, written once by its builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Entries, tombstones included.
    pub entries: u64,
    /// Entries that are tombstones.
    pub tombstones: u64,
    /// Bytes of all user keys, each entry's counted.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// The first user key.
    pub smallest_key: Vec<u8>,
    /// The last user key.
    pub largest_key: Vec<u8>,
    /// The smallest seqno of an entry.
    pub seqno_min: SeqNo,
    /// The largest seqno of an entry.
    pub seqno_max: SeqNo,
    /// The compression that was asked for, as [`Compression::number`](crate::Compression::number). In a table with 0
    /// every block is stored as it is.
    pub compression: u8,
    /// The filter's kind, 0 none, 1 standard, 2 blocked, 3 hash index.
    pub filter_kind: u8,
    /// The block size that was asked for.
    pub block_size_bytes: u64,
    /// Who wrote the table.
    pub creator: String,
    /// The format version.
    pub format_version: u32,
}

/// The fields in their order on disk. Never reorder; a new field needs a new section or a new format version.
#[derive(Serialize, Deserialize)]
struct Wire {
    entries: u64,
    tombstones: u64,
    key_bytes: u64,
    value_bytes: u64,
    data_blocks: u64,
    smallest_key: Vec<u8>,
    largest_key: Vec<u8>,
    seqno_min: u64,
    seqno_max: u64,
    compression: u8,
    filter_kind: u8,
    block_size_bytes: u64,
    creator: String,
    format_version: u32,
}

impl Properties {
    /// The name and version of this crate.
    pub(crate) fn this_creator() -> String {
        concat!("siltstone ", env!("CARGO_PKG_VERSION")).to_owned()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(&Wire {
            entries: self.entries,
            tombstones: self.tombstones,
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            data_blocks: self.data_blocks,
            smallest_key: self.smallest_key.clone(),
            largest_key: self.largest_key.clone(),
            seqno_min: self.seqno_min.0,
            seqno_max: self.seqno_max.0,
            compression: self.compression,
            filter_kind: self.filter_kind,
            block_size_bytes: self.block_size_bytes,
            creator: self.creator.clone(),
            format_version: self.format_version,
        })
    }

    /// Decodes the section at `offset` and checks that its fields do not contradict each other.
    pub(crate) fn decode(bytes: &[u8], path: &Path, offset: u64) -> Result<Properties> {
        let wire: Wire = codec::decode(bytes).map_err(|error| {
            error
                .context("table properties")
                .with_path(path)
                .with_offset(offset)
        })?;
        let sound = wire.entries > 0
            && wire.tombstones <= wire.entries
            && (1..=wire.entries).contains(&wire.data_blocks)
            && wire.smallest_key <= wire.largest_key
            && wire.seqno_min <= wire.seqno_max
            && wire.seqno_max <= SeqNo::MAX.0
            && wire.format_version == FORMAT_VERSION;
        if !sound {
            return Err(Error::corruption(
                path,
                offset,
                "table properties contradict each other",
            ));
        }
        if wire.compression > 1 {
            return Err(crate::options::unknown("compression", wire.compression)
                .with_path(path)
                .with_offset(offset));
        }
        Ok(Properties {
            entries: wire.entries,
            tombstones: wire.tombstones,
            key_bytes: wire.key_bytes,
            value_bytes: wire.value_bytes,
            data_blocks: wire.data_blocks,
            smallest_key: wire.smallest_key,
            largest_key: wire.largest_key,
            seqno_min: SeqNo(wire.seqno_min),
            seqno_max: SeqNo(wire.seqno_max),
            compression: wire.compression,
            filter_kind: wire.filter_kind,
            block_size_bytes: wire.block_size_bytes,
            creator: wire.creator,
            format_version: wire.format_version,
        })
    }
}
