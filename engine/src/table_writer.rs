//! Turns a stream of entries into finished, open tables of one level.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone_compaction::{CompactionStream, OutputSplitter, TableMeta};
use siltstone_sstable::{InternalIterator, TableBuilder, TableId, TableSummary};
use siltstone_vfs::{Error, Result};

use crate::core::{Core, closed};
use crate::sliced_filter::Slice;
use crate::table_handle::TableHandle;
use crate::table_set::Opened;
use crate::tree::Tree;

/// Entries between two looks at whether the database is closing.
const ENTRIES_BETWEEN_CHECKS: u32 = 512;

/// What a job wrote.
pub(crate) struct Output {
    /// Added tables, open, in key order.
    pub(crate) tables: Vec<Opened>,
    pub(crate) bytes: u64,
}

/// Writes all of `stream` into tables for `level` of `tree`: synced, named durably, and open. `sliced`: with slices of the filter of
/// level 0.
///
/// # Errors
/// What it wrote is removed again. `Closed` where the database is closing.
pub(crate) fn write_tables<I: InternalIterator>(
    core: &Core,
    tree: &Tree,
    level: usize,
    mut stream: CompactionStream<I>,
    mut splitter: OutputSplitter,
    sliced: bool,
) -> Result<Output, Trouble> {
    let mut writer = Writer {
        core,
        tree,
        level,
        sliced,
        started: Vec::new(),
        finished: Vec::new(),
        current: None,
    };
    let outcome = match writer.fill(&mut stream, &mut splitter) {
        Ok(()) => writer.open().map_err(Trouble::Output),
        Err(trouble) => Err(trouble),
    };
    outcome.inspect_err(|_| {
        let Writer { started, current, .. } = writer;
        drop(current);
        core.abandon(started);
    })
}

struct Writer<'c> {
    core: &'c Core,
    tree: &'c Tree,
    level: usize,
    sliced: bool,
    /// Every file that has been created.
    started: Vec<PathBuf>,
    finished: Vec<(TableId, TableSummary, Option<Slice>)>,
    current: Option<(TableId, TableBuilder)>,
}

impl Writer<'_> {
    fn fill<I: InternalIterator>(
        &mut self,
        stream: &mut CompactionStream<I>,
        splitter: &mut OutputSplitter,
    ) -> Result<(), Trouble> {
        let mut until_check = ENTRIES_BETWEEN_CHECKS;
        while let Some((key, value)) = stream.next().map_err(Trouble::Input)? {
            until_check -= 1;
            if until_check == 0 {
                until_check = ENTRIES_BETWEEN_CHECKS;
                if self.core.closing() {
                    return Err(closed().into());
                }
            }
            let size_bytes = self
                .current
                .as_ref()
                .map_or(0, |(_, builder)| builder.size_bytes());
            // The splitter sees every entry; without a table there is nothing to cut.
            if splitter.should_cut_before(key.user_key, size_bytes) {
                self.finish_current()?;
            }
            let (_, builder) = match &mut self.current {
                Some(current) => current,
                none => none.insert(start(self.core, self.tree, self.level, &mut self.started)?),
            };
            builder.add(key, value)?;
        }
        Ok(self.finish_current()?)
    }

    fn finish_current(&mut self) -> Result<()> {
        if let Some((id, builder)) = self.current.take() {
            let slice = if self.sliced {
                let memtable_size_bytes = self.tree.options.load().memtable_size_bytes;
                self.tree.slicer.slice(memtable_size_bytes, builder.key_hashes())
            } else {
                None
            };
            self.finished.push((id, builder.finish()?, slice));
        }
        Ok(())
    }

    /// Makes the names durable and opens what was written.
    fn open(&mut self) -> Result<Output> {
        if !self.finished.is_empty() {
            self.core.fs.sync_dir(&self.core.dir)?;
        }
        let bytes = self
            .finished
            .iter()
            .map(|(_, summary, _)| summary.size_bytes)
            .sum();
        let tables = self
            .finished
            .drain(..)
            .map(|(id, summary, slice)| {
                // What we wrote ourselves must open: anything else is an error of the job, not of a later read.
                let table = self.core.open_table(id)?;
                let meta = Arc::new(meta_of(id, summary));
                let garbage = self.core.garbage.clone();
                let handle = TableHandle::new(meta, self.core.table_path(id), Ok(table), garbage);
                Ok(Opened { handle, slice })
            })
            .collect::<Result<_>>()?;
        Ok(Output { tables, bytes })
    }
}

fn start(
    core: &Core,
    tree: &Tree,
    level: usize,
    started: &mut Vec<PathBuf>,
) -> Result<(TableId, TableBuilder)> {
    let id = core.new_table_id();
    let path = core.table_path(id);
    let file = core.fs.create(&path)?;
    started.push(path.clone());
    Ok((
        id,
        TableBuilder::new(file, &path, tree.options.load().table_options(level)).with_id(id),
    ))
}

pub(crate) fn meta_of(id: TableId, summary: TableSummary) -> TableMeta {
    TableMeta {
        id,
        size_bytes: summary.size_bytes,
        entries: summary.entries,
        tombstones: summary.tombstones,
        smallest: summary.smallest_key.into_boxed_slice(),
        largest: summary.largest_key.into_boxed_slice(),
        seqno_min: summary.seqno_min,
        seqno_max: summary.seqno_max,
    }
}

/// What stopped a job.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// What it had to read. Its tables are put aside; the rest of the database goes on.
    Input(Error),
    /// What it had to write.
    Output(Error),
}

impl Trouble {
    pub(crate) fn error(&self) -> &Error {
        let (Trouble::Input(error) | Trouble::Output(error)) = self;
        error
    }

    pub(crate) fn into_error(self) -> Error {
        let (Trouble::Input(error) | Trouble::Output(error)) = self;
        error
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Output(error)
    }
}
