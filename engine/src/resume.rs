//! Flushing on demand, and taking writes up again after a failure.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_vfs::Result;
use siltstone_wal::{Log, LogOptions, SegmentId};

use crate::commit::SealedSegment;
use crate::core::{Core, closed};
use crate::install::TreeEdit;
use crate::manifest::Edit;
use crate::tree::Tree;

impl Core {
    /// Makes the active memtables of `trees` immutable and waits until what was in them is in tables.
    pub(crate) fn flush_now(&self, trees: &[Arc<Tree>]) -> Result<()> {
        self.check_open()?;
        self.failure.check()?;
        let sealed = self.seal(trees);
        self.schedule();
        self.wait_for("flush", || {
            sealed.iter().all(|(tree, last)| {
                tree.is_dropped()
                    || tree
                        .pin()
                        .immutables
                        .iter()
                        .all(|slot| slot.sealed().is_none_or(|(s, _)| s > *last))
            })
        })
    }

    /// Makes the active memtables immutable, and says up to which seqno.
    fn seal(&self, trees: &[Arc<Tree>]) -> Vec<(Arc<Tree>, siltstone_sstable::SeqNo)> {
        let state = self.commit.lock();
        trees
            .iter()
            .map(|tree| {
                if tree.pin().memtable.first_seqno().is_some() {
                    tree.rotate(state.last(), state.last_record);
                }
                (Arc::clone(tree), state.last())
            })
            .collect()
    }

    /// See [`Db::resume`](crate::Db::resume).
    pub(crate) fn resume(&self) -> Result<()> {
        let _one_at_a_time = self.resuming.lock();
        self.check_open()?;
        self.take_up_what_was_put_aside();
        if self.failure.cause().is_none() {
            self.schedule();
            return Ok(());
        }
        // Jobs that met the failure are on their way out; no new ones start while it stands.
        loop {
            let seen = self.progress.generation();
            if !self.jobs_running() {
                break;
            }
            self.check_open()?;
            self.progress
                .wait_beyond(seen, std::time::Duration::from_millis(10));
        }
        self.manifest.lock().rewrite()?;
        self.flush_everything()?;
        self.begin_new_log()?;
        self.failure.clear();
        self.progress.announce();
        self.schedule();
        Ok(())
    }

    /// Makes tables of all that is in memory, as one edit: what is durable then is all of the commits, without the log.
    fn flush_everything(&self) -> Result<()> {
        let trees = self.trees.load_full();
        self.seal(&trees);
        let mut edits: Vec<TreeEdit> = Vec::new();
        for tree in trees.iter().filter(|tree| !tree.is_dropped()) {
            match self.flush_to_tables(tree) {
                Ok(edit) => edits.extend(edit),
                Err(error) => {
                    let opened = edits.iter().flat_map(|edit| &edit.opened);
                    let paths: Vec<_> = opened
                        .map(|opened| self.table_path(opened.handle.meta().id))
                        .collect();
                    drop(edits);
                    self.mapped_tables.fetch_sub(paths.len(), Ordering::Relaxed);
                    self.abandon(paths);
                    return Err(error);
                }
            }
        }
        if edits.is_empty() {
            Ok(())
        } else {
            self.install(edits)
        }
    }

    /// Leaves the old log, whose state is unknown and which nothing needs any more, and goes on in a new one. The old
    /// segments are not synced again: that could only pretend that they are.
    fn begin_new_log(&self) -> Result<()> {
        let (old, old_syncer, new) = {
            let mut state = self.commit.lock();
            let Some(old) = &state.log else {
                return Err(closed());
            };
            // Above the spare, too, which need not have the next free id: a creation that failed has used up one.
            let mut id = self
                .syncer
                .load()
                .next_segment()
                .max(SegmentId(old.segment().0 + 1));
            // Of the first one a failed attempt may be left, which has not.
            while self.fs.exists(&siltstone_wal::segment_path(&self.dir, id))? {
                id = SegmentId(id.0 + 1);
            }
            let options = LogOptions {
                segment_size_bytes: self.options.log_segment_bytes,
                io: self.options.log_io,
            };
            let sealed = SealedSegment {
                id: old.segment(),
                last: state.last(),
                bytes: options.segment_size_bytes,
            };
            // Begun by the first append, not before the edit below is synced: its header vouches for all records before it,
            // which until then are looked for in the old log.
            let (log, syncer) =
                Log::create_unbegun(Arc::clone(&self.fs), &self.dir, id, old.next_sequence(), options)?;
            if old.is_begun() {
                state.sealed.push_back(sealed);
            }
            let old = state.log.replace(log);
            (old, self.syncer.swap(syncer), id)
        };
        drop(old);
        let edit = Edit {
            log_segment_min: Some(new.0),
            ..Edit::default()
        };
        self.manifest.lock().commit(&edit)?;
        self.remove_segments_below(new);
        if let Err(error) = old_syncer.remove_unused() {
            // Their names say that nothing needs them: the next open removes them.
            self.counters.note_background_error(&error);
        }
        self.scheduler.want_log_segment();
        Ok(())
    }
}
