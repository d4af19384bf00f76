//! Installing the outcome of a job: manifest first, then the view, then what has become obsolete.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_compaction::VersionEdit;
use siltstone_sstable::SeqNo;
use siltstone_vfs::{ErrorKind, Removable, Result};
use siltstone_wal::{Log, SegmentId, segment_path};

use crate::commit::SealedSegment;
use crate::core::Core;
use crate::manifest::{Edit, KeyspaceEdit};
use crate::super_version::MemtableSlot;
use crate::table_set::{Opened, TableSet};
use crate::tree::Tree;

/// What a job changes in one keyspace.
pub(crate) struct TreeEdit {
    pub(crate) tree: Arc<Tree>,
    pub(crate) version: VersionEdit,
    /// Memtables that have become tables.
    pub(crate) flushed: Vec<Arc<MemtableSlot>>,
    /// The tables that the version adds, open.
    pub(crate) opened: Vec<Opened>,
}

impl TreeEdit {
    pub(crate) fn new(tree: Arc<Tree>) -> TreeEdit {
        TreeEdit {
            tree,
            version: VersionEdit::default(),
            flushed: Vec::new(),
            opened: Vec::new(),
        }
    }
}

impl Core {
    /// Makes `edits` durable as one step, then visible.
    ///
    /// REQUIRES: every added table is synced, and so is the directory.
    ///
    /// # Errors
    /// Nothing is visible then. `NotFound` where a keyspace has been dropped meanwhile. Tables that the edits add are
    /// removed in any case, once it is certain that no manifest names them.
    pub(crate) fn install(&self, edits: Vec<TreeEdit>) -> Result<()> {
        let added: Vec<PathBuf> = edits
            .iter()
            .flat_map(|edit| &edit.opened)
            .map(|opened| self.table_path(opened.handle.meta().id))
            .collect();
        let flushes = edits.iter().any(|edit| !edit.flushed.is_empty());
        let opened = added.len();
        let mut manifest = self.manifest.lock();
        if let Some(edit) = edits.iter().find(|edit| edit.tree.is_dropped()) {
            let error = crate::write::no_such_keyspace(edit.tree.id);
            drop(manifest);
            drop(edits);
            self.mapped_tables.fetch_sub(opened, Ordering::Relaxed);
            self.abandon(added);
            return Err(error);
        }
        let log_segment_min = flushes.then(|| self.log_segment_min(&edits));
        let edit = Edit {
            next_table: Some(self.next_table.load(Ordering::Relaxed)),
            last_seqno: edits
                .iter()
                .flat_map(|edit| &edit.flushed)
                .filter_map(|slot| slot.sealed())
                .map(|s| s.0)
                .max(),
            log_segment_min: log_segment_min.map(|segment| segment.0),
            keyspaces: edits.iter().map(keyspace_edit).collect(),
            ..Edit::default()
        };
        if let Err(error) = manifest.commit(&edit) {
            self.note_failure(&error);
            let in_doubt = manifest.in_doubt();
            if in_doubt {
                // Under the manifest's lock: whoever settles the doubt must find them.
                self.doubtful.lock().extend(added.iter().cloned());
            }
            drop(manifest);
            drop(edits);
            self.mapped_tables.fetch_sub(opened, Ordering::Relaxed);
            if !in_doubt {
                self.abandon(added);
            }
            return Err(error.context("a change of the tables could not be recorded"));
        }
        for edit in edits {
            if !edit.opened.is_empty() && !edit.flushed.is_empty() {
                let size_bytes = edit
                    .opened
                    .iter()
                    .map(|opened| opened.handle.meta().size_bytes)
                    .sum();
                edit.tree.intake.note_flush(self.clock.now(), size_bytes);
            }
            let old = edit.tree.view();
            let version = manifest.state().keyspaces[&edit.tree.id].version.clone();
            let removed: Vec<_> = edit
                .version
                .removed
                .iter()
                // A table that is moved to another level is removed and added by one edit.
                .filter(|(_, id)| !edit.version.added.iter().any(|(_, added)| added.id == *id))
                .filter_map(|(_, id)| old.tables.find(*id))
                .cloned()
                .collect();
            let tables = TableSet::new(version, &old.tables, edit.opened);
            edit.tree.install(tables, &edit.flushed);
            removed.iter().for_each(|handle| handle.retire());
        }
        // A new manifest has settled that nothing names these.
        let settled = std::mem::take(&mut *self.doubtful.lock());
        drop(manifest);
        self.abandon(settled);
        if let Some(min) = log_segment_min {
            self.remove_segments_below(min);
        }
        self.progress.announce();
        self.schedule();
        Ok(())
    }

