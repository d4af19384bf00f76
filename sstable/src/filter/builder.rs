//! Collects the distinct keys of a table and makes its filter section of them.

use crate::FilterKind;
use crate::format::{FILTER_BLOCKED, FILTER_HASH_INDEX, FILTER_HEADER_BYTES, FILTER_STANDARD};

use super::hash_index::{self, Place, TypicalBlock};
use super::{blocked, standard};

/// Bits a key of the blocked filter that stands in for a hash index.
const STAND_IN_BITS_PER_KEY: u32 = 10;
/// With a hash index of 43 bits a key, a table of entries this long grows by a twelfth at most.
const AUTO_ENTRY_BYTES_MIN: u64 = 64;
/// The same where compression may halve the entries.
const AUTO_COMPRESSED_ENTRY_BYTES_MIN: u64 = 128;

/// The filter of a table that is being built.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    kind: FilterKind,
    entry_bytes_min: u64,
    hashes: Vec<u64>,
    places: Vec<Place>,
    typical: TypicalBlock,
}

impl FilterBuilder {
    pub(crate) fn new(kind: FilterKind, compressed: bool) -> FilterBuilder {
        FilterBuilder {
            kind,
            entry_bytes_min: match (kind, compressed) {
                (FilterKind::Auto, false) => AUTO_ENTRY_BYTES_MIN,
                (FilterKind::Auto, true) => AUTO_COMPRESSED_ENTRY_BYTES_MIN,
                _ => 0,
            },
            hashes: Vec::new(),
            places: Vec::new(),
            typical: TypicalBlock::default(),
        }
    }

    /// The average length of entries below which blocks need fingerprints: where a read comes by the hash index it knows
    /// the entry already.
    pub(crate) fn fingerprints_below(&self) -> usize {
        match self.kind {
            FilterKind::None | FilterKind::Standard { .. } | FilterKind::Blocked { .. } => usize::MAX,
            FilterKind::HashIndex | FilterKind::Auto => crate::format::index(self.entry_bytes_min),
        }
    }

    /// Adds a key, with the place of its newest entry.
    pub(crate) fn push(&mut self, hash: u64, place: Place) {
        if self.kind == FilterKind::None {
            return;
        }
        self.hashes.push(hash);
        if matches!(self.kind, FilterKind::HashIndex | FilterKind::Auto) {
            self.places.push(place);
        }
    }

    /// Takes the first block's shape for that of most; the last one is often short.
    pub(crate) fn note_block(&mut self, typical: TypicalBlock) {
        if self.typical == TypicalBlock::default() {
            self.typical = typical;
        }
    }

    /// Whether entries of these bytes altogether are worth a hash index.
    fn wants_hash_index(&self, entries: u64, entry_bytes: u64) -> bool {
        !self.places.is_empty() && entry_bytes >= entries * self.entry_bytes_min
    }

    /// About how long the section becomes, if the table has `entries` of `entry_bytes` altogether.
    pub(crate) fn size_bytes(&self, entries: u64, entry_bytes: u64) -> u64 {
        let keys = self.hashes.len() as u64;
        let payload = match self.kind {
            FilterKind::None => return 0,
            FilterKind::HashIndex | FilterKind::Auto if self.wants_hash_index(entries, entry_bytes) => {
                hash_index::payload_bytes(keys)
            }
            FilterKind::HashIndex | FilterKind::Auto => (keys * u64::from(STAND_IN_BITS_PER_KEY)).div_ceil(8),
            FilterKind::Standard { bits_per_key } | FilterKind::Blocked { bits_per_key } => {
                (keys * u64::from(bits_per_key)).div_ceil(8)
            }
        };
        FILTER_HEADER_BYTES as u64 + payload
    }

    /// The section's bytes; `None` for [`FilterKind::None`]. Its first byte is its kind.
    pub(crate) fn finish(self, entries: u64, entry_bytes: u64) -> Option<Vec<u8>> {
        let mut header = [0; FILTER_HEADER_BYTES];
        let blocked = |header: &mut [u8], bits_per_key| {
            let (probes, payload) = blocked::build(&self.hashes, bits_per_key);
            header[0] = FILTER_BLOCKED;
            header[4..8].copy_from_slice(&probes.to_le_bytes());
            payload
        };
        let payload = match self.kind {
            FilterKind::None => return None,
            FilterKind::Standard { bits_per_key } => {
                let (probes, payload) = standard::build(&self.hashes, bits_per_key);
                header[0] = FILTER_STANDARD;
                header[4..8].copy_from_slice(&probes.to_le_bytes());
                payload
            }
            FilterKind::Blocked { bits_per_key } => blocked(&mut header, bits_per_key),
            FilterKind::HashIndex | FilterKind::Auto => {
                let built = self
                    .wants_hash_index(entries, entry_bytes)
                    .then(|| hash_index::build(&self.hashes, &self.places))
                    .flatten();
                match built {
                    Some(built) => {
                        header[0] = FILTER_HASH_INDEX;
                        built.encode_header(self.typical, &mut header);
                        built.payload
                    }
                    None => blocked(&mut header, STAND_IN_BITS_PER_KEY),
                }
            }
        };
        header[8..16].copy_from_slice(&(self.hashes.len() as u64).to_le_bytes());
        header[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        Some([&header[..], &payload].concat())
    }
}
