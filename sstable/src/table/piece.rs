//! What a walk reads beside the mapping: a part of the file at a time.

use std::ops::Range;
use std::sync::Arc;

use siltstone_vfs::{Error, Fetcher, Mapping, Result};

use crate::format::index as to_index;

/// Little enough to stay in the processor's cache until a walk has been through it.
const PIECE_BYTES: usize = 128 << 10;

/// A part of the file, read for the blocks that begin in it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Where it is in the file.
    place: Range<u64>,
    /// From its start on; there may be room for more. Empty until something is read.
    bytes: Arc<[u8]>,
    #[cfg(test)]
    pub(super) reads: u32,
}

/// Where a block is that has been read beside the mapping.
pub(super) struct Fetched<'p> {
    pub(super) piece: &'p Arc<[u8]>,
    /// Its trailer included.
    pub(super) block: Range<usize>,
}

/// How a block has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It is in the piece.
    Here,
    /// It is in the page cache.
    InMapping,
    /// There is no other way to it than the mapping.
    Refused,
}

impl Piece {
    /// Nothing, with the room that there is.
    pub(super) fn emptied(self) -> Piece {
        Piece { place: 0..0, ..self }
    }

    /// Whether all of the block is in it.
    #[inline]
    pub(super) fn has(&self, (start, end): (u64, u64)) -> bool {
        self.place.start <= start && end <= self.place.end
    }

    /// REQUIRES: it has the block.
    pub(super) fn block(&self, (start, end): (u64, u64)) -> Fetched<'_> {
        let within = |at: u64| to_index(at - self.place.start);
        Fetched {
            piece: &self.bytes,
            block: within(start)..within(end),
        }
    }

    /// Reads a block, and those behind it that there is room for. A block that is longer than all the room is read for the
    /// page cache's sake alone.
    ///
    /// # Errors
    /// `Io` where the block cannot be read, and `Corruption` where the file has become too short for it.
    pub(super) fn read(
        &mut self,
        mapping: &Mapping,
        fetcher: &mut Fetcher,
        (start, end): (u64, u64),
    ) -> Result<Read> {
        self.place = start..start;
        #[cfg(test)]
        {
            self.reads += 1;
        }
        // Whoever still reads the last piece keeps it.
        if Arc::get_mut(&mut self.bytes).is_none_or(|bytes| bytes.is_empty()) {
            self.bytes = vec![0; PIECE_BYTES].into();
        }
        let Some(bytes) = Arc::get_mut(&mut self.bytes) else {
            return Ok(Read::Refused);
        };
        let mut at = start;
        loop {
            let needed = to_index(end - at).min(PIECE_BYTES);
            // Alone where there is no room for another like it.
            let room = if needed > PIECE_BYTES / 2 {
                needed
            } else {
                PIECE_BYTES
            };
            let Some(count) = mapping.fetch(at, needed, fetcher, &mut bytes[..room])? else {
                return Ok(Read::Refused);
            };
            let read_to = at + count as u64;
            if count < needed {
                let what = format!("data block ends at {end}, but the file can be read to {read_to} only");
                return Err(Error::corruption(mapping.path(), start, what));
            }
            if read_to >= end {
                if at > start {
                    return Ok(Read::InMapping);
                }
                self.place.end = read_to;
                return Ok(Read::Here);
            }
            at = read_to;
        }
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use siltstone_vfs::{ErrorKind, Fs, MapMode, OsFs};

    use super::*;

    #[test]
    fn a_file_that_has_become_shorter_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let lock = OsFs.lock_dir(dir.path()).unwrap();
        let mapping = OsFs.open_table(&path, &lock, MapMode::Map).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 19).unwrap();
        let (mut piece, mut fetcher) = (Piece::default(), Fetcher::default());
        let mut read = |start: u64, len: usize| {
            let outcome = piece.read(&mapping, &mut fetcher, (start, start + len as u64));
            (outcome, piece.place.clone(), piece.bytes.len())
        };
        let (end, long) = (1 << 19, PIECE_BYTES + 1);
        let (outcome, place, _) = read(end - 4096, 4096);
        assert_eq!((outcome.unwrap(), place), (Read::Here, end - 4096..end));
        for len in [4097, long] {
            let (outcome, place, _) = read(end - 4096, len);
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind(), error.offset()),
                (ErrorKind::Corruption, Some(end - 4096))
            );
            assert!(place.is_empty());
        }
        // What is longer than a piece is not kept; what leaves no room for another is read alone.
        let (outcome, place, _) = read(0, long);
        assert_eq!((outcome.unwrap(), place), (Read::InMapping, 0..0));
        for (len, place_end) in [
            (PIECE_BYTES / 2, PIECE_BYTES),
            (PIECE_BYTES / 2 + 1, PIECE_BYTES / 2 + 1),
            (PIECE_BYTES, PIECE_BYTES),
        ] {
            let (outcome, place, room) = read(0, len);
            assert_eq!((outcome.unwrap(), place), (Read::Here, 0..place_end as u64));
            assert_eq!(room, PIECE_BYTES);
        }
    }
}
