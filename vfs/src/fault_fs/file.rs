//! The open files of a [`FaultFs`](super::FaultFs).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{FaultEffect, OpKind, Outcome};
use super::{Control, Detail};
use crate::{LogSync, LogWriter, ReadFile, Result, WriteFile};

/// A file of the wrapped file system and what the wrapper knows about it.
struct Wrapped<F> {
    inner: F,
    path: PathBuf,
    control: Arc<Control>,
}

impl<F> Wrapped<F> {
    fn new(inner: F, path: &Path, control: &Arc<Control>) -> Self {
        Self {
            inner,
            path: path.to_path_buf(),
            control: Arc::clone(control),
        }
    }

    fn check(&self, kind: OpKind, detail: Detail<'_>) -> Result<()> {
        self.control.check(kind, &self.path, detail)
    }

    /// A write of `bytes`, all of them, half of them, or none.
    fn write(
        &mut self,
        kind: OpKind,
        detail: Detail<'_>,
        bytes: &[u8],
        write: impl FnOnce(&mut F, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match self.control.begin(kind, &self.path, detail) {
            Outcome::Proceed => write(&mut self.inner, bytes),
            Outcome::Fail(effect) => {
                if effect == FaultEffect::ShortWrite {
                    write(&mut self.inner, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                }
                Err(effect.error(kind, &self.path))
            }
        }
    }
}

pub(super) struct FaultWriteFile(Wrapped<Box<dyn WriteFile>>);

impl FaultWriteFile {
    pub(super) fn new(inner: Box<dyn WriteFile>, path: &Path, control: &Arc<Control>) -> Self {
        Self(Wrapped::new(inner, path, control))
    }
}

impl WriteFile for FaultWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        // usize has at most 64 bits on every platform that Rust supports.
        let detail = Detail::Bytes(bytes.len() as u64);
        self.0
            .write(OpKind::Append, detail, bytes, |inner, bytes| inner.append(bytes))
    }

    fn sync(&mut self) -> Result<()> {
        self.0.check(OpKind::Sync, Detail::None)?;
        self.0.inner.sync()
    }
}

pub(super) struct FaultLogWriter(Wrapped<Box<dyn LogWriter>>);

impl FaultLogWriter {
    pub(super) fn new(inner: Box<dyn LogWriter>, path: &Path, control: &Arc<Control>) -> Self {
        Self(Wrapped::new(inner, path, control))
    }
}

impl LogWriter for FaultLogWriter {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let detail = Detail::Range(offset, bytes.len());
        self.0.write(OpKind::Write, detail, bytes, |inner, bytes| {
            inner.write_at(offset, bytes)
        })
    }

    fn capacity_bytes(&self) -> u64 {
        self.0.inner.capacity_bytes()
    }

    fn populate(&mut self) {
        self.0.inner.populate();
    }

    fn reuse(self: Box<Self>, to: &Path) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        let Wrapped { inner, path, control } = self.0;
        control.check(OpKind::Reuse, &path, Detail::To(to))?;
        let (writer, sync) = inner.reuse(to)?;
        Ok((
            Box::new(Self::new(writer, to, &control)),
            Arc::new(FaultLogSync::new(sync, to, &control)),
        ))
    }
}

pub(super) struct FaultLogSync(Wrapped<Arc<dyn LogSync>>);

impl FaultLogSync {
    pub(super) fn new(inner: Arc<dyn LogSync>, path: &Path, control: &Arc<Control>) -> Self {
        Self(Wrapped::new(inner, path, control))
    }
}

impl LogSync for FaultLogSync {
    fn sync(&self) -> Result<()> {
        self.0.check(OpKind::SyncLog, Detail::None)?;
        self.0.inner.sync()
    }
}

pub(super) struct FaultReadFile(Wrapped<Arc<dyn ReadFile>>);

impl FaultReadFile {
    pub(super) fn new(inner: Arc<dyn ReadFile>, path: &Path, control: &Arc<Control>) -> Self {
        Self(Wrapped::new(inner, path, control))
    }
}

impl ReadFile for FaultReadFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.0.check(OpKind::Read, Detail::Range(offset, buf.len()))?;
        self.0.inner.read_at(offset, buf)
    }

    fn len(&self) -> Result<u64> {
        self.0.check(OpKind::Len, Detail::None)?;
        self.0.inner.len()
    }
}

impl fmt::Debug for FaultReadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultReadFile").field(&self.0.inner).finish()
    }
}
