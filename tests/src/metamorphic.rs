//! One history under many options: the answers do not depend on them.

use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{Fs, ManualClock, MemFs, OsFs, SystemClock};
use siltstone::{BackgroundMode, Environment};

use crate::random_options::RandomOptions;
use crate::session::{Session, Transcript};
use crate::simulation::StepSet;
use crate::violation::Violation;
use crate::workload::{Workload, WorkloadOptions};

/// Runs one history under several sets of options, and in several environments (background work by hand and by threads, in
/// memory and on the operating system), and compares all that they answer: every get, multi_get, scan from either end,
/// cursor and snapshot. The [`Model`](crate::Model) is asked each time, too.
///
/// ```
/// let driver = siltstone_tests::Metamorphic { operations: 60, variants: 3, ..siltstone_tests::Metamorphic::default() };
/// assert!(driver.run(1)?.answers > 20);
/// # Ok::<(), siltstone_tests::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Metamorphic {
    /// The length of a history.
    pub operations: usize,
    /// How many sets of options it is run under.
    pub variants: u64,
    /// The shape of the history.
    pub workload: WorkloadOptions,
}

impl Default for Metamorphic {
    fn default() -> Self {
        Self {
            operations: 500,
            variants: 5,
            workload: WorkloadOptions {
                reads_percent: 40,
                ..WorkloadOptions::default()
            },
        }
    }
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetamorphicFigures {
    /// Runs of a history, each under options of its own.
    pub variants: u64,
    /// Operations of all runs.
    pub operations: u64,
    /// Answers of all runs.
    pub answers: u64,
}

impl MetamorphicFigures {
    /// Adds the figures of another history.
    pub fn add(&mut self, other: &MetamorphicFigures) {
        self.variants += other.variants;
        self.operations += other.operations;
        self.answers += other.answers;
    }
}

/// Where and how one run of the history takes place.
#[derive(Clone, Copy, Debug)]
struct Variant {
    options: u64,
    threads: bool,
    on_disk: bool,
}

impl Variant {
    /// The first one is the plainest; each of the four environments comes in turn.
    fn nth(seed: u64, n: u64) -> Self {
        Self {
            options: StdRng::seed_from_u64(seed.wrapping_add(n << 32)).random(),
            threads: n % 2 == 1,
            on_disk: n % 4 >= 2,
        }
    }
}

impl Metamorphic {
    /// Runs the history of `seed` under all variants.
    ///
    /// # Errors
    /// A [`Violation`] with the first answer that differs and the two sets of options, or a wrong answer.
    pub fn run(&self, seed: u64) -> Result<MetamorphicFigures, Violation> {
        self.replay(seed, &StepSet::first(self.operations))
    }

    /// The same with the operations that are `kept` only.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn replay(&self, seed: u64, kept: &StepSet) -> Result<MetamorphicFigures, Violation> {
        let mut figures = MetamorphicFigures::default();
        let mut first: Option<Transcript> = None;
        for n in 0..self.variants.max(1) {
            let variant = Variant::nth(seed, n);
            let transcript = self
                .history(seed, kept, variant)
                .map_err(|violation| violation.context(format!("{variant:?}")))?;
            figures.variants += 1;
            figures.operations += kept.len() as u64;
            figures.answers += (transcript.lines().len() - kept.len()) as u64;
            match &first {
                None => first = Some(transcript),
                Some(first) => first.compare(&transcript).map_err(|violation| {
                    violation.context(format!("{:?} and {variant:?}", Variant::nth(seed, 0)))
                })?,
            }
        }
        Ok(figures)
    }

    fn history(&self, seed: u64, kept: &StepSet, variant: Variant) -> Result<Transcript, Violation> {
        let temporary =
            tempfile::tempdir().map_err(|error| Violation::new(format!("no directory: {error}")))?;
        let clock = ManualClock::new();
        let (fs, dir): (Arc<dyn Fs>, &Path) = if variant.on_disk {
            (Arc::new(OsFs::new()), temporary.path())
        } else {
            (Arc::new(MemFs::new()), Path::new("db"))
        };
        let environment = Environment {
            fs,
            clock: if variant.threads {
                Arc::new(SystemClock::new())
            } else {
                Arc::new(clock.clone())
            },
            background: if variant.threads {
                BackgroundMode::Threads
            } else {
                BackgroundMode::Manual
            },
        };
        let options = RandomOptions::new(variant.options);
        let mut session = Session::in_environment(environment, Some(clock), dir, options)?;
        session.record();
        let operations = Workload::new(seed, self.workload.clone()).take(self.operations);
        for (number, operation) in operations
            .enumerate()
            .filter(|(number, _)| kept.contains(*number))
        {
            session
                .apply(&operation)
                .map_err(|violation| violation.context(format!("operation {number}")))?;
            session.mark(number);
        }
        session.compare_all()?;
        let transcript = session.transcript().clone();
        session.close()?;
        Ok(transcript)
    }
}
