//! Histories: operations drawn from a seed.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::{Bounds, DEFAULT_KEYSPACE, Write};

/// The keyspaces that histories create and drop, beside the default one.
pub const KEYSPACES: [&str; 3] = ["a", "b", "c"];

/// A move of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorStep {
    /// To the first entry.
    First,
    /// To the last entry.
    Last,
    /// To the first entry at or after the key.
    Seek(Vec<u8>),
    /// To the last entry at or before the key.
    SeekForPrev(Vec<u8>),
    /// Onwards; from nowhere it is skipped.
    Next,
    /// Back; from nowhere it is skipped.
    Prev,
}

/// One operation of a history. What does not apply (a keyspace that is not there) is skipped, so that every part of a
/// history is a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a batch; synced where `sync` says so, else with the database's durability.
    Commit {
        /// The batch.
        batch: Vec<Write>,
        /// Whether it is written with `Durability::Sync`.
        sync: bool,
    },
    /// Reads a key in every way there is.
    Get {
        /// The keyspace.
        keyspace: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Reads several keys at once.
    MultiGet {
        /// The keyspace.
        keyspace: String,
        /// The keys, in any order, some of them twice.
        keys: Vec<Vec<u8>>,
    },
    /// Iterates from either end, as the bits of `ends` say.
    Scan {
        /// The keyspace.
        keyspace: String,
        /// The range.
        bounds: Bounds,
        /// Bit `n % 64` says from which end the n-th entry is taken.
        ends: u64,
    },
    /// Opens a cursor that stays open while the history goes on.
    OpenCursor {
        /// The keyspace.
        keyspace: String,
        /// The range.
        bounds: Bounds,
    },
    /// Moves one of the open cursors.
    MoveCursor {
        /// Which one, modulo how many there are.
        nth: usize,
        /// The moves.
        steps: Vec<CursorStep>,
    },
    /// Closes one of the open cursors.
    CloseCursor(usize),
    /// Takes a snapshot.
    TakeSnapshot,
    /// Reads a key, and scans, at one of the snapshots.
    ReadSnapshot {
        /// Which one, modulo how many there are.
        nth: usize,
        /// The keyspace.
        keyspace: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Releases one of the snapshots.
    DropSnapshot(usize),
    /// Flushes one keyspace.
    Flush(String),
    /// Flushes all keyspaces.
    FlushAll,
    /// Compacts a range.
    Compact(String, Bounds),
    /// Makes everything so far survive power loss.
    Sync,
    /// Closes (or, not `clean`, only drops) the database and opens it again.
    Reopen {
        /// Whether it is closed.
        clean: bool,
    },
    /// Creates a keyspace, or changes its options.
    CreateKeyspace(String),
    /// Drops a keyspace.
    DropKeyspace(String),
    /// Runs a background job, if one is due.
    BackgroundJob,
    /// Does all background work.
    WaitIdle,
    /// Verifies all files.
    Verify,
}

/// The shape of histories.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadOptions {
    /// How many different keys there are in a keyspace.
    pub keys: u32,
    /// The length of most values; a few are much longer.
    pub value_bytes: usize,
    /// The most writes of a batch.
    pub batch_writes_max: usize,
    /// Whether keyspaces other than the default one are used.
    pub keyspaces: bool,
    /// Whether the database is reopened on the way.
    pub reopen: bool,
    /// Of 100 operations, how many only read.
    pub reads_percent: u32,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        Self {
            keys: 120,
            value_bytes: 200,
            batch_writes_max: 12,
            keyspaces: true,
            reopen: true,
            reads_percent: 30,
        }
    }
}

/// An endless iterator of [`Operation`]s; the same seed gives the same history.
///
/// ```
/// use siltstone_tests::{Workload, WorkloadOptions};
/// let take = |seed| Workload::new(seed, WorkloadOptions::default()).take(50).collect::<Vec<_>>();
/// assert_eq!(take(1), take(1));
/// assert_ne!(take(1), take(2));
/// ```
#[derive(Clone, Debug)]
pub struct Workload {
    rng: StdRng,
    options: WorkloadOptions,
    /// How often this history syncs, in percent: some never do, so that much is at stake in a power loss.
    sync_percent: u32,
    written: u64,
}

