//! One database, opened, worked on by many threads, and closed, a few times.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{MemFs, OsFs};
use siltstone::{Db, Environment, Keyspace, VerifyOptions};

use super::history::LogicalClock;
use super::keys::{Key, OTHER, SHARED_KEYS};
use super::record::Record;
use super::worker::{Held, Shared, Stop, Worker, look};
use super::{Concurrency, ConcurrencyFigures};
use crate::random_options::RandomOptions;
use crate::seeds::panic_message;
use crate::violation::{Violation, must};

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `close` at some moment, under the hands of all threads.
    Close,
    /// All threads let go at some moment; snapshots and iterators outlive the database.
    DropEarly,
    /// All threads have done what they had to do.
    Drop,
}

pub(super) struct Rounds<'s> {
    suite: &'s Concurrency,
    seed: u64,
    rng: StdRng,
    environment: Environment,
    dir: PathBuf,
    /// Where the files of a history on the real file system lie.
    _temporary: Option<tempfile::TempDir>,
    clock: Arc<LogicalClock>,
    writers: usize,
    readers: usize,
    record: Record,
    /// Of each writer, the values that it has put into shared keys.
    values: Vec<u64>,
    figures: ConcurrencyFigures,
}

impl<'s> Rounds<'s> {
    pub(super) fn new(suite: &'s Concurrency, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7468_7265_6164);
        let temporary = seed
            .is_multiple_of(8)
            .then(|| tempfile::tempdir().expect("a temporary directory"));
        let environment = match temporary {
            Some(_) => Environment {
                fs: Arc::new(OsFs::new()),
                ..Environment::default()
            },
            None => Environment {
                fs: Arc::new(MemFs::new()),
                ..Environment::default()
            },
        };
        let (writers, readers) = (rng.random_range(2..=4), rng.random_range(0..=2));
        Self {
            suite,
            seed,
            rng,
            environment,
            dir: temporary
                .as_ref()
                .map_or_else(|| PathBuf::from("db"), |dir| dir.path().join("db")),
            _temporary: temporary,
            clock: Arc::default(),
            writers,
            readers,
            record: Record::new(writers),
            values: vec![0; writers],
            figures: ConcurrencyFigures::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<ConcurrencyFigures, Violation> {
        for round in 0..self.suite.rounds {
            self.round(round)
                .map_err(|violation| violation.context(format!("round {round}")))?;
        }
        let (db, other) = self.open(self.suite.rounds)?;
        let verified = must("verify", db.verify(&VerifyOptions::default()))?;
        if !verified.is_sound() {
            return Err(Violation::new(format!(
                "verify finds damage: {:?}",
                verified.damage
            )));
        }
        drop(other);
        must("close", db.close())?;
        self.figures.undecided += self.record.check()?;
        self.figures.batches = self
            .record
            .batches
            .iter()
            .map(|batches| batches.len() as u64)
            .sum();
        self.figures.cuts = self.record.sights.len() as u64;
        self.figures.accesses = self.record.shared.len() as u64;
        Ok(self.figures)
    }

    /// Opens the database, and looks what has become of the round before.
    fn open(&mut self, round: u64) -> Result<(Db, Keyspace), Violation> {
        // Each round under other options.
        let options = RandomOptions::new(self.seed.wrapping_add(round * 0x9E37_79B9));
        let db = must(
            "open",
            options.options().open_with(&self.dir, self.environment.clone()),
        )?;
        let other = must("keyspace", db.keyspace(OTHER, options.keyspace(OTHER)))?;
        let sight = look(&self.shared(), &db, &other)?;
        self.record.settle(&sight);
        self.record.sights.push(sight);
        Ok((db, other))
    }

    fn shared(&self) -> Shared {
        Shared {
            clock: Arc::clone(&self.clock),
            closing: AtomicBool::new(false),
            writers: self.writers,
        }
    }

    fn round(&mut self, round: u64) -> Result<(), Violation> {
        let (db, other) = self.open(round)?;
        let end = match self.rng.random_range(0..4) {
            0 | 1 => End::Close,
            2 => End::DropEarly,
            _ => End::Drop,
        };
        let shared = Arc::new(self.shared());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = self.writers + self.readers;
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let batches = self
                    .record
                    .batches
                    .get(thread)
                    .map_or(0, |batches| batches.len() as u64);
                let values = self.values.get(thread).copied().unwrap_or(0);
                let seed = self.seed ^ (round * 64 + thread as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let handles = (db.clone(), other.clone());
                let worker = Worker::new(handles, Arc::clone(&shared), thread, (batches, values), seed);
                let (stop, operations) = (Arc::clone(&stop), self.suite.operations);
                std::thread::spawn(move || worker.run(operations, &stop))
            })
            .collect();
        // Most calls take two ticks.
        let whole = self.suite.operations * threads as u64 * 2;
        let last = match end {
            End::Drop => whole * 7 / 10,
            End::Close | End::DropEarly => self.rng.random_range(0..whole * 8 / 10),
        };
        let maintained = self.maintain(&db, &other, &shared, self.clock.now() + last, &workers);
        let figures = db.metrics();
        match end {
            End::Close => {
                drop(other);
                shared.closing.store(true, Ordering::SeqCst);
                must("close under work", db.close())?;
                self.figures.closed_at_work += 1;
            }
            End::DropEarly | End::Drop => {
                if end == End::DropEarly {
                    stop.store(true, Ordering::Relaxed);
                }
                drop((db, other));
                self.figures.dropped += 1;
            }
        }
        let mut held: Vec<Held> = Vec::new();
        for (thread, worker) in workers.into_iter().enumerate() {
            let outcome = worker.join().map_err(|panic| {
                Violation::new(format!("thread {thread} panicked: {}", panic_message(&*panic)))
            })?;
            let (record, kept, operations, values) = outcome?;
            self.record.merge(record);
            held.push(kept);
            self.figures.operations += operations;
            if let Some(all) = self.values.get_mut(thread) {
                *all = values;
            }
        }
        maintained?;
        self.figures.flushes += figures.flushes;
        self.figures.compactions += figures.compactions;
        held.into_iter().try_for_each(Held::check_closed)
    }

    /// Flushes, compacts and syncs, by hand and beside the background threads, until the clock says `last`, or nobody
    /// moves it any more.
    fn maintain<T>(
        &mut self,
        db: &Db,
        other: &Keyspace,
        shared: &Shared,
        last: u64,
        workers: &[std::thread::JoinHandle<T>],
    ) -> Result<(), Violation> {
        let mut next = shared.clock.now();
        while shared.clock.now() < last && workers.iter().any(|worker| !worker.is_finished()) {
            if shared.clock.now() < next {
                std::thread::yield_now();
                continue;
            }
            // Not too often: what is done by hand leaves the background threads nothing to do.
            next += self.rng.random_range(0..300);
            let keyspace: &Keyspace = if self.rng.random_bool(0.5) { other } else { db };
            let (what, answer) = match self.rng.random_range(0..5) {
                0 => ("flush", keyspace.flush()),
                1 => ("flush_all", db.flush_all()),
                2 => ("compact", keyspace.compact::<&[u8]>(..)),
                3 => {
                    let key = Key::Shared(self.rng.random_range(0..SHARED_KEYS)).bytes();
                    ("compact a part", keyspace.compact(key..))
                }
                _ => ("sync", db.sync()),
            };
            match shared.answer(what, answer) {
                Ok(()) => self.figures.operations += 1,
                Err(Stop::Closed) => {
                    return Err(Violation::new(format!("{what}: closed, and nobody closes")));
                }
                Err(Stop::Wrong(violation)) => return Err(violation),
            }
        }
        Ok(())
    }
}
