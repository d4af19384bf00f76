//! The tables of one sorted level as one iterator.

use std::sync::Arc;

use siltstone_sstable::{InternalIterator, InternalKey, TableIter, Tag};
use siltstone_vfs::Result;

use crate::table_handle::TableHandle;
use crate::table_set::TableSet;

/// Walks disjoint tables in key order, opening an iterator on one at a time.
pub(crate) struct LevelIter {
    tables: Tables,
    /// The table that `iter` walks.
    at: usize,
    iter: Option<TableIter>,
    fill_cache: bool,
}

/// Tables in key order, no two with a common user key.
enum Tables {
    /// One of the set's runs.
    Run(Arc<TableSet>, usize),
    Chosen(Arc<[Arc<TableHandle>]>),
}

impl Tables {
    #[inline]
    fn all(&self) -> &[Arc<TableHandle>] {
        match self {
            Tables::Run(set, run) => &set.runs()[*run].tables,
            Tables::Chosen(tables) => tables,
        }
    }

    /// The first table whose largest key is at least `key`, or the count.
    #[inline]
    fn first_reaching(&self, key: &[u8]) -> usize {
        match self {
            Tables::Run(set, run) => set.runs()[*run].first_reaching(key),
            Tables::Chosen(tables) => tables.partition_point(|table| *table.meta().largest < *key),
        }
    }
}

impl LevelIter {
    /// Over chosen tables.
    ///
    /// REQUIRES: tables in key order, no two with a common user key.
    pub(crate) fn new(tables: Arc<[Arc<TableHandle>]>) -> LevelIter {
        LevelIter::over(Tables::Chosen(tables))
    }

    /// Over a run of `tables`.
    pub(crate) fn of_run(tables: Arc<TableSet>, run: usize) -> LevelIter {
        LevelIter::over(Tables::Run(tables, run))
    }

    fn over(tables: Tables) -> LevelIter {
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
            if let Some(table) = self.tables.all().get(at) {
                self.iter = Some(table.table()?.iter().fill_cache(self.fill_cache));
            }
        }
        Ok(self.iter.as_mut())
    }

    #[inline]
    fn skip_forward(&mut self) -> Result<()> {
        if self.valid() {
            return Ok(());
        }
        self.skip_tables_forward()
    }

    #[inline(never)]
    fn skip_tables_forward(&mut self) -> Result<()> {
        while let Some(before) = self.iter.take_if(|iter| !iter.valid()) {
            if let Some(iter) = self.open(self.at + 1)? {
                iter.go_on_from(before)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn skip_backward(&mut self) -> Result<()> {
        if self.valid() {
            return Ok(());
        }
        self.skip_tables_backward()
    }

    #[inline(never)]
    fn skip_tables_backward(&mut self) -> Result<()> {
        while self.iter.as_ref().is_some_and(|iter| !iter.valid()) {
            if self.at == 0 {
                self.iter = None;
            } else if let Some(iter) = self.open(self.at - 1)? {
                iter.seek_to_last()?;
            }
        }
        Ok(())
    }

    #[inline]
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
        if let Some(iter) = self.open(self.tables.all().len().saturating_sub(1))? {
            iter.seek_to_last()?;
        }
        self.skip_backward()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let at = self.tables.first_reaching(target.user_key);
        if let Some(iter) = self.open(at)? {
            iter.seek(target)?;
        }
        self.skip_forward()
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        // The table that reaches the key, or the one before it where that begins after the key.
        let at = self.tables.first_reaching(target.user_key);
        let begins_before = |table: &Arc<TableHandle>| *table.meta().smallest <= *target.user_key;
        let reaching = self.tables.all().get(at).filter(|table| begins_before(table));
        let Some(at) = reaching.map_or(at.checked_sub(1), |_| Some(at)) else {
            self.iter = None;
            return Ok(());
        };
        if let Some(iter) = self.open(at)? {
            iter.seek_for_prev(target)?;
        }
        self.skip_backward()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(iter) = &mut self.iter {
            iter.next()?;
        }
        self.skip_forward()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(iter) = &mut self.iter {
            iter.prev()?;
        }
        self.skip_backward()
    }

    #[inline]
    fn next_user_key(&mut self, scratch: &mut Vec<u8>) -> Result<()> {
        // No two tables have a common user key: that of the next one is another.
        if let Some(iter) = &mut self.iter {
            iter.next_user_key(scratch)?;
        }
        self.skip_forward()
    }

    #[inline]
    fn begins_user_key(&self) -> bool {
        self.iter.as_ref().is_some_and(TableIter::begins_user_key)
    }

    #[inline]
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        let at = self.tables.first_reaching(target.user_key);
        // A table that could not be opened is for the seek to report.
        if let Some(table) = self.tables.all().get(at)
            && let Ok(table) = table.table()
        {
            table.prefetch_seek(target.user_key);
        }
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
