//! Recovery: from whatever a crash left to an open database.
//!
//! manifest → leftovers → tables → log → new manifest → new log segment. Nothing is removed before the manifest has
//! been read and is durable, and nothing is written before the log has been replayed. After a clean close there is
//! nothing to mend: the first change writes the new manifest, and the first append begins the segment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone_sstable::{InternalKey, SeqNo, Tag};
use siltstone_vfs::{DirLock, Error, ErrorKind, Fs, Removable, Result};
use siltstone_wal::{RecordSeq, SegmentId, SegmentState, Tail, TailPolicy, replay, segment_path};

use crate::backlog::Backlog;
use crate::batch::BatchReader;
use crate::commit::SealedSegment;
use crate::files::{self, FileKind, manifest_name};
use crate::manifest::{Manifest, State, current_of};
use crate::options::{Options, RecoveryMode};
use crate::tree::Tree;

/// What opening the database found and did.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Whether the database was made by this open.
    pub created: bool,
    /// The last operation that the log or the tables say is durable: it would have survived a power loss.
    pub durable: SeqNo,
    /// The last operation that was recovered. No smaller than `durable`, and without holes.
    pub recovered: SeqNo,
    /// Operations that the log held and that could not be kept, counted where they could still be read.
    pub dropped_bytes: u64,
    /// Why the tail of the log was dropped; `None` where it ended cleanly.
    pub dropped_because: Option<String>,
    /// Log segments that were read.
    pub segments: usize,
    /// Log records that were read.
    pub records: u64,
    /// Operations that were put back into memtables.
    pub replayed: u64,
    /// Tables that are live.
    pub tables: usize,
    /// Live tables that could not be opened, and why: reads of their keys fail, the rest goes on. Indexes, filters and data
    /// blocks are not looked at by the open: reads that need a damaged index or block tell of it, and so does
    /// [`verify`](crate::Db::verify).
    pub damaged_tables: Vec<(PathBuf, Error)>,
    /// Leftovers of interrupted work, and what they were; all are removed.
    pub leftovers: Vec<(PathBuf, Leftover)>,
}

/// What an interrupted step left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// A table that no manifest edit came to name, or that one had dropped.
    Table,
    /// A log segment whose operations are all in tables.
    Segment,
    /// A log segment that was never begun, or that lies behind a torn tail: nothing in it was acknowledged as synced.
    DroppedSegment,
    /// A manifest that is not current.
    Manifest,
    /// A `CURRENT` before its rename.
    CurrentTmp,
}

/// What lies in the directory, classified.
pub(crate) struct Found {
    /// `None` for a directory without a database.
    pub(crate) state: Option<State>,
    /// The number of the manifest that is current.
    pub(crate) manifest_number: Option<u64>,
    pub(crate) manifest_number_next: u64,
    /// It holds no edits.
    pub(crate) manifest_compact: bool,
    pub(crate) segments: Vec<SegmentId>,
    pub(crate) segment_next: SegmentId,
    pub(crate) report: RecoveryReport,
}

/// Reads the manifest and removes the leftovers.
pub(crate) fn find(fs: &dyn Fs, dir: &Path, lock: &DirLock, options: &Options) -> Result<Found> {
    let files: Vec<(String, FileKind)> = fs
        .list(dir)?
        .into_iter()
        .filter_map(|name| FileKind::of(&name).map(|kind| (name, kind)))
        .collect();
    let current = current_of(fs, dir)?;
    let mut manifest_compact = false;
    let state = match current {
        Some(current) => {
            let manifest = Manifest::read(fs, dir, current)?;
            if !manifest.durable {
                // Before a file goes that it does not name: a power loss must not bring back one that does.
                fs.sync_file(&dir.join(manifest_name(current.number)))?;
                fs.sync_dir(dir)?;
            }
            manifest_compact = manifest.compact;
            Some(manifest.state)
        }
        None => {
            refuse_to_create_over(dir, &files)?;
            if !options.create_if_missing {
                return Err(Error::new(ErrorKind::NotFound, "there is no database here")
                    .with_path(dir)
                    .with_advice("set create_if_missing"));
            }
            None
        }
    };
    let mut found = Found {
        manifest_number: current.map(|current| current.number),
        manifest_number_next: 1,
        manifest_compact,
        segments: Vec::new(),
        segment_next: SegmentId(state.as_ref().map_or(1, |state| state.log_segment_min.max(1))),
        report: RecoveryReport {
            created: state.is_none(),
            ..RecoveryReport::default()
        },
        state,
    };
    let live: BTreeSet<_> = found
        .state
        .iter()
        .flat_map(|state| state.keyspaces.values())
        .flat_map(|keyspace| keyspace.version.tables().map(|(_, table)| table.id))
        .collect();
    let mut removed = false;
    for (name, kind) in files {
        let path = dir.join(&name);
        let leftover = match kind {
            FileKind::Table(id) if live.contains(&id) => None,
            FileKind::Table(id) => {
                if let Some(state) = &mut found.state {
                    state.next_table = state.next_table.max(id.0.saturating_add(1));
                }
                Some(Leftover::Table)
            }
            FileKind::Segment(id) => {
                found.segment_next = found.segment_next.max(SegmentId(id.0.saturating_add(1)));
                let obsolete = found
                    .state
                    .as_ref()
                    .is_some_and(|state| id.0 < state.log_segment_min);
                if !obsolete {
                    found.segments.push(id);
                }
                obsolete.then_some(Leftover::Segment)
            }
            FileKind::Manifest(number) => {
                found.manifest_number_next = found.manifest_number_next.max(number.saturating_add(1));
                (current.map(|current| current.number) != Some(number)).then_some(Leftover::Manifest)
            }
            FileKind::CurrentTmp => Some(Leftover::CurrentTmp),
            FileKind::Current | FileKind::Lock | FileKind::Reserve => None,
        };
        if let Some(leftover) = leftover {
            if leftover == Leftover::Table {
                let _synced_below = lock
                    .claim_orphan(path.clone())?
                    .remove(fs)
                    .map_err(|(_, error)| error)?;
            } else {
                fs.remove(&Removable::plain(&path)?)?;
            }
            removed = true;
            found.report.leftovers.push((path, leftover));
        }
    }
    if removed {
        fs.sync_dir(dir)?;
    }
    found.segments.sort_unstable();
    Ok(found)
}

