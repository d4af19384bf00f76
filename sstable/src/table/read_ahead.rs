//! Reading ahead of an iterator that walks from block to block. The mapping is advised for point reads, and so comes a
//! page at a time: a cold scan would wait for the disk at every page.

use std::ops::Range;

use siltstone_vfs::{Fetcher, Mapping, Result};

use super::piece::{Fetched, Piece, Read};

/// What a walk over all of a table reads.
#[derive(Debug)]
pub(super) struct Walked {
    /// Where the last block ends, in the file.
    pub(super) data_end: u64,
    /// Where the file says where its blocks are; empty where that need not be looked up.
    pub(super) offsets: Range<u64>,
}

/// Neighbouring blocks after which an iterator is taken to be walking: a short range read stays within fewer.
const WALK_BLOCKS: u32 = 4;

/// What a new walk asks for at first, and any at the most: each time twice as much.
const WINDOW_BYTES_MIN: u64 = 128 << 10;
const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// From a window of this size on, what a walk forwards finds cold it reads beside the mapping, in pieces that stay in the
/// processor's cache until the walk has been through them. The system reads ahead of them by itself, in large pages, as far as it
/// has been told to (`read_ahead_kb`).
const FETCHED_BYTES: u64 = 1 << 20;

/// How far one iterator has read, and has asked for.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Bytes of the file that have been walked over or asked for.
    asked: Range<u64>,
    /// Where the last block begins that the walk has come to, and whether it goes backwards.
    last: u64,
    is_backwards: bool,
    blocks: u32,
    window: u64,
    /// Bytes of the file that the walk reads beside the mapping, from the first cold window on.
    fetched: Option<Range<u64>>,
    /// The file could not be opened for that.
    refused: bool,
    fetcher: Fetcher,
    pub(super) piece: Piece,
}

impl ReadAhead {
    /// For an iterator over the table that follows, if the walk that has come to the end of this one goes on there.
    #[must_use]
    pub(super) fn next_table(self) -> ReadAhead {
        ReadAhead {
            asked: 0..0,
            // What there is of that table in the cache says little about the rest.
            fetched: self.fetched.map(|_| 0..0),
            last: 0,
            refused: false,
            fetcher: Fetcher::default(),
            piece: self.piece.emptied(),
            ..self
        }
    }

    /// The iterator will begin with the table's first block. Asks for that, too, where a walk comes from the table before: the system
    /// takes a file that is read from its first byte for one that is read in order.
    pub(super) fn begin(&mut self, mapping: &Mapping, walked: &Walked) {
        if self.window > 0 {
            self.ask(mapping, walked);
        }
    }

    /// The iterator has come to a block from the one before, or to the first one.
    #[inline]
    pub(super) fn forwards(&mut self, mapping: &Mapping, walked: &Walked, block: (u64, u64)) {
        let (start, end) = block;
        // Back in what has been asked for, a new walk begins: it may have gone again meanwhile.
        let goes_on = !self.is_backwards && start >= self.last && start <= self.asked.end;
        self.walk(goes_on, block, false);
        self.asked.end = self.asked.end.max(end);
        if self.asked.end < walked.data_end && self.is_due(self.asked.end - end) {
            self.ask(mapping, walked);
        }
    }

    /// Asks for the next window, or notes that it is to be fetched. A walk that fetches needs a page of the blocks' offsets
    /// every few hundred blocks: of tables larger than the memory that is left for them, each would be waited for behind all that
    /// has been asked for.
    fn ask(&mut self, mapping: &Mapping, walked: &Walked) {
        let from = self.asked.end;
        self.asked.end = (from + self.window).min(walked.data_end);
        if self.window < FETCHED_BYTES || self.refused {
            mapping.read_ahead(from..self.asked.end);
        } else {
            mapping.read_ahead(walked.offsets.clone());
            match &mut self.fetched {
                // Wherever it is: the system has begun to read ahead, and goes on only if it sees somebody come after.
                Some(fetched) => fetched.end = self.asked.end,
                none if mapping.is_cold(from..self.asked.end) => *none = Some(from..self.asked.end),
                _ => {}
            }
        }
    }

    /// Whether the walk reads beside the mapping, from some block on.
    #[inline]
    pub(super) fn is_fetching(&self) -> bool {
        self.fetched.is_some()
    }

