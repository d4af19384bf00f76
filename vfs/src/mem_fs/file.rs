//! Open files of a [`MemFs`]: they keep the file alive, whatever happens to its names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inode::{Inode, InodeId};
use super::{MemFs, State};
use crate::os_log::{check_log_name, check_log_write};
use crate::{Error, LogSync, LogWriter, ReadFile, Result, WriteFile};

/// An open file; reads, appends and syncs.
pub(super) struct OpenFile {
    fs: MemFs,
    id: InodeId,
    path: PathBuf,
}

/// The writing end of a log segment.
pub(super) struct LogEnd {
    pub(super) file: Arc<OpenFile>,
    pub(super) capacity_bytes: u64,
}

impl State {
    /// Counts one more open file; an [`OpenFile`] must be made of it, which counts it off.
    pub(super) fn hold(&mut self, id: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.handles += 1;
        }
    }
}

impl OpenFile {
    /// Of a file that has been [held](State::hold).
    pub(super) fn held(fs: &MemFs, id: InodeId, path: &Path) -> Self {
        Self {
            fs: fs.clone(),
            id,
            path: path.to_path_buf(),
        }
    }

    fn sync_content(&self) {
        self.fs.state.lock().change(self.id, Inode::sync);
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.fs.state.lock();
        if let Some(inode) = state.inodes.get_mut(&self.id) {
            inode.handles = inode.handles.saturating_sub(1);
            if inode.is_loose() {
                state.drop_unreachable();
            }
        }
    }
}

impl WriteFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state = self.fs.state.lock();
        let end = state.inodes.get(&self.id).map_or(0, Inode::len);
        state.write(&self.path, self.id, end, bytes)
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_content();
        Ok(())
    }
}

impl ReadFile for OpenFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let state = self.fs.state.lock();
        let content = state.inodes.get(&self.id).map(Inode::content);
        let rest = content
            .and_then(|content| content.get(usize::try_from(offset).ok()?..))
            .unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(target), Some(source)) = (buf.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(source);
        }
        Ok(count)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.fs.state.lock().inodes.get(&self.id).map_or(0, Inode::len))
    }
}

impl LogSync for OpenFile {
    fn sync(&self) -> Result<()> {
        self.sync_content();
        Ok(())
    }
}

impl LogWriter for LogEnd {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let file = &self.file;
        check_log_write(&file.path, offset, bytes.len(), self.capacity_bytes)?;
        file.fs.state.lock().write(&file.path, file.id, offset, bytes)
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn reuse(self: Box<Self>, to: &Path) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        check_log_name(to)?;
        let Self { file, capacity_bytes } = *self;
        let len = usize::try_from(capacity_bytes)
            .map_err(|_| Error::invalid("the log segment exceeds the address space"))?;
        {
            let mut state = file.fs.state.lock();
            state.write(&file.path, file.id, 0, &vec![0; len])?;
            state.rename(&file.path, to)?;
            state.hold(file.id);
        }
        let file = Arc::new(OpenFile::held(&file.fs, file.id, to));
        let writer = Self {
            file: Arc::clone(&file),
            capacity_bytes,
        };
        Ok((Box::new(writer), file))
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