/// A crash while a database is made leaves a manifest and a `CURRENT.tmp` at the most: tables or log segments without
/// a `CURRENT` are a database that has lost it, not an empty directory.
fn refuse_to_create_over(dir: &Path, files: &[(String, FileKind)]) -> Result<()> {
    let orphan = files
        .iter()
        .find(|(_, kind)| matches!(kind, FileKind::Table(_) | FileKind::Segment(_)));
    match orphan {
        None => Ok(()),
        Some((name, _)) => Err(Error::new(
            ErrorKind::Corruption,
            format!(
                "{name} is here, but {} is not: this is a database that has lost it",
                files::CURRENT
            ),
        )
        .with_path(dir.join(files::CURRENT))
        .with_advice("restore CURRENT from a backup; nothing has been changed")),
    }
}

/// At most this much of the log waits, copied, to be put into memtables in key order.
const BACKLOG_BYTES_MAX: u64 = 4 << 20;

/// What the log gave back.
pub(crate) struct Replayed {
    pub(crate) next_seqno: SeqNo,
    pub(crate) next_record: RecordSeq,
    pub(crate) segment_next: SegmentId,
    pub(crate) sealed: Vec<SealedSegment>,
    /// Segments of which nothing was kept.
    pub(crate) dropped: Vec<PathBuf>,
    /// The log is as its last owner left it on purpose: nothing was dropped, and nothing has to be written before it
    /// can go on.
    pub(crate) closed: bool,
}

