//! A table in use: what a version holds, and what hands the file to the reaper when nothing holds it any more.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use siltstone_compaction::TableMeta;
use siltstone_sstable::{Lead, SeqNo, Table, TableEntry};
use siltstone_vfs::{Error, Result};

use crate::reaper::Garbage;

/// One live table. Dropping the last handle of an obsolete one sends its mapping to the reaper: no reader ever
/// unmaps or unlinks.
pub(crate) struct TableHandle {
    meta: Arc<TableMeta>,
    path: PathBuf,
    /// The reader, or why it could not be opened: then every read of the table's range fails with this, and the
    /// rest of the database goes on.
    table: std::result::Result<Arc<Table>, Error>,
    obsolete: AtomicBool,
    garbage: Sender<Garbage>,
}

impl TableHandle {
    pub(crate) fn new(
        meta: Arc<TableMeta>,
        path: PathBuf,
        table: Result<Arc<Table>>,
        garbage: Sender<Garbage>,
    ) -> Arc<TableHandle> {
        Arc::new(TableHandle {
            meta,
            path,
            table,
            obsolete: AtomicBool::new(false),
            garbage,
        })
    }

    pub(crate) fn meta(&self) -> &Arc<TableMeta> {
        &self.meta
    }

    /// The reader.
    ///
    /// # Errors
    /// The error that opening the table met.
    #[inline]
    pub(crate) fn table(&self) -> Result<&Arc<Table>> {
        self.table.as_ref().map_err(Error::clone)
    }

    /// The newest entry of `key` up to `seqno`; `hash` is the key's.
    ///
    /// # Errors
    /// Those of the table, and where it could not be opened, that error; for keys of its range only.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], hash: u64, seqno: SeqNo) -> Result<Option<TableEntry<'_>>> {
        match self.lead(hash) {
            Some(lead) => {
                self.prefetch_lead(&lead);
                self.follow(&lead, key, hash, seqno)
            }
            None => Ok(None),
        }
    }

    /// Starts to load what the table's filter looks at for `hash`.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        if let Ok(table) = &self.table {
            table.prefetch_filter(hash);
        }
    }

    /// The first half of a [`get`](Self::get): see [`Table::lead`]. A table that could not be opened may hold every key.
    #[inline]
    pub(crate) fn lead(&self, hash: u64) -> Option<Lead> {
        match &self.table {
            Ok(table) => table.lead(hash),
            Err(_) => Some(Lead::default()),
        }
    }

    /// Starts to load what [`follow`](Self::follow) will look at.
    #[inline]
    pub(crate) fn prefetch_lead(&self, lead: &Lead) {
        if let Ok(table) = &self.table {
            table.prefetch_lead(lead);
        }
    }

    /// The second half.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub(crate) fn follow(
        &self,
        lead: &Lead,
        key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<TableEntry<'_>>> {
        match self
            .table()
            .and_then(|table| table.follow(lead, key, hash, seqno))
        {
            Err(_) if !self.meta.contains(key) => Ok(None),
            found => found,
        }
    }

    /// The error that opening the table met.
    pub(crate) fn damage(&self) -> Option<&Error> {
        self.table.as_ref().err()
    }

    /// Marks the table as dropped from the durable state: its file goes when its last pin does.
    ///
    /// REQUIRES: the manifest edit that removes it is synced.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        let garbage = match &self.table {
            Ok(table) => Garbage::Table(Arc::clone(table)),
            Err(_) => Garbage::Orphan(self.path.clone()),
        };
        // With the reaper gone the database is closed; the next open removes the file.
        let _ = self.garbage.send(garbage);
    }
}

impl fmt::Debug for TableHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableHandle")
            .field("meta", &self.meta)
            .field("damage", &self.damage())
            .finish()
    }
}
