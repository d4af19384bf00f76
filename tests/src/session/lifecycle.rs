//! A session's openings: after a close, after the death of the process, and after a crash.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone::vfs::{Fs, ManualClock, MemFs};
use siltstone::{BackgroundMode, Db, Environment, Keyspace};

use super::{FaultJudge, Session};
use crate::model::{CommitIndex, DEFAULT_KEYSPACE, State};
use crate::progress::{Presence, Progress};
use crate::random_options::RandomOptions;
use crate::violation::{Violation, must};
use crate::workload::Operation;

/// What a crash left, and what had been promised when it came.
pub(crate) struct Wreck {
    pub(crate) left: MemFs,
    pub(crate) progress: Progress,
    /// The first commit whose state may be found.
    pub(crate) floor: CommitIndex,
}

impl Session {
    pub(super) fn reopen(&mut self, clean: bool) -> Result<(), Violation> {
        let db = self.let_go();
        if clean {
            match db.close() {
                Ok(()) => self.note_durable(),
                Err(error) => self.excuse("close", &error, false)?,
            }
        } else {
            drop(db);
        }
        self.open()
    }

    /// Reopens with other options.
    ///
    /// # Errors
    /// A [`Violation`].
    pub(crate) fn reopen_with(&mut self, options: RandomOptions, clean: bool) -> Result<(), Violation> {
        self.options = options;
        self.apply(&Operation::Reopen { clean })
    }

    /// Gives up whatever holds the database open, and hands out the last handle.
    fn let_go(&mut self) -> Db {
        self.cursors.clear();
        self.snapshots.clear();
        self.keyspaces.clear();
        self.work_before = self.work_done();
        self.db.take().expect("the database is open between operations")
    }

    /// Goes on, under `options`, from what a crash left and `fs` now shows; what happened after it never did. The clock
    /// begins anew, as it does when a machine starts.
    ///
    /// # Errors
    /// A [`Violation`] where what is recovered is not what was promised.
    pub(crate) fn recover(
        &mut self,
        wreck: Wreck,
        fs: Arc<dyn Fs>,
        judge: FaultJudge,
        options: RandomOptions,
    ) -> Result<(), Violation> {
        drop(self.let_go());
        let clock = ManualClock::new();
        self.environment = Environment {
            fs,
            clock: Arc::new(clock.clone()),
            background: BackgroundMode::Manual,
        };
        self.clock = Some(clock);
        self.judge = Some(judge);
        self.options = options;
        self.crashed.store(false, Ordering::Release);
        self.model.rewind_to(wreck.progress.started);
        let gone = self
            .model
            .keyspaces()
            .filter(|name| !wreck.progress.keyspaces.contains_key(*name));
        for name in gone.map(str::to_owned).collect::<Vec<_>>() {
            self.model.drop_keyspace(&name);
        }
        let mut progress = wreck.progress;
        progress.acknowledged = wreck.floor;
        *self.progress.lock() = progress;
        self.open()
            .map_err(|violation| violation.context("recovering from the crash"))
    }

    /// Forgets the commits after `at`, which are not there: unless a crash came before that was known.
    pub(super) fn rewind_to(&mut self, at: CommitIndex) {
        if !self.crashed.load(Ordering::Acquire) {
            self.model.rewind_to(at);
        }
    }

    /// Opens, and checks that everything acknowledged is there: whatever went before was at worst the death of the
    /// process.
    pub(super) fn open(&mut self) -> Result<(), Violation> {
        let db = loop {
            let opened = self
                .options
                .options()
                .open_with(&self.dir, self.environment.clone());
            match opened {
                Ok(db) => break db,
                Err(error) => self.excuse("open", &error, false)?,
            }
            if let Some(judge) = &self.judge {
                judge.mend();
            }
        };
        // A table that could not be opened stays so until the next open.
        if let (Some(judge), [_, ..]) = (&self.judge, &db.recovery().damaged_tables[..])
            && judge.struck_in_this_operation()
            && judge.mend()
        {
            drop(db);
            return self.open();
        }
        if let Some(judge) = &mut self.judge {
            judge.note_reopened();
        }
        let progress = self.progress();
        let found = match State::read(&db, |name| self.options.keyspace(name)) {
            Ok(found) => found,
            Err(violation) => match &self.judge {
                // The fault may strike a table that is not mapped, or the change of a keyspace's options: begin again.
                Some(judge) if judge.may_explain_failed_open() && judge.mend() => {
                    drop(db);
                    return self.open();
                }
                _ => return Err(violation.context("after reopening")),
            },
        };
        let within = progress.acknowledged..=self.model.last();
        let at = self
            .model
            .matching_prefix(&found, &progress, within)
            .map_err(|violation| violation.context("after reopening"))?;
        self.rewind_to(at);
        let mut settled = self.progress.lock();
        settled.keyspaces.retain(|name, entry| {
            let there = found.keyspaces.contains_key(name);
            if there {
                self.model.revive_keyspace(name, entry.0);
            } else {
                self.model.drop_keyspace(name);
            }
            entry.1 = Presence::Live;
            there
        });
        settled.started = at;
        settled.acknowledged = at;
        // Opening syncs what it reads back.
        settled.synced = at;
        drop(settled);
        for name in found.keyspaces.keys() {
            let keyspace = if name == DEFAULT_KEYSPACE {
                Keyspace::clone(&db)
            } else {
                must(
                    "opening a keyspace",
                    db.keyspace(name, self.options.keyspace(name)),
                )?
            };
            self.keyspaces.insert(name.clone(), keyspace);
        }
        self.db = Some(db);
        Ok(())
    }
}
