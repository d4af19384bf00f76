//! Where round robin goes on.

use crate::{LEVELS, TableMeta};

/// For each level, the end of the table that was picked last: of equally good tables, the next one in key order
/// goes. Need not be persistent.
#[derive(Clone, Debug, Default)]
pub struct Cursors {
    after: [Option<Box<[u8]>>; LEVELS],
}

impl Cursors {
    /// How many of a sorted level's tables the cursor has passed; 0 once it has passed all.
    pub(crate) fn start(&self, level: usize, tables: &[impl AsRef<TableMeta>]) -> usize {
        let Some(after) = &self.after[level] else { return 0 };
        let passed = tables.partition_point(|table| table.as_ref().smallest <= *after);
        if passed == tables.len() { 0 } else { passed }
    }

    pub(crate) fn advance(&mut self, level: usize, largest: &[u8]) {
        self.after[level] = Some(largest.into());
    }
}
