//! Which errors an injected fault excuses.

use std::cell::Cell;

use siltstone::vfs::FaultFs;
use siltstone::{Error, ErrorKind};

use crate::violation::Violation;

/// Decides whether an error of the engine is explained by the faults of a [`FaultFs`], and whether writes that follow
/// are refused as they must be.
#[derive(Debug)]
pub struct FaultJudge {
    faults: FaultFs,
    struck_before: u64,
    /// A commit failed with an I/O error: until `resume` or reopening, none may succeed.
    sticky: Option<String>,
    mended: Cell<bool>,
}

impl FaultJudge {
    /// A judge of what `faults` does.
    pub fn new(faults: FaultFs) -> Self {
        Self {
            struck_before: faults.faults_struck(),
            faults,
            sticky: None,
            mended: Cell::new(false),
        }
    }

    pub(super) fn begin_operation(&mut self) {
        self.struck_before = self.faults.faults_struck();
    }

    pub(super) fn struck_in_this_operation(&self) -> bool {
        self.faults.faults_struck() > self.struck_before
    }

    /// Takes the faults back: the disk works again. Says whether it had not been mended before.
    pub(super) fn mend(&self) -> bool {
        self.faults.clear();
        !self.mended.replace(true)
    }

    pub(super) fn note_reopened(&mut self) {
        self.sticky = None;
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
            ErrorKind::NoSpace => Ok(()),
            ErrorKind::Io if names_cause => Ok(()),
            // What a failed creation of the very first files leaves.
            _ => Err(unexpected("it is of another kind")),
        }
    }
}
