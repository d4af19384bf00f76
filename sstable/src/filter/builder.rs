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

/// Keys in a piece of [`Keys`]: 64 KiB.
const KEYS_PER_PIECE: usize = 4096;

/// Hashes of keys, and where their newest entries lie. In pieces: a vector that doubles takes up to three times the memory
/// of its content while it grows, in each thread that writes tables.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pieces: Vec<Vec<(u64, Place)>>,
    count: usize,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Place)> + Clone {
        self.pieces.iter().flatten().copied()
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> + Clone {
        self.iter().map(|(hash, _)| hash)
    }

    #[inline]
    fn push(&mut self, hash: u64, place: Place) {
        self.count += 1;
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < KEYS_PER_PIECE => piece.push((hash, place)),
            _ => {
                let mut piece = Vec::with_capacity(KEYS_PER_PIECE);
                piece.push((hash, place));
                self.pieces.push(piece);
            }
        }
    }
}

/// The filter of a table that is being built.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    kind: FilterKind,
    entry_bytes_min: u64,
    keys: Keys,
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
            keys: Keys::default(),
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
        if self.kind != FilterKind::None {
            self.keys.push(hash, place);
        }
    }

    /// Hashes of all keys.
    pub(crate) fn key_hashes(&self) -> impl Iterator<Item = u64> + Clone {
        self.keys.hashes()
    }

    /// Takes the first block's shape for that of most; the last one is often short.
    pub(crate) fn note_block(&mut self, typical: TypicalBlock) {
        if self.typical == TypicalBlock::default() {
            self.typical = typical;
        }
    }

    /// Whether entries of these bytes altogether are worth a hash index.
    fn wants_hash_index(&self, entries: u64, entry_bytes: u64) -> bool {
        self.keys.len() > 0 && entry_bytes >= entries * self.entry_bytes_min
    }

    /// About how long the section becomes, if the table has `entries` of `entry_bytes` altogether.
    pub(crate) fn size_bytes(&self, entries: u64, entry_bytes: u64) -> u64 {
        let keys = self.keys.len() as u64;
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
        let mut section = vec![0; FILTER_HEADER_BYTES];
        let bloom = |probes: u32, kind, section: &mut Vec<u8>| {
            section[0] = kind;
            section[4..8].copy_from_slice(&probes.to_le_bytes());
        };
        match self.kind {
            FilterKind::None => return None,
            FilterKind::Standard { bits_per_key } => {
                let probes = standard::build(&self.keys, bits_per_key, &mut section);
                bloom(probes, FILTER_STANDARD, &mut section);
            }
            FilterKind::Blocked { bits_per_key } => {
                let probes = blocked::build(&self.keys, bits_per_key, &mut section);
                bloom(probes, FILTER_BLOCKED, &mut section);
            }
            FilterKind::HashIndex | FilterKind::Auto => {
                let built = self
                    .wants_hash_index(entries, entry_bytes)
                    .then(|| hash_index::build(&self.keys, &mut section))
                    .flatten();
                match built {
                    Some(widths) => {
                        section[0] = FILTER_HASH_INDEX;
                        widths.encode(self.typical, &mut section[..FILTER_HEADER_BYTES]);
                    }
                    None => {
                        let probes = blocked::build(&self.keys, STAND_IN_BITS_PER_KEY, &mut section);
                        bloom(probes, FILTER_BLOCKED, &mut section);
                    }
                }
            }
        }
        let payload_bytes = (section.len() - FILTER_HEADER_BYTES) as u64;
        section[8..16].copy_from_slice(&(self.keys.len() as u64).to_le_bytes());
        section[16..24].copy_from_slice(&payload_bytes.to_le_bytes());
        Some(section)
    }
}
