//! Flush: the immutable memtables of a keyspace become a table of level 0, or several where flushes are behind.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_compaction::{BottomCheck, CompactionStream, OutputSplitter, TableMeta, VersionEdit};
use siltstone_sstable::{MergeIterator, SeqNo};
use siltstone_vfs::Result;

use crate::core::Core;
use crate::install::TreeEdit;
use crate::super_version::MemtableSlot;
use crate::table_writer::{TableJob, Trouble};
use crate::tree::Tree;

/// A level 0 of so few sorted runs is asked one by one: where writes are rare or in order there are never more, and no filter takes
/// memory.
const UNSLICED_RUNS: usize = 3;

impl Core {
    /// Flushes what waits in `tree`; does nothing where nothing does.
    pub(crate) fn flush_tree(&self, tree: &Arc<Tree>) -> Result<()> {
        let Some(edit) = self.flush_to_tables(tree)? else {
            return Ok(());
        };
        self.sync_log_for(std::slice::from_ref(&edit))?;
        self.install(vec![edit])?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the immutable memtables of `tree` as tables, without installing them.
    pub(crate) fn flush_to_tables(&self, tree: &Arc<Tree>) -> Result<Option<TreeEdit>> {
        let view = tree.view();
        let slots: Vec<Arc<MemtableSlot>> = view.immutables.clone();
        let Some(last) = slots
            .iter()
            .filter_map(|slot| slot.sealed())
            .map(|(last, _)| last)
            .max()
        else {
            return Ok(None);
        };
        // Batches that went to these memtables may still be on their way in.
        self.commit.wait_until_visible(last);
        let mut edit = TreeEdit::new(Arc::clone(tree));
        let filled: Vec<&Arc<MemtableSlot>> = slots.iter().filter(|slot| !slot.table.is_empty()).collect();
        if !filled.is_empty() {
            let snapshots = self.snapshots.list();
            let part = |slots: &[&Arc<MemtableSlot>]| {
                let sources = slots.iter().map(|slot| slot.table.iter()).collect();
                let stream =
                    CompactionStream::new(MergeIterator::new(sources), &snapshots, BottomCheck::never());
                (stream, OutputSplitter::new(u64::MAX, Vec::new()))
            };
            let memtable_bytes = tree.options.load().memtable_size_bytes;
            let sizes: Vec<u64> = filled.iter().map(|slot| slot.table.bytes_used()).collect();
            let parts = neighbours(&sizes, self.options.background_threads, memtable_bytes / 2);
            let job = TableJob {
                core: self,
                tree,
                level: 0,
                sliced: view.tables.version.l0_runs().len() >= UNSLICED_RUNS,
                entries: filled.iter().map(|slot| slot.table.entries()).sum(),
            };
            let output = job
                .write(parts.into_iter().map(|range| part(&filled[range])).collect())
                .map_err(Trouble::into_error)?;
            self.counters
                .flushed_bytes
                .fetch_add(output.bytes, Ordering::Relaxed);
            let added = output
                .tables
                .iter()
                .map(|opened| (0, TableMeta::clone(opened.handle.meta())))
                .collect();
            edit.version = VersionEdit {
                added,
                ..VersionEdit::default()
            };
            edit.opened = output.tables;
        }
        edit.flushed = slots;
        Ok(Some(edit))
    }

    /// Keeps recovery a prefix of the commits: before tables hold an operation durably, all earlier ones of other
    /// keyspaces must be durable in the log.
    pub(crate) fn sync_log_for(&self, edits: &[TreeEdit]) -> Result<()> {
        let sealed = edits
            .iter()
            .flat_map(|edit| &edit.flushed)
            .filter_map(|slot| slot.sealed());
        let Some((last, record)) = sealed.max() else {
            return Ok(());
        };
        let flushed = |slot: &Arc<MemtableSlot>| {
            edits
                .iter()
                .flat_map(|edit| &edit.flushed)
                .any(|done| Arc::ptr_eq(done, slot))
        };
        let others_hold_earlier = self.trees.load().iter().any(|tree| {
            let view = tree.pin();
            let mut slots = std::iter::once(&view.memtable)
                .chain(&view.immutables)
                .filter(|slot| !flushed(slot));
            slots.any(|slot| slot.first_seqno().is_some_and(|first: SeqNo| first <= last))
        });
        if others_hold_earlier {
            self.sync_to(record)
        } else {
            Ok(())
        }
    }
}

/// Divides memtables that wait together into parts of neighbours, of which each becomes a table: then flushes are behind, and
/// one thread that merges all of them, and waits for one sync after the other, is what writers wait for. At most `parts_max`, and none
/// smaller than `part_bytes_min` if there are several.
fn neighbours(sizes: &[u64], parts_max: usize, part_bytes_min: u64) -> Vec<Range<usize>> {
    let sum = |sizes: &[u64]| sizes.iter().copied().fold(0, u64::saturating_add);
    // Three quarters of a fair share: memtables are full at about the same size, and the last part takes what is left.
    let share = sum(sizes) / parts_max.max(1) as u64 / 4 * 3;
    let enough = share.max(part_bytes_min);
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..sizes.len() {
        let is_part = parts.len() + 1 < parts_max && sum(&sizes[start..end]) >= enough;
        if is_part && sum(&sizes[end..]) >= part_bytes_min {
            parts.push(start..end);
            start = end;
        }
    }
    parts.push(start..sizes.len());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memtables_that_wait_together_are_divided_in_parts_worth_a_table() {
        for (sizes, parts_max, expected) in [
            (&[16][..], 4, &[1][..]),
            (&[16, 15], 2, &[1, 2]),
            (&[15, 16], 2, &[1, 2]),
            (&[16, 15], 1, &[2]),
            (&[16, 16, 16], 2, &[2, 3]),
            (&[16, 16, 16, 16, 16, 16], 2, &[3, 6]),
            (&[16, 16, 16, 16, 16, 16], 3, &[2, 4, 6]),
            (&[16, 16, 16], 64, &[1, 2, 3]),
            // Small ones go with their neighbours.
            (&[1, 1, 1], 3, &[3]),
            (&[1, 16], 2, &[2]),
            (&[16, 1], 2, &[2]),
            (&[1, 16, 16], 3, &[2, 3]),
            (&[16, 7, 1], 3, &[1, 3]),
            (&[900, 16, 16], 2, &[1, 3]),
            (&[u64::MAX, u64::MAX], 2, &[1, 2]),
            (&[0, 0], 2, &[2]),
        ] {
            let parts = neighbours(sizes, parts_max, 8);
            let ends: Vec<usize> = parts.iter().map(|part| part.end).collect();
            assert!(parts[0].start == 0 && parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(ends, expected, "{sizes:?} {parts_max}");
        }
    }
}