impl Workload {
    /// The history of `seed`.
    pub fn new(seed: u64, options: WorkloadOptions) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let sync_percent = [0, 3, 15, 50][rng.random_range(0..4)];
        Self {
            rng,
            options,
            sync_percent,
            written: 0,
        }
    }

    fn keyspace(&mut self) -> String {
        if !self.options.keyspaces || self.rng.random_bool(0.5) {
            return DEFAULT_KEYSPACE.into();
        }
        self.named_keyspace()
    }

    fn named_keyspace(&mut self) -> String {
        KEYSPACES[self.rng.random_range(0..KEYSPACES.len())].into()
    }

    /// Keys collide often. A few are odd: empty, of zeros, of 0xff, long, a prefix of others.
    fn key(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..50) {
            0 => Vec::new(),
            1 => vec![0; self.rng.random_range(1..4)],
            2 => vec![0xff; self.rng.random_range(1..4)],
            3 => vec![b'k'; self.rng.random_range(1..300)],
            _ => format!("key{:04}", self.rng.random_range(0..self.options.keys)).into_bytes(),
        }
    }

    /// Every value is different, and tells by which write it was made.
    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        let usual = self.options.value_bytes;
        let len = match self.rng.random_range(0..60) {
            0 => 0,
            1 => self.rng.random_range(0..usual * 50 + 1),
            2..5 => self.rng.random_range(0..usual * 10 + 1),
            _ => self.rng.random_range(0..usual * 2 + 1),
        };
        let mut value = format!("{}:", self.written).into_bytes();
        // Half compressible: runs of one random byte.
        while value.len() < len {
            let byte: u8 = self.rng.random();
            let run = self.rng.random_range(1..8);
            value.extend(std::iter::repeat_n(byte, run));
        }
        value.truncate(len.max(if len == 0 { 0 } else { 4 }));
        value
    }

    fn write(&mut self) -> Write {
        let (keyspace, key) = (self.keyspace(), self.key());
        let value = self.rng.random_bool(0.72).then(|| self.value());
        Write { keyspace, key, value }
    }

    fn bounds(&mut self) -> Bounds {
        let bound = |workload: &mut Self| match workload.rng.random_range(0..3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(workload.key()),
            _ => Bound::Excluded(workload.key()),
        };
        let (low, high) = (bound(self), bound(self));
        (low, high)
    }

    fn keys(&mut self) -> Vec<Vec<u8>> {
        let count = self.rng.random_range(0..40);
        (0..count).map(|_| self.key()).collect()
    }

    fn steps(&mut self) -> Vec<CursorStep> {
        let count = self.rng.random_range(1..25);
        (0..count)
            .map(|_| match self.rng.random_range(0..12) {
                0 => CursorStep::First,
                1 => CursorStep::Last,
                2 => CursorStep::Seek(self.key()),
                3 => CursorStep::SeekForPrev(self.key()),
                4..8 => CursorStep::Next,
                _ => CursorStep::Prev,
            })
            .collect()
    }

    fn read(&mut self) -> Operation {
        match self.rng.random_range(0..13) {
            12 => Operation::MultiGet {
                keyspace: self.keyspace(),
                keys: self.keys(),
            },
            0..3 => Operation::Get {
                keyspace: self.keyspace(),
                key: self.key(),
            },
            3 | 4 => Operation::Scan {
                keyspace: self.keyspace(),
                bounds: self.bounds(),
                ends: self.rng.random(),
            },
            5 => Operation::OpenCursor {
                keyspace: self.keyspace(),
                bounds: self.bounds(),
            },
            6 | 7 => Operation::MoveCursor {
                nth: self.rng.random_range(0..8),
                steps: self.steps(),
            },
            8 => Operation::CloseCursor(self.rng.random_range(0..8)),
            9 => Operation::TakeSnapshot,
            10 => Operation::ReadSnapshot {
                nth: self.rng.random_range(0..8),
                keyspace: self.keyspace(),
                key: self.key(),
            },
            _ => Operation::DropSnapshot(self.rng.random_range(0..8)),
        }
    }

    fn commit(&mut self) -> Operation {
        let count = if self.rng.random_bool(0.3) {
            1
        } else {
            self.rng.random_range(1..=self.options.batch_writes_max)
        };
        Operation::Commit {
            batch: (0..count).map(|_| self.write()).collect(),
            sync: self.rng.random_range(0..100) < self.sync_percent,
        }
    }
}

impl Iterator for Workload {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if self.rng.random_range(0..100) < self.options.reads_percent {
            return Some(self.read());
        }
        let operation = match self.rng.random_range(0..100) {
            0..4 => Operation::Flush(self.keyspace()),
            4..6 => Operation::FlushAll,
            6..8 => Operation::Compact(self.keyspace(), self.bounds()),
            8..10 => Operation::Compact(self.keyspace(), (Bound::Unbounded, Bound::Unbounded)),
            10..13 if self.sync_percent > 0 => Operation::Sync,
            13..15 if self.options.reopen => Operation::Reopen {
                clean: self.rng.random_bool(0.5),
            },
            15..19 if self.options.keyspaces => Operation::CreateKeyspace(self.named_keyspace()),
            19 if self.options.keyspaces => Operation::DropKeyspace(self.named_keyspace()),
            20..34 => Operation::BackgroundJob,
            34..36 => Operation::WaitIdle,
            36 => Operation::Verify,
            _ => self.commit(),
        };
        Some(operation)
    }
}
