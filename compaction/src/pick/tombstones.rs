//! Deletes give back their space, also where nobody writes any more.

use std::sync::Arc;

use super::Picker;
use crate::table_meta::KeyRange;
use crate::{Plan, Reason, TableMeta};

impl Picker<'_> {
    /// The compaction of the table with the largest share of tombstones, over the ratio that the options allow.
    ///
    /// It cannot go round in circles: each plan takes the tombstones one level down, or drops them. Tables that a
    /// snapshot may still need a tombstone of are left alone, because a rewrite would keep it.
    pub(super) fn pick_tombstones(&self) -> Option<Plan> {
        let mut candidates: Vec<(usize, &Arc<TableMeta>)> = self
            .version
            .tables()
            .filter(|(_, table)| self.is_worth_it(table))
            .collect();
        candidates.sort_by(|(_, a), (_, b)| {
            let share = |a: &TableMeta, b: &TableMeta| u128::from(a.tombstones) * u128::from(b.entries);
            share(b, a).cmp(&share(a, b)).then(a.id.cmp(&b.id))
        });
        candidates
            .into_iter()
            .find_map(|(level, table)| self.plan_for(level, table))
    }

    fn is_worth_it(&self, table: &TableMeta) -> bool {
        table.tombstones > 0
            && table.tombstones as f64 > self.options.tombstone_ratio * table.entries as f64
            && table.is_older_than_snapshots(self.busy.oldest_snapshot())
            && !self.busy.contains(table.id)
    }

    fn plan_for(&self, level: usize, table: &TableMeta) -> Option<Plan> {
        if level == 0 {
            return self.pick_l0_where(Reason::Tombstones, |other| other.id == table.id);
        }
        let tables = self.version.level(level);
        let index = tables.partition_point(|other| other.smallest < table.smallest);
        if self
            .version
            .any_deeper(level, KeyRange::closed(&table.smallest, &table.largest))
        {
            let run = self.grow(level, index);
            return self.assemble(level, level + 1, &tables[run], Reason::Tombstones);
        }
        // Neighbours in the same state go along, so that what is left of them ends up in one table.
        let mut end = index + 1;
        let mut size_bytes = table.size_bytes;
        while let Some(next) = tables.get(end) {
            size_bytes = size_bytes.saturating_add(next.size_bytes);
            let grown = KeyRange::closed(&table.smallest, &next.largest);
            if !self.is_worth_it(next)
                || size_bytes > self.options.max_compaction_bytes
                || self.version.any_deeper(level, grown)
            {
                break;
            }
            end += 1;
        }
        self.assemble_in_place(level, &tables[index..end], Reason::Tombstones)
    }
}