/// Puts the operations of the log that are not in tables back into the memtables of `trees` (by ascending id).
pub(crate) fn replay_log(
    fs: &dyn Fs,
    dir: &Path,
    options: &Options,
    state: &State,
    trees: &[Arc<Tree>],
    found: &mut Found,
) -> Result<Replayed> {
    let policy = match options.recovery {
        RecoveryMode::Strict => TailPolicy::Strict,
        RecoveryMode::Salvage => TailPolicy::DropDamaged,
    };
    let mut last = state.last_seqno;
    // The last seqno of each segment and of each record, to translate the log's watermark.
    let mut segment_last: Vec<(SegmentId, SeqNo)> = Vec::new();
    let mut record_last: Vec<(RecordSeq, SeqNo)> = Vec::new();
    let report = &mut found.report;
    // One for each of `trees`, and what they take together.
    let mut backlogs: Vec<Backlog> = trees.iter().map(|_| Backlog::default()).collect();
    let mut backlog_bytes = 0_u64;
    let mut touched: Vec<usize> = Vec::new();
    let mut visit = |record: siltstone_wal::Record<'_>| -> Result<()> {
        let place = |error: Error| {
            error
                .with_path(segment_path(dir, record.segment))
                .with_offset(record.offset)
        };
        let batch = BatchReader::new(record.payload).map_err(place)?;
        if batch.first_seqno() <= segment_last.last().map_or(SeqNo::ZERO, |(_, last)| *last) {
            return Err(place(Error::new(
                ErrorKind::Corruption,
                format!(
                    "batch begins at seqno {}, which an earlier batch has used",
                    batch.first_seqno()
                ),
            )));
        }
        let end = SeqNo(batch.first_seqno().0 + u64::from(batch.len()) - u64::from(batch.len() > 0));
        for operation in batch {
            let operation = operation.map_err(place)?;
            let Ok(at) = trees.binary_search_by_key(&operation.keyspace, |tree| tree.id) else {
                if operation.keyspace < state.next_keyspace {
                    continue; // dropped since
                }
                return Err(place(Error::new(
                    ErrorKind::Corruption,
                    format!(
                        "operation in keyspace {}, which has never existed",
                        operation.keyspace
                    ),
                )));
            };
            let tree = &trees[at];
            if operation.seqno <= state.keyspaces[&tree.id].flushed {
                continue;
            }
            let view = tree.pin();
            view.memtable.note_commit(operation.seqno);
            let key = InternalKey::new(operation.key, Tag::new(operation.seqno, operation.kind));
            let backlog = &mut backlogs[at];
            backlog_bytes -= backlog.size_bytes();
            backlog.push(key, operation.value);
            backlog_bytes += backlog.size_bytes();
            report.replayed += 1;
            if !touched.contains(&at) {
                touched.push(at);
            }
        }
        last = last.max(end);
        match segment_last.last_mut() {
            Some((segment, seqno)) if *segment == record.segment => *seqno = end,
            _ => segment_last.push((record.segment, end)),
        }
        record_last.push((record.sequence, end));
        // Memtables are cut between batches, as they were when they were written.
        for at in touched.drain(..) {
            let (tree, backlog) = (&trees[at], &mut backlogs[at]);
            let view = tree.pin();
            let (memtable, limit) = (&view.memtable.table, view.memtable.limit_bytes);
            if memtable.bytes_used() + backlog.size_bytes() < limit {
                continue;
            }
            backlog_bytes -= backlog.size_bytes();
            backlog.insert_into(memtable);
            if memtable.bytes_used() >= limit {
                drop(view);
                tree.rotate(end, record.sequence);
            }
        }
        if backlog_bytes >= BACKLOG_BYTES_MAX {
            insert_all(trees, &mut backlogs);
            backlog_bytes = 0;
        }
        Ok(())
    };
    let begins_here = found
        .segments
        .first()
        .is_some_and(|first| first.0 == state.log_segment_min);
    let (segments, headless) = found
        .segments
        .split_at(if begins_here { found.segments.len() } else { 0 });
    let outcome = replay(fs, dir, segments, policy, &mut visit)?;
    insert_all(trees, &mut backlogs);
    report.records = outcome.records;
    report.segments = found.segments.len();
    let synced = record_last.partition_point(|(record, _)| *record <= outcome.synced);
    let durable_in_log = synced.checked_sub(1).map_or(SeqNo::ZERO, |at| record_last[at].1);
    report.durable = durable_in_log.max(state.last_seqno);
    report.recovered = last;
    note_tail(&mut found.report, &outcome.tail);
    // Without the segment that the log begins with, nothing was ever synced in those behind it.
    let mut dropped: Vec<PathBuf> = headless
        .iter()
        .map(|segment| segment_path(dir, *segment))
        .collect();
    let mut sealed = Vec::new();
    let durable = outcome.closed && outcome.synced.next() == outcome.next_sequence;
    for segment in &outcome.segments {
        let path = segment_path(dir, segment.id);
        if segment.state == SegmentState::Live {
            // Before the new manifest says how far the seqnos have come, and before the log goes on.
            if !durable {
                fs.sync_file(&path)?;
            }
            let last = segment_last
                .iter()
                .find(|(id, _)| *id == segment.id)
                .map_or(SeqNo::ZERO, |(_, last)| *last);
            sealed.push(SealedSegment {
                id: segment.id,
                last,
                bytes: segment.file_bytes,
            });
        } else {
            dropped.push(path);
        }
    }
    Ok(Replayed {
        closed: dropped.is_empty() && (outcome.segments.is_empty() || outcome.closed),
        next_seqno: last.plus(1),
        next_record: outcome.next_sequence,
        segment_next: found.segment_next.max(outcome.next_segment),
        sealed,
        dropped,
    })
}

fn insert_all(trees: &[Arc<Tree>], backlogs: &mut [Backlog]) {
    for (tree, backlog) in trees.iter().zip(backlogs) {
        backlog.insert_into(&tree.pin().memtable.table);
    }
}

fn note_tail(report: &mut RecoveryReport, tail: &Tail) {
    match tail {
        Tail::Clean => {}
        Tail::Torn { bytes, reason, .. } | Tail::Damaged { bytes, reason, .. } => {
            report.dropped_bytes = *bytes;
            report.dropped_because = Some(reason.clone());
        }
    }
}

/// Removes the segments of which nothing was kept.
///
/// REQUIRES: the new manifest is current. It names the segment that the log begins with, so that one of the dropped
/// ones whose removal a crash undoes is not taken for it.
pub(crate) fn remove_dropped_segments(fs: &dyn Fs, dir: &Path, dropped: &[PathBuf]) -> Result<()> {
    if dropped.is_empty() {
        return Ok(());
    }
    for path in dropped {
        fs.remove(&Removable::plain(path)?)?;
    }
    fs.sync_dir(dir)
}
