//! A file system in memory that knows what a power loss would leave of it.

mod crash;
mod file;
mod inode;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::{LogEnd, OpenFile};
use self::inode::{Inode, InodeId};
use self::names::{Names, Place};
use crate::os_fs::{check_truncation, in_use_by, refuse_to_link_across_kinds, refuse_to_rename_tables};
use crate::os_log::check_new_log;
use crate::{
    DirLock, Error, Fs, LogIo, LogSync, LogWriter, MapMode, Mapping, ReadFile, Removable, Result, Unmapped,
    WriteFile,
};

/// What [`Fs::space_available`] says where no capacity is set: an exbibyte.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// A file system in memory, and a model of what survives when the power goes.
///
/// Clones are handles to the same file system. Every file remembers the writes since its last sync, and the
/// file system the changes of names since their directory's last sync; [`crash_clone`](MemFs::crash_clone)
/// keeps a random choice of either.
///
/// - A directory is durable as soon as it has been created, parents included; its entries are not.
/// - A removed file lives on for those who have it open or mapped.
/// - A mapping shows the bytes of the moment at which the table was opened.
/// - The lock of a directory is kept beside the files: no `LOCK` file appears.
/// - [`sync_dir`](Fs::sync_dir) makes all entries of the directory durable, and for a rename between two
///   directories the other side with it.
#[derive(Clone, Default)]
pub struct MemFs {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<InodeId, Inode>,
    names: Names,
    next_inode: u64,
    capacity_bytes: Option<u64>,
    /// The lengths of all files that have a name.
    used_bytes: u64,
    locked: BTreeSet<PathBuf>,
}

impl MemFs {
    /// An empty file system with the directories `/` and `.`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes that all named files together may have; growth past it fails with `NoSpace`, after the part
    /// that still fits has been written. `None`, at first, is no limit.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.state.lock().capacity_bytes = capacity_bytes;
    }

    /// The limit that was [set](Self::set_capacity), in bytes.
    pub fn capacity(&self) -> Option<u64> {
        self.state.lock().capacity_bytes
    }

    /// The lengths of all named files together; a file with several names counts once.
    pub fn bytes_used(&self) -> u64 {
        self.state.lock().used_bytes
    }

    /// A file's present bytes, synced or not.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let state = self.state.lock();
        let (_, inode) = state.find("read file", path)?;
        Ok(inode.content().as_ref().clone())
    }

    /// Puts a file there, or replaces the bytes of the one that is there; bytes and name are durable at once.
    /// Takes no notice of the capacity.
    ///
    /// # Errors
    /// `NotFound` where the directory is missing.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let path = path.as_ref();
        let mut state = self.state.lock();
        let place = state.place("write file", path)?;
        let id = match state.names.get(&place) {
            Some(id) => id,
            None => state.add_file(&place, Inode::default()),
        };
        state.names.sync_name(&place);
        state.change(id, |inode| inode.replace(bytes.into()));
        state.drop_unreachable();
        Ok(())
    }

    /// Every file's path and present length, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state.lock();
        let entries = state.names.entries();
        entries
            .filter_map(|(place, id)| Some((place.path(), state.inodes.get(&id)?.len())))
            .collect()
    }
}

