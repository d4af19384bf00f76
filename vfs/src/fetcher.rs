//! Reads long parts of mapped tables beside the mapping.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::{Error, Result};

/// Reads a table piece by piece, in order; see [`Mapping::fetch`](crate::Mapping::fetch).
///
/// The system tells by the open file whether it is read in order, and reads further and further ahead then, in large
/// pages. Faults on a mapping that is advised for random access tell it nothing.
#[derive(Debug, Default)]
pub struct Fetcher {
    open: Option<File>,
}

/// What tells a file from another one that has come to have its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Fetcher {
    #[cfg(all(test, target_os = "linux", not(miri)))]
    pub(crate) fn of(file: File) -> Fetcher {
        Fetcher { open: Some(file) }
    }

    /// The file, opened by the first piece. `None` where it cannot be, or where the name leads to another one by now.
    pub(crate) fn open(&mut self, path: &Path, expected: FileId) -> Option<&File> {
        if self.open.is_none() {
            let file = File::open(path).ok()?;
            let found = FileId::of(&file.metadata().ok()?);
            if found != expected {
                return None;
            }
            self.open = Some(file);
        }
        self.open.as_ref()
    }
}

/// Fills `buf` from `offset` on, up to the end of the file.
///
/// # Errors
/// `Io` where less than `needed` bytes can be read, with the place of the first that cannot.
pub(crate) fn read_up_to(
    file: &File,
    path: &Path,
    offset: u64,
    buf: &mut [u8],
    needed: usize,
) -> Result<usize> {
    fill(|buf, at| file.read_at(buf, at), path, offset, buf, needed)
}

fn fill(
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    path: &Path,
    offset: u64,
    buf: &mut [u8],
    needed: usize,
) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        match read_at(&mut buf[done..], at) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            // Whoever comes to what cannot be read is told.
            Err(_) if done >= needed => break,
            Err(source) => return Err(Error::io("read table", path, source).with_offset(at)),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_of_where_it_is_needed() {
        let path = Path::new("d/1.sst");
        let mut interrupted = false;
        // From byte 1,000 on nothing can be read; 300 bytes at a time before.
        let mut read_at = |buf: &mut [u8], at: u64| {
            interrupted = !interrupted;
            if interrupted {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            let left = usize::try_from(1000 - at).unwrap();
            let count = left.min(buf.len()).min(300);
            if count == 0 {
                return Err(io::Error::other("a bad sector"));
            }
            buf[..count].fill(7);
            Ok(count)
        };
        let mut buf = [0; 800];
        assert_eq!(fill(&mut read_at, path, 100, &mut buf, 800).unwrap(), 800);
        assert_eq!(fill(&mut read_at, path, 500, &mut buf, 500).unwrap(), 500);
        let error = fill(&mut read_at, path, 500, &mut buf, 501).unwrap_err();
        assert_eq!(
            (error.kind(), error.offset()),
            (crate::ErrorKind::Io, Some(1000)),
            "{error}"
        );
    }
}
