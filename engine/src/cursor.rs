//! Cursors: what a user sees of the merged entries at one seqno.
//!
//! The merge yields every version of every key, the newest of a key first. A cursor shows, of each key, the newest
//! version at or below its seqno, and nothing where that is a tombstone. After LevelDB's `DBIter`; forwards the
//! merge stands on the entry that is shown, backwards it stands before all entries of the key that is shown.

use std::ops::Bound;
use std::sync::Arc;

use siltstone_compaction::LEVELS;
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
        let mut sources = Vec::new();
        let slots = std::iter::once(&view.memtable).chain(&view.immutables);
        sources.extend(slots.map(|slot| Source::Memtable(slot.table.iter())));
        for handle in view.tables.level(0).iter() {
            sources.push(Source::Table(Box::new(handle.table()?.iter())));
        }
        for level in 1..LEVELS {
            let tables = view.tables.level(level);
            if !tables.is_empty() {
                sources.push(Source::Level(Box::new(LevelIter::new(Arc::clone(tables)))));
            }
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
        self.settle_forward(false)
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
        self.settle_forward(false)
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
                self.key.clear();
                self.key.extend_from_slice(self.merge.user_key());
                self.stand = Stand::Nowhere;
                self.merge.next()?;
            }
            Stand::Before => {
                self.stand = Stand::Nowhere;
                self.merge.seek(InternalKey::new(&self.key, Tag::LAST))?;
            }
            Stand::Nowhere => panic!("the cursor stands on no entry: check valid() first"),
        }
        self.settle_forward(true)
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
            Stand::On => {
                self.key.clear();
                self.key.extend_from_slice(self.merge.user_key());
                self.stand = Stand::Nowhere;
                self.merge
                    .seek_for_prev(InternalKey::new(&self.key, Tag::FIRST))?;
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

    /// Goes on to the first visible key. With `skip`, entries of `self.key` are passed over.
    fn settle_forward(&mut self, mut skip: bool) -> Result<()> {
        while self.merge.valid() {
            let (key, tag) = (self.merge.user_key(), self.merge.tag());
            if is_above(key, &self.upper) {
                return Ok(());
            }
            if tag.seqno() > self.seqno || (skip && key == self.key) {
                self.merge.next()?;
                continue;
            }
            if !tag.is_tombstone() {
                self.stand = Stand::On;
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            skip = true;
            self.merge.next()?;
        }
        Ok(())
    }

    /// Goes back to the first visible key; the merge then stands before all of its entries.
    fn settle_backward(&mut self) -> Result<()> {
        while self.merge.valid() {
            if is_below(self.merge.user_key(), &self.lower) {
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(self.merge.user_key());
            // Backwards the versions of a key come oldest first: the last one at or below the seqno decides.
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
            if alive {
                self.stand = Stand::Before;
                return Ok(());
            }
        }
        Ok(())
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

fn is_above(key: &[u8], upper: &Bound<Box<[u8]>>) -> bool {
    match upper {
        Bound::Unbounded => false,
        Bound::Included(upper) => *key > **upper,
        Bound::Excluded(upper) => *key >= **upper,
    }
}

fn is_below(key: &[u8], lower: &Bound<Box<[u8]>>) -> bool {
    match lower {
        Bound::Unbounded => false,
        Bound::Included(lower) => *key < **lower,
        Bound::Excluded(lower) => *key <= **lower,
    }
}
