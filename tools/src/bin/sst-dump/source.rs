//! A table file, opened without a lock and without mapping it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone_sstable::{BlockCache, Table, TableId};
use siltstone_vfs::{DirLock, Error, ErrorKind, Fs, Mapping, OsFs, Result};

/// A file that could be opened and whose length is known. Whether it is a table, [`table`](Source::table) tells.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    /// The length when it was opened, in bytes.
    len: u64,
}

/// What became of a table that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is no more: its database has retired it meanwhile.
    Gone,
    /// It is there, as long as it was.
    Settled,
    /// It has another length by now, this one.
    Changed(u64),
}

impl Source {
    /// Opens the file once, to see that it can be.
    ///
    /// # Errors
    /// Those of opening, all of them about the path rather than the table.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        let len = read(path)?.len();
        Ok(Source {
            path: path.to_path_buf(),
            len,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The file's bytes, for positioned reads.
    ///
    /// # Errors
    /// Those of opening.
    pub(crate) fn bytes(&self) -> Result<Mapping> {
        read(&self.path)
    }

    /// The table in the file.
    ///
    /// # Errors
    /// Those of opening and of [`Table::open`].
    pub(crate) fn table(&self) -> Result<Arc<Table>> {
        // Each block is read once: there is nothing to keep. With nothing kept, ids need not differ.
        let cache = BlockCache::new(0);
        Ok(Arc::new(Table::open(self.bytes()?, TableId::default(), cache)?))
    }

    /// What has become of the file since it was opened: asked after an error, which a running database may have caused
    /// by retiring or building the table.
    pub(crate) fn fate(&self) -> Fate {
        match OsFs.len(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Fate::Gone,
            Ok(len) if len != self.len => Fate::Changed(len),
            _ => Fate::Settled,
        }
    }
}

/// Opens a table for positioned reads.
///
/// The lock is one that excludes nobody. That is enough here: what a directory's lock protects is memory that is
/// mapped, and files that are truncated. Nothing is mapped by this program, and `OsFs` truncates nothing with a lock
/// that it did not hand out itself.
fn read(path: &Path) -> Result<Mapping> {
    let dir = path
        .parent()
        .ok_or_else(|| Error::invalid("the path names no file").with_path(path))?;
    let lock = DirLock::new(dir.to_path_buf(), Box::new(()));
    Mapping::from_reader(path, OsFs.open(path)?, &lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_cut_or_removed_is_told_from_one_that_stayed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, [7; 100]).unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!((source.len(), source.fate()), (100, Fate::Settled));
        std::fs::write(&path, [7; 60]).unwrap();
        assert_eq!(source.fate(), Fate::Changed(60));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.fate(), Fate::Gone);
    }

    #[test]
    fn nothing_is_mapped_and_nothing_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, [7; 100]).unwrap();
        let bytes = Source::open(&path).unwrap().bytes().unwrap();
        assert!(bytes.bytes().is_none());
        assert!(bytes.unmap().truncate(&OsFs, 1 << 20, &mut || {}).is_err());
        assert_eq!(std::fs::read(&path).unwrap().len(), 100);
    }
}
