//! A history in progress: one open database, the model beside it, and every answer compared.

mod commits;
mod judge;
mod keyspaces;
mod lifecycle;
mod reads;
mod summary;
mod transcript;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use siltstone::vfs::{Fs, ManualClock, MemFs};
use siltstone::{
    BackgroundMode, Cursor, Db, Environment, Error, ErrorKind, Keyspace, Snapshot, VerifyOptions,
};

pub use self::judge::FaultJudge;
pub(crate) use self::lifecycle::Wreck;
use self::reads::Walk;
pub(crate) use self::summary::summary;
pub use self::transcript::Transcript;
use crate::directory::check_directory;
use crate::model::{Bounds, CommitIndex, Incarnation, Model, difference};
use crate::progress::{Presence, Progress};
use crate::random_options::RandomOptions;
use crate::violation::{Violation, must};
use crate::workload::Operation;

/// Cursors and snapshots that a history holds at the most.
const HELD_MAX: usize = 4;

/// Longer than the engine waits between two looks for room on a full disk.
const BETWEEN_PROBES: Duration = Duration::from_millis(25);

/// An open database with its [`Model`]: applies [`Operation`]s to both and compares every answer.
pub struct Session {
    environment: Environment,
    time_per_operation: Duration,
    clock: Option<ManualClock>,
    dir: PathBuf,
    options: RandomOptions,
    db: Option<Db>,
    keyspaces: BTreeMap<String, Keyspace>,
    model: Model,
    progress: Arc<Mutex<Progress>>,
    snapshots: Vec<HeldSnapshot>,
    cursors: Vec<HeldCursor>,
    judge: Option<FaultJudge>,
    /// Set where a crash has taken its copy of the disk: what the operation under way still does never happens.
    crashed: Arc<AtomicBool>,
    transcript: Transcript,
    /// Flushes and compactions before the last reopening.
    work_before: (u64, u64),
}

struct HeldSnapshot {
    snapshot: Snapshot,
    at: CommitIndex,
    /// What there was when it was taken.
    keyspaces: BTreeMap<String, Incarnation>,
}

struct HeldCursor {
    keyspace: Incarnation,
    cursor: Cursor,
    walk: Walk,
}

impl Session {
    /// A new database on a [`MemFs`], with a manual clock and background work as operations: all of it follows from
    /// the history.
    ///
    /// # Errors
    /// A [`Violation`] where opening fails.
    pub fn in_memory(options: RandomOptions) -> Result<Session, Violation> {
        Self::on(Arc::new(MemFs::new()), Path::new("db"), options)
    }

    /// The same on any file system.
    ///
    /// # Errors
    /// A [`Violation`] where opening fails.
    pub fn on(fs: Arc<dyn Fs>, dir: &Path, options: RandomOptions) -> Result<Session, Violation> {
        Self::begin(fs, dir, options, Arc::default(), None)
    }

    /// The same, with progress that a crash hook may look at, and, where I/O faults are to come, their judge.
    ///
    /// # Errors
    /// A [`Violation`] where opening fails and no fault explains it.
    pub fn begin(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: RandomOptions,
        progress: Arc<Mutex<Progress>>,
        judge: Option<FaultJudge>,
    ) -> Result<Session, Violation> {
        let clock = ManualClock::new();
        let environment = Environment {
            fs,
            clock: Arc::new(clock.clone()),
            background: BackgroundMode::Manual,
        };
        Self::start(environment, Some(clock), dir, options, progress, judge)
    }

    /// A new database on the operating system, with background threads.
    ///
    /// # Errors
    /// A [`Violation`] where opening fails.
    pub fn with_threads(dir: &Path, options: RandomOptions) -> Result<Session, Violation> {
        Self::start(Environment::default(), None, dir, options, Arc::default(), None)
    }

    /// A new database in any environment. Where its clock is a manual one, `clock` is that clock, and time passes between
    /// operations.
    ///
    /// # Errors
    /// A [`Violation`] where opening fails.
    pub fn in_environment(
        environment: Environment,
        clock: Option<ManualClock>,
        dir: &Path,
        options: RandomOptions,
    ) -> Result<Session, Violation> {
        Self::start(environment, clock, dir, options, Arc::default(), None)
    }

