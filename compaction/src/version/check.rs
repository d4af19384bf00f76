//! The invariants of the levels, as far as metadata shows them.

use std::cmp::Ordering;
use std::collections::HashMap;

use siltstone_sstable::TableId;
use siltstone_vfs::{Error, ErrorKind, Result};

use super::{LEVELS, Version, order_in};
use crate::TableMeta;

impl Version {
    /// Checks every invariant that can be seen without opening a table: each table's own fields, the order of each
    /// level, disjoint key ranges below level 0, disjoint seqnos of overlapping tables in level 0, ids unique
    /// across levels.
    ///
    /// # Errors
    /// `Corruption`, naming the level and the tables.
    pub fn check(&self) -> Result<()> {
        let mut seen: HashMap<TableId, usize> = HashMap::new();
        for (n, table) in self.tables() {
            if let Some(other) = seen.insert(table.id, n) {
                return Err(broken(format!(
                    "table {} is in level {other} and in level {n}",
                    table.id
                )));
            }
        }
        (0..LEVELS).try_for_each(|n| self.check_level(n))
    }

    pub(super) fn check_level(&self, n: usize) -> Result<()> {
        let tables = self.level(n);
        tables.iter().try_for_each(|table| check_table(n, table))?;
        for pair in tables.windows(2) {
            if order_in(n, &pair[0], &pair[1]) != Ordering::Less {
                return Err(broken(format!(
                    "tables {} and {} are out of order in level {n}",
                    pair[0].id, pair[1].id
                )));
            }
            if n > 0 && pair[0].overlaps(&pair[1]) {
                return Err(broken(format!(
                    "tables {} and {} of level {n} overlap: one ends at \"{}\", the next starts at \"{}\"",
                    pair[0].id,
                    pair[1].id,
                    pair[0].largest.escape_ascii(),
                    pair[1].smallest.escape_ascii()
                )));
            }
        }
        if n == 0 { self.check_l0_seqnos() } else { Ok(()) }
    }

    /// Of two overlapping tables in level 0, one is newer as a whole: reads stop at the first hit from the newest.
    fn check_l0_seqnos(&self) -> Result<()> {
        let tables = self.level(0);
        for (index, newer) in tables.iter().enumerate() {
            let clash = tables[index + 1..]
                .iter()
                .find(|older| older.seqno_max >= newer.seqno_min && older.overlaps(newer));
            if let Some(older) = clash {
                return Err(broken(format!(
                    "tables {} and {} of level 0 overlap in keys and in seqnos ({}..={} and {}..={})",
                    newer.id, older.id, newer.seqno_min, newer.seqno_max, older.seqno_min, older.seqno_max
                )));
            }
        }
        Ok(())
    }
}

fn check_table(n: usize, table: &TableMeta) -> Result<()> {
    let fault = if table.smallest > table.largest {
        "has its smallest key after its largest"
    } else if table.seqno_min > table.seqno_max {
        "has its smallest seqno after its largest"
    } else if table.tombstones > table.entries {
        "has more tombstones than entries"
    } else if table.entries == 0 {
        "has no entries"
    } else {
        return Ok(());
    };
    Err(broken(format!("table {} of level {n} {fault}", table.id)))
}

fn broken(message: String) -> Error {
    Error::new(ErrorKind::Corruption, message)
}
