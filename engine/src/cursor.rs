//! Cursors: what a user sees of the merged entries at one seqno.
//!
//! The merge yields every version of every key, the newest of a key first. A cursor shows, of each key, the newest
//! version at or below its seqno, and nothing where that is a tombstone. After LevelDB's `DBIter`; forwards the
//! merge stands on the entry that is shown, backwards too where that is the only entry left of its
//! key, else it stands before all entries of the key that is shown.

use std::ops::Bound;
use std::sync::Arc;

use siltstone_sstable::{InternalIterator, InternalKey, MergeIterator, SeqNo, Tag};
use siltstone_vfs::Result;

use crate::core::Core;
use crate::level_iter::LevelIter;
use crate::source::Source;
use crate::super_version::SuperVersion;

/// Lower and upper bound of the keys that a cursor shows.
pub(crate) type KeyBounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// Which side of the shown key the merge stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Nowhere: not yet sought, past an end, or after an error.
    Nowhere,
    /// On the shown entry.
    On,
    /// Before every entry of the shown key, which is kept in `key` and `value`.
    Before,
}

/// After so many entries that show nothing a cursor looks whether others have been here.
const LOOK_EVERY: usize = 32;

/// So many entries that show nothing are worth noting for others.
const FAR: usize = 256;

/// A walk over entries that show nothing.
#[derive(Default)]
struct Passed {
    count: usize,
    /// The key that it stood on when it first looked round. Meaningful from there on.
    from: Vec<u8>,
}

impl Passed {
    fn begin(&mut self, key: &[u8]) {
        if self.count == LOOK_EVERY {
            self.from.extend_from_slice(key);
        }
    }

    #[inline]
    fn is_far(&self) -> bool {
        self.count >= FAR
    }
}

/// A position in one keyspace, as it was at one seqno.
///
/// A cursor sees neither later writes nor others' deletes. It pins memtables and tables while it lives: files that
/// compaction makes obsolete meanwhile stay until it goes. `key` and `value` are valid until it moves; no step
/// allocates, unless a key or (backwards) a value is longer than any before it.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// for key in ["ant", "bee", "cat"] {
///     db.put(key, "")?;
/// }
/// let mut cursor = db.cursor::<&str>(..)?;
/// cursor.seek_for_prev("bumblebee")?;
/// assert_eq!(cursor.key(), b"bee");
/// cursor.next()?;
/// assert_eq!(cursor.key(), b"cat");
/// cursor.next()?;
/// assert!(!cursor.valid());
/// # Ok(())
/// # }
/// ```
pub struct Cursor {
    merge: MergeIterator<Source>,
    seqno: SeqNo,
    lower: Bound<Box<[u8]>>,
    upper: Bound<Box<[u8]>>,
    stand: Stand,
    key: Vec<u8>,
    value: Vec<u8>,
    /// After the merge: it borrows nothing from these, but what it walks must not be reaped before it.
    view: Arc<SuperVersion>,
    core: Arc<Core>,
}

impl Cursor {
    pub(crate) fn new(
        core: Arc<Core>,
        view: Arc<SuperVersion>,
        seqno: SeqNo,
        (lower, upper): KeyBounds,
    ) -> Result<Cursor> {
        let runs = view.tables.runs();
        let mut sources = Vec::with_capacity(1 + view.immutables.len() + runs.len());
        // A memtable that is empty now has nothing to show at `seqno`, ever: whatever is visible at it had been
        // inserted when it was published, so before the caller read it. What is inserted later is newer.
        let slots = std::iter::once(&view.memtable).chain(&view.immutables);
        for slot in slots.filter(|slot| !slot.table.is_empty()) {
            sources.push(Source::Memtable(slot.table.iter()));
        }
        for (number, run) in runs.iter().enumerate() {
            sources.push(match run.as_flushed() {
                Some(handle) => Source::Table(handle.table()?.iter()),
                None => Source::Level(LevelIter::of_run(Arc::clone(&view.tables), number)),
            });
        }
        Ok(Cursor {
            merge: MergeIterator::new(sources),
            seqno,
            lower,
            upper,
            stand: Stand::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            view,
            core,
        })
    }

    /// A fresh cursor over the same view and bounds.
    pub(crate) fn another(&self) -> Result<Cursor> {
        let bounds = (self.lower.clone(), self.upper.clone());
        Cursor::new(Arc::clone(&self.core), Arc::clone(&self.view), self.seqno, bounds)
    }

