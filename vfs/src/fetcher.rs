//! Reads long parts of mapped tables beside the mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Reads a table piece by piece, in order; see [`Mapping::fetch`](crate::Mapping::fetch).
///
/// The system tells by the open file whether it is read in order, and reads further and further ahead then, in large
/// pages. Faults on a mapping that is advised for random access tell it nothing.
#[derive(Debug, Default)]
pub struct Fetcher {
    open: Option<File>,
}

impl Fetcher {
    #[cfg(all(test, target_os = "linux", not(miri)))]
    pub(crate) fn of(file: File) -> Fetcher {
        Fetcher { open: Some(file) }
    }

    /// The table's file, opened by the first piece.
    ///
    /// # Errors
    /// Where it cannot be.
    pub(crate) fn open(&mut self, path: &Path) -> io::Result<&File> {
        Ok(match &mut self.open {
            Some(file) => file,
            none => none.insert(File::open(path)?),
        })
    }
}

/// Fills `buf` from `offset` on, up to the end of the file.
pub(crate) fn read_up_to(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
