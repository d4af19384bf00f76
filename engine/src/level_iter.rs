//! The tables of one sorted level as one iterator.

use std::sync::Arc;

use siltstone_sstable::{InternalIterator, InternalKey, TableIter, Tag};
use siltstone_vfs::Result;

use crate::table_handle::TableHandle;

/// Walks disjoint tables in key order, opening an iterator on one at a time.
pub(crate) struct LevelIter {
    tables: Arc<[Arc<TableHandle>]>,
    /// The table that `iter` walks.
    at: usize,
    iter: Option<TableIter>,
    fill_cache: bool,
}

impl LevelIter {
    /// REQUIRES: tables in key order, no two with a common user key.
    pub(crate) fn new(tables: Arc<[Arc<TableHandle>]>) -> LevelIter {
        LevelIter {
            tables,
            at: 0,
            iter: None,
            fill_cache: true,
        }
    }

    /// Whether blocks that have to be decompressed go into the block cache: for readers they do, a compaction reads
    /// each only once.
    #[must_use]
    pub(crate) fn fill_cache(mut self, fill_cache: bool) -> LevelIter {
        self.fill_cache = fill_cache;
        self
    }

    /// Puts a fresh iterator on table `at`, or none past the ends.
    fn open(&mut self, at: usize) -> Result<Option<&mut TableIter>> {
        if self.iter.is_none() || self.at != at {
            self.iter = None;
            self.at = at;
            if let Some(table) = self.tables.get(at) {
                self.iter = Some(table.table()?.iter().fill_cache(self.fill_cache));
            }
        }
        Ok(self.iter.as_mut())
    }

    fn skip_forward(&mut self) -> Result<()> {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            if let Some(iter) = self.open(self.at + 1)? {
                iter.seek_to_first()?;
            }
        }
        Ok(())
    }

    fn skip_backward(&mut self) -> Result<()> {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            if self.at == 0 {
                self.iter = None;
            } else if let Some(iter) = self.open(self.at - 1)? {
                iter.seek_to_last()?;
            }
        }
        Ok(())
    }

    fn current(&self) -> &TableIter {
        self.iter
            .as_ref()
            .expect("an iterator is read only where it is valid")
    }
}

impl InternalIterator for LevelIter {
    fn seek_to_first(&mut self) -> Result<()> {
        if let Some(iter) = self.open(0)? {
            iter.seek_to_first()?;
        }
        self.skip_forward()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        if let Some(iter) = self.open(self.tables.len().saturating_sub(1))? {
            iter.seek_to_last()?;
        }
        self.skip_backward()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let at = self
            .tables
            .partition_point(|table| *table.meta().largest < *target.user_key);
        if let Some(iter) = self.open(at)? {
            iter.seek(target)?;
        }
        self.skip_forward()
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let after = self
            .tables
            .partition_point(|table| *table.meta().smallest <= *target.user_key);
        let Some(at) = after.checked_sub(1) else {
            self.iter = None;
            return Ok(());
        };
        if let Some(iter) = self.open(at)? {
            iter.seek_for_prev(target)?;
        }
        self.skip_backward()
    }

    fn next(&mut self) -> Result<()> {
        if let Some(iter) = &mut self.iter {
            iter.next()?;
        }
        self.skip_forward()
    }

    fn prev(&mut self) -> Result<()> {
        if let Some(iter) = &mut self.iter {
            iter.prev()?;
        }
        self.skip_backward()
    }

    #[inline]
    fn valid(&self) -> bool {
        self.iter.as_ref().is_some_and(TableIter::valid)
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.current().user_key()
    }

    #[inline]
    fn tag(&self) -> Tag {
        self.current().tag()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }
}
