//! Reading ahead of an iterator that walks from block to block. The mapping is advised for point reads, and so comes a
//! page at a time: a cold scan would wait for the disk at every page.

use std::ops::Range;

use siltstone_vfs::{Fetcher, Mapping};

/// Neighbouring blocks after which an iterator is taken to be walking: a short range read stays within fewer.
const WALK_BLOCKS: u32 = 4;

/// What is asked for at first, and at the most: each time twice as much.
const WINDOW_BYTES_MIN: u64 = 128 << 10;
const WINDOW_BYTES_MAX: u64 = 4 << 20;

/// From a window of this size on, a walk forwards fetches, and the system reads ahead of it by itself: in large pages, and
/// always further than this.
const FETCHED_BYTES: u64 = 1 << 20;

/// How far one iterator has read, and has asked for.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// Bytes of the file that have been walked over or asked for.
    asked: Range<u64>,
    blocks: u32,
    window: u64,
    fetcher: Fetcher,
}

impl ReadAhead {
    /// For an iterator at the beginning of a table that follows the one which this has come to the end of: a long walk goes
    /// on as one. `index` as in [`forwards`](Self::forwards).
    pub(super) fn go_on(&self, mapping: &Mapping, index: &Range<u64>) -> ReadAhead {
        let mut next = ReadAhead::default();
        if self.window >= FETCHED_BYTES {
            next.blocks = WALK_BLOCKS;
            next.window = WINDOW_BYTES_MAX;
            // All of it, the first block too: the system takes a file that is read from its beginning for one that is read in order.
            next.ask(mapping, index);
        }
        next
    }

    /// The iterator has come to a block from the one before, or to the first one. `index` is where the table's index lies, behind
    /// all blocks.
    #[inline]
    pub(super) fn forwards(&mut self, mapping: &Mapping, index: &Range<u64>, block: (u64, u64)) {
        let (start, end) = block;
        self.walk(start >= self.asked.start && start <= self.asked.end, block);
        self.asked.end = self.asked.end.max(end);
        if self.is_due(self.asked.end - end) {
            self.ask(mapping, index);
        }
    }

    /// Asks for the next window. A walk that fetches needs a page of the index every few hundred blocks: of a table larger
    /// than the memory that is left for it, each would be waited for behind all that has been asked for.
    fn ask(&mut self, mapping: &Mapping, index: &Range<u64>) {
        let from = self.asked.end;
        self.asked.end = (from + self.window).min(index.start).max(from);
        if self.asked.end == from {
            // All blocks have been asked for.
        } else if self.window < FETCHED_BYTES {
            mapping.read_ahead(from..self.asked.end);
        } else {
            mapping.read_ahead(index.clone());
            mapping.fetch(from..self.asked.end, &mut self.fetcher);
        }
    }

    /// Whether the block has been asked for with others.
    #[inline]
    pub(super) fn has_asked_for(&self, (start, end): (u64, u64)) -> bool {
        self.window > 0 && self.asked.start <= start && end <= self.asked.end
    }

    /// The iterator has come to a block from the one behind it, or to the last one.
    #[inline]
    pub(super) fn backwards(&mut self, mapping: &Mapping, block: (u64, u64)) {
        let (start, end) = block;
        self.walk(end >= self.asked.start && end <= self.asked.end, block);
        self.asked.start = self.asked.start.min(start);
        if self.is_due(start - self.asked.start) {
            let to = self.asked.start;
            self.asked.start = to.saturating_sub(self.window);
            mapping.read_ahead(self.asked.start..to);
        }
    }

    #[inline]
    fn walk(&mut self, goes_on: bool, (start, end): (u64, u64)) {
        if !goes_on {
            *self = ReadAhead {
                asked: start..end,
                fetcher: std::mem::take(&mut self.fetcher),
                ..ReadAhead::default()
            };
        }
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

    /// Behind all else.
    fn index(mapping: &Mapping) -> Range<u64> {
        mapping.len()..mapping.len()
    }

    fn block(n: u64) -> (u64, u64) {
        (n * BLOCK, (n + 1) * BLOCK)
    }

    #[test]
    fn a_walk_is_ahead_of_itself_by_growing_windows_and_a_jump_begins_anew() {
        let mapping = mapping(64 << 20);
        let mut ahead = ReadAhead::default();
        for n in 10..13 {
            ahead.forwards(&mapping, &index(&mapping), block(n));
            assert_eq!(ahead.asked, block(10).0..block(n).1, "not a walk yet");
        }
        for n in 13..8000 {
            ahead.forwards(&mapping, &index(&mapping), block(n));
            let left = ahead.asked.end - block(n).1;
            assert!(left > 0 && left <= WINDOW_BYTES_MAX * 3 / 2, "{left} at {n}");
        }
        assert_eq!(ahead.window, WINDOW_BYTES_MAX);
        ahead.forwards(&mapping, &index(&mapping), block(15_000));
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
        for n in 0..1000 {
            ahead.forwards(&mapping, &index(&mapping), block(n));
            assert_eq!(ahead.asked, 0..len);
        }
    }

    #[test]
    fn a_long_walk_goes_on_in_the_next_table_and_a_short_one_begins_anew() {
        let mapping = mapping(16 << 20);
        let mut ahead = ReadAhead::default();
        for n in 0..40 {
            ahead.forwards(&mapping, &index(&mapping), block(n));
        }
        assert!(ahead.window > 0 && ahead.window < FETCHED_BYTES);
        let next = ahead.go_on(&mapping, &index(&mapping));
        assert_eq!((next.asked, next.window, next.blocks), (0..0, 0, 0));
        for n in 40..4096 {
            ahead.forwards(&mapping, &index(&mapping), block(n));
        }
        let mut next = ahead.go_on(&mapping, &index(&mapping));
        assert_eq!(next.asked, 0..WINDOW_BYTES_MAX);
        for n in 0..4096 {
            next.forwards(&mapping, &index(&mapping), block(n));
            assert!(next.has_asked_for(block(n)) && next.window == WINDOW_BYTES_MAX);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_walk_that_fetches_has_the_index_read() {
        use rustix::io::{ReadWriteFlags, preadv2};
        use siltstone_vfs::{Advice, MapMode, OsFs};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000001.sst");
        std::fs::write(&path, vec![7; 24 << 20]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let index = 20 << 20..21 << 20;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        // Asking brings the page there: each is asked for once.
        let cached = |at| {
            let mut byte = [0];
            let mut into = [std::io::IoSliceMut::new(&mut byte)];
            preadv2(&file, &mut into, at, ReadWriteFlags::NOWAIT).is_ok()
        };
        let lock = OsFs.lock_dir(dir.path()).unwrap();
        let mapping = OsFs.open_table(&path, &lock, MapMode::Map).unwrap();
        mapping.advise(Advice::Random).unwrap();
        if cached(0) {
            return; // A file system in memory.
        }
        let mut ahead = ReadAhead::default();
        let mut n = 0;
        while ahead.window < FETCHED_BYTES {
            assert!(!cached(index.start + n * BLOCK), "{n}");
            ahead.forwards(&mapping, &index, block(n));
            n += 1;
        }
        assert!(cached(index.start + n * BLOCK) && cached(index.end - 1));
    }
}
