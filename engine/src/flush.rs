//! Flush: the immutable memtables of a keyspace become one table of level 0.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_compaction::{BottomCheck, CompactionStream, OutputSplitter, TableMeta, VersionEdit};
use siltstone_sstable::{MergeIterator, SeqNo};
use siltstone_vfs::Result;

use crate::core::Core;
use crate::install::TreeEdit;
use crate::super_version::MemtableSlot;
use crate::table_writer::{Trouble, write_tables};
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

    /// Writes the immutable memtables of `tree` as a table, without installing it.
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
        if slots.iter().any(|slot| !slot.table.is_empty()) {
            let sources = slots.iter().map(|slot| slot.table.iter()).collect();
            let snapshots = self.snapshots.list();
            let stream = CompactionStream::new(MergeIterator::new(sources), &snapshots, BottomCheck::never());
            let splitter = OutputSplitter::new(u64::MAX, Vec::new());
            let sliced = view.tables.version.l0_runs().len() >= UNSLICED_RUNS;
            let output =
                write_tables(self, tree, 0, stream, splitter, sliced).map_err(Trouble::into_error)?;
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
