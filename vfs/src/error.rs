//! The one error type of the workspace: grouped by what a caller can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A result of this workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself is wrong (a key too long, an option out of range): correct it.
    InvalidInput,
    /// What was asked for does not exist.
    NotFound,
    /// Bytes on disk are not what was written: restore them; other data stays readable.
    Corruption,
    /// The operating system refused: see the source.
    Io,
    /// The disk is full: make room; writes resume by themselves.
    NoSpace,
    /// Somebody else is in the way, or a deadline passed: try again later.
    Busy,
    /// The database was closed.
    Closed,
    /// An earlier write failed; this is its cause. Reads go on; `resume` or reopen.
    Poisoned,
    /// A newer format, or something this platform cannot do.
    Unsupported,
}

/// Why a call that may not wait (or may wait no longer) answered [`ErrorKind::Busy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BusyReason {
    /// Another process, or another handle in this one, holds the directory.
    DirectoryLocked,
    /// Too many immutable memtables wait for their flush.
    MemtableQueue,
    /// Too many tables in level 0.
    L0Tables,
    /// Too many bytes wait for compaction.
    CompactionDebt,
    /// The write-ahead log has reached its bound.
    LogSize,
    /// The operation is already running.
    InProgress,
}

/// An error with its kind, file, offset, cause and advice. Cheap to clone, so that the first write error can
/// be reported again on every later write.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    advice: Option<&'static str>,
    busy: Option<BusyReason>,
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
}

impl Error {
    /// An error of `kind` with a message that reads as the start of a sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                path: None,
                offset: None,
                advice: None,
                busy: None,
                source: None,
            }),
        }
    }

    /// A failed system call: `operation` is a verb phrase such as `"create table"`. A full disk or quota
    /// becomes [`ErrorKind::NoSpace`], a missing file [`ErrorKind::NotFound`].
    pub fn io(operation: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("could not {operation}"))
            .with_path(path)
            .with_source(source)
    }

    /// Damage at `offset` bytes into `path`: `what` says what was found and what was expected.
    pub fn corruption(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, what)
            .with_path(path)
            .with_offset(offset)
    }

    /// A wrong call.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// A refusal to wait, with its reason.
    pub fn busy(reason: BusyReason, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message).edit(|inner| inner.busy = Some(reason))
    }

    /// Names the file.
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        self.edit(|inner| inner.path = Some(path.into()))
    }

    /// Names the place in the file, in bytes.
    pub fn with_offset(self, offset: u64) -> Self {
        self.edit(|inner| inner.offset = Some(offset))
    }

    /// Says what to do about it, as a sentence without its full stop.
    pub fn with_advice(self, advice: &'static str) -> Self {
        self.edit(|inner| inner.advice = Some(advice))
    }

    /// Attaches the cause.
    pub fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|inner| inner.source = Some(Arc::new(source)))
    }

    /// The same error under another kind: the first failed write is reported again as
    /// [`ErrorKind::Poisoned`].
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        self.edit(|inner| inner.kind = kind)
    }

    /// Puts `context` before the message.
    pub fn context(self, context: &str) -> Self {
        self.edit(|inner| inner.message = format!("{context}: {}", inner.message))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The file it is about.
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// The place in that file, in bytes.
    pub fn offset(&self) -> Option<u64> {
        self.inner.offset
    }

    /// Why the call would have had to wait; `Some` for [`ErrorKind::Busy`] only.
    pub fn busy_reason(&self) -> Option<BusyReason> {
        self.inner.busy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        write!(f, "{}", inner.message)?;
        if let Some(path) = &inner.path {
            write!(f, " (file {}", path.display())?;
            if let Some(offset) = inner.offset {
                write!(f, ", offset {offset}")?;
            }
            write!(f, ")")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(advice) = inner.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner
            .source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_file_offset_cause_and_advice() {
        let error = Error::io("sync", Path::new("/db/7.wal"), io::Error::from_raw_os_error(28))
            .with_offset(4096)
            .with_advice("free some space");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            error.to_string(),
            "could not sync (file /db/7.wal, offset 4096): No space left on device (os error 28); free some space"
        );
    }
}