impl State {
    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let operation = format!("rename to {}", to.display());
        let (id, _) = self.find(&operation, from)?;
        let (source, target) = (self.place(&operation, from)?, self.place(&operation, to)?);
        if self.names.has_dir(&target.path()) {
            return Err(Error::io(&operation, from, io::ErrorKind::IsADirectory.into()));
        }
        let replaced = self.names.get(&target);
        if replaced == Some(id) {
            // Two names of one file, or the same name twice: POSIX asks for nothing to be done.
            return Ok(());
        }
        self.names.rename(source, target, id);
        if let Some(replaced) = replaced {
            self.unname(replaced);
        }
        Ok(())
    }

    fn find(&self, operation: &str, path: &Path) -> Result<(InodeId, &Inode)> {
        let place = Place::of(path);
        let id = place.and_then(|place| self.names.get(&place));
        id.and_then(|id| Some((id, self.inodes.get(&id)?)))
            .ok_or_else(|| Error::io(operation, path, io::ErrorKind::NotFound.into()))
    }

    /// The place of an entry whose directory exists.
    fn place(&self, operation: &str, path: &Path) -> Result<Place> {
        Place::of(path)
            .filter(|place| self.names.has_dir(&place.dir))
            .ok_or_else(|| Error::io(operation, path, io::ErrorKind::NotFound.into()))
    }

    /// The place of an entry that does not exist yet.
    fn vacant_place(&self, operation: &str, path: &Path) -> Result<Place> {
        let place = self.place(operation, path)?;
        if self.names.get(&place).is_some() || self.names.has_dir(&place.path()) {
            return Err(Error::io(operation, path, io::ErrorKind::AlreadyExists.into()));
        }
        Ok(place)
    }

    fn add_file(&mut self, place: &Place, mut inode: Inode) -> InodeId {
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        inode.names = 1;
        self.used_bytes = self.used_bytes.saturating_add(inode.len());
        self.inodes.insert(id, inode);
        self.names.add(place.clone(), id);
        id
    }

    /// Changes a file and keeps account of the bytes used.
    fn change(&mut self, id: InodeId, change: impl FnOnce(&mut Inode)) {
        let Some(inode) = self.inodes.get_mut(&id) else {
            return;
        };
        let before = inode.len();
        change(inode);
        if inode.names > 0 {
            self.used_bytes = self.used_bytes.saturating_sub(before).saturating_add(inode.len());
        }
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes))
    }

    /// Writes as much as there is room for.
    fn write(&mut self, path: &Path, id: InodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let free = self.free_bytes();
        let Some(inode) = self.inodes.get(&id) else {
            return Ok(());
        };
        let room = if inode.names == 0 {
            u64::MAX
        } else {
            inode.len().saturating_add(free).saturating_sub(offset)
        };
        let fits = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let start = usize::try_from(offset)
            .map_err(|_| Error::invalid("the offset exceeds the address space").with_path(path))?;
        let written = bytes.get(..fits).unwrap_or(bytes);
        self.change(id, |inode| inode.write(start, written));
        if fits < bytes.len() {
            return Err(
                Error::io("write to file", path, io::ErrorKind::StorageFull.into()).with_offset(offset),
            );
        }
        Ok(())
    }

    /// One name fewer.
    fn unname(&mut self, id: InodeId) {
        let Some(inode) = self.inodes.get_mut(&id) else {
            return;
        };
        inode.names = inode.names.saturating_sub(1);
        if inode.names == 0 {
            self.used_bytes = self.used_bytes.saturating_sub(inode.len());
        }
    }

    /// Forgets the files that nobody has open and that have no name, now or after any crash.
    fn drop_unreachable(&mut self) {
        if !self.inodes.values().any(Inode::is_loose) {
            return;
        }
        let durable = self.names.mentioned();
        self.inodes
            .retain(|id, inode| !inode.is_loose() || durable.contains(id));
    }
}