    /// Has tables removed that no manifest names.
    pub(crate) fn abandon(&self, tables: Vec<PathBuf>) {
        for path in tables {
            if let Err(error) = crate::reaper::remove_orphan(self, &path) {
                self.counters.note_background_error(&error);
            }
        }
    }

    /// The first log segment that is still needed once `edits` are durable: older ones hold nothing but operations
    /// that are in tables. A keyspace with empty memtables needs none.
    fn log_segment_min(&self, edits: &[TreeEdit]) -> SegmentId {
        let state = self.commit.lock();
        let flushed = |slot: &Arc<MemtableSlot>| {
            edits
                .iter()
                .flat_map(|edit| &edit.flushed)
                .any(|done| Arc::ptr_eq(done, slot))
        };
        let mut oldest = SeqNo::MAX;
        for tree in self.trees.load().iter().filter(|tree| !tree.is_dropped()) {
            let view = tree.pin();
            let slots = std::iter::once(&view.memtable)
                .chain(&view.immutables)
                .filter(|slot| !flushed(slot));
            oldest = slots
                .filter_map(|slot| slot.first_seqno())
                .fold(oldest, SeqNo::min);
        }
        let current = state
            .log
            .as_ref()
            .map_or(SegmentId(0), siltstone_wal::Log::segment);
        state
            .sealed
            .iter()
            .find(|segment| segment.last >= oldest)
            .map_or(current, |segment| segment.id)
    }

    /// Ends the log of a database that is being closed. Where nothing is in memory only, none is left: the next open
    /// has nothing to read.
    ///
    /// REQUIRES: the log is synced, and no job is running.
    pub(crate) fn leave_log(&self, log: Log) -> Result<()> {
        let (active, begun) = (log.segment(), log.is_begun());
        log.close()?;
        let flushed = |tree: &Arc<Tree>| {
            let view = tree.pin();
            view.memtable.first_seqno().is_none() && view.immutables.is_empty()
        };
        let next = self.syncer.load().next_segment();
        let mut state = self.commit.lock();
        let last = state.last();
        if begun {
            let bytes = self.options.log_segment_bytes;
            state.sealed.push_back(SealedSegment {
                id: active,
                last,
                bytes,
            });
        }
        let obsolete = !state.sealed.is_empty() && self.trees.load().iter().all(flushed);
        drop(state);
        let edit = obsolete.then(|| Edit {
            last_seqno: Some(last),
            log_segment_min: Some(next.0),
            ..Edit::default()
        });
        match self.manifest.lock().close(edit.as_ref()) {
            Ok(()) if obsolete => {
                self.remove_segments_below(next);
                self.remove_reusable_segments();
            }
            Ok(()) => {}
            // The log stays, and says the same.
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            Err(error) => return Err(error.context("the end of the log could not be recorded")),
        }
        Ok(())
    }

    pub(crate) fn remove_segments_below(&self, min: SegmentId) {
        let mut obsolete = Vec::new();
        {
            let mut state = self.commit.lock();
            while let Some(segment) = state.sealed.pop_front_if(|segment| segment.id < min) {
                obsolete.push(segment.id);
            }
        }
        if obsolete.is_empty() {
            return;
        }
        let kept = self.syncer.load().release_below(min);
        self.count_retired(kept.len());
        if self.space.is_full() {
            self.remove_reusable_segments();
        }
        for id in obsolete.into_iter().filter(|id| !kept.contains(id)) {
            let path = segment_path(&self.dir, id);
            let removed = Removable::plain(&path).and_then(|file| self.fs.remove(&file));
            match removed {
                Ok(()) => self.count_retired(1),
                // The manifest says that it is obsolete: the next open removes it.
                Err(error) => self.counters.note_background_error(&error),
            }
        }
    }

    /// Removes the files of log segments that were kept to be reused.
    pub(crate) fn remove_reusable_segments(&self) {
        if let Err(error) = self.syncer.load().remove_reusable() {
            // Their names say that nothing needs them: the next open removes them.
            self.counters.note_background_error(&error);
        }
    }

    fn count_retired(&self, segments: usize) {
        let retired = &self.counters.segments_retired;
        retired.fetch_add(segments as u64, Ordering::Relaxed);
    }
}

fn keyspace_edit(edit: &TreeEdit) -> KeyspaceEdit {
    KeyspaceEdit {
        id: edit.tree.id,
        flushed: edit
            .flushed
            .iter()
            .filter_map(|slot| slot.sealed())
            .map(|(last, _)| last)
            .max(),
        options: None,
        version: edit.version.clone(),
    }
}
