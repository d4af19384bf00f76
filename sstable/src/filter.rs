//! Filters: which tables cannot hold a key.

mod blocked;
mod standard;

use std::path::Path;

use bloomfilter::Bloom;
use siltstone_vfs::{Error, Mapping, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::FilterKind;
use crate::format::{FILTER_HEADER_BYTES, u32_at, u64_at};
use crate::table::SectionBytes;

/// XXH3-64 of a user key: the one hash that every filter, and every block's fingerprints, work on.
#[inline]
pub fn key_hash(user_key: &[u8]) -> u64 {
    xxh3_64(user_key)
}

/// The filter section for these keys; `None` for [`FilterKind::None`].
pub(crate) fn build(kind: FilterKind, hashes: &[u64]) -> Option<Vec<u8>> {
    let (probes, payload) = match kind {
        FilterKind::None => return None,
        FilterKind::Standard { bits_per_key } => standard::build(hashes, bits_per_key),
        FilterKind::Blocked { bits_per_key } => blocked::build(hashes, bits_per_key),
    };
    let mut out = vec![0; FILTER_HEADER_BYTES];
    out[0] = kind.number();
    out[4..8].copy_from_slice(&probes.to_le_bytes());
    out[8..16].copy_from_slice(&(hashes.len() as u64).to_le_bytes());
    out[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(&payload);
    Some(out)
}

/// About how long the section becomes for `keys` keys.
pub(crate) fn size_bytes(kind: FilterKind, keys: u64) -> u64 {
    match kind {
        FilterKind::None => 0,
        _ => FILTER_HEADER_BYTES as u64 + (keys * u64::from(kind.bits_per_key())).div_ceil(8),
    }
}

/// An opened filter.
pub(crate) enum Filter {
    /// None was written, or one of a kind that this version does not know: every key may be there.
    Absent,
    Standard(Box<Bloom<u64>>),
    Blocked {
        bytes: SectionBytes,
        probes: u32,
    },
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Filter::Absent => "Absent",
            Filter::Standard(_) => "Standard",
            Filter::Blocked { .. } => "Blocked",
        })
    }
}

impl Filter {
    /// Checks the header of a filter section whose checksum has been verified.
    pub(crate) fn open(bytes: SectionBytes, mapping: &Mapping, offset: u64) -> Result<Filter> {
        let view = bytes.get(mapping);
        let damaged = |what: &str| damaged(mapping.path(), offset, what);
        let Some(header) = view.first_chunk::<FILTER_HEADER_BYTES>() else {
            return Err(damaged("it is shorter than its header"));
        };
        let payload = &view[FILTER_HEADER_BYTES..];
        let probes = u32_at(header, 4).unwrap_or_default();
        if u64_at(header, 16) != Some(payload.len() as u64) {
            return Err(damaged("its length is not what its header says"));
        }
        if header[1..4] != [0; 3] || header[24..].iter().any(|&byte| byte != 0) {
            return Err(damaged("a reserved byte is not zero"));
        }
        match header[0] {
            1 => standard::open(payload, probes)
                .map(|bloom| Filter::Standard(Box::new(bloom)))
                .map_err(damaged),
            2 => {
                blocked::check(payload, probes).map_err(damaged)?;
                Ok(Filter::Blocked { bytes, probes })
            }
            // A filter only ever saves work: without it, answers are the same.
            _ => Ok(Filter::Absent),
        }
    }

    /// Whether a key with this hash may be in the table; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, mapping: &Mapping, hash: u64) -> bool {
        match self {
            Filter::Blocked { bytes, probes } => {
                let view = bytes.get(mapping);
                blocked::may_contain(view.get(FILTER_HEADER_BYTES..).unwrap_or_default(), *probes, hash)
            }
            Filter::Absent => true,
            Filter::Standard(bloom) => bloom.check(&hash),
        }
    }
}

fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::corruption(path, offset, format!("filter cannot be used: {what}"))
}

#[cfg(test)]
mod tests;
