//! Somebody's application over Siltstone, crashed at every I/O and failed at every I/O, and what it says must hold.

use std::error::Error;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::vfs::{Fault, FaultEffect, FaultFs, MemFs};
use siltstone::{Db, Options};

use crate::crash::{environment, watch};
use crate::fault::{FaultPlan, befallen};
use crate::random_options::RandomOptions;
use crate::seeds::panic_message;
use crate::violation::{Violation, must};

/// What an application's work, and the check of its invariant, return: `?` takes Siltstone's errors and any others, and a text
/// becomes an error by `.into()`.
pub type ApplicationResult = Result<(), Box<dyn Error + Send + Sync>>;

const EFFECTS: [FaultEffect; 4] = [
    FaultEffect::Eio,
    FaultEffect::Enospc,
    FaultEffect::ShortWrite,
    FaultEffect::FailedSync,
];

/// What an application has told others that it has done. The check after a crash is given those that had to survive it.
#[derive(Clone, Debug)]
pub struct Promises<T> {
    /// Each with whether it was synced.
    made: Arc<Mutex<Vec<(T, bool)>>>,
}

impl<T: Clone> Promises<T> {
    fn new() -> Self {
        Self { made: Arc::default() }
    }

    /// The write of `promise` has returned; it was written with `Durability::Buffered`, and so survives the death of the
    /// process, but not the loss of power.
    pub fn made(&self, promise: T) {
        self.made.lock().push((promise, false));
    }

    /// The write of `promise` has returned; it was written with `Durability::Sync`, and so survives both.
    pub fn synced(&self, promise: T) {
        self.made.lock().push((promise, true));
    }

    /// [`Db::sync`] has returned: all promises made before it was called survive the loss of power. For the thread that makes
    /// the promises.
    pub fn all_synced(&self) {
        self.made.lock().iter_mut().for_each(|(_, synced)| *synced = true);
    }
}

/// Those promises that have to survive a crash, `only_synced` ones if the power went.
fn surviving<T: Clone>(made: &[(T, bool)], only_synced: bool) -> Vec<T> {
    let kept = made.iter().filter(|(_, synced)| *synced || !only_synced);
    kept.map(|(promise, _)| promise.clone()).collect()
}

/// Runs an application on a simulated disk, and asks it whether its invariant holds after everything that can happen to it:
///
/// - a crash before every I/O that changes something: the death of the process, and losses of power that keep, lose or tear what
///   was not synced;
/// - crashes of some recoveries, and of what the check itself writes, before every I/O of theirs;
/// - every I/O failing in turn, with EIO, ENOSPC, half a write, or a failed sync, once and from then on.
///
/// `work` is what the application does, given the open database and a seed for its random choices. It notes what it has promised to
/// others in [`Promises`]. Errors it passes on; it may fail only when the disk has. `check` looks at the database as it is found
/// by an open after the crash, with the promises that had to survive: they must all be there, and what has been written but not
/// promised may be there. It may write, as an application does that mends what it finds.
///
/// Both run on one thread, without background threads: the same seed does the same I/O. Work that calls its database a few
/// hundred times is enough, as every I/O is a run of its own.
///
/// The crate's documentation has an example.
#[derive(Clone, Debug)]
pub struct ApplicationCrash<T, W, C> {
    work: W,
    check: C,
    options: Option<Options>,
    power_losses: u64,
    nested_every: u64,
    fault_stride: u64,
    promise: PhantomData<fn(T)>,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFigures {
    /// Moments before an I/O of the work at which it was crashed.
    pub points: u64,
    /// Moments before an I/O of a recovery at which that was crashed.
    pub nested_points: u64,
    /// Outcomes that were recovered and checked.
    pub recoveries: u64,
    /// Faults that struck.
    pub faults: u64,
}

impl ApplicationFigures {
    /// Adds the figures of another seed.
    pub fn add(&mut self, other: &ApplicationFigures) {
        self.points += other.points;
        self.nested_points += other.nested_points;
        self.recoveries += other.recoveries;
        self.faults += other.faults;
    }
}

impl<T, W, C> ApplicationCrash<T, W, C>
where
    T: Clone + Send + 'static,
    W: Fn(&Db, u64, &Promises<T>) -> ApplicationResult,
    C: Fn(&Db, &[T]) -> ApplicationResult,
{
    /// An application that does `work`, and of which `check` says what must hold.
    pub fn new(work: W, check: C) -> Self {
        Self {
            work,
            check,
            options: None,
            power_losses: 3,
            nested_every: 50,
            fault_stride: 1,
            promise: PhantomData,
        }
    }

    /// The options of the database; small ones drawn from the seed if not given.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = Some(options);
        self
    }

