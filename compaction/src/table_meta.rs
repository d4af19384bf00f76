//! What the level structure knows about a table without opening it.

use serde::{Deserialize, Serialize};
use siltstone_sstable::{SeqNo, TableId};

/// One table file as versions see it. Everything the picker decides with is in here.
///
/// Persistent: the manifest stores it field by field in this order. Never reorder, remove or retype a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMeta {
    /// Names the file.
    pub id: TableId,
    /// Size of the file.
    pub size_bytes: u64,
    /// Entries in the table, tombstones included.
    pub entries: u64,
    /// Tombstones in the table.
    pub tombstones: u64,
    /// The smallest user key, inclusive.
    pub smallest: Box<[u8]>,
    /// The largest user key, inclusive.
    pub largest: Box<[u8]>,
    /// The smallest seqno in the table; 0 once an entry has settled at the bottom.
    pub seqno_min: SeqNo,
    /// The largest seqno in the table. 0 in a table that is settled as a whole.
    pub seqno_max: SeqNo,
}

impl TableMeta {
    /// Whether the table's key range contains `user_key`.
    pub fn contains(&self, user_key: &[u8]) -> bool {
        *self.smallest <= *user_key && *user_key <= *self.largest
    }

    /// Whether the key ranges of two tables have a key in common.
    pub fn overlaps(&self, other: &TableMeta) -> bool {
        self.smallest <= other.largest && other.smallest <= self.largest
    }

    /// Whether no snapshot tells any entry of this table apart from an older one: the condition under which a
    /// rewrite at the bottom drops all its tombstones and shadowed entries.
    pub(crate) fn is_older_than_snapshots(&self, oldest_snapshot: Option<SeqNo>) -> bool {
        oldest_snapshot.is_none_or(|oldest| self.seqno_max <= oldest)
    }
}

/// An interval of user keys; both ends inclusive, `None` is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange<'a> {
    pub(crate) smallest: Option<&'a [u8]>,
    pub(crate) largest: Option<&'a [u8]>,
}

impl<'a> KeyRange<'a> {
    pub(crate) fn closed(smallest: &'a [u8], largest: &'a [u8]) -> Self {
        Self {
            smallest: Some(smallest),
            largest: Some(largest),
        }
    }

    /// The smallest interval that contains all of `tables`; `None` of none.
    pub(crate) fn hull<'t: 'a>(tables: impl IntoIterator<Item = &'t TableMeta>) -> Option<Self> {
        let mut ends: Option<(&'a [u8], &'a [u8])> = None;
        for table in tables {
            let (low, high) = ends.unwrap_or((&table.smallest, &table.largest));
            ends = Some((low.min(&table.smallest), high.max(&table.largest)));
        }
        ends.map(|(low, high)| Self::closed(low, high))
    }

    /// The smallest interval that contains both.
    pub(crate) fn with(self, table: &'a TableMeta) -> Self {
        Self {
            smallest: self.smallest.map(|smallest| smallest.min(&table.smallest)),
            largest: self.largest.map(|largest| largest.max(&table.largest)),
        }
    }

    /// Whether `table` ends before the interval starts.
    pub(crate) fn is_after(&self, table: &TableMeta) -> bool {
        self.smallest.is_some_and(|smallest| *table.largest < *smallest)
    }

    /// Whether `table` starts after the interval ends.
    pub(crate) fn is_before(&self, table: &TableMeta) -> bool {
        self.largest.is_some_and(|largest| *largest < *table.smallest)
    }

    pub(crate) fn overlaps(&self, table: &TableMeta) -> bool {
        !self.is_after(table) && !self.is_before(table)
    }

    pub(crate) fn contains(&self, table: &TableMeta) -> bool {
        self.smallest.is_none_or(|smallest| *smallest <= *table.smallest)
            && self.largest.is_none_or(|largest| *table.largest <= *largest)
    }
}