impl Fs for MemFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        let id = {
            let mut state = self.state.lock();
            let place = state.vacant_place("create file", path)?;
            let id = state.add_file(&place, Inode::default());
            state.hold(id);
            id
        };
        Ok(Box::new(OpenFile::held(self, id, path)))
    }

    fn create_log(
        &self,
        path: &Path,
        capacity_bytes: u64,
        _io: LogIo,
    ) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        check_new_log(path, capacity_bytes)?;
        let id = {
            let mut state = self.state.lock();
            let place = state.vacant_place("create log segment", path)?;
            let full = || {
                Error::io(
                    "reserve the space of log segment",
                    path,
                    io::ErrorKind::StorageFull.into(),
                )
            };
            if capacity_bytes > state.free_bytes() {
                return Err(full());
            }
            let inode = Inode::zeroed(capacity_bytes).ok_or_else(full)?;
            let id = state.add_file(&place, inode);
            state.hold(id);
            id
        };
        let file = Arc::new(OpenFile::held(self, id, path));
        let writer = LogEnd {
            file: Arc::clone(&file),
            capacity_bytes,
        };
        Ok((Box::new(writer), file))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let id = {
            let mut state = self.state.lock();
            let (id, _) = state.find("open file", path)?;
            state.hold(id);
            id
        };
        Ok(Arc::new(OpenFile::held(self, id, path)))
    }

    fn open_table(&self, path: &Path, lock: &DirLock, mode: MapMode) -> Result<Mapping> {
        match mode {
            MapMode::Map => {
                let content = Arc::clone(self.state.lock().find("open table", path)?.1.content());
                Mapping::from_shared(path, content, lock)
            }
            MapMode::Read => Mapping::from_reader(path, self.open(path)?, lock),
        }
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        let (id, _) = state.find("sync file", path)?;
        state.change(id, Inode::sync);
        Ok(())
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        let key = normal(dir);
        let mut state = self.state.lock();
        if !state.names.has_dir(&key) {
            return Err(Error::io(
                "lock the directory",
                dir,
                io::ErrorKind::NotFound.into(),
            ));
        }
        if !state.locked.insert(key.clone()) {
            return Err(in_use_by(dir, Some(std::process::id())).with_path(dir));
        }
        drop(state);
        Ok(DirLock::new(
            dir.to_path_buf(),
            Box::new(HeldDir {
                fs: self.clone(),
                dir: key,
            }),
        ))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut state = self.state.lock();
        let dir = normal(dir);
        for ancestor in dir.ancestors() {
            if Place::of(ancestor).is_some_and(|place| state.names.get(&place).is_some()) {
                return Err(Error::io(
                    "create directory",
                    ancestor,
                    io::ErrorKind::AlreadyExists.into(),
                ));
            }
        }
        state.names.add_dirs(&dir);
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let names = self.state.lock().names.list(&normal(dir));
        names.ok_or_else(|| Error::io("list directory", dir, io::ErrorKind::NotFound.into()))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let state = self.state.lock();
        let is_file = Place::of(path).is_some_and(|place| state.names.get(&place).is_some());
        Ok(is_file || state.names.has_dir(&normal(path)))
    }

    fn len(&self, path: &Path) -> Result<u64> {
        Ok(self.state.lock().find("read the length of file", path)?.1.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        refuse_to_rename_tables(from, to)?;
        self.state.lock().rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        refuse_to_link_across_kinds(from, to)?;
        let operation = format!("link to {}", to.display());
        let mut state = self.state.lock();
        let (id, _) = state.find(&operation, from)?;
        let place = state.vacant_place(&operation, to)?;
        state.names.add(place, id);
        if let Some(inode) = state.inodes.get_mut(&id) {
            inode.names += 1;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut state = self.state.lock();
        let key = normal(dir);
        if !state.names.has_dir(&key) {
            return Err(Error::io("sync directory", dir, io::ErrorKind::NotFound.into()));
        }
        state.names.sync_dir(&key);
        state.drop_unreachable();
        Ok(())
    }

    fn remove(&self, file: &Removable<'_>) -> Result<()> {
        let mut state = self.state.lock();
        let (id, _) = state.find("remove file", file.path())?;
        let place = state.place("remove file", file.path())?;
        state.names.remove(place);
        state.unname(id);
        state.drop_unreachable();
        Ok(())
    }

    fn truncate(&self, file: &Unmapped, len_bytes: u64) -> Result<()> {
        file.check_not_open()?;
        let mut state = self.state.lock();
        let (id, inode) = state.find("truncate table", file.path())?;
        // usize has at most 64 bits on every platform that Rust supports.
        check_truncation(file.path(), inode.names as u64, inode.len(), len_bytes)?;
        let len =
            usize::try_from(len_bytes).map_err(|_| Error::invalid("the length exceeds the address space"))?;
        state.change(id, |inode| inode.truncate(len));
        Ok(())
    }

    fn space_available(&self, dir: &Path) -> Result<u64> {
        let state = self.state.lock();
        if !state.names.has_dir(&normal(dir)) {
            return Err(Error::io(
                "ask for the space available",
                dir,
                io::ErrorKind::NotFound.into(),
            ));
        }
        Ok(state.free_bytes().min(UNLIMITED_BYTES))
    }
}

/// A path without its `.` components: the key under which a directory is kept.
fn normal(path: &Path) -> PathBuf {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .collect()
}

/// Releases the lock of a directory when dropped.
struct HeldDir {
    fs: MemFs,
    dir: PathBuf,
}

impl Drop for HeldDir {
    fn drop(&mut self) {
        self.fs.state.lock().locked.remove(&self.dir);
    }
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("MemFs");
        if let Some(state) = self.state.try_lock() {
            shown
                .field("inodes", &state.inodes.len())
                .field("used_bytes", &state.used_bytes);
        }
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
