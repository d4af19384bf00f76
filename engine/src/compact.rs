//! Compaction: carries out the plans that the compaction crate makes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_compaction::{
    BottomCheck, CompactionStream, KeyPart, LeveledOptions, OutputSplitter, Plan, PlanKind, Run, Stretch,
    TableMeta, sorted_runs,
};
use siltstone_sstable::MergeIterator;
use siltstone_vfs::{BusyReason, Error, ErrorKind, Result};

use crate::core::Core;
use crate::install::TreeEdit;
use crate::level_iter::LevelIter;
use crate::source::Source;
use crate::table_handle::TableHandle;
use crate::table_set::TableSet;
use crate::table_writer::{TableJob, Trouble};
use crate::tree::Tree;

/// Parts of a merge have in the mean at least as many bytes to read as so many output tables.
const PART_TABLES_MIN: u64 = 2;

/// Stretches that each input table is divided into for each part: parts differ by a small part of one.
const STRETCHES_PER_PART: usize = 8;

impl Core {
    /// How `tree` is to be compacted at this moment: in smaller steps while the disk is full, so that each fits into
    /// what is left of the room that the reserve gave; with nothing left in level 0 while somebody waits for all work to be done; and putting off what can be put off while
    /// writes come faster than that.
    pub(crate) fn leveled_options(&self, tree: &Tree) -> LeveledOptions {
        let mut options = tree.options.load().leveled();
        if self.space.is_full() {
            let reserve = self.options.reserve_bytes;
            // Flushes have taken some of it; and what is written may be a little longer than what is read.
            let left = self.fs.space_available(&self.dir).unwrap_or(reserve) / 8 * 7;
            let room = reserve.min(left).max(options.target_table_bytes);
            options.max_compaction_bytes = options.max_compaction_bytes.min(room);
        }
        if self.scheduler.is_settling() {
            options.l0_compaction_trigger = 1;
        } else if !self.space.is_full() {
            let threads = self.options.background_threads.saturating_sub(1).max(1);
            // What has been put off already slows writers down: no more of it.
            let may_put_off = tree.pressure.demand().reason() != Some(BusyReason::CompactionDebt);
            let left_over = tree.pin().tables.version.l0_runs().iter().any(Run::is_merged);
            let outruns = tree.intake.outruns_levels(self.clock.now(), threads, left_over);
            options.bulk_load = outruns && may_put_off;
        }
        options
    }

    /// Carries out `plan`.
    pub(crate) fn compact_tree(&self, tree: &Arc<Tree>, plan: &Plan) -> Result<(), Trouble> {
        let mut edit = TreeEdit::new(Arc::clone(tree));
        match plan.kind {
            PlanKind::Trivial | PlanKind::DeleteOnly => {
                edit.version = plan.edit(Vec::new());
                self.install(vec![edit])?;
                self.counters.trivial_moves.fetch_add(1, Ordering::Relaxed);
            }
            PlanKind::Merge => {
                // Not the whole view: it would keep memtables in memory that are flushed meanwhile.
                let tables = Arc::clone(&tree.pin().tables);
                let snapshots = self.snapshots.list();
                let bottom = BottomCheck::new(&tables.version, plan);
                let splitter = OutputSplitter::for_plan(plan, tree.options.load().target_table_bytes);
                let part = |keys: KeyPart| {
                    let merge = MergeIterator::new(sources(&tables, plan)?);
                    let stream = CompactionStream::new(merge, &snapshots, bottom.clone()).within(keys);
                    Ok((stream, splitter.clone()))
                };
                let parts = self
                    .key_parts(tree, &tables, plan)
                    .and_then(|parts| parts.into_iter().map(part).collect())
                    .map_err(Trouble::Input)?;
                // The merge holds what it reads; the rest of the set would keep slices of the filter of level 0 from later tables.
                drop(tables);
                let job = TableJob {
                    core: self,
                    tree,
                    level: plan.output_level,
                    sliced: false,
                    entries: plan.input_entries(),
                };
                let output = job.write(parts)?;
                let metas = output
                    .tables
                    .iter()
                    .map(|opened| TableMeta::clone(opened.handle.meta()))
                    .collect();
                edit.version = plan.edit(metas);
                edit.opened = output.tables;
                self.counters
                    .compacted_bytes_in
                    .fetch_add(plan.input_bytes(), Ordering::Relaxed);
                self.counters
                    .compacted_bytes_out
                    .fetch_add(output.bytes, Ordering::Relaxed);
                self.install(vec![edit])?;
                self.counters.compactions.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The parts that `plan` is carried out in. What leaves level 0, or becomes a run of it, is what writers are delayed for: as many
    /// parts as there are threads for background work, of at least some tables in the mean.
    fn key_parts(&self, tree: &Tree, tables: &TableSet, plan: &Plan) -> Result<Vec<KeyPart>> {
        let part_bytes_min = tree
            .options
            .load()
            .target_table_bytes
            .saturating_mul(PART_TABLES_MIN);
        let parts = usize::try_from(plan.input_bytes() / part_bytes_min.max(1)).unwrap_or(usize::MAX);
        let parts = parts.min(self.options.background_threads);
        if plan.level > 0 || parts < 2 {
            return Ok(vec![KeyPart::default()]);
        }
        let mut stretches = Vec::new();
        for (_, meta) in plan.tables() {
            let keys = find(tables, meta)?
                .table()?
                .dividing_keys(parts.saturating_mul(STRETCHES_PER_PART))?;
            let size_bytes = meta.size_bytes / keys.len() as u64;
            stretches.extend(keys.into_iter().map(|last_key| Stretch { last_key, size_bytes }));
        }
        Ok(plan.key_parts(stretches, parts))
    }
}

/// The inputs as sorted runs, the newest first: those of level 0, and each deeper level as one.
fn sources(tables: &TableSet, plan: &Plan) -> Result<Vec<Source>> {
    let source = |metas: &[Arc<TableMeta>]| {
        let handles = metas.iter().map(|meta| find(tables, meta).cloned());
        let run = LevelIter::new(handles.collect::<Result<_>>()?);
        Ok(Source::Level(run.fill_cache(false)))
    };
    let mut sources = Vec::new();
    for (level, metas) in &plan.inputs {
        if *level == 0 {
            for run in sorted_runs(metas) {
                sources.push(source(&run.tables)?);
            }
        } else {
            sources.push(source(metas)?);
        }
    }
    Ok(sources)
}

/// Missing where the keyspace has been dropped since the plan was made.
fn find<'t>(tables: &'t TableSet, meta: &TableMeta) -> Result<&'t Arc<TableHandle>> {
    tables.find(meta.id).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "a planned table is not in the version any more",
        )
    })
}
