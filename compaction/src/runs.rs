//! Level 0 as sorted runs.
//!
//! A flush adds a table to level 0, or several, each older as a whole than the next. Where flushes come faster than the levels below can take them in, the picker has
//! many of them merged into several tables with disjoint keys, which stay in level 0: one sorted run instead of many.
//! Nothing says of a table which run it is of: the tables that come out of one merge have seqnos between each other's, as a
//! rule, and those of two merges never do.

use std::ops::Range;
use std::sync::Arc;

use crate::targets::sum_bytes;
use crate::{LeveledOptions, TableMeta, Version};

/// Tables with disjoint key ranges, in key order.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// In key order.
    pub tables: Vec<Arc<TableMeta>>,
    /// Whether they have come out of one merge, by their seqnos.
    pub(crate) merged: bool,
}

/// Divides tables of level 0, given newest first, into sorted runs, the newest first. For any user key, the entries in a
/// run are newer than those in the runs after it.
///
/// Tables whose seqnos cannot be told apart are one run. So are tables whose seqnos can, if they are next to each other in
/// age, as long as each has keys of its own.
pub fn sorted_runs(tables: &[Arc<TableMeta>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for batch in batches(tables) {
        let batch = &tables[batch];
        let joins = |run: &mut Run| !run.merged && batch.len() == 1 && run.join(batch);
        if !runs.last_mut().is_some_and(joins) {
            let mut run = Run::default();
            if run.join(batch) {
                runs.push(run);
            } else {
                // Nothing writes such tables, but a version may have them and be sound.
                runs.extend(batch.iter().map(|table| Run {
                    tables: vec![Arc::clone(table)],
                    merged: false,
                }));
            }
        }
    }
    runs
}

impl Run {
    /// Whether it has come out of one merge, as far as seqnos show it.
    pub fn is_merged(&self) -> bool {
        self.merged
    }

    /// Takes `batch` in if no two tables overlap then; stays as it is otherwise.
    fn join(&mut self, batch: &[Arc<TableMeta>]) -> bool {
        let mut joined = self.tables.clone();
        for table in batch {
            let at = joined.partition_point(|other| other.largest < table.smallest);
            if joined.get(at).is_some_and(|other| other.overlaps(table)) {
                return false;
            }
            joined.insert(at, Arc::clone(table));
        }
        self.tables = joined;
        self.merged = batch.len() > 1;
        true
    }
}

/// The smallest stretches of `tables`, newest first, of which each is older as a whole than the one before.
fn batches(tables: &[Arc<TableMeta>]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut oldest = None;
    for (index, table) in tables.iter().enumerate() {
        if oldest.is_some_and(|oldest| table.seqno_max < oldest) {
            batches.push(start..index);
            start = index;
        }
        oldest = Some(oldest.map_or(table.seqno_min, |oldest| table.seqno_min.min(oldest)));
    }
    if start < tables.len() {
        batches.push(start..tables.len());
    }
    batches
}

/// What flushes have added to level 0, and what has been merged there since.
pub(crate) struct Backlog<'v> {
    /// The newest first.
    pub(crate) young: &'v [Run],
    /// From the newest merged run on: older than all of `young`.
    pub(crate) merged: &'v [Run],
}

impl<'v> Backlog<'v> {
    pub(crate) fn of(version: &'v Version) -> Self {
        let runs = version.l0_runs();
        let first_merged = runs.iter().position(Run::is_merged);
        let (young, merged) = runs.split_at(first_merged.unwrap_or(runs.len()));
        Backlog { young, merged }
    }

    pub(crate) fn merged_bytes(&self) -> u64 {
        sum_bytes(self.merged_tables().map(|table| &**table))
    }

    pub(crate) fn young_tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.young.iter().flat_map(|run| &run.tables)
    }

    pub(crate) fn merged_tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.merged.iter().flat_map(|run| &run.tables)
    }
}

/// How many tables of level 0 wait to be merged: what the engine slows writers down by. Runs that have been merged already do
/// not count, as long as they are no more than twice as many as the picker makes on purpose.
pub fn l0_backlog(version: &Version, options: &LeveledOptions) -> usize {
    let backlog = Backlog::of(version);
    let merged_max = merged_runs_max(options).saturating_mul(2);
    backlog.young_tables().count() + backlog.merged.len().saturating_sub(merged_max)
}

/// How many merged runs level 0 may have before they go further down although writes press: as many as are made of young
/// ones.
pub(crate) fn merged_runs_max(options: &LeveledOptions) -> usize {
    options.l0_run_trigger
}
