//! The levels below level 0: the table that costs least for what it brings down.

use std::cmp::Ordering;
use std::ops::Range;

use super::Picker;
use crate::table_meta::KeyRange;
use crate::targets::sum_bytes;
use crate::{Cursors, PickOrder, Plan, Reason};

impl Picker<'_> {
    /// The best table of a level that is over its target, with its free neighbours, into the next level.
    pub(super) fn pick_sorted(&self, level: usize, cursors: &mut Cursors) -> Option<Plan> {
        let tables = self.version.level(level);
        for index in self.candidates(level, cursors) {
            if self.busy.contains(tables[index].id) {
                continue;
            }
            let run = self.grow(level, index);
            if let Some(plan) = self.assemble(level, level + 1, &tables[run], Reason::LevelSize) {
                cursors.advance(level, &tables[index].largest);
                return Some(plan);
            }
        }
        None
    }

    /// The tables of a level by index, best first.
    fn candidates(&self, level: usize, cursors: &Cursors) -> Vec<usize> {
        let tables = self.version.level(level);
        let start = cursors.start(level, tables);
        let mut order: Vec<usize> = (start..tables.len()).chain(0..start).collect();
        if self.options.pick_order == PickOrder::MinOverlap {
            let overlaps = self.overlaps(level);
            // Stable: among equals the order of the cursor stays.
            order.sort_by(|a, b| {
                ratio_order(
                    (overlaps[*a], tables[*a].size_bytes),
                    (overlaps[*b], tables[*b].size_bytes),
                )
            });
        }
        order
    }

    /// For each table of a level, the bytes it overlaps in the next one. One pass over both.
    fn overlaps(&self, level: usize) -> Vec<u64> {
        let below = self.version.level(level + 1);
        let mut first = 0;
        let overlap = |table: &std::sync::Arc<crate::TableMeta>| {
            while below
                .get(first)
                .is_some_and(|other| other.largest < table.smallest)
            {
                first += 1;
            }
            let overlapped = below[first..]
                .iter()
                .take_while(|other| other.smallest <= table.largest);
            sum_bytes(overlapped.map(|other| &**other))
        };
        self.version.level(level).iter().map(overlap).collect()
    }

    /// The run of tables around `seed` that can go with it: those that reach into the range that is rewritten
    /// anyway, add no table below, and keep the compaction under its limit.
    pub(super) fn grow(&self, level: usize, seed: usize) -> Range<usize> {
        let tables = self.version.level(level);
        let below_level = self.version.level(level + 1);
        let run_below = |run: &Range<usize>| {
            let (first, last) = (&tables[run.start], &tables[run.end - 1]);
            self.version
                .run(level + 1, KeyRange::closed(&first.smallest, &last.largest))
        };
        let mut run = seed..seed + 1;
        let below = run_below(&run);
        if below.is_empty() {
            return run;
        }
        let (first, last) = (&below_level[below.start], &below_level[below.end - 1]);
        let rewritten = KeyRange::closed(&first.smallest, &last.largest);
        let mut size_bytes = tables[seed].size_bytes;
        size_bytes =
            size_bytes.saturating_add(sum_bytes(below_level[below.clone()].iter().map(|table| &**table)));
        let mut may_join = |index: usize, grown: &Range<usize>| {
            let table = &tables[index];
            let grown_bytes = size_bytes.saturating_add(table.size_bytes);
            let joins = rewritten.overlaps(table)
                && grown_bytes <= self.options.max_compaction_bytes
                && !self.busy.contains(table.id)
                && run_below(grown) == below;
            if joins {
                size_bytes = grown_bytes;
            }
            joins
        };
        while run.end < tables.len() && may_join(run.end, &(run.start..run.end + 1)) {
            run.end += 1;
        }
        while run.start > 0 && may_join(run.start - 1, &(run.start - 1..run.end)) {
            run.start -= 1;
        }
        run
    }
}

/// Compares `overlap / size` of two tables without dividing.
fn ratio_order(a: (u64, u64), b: (u64, u64)) -> Ordering {
    let cross = |overlap: u64, other_size: u64| u128::from(overlap) * u128::from(other_size.max(1));
    cross(a.0, b.1).cmp(&cross(b.0, a.1))
}
