//! One history as it runs: the database, the disk under it, and what is about to go wrong.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use siltstone::ErrorKind;
use siltstone::vfs::{FaultFs, MemFs};

use super::SimulationFigures;
use super::step::{Crash, Step};
use crate::crash::{Loss, Recovery, changes_something, environment};
use crate::model::CommitIndex;
use crate::progress::Progress;
use crate::random_options::{OptionGroup, RandomOptions};
use crate::session::{FaultJudge, Session, Wreck};
use crate::violation::{Violation, must};
use crate::workload::Operation;

const DIR: &str = "db";

/// A crash that waits for its I/O, or has met it.
#[derive(Default)]
enum Armed {
    #[default]
    No,
    Waiting {
        ios_left: u64,
        crash: Crash,
    },
    Struck(Wreck, Crash),
}

/// What the hook of the file system sees and changes.
#[derive(Default)]
struct Watch {
    armed: Armed,
    /// All that was asked of the disk so far, in its order.
    fingerprint: DefaultHasher,
    ios: u64,
}

pub(super) struct World<'w> {
    seed: u64,
    plain: &'w [OptionGroup],
    session: Session,
    progress: Arc<Mutex<Progress>>,
    mem: MemFs,
    faults: FaultFs,
    watch: Arc<Mutex<Watch>>,
    figures: SimulationFigures,
}

