//! Crashes before every I/O of a history, and what must be left.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::vfs::{FaultFs, Fs, ManualClock, MemFs, OpInfo, OpKind};
use siltstone::{BackgroundMode, Db, Environment, Keyspace, VerifyOptions, WriteBatch, WriteOptions};

use crate::directory::check_directory;
use crate::model::{CommitIndex, DEFAULT_KEYSPACE, Model, State, difference};
use crate::progress::Progress;
use crate::random_options::RandomOptions;
use crate::session::Session;
use crate::violation::{Violation, must};
use crate::workload::{Operation, Workload, WorkloadOptions};

/// The key that is written after a recovery, to see that the database takes writes.
const AFTER: &[u8] = b"\x01written after the crash";

/// Crashes one history before every I/O that changes something, recovers each outcome, and checks the prefix
/// contract: what is recovered is the state after some commit, no earlier than the last one that was promised to
/// survive, whole across keyspaces; all files are sound, no leftovers remain, writes are taken, and a second crash
/// and recovery gives the same.
///
/// ```
/// let driver = siltstone_tests::CrashDriver { operations: 6, ..siltstone_tests::CrashDriver::default() };
/// assert!(driver.run(1)?.points > 10);
/// # Ok::<(), siltstone_tests::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrashDriver {
    /// The length of a history.
    pub operations: usize,
    /// How many ways a power loss may go are tried at each point; the death of the process is one more.
    pub power_losses: u64,
    /// One in so many recoveries is crashed before every I/O of its own.
    pub nested_every: u64,
    /// The shape of the history.
    pub workload: WorkloadOptions,
}

impl Default for CrashDriver {
    fn default() -> Self {
        Self {
            operations: 120,
            power_losses: 2,
            nested_every: 150,
            workload: WorkloadOptions {
                keys: 60,
                value_bytes: 120,
                reads_percent: 10,
                ..WorkloadOptions::default()
            },
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashFigures {
    /// Commits of the histories.
    pub commits: u64,
    /// Moments before an I/O of a history at which it was crashed.
    pub points: u64,
    /// Moments before an I/O of a recovery at which that was crashed.
    pub nested_points: u64,
    /// Outcomes that were recovered and checked.
    pub recoveries: u64,
    /// Log segments that were made of the file of an earlier one.
    pub reuses: u64,
    /// Flushes and merging compactions that the histories went through.
    pub flushes: u64,
    /// See `flushes`.
    pub compactions: u64,
}

impl CrashFigures {
    /// Adds the figures of another history.
    pub fn add(&mut self, other: &CrashFigures) {
        self.commits += other.commits;
        self.points += other.points;
        self.nested_points += other.nested_points;
        self.recoveries += other.recoveries;
        self.reuses += other.reuses;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
    }
}

/// How the lights went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process died: everything written is there, and what was not synced may still be lost when the power goes later.
    Process,
    /// The power went; the seed chooses among the outcomes of what was not synced.
    Power(u64),
}

impl Loss {
    /// What it leaves of a disk.
    pub fn left(self, fs: &MemFs) -> MemFs {
        match self {
            Loss::Process => fs.killed_clone(),
            Loss::Power(seed) => fs.crash_clone(seed),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Process => f.write_str("the process dies"),
            Loss::Power(seed) => write!(f, "the power goes (loss {seed})"),
        }
    }
}

/// What was left at one point, and what had been promised.
pub(crate) struct Point<P> {
    pub(crate) before: OpInfo,
    pub(crate) progress: P,
    left: Vec<(Loss, MemFs)>,
}

impl<P> Point<P> {
    /// Every outcome: how it came about, whether only what was synced had to survive, and the disk.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (String, bool, &MemFs)> {
        let OpInfo {
            index, kind, path, ..
        } = &self.before;
        self.left.iter().map(move |(loss, left)| {
            let name = format!(
                "crash ({loss:?}) before I/O {index} ({kind:?} {})",
                path.display()
            );
            (name, *loss != Loss::Process, left)
        })
    }
}

pub(crate) type Points<P> = Arc<Mutex<Vec<Point<P>>>>;

pub(crate) fn changes_something(kind: OpKind) -> bool {
    !matches!(
        kind,
        OpKind::Open
            | OpKind::OpenTable
            | OpKind::List
            | OpKind::Len
            | OpKind::Exists
            | OpKind::Read
            | OpKind::Lock
            | OpKind::Space
    )
}

/// Has a copy of what a crash would leave taken before every I/O that changes something.
pub(crate) fn watch<P: Clone + Send + 'static>(
    fs: &MemFs,
    faults: &FaultFs,
    progress: &Arc<Mutex<P>>,
    seed: u64,
    losses: u64,
) -> Points<P> {
    let points: Points<P> = Arc::default();
    let (sink, fs, progress) = (Arc::clone(&points), fs.clone(), Arc::clone(progress));
    faults.set_tracing(false);
    faults.on_op(Box::new(move |before| {
        if changes_something(before.kind) {
            let left = outcomes(
                &fs,
                seed.wrapping_mul(0x9E37_79B9).wrapping_add(before.index),
                losses,
            );
            sink.lock().push(Point {
                before: before.clone(),
                progress: progress.lock().clone(),
                left,
            });
        }
    }));
    points
}