    fn start(
        environment: Environment,
        clock: Option<ManualClock>,
        dir: &Path,
        options: RandomOptions,
        progress: Arc<Mutex<Progress>>,
        judge: Option<FaultJudge>,
    ) -> Result<Session, Violation> {
        let model = Model::new();
        for name in model.keyspaces() {
            if let Some(incarnation) = model.incarnation(name) {
                // Until the first open has returned there may be no database at all.
                let entry = (incarnation, Presence::Live);
                progress.lock().keyspaces.insert(name.to_owned(), entry);
            }
        }
        // Where there are faults time does not stand still: what the engine tries again now and then is due each time.
        let time_per_operation = match judge {
            Some(_) => BETWEEN_PROBES,
            None => options.time_per_operation(),
        };
        let mut session = Session {
            time_per_operation,
            environment,
            clock,
            dir: dir.to_owned(),
            options,
            db: None,
            keyspaces: BTreeMap::new(),
            model,
            progress,
            snapshots: Vec::new(),
            cursors: Vec::new(),
            judge,
            crashed: Arc::default(),
            transcript: Transcript::default(),
            work_before: (0, 0),
        };
        session.open()?;
        Ok(session)
    }

    /// What the database should hold.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What has been promised so far.
    pub fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// The options it was opened with.
    pub fn options(&self) -> &RandomOptions {
        &self.options
    }

