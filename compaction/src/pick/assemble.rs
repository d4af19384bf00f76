//! From chosen source tables to a plan that is safe to run.

use std::sync::Arc;

use super::Picker;
use crate::table_meta::KeyRange;
use crate::targets::sum_bytes;
use crate::{LEVELS, Plan, PlanKind, Reason, TableMeta};

type Tables = [Arc<TableMeta>];

impl<'a> Picker<'a> {
    /// The plan that merges `source`, tables of `level` in the level's order, with what they overlap on the way to
    /// `output_level` and in it. `None` if a running compaction is in the way.
    ///
    /// REQUIRES: `source` from level 0 leaves no older table behind that overlaps one of its own.
    pub(super) fn assemble(
        &self,
        level: usize,
        output_level: usize,
        source: &Tables,
        reason: Reason,
    ) -> Option<Plan> {
        debug_assert!(level < output_level && output_level < LEVELS);
        let mut inputs = vec![(level, source.to_vec())];
        let mut range = KeyRange::hull(source.iter().map(|table| &**table))?;
        // Entries must not sink past older ones: what lies between goes along.
        for below in level + 1..=output_level {
            let tables = &self.version.level(below)[self.version.run(below, range)];
            if tables.is_empty() {
                continue;
            }
            range = range.with(&tables[0]).with(&tables[tables.len() - 1]);
            inputs.push((below, tables.to_vec()));
        }
        if inputs.iter().any(|(_, tables)| self.busy.any(tables))
            || self.busy.writes(level + 1..=output_level, range)
        {
            return None;
        }
        let bottommost = !self.version.any_deeper(output_level, range);
        // For its tombstones a table is merged at the bottom at once, not moved there and then rewritten.
        let must_rewrite = reason == Reason::Tombstones && bottommost;
        let can_move = inputs.len() == 1 && (level > 0 || are_disjoint(source)) && !must_rewrite;
        let kind = if can_move
            && source
                .iter()
                .all(|table| self.is_cheap_below(output_level, table))
        {
            PlanKind::Trivial
        } else {
            PlanKind::Merge
        };
        let grandparents = self.grandparents(output_level, range).to_vec();
        Some(Plan {
            level,
            output_level,
            inputs,
            kind,
            bottommost,
            grandparents,
            reason,
        })
    }

    /// The plan that rewrites neighbours of a sorted level in place, to drop what nothing below needs any more.
    /// REQUIRES: no table below overlaps them. `None` if a running compaction is in the way.
    pub(super) fn assemble_in_place(&self, level: usize, tables: &Tables, reason: Reason) -> Option<Plan> {
        let range = KeyRange::hull(tables.iter().map(|table| &**table))?;
        debug_assert!(level > 0 && !self.version.any_deeper(level, range));
        if self.busy.any(tables) || self.busy.writes(level..=level, range) {
            return None;
        }
        let oldest = self.busy.oldest_snapshot();
        let only_tombstones = |table: &Arc<TableMeta>| {
            table.tombstones == table.entries && table.is_older_than_snapshots(oldest)
        };
        let kind = if tables.iter().all(only_tombstones) {
            PlanKind::DeleteOnly
        } else {
            PlanKind::Merge
        };
        Some(Plan {
            level,
            output_level: level,
            inputs: vec![(level, tables.to_vec())],
            kind,
            bottommost: true,
            grandparents: Vec::new(),
            reason,
        })
    }

    /// What `source` overlaps in `output_level`: neighbours, because everything between is taken too.
    pub(super) fn below(&self, output_level: usize, source: &Tables) -> Option<&'a Tables> {
        let range = KeyRange::hull(source.iter().map(|table| &**table))?;
        Some(&self.version.level(output_level)[self.version.run(output_level, range)])
    }

    /// Whether an output with the table's range costs no more than usual when its turn comes in `output_level`.
    fn is_cheap_below(&self, output_level: usize, table: &TableMeta) -> bool {
        let range = KeyRange::closed(&table.smallest, &table.largest);
        let overlapped = sum_bytes(
            self.grandparents(output_level, range)
                .iter()
                .map(|table| &**table),
        );
        overlapped <= self.options.grandparent_overlap_bytes_max()
    }

    fn grandparents(&self, output_level: usize, range: KeyRange<'_>) -> &'a Tables {
        match output_level + 1 {
            level if level < LEVELS => &self.version.level(level)[self.version.run(level, range)],
            _ => &[],
        }
    }
}

/// Whether no two of `tables`, in whatever order, overlap.
fn are_disjoint(tables: &Tables) -> bool {
    let mut by_key: Vec<_> = tables.iter().collect();
    by_key.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    by_key.windows(2).all(|pair| !pair[0].overlaps(pair[1]))
}