    /// How many ways a loss of power may go are tried at each point. 3 if not given; the death of the process is one more.
    #[must_use]
    pub fn power_losses(mut self, count: u64) -> Self {
        self.power_losses = count;
        self
    }

    /// One in so many recoveries is crashed before every I/O of its own. 50 if not given; 0 for none.
    #[must_use]
    pub fn nested_every(mut self, recoveries: u64) -> Self {
        self.nested_every = recoveries;
        self
    }

    /// Every so-manieth I/O is failed. 1 if not given; 0 for none.
    #[must_use]
    pub fn fault_stride(mut self, stride: u64) -> Self {
        self.fault_stride = stride;
        self
    }

    /// Does the work of `seed`, with everything that can happen to it.
    ///
    /// # Errors
    /// A [`Violation`] that says what happened at which I/O, and what `check` found.
    pub fn run(&self, seed: u64) -> Result<ApplicationFigures, Violation> {
        let mut figures = ApplicationFigures::default();
        self.crash_everywhere(seed, &mut figures)
            .and_then(|()| self.fail_everywhere(seed, &mut figures))
            .map_err(|violation| violation.context(format!("seed {seed}")))?;
        Ok(figures)
    }

    fn open(&self, fs: Arc<dyn siltstone::vfs::Fs>, seed: u64) -> siltstone::Result<Db> {
        let options = self.options.clone();
        let options = options.unwrap_or_else(|| RandomOptions::new(seed).options());
        options.open_with("db", environment(fs))
    }

    /// Opens what was left, and asks.
    fn recover(&self, fs: Arc<dyn siltstone::vfs::Fs>, seed: u64, promised: &[T]) -> Result<(), Violation> {
        let db = must("recovery", self.open(fs, seed))?;
        say("the check", || (self.check)(&db, promised))
    }

    fn crash_everywhere(&self, seed: u64, figures: &mut ApplicationFigures) -> Result<(), Violation> {
        let fs = MemFs::new();
        let faults = FaultFs::new(Arc::new(fs.clone()));
        let promises = Promises::new();
        let points = watch(&fs, &faults, &promises.made, seed, self.power_losses);
        let db = must("open", self.open(Arc::new(faults.clone()), seed))?;
        say("the work", || (self.work)(&db, seed, &promises))?;
        must("background work", db.wait_idle())?;
        must("close", db.close())?;
        faults.clear_on_op();
        for point in std::mem::take(&mut *points.lock()) {
            figures.points += 1;
            for (name, is_power, left) in point.outcomes() {
                figures.recoveries += 1;
                let promised = surviving(&point.progress, is_power);
                let seed = seed ^ point.before.index;
                if self.nested_every > 0 && figures.recoveries.is_multiple_of(self.nested_every) {
                    self.nest(left, seed, &promised, &surviving(&point.progress, true), figures)
                } else {
                    self.recover(Arc::new(left.killed_clone()), seed, &promised)
                }
                .map_err(|violation| violation.context(name))?;
            }
        }
        let promised = surviving(&promises.made.lock(), false);
        figures.recoveries += 1;
        self.recover(Arc::new(fs), seed, &promised)
            .map_err(|violation| violation.context("after a clean end"))
    }

