//! Histories of many threads over one database, and whether there is an order that explains them.

mod history;
mod keys;
mod order;
mod record;
mod register;
mod round;
mod worker;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::seeds::panic_message;
use crate::violation::Violation;
use round::Rounds;

/// Runs real threads over one database, writes down when each call began and returned, and checks that there is one
/// order of all that was done in which every read sees the writes before it and no others:
///
/// - *single keys* that everybody writes are linearizable: a search finds an order of their puts, deletes and gets, or shows
///   that there is none;
/// - *batches* are atomic, and *cuts* (snapshots, iterators in both directions, cursors, `multi_get`) see a prefix of one
///   order of all batches of all keyspaces, that respects program order and time, and that all cuts agree on;
/// - *snapshots* do not change, however long they are held;
/// - *the end*: the database is closed, or its last handle dropped, at some moment while threads write, read, flush and compact.
///   Whoever still holds a part of it is told `Closed`, nothing that was acknowledged is missing after the next open, and
///   what had not been acknowledged happened once or never.
///
/// The seed draws the options and what every thread does; how the threads meet is up to the machine. A violation that
/// depends on that shows up again with the same seed only sooner or later.
///
/// ```
/// let concurrency = siltstone_tests::Concurrency { operations: 20, ..siltstone_tests::Concurrency::default() };
/// let figures = concurrency.run(1)?;
/// assert!(figures.operations > 20 && figures.cuts > 0);
/// # Ok::<(), siltstone_tests::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// How often the database is opened, worked on and closed.
    pub rounds: u64,
    /// What each thread does in a round, unless the round is cut short.
    pub operations: u64,
    /// A history that takes longer hangs, and is a violation; its threads are left behind.
    pub time_max: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            rounds: 4,
            operations: 150,
            time_max: Duration::from_secs(600),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConcurrencyFigures {
    /// Calls to the engine that were answered.
    pub operations: u64,
    /// Batches whose order was checked.
    pub batches: u64,
    /// Reads of many keys at one moment that were checked.
    pub cuts: u64,
    /// Accesses to single keys for which an order was found.
    pub accesses: u64,
    /// Rounds that were ended by `close` while threads were at work.
    pub closed_at_work: u64,
    /// Rounds that were ended by dropping the last handle.
    pub dropped: u64,
    /// Flushes and merging compactions that went on meanwhile.
    pub flushes: u64,
    /// See `flushes`.
    pub compactions: u64,
    /// Keys for which the search for an order was given up: neither right nor wrong.
    pub undecided: u64,
}

impl ConcurrencyFigures {
    /// Adds the figures of another history.
    pub fn add(&mut self, other: &ConcurrencyFigures) {
        self.operations += other.operations;
        self.batches += other.batches;
        self.cuts += other.cuts;
        self.accesses += other.accesses;
        self.closed_at_work += other.closed_at_work;
        self.dropped += other.dropped;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.undecided += other.undecided;
    }
}

impl Concurrency {
    /// Runs the history of `seed`, and checks it.
    ///
    /// # Errors
    /// A [`Violation`]: a read that no order explains, a call that failed without a reason, a panic, or a hang.
    pub fn run(&self, seed: u64) -> Result<ConcurrencyFigures, Violation> {
        let (answer, answered) = channel();
        let suite = self.clone();
        let runner = std::thread::spawn(move || {
            // Nobody waits for it any more if it comes too late.
            let _ = answer.send(Rounds::new(&suite, seed).run());
        });
        match answered.recv_timeout(self.time_max) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(Violation::new(format!(
                "the history hangs: it has not ended after {:?}",
                self.time_max
            ))),
            Err(RecvTimeoutError::Disconnected) => {
                let panic = runner.join().err();
                let text = panic.map_or_else(String::new, |panic| panic_message(&*panic));
                Err(Violation::new(format!("panicked: {text}")))
            }
        }
    }
}
