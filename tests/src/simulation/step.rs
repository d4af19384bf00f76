//! What a simulated history is made of.

use std::fmt;
use std::time::Duration;

use siltstone::vfs::FaultEffect;

use crate::crash::Loss;
use crate::fault::FaultPlan;
use crate::session::summary;
use crate::workload::Operation;

/// One step of a history. A step that does not apply is skipped, and no step names another one, so that every part of a
/// history is a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The application does something.
    Operation(Operation),
    /// The process dies or the power goes; the database is recovered and the history goes on.
    Crash(Crash),
    /// From now on I/O fails as the plan says, until it has, or until it is mended.
    Fault(FaultPlan),
    /// What failed works again.
    Mend,
    /// Writes are taken up again where a failure has stopped them.
    Resume,
    /// The disk has room for so many bytes more.
    DiskFull {
        /// The room that is left.
        spare_bytes: u64,
    },
    /// The disk has room.
    DiskFreed,
    /// Time passes that nobody used. (Forwards only: the clock is monotonic, and begins anew with the machine.)
    ClockJump(Duration),
    /// The database is reopened with the options of another seed.
    ReopenWith {
        /// The seed of the options.
        options: u64,
        /// Whether it is closed first.
        clean: bool,
    },
}

/// A crash of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What is lost.
    pub loss: Loss,
    /// `None`: now, between two operations. `Some(n)`: before the n-th I/O from now that changes something, counted from 0,
    /// in the middle of whatever operation that falls into.
    pub before_io: Option<u64>,
    /// Crashes of the recovery, one within the other: before which of its I/Os, and what is lost.
    pub nested: Vec<(u64, Loss)>,
    /// What fails in the recovery that is let through.
    pub fault: Option<FaultPlan>,
    /// The seed of the options to recover with, where they are others.
    pub options: Option<u64>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Operation(operation) => f.write_str(&summary(operation)),
            Step::Crash(crash) => crash.fmt(f),
            Step::Fault(plan) => write!(f, "from now on {plan}"),
            Step::Mend => f.write_str("the disk is mended"),
            Step::Resume => f.write_str("resume"),
            Step::DiskFull { spare_bytes } => write!(f, "the disk has {spare_bytes} bytes left"),
            Step::DiskFreed => f.write_str("the disk has room again"),
            Step::ClockJump(by) => write!(f, "{by:?} pass"),
            Step::ReopenWith { options, clean } => {
                write!(f, "reopen (clean {clean}) with the options of seed {options}")
            }
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.before_io {
            None => write!(f, "{}", self.loss)?,
            Some(n) => write!(f, "{} before the {n}. I/O from now", self.loss)?,
        }
        for (io, loss) in &self.nested {
            write!(f, ", and in the recovery {loss} before I/O {io}")?;
        }
        if let Some(fault) = &self.fault {
            write!(f, ", and in the recovery {fault}")?;
        }
        if let Some(seed) = self.options {
            write!(f, ", recovered with the options of seed {seed}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.effect {
            FaultEffect::Eio => "EIO",
            FaultEffect::Enospc => "ENOSPC",
            FaultEffect::ShortWrite => "a short write",
            FaultEffect::FailedSync => "a failed sync",
            FaultEffect::FailedMap => "a failed mapping",
        };
        let (nth, on) = (
            self.nth,
            if self.from_then_on {
                " and from then on"
            } else {
                ""
            },
        );
        write!(f, "{what} at the {nth}. I/O that it can befall{on}")
    }
}