    /// Whether it stands on an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        self.stand != Stand::Nowhere
    }

    /// The key it stands on.
    ///
    /// # Panics
    /// Where it is not [`valid`](Cursor::valid).
    #[inline]
    pub fn key(&self) -> &[u8] {
        match self.stand {
            Stand::On => self.merge.user_key(),
            Stand::Before => &self.key,
            Stand::Nowhere => panic!("the cursor stands on no entry: check valid() first"),
        }
    }

    /// The value it stands on.
    ///
    /// # Panics
    /// Where it is not [`valid`](Cursor::valid).
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.stand {
            Stand::On => self.merge.value(),
            Stand::Before => &self.value,
            Stand::Nowhere => panic!("the cursor stands on no entry: check valid() first"),
        }
    }

    /// To the first entry within the bounds.
    ///
    /// # Errors
    /// Damage that the move met; the cursor is then not valid, and may be sought again.
    pub fn first(&mut self) -> Result<()> {
        self.begin()?;
        match &self.lower {
            Bound::Unbounded => self.merge.seek_to_first()?,
            Bound::Included(key) => self.merge.seek(InternalKey::new(key, Tag::FIRST))?,
            // After all versions of the key.
            Bound::Excluded(key) => self.merge.seek(InternalKey::new(key, Tag::LAST))?,
        }
        self.settle_forward()
    }

    /// To the last entry within the bounds.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn last(&mut self) -> Result<()> {
        self.begin()?;
        match &self.upper {
            Bound::Unbounded => self.merge.seek_to_last()?,
            Bound::Included(key) => self.merge.seek_for_prev(InternalKey::new(key, Tag::LAST))?,
            // Before all versions of the key.
            Bound::Excluded(key) => self.merge.seek_for_prev(InternalKey::new(key, Tag::FIRST))?,
        }
        self.settle_backward()
    }

    /// To the first entry at or after `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        let below = match &self.lower {
            Bound::Unbounded => false,
            Bound::Included(lower) => key < lower,
            Bound::Excluded(lower) => key <= lower,
        };
        if below {
            return self.first();
        }
        self.begin()?;
        self.merge.seek(InternalKey::new(key, Tag::seek_at(self.seqno)))?;
        self.settle_forward()
    }

    /// To the last entry at or before `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        let above = match &self.upper {
            Bound::Unbounded => false,
            Bound::Included(upper) => key > upper,
            Bound::Excluded(upper) => key >= upper,
        };
        if above {
            return self.last();
        }
        self.begin()?;
        self.merge.seek_for_prev(InternalKey::new(key, Tag::LAST))?;
        self.settle_backward()
    }

    /// To the following entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    ///
    /// # Panics
    /// Where it is not [`valid`](Cursor::valid).
    #[expect(
        clippy::should_implement_trait,
        reason = "a cursor lends its entries; an iterator cannot"
    )]
    pub fn next(&mut self) -> Result<()> {
        match self.stand {
            Stand::On => {
                self.stand = Stand::Nowhere;
                self.merge.next_user_key(&mut self.key)?;
            }
            Stand::Before => {
                self.stand = Stand::Nowhere;
                self.merge.seek(InternalKey::new(&self.key, Tag::LAST))?;
            }
            Stand::Nowhere => panic!("the cursor stands on no entry: check valid() first"),
        }
        self.settle_forward()
    }

    /// To the preceding entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    ///
    /// # Panics
    /// Where it is not [`valid`](Cursor::valid).
    pub fn prev(&mut self) -> Result<()> {
        match self.stand {
            // What is left of the shown key before this entry is newer than the seqno, and passed over as such.
            Stand::On => {
                self.stand = Stand::Nowhere;
                self.merge.prev()?;
            }
            Stand::Before => self.stand = Stand::Nowhere,
            Stand::Nowhere => panic!("the cursor stands on no entry: check valid() first"),
        }
        self.settle_backward()
    }

    fn begin(&mut self) -> Result<()> {
        self.stand = Stand::Nowhere;
        self.core.check_open()
    }

    /// Goes on to the first visible key.
    ///
    /// REQUIRES: the merge stands on no entry of a key that was shown already.
    #[inline]
    fn settle_forward(&mut self) -> Result<()> {
        // Most often it stands on it.
        if self.merge.valid() && !is_above(&self.merge, &self.upper) {
            let tag = self.merge.tag();
            if tag.seqno() <= self.seqno && !tag.is_tombstone() {
                self.stand = Stand::On;
                return Ok(());
            }
        }
        self.pass_forward()
    }

    /// The same, where what comes first may show nothing.
    #[inline(never)]
    fn pass_forward(&mut self) -> Result<()> {
        let mut passed = Passed::default();
        while self.merge.valid() {
            if is_above(&self.merge, &self.upper) {
                break;
            }
            let tag = self.merge.tag();
            if tag.seqno() > self.seqno {
                self.merge.next()?;
            } else if tag.is_tombstone() {
                self.merge.next_user_key(&mut self.key)?;
            } else {
                self.stand = Stand::On;
                break;
            }
            passed.count += 1;
            if passed.count.is_multiple_of(LOOK_EVERY) {
                self.leap_forward(&mut passed)?;
            }
        }
        if passed.is_far() {
            let end = self.merge.valid().then(|| self.merge.user_key());
            self.view
                .dead
                .note(&self.core.commit, self.seqno, &passed.from, end);
        }
        Ok(())
    }

    /// Goes back to the first visible key.
    ///
    /// Backwards the versions of a key come oldest first. Where the first one that comes is known to be the only one
    /// left, the merge stays on it; else it goes on before all of them, and the shown one is kept.
    #[inline]
    fn settle_backward(&mut self) -> Result<()> {
        let mut passed = Passed::default();
        while self.merge.valid() {
            if is_below(&self.merge, &self.lower) {
                break;
            }
            if self.merge.begins_user_key() {
                let tag = self.merge.tag();
                if tag.seqno() <= self.seqno && !tag.is_tombstone() {
                    self.stand = Stand::On;
                    break;
                }
                self.merge.prev()?;
            } else if self.pass_backward()? {
                self.stand = Stand::Before;
                break;
            }
            passed.count += 1;
            if passed.count.is_multiple_of(LOOK_EVERY) {
                self.leap_backward(&mut passed)?;
            }
        }
        if passed.is_far() {
            self.note_backward(&passed);
        }
        Ok(())
    }

    /// Leaps over what others have found to be dead, if that is where the merge stands.
    #[cold]
    fn leap_forward(&mut self, passed: &mut Passed) -> Result<()> {
        if !self.merge.valid() {
            return Ok(());
        }
        let key = self.merge.user_key();
        passed.begin(key);
        let Some(range) = self.view.dead.around(key, self.seqno) else {
            return Ok(());
        };
        match &range.end {
            Some(end) => self.merge.seek(InternalKey::new(end, Tag::FIRST)),
            None => {
                self.merge.seek_to_last()?;
                self.merge.next()
            }
        }
    }

    /// [`leap_forward`](Self::leap_forward) in the other direction.
    #[cold]
    fn leap_backward(&mut self, passed: &mut Passed) -> Result<()> {
        if !self.merge.valid() {
            return Ok(());
        }
        let key = self.merge.user_key();
        passed.begin(key);
        match self.view.dead.around(key, self.seqno) {
            Some(range) => self
                .merge
                .seek_for_prev(InternalKey::new(&range.start, Tag::FIRST)),
            None => Ok(()),
        }
    }

    /// Notes what lies between the shown key, or whatever stopped the walk, and the key it began with.
    #[cold]
    fn note_backward(&self, passed: &Passed) {
        // The first key after `key`.
        let after = |key: &[u8]| [key, &[0]].concat();
        let start = match self.stand {
            Stand::Before => after(&self.key),
            _ if self.merge.valid() => after(self.merge.user_key()),
            _ => Vec::new(),
        };
        let end = after(&passed.from);
        self.view
            .dead
            .note(&self.core.commit, self.seqno, &start, Some(&end));
    }

    /// Goes back before all entries of a key. Whether one is shown; it is kept in `key` and `value` then.
    fn pass_backward(&mut self) -> Result<bool> {
        self.key.clear();
        self.key.extend_from_slice(self.merge.user_key());
        // The last one at or below the seqno decides.
        let mut alive = false;
        while self.merge.valid() && self.merge.user_key() == self.key {
            let tag = self.merge.tag();
            if tag.seqno() <= self.seqno {
                alive = !tag.is_tombstone();
                if alive {
                    self.value.clear();
                    self.value.extend_from_slice(self.merge.value());
                }
            }
            self.merge.prev()?;
        }
        Ok(alive)
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("seqno", &self.seqno)
            .field("stand", &self.stand)
            .finish_non_exhaustive()
    }
}

#[inline]
fn is_above(merge: &MergeIterator<Source>, upper: &Bound<Box<[u8]>>) -> bool {
    match upper {
        Bound::Unbounded => false,
        Bound::Included(upper) => *merge.user_key() > **upper,
        Bound::Excluded(upper) => *merge.user_key() >= **upper,
    }
}

#[inline]
fn is_below(merge: &MergeIterator<Source>, lower: &Bound<Box<[u8]>>) -> bool {
    match lower {
        Bound::Unbounded => false,
        Bound::Included(lower) => *merge.user_key() < **lower,
        Bound::Excluded(lower) => *merge.user_key() <= **lower,
    }
}
