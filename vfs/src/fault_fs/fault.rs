//! Which operation fails, and how.

use std::io;
use std::path::Path;

use crate::Error;

/// What is asked of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// [`Fs::create`](crate::Fs::create)
    Create,
    /// [`Fs::create_log`](crate::Fs::create_log)
    CreateLog,
    /// [`Fs::open`](crate::Fs::open)
    Open,
    /// [`Fs::open_table`](crate::Fs::open_table)
    OpenTable,
    /// [`WriteFile::append`](crate::WriteFile::append)
    Append,
    /// [`LogWriter::write_at`](crate::LogWriter::write_at)
    Write,
    /// [`LogWriter::reuse`](crate::LogWriter::reuse)
    Reuse,
    /// [`WriteFile::sync`](crate::WriteFile::sync)
    Sync,
    /// [`LogSync::sync`](crate::LogSync::sync)
    SyncLog,
    /// [`Fs::sync_file`](crate::Fs::sync_file)
    SyncFile,
    /// [`Fs::sync_dir`](crate::Fs::sync_dir)
    SyncDir,
    /// [`Fs::rename`](crate::Fs::rename)
    Rename,
    /// [`Fs::hard_link`](crate::Fs::hard_link)
    Link,
    /// [`Fs::remove`](crate::Fs::remove)
    Remove,
    /// [`Fs::truncate`](crate::Fs::truncate)
    Truncate,
    /// [`Fs::list`](crate::Fs::list)
    List,
    /// [`Fs::len`](crate::Fs::len) and [`ReadFile::len`](crate::ReadFile::len)
    Len,
    /// [`Fs::exists`](crate::Fs::exists)
    Exists,
    /// [`ReadFile::read_at`](crate::ReadFile::read_at), that of a table which is not mapped included
    Read,
    /// [`Fs::create_dir_all`](crate::Fs::create_dir_all)
    CreateDir,
    /// [`Fs::lock_dir`](crate::Fs::lock_dir)
    Lock,
    /// [`Fs::space_available`](crate::Fs::space_available)
    Space,
}

impl OpKind {
    /// The word of the trace.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateLog => "createlog",
            Self::Open => "open",
            Self::OpenTable => "opentable",
            Self::Append => "append",
            Self::Write => "write",
            Self::Reuse => "reuse",
            Self::Sync => "sync",
            Self::SyncLog => "synclog",
            Self::SyncFile => "syncfile",
            Self::SyncDir => "syncdir",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Remove => "remove",
            Self::Truncate => "truncate",
            Self::List => "list",
            Self::Len => "len",
            Self::Exists => "exists",
            Self::Read => "read",
            Self::CreateDir => "mkdir",
            Self::Lock => "lock",
            Self::Space => "space",
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEffect {
    /// It is not done, and fails with EIO.
    Eio,
    /// It is not done, and fails with ENOSPC.
    Enospc,
    /// The first half of the bytes is written, then it fails with EIO. Strikes appends and log writes only.
    ShortWrite,
    /// The sync fails with EIO, and what was not synced stays so. Strikes the four kinds of sync only.
    FailedSync,
    /// The call that maps the file fails with ENOMEM. Strikes the opening of tables and the creation of log segments only.
    FailedMap,
}

impl FaultEffect {
    /// Whether it can befall the operation; where not, the operation does not count.
    fn befalls(self, kind: OpKind) -> bool {
        match self {
            Self::Eio | Self::Enospc => true,
            Self::ShortWrite => matches!(kind, OpKind::Append | OpKind::Write),
            Self::FailedSync => {
                matches!(
                    kind,
                    OpKind::Sync | OpKind::SyncLog | OpKind::SyncFile | OpKind::SyncDir
                )
            }
            Self::FailedMap => matches!(kind, OpKind::OpenTable | OpKind::CreateLog),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eio => "EIO",
            Self::Enospc => "ENOSPC",
            Self::ShortWrite => "short",
            Self::FailedSync => "failed",
            Self::FailedMap => "ENOMEM",
        }
    }

    pub(super) fn error(self, kind: OpKind, path: &Path) -> Error {
        let errno = match self {
            Self::Enospc => rustix::io::Errno::NOSPC,
            Self::FailedMap => rustix::io::Errno::NOMEM,
            Self::Eio | Self::ShortWrite | Self::FailedSync => rustix::io::Errno::IO,
        };
        Error::io(
            &format!("{} (injected fault)", kind.word()),
            path,
            io::Error::from(errno),
        )
    }
}

/// A failure to come.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which of the matching operations is struck, counted from 0 at the moment of the injection.
    pub nth: u64,
    /// The kinds that match; `None` is all that the effect can befall.
    pub kinds: Option<Vec<OpKind>>,
    /// A part of the path that must be there to match, in either path of a rename or link; `None` matches
    /// all.
    pub path_contains: Option<String>,
    /// How it fails.
    pub effect: FaultEffect,
    /// Whether every matching operation after it is struck, too.
    pub repeat: bool,
}

impl Fault {
    fn matches(&self, kind: OpKind, path: &Path, to: Option<&Path>) -> bool {
        let kind_matches = self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
        let path_matches = self.path_contains.as_ref().is_none_or(|part| {
            let contains = |path: &Path| path.to_string_lossy().contains(part.as_str());
            contains(path) || to.is_some_and(contains)
        });
        kind_matches && path_matches && self.effect.befalls(kind)
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Proceed,
    Fail(FaultEffect),
}

/// The faults that are set, each with the number of matching operations that it has seen.
#[derive(Default)]
pub(super) struct Schedule {
    pending: Vec<(Fault, u64)>,
    struck: u64,
}

impl Schedule {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.pending.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    pub(super) fn struck(&self) -> u64 {
        self.struck
    }

    /// Shows an operation to every fault; the first that strikes it decides. A fault that strikes once is
    /// used up.
    pub(super) fn strike(&mut self, kind: OpKind, path: &Path, to: Option<&Path>) -> Outcome {
        let mut outcome = Outcome::Proceed;
        self.pending.retain_mut(|(fault, seen)| {
            if !fault.matches(kind, path, to) {
                return true;
            }
            let due = *seen >= fault.nth;
            *seen += 1;
            if due && outcome == Outcome::Proceed {
                outcome = Outcome::Fail(fault.effect);
            }
            !due || fault.repeat
        });
        if outcome != Outcome::Proceed {
            self.struck += 1;
        }
        outcome
    }
}
