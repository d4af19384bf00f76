//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mapping::is_table_path;
use crate::os_log;
use crate::{
    BusyReason, DirLock, Error, Fs, LogIo, LogSync, LogWriter, MapMode, Mapping, ReadFile, Removable, Result,
    Unmapped, WriteFile,
};

/// The name of the file that carries the lock of a directory.
pub const LOCK_FILE_NAME: &str = "LOCK";

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl OsFs {
    /// The one there is.
    pub const fn new() -> Self {
        Self
    }
}

impl Fs for OsFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| Error::io("create file", path, source))?;
        Ok(Box::new(OsWriteFile {
            path: path.to_path_buf(),
            file,
            synced_once: false,
            failed_sync: None,
        }))
    }

    fn create_log(
        &self,
        path: &Path,
        capacity_bytes: u64,
        io: LogIo,
    ) -> Result<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        os_log::create(path, capacity_bytes, io)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let file = File::open(path).map_err(|source| Error::io("open file", path, source))?;
        Ok(Arc::new(OsReadFile {
            path: path.to_path_buf(),
            file,
        }))
    }

    fn open_table(&self, path: &Path, lock: &DirLock, mode: MapMode) -> Result<Mapping> {
        match mode {
            MapMode::Map => Mapping::map_file(path, lock),
            MapMode::Read => Mapping::from_reader(path, self.open(path)?, lock),
        }
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|source| Error::io("open file to sync it", path, source))?;
        file.sync_all()
            .map_err(|source| Error::io("sync file", path, source))
    }

    fn lock_dir(&self, dir: &Path) -> Result<DirLock> {
        let path = dir.join(LOCK_FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| Error::io("open the directory's lock file", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, &path, &mut file)),
            Err(TryLockError::Error(source)) => {
                return Err(Error::io("lock the directory", &path, source)
                    .with_advice("the file system must support advisory locks"));
            }
        }
        write_pid(&file).map_err(|source| Error::io("write the directory's lock file", &path, source))?;
        Ok(DirLock::from_os(dir.to_path_buf(), Box::new(LockFile(file))))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(|source| Error::io("create directory", dir, source))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let failed = |source| Error::io("list directory", dir, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            // A name that is not UTF-8 is none of ours; shown lossily it still is none of ours.
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists()
            .map_err(|source| Error::io("look for file", path, source))
    }

    fn len(&self, path: &Path) -> Result<u64> {
        let metadata =
            fs::metadata(path).map_err(|source| Error::io("read the length of file", path, source))?;
        Ok(metadata.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        refuse_to_rename_tables(from, to)?;
        fs::rename(from, to).map_err(|source| Error::io(&format!("rename to {}", to.display()), from, source))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        refuse_to_link_across_kinds(from, to)?;
        fs::hard_link(from, to)
            .map_err(|source| Error::io(&format!("link to {}", to.display()), from, source))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let file = File::open(dir).map_err(|source| Error::io("open directory to sync it", dir, source))?;
        file.sync_all()
            .map_err(|source| Error::io("sync directory", dir, source))
    }

    fn remove(&self, file: &Removable<'_>) -> Result<()> {
        fs::remove_file(file.path()).map_err(|source| Error::io("remove file", file.path(), source))
    }

    fn truncate(&self, file: &Unmapped, len_bytes: u64) -> Result<()> {
        let path = file.path();
        if !file.is_from_os() {
            return Err(Error::invalid("truncating needs a lock of the same file system").with_path(path));
        }
        file.check_not_open()?;
        let failed = |source| Error::io("truncate table", path, source);
        let handle = OpenOptions::new().write(true).open(path).map_err(failed)?;
        let metadata = handle.metadata().map_err(failed)?;
        check_truncation(path, metadata.nlink(), metadata.len(), len_bytes)?;
        handle.set_len(len_bytes).map_err(failed)
    }

    fn space_available(&self, dir: &Path) -> Result<u64> {
        let stats = rustix::fs::statvfs(dir)
            .map_err(|errno| Error::io("ask for the space available", dir, io::Error::from(errno)))?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}

/// A table keeps its name for life: the lock's record of open tables goes by name, and a rename could bring a
/// table into being, or do away with one, behind its back.
pub(crate) fn refuse_to_rename_tables(from: &Path, to: &Path) -> Result<()> {
    match [from, to].into_iter().find(|path| is_table_path(path)) {
        Some(table) => Err(Error::invalid("a table cannot be renamed or replaced").with_path(table)),
        None => Ok(()),
    }
}

/// A second name keeps the kind of the first, so that nothing that is still written can be mapped.
pub(crate) fn refuse_to_link_across_kinds(from: &Path, to: &Path) -> Result<()> {
    if is_table_path(from) == is_table_path(to) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a table and another file cannot be one: link to {}",
        to.display()
    ))
    .with_path(from))
}