    /// The database.
    ///
    /// # Panics
    /// While it is being reopened.
    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("the database is open between operations")
    }

    /// Writes every answer down from now on.
    pub fn record(&mut self) {
        self.transcript.begin();
    }

    /// Writes down that an operation of the history is over.
    pub fn mark(&mut self, operation: usize) {
        self.transcript.mark(operation);
    }

    /// The answers so far.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// The clock, where it is a manual one.
    pub fn clock(&self) -> Option<&ManualClock> {
        self.clock.as_ref()
    }

    /// Whoever takes a copy of the disk in the middle of an operation sets this until [`recover`](Session::recover).
    pub(crate) fn crashed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.crashed)
    }

    /// The judge of faults, where there is one.
    pub(crate) fn judge(&mut self) -> Option<&mut FaultJudge> {
        self.judge.as_mut()
    }

    /// Flushes and merging compactions so far.
    pub fn work_done(&self) -> (u64, u64) {
        let (flushes, compactions) = self.work_before;
        let metrics = self.db.as_ref().map(Db::metrics).unwrap_or_default();
        (flushes + metrics.flushes, compactions + metrics.compactions)
    }

    /// Applies one operation and compares what it answers.
    ///
    /// # Errors
    /// A [`Violation`]: a wrong answer, or an error that no fault explains.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), Violation> {
        if let Some(clock) = &self.clock {
            clock.advance(self.time_per_operation);
        }
        if let Some(judge) = &mut self.judge {
            judge.begin_operation();
        }
        let outcome = match operation {
            Operation::Commit { batch, sync } => self.commit(batch, *sync),
            Operation::Get { .. }
            | Operation::MultiGet { .. }
            | Operation::Scan { .. }
            | Operation::OpenCursor { .. }
            | Operation::MoveCursor { .. }
            | Operation::CloseCursor(_)
            | Operation::TakeSnapshot
            | Operation::ReadSnapshot { .. }
            | Operation::DropSnapshot(_) => self.read(operation),
            Operation::Flush(name) => self.flush(name),
            Operation::FlushAll => self.flush_all(),
            Operation::Compact(name, bounds) => self.compact(name, bounds),
            Operation::Sync => self.sync(),
            Operation::Reopen { clean } => self.reopen(*clean),
            Operation::CreateKeyspace(name) => self.create_keyspace(name),
            Operation::DropKeyspace(name) => self.drop_keyspace(name),
            Operation::BackgroundJob => self.background_job(),
            Operation::WaitIdle => self.wait_idle(),
            Operation::Verify => self.verify(),
        };
        outcome.map_err(|violation| violation.context(format!("at {}", summary(operation))))
    }

    /// Compares everything, reopens, compares everything again, verifies all files, and closes.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn finish(mut self) -> Result<(), Violation> {
        self.compare_all()?;
        self.apply(&Operation::Verify)?;
        self.apply(&Operation::Reopen { clean: true })?;
        self.apply(&Operation::FlushAll)?;
        self.apply(&Operation::WaitIdle)?;
        self.apply(&Operation::Verify)?;
        let db = self.db.take().expect("the database is open between operations");
        check_directory(&*self.environment.fs, &self.dir, &db)?;
        self.keyspaces.clear();
        must("close", db.close())
    }

    /// Closes the database as it is.
    ///
    /// # Errors
    /// A [`Violation`] where closing fails.
    pub fn close(mut self) -> Result<(), Violation> {
        self.cursors.clear();
        self.snapshots.clear();
        self.keyspaces.clear();
        let db = self.db.take().expect("the database is open between operations");
        must("close", db.close())
    }

    /// Whether an error is explained by a fault; without faults none is.
    fn excuse(&mut self, during: &str, error: &Error, reads_only: bool) -> Result<(), Violation> {
        match &mut self.judge {
            None => Err(Violation::unexpected(during, error)),
            Some(judge) => judge.excuse(during, error, reads_only),
        }
    }

    fn keyspace(&self, name: &str) -> Option<(Keyspace, Incarnation)> {
        Some((self.keyspaces.get(name)?.clone(), self.model.incarnation(name)?))
    }

    fn note_durable(&mut self) {
        let mut progress = self.progress.lock();
        progress.synced = progress.acknowledged;
    }

    fn flush(&mut self, name: &str) -> Result<(), Violation> {
        let Some((keyspace, _)) = self.keyspace(name) else {
            return Ok(());
        };
        keyspace
            .flush()
            .or_else(|error| self.excuse("flush", &error, false))
    }

    fn flush_all(&mut self) -> Result<(), Violation> {
        match self.db().flush_all() {
            Ok(()) => self.note_durable(),
            Err(error) => self.excuse("flush_all", &error, false)?,
        }
        Ok(())
    }

    fn compact(&mut self, name: &str, bounds: &Bounds) -> Result<(), Violation> {
        let Some((keyspace, _)) = self.keyspace(name) else {
            return Ok(());
        };
        let outcome = keyspace.compact(bounds.clone());
        outcome.or_else(|error| self.excuse("compact", &error, false))
    }

    fn sync(&mut self) -> Result<(), Violation> {
        match self.db().sync() {
            Ok(()) => self.note_durable(),
            Err(error) => self.excuse("sync", &error, false)?,
        }
        Ok(())
    }

    fn background_job(&mut self) -> Result<(), Violation> {
        let outcome = self.db().run_background_job().map(drop);
        outcome.or_else(|error| self.excuse("a background job", &error, false))
    }

    fn wait_idle(&mut self) -> Result<(), Violation> {
        let outcome = self.db().wait_idle();
        outcome.or_else(|error| self.excuse("wait_idle", &error, false))
    }

    fn verify(&mut self) -> Result<(), Violation> {
        match self.db().verify(&VerifyOptions::default()) {
            Ok(report) if report.is_sound() => Ok(()),
            Ok(report) => match &report.damage[..] {
                // A read that a fault struck, of a table that is not mapped.
                [(_, error), ..] if matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace) => {
                    let error = error.clone();
                    self.excuse("verify", &error, true)
                }
                damage => Err(Violation::new(format!("verify finds damage: {damage:?}"))),
            },
            Err(error) => self.excuse("verify", &error, true),
        }
    }

    /// Compares every keyspace as a whole, in both directions.
    ///
    /// # Errors
    /// A [`Violation`] with the first differences.
    pub fn compare_all(&self) -> Result<(), Violation> {
        for (name, keyspace) in &self.keyspaces {
            let Some(incarnation) = self.model.incarnation(name) else {
                return Err(Violation::new(format!("keyspace {name} should not be there")));
            };
            let expected = self.model.entries(incarnation, self.model.last());
            let found = crate::model::read_forward(keyspace)?;
            if found != expected {
                return Err(Violation::new(format!(
                    "keyspace {name} forwards: {}",
                    difference(&expected, &found)
                )));
            }
            let backwards = must("iter", keyspace.iter())?.rev().map(|entry| {
                let (key, value) = must("next_back", entry)?;
                Ok((key.to_vec(), value.to_vec()))
            });
            let backwards: Vec<_> = backwards.collect::<Result<_, Violation>>()?;
            if !backwards.iter().rev().map(|(k, v)| (k, v)).eq(expected.iter()) {
                let found = backwards.into_iter().collect();
                return Err(Violation::new(format!(
                    "keyspace {name} backwards: {}",
                    difference(&expected, &found)
                )));
            }
        }
        Ok(())
    }

    /// Whether a write failed and nothing was resumed since.
    pub fn is_refusing_writes(&self) -> bool {
        self.judge.as_ref().is_some_and(FaultJudge::is_sticky)
    }

    /// From now on no error is excused.
    pub fn expect_no_more_faults(&mut self) {
        self.judge = None;
    }

    /// Calls `resume`, and checks that writes go on.
    ///
    /// # Errors
    /// A [`Violation`] where it fails and no fault explains it.
    pub fn resume(&mut self) -> Result<(), Violation> {
        if let Some(clock) = &self.clock {
            clock.advance(self.time_per_operation);
        }
        if let Some(judge) = &mut self.judge {
            judge.begin_operation();
        }
        if let Err(error) = self.db().resume() {
            return self.excuse("resume", &error, false);
        }
        if let Some(judge) = &mut self.judge {
            judge.note_reopened();
        }
        // Whatever is visible is in tables now, or follows in the new log.
        self.progress.lock().acknowledged = self.model.last();
        Ok(())
    }
}