    /// Crashes a recovery, with the check, before every I/O of its own.
    fn nest(
        &self,
        left: &MemFs,
        seed: u64,
        promised: &[T],
        synced: &[T],
        figures: &mut ApplicationFigures,
    ) -> Result<(), Violation> {
        let fs = left.killed_clone();
        let faults = FaultFs::new(Arc::new(fs.clone()));
        let points = watch(&fs, &faults, &Arc::default(), seed, self.power_losses);
        let recovered = self.recover(Arc::new(faults.clone()), seed, promised);
        faults.clear_on_op();
        recovered?;
        for point in std::mem::take(&mut *points.lock()) {
            // What is promised does not change here.
            let () = point.progress;
            figures.nested_points += 1;
            for (name, is_power, left) in point.outcomes() {
                figures.recoveries += 1;
                let promised = if is_power { synced } else { promised };
                self.recover(Arc::new(left.killed_clone()), seed, promised)
                    .map_err(|violation| violation.context(format!("and in the recovery, {name}")))?;
            }
        }
        Ok(())
    }

    fn fail_everywhere(&self, seed: u64, figures: &mut ApplicationFigures) -> Result<(), Violation> {
        let Ok(stride) = usize::try_from(self.fault_stride.max(1)) else {
            return Ok(());
        };
        let plans = EFFECTS
            .into_iter()
            .flat_map(|effect| [(effect, false), (effect, true)]);
        for (effect, from_then_on) in plans.filter(|_| self.fault_stride > 0) {
            for nth in (seed % self.fault_stride..).step_by(stride) {
                let plan = FaultPlan {
                    effect,
                    nth,
                    from_then_on,
                };
                let struck = self
                    .fail(seed, plan)
                    .map_err(|violation| violation.context(format!("{plan:?}")))?;
                if !struck {
                    break;
                }
                figures.faults += 1;
                figures.recoveries += 2;
            }
        }
        Ok(())
    }

    /// Does the work with one fault; says whether it struck.
    fn fail(&self, seed: u64, plan: FaultPlan) -> Result<bool, Violation> {
        let fs = MemFs::new();
        let faults = FaultFs::new(Arc::new(fs.clone()));
        faults.inject(Fault {
            nth: plan.nth,
            kinds: befallen(plan.effect),
            path_contains: None,
            effect: plan.effect,
            repeat: plan.from_then_on,
        });
        let promises = Promises::new();
        let opened = self.open(Arc::new(faults.clone()), seed);
        let outcome = match &opened {
            Ok(db) => catch(|| (self.work)(db, seed, &promises))?,
            Err(error) => Err(error.clone().into()),
        };
        let struck = faults.faults_struck() > 0;
        if let (Err(error), false) = (&outcome, struck) {
            return Err(Violation::new(format!(
                "the work fails, and no fault has struck: {error}"
            )));
        }
        drop(opened);
        faults.clear();
        let made = promises.made.lock().clone();
        let power_loss = seed.wrapping_mul(31).wrapping_add(plan.nth);
        for (name, left, promised) in [
            (
                "after the death of the process",
                fs.killed_clone(),
                surviving(&made, false),
            ),
            (
                "after a loss of power",
                fs.crash_clone(power_loss),
                surviving(&made, true),
            ),
        ] {
            self.recover(Arc::new(left), seed, &promised)
                .map_err(|violation| violation.context(name))?;
        }
        Ok(struck)
    }
}

/// Calls the application; a panic is a violation.
fn catch(call: impl FnOnce() -> ApplicationResult) -> Result<ApplicationResult, Violation> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|panic| Violation::new(format!("the application panicked: {}", panic_message(&*panic))))
}

/// Calls the application; an error is a violation.
fn say(what: &str, call: impl FnOnce() -> ApplicationResult) -> Result<(), Violation> {
    catch(call)?.map_err(|error| Violation::new(format!("{what} says: {error}")))
}