fn outcomes(fs: &MemFs, seed: u64, losses: u64) -> Vec<(Loss, MemFs)> {
    let power = (0..losses).map(|n| Loss::Power(seed.wrapping_mul(31).wrapping_add(n)));
    std::iter::once(Loss::Process)
        .chain(power)
        .map(|loss| (loss, loss.left(fs)))
        .collect()
}

pub(crate) fn environment(fs: Arc<dyn Fs>) -> Environment {
    Environment {
        fs,
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    }
}

impl CrashDriver {
    /// Runs the history of `seed` and crashes it everywhere.
    ///
    /// # Errors
    /// A [`Violation`] that names the operation, the I/O before which it crashed, and how.
    pub fn run(&self, seed: u64) -> Result<CrashFigures, Violation> {
        let options = RandomOptions::new(seed);
        let fs = MemFs::new();
        let faults = FaultFs::new(Arc::new(fs.clone()));
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let points = watch(&fs, &faults, &progress, seed, self.power_losses);
        let dir = Path::new("db");
        let mut figures = CrashFigures::default();

        let mut session = Session::begin(
            Arc::new(faults.clone()),
            dir,
            options.clone(),
            Arc::clone(&progress),
            None,
        )?;
        let mut history = Workload::new(seed, self.workload.clone()).take(self.operations);
        let mut operation: Option<Operation> = None;
        loop {
            let taken = std::mem::take(&mut *points.lock());
            for point in taken {
                self.check_point(&session, &options, &point, seed, &mut figures)
                    .map_err(|violation| {
                        let during = operation.as_ref().map_or_else(
                            || "the first open".to_owned(),
                            |operation| {
                                let text = format!("{operation:?}");
                                text.chars().take(120).collect()
                            },
                        );
                        violation.context(format!("during {during}"))
                    })?;
            }
            let Some(next) = history.next() else { break };
            session.apply(&next)?;
            operation = Some(next);
        }
        figures.commits = session.model().last().0;
        (figures.flushes, figures.compactions) = session.work_done();
        faults.clear_on_op();
        session.finish()?;
        Ok(figures)
    }

    fn check_point(
        &self,
        session: &Session,
        options: &RandomOptions,
        point: &Point<Progress>,
        seed: u64,
        figures: &mut CrashFigures,
    ) -> Result<(), Violation> {
        figures.points += 1;
        figures.reuses += u64::from(point.before.kind == OpKind::Reuse);
        for (loss, left) in &point.left {
            figures.recoveries += 1;
            let recovery = Recovery {
                model: session.model(),
                progress: &point.progress,
                floor: match loss {
                    Loss::Process => point.progress.acknowledged,
                    Loss::Power(_) => point.progress.synced,
                },
                // Now and then recovered under other options than it was written under.
                options: if point.before.index % 4 == 3 {
                    RandomOptions::new(seed ^ point.before.index)
                } else {
                    options.clone()
                },
                seed: seed ^ point.before.index,
            };
            let name = |violation: Violation| {
                let OpInfo {
                    index, kind, path, ..
                } = &point.before;
                violation.context(format!(
                    "crash ({loss:?}) before I/O {index} ({kind:?} {})",
                    path.display()
                ))
            };
            if self.nested_every > 0 && figures.recoveries.is_multiple_of(self.nested_every) {
                self.nest(&recovery, left, figures).map_err(name)?;
            }
            recovery.check(left).map_err(name)?;
        }
        Ok(())
    }

