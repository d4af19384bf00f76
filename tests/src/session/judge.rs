//! Which errors an injected fault excuses.

use std::cell::Cell;

use siltstone::vfs::{FaultFs, MemFs};
use siltstone::{Error, ErrorKind};

use crate::violation::Violation;

/// Decides whether an error of the engine is explained by the faults of a [`FaultFs`], and whether writes that follow
/// are refused as they must be.
#[derive(Debug)]
pub struct FaultJudge {
    faults: FaultFs,
    struck_before: u64,
    /// … and when writes were taken up again last.
    struck_when_resumed: u64,
    /// A commit failed with an I/O error: until `resume` or reopening, none may succeed.
    sticky: Option<String>,
    mended: Cell<bool>,
    /// The disk whose capacity is limited.
    disk: Option<MemFs>,
    /// Whether it is limited.
    full: Cell<bool>,
}

impl FaultJudge {
    /// A judge of what `faults` does.
    pub fn new(faults: FaultFs) -> Self {
        Self {
            struck_before: faults.faults_struck(),
            struck_when_resumed: faults.faults_struck(),
            faults,
            sticky: None,
            mended: Cell::new(false),
            disk: None,
            full: Cell::new(false),
        }
    }

    /// The same, where `disk` fills and is freed as well.
    pub(crate) fn with_disk(faults: FaultFs, disk: MemFs) -> Self {
        Self {
            full: Cell::new(disk.capacity().is_some()),
            disk: Some(disk),
            ..Self::new(faults)
        }
    }

    /// A fault has been set: it can be mended again.
    pub(crate) fn note_fault(&mut self) {
        self.mended.set(false);
    }

    /// The disk has been filled, or freed.
    pub(crate) fn note_disk(&mut self, full: bool) {
        self.full.set(full);
        self.mended.set(false);
    }

    pub(super) fn begin_operation(&mut self) {
        self.struck_before = self.faults.faults_struck();
    }

    pub(super) fn struck_in_this_operation(&self) -> bool {
        self.faults.faults_struck() > self.struck_before
    }

    /// Whether what is read, and changed, right after an opening may fail: a change of options needs room.
    pub(super) fn may_explain_failed_open(&self) -> bool {
        self.struck_in_this_operation() || self.full.get()
    }

    /// Takes the faults back: the disk works again. Says whether it had not been mended before.
    pub(super) fn mend(&self) -> bool {
        self.faults.clear();
        if let Some(disk) = &self.disk {
            disk.set_capacity(None);
            self.full.set(false);
        }
        !self.mended.replace(true)
    }

    pub(super) fn note_reopened(&mut self) {
        self.sticky = None;
        self.struck_when_resumed = self.faults.faults_struck();
    }

    /// Whether writes are refused until `resume`.
    pub(crate) fn is_sticky(&self) -> bool {
        self.sticky.is_some()
    }

    pub(super) fn note_failed_commit(&mut self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned) {
            self.sticky.get_or_insert(error.to_string());
        }
    }

    pub(super) fn check_not_sticky(&self) -> Result<(), Violation> {
        match &self.sticky {
            None => Ok(()),
            Some(cause) => Err(Violation::new(format!(
                "a commit is acknowledged although an earlier one failed ({cause}) and nothing was resumed"
            ))),
        }
    }

    pub(super) fn excuse(&mut self, during: &str, error: &Error, reads_only: bool) -> Result<(), Violation> {
        let unexpected = |why: &str| {
            Violation::unexpected(during, error).context(format!("an error that no fault explains ({why})"))
        };
        // No read needs room.
        if self.full.get() && !reads_only && error.kind() == ErrorKind::NoSpace {
            return Ok(());
        }
        if self.faults.faults_struck() == 0 {
            return Err(unexpected("none has struck"));
        }
        if reads_only && !self.struck_in_this_operation() {
            return Err(unexpected("none has struck this read"));
        }
        let names_cause = error.to_string().contains("injected fault");
        match error.kind() {
            ErrorKind::Poisoned if names_cause => {
                self.sticky.get_or_insert(error.to_string());
                Ok(())
            }
            ErrorKind::Poisoned => Err(unexpected("the cause is not named")),
            ErrorKind::NoSpace if self.struck_in_this_operation() => Ok(()),
            ErrorKind::NoSpace => Err(unexpected("the disk has room again")),
            ErrorKind::Io if names_cause => Ok(()),
            // A compaction could not read its tables, and level 0 grows until somebody has it tried again.
            ErrorKind::Busy
                if self.faults.faults_struck() > self.struck_when_resumed
                    && error.to_string().contains("could not read its tables") =>
            {
                Ok(())
            }
            // What a failed creation of the very first files leaves.
            _ => Err(unexpected("it is of another kind")),
        }
    }
}
