//! What a builder can be asked for.

use serde::{Deserialize, Serialize};
use siltstone_vfs::{Error, ErrorKind, Result};

/// How data blocks are compressed. A block that would shrink by less than an eighth is stored as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// Not at all: values are read in place. The default.
    #[default]
    None,
    /// Zstandard. Level 1 is the one for tables that are rewritten often; from -7 (fast) to 22 (small).
    Zstd {
        /// The compression level, -7 to 22.
        level: i32,
    },
}

impl Compression {
    /// The byte on disk: 0 none, 1 zstd. Never renumber, never reuse.
    pub fn number(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Zstd { .. } => 1,
        }
    }
}

/// Which filter a table carries. All work on [`key_hash`](crate::key_hash), so one hash of the key serves every
/// table of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FilterKind {
    /// No filter: every read searches the block.
    None,
    /// A Bloom filter of the `bloomfilter` crate: the fewest false positives for its bits, several cache misses a
    /// probe, and copied to the heap when the table is opened.
    Standard {
        /// Bits of filter for each distinct user key, 1 to 64. 10 gives 0.8 % false positives.
        bits_per_key: u32,
    },
    /// A Bloom filter in blocks of 512 bits, probed in place: one cache miss a probe.
    Blocked {
        /// Bits of filter for each distinct user key, 1 to 64. 10 gives 1 % false positives.
        bits_per_key: u32,
    },
    /// A hash table from each key to its newest entry: a point read goes straight there, and a key that is not in the
    /// table costs one cache miss, as with a blocked filter (with 0.4 % false positives in a table of 500,000 keys, and 6 % in one of 5 million: `examples/filters.rs`).
    /// About 43 bits a key. Where a table's blocks are so many and its entries so small that 24 bits cannot tell them
    /// apart, the table gets a blocked filter of 10 bits instead.
    HashIndex,
    /// A hash index where it adds little to the table: where keys and values together average at least 64 bytes, or 128
    /// in a compressed table. Else a blocked filter of 10 bits a key. The default.
    Auto,
}

impl Default for FilterKind {
    /// [`FilterKind::Auto`].
    fn default() -> Self {
        FilterKind::Auto
    }
}

/// The shape of a table to be built. A reader needs none of it: tables say what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOptions {
    /// The most bytes a data block takes in the file (before compression, where there is one), its trailer included;
    /// an entry that does not fit is a block of its own. Default 4096, which makes one block one page; 512 to 1 MiB.
    /// Larger blocks compress better and cost more to read a single key.
    pub block_size_bytes: usize,
    /// Default: none.
    pub compression: Compression,
    /// Default: [`FilterKind::Auto`].
    pub filter: FilterKind,
}

impl TableOptions {
    /// The smallest block size.
    pub const BLOCK_SIZE_BYTES_MIN: usize = 512;
    /// The largest block size.
    pub const BLOCK_SIZE_BYTES_MAX: usize = 1 << 20;

    /// Refuses values out of range; nothing is ever adjusted silently.
    ///
    /// # Errors
    /// `InvalidInput`, naming the option, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let (min, max) = (Self::BLOCK_SIZE_BYTES_MIN, Self::BLOCK_SIZE_BYTES_MAX);
        if !(min..=max).contains(&self.block_size_bytes) {
            let found = self.block_size_bytes;
            return Err(Error::invalid(format!(
                "block_size_bytes is {found}; it must be {min} to {max}"
            )));
        }
        if let Compression::Zstd { level } = self.compression
            && !(-7..=22).contains(&level)
        {
            return Err(Error::invalid(format!(
                "zstd level is {level}; it must be -7 to 22"
            )));
        }
        if let FilterKind::Standard { bits_per_key } | FilterKind::Blocked { bits_per_key } = self.filter
            && !(1..=64).contains(&bits_per_key)
        {
            return Err(Error::invalid(format!(
                "filter has {bits_per_key} bits a key; it must be 1 to 64"
            )));
        }
        Ok(())
    }
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_size_bytes: 4096,
            compression: Compression::None,
            filter: FilterKind::default(),
        }
    }
}

/// The error for a number on disk that this version does not know.
pub(crate) fn unknown(what: &str, number: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{what} {number} is not known to this version of Siltstone"),
    )
    .with_advice("open it with the version that wrote it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_each_bound_is_kept() {
        let fine = TableOptions::default();
        fine.validate().unwrap();
        for block_size_bytes in [0, 511, (1 << 20) + 1, usize::MAX] {
            assert!(
                TableOptions {
                    block_size_bytes,
                    ..fine
                }
                .validate()
                .is_err()
            );
        }
        for level in [-8, 23, i32::MIN] {
            assert!(
                TableOptions {
                    compression: Compression::Zstd { level },
                    ..fine
                }
                .validate()
                .is_err()
            );
        }
        for bits_per_key in [0, 65, u32::MAX] {
            assert!(
                TableOptions {
                    filter: FilterKind::Standard { bits_per_key },
                    ..fine
                }
                .validate()
                .is_err()
            );
            assert!(
                TableOptions {
                    filter: FilterKind::Blocked { bits_per_key },
                    ..fine
                }
                .validate()
                .is_err()
            );
        }
        assert!(
            TableOptions {
                filter: FilterKind::None,
                ..fine
            }
            .validate()
            .is_ok()
        );
    }

    #[test]
    fn numbers_on_disk_never_change() {
        assert_eq!(
            [
                Compression::None.number(),
                Compression::Zstd { level: 1 }.number()
            ],
            [0, 1]
        );
    }
}
