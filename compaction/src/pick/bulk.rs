//! What to do while writes come faster than the levels can take them in.
//!
//! To merge every byte down level by level as it comes costs several rewrites, and the writer whose processor they take
//! pays for them. Level 0 takes more at one rewrite: the tables that flushes have left there become one sorted run, which
//! stays until writes let up. Then the runs go down together, a range of keys at a time, past the levels that are
//! smaller than they are. This is tiering (the stepped merge of Jagadish, Narayan, Seshadri, Sudarshan and Kanneganti,
//! "Incremental Organization for Data Recording and Warehousing", 1997; RocksDB's universal style) as an answer to a burst,
//! and leveling else.

use std::ops::Range;
use std::sync::Arc;

use super::Picker;
use super::l0::groups;
use crate::runs::{Backlog, Run, merged_runs_max};
use crate::table_meta::KeyRange;
use crate::targets::sum_bytes;
use crate::version::order_in;
use crate::{Plan, PlanKind, Reason, TableMeta};

/// As long as draining level 0 would rewrite at most this many base sizes, it may wait.
const WAITING_BASES_MAX: u64 = 32;

/// What the backlog in level 0 asks for.
pub(super) enum Bulk {
    /// This, before all else.
    Plan(Plan),
    /// That nothing takes the processor from the writers.
    Wait,
    /// Nothing that the usual order does not see to.
    Usual,
}