/// What must hold before a table is cut: it has one name, and gets no longer.
pub(crate) fn check_truncation(path: &Path, names: u64, len: u64, wanted_len: u64) -> Result<()> {
    if names > 1 {
        let message = format!("the table has {names} names: truncating it would destroy the others' bytes");
        return Err(Error::invalid(message)
            .with_path(path)
            .with_advice("remove this name instead"));
    }
    if wanted_len > len {
        let message = format!("truncating {len} bytes to {wanted_len} would make the table longer");
        return Err(Error::invalid(message).with_path(path));
    }
    Ok(())
}

/// The error for a directory that somebody holds; the lock file says who.
fn in_use(dir: &Path, lock_path: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // The holder may not have written its pid yet, and a name is all that is missing then.
    let _ = file.take(32).read_to_string(&mut text);
    in_use_by(dir, text.trim().parse().ok()).with_path(lock_path)
}

/// The error for a directory that is held by process `pid`.
pub(crate) fn in_use_by(dir: &Path, pid: Option<u32>) -> Error {
    let holder = match pid {
        Some(pid) if pid == std::process::id() => {
            format!("process {pid}, which is this one: a handle, or a value that was read in place, is alive")
        }
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    Error::busy(
        BusyReason::DirectoryLocked,
        format!("{} is in use by {holder}", dir.display()),
    )
}

/// The locked file. A process that another thread is just starting has a copy of the file until it runs its program, and
/// with it the lock: letting go of ours alone would leave the directory locked for that long.
struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing unlocks as well, only later.
        let _ = self.0.unlock();
    }
}

/// Over the last holder's, always as long: cutting a file costs milliseconds, and file systems write it back when it is
/// closed.
fn write_pid(file: &File) -> io::Result<()> {
    file.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0)
}

/// Unbuffered: callers hand over large pieces.
struct OsWriteFile {
    path: PathBuf,
    file: File,
    synced_once: bool,
    /// A failed sync is final: the system has dropped the pages, and a second sync would lie.
    failed_sync: Option<Error>,
}

impl WriteFile for OsWriteFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|source| Error::io("append to file", &self.path, source))
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(error) = &self.failed_sync {
            return Err(error.clone());
        }
        // fdatasync includes the length; the first sync makes the rest of the inode durable as well.
        let answer = if self.synced_once {
            self.file.sync_data()
        } else {
            self.file.sync_all()
        };
        if let Err(source) = answer {
            let error = Error::io("sync file", &self.path, source);
            self.failed_sync = Some(error.clone());
            return Err(error);
        }
        self.synced_once = true;
        Ok(())
    }
}

#[derive(Debug)]
struct OsReadFile {
    path: PathBuf,
    file: File,
}

impl ReadFile for OsReadFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // usize has at most 64 bits on every platform that Rust supports.
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::io("read file", &self.path, source).with_offset(offset)),
            }
        }
        Ok(done)
    }

    fn len(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata
            .map_err(|source| Error::io("read the length of file", &self.path, source))?
            .len())
    }
}
