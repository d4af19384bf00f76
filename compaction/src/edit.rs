//! The difference between two versions.

use serde::{Deserialize, Serialize};
use siltstone_sstable::TableId;

use crate::TableMeta;

/// Tables that leave and tables that join the levels, as one atomic step. [`Version::apply`](crate::Version::apply)
/// takes away `removed` first, then adds `added`, so that a table that moves to another level is in both.
///
/// Persistent: the manifest stores it field by field in this order. Never reorder, remove or retype a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEdit {
    /// Level and table, in any order.
    pub added: Vec<(u8, TableMeta)>,
    /// Level and id, in any order.
    pub removed: Vec<(u8, TableId)>,
}

impl VersionEdit {
    /// Whether the edit changes nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// The edit of a flush: one more table in level 0.
    pub fn flush(table: TableMeta) -> VersionEdit {
        VersionEdit {
            added: vec![(0, table)],
            removed: Vec::new(),
        }
    }
}