impl Picker<'_> {
    pub(super) fn pick_bulk(&self, backlog: &Backlog<'_>) -> Bulk {
        let bulk_load = self.options.bulk_load;
        if !bulk_load && backlog.merged.is_empty() {
            return Bulk::Usual;
        }
        let young = backlog.young_tables().count();
        if young >= self.options.l0_run_trigger {
            // Writers are about to be slowed down by these: whatever can be done is, but beside a run in the making.
            if backlog.young_tables().any(|table| self.busy.contains(table.id))
                && bulk_load
                && !self.busy.has_put_aside()
            {
                return Bulk::Wait;
            }
            return match self.assemble_run(backlog) {
                Some(plan) if backlog.merged.is_empty() && self.goes_down_as_cheaply(&plan) => Bulk::Usual,
                Some(plan) => Bulk::Plan(plan),
                None => Bulk::Usual,
            };
        }
        // Tables that follow each other are moved where nothing lies below: there is nothing to put off.
        let in_order = backlog.merged.is_empty() && backlog.young.len() == 1 && young > 1;
        if bulk_load && !in_order && self.may_wait(backlog) {
            return Bulk::Wait;
        }
        Bulk::Usual
    }

    /// The plan that merges young tables into one run of level 0: all of them, or the oldest that may go at once. `None` if
    /// there are too few, or a running compaction is in the way.
    fn assemble_run(&self, backlog: &Backlog<'_>) -> Option<Plan> {
        // What is a long run by itself needs no merging.
        let is_short = |run: &&Run| run.tables.len() < self.options.l0_run_trigger;
        let young: Vec<&Run> = backlog.young.iter().take_while(is_short).collect();
        if young.iter().map(|run| run.tables.len()).sum::<usize>() < self.options.l0_run_trigger {
            return None;
        }
        let mut size_bytes = 0_u64;
        let fits = |run: &&&Run| {
            size_bytes = size_bytes.saturating_add(sum_bytes(run.tables.iter().map(|table| &**table)));
            size_bytes <= self.options.max_compaction_bytes
        };
        let runs: Vec<&Run> = young.iter().rev().take_while(fits).copied().collect();
        if runs.len() < 2 {
            return None;
        }
        let tables = runs.iter().flat_map(|run| &run.tables);
        let source = newest_first(tables.cloned().collect());
        if self.busy.any(&source) {
            return None;
        }
        // Runs of sound versions that nothing writes may have seqnos between each other's. Their merge would have, too.
        let oldest = source.iter().map(|table| table.seqno_min).min()?;
        let newest = source.iter().map(|table| table.seqno_max).max()?;
        let between = |table: &Arc<TableMeta>| table.seqno_min <= newest && oldest <= table.seqno_max;
        if self
            .version
            .level(0)
            .iter()
            .filter(|table| between(table))
            .count()
            > source.len()
        {
            return None;
        }
        Some(Plan {
            level: 0,
            output_level: 0,
            inputs: vec![(0, source)],
            kind: PlanKind::Merge,
            bottommost: false,
            grandparents: guards(backlog.merged),
            reason: Reason::Backlog,
        })
    }

    /// Whether to merge the tables of `plan` into the level that they go to rewrites no more than to merge them now and again.
    fn goes_down_as_cheaply(&self, plan: &Plan) -> bool {
        let source = &plan.inputs[0].1;
        let levels = self.targets.base_level..=self.level_for(source);
        let below = levels.filter_map(|level| self.below(level, source));
        sum_bytes(below.flatten().map(|table| &**table)) <= sum_bytes(source.iter().map(|table| &**table))
    }

    fn may_wait(&self, backlog: &Backlog<'_>) -> bool {
        let limit = self.options.level_base_bytes.saturating_mul(WAITING_BASES_MAX);
        let rewritten = self.targets.drain_bytes(self.version, backlog.merged_bytes());
        backlog.merged.len() < merged_runs_max(self.options) && rewritten <= u128::from(limit)
    }

    /// A range of keys of the merged runs, down to the first level that is as large as they are, with what lies between.
    pub(super) fn pick_merged(&self, backlog: &Backlog<'_>) -> Option<Plan> {
        if backlog.merged.is_empty() {
            return None;
        }
        // What is beyond the merged runs need not wait for them.
        let is_young = |table: &TableMeta| backlog.young_tables().any(|young| young.id == table.id);
        if let Some(plan) = self.pick_moved(is_young) {
            return Some(plan);
        }
        let output_level = self.targets.drain_level(backlog.merged_bytes());
        // No table of another group overlaps one of a group, so nothing older is left behind.
        let mut groups = groups(&newest_first(backlog.merged_tables().cloned().collect()));
        groups.sort_by(|a, b| smallest(a).cmp(&smallest(b)));
        (0..groups.len()).find_map(|start| {
            let window = self.window(&groups, start, output_level)?;
            let source = newest_first(groups[window].iter().flatten().cloned().collect());
            self.assemble(0, output_level, &source, Reason::Backlog)
        })
    }

    /// As many neighbours from group `start` on as may go together. `None` if it is busy, or too large by itself.
    fn window(
        &self,
        groups: &[Vec<Arc<TableMeta>>],
        start: usize,
        output_level: usize,
    ) -> Option<Range<usize>> {
        let bytes_to = |end: usize| {
            let source: Vec<Arc<TableMeta>> = groups[start..end].iter().flatten().cloned().collect();
            let levels = self.targets.base_level..=output_level;
            let below = levels.filter_map(|level| self.below(level, &source));
            sum_bytes(source.iter().chain(below.flatten()).map(|table| &**table))
        };
        let can_go = |end: usize, limit| !self.busy.any(&groups[end - 1]) && bytes_to(end) <= limit;
        let limit = self.options.max_compaction_bytes;
        if !can_go(start + 1, limit) {
            return None;
        }
        let mut end = start + 1;
        // New tables gather meanwhile, and writers wait for those to be merged next.
        while end < groups.len() && can_go(end + 1, limit / 2) {
            end += 1;
        }
        // Runs of which one table is left would look like new ones.
        if end + 1 == groups.len() && can_go(end + 1, limit) {
            end += 1;
        }
        Some(start..end)
    }
}

/// In the order of level 0.
fn newest_first(mut tables: Vec<Arc<TableMeta>>) -> Vec<Arc<TableMeta>> {
    tables.sort_by(|a, b| order_in(0, a, b));
    tables
}

fn smallest(group: &[Arc<TableMeta>]) -> Option<&[u8]> {
    group.iter().map(|table| &*table.smallest).min()
}

/// Where the runs of level 0 are cut, in key order: by the oldest one, and where that has nothing, by the next. Tables
/// that end together go down together, without half a table more of each run.
fn guards(merged: &[Run]) -> Vec<Arc<TableMeta>> {
    let mut guards: Vec<Arc<TableMeta>> = Vec::new();
    for table in merged.iter().rev().flat_map(|run| &run.tables) {
        let range = KeyRange::closed(&table.smallest, &table.largest);
        let at = guards.partition_point(|guard| range.is_after(guard));
        if guards.get(at).is_none_or(|guard| range.is_before(guard)) {
            guards.insert(at, Arc::clone(table));
        }
    }
    guards
}
