//! Brings long parts of mapped tables into the page cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is read at a time: few system calls, and little to keep for it.
const PIECE_BYTES: usize = 128 << 10;

/// Reads parts of a table, one after the other, for the sake of the page cache; see [`Mapping::fetch`](crate::Mapping::fetch).
///
/// The system tells by the open file whether it is read in order, and reads further and further ahead then, in large
/// pages. Faults on a mapping that is advised for random access tell it nothing.
#[derive(Debug, Default)]
pub struct Fetcher {
    open: Option<File>,
    /// Where it reads to, once it has read.
    piece: Box<[u8]>,
    /// Where the last part ended, or the next is to begin. `None` until something has been read.
    end: Option<u64>,
}

impl Fetcher {
    /// For the table that is read after this one, from its first byte on. Closes this one's file.
    #[must_use]
    pub fn next_table(self) -> Fetcher {
        Fetcher {
            open: None,
            piece: self.piece,
            end: self.end.map(|_| 0),
        }
    }

    /// Whether a part that starts here follows one that has been read. It has to be read, too, wherever it is: the system has
    /// begun to read ahead, and goes on only if it sees somebody come after. In the next table it has not, but what there is of
    /// that in the cache says little about the rest.
    pub(crate) fn goes_on_at(&self, start: u64) -> bool {
        self.end == Some(start)
    }

    /// Reads what is there of `part`; whatever fails, whoever reads the mapping meets it again.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub(crate) fn fetch(&mut self, path: &Path, part: Range<u64>) -> io::Result<()> {
        let file = match &mut self.open {
            Some(file) => file,
            none => none.insert(File::open(path)?),
        };
        if self.piece.is_empty() {
            self.piece = vec![0; PIECE_BYTES].into_boxed_slice();
        }
        self.end = Some(part.end);
        let mut at = part.start;
        while at < part.end {
            let left = usize::try_from(part.end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            match file.read_at(&mut self.piece[..left], at) {
                Ok(0) | Err(_) => break,
                Ok(count) => at += count as u64,
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
