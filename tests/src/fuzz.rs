//! Hostile bytes: one function for each thing that reads what it has not written, to be called with anything.
//!
//! A [`FuzzTarget`] takes the bytes of a file (or of several), makes the checksums in it valid, so that a mutation gets
//! past them, and has the engine read it the way users would: through public API over a
//! [`MemFs`](siltstone::vfs::MemFs). Errors are right answers. Wrong are a panic, an endless loop, memory out of
//! proportion to the input, and an answer that contradicts another one. The coverage-guided runs are in `fuzz/`, which
//! is a workspace of its own; a plain test runs the committed corpus through the same functions.
//!
//! ```
//! use siltstone_tests::FuzzTarget;
//!
//! FuzzTarget::Manifest.run(b"not a manifest");
//! for seed in FuzzTarget::WalReplay.seeds() {
//!     FuzzTarget::WalReplay.run(&seed);
//! }
//! ```

mod api;
mod database;
mod log;
mod manifest;
mod sections;
mod table;

/// Something that reads bytes which it cannot trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FuzzTarget {
    /// Log segments: replay by itself, and the recovery of a database that has them.
    WalReplay,
    /// A whole table, by itself in both ways to read one, and as one of a database's.
    TableReader,
    /// A manifest with the `CURRENT` that fits it.
    Manifest,
    /// The filter section of an otherwise sound table.
    Filter,
    /// The properties section of an otherwise sound table.
    Properties,
    /// No file: operations on a sound database, compared with the [`Model`](crate::Model).
    Api,
}

impl FuzzTarget {
    /// All of them.
    pub const ALL: [FuzzTarget; 6] = [
        FuzzTarget::WalReplay,
        FuzzTarget::TableReader,
        FuzzTarget::Manifest,
        FuzzTarget::Filter,
        FuzzTarget::Properties,
        FuzzTarget::Api,
    ];

    /// The name of its program in `fuzz/`, and of its folder in the corpus.
    pub fn name(self) -> &'static str {
        match self {
            FuzzTarget::WalReplay => "wal_replay",
            FuzzTarget::TableReader => "table_reader",
            FuzzTarget::Manifest => "manifest",
            FuzzTarget::Filter => "filter",
            FuzzTarget::Properties => "properties",
            FuzzTarget::Api => "api",
        }
    }

    /// Has `input` read.
    ///
    /// # Panics
    /// Where the engine does, or gives answers that contradict each other: that is a bug of the engine.
    pub fn run(self, input: &[u8]) {
        match self {
            FuzzTarget::WalReplay => log::run(input),
            FuzzTarget::TableReader => table::run(input),
            FuzzTarget::Manifest => manifest::run(input),
            FuzzTarget::Filter => sections::run_filter(input),
            FuzzTarget::Properties => sections::run_properties(input),
            FuzzTarget::Api => api::run(input),
        }
    }

    /// Sound inputs to begin with, written by the engine itself.
    ///
    /// # Panics
    /// Where writing them fails.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            FuzzTarget::WalReplay => log::seeds(),
            FuzzTarget::TableReader => table::seeds(),
            FuzzTarget::Manifest => manifest::seeds(),
            FuzzTarget::Filter => sections::filter_seeds(),
            FuzzTarget::Properties => sections::properties_seeds(),
            FuzzTarget::Api => api::seeds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_and_so_are_their_beginnings() {
        for target in FuzzTarget::ALL {
            let seeds = target.seeds();
            assert!(!seeds.is_empty(), "{target:?}");
            target.run(&[]);
            for seed in seeds {
                target.run(&seed);
                for part in 1..8 {
                    target.run(&seed[..seed.len() * part / 8]);
                }
            }
        }
    }
}
