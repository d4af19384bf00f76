//! A file system that counts what is asked of it, fails on schedule and keeps a trace.

mod fault;
mod file;
mod journal;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::fault::{Fault, FaultEffect, OpKind};
use self::fault::{Outcome, Schedule};
use self::file::{FaultLogSync, FaultLogWriter, FaultReadFile, FaultWriteFile};
use self::journal::Journal;
use crate::{
    DirLock, Fs, LogIo, LogSync, LogWriter, MapMode, Mapping, ReadFile, Removable, Result, Unmapped,
    WriteFile,
};

/// An operation that is about to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpInfo {
    /// How many operations came before it.
    pub index: u64,
    /// What is done.
    pub kind: OpKind,
    /// The file or directory; of a rename or link, the old name.
    pub path: PathBuf,
    /// The new name of a rename or link.
    pub to: Option<PathBuf>,
}

type Hook = Arc<dyn Fn(&OpInfo) + Send + Sync>;

/// Wraps a file system: counts every operation, tells a hook about it, writes it down, and fails it where a
/// [`Fault`] says so. Clones are handles to the same counters and faults.
///
/// An operation that fails by a fault is not done at all, but for the prefix of a [short
/// write](FaultEffect::ShortWrite). Locks and mappings are those of the wrapped file system: what is read
/// through a mapping in memory is not seen here.
///
/// # Trace
///
/// One line an operation, in the order of their beginning, with the paths as given and ` !` and the error
/// behind those that failed by a fault:
///
/// ```text
/// create db/000003.sst
/// append db/000003.sst 4096
/// sync db/000003.sst !EIO
/// syncdir db
/// rename db/CURRENT.tmp -> db/CURRENT
/// createlog db/000004.wal 4194304
/// write db/000004.wal 0+128
/// read db/000004.wal 0+65536
/// truncate db/000003.sst 0
/// ```
///
/// The other words are `open`, `opentable`, `synclog`, `syncfile`, `link`, `remove`, `list`, `len`, `exists`,
/// `mkdir`, `lock` and `space`. The last 65,536 lines are kept.
#[derive(Clone)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    control: Arc<Control>,
}

/// The state that the file system and all its open files share.
#[derive(Default)]
struct Control {
    state: Mutex<ControlState>,
}

#[derive(Default)]
struct ControlState {
    op_count: u64,
    schedule: Schedule,
    journal: Journal,
    hook: Option<Hook>,
}

impl FaultFs {
    /// Wraps `inner`; no fault is set, and the trace is on.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self {
            inner,
            control: Arc::default(),
        }
    }

    /// The wrapped file system.
    pub fn inner(&self) -> &Arc<dyn Fs> {
        &self.inner
    }

    /// Sets a fault; it counts the operations from now on. Where several strike the same operation, the one
    /// that was set first decides.
    pub fn inject(&self, fault: Fault) {
        self.control.state.lock().schedule.inject(fault);
    }

    /// Takes all faults back: from now on nothing fails. Count, trace and hook stay.
    pub fn clear(&self) {
        self.control.state.lock().schedule.clear();
    }

    /// How many operations have failed by a fault since the beginning.
    pub fn faults_struck(&self) -> u64 {
        self.control.state.lock().schedule.struck()
    }

    /// How many operations have begun since the beginning, reads included.
    pub fn op_count(&self) -> u64 {
        self.control.state.lock().op_count
    }

    /// The lines of the trace, the oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.control.state.lock().journal.lines()
    }

    /// Forgets the lines of the trace.
    pub fn clear_trace(&self) {
        self.control.state.lock().journal.clear();
    }

    /// Switches the trace on or off; the lines so far stay.
    pub fn set_tracing(&self, on: bool) {
        self.control.state.lock().journal.set_enabled(on);
    }

    /// Has `hook` called before each operation, on the thread that does it and with no lock of this file
    /// system or the wrapped one held: it may use either, and operations that it does through this one call
    /// it again. It replaces the hook that was set before.
    pub fn on_op(&self, hook: Box<dyn Fn(&OpInfo) + Send + Sync>) {
        self.control.state.lock().hook = Some(Arc::from(hook));
    }

    /// Takes the hook back. A call that has begun on another thread may still be under way.
    pub fn clear_on_op(&self) {
        let hook = self.control.state.lock().hook.take();
        drop(hook);
    }
}

