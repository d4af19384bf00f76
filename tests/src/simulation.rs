//! Everything at once from one seed: operations, background work, crashes, faults, full disks, time.

mod draw;
mod failure;
mod shrink;
mod step;
mod step_set;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::failure::SimulationFailure;
pub use self::shrink::shrink;
pub use self::step::{Crash, Step};
pub use self::step_set::StepSet;
use self::world::World;
use crate::random_options::OptionGroup;
use crate::seeds::panic_message;
use crate::session::Session;
use crate::violation::Violation;
use crate::workload::WorkloadOptions;

/// The command that the printed replay begins with.
const COMMAND: &str = "cargo run --release -p siltstone-tests --bin soak -- --suite simulation";

/// A deterministic simulation: engine, background work, file system, clock and randomness follow from one seed, on one
/// thread. A history of [`Step`]s is applied to a database and to a model of it; every answer is compared, every crash is
/// checked against the prefix contract, every error against the faults that were injected, and at the end everything must
/// be there, sound and tidy.
///
/// A history that fails is cut to the steps and the options that it needs; the [`SimulationFailure`] prints them with one
/// command that replays it.
///
/// ```
/// let simulation = siltstone_tests::Simulation { steps: 40, ..siltstone_tests::Simulation::default() };
/// let figures = simulation.check(1).map_err(|failure| println!("{failure}")).unwrap();
/// assert!(figures.ios > 10);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// The length of a history.
    pub steps: usize,
    /// The shape of its operations.
    pub workload: WorkloadOptions,
    /// The most histories that are run to shorten one that fails.
    pub shrink_runs_max: usize,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            steps: 150,
            workload: WorkloadOptions {
                keys: 60,
                value_bytes: 150,
                reads_percent: 20,
                ..WorkloadOptions::default()
            },
            shrink_runs_max: 600,
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimulationFigures {
    /// Histories that were run to their end.
    pub histories: u64,
    /// Operations of the application.
    pub operations: u64,
    /// Crashes of the histories.
    pub crashes: u64,
    /// Crashes of recoveries.
    pub nested_crashes: u64,
    /// Outcomes of crashes that were recovered and checked.
    pub recoveries: u64,
    /// I/Os that failed by a fault.
    pub faults: u64,
    /// How often the disk filled.
    pub full_disks: u64,
    /// Reopenings that no crash forced.
    pub reopenings: u64,
    /// Everything that was asked of the file system.
    pub ios: u64,
    /// Flushes and merging compactions.
    pub flushes: u64,
    /// See `flushes`.
    pub compactions: u64,
    /// A hash of everything that was asked of the file system, in its order: the same in every run of a history.
    pub fingerprint: u64,
}

impl SimulationFigures {
    /// Adds the figures of another history.
    pub fn add(&mut self, other: &SimulationFigures) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.nested_crashes += other.nested_crashes;
        self.recoveries += other.recoveries;
        self.faults += other.faults;
        self.full_disks += other.full_disks;
        self.reopenings += other.reopenings;
        self.ios += other.ios;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.fingerprint = self.fingerprint.wrapping_add(other.fingerprint);
    }
}

/// A promise of the application's own, asked after every step.
type Invariant<'i> = &'i dyn Fn(&Session, &Step) -> Result<(), Violation>;

impl Simulation {
    /// The history of `seed`.
    pub fn history(&self, seed: u64) -> Vec<Step> {
        draw::draw(seed, self.steps, self.workload.clone())
    }

    /// Runs the history of `seed`, and shortens it where it fails.
    ///
    /// # Errors
    /// The shortened history.
    pub fn check(&self, seed: u64) -> Result<SimulationFigures, Box<SimulationFailure>> {
        self.check_with(seed, &|_, _| Ok(()))
    }

    /// The same with an invariant of one's own, which is asked after every step.
    ///
    /// # Errors
    /// The shortened history.
    pub fn check_with(
        &self,
        seed: u64,
        invariant: Invariant<'_>,
    ) -> Result<SimulationFigures, Box<SimulationFailure>> {
        let all = StepSet::first(self.steps);
        self.run(seed, &all, &[], invariant)
            .map_err(|violation| Box::new(self.shorten(seed, violation, invariant)))
    }

    /// Runs the steps of the history of `seed` that are `kept`, with the groups of options that are `plain` left at their
    /// defaults.
    ///
    /// # Errors
    /// A [`Violation`] that names the step.
    pub fn replay(
        &self,
        seed: u64,
        kept: &StepSet,
        plain: &[OptionGroup],
    ) -> Result<SimulationFigures, Violation> {
        self.run(seed, kept, plain, &|_, _| Ok(()))
    }

    /// A panic of the engine is a violation like any other.
    fn run(
        &self,
        seed: u64,
        kept: &StepSet,
        plain: &[OptionGroup],
        invariant: Invariant<'_>,
    ) -> Result<SimulationFigures, Violation> {
        catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed, plain)?;
            let steps = self.history(seed).into_iter().enumerate();
            for (number, step) in steps.filter(|(number, _)| kept.contains(*number)) {
                world
                    .apply(&step)
                    .and_then(|()| invariant(world.session(), &step))
                    .map_err(|violation| violation.context(format!("step {number}")))?;
            }
            world
                .finish()
                .map_err(|violation| violation.context("after the last step"))
        }))
        .unwrap_or_else(|panic| Err(Violation::new(format!("panicked: {}", panic_message(&*panic)))))
    }

    fn shorten(&self, seed: u64, violation: Violation, invariant: Invariant<'_>) -> SimulationFailure {
        let mut last = violation;
        let mut fails = |kept: &StepSet, plain: &[OptionGroup]| match self.run(seed, kept, plain, invariant) {
            Ok(_) => false,
            Err(violation) => {
                last = violation;
                true
            }
        };
        let all = StepSet::first(self.steps);
        let (kept, mut runs) = shrink(&all, self.shrink_runs_max, |kept| fails(kept, &[]));
        let mut plain = Vec::new();
        for group in OptionGroup::ALL {
            if runs == self.shrink_runs_max {
                break;
            }
            plain.push(group);
            runs += 1;
            if !fails(&kept, &plain) {
                plain.pop();
            }
        }
        let history = self.history(seed).into_iter().enumerate();
        SimulationFailure {
            seed,
            steps: history.filter(|(number, _)| kept.contains(*number)).collect(),
            replay: self.replay_command(seed, &kept, &plain),
            plain,
            violation: last,
            runs,
        }
    }

    fn replay_command(&self, seed: u64, kept: &StepSet, plain: &[OptionGroup]) -> String {
        let groups = plain
            .iter()
            .map(|group| group.name())
            .collect::<Vec<_>>()
            .join(",");
        if *self != Self::default() {
            return format!("Simulation::replay with seed {seed}, steps {kept} and plain options {groups:?}");
        }
        let plain = if groups.is_empty() {
            String::new()
        } else {
            format!(" --plain {groups}")
        };
        format!("{COMMAND} --seed {seed} --keep {kept}{plain}")
    }
}