    /// The block, if it has been read beside the mapping, or if it is the one that the walk has come to and is to be: then it is
    /// read. Who seeks one behind a walk, or steps back, reads no piece for it.
    ///
    /// # Errors
    /// `Io`, and `Corruption` where the file has become shorter.
    pub(super) fn fetched(
        &mut self,
        mapping: &Mapping,
        (start, end): (u64, u64),
    ) -> Result<Option<Fetched<'_>>> {
        if !self.piece.has((start, end)) {
            if start != self.last || !self.is_to_fetch((start, end)) {
                return Ok(None);
            }
            match self.piece.read(mapping, &mut self.fetcher, (start, end))? {
                Read::Here => {}
                Read::InMapping => return Ok(None),
                Read::Refused => {
                    self.fetched = None;
                    self.refused = true;
                    mapping.read_ahead(start..self.asked.end);
                    return Ok(None);
                }
            }
        }
        Ok(Some(self.piece.block((start, end))))
    }

    #[inline]
    fn is_to_fetch(&self, (start, end): (u64, u64)) -> bool {
        let is_in = |part: &Range<u64>| part.start <= start && end <= part.end;
        self.fetched.as_ref().is_some_and(is_in)
    }

    /// Whether the block has been asked for with others.
    #[inline]
    pub(super) fn has_asked_for(&self, (start, end): (u64, u64)) -> bool {
        let is_asked = self.window > 0 && self.asked.start <= start && end <= self.asked.end;
        is_asked && self.fetched.as_ref().is_none_or(|fetched| end <= fetched.start)
    }

    /// The iterator has come to a block from the one behind it, or to the last one.
    #[inline]
    pub(super) fn backwards(&mut self, mapping: &Mapping, block: (u64, u64)) {
        let (start, end) = block;
        let goes_on = self.is_backwards && start <= self.last && end >= self.asked.start;
        self.walk(goes_on, block, true);
        self.asked.start = self.asked.start.min(start);
        if self.is_due(start - self.asked.start) {
            let to = self.asked.start;
            self.asked.start = to.saturating_sub(self.window);
            mapping.read_ahead(self.asked.start..to);
        }
    }

    #[inline]
    fn walk(&mut self, goes_on: bool, (start, end): (u64, u64), is_backwards: bool) {
        if !goes_on {
            *self = ReadAhead {
                asked: start..end,
                is_backwards,
                refused: self.refused,
                fetcher: std::mem::take(&mut self.fetcher),
                piece: std::mem::take(&mut self.piece),
                ..ReadAhead::default()
            };
        }
        self.last = start;
        self.blocks = self.blocks.saturating_add(1);
    }

    /// Whether more is to be asked for, with `left` bytes asked for and not come to; sets the window then.
    #[inline]
    fn is_due(&mut self, left: u64) -> bool {
        let due = self.blocks >= WALK_BLOCKS && left <= self.window / 2;
        if due {
            self.window = (self.window * 2).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use siltstone_vfs::{Fs, MemFs};

    use super::*;

    const BLOCK: u64 = 4096;

    fn mapping(len: usize) -> Mapping {
        let fs = MemFs::new();
        fs.create_dir_all(Path::new("d")).unwrap();
        let lock = fs.lock_dir(Path::new("d")).unwrap();
        Mapping::from_heap("d/1.sst", Arc::from(vec![0; len]), &lock).unwrap()
    }

    /// All of it is data.
    fn walked(mapping: &Mapping) -> Walked {
        Walked {
            data_end: mapping.len(),
            offsets: 0..0,
        }
    }

    fn block(n: u64) -> (u64, u64) {
        (n * BLOCK, (n + 1) * BLOCK)
    }

    #[test]
    fn a_walk_is_ahead_of_itself_by_growing_windows_and_a_jump_begins_anew() {
        let mapping = mapping(64 << 20);
        let mut ahead = ReadAhead::default();
        for n in 10..13 {
            ahead.forwards(&mapping, &walked(&mapping), block(n));
            assert_eq!(ahead.asked, block(10).0..block(n).1, "not a walk yet");
        }
        for n in 13..8000 {
            ahead.forwards(&mapping, &walked(&mapping), block(n));
            let left = ahead.asked.end - block(n).1;
            assert!(left > 0 && left <= WINDOW_BYTES_MAX * 3 / 2, "{left} at {n}");
        }
        assert_eq!(ahead.window, WINDOW_BYTES_MAX);
        ahead.forwards(&mapping, &walked(&mapping), block(15_000));
        assert_eq!(
            (ahead.asked.clone(), ahead.window),
            (block(15_000).0..block(15_000).1, 0)
        );
    }

    #[test]
    fn the_same_backwards_and_never_past_the_ends() {
        let len = 1000 * BLOCK;
        let mapping = mapping(usize::try_from(len).unwrap());
        let mut ahead = ReadAhead::default();
        for n in (0..1000).rev() {
            ahead.backwards(&mapping, block(n));
            assert!(ahead.asked.end == len && ahead.asked.start <= block(n).0);
            assert!(ahead.blocks < WALK_BLOCKS || n == 0 || ahead.asked.start < block(n).0);
        }
        assert_eq!(ahead.asked.start, 0);
        // What was asked for on the way here may have gone again.
        for n in 0..1000 {
            ahead.forwards(&mapping, &walked(&mapping), block(n));
            assert!(ahead.asked.start == 0 && ahead.asked.end <= len);
            assert!(ahead.blocks < WALK_BLOCKS || n == 999 || ahead.asked.end > block(n).1);
            assert!(n > 100 || ahead.asked.end < len);
        }
        assert_eq!(ahead.asked, 0..len);
    }

    /// Back to somewhere in the middle of what has been walked over, be it by a seek or by a step.
    #[test]
    fn a_walk_that_has_turned_back_begins_anew() {
        let mapping = mapping(16 << 20);
        let walked = walked(&mapping);
        let mut ahead = ReadAhead::default();
        for n in 0..2000 {
            ahead.forwards(&mapping, &walked, block(n));
        }
        ahead.forwards(&mapping, &walked, block(1000));
        assert_eq!(
            (ahead.asked.clone(), ahead.window),
            (block(1000).0..block(1000).1, 0)
        );
        for n in 1001..2000 {
            ahead.forwards(&mapping, &walked, block(n));
        }
        assert_eq!(ahead.window, WINDOW_BYTES_MAX);
        ahead.backwards(&mapping, block(1998));
        assert_eq!(
            (ahead.asked.clone(), ahead.window),
            (block(1998).0..block(1998).1, 0)
        );
        for n in (1000..1998).rev() {
            ahead.backwards(&mapping, block(n));
        }
        assert_eq!(ahead.window, WINDOW_BYTES_MAX);
        ahead.backwards(&mapping, block(1500));
        assert_eq!(
            (ahead.asked.clone(), ahead.window),
            (block(1500).0..block(1500).1, 0)
        );
        // Leaps forwards within what has been asked for are part of a walk.
        for n in (1500..1520).chain((1520..2000).step_by(3)) {
            ahead.forwards(&mapping, &walked, block(n));
        }
        assert!(ahead.window > 0 && ahead.asked.start == block(1500).0);
    }

    #[test]
    fn a_walk_goes_on_in_the_next_table_as_it_was() {
        let mapping = mapping(16 << 20);
        let walked = walked(&mapping);
        let blocks = mapping.len() / BLOCK;
        let after = |last: u64| {
            let mut ahead = ReadAhead::default();
            for n in blocks - last..blocks {
                ahead.forwards(&mapping, &walked, block(n));
            }
            let mut next = ahead.next_table();
            next.begin(&mapping, &walked);
            next
        };
        // No walk yet, one that had nothing left to ask for, one that has asked once and needed no more, a long one.
        for (last, window) in [
            (3, 0),
            (4, 0),
            (5, WINDOW_BYTES_MIN),
            (20, WINDOW_BYTES_MIN),
            (blocks, WINDOW_BYTES_MAX),
        ] {
            let mut next = after(last);
            assert_eq!((next.asked.clone(), next.window), (0..window, window), "{last}");
            for n in 0..blocks {
                next.forwards(&mapping, &walked, block(n));
                assert!(
                    next.has_asked_for(block(n)) || next.blocks <= WALK_BLOCKS,
                    "{last}"
                );
            }
        }
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn a_walk_that_fetches_has_the_offsets_read() {
        use siltstone_vfs::{Advice, MapMode, OsFs, cached_pages};
        use std::time::{Duration, Instant};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, vec![7; 24 << 20]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let walked = Walked {
            data_end: 20 << 20,
            offsets: 21 << 20..22 << 20,
        };
        let cached = || cached_pages(&file, walked.offsets.clone()).unwrap();
        if cached().contains(&true) {
            return; // A file system in memory.
        }
        let lock = OsFs.lock_dir(dir.path()).unwrap();
        let mapping = OsFs.open_table(&path, &lock, MapMode::Map).unwrap();
        mapping.advise(Advice::Random).unwrap();
        let mut ahead = ReadAhead::default();
        for n in 0.. {
            assert!(!cached().contains(&true), "at block {n}");
            ahead.forwards(&mapping, &walked, block(n));
            if ahead.window >= FETCHED_BYTES {
                break;
            }
        }
        let begun = Instant::now();
        // All of it, as a rule; where memory is short, the system reads less ahead than it is asked for.
        while !cached().contains(&true) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it was not asked for");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