impl Control {
    /// Begins an operation: counts it, calls the hook, asks for faults, writes the trace.
    fn begin(&self, kind: OpKind, path: &Path, detail: Detail<'_>) -> Outcome {
        let (index, hook) = {
            let mut state = self.state.lock();
            let index = state.op_count;
            state.op_count += 1;
            (index, state.hook.clone())
        };
        if let Some(hook) = hook {
            let to = if let Detail::To(to) = detail {
                Some(to.to_path_buf())
            } else {
                None
            };
            hook(&OpInfo {
                index,
                kind,
                path: path.to_path_buf(),
                to,
            });
        }
        let mut state = self.state.lock();
        let outcome = state.schedule.strike(kind, path, detail.to());
        state.journal.record(kind, path, detail, outcome);
        outcome
    }

    /// [`begin`](Self::begin) for an operation that a fault fails as a whole.
    fn check(&self, kind: OpKind, path: &Path, detail: Detail<'_>) -> Result<()> {
        match self.begin(kind, path, detail) {
            Outcome::Proceed => Ok(()),
            Outcome::Fail(effect) => Err(effect.error(kind, path)),
        }
    }
}

/// What a line of the trace says behind the path.
#[derive(Clone, Copy)]
enum Detail<'a> {
    None,
    /// A number of bytes.
    Bytes(u64),
    /// An offset and a number of bytes.
    Range(u64, usize),
    /// The other path.
    To(&'a Path),
}

impl<'a> Detail<'a> {
    fn to(self) -> Option<&'a Path> {
        if let Self::To(to) = self { Some(to) } else { None }
    }
}

impl Fs for FaultFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        self.control.check(OpKind::Create, path, Detail::None)?;
        Ok(Box::new(FaultWriteFile::new(
            self.inner.create(path)?,
            path,
            &self.control,
        )))
    }

    fn create_log(
        &self,
        path: &Path,
        capacity_bytes: u64,
        io: LogIo,
    ) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        self.control
            .check(OpKind::CreateLog, path, Detail::Bytes(capacity_bytes))?;
        let (writer, sync) = self.inner.create_log(path, capacity_bytes, io)?;
        let writer = FaultLogWriter::new(writer, path, &self.control);
        Ok((
            Box::new(writer),
            Arc::new(FaultLogSync::new(sync, path, &self.control)),
        ))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        self.control.check(OpKind::Open, path, Detail::None)?;
        Ok(Arc::new(FaultReadFile::new(
            self.inner.open(path)?,
            path,
            &self.control,
        )))
    }

    fn open_table(&self, path: &Path, lock: &DirLock, mode: MapMode) -> Result<Mapping> {
        self.control.check(OpKind::OpenTable, path, Detail::None)?;
        match mode {
            MapMode::Map => self.inner.open_table(path, lock, mode),
            MapMode::Read => {
                let file = FaultReadFile::new(self.inner.open(path)?, path, &self.control);
                Mapping::from_reader(path, Arc::new(file), lock)
            }
        }
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.control.check(OpKind::SyncFile, path, Detail::None)?;
        self.inner.sync_file(path)
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        self.control.check(OpKind::Lock, dir, Detail::None)?;
        self.inner.lock_dir(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.control.check(OpKind::CreateDir, dir, Detail::None)?;
        self.inner.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.control.check(OpKind::List, dir, Detail::None)?;
        self.inner.list(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.control.check(OpKind::Exists, path, Detail::None)?;
        self.inner.exists(path)
    }

    fn len(&self, path: &Path) -> Result<u64> {
        self.control.check(OpKind::Len, path, Detail::None)?;
        self.inner.len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.control.check(OpKind::Rename, from, Detail::To(to))?;
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.control.check(OpKind::Link, from, Detail::To(to))?;
        self.inner.hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.control.check(OpKind::SyncDir, dir, Detail::None)?;
        self.inner.sync_dir(dir)
    }

    fn remove(&self, file: &Removable<'_>) -> Result<()> {
        self.control.check(OpKind::Remove, file.path(), Detail::None)?;
        self.inner.remove(file)
    }

    fn truncate(&self, file: &Unmapped, len_bytes: u64) -> Result<()> {
        self.control
            .check(OpKind::Truncate, file.path(), Detail::Bytes(len_bytes))?;
        self.inner.truncate(file, len_bytes)
    }

    fn space_available(&self, dir: &Path) -> Result<u64> {
        self.control.check(OpKind::Space, dir, Detail::None)?;
        self.inner.space_available(dir)
    }
}

impl fmt::Debug for FaultFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("FaultFs");
        shown.field("inner", &self.inner);
        if let Some(state) = self.control.state.try_lock() {
            shown.field("op_count", &state.op_count);
        }
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
