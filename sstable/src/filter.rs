//! Filters: which tables cannot hold a key.

mod blocked;
mod builder;
mod hash_index;
mod standard;

use std::path::Path;

use bloomfilter::Bloom;
use siltstone_vfs::{Error, Mapping, Result, prefetch};
use xxhash_rust::xxh3::xxh3_64;

use crate::format::{
    FILTER_BLOCKED, FILTER_HASH_INDEX, FILTER_HEADER_BYTES, FILTER_STANDARD, u32_at, u64_at,
};
use crate::table::SectionBytes;

pub(crate) use builder::FilterBuilder;
pub(crate) use hash_index::{HashIndex, Place, Probe, TypicalBlock, misplaced};

/// XXH3-64 of a user key: the one hash that every filter, and every block's fingerprints, work on.
#[inline]
pub fn key_hash(user_key: &[u8]) -> u64 {
    xxh3_64(user_key)
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
    HashIndex(HashIndex),
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Filter::Absent => "Absent",
            Filter::Standard(_) => "Standard",
            Filter::Blocked { .. } => "Blocked",
            Filter::HashIndex(_) => "HashIndex",
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
        let used = if header[0] == FILTER_HASH_INDEX { 32 } else { 24 };
        if header[1..4] != [0; 3] || header[used..].iter().any(|&byte| byte != 0) {
            return Err(damaged("a reserved byte is not zero"));
        }
        match header[0] {
            FILTER_STANDARD => standard::open(payload, probes)
                .map(|bloom| Filter::Standard(Box::new(bloom)))
                .map_err(damaged),
            FILTER_BLOCKED => {
                blocked::check(payload, probes).map_err(damaged)?;
                Ok(Filter::Blocked { bytes, probes })
            }
            FILTER_HASH_INDEX => HashIndex::open(bytes, mapping)
                .map(Filter::HashIndex)
                .map_err(damaged),
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
            Filter::HashIndex(hashed) => hashed.next(&mut hashed.probe(hash), mapping).is_some(),
        }
    }
}

impl Filter {
    /// Starts to load what a question for a key with this hash looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, mapping: &Mapping, hash: u64) {
        match self {
            Filter::Blocked { bytes, .. } => {
                let view = bytes.get(mapping);
                let payload = view.get(FILTER_HEADER_BYTES..).unwrap_or_default();
                prefetch(payload, blocked::line_start(payload, hash));
            }
            Filter::HashIndex(hashed) => hashed.prefetch(mapping, hash),
            Filter::Absent | Filter::Standard(_) => {}
        }
    }

    /// Where most blocks have whole records, if it is known.
    #[inline]
    pub(crate) fn records(&self) -> Option<&TypicalBlock> {
        match self {
            Filter::HashIndex(hashed) if hashed.typical.is_whole() => Some(&hashed.typical),
            _ => None,
        }
    }
}

fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::corruption(path, offset, format!("filter cannot be used: {what}"))
}

#[cfg(test)]
mod tests;