    /// Crashes a recovery before every I/O of its own.
    fn nest(
        &self,
        recovery: &Recovery<'_>,
        left: &MemFs,
        figures: &mut CrashFigures,
    ) -> Result<(), Violation> {
        let fs = left.killed_clone();
        let faults = FaultFs::new(Arc::new(fs.clone()));
        let progress = Arc::new(Mutex::new(recovery.progress.clone()));
        let points = watch(&fs, &faults, &progress, recovery.seed, self.power_losses);
        faults.set_tracing(true);
        let options = recovery.options.options();
        let opened = options.open_with("db", environment(Arc::new(faults.clone())));
        drop(must("open", opened)?);
        faults.clear_on_op();
        let trace = faults.trace();
        let taken = std::mem::take(&mut *points.lock());
        for point in taken {
            figures.nested_points += 1;
            for (loss, left) in &point.left {
                figures.recoveries += 1;
                let recovery = Recovery {
                    // What a killed process had not synced is still at stake while it is being recovered.
                    floor: match loss {
                        Loss::Process => recovery.floor,
                        Loss::Power(_) => recovery.floor.min(recovery.progress.synced),
                    },
                    options: recovery.options.clone(),
                    ..*recovery
                };
                recovery.check(left).map_err(|violation| {
                    let OpInfo {
                        index, kind, path, ..
                    } = &point.before;
                    let done = usize::try_from(*index).unwrap_or(trace.len()).min(trace.len());
                    violation.context(format!(
                        "and crash ({loss:?}) of the recovery before its I/O {index} ({kind:?} {}), after {:?}",
                        path.display(),
                        &trace[..done]
                    ))
                })?;
            }
        }
        Ok(())
    }
}

/// What a recovery is checked against.
pub(crate) struct Recovery<'m> {
    pub(crate) model: &'m Model,
    pub(crate) progress: &'m Progress,
    /// The first commit whose state may be found; the last is the last one that was started.
    pub(crate) floor: CommitIndex,
    pub(crate) options: RandomOptions,
    pub(crate) seed: u64,
}

impl Recovery<'_> {
    /// Opens what was left and checks all that is promised. Leaves `left` as it was.
    pub(crate) fn check(&self, left: &MemFs) -> Result<(), Violation> {
        let dir = Path::new("db");
        let fs = left.killed_clone();
        // Whether it opens on a full disk is not asked here, and it is to take writes.
        fs.set_capacity(None);
        let db = must("recovery", self.open(&fs))?;
        let report = db.recovery().clone();
        if report.recovered < report.durable {
            return Err(Violation::new(format!(
                "the report says durable {} but recovered {}",
                report.durable, report.recovered
            )));
        }
        if !report.damaged_tables.is_empty() {
            return Err(Violation::new(format!(
                "damaged tables: {:?}",
                report.damaged_tables
            )));
        }
        let mut state = State::read(&db, |name| self.options.keyspace(name))?;
        self.model
            .matching_prefix(&state, self.progress, self.floor..=self.progress.started)
            .map_err(|violation| violation.context(format!("{report:?}")))?;
        let verified = must("verify", db.verify(&VerifyOptions::default()))?;
        if !verified.is_sound() {
            return Err(Violation::new(format!(
                "verify finds damage: {:?}",
                verified.damage
            )));
        }
        check_directory(&fs, dir, &db)?;

        // It takes writes, in every keyspace; and they and all before them survive the next crash.
        let mut batch = WriteBatch::new();
        for (name, entries) in &mut state.keyspaces {
            let keyspace = if name == DEFAULT_KEYSPACE {
                Keyspace::clone(&db)
            } else {
                must("keyspace", db.keyspace(name, self.options.keyspace(name)))?
            };
            batch.put_in(&keyspace, AFTER, name.as_bytes());
            entries.insert(AFTER.to_vec(), name.as_bytes().to_vec());
        }
        must(
            "a write after recovery",
            db.write_with(batch, &WriteOptions::sync()),
        )?;
        let again = if self.seed.is_multiple_of(2) {
            drop(db);
            fs.crash_clone(self.seed)
        } else {
            let again = fs.crash_clone(self.seed);
            drop(db);
            again
        };
        let db = must("the second recovery", self.open(&again))?;
        let found = State::read(&db, |name| self.options.keyspace(name))?;
        if found != state {
            let keyspaces = state.keyspaces.iter().map(|(name, expected)| {
                let nothing = Default::default();
                let found = found.keyspaces.get(name).unwrap_or(&nothing);
                format!("{name}: {}", difference(expected, found))
            });
            return Err(Violation::new(format!(
                "the second recovery gives another state: {}",
                keyspaces.collect::<Vec<_>>().join("; ")
            )));
        }
        Ok(())
    }

    fn open(&self, fs: &MemFs) -> siltstone::Result<Db> {
        let options = self.options.options();
        options.open_with("db", environment(Arc::new(fs.clone())))
    }
}
