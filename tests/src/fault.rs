//! Faults at every I/O of a history, and what must hold in spite of them.

use std::path::Path;
use std::sync::Arc;

use siltstone::vfs::{Fault, FaultEffect, FaultFs, MemFs, OpKind};

use crate::crash::Recovery;
use crate::random_options::RandomOptions;
use crate::session::{FaultJudge, Session};
use crate::violation::Violation;
use crate::workload::{Operation, Workload, WorkloadOptions};

/// Ways a power loss may go that are tried after each history.
const POWER_LOSSES: u64 = 2;

/// Which I/O fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// How it fails.
    pub effect: FaultEffect,
    /// Which of the I/Os that the effect can befall, from 0.
    pub nth: u64,
    /// Whether all that follow fail, too, until the history is over.
    pub from_then_on: bool,
}

impl FaultPlan {
    /// The fault to [inject](FaultFs::inject); it counts from then on.
    pub fn fault(&self) -> Fault {
        Fault {
            nth: self.nth,
            kinds: befallen(self.effect),
            path_contains: None,
            effect: self.effect,
            repeat: self.from_then_on,
        }
    }
}

/// Runs one history again and again, each time with another I/O failing, and checks: no panic, no wrong answer, no
/// error that the fault does not explain, writes refused with the cause after one has failed, nothing acknowledged
/// lost, `resume` works once the disk does (and a full disk needs none), no file leaks.
///
/// ```
/// let driver = siltstone_tests::FaultDriver { operations: 4, ..siltstone_tests::FaultDriver::default() };
/// let figures = driver.sweep(1, siltstone::vfs::FaultEffect::Eio, false, 1)?;
/// assert!(figures.points > 10);
/// # Ok::<(), siltstone_tests::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct FaultDriver {
    /// The length of a history.
    pub operations: usize,
    /// The shape of the history.
    pub workload: WorkloadOptions,
    /// Whether ENOSPC strikes every I/O, and not only what takes space. (A file system that allocates late may answer a
    /// sync with it; the rest is for completeness.) Writes may then be refused until `resume`.
    pub enospc_anywhere: bool,
}

impl Default for FaultDriver {
    fn default() -> Self {
        Self {
            operations: 70,
            workload: WorkloadOptions {
                keys: 60,
                value_bytes: 120,
                reads_percent: 25,
                ..WorkloadOptions::default()
            },
            enospc_anywhere: false,
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFigures {
    /// Histories with a fault that struck.
    pub points: u64,
    /// Histories after which writes had been refused until `resume`.
    pub poisoned: u64,
}

impl FaultFigures {
    /// Adds other figures.
    pub fn add(&mut self, other: &FaultFigures) {
        self.points += other.points;
        self.poisoned += other.poisoned;
    }
}

impl FaultDriver {
    /// Fails every `stride`-th I/O of the history of `seed` in turn, until the history has no more.
    ///
    /// # Errors
    /// A [`Violation`] with the plan that led to it.
    pub fn sweep(
        &self,
        seed: u64,
        effect: FaultEffect,
        from_then_on: bool,
        stride: u64,
    ) -> Result<FaultFigures, Violation> {
        let mut figures = FaultFigures::default();
        for nth in (seed % stride.max(1)..).step_by(usize::try_from(stride.max(1)).unwrap_or(1)) {
            let plan = FaultPlan {
                effect,
                nth,
                from_then_on,
            };
            let (struck, poisoned) = self
                .run(seed, plan)
                .map_err(|violation| violation.context(format!("{plan:?}")))?;
            if !struck {
                break;
            }
            figures.points += 1;
            figures.poisoned += u64::from(poisoned);
        }
        Ok(figures)
    }

    /// Runs the history of `seed` under `plan`; says whether the fault struck, and whether writes were refused at
    /// the end.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn run(&self, seed: u64, plan: FaultPlan) -> Result<(bool, bool), Violation> {
        // Reads of mapped tables are not seen by the fault layer: with a fault that stays, reads must go on.
        let options = RandomOptions::new(seed);
        let options = if plan.from_then_on {
            options.mapped()
        } else {
            options
        };
        let mem = MemFs::new();
        let faults = FaultFs::new(Arc::new(mem.clone()));
        let mut fault = plan.fault();
        if self.enospc_anywhere {
            fault.kinds = None;
        }
        faults.inject(fault);
        let judge = FaultJudge::new(faults.clone());
        let outcome = self.history(seed, plan, (&mem, &faults), judge, options);
        outcome.map_err(|violation| {
            let trace = faults.trace();
            let struck = trace.iter().position(|line| line.contains(" !"));
            let from = struck.unwrap_or(trace.len()).saturating_sub(3);
            violation.context(format!(
                "I/O around the fault {:?}",
                &trace[from..trace.len().min(from + 7)]
            ))
        })
    }

    fn history(
        &self,
        seed: u64,
        plan: FaultPlan,
        (mem, faults): (&MemFs, &FaultFs),
        judge: FaultJudge,
        options: RandomOptions,
    ) -> Result<(bool, bool), Violation> {
        let dir = Path::new("db");
        let mut session = Session::begin(
            Arc::new(faults.clone()),
            dir,
            options.clone(),
            Arc::default(),
            Some(judge),
        )?;
        for operation in Workload::new(seed, self.workload.clone()).take(self.operations) {
            session.apply(&operation)?;
        }
        let struck = faults.faults_struck() > 0;
        faults.clear();
        session.compare_all()?;
        // The power goes now: what was synced is there, whatever failed before or after it.
        let progress = session.progress();
        for n in 0..POWER_LOSSES {
            let seed = seed.wrapping_mul(1009).wrapping_add(plan.nth * POWER_LOSSES + n);
            let recovery = Recovery {
                model: session.model(),
                progress: &progress,
                floor: progress.synced,
                options: options.clone(),
                seed,
            };
            recovery.check(&mem.crash_clone(seed)).map_err(|violation| {
                violation.context(format!("after the history, and a power loss ({seed})"))
            })?;
        }
        let poisoned = session.is_refusing_writes();
        if plan.effect == FaultEffect::Enospc && !self.enospc_anywhere {
            // With room again writes go on by themselves.
            if poisoned {
                return Err(Violation::new("a full disk makes writes fail for good"));
            }
        } else if (seed ^ plan.nth).is_multiple_of(2) {
            session.resume()?;
        } else {
            session.apply(&Operation::Reopen { clean: false })?;
        }
        session.expect_no_more_faults();
        session.apply(&Operation::Sync)?;
        for operation in Workload::new(!seed, self.workload.clone()).take(15) {
            session.apply(&operation)?;
        }
        session.finish()?;
        Ok((struck, poisoned))
    }
}

/// A disk that is full says so where space is taken; it is not met by reads, nor by writes to space that the log has
/// reserved.
pub(crate) fn befallen(effect: FaultEffect) -> Option<Vec<OpKind>> {
    match effect {
        FaultEffect::Enospc => Some(vec![
            OpKind::Create,
            OpKind::CreateLog,
            OpKind::Append,
            OpKind::Rename,
            OpKind::CreateDir,
        ]),
        _ => None,
    }
}