impl<'w> World<'w> {
    pub(super) fn new(seed: u64, plain: &'w [OptionGroup]) -> Result<Self, Violation> {
        let (mem, progress) = (MemFs::new(), Arc::default());
        let faults = FaultFs::new(Arc::new(mem.clone()));
        faults.set_tracing(false);
        let judge = FaultJudge::with_disk(faults.clone(), mem.clone());
        let session = Session::begin(
            Arc::new(faults.clone()),
            Path::new(DIR),
            RandomOptions::with_defaults(seed, plain),
            Arc::clone(&progress),
            Some(judge),
        )?;
        let world = Self {
            seed,
            plain,
            session,
            progress,
            mem,
            faults,
            watch: Arc::default(),
            figures: SimulationFigures::default(),
        };
        world.watch_disk();
        Ok(world)
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Counts I/O, and takes a copy of the disk when a crash is due.
    fn watch_disk(&self) {
        let (mem, watch, progress) = (
            self.mem.clone(),
            Arc::clone(&self.watch),
            Arc::clone(&self.progress),
        );
        let crashed = self.session.crashed();
        self.faults.on_op(Box::new(move |op| {
            let mut watch = watch.lock();
            watch.ios += 1;
            (op.kind, &op.path, &op.to).hash(&mut watch.fingerprint);
            if !changes_something(op.kind) {
                return;
            }
            match std::mem::take(&mut watch.armed) {
                Armed::Waiting { ios_left: 0, crash } => {
                    crashed.store(true, Ordering::Release);
                    watch.armed = Armed::Struck(wreck(&mem, progress.lock().clone(), crash.loss), crash);
                }
                Armed::Waiting { ios_left, crash } => {
                    watch.armed = Armed::Waiting {
                        ios_left: ios_left - 1,
                        crash,
                    };
                }
                other => watch.armed = other,
            }
        }));
    }

    pub(super) fn apply(&mut self, step: &Step) -> Result<(), Violation> {
        let struck_before = self.faults.faults_struck();
        match step {
            Step::Operation(operation) => {
                self.figures.operations += 1;
                self.figures.reopenings += u64::from(matches!(operation, Operation::Reopen { .. }));
                self.session.apply(operation)?;
            }
            Step::Crash(crash) => match crash.before_io {
                Some(ios_left) => {
                    let crash = crash.clone();
                    self.watch.lock().armed = Armed::Waiting { ios_left, crash };
                }
                None => {
                    let wreck = wreck(&self.mem, self.progress.lock().clone(), crash.loss);
                    return self.recover(wreck, crash);
                }
            },
            Step::Fault(plan) => {
                self.faults.inject(plan.fault());
                if let Some(judge) = self.session.judge() {
                    judge.note_fault();
                }
            }
            Step::Mend => self.faults.clear(),
            Step::Resume => self.session.resume()?,
            Step::DiskFull { spare_bytes } => {
                self.figures.full_disks += 1;
                self.limit_disk(Some(self.mem.bytes_used() + spare_bytes));
            }
            Step::DiskFreed => self.limit_disk(None),
            Step::ClockJump(by) => {
                if let Some(clock) = self.session.clock() {
                    clock.advance(*by);
                }
            }
            Step::ReopenWith { options, clean } => {
                self.figures.reopenings += 1;
                let options = RandomOptions::with_defaults(*options, self.plain);
                self.session.reopen_with(options, *clean)?;
            }
        }
        self.figures.faults += self.faults.faults_struck() - struck_before;
        let armed = std::mem::take(&mut self.watch.lock().armed);
        match armed {
            Armed::Struck(wreck, crash) => self.recover(wreck, &crash),
            waiting => {
                self.watch.lock().armed = waiting;
                Ok(())
            }
        }
    }

    fn limit_disk(&mut self, capacity_bytes: Option<u64>) {
        self.mem.set_capacity(capacity_bytes);
        if let Some(judge) = self.session.judge() {
            judge.note_disk(capacity_bytes.is_some());
        }
    }

    /// Checks all that is promised of what a crash left, and goes on from there.
    fn recover(&mut self, mut wreck: Wreck, crash: &Crash) -> Result<(), Violation> {
        self.figures.crashes += 1;
        // What the dead process's handles still do as they go is nobody's affair.
        self.faults.clear_on_op();
        self.watch.lock().armed = Armed::No;
        let options = match crash.options {
            Some(seed) => RandomOptions::with_defaults(seed, self.plain),
            None => self.session.options().clone(),
        };
        for (io, loss) in &crash.nested {
            if let Some(inner) = crash_recovery(&wreck, &options, *io, *loss)? {
                self.figures.nested_crashes += 1;
                wreck = inner;
            }
        }
        let named = |violation: Violation| violation.context(format!("after a crash ({crash})"));
        self.figures.recoveries += 1;
        let recovery = Recovery {
            model: self.session.model(),
            progress: &wreck.progress,
            floor: wreck.floor,
            options: options.clone(),
            seed: self.seed ^ self.figures.crashes,
        };
        recovery.check(&wreck.left).map_err(named)?;
        self.mem = wreck.left.clone();
        self.faults = FaultFs::new(Arc::new(self.mem.clone()));
        self.faults.set_tracing(false);
        if let Some(plan) = &crash.fault {
            self.faults.inject(plan.fault());
        }
        let judge = FaultJudge::with_disk(self.faults.clone(), self.mem.clone());
        self.session
            .recover(wreck, Arc::new(self.faults.clone()), judge, options)
            .map_err(named)?;
        self.figures.faults += self.faults.faults_struck();
        self.watch_disk();
        Ok(())
    }

    /// Mends everything, and checks what is there to the end.
    pub(super) fn finish(mut self) -> Result<SimulationFigures, Violation> {
        self.watch.lock().armed = Armed::No;
        self.faults.clear();
        self.limit_disk(None);
        self.session.compare_all()?;
        if self.seed.is_multiple_of(2) {
            self.session.resume()?;
        } else {
            self.session.apply(&Operation::Reopen { clean: false })?;
        }
        self.session.expect_no_more_faults();
        self.session.apply(&Operation::Sync)?;
        let (flushes, compactions) = self.session.work_done();
        self.session.finish()?;
        let watch = self.watch.lock();
        Ok(SimulationFigures {
            histories: 1,
            ios: watch.ios,
            flushes,
            compactions,
            fingerprint: watch.fingerprint.finish(),
            ..self.figures
        })
    }
}

fn wreck(mem: &MemFs, progress: Progress, loss: Loss) -> Wreck {
    Wreck {
        left: loss.left(mem),
        floor: floor(&progress, loss),
        progress,
    }
}

/// The first commit that must be there.
fn floor(progress: &Progress, loss: Loss) -> CommitIndex {
    match loss {
        Loss::Process => progress.acknowledged,
        Loss::Power(_) => progress.synced,
    }
}

/// Crashes the recovery of `wreck` before its I/O number `io` of those that change something; `None` where it has fewer.
fn crash_recovery(
    wreck: &Wreck,
    options: &RandomOptions,
    io: u64,
    loss: Loss,
) -> Result<Option<Wreck>, Violation> {
    let mem = wreck.left.killed_clone();
    let faults = FaultFs::new(Arc::new(mem.clone()));
    faults.set_tracing(false);
    let left: Arc<Mutex<(u64, Option<MemFs>)>> = Arc::default();
    let sink = Arc::clone(&left);
    faults.on_op(Box::new(move |op| {
        if changes_something(op.kind) {
            let mut sink = sink.lock();
            if sink.0 == io {
                sink.1 = Some(loss.left(&mem));
            }
            sink.0 += 1;
        }
    }));
    let opened = options
        .options()
        .open_with(DIR, environment(Arc::new(faults.clone())));
    faults.clear_on_op();
    match opened {
        Err(error) if wreck.left.capacity().is_some() && error.kind() == ErrorKind::NoSpace => {}
        opened => drop(must("a recovery that is to be crashed", opened)?),
    }
    let left = left.lock().1.take();
    Ok(left.map(|left| Wreck {
        left,
        floor: wreck.floor.min(floor(&wreck.progress, loss)),
        progress: wreck.progress.clone(),
    }))
}
