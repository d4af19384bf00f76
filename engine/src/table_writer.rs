//! Turns streams of entries into finished, open tables of one level.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use siltstone_compaction::{CompactionStream, OutputSplitter, TableMeta};
use siltstone_sstable::{InternalIterator, TableBuilder, TableId, TableSummary};
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::core::{Core, closed};
use crate::options::BackgroundMode;
use crate::sliced_filter::Slice;
use crate::table_handle::TableHandle;
use crate::table_set::Opened;
use crate::tree::Tree;

/// Entries between two looks at whether the job is to end early.
const ENTRIES_BETWEEN_CHECKS: u32 = 512;

/// Tables that a job writes: of which tree, for which level, and from how many entries.
pub(crate) struct TableJob<'c> {
    pub(crate) core: &'c Core,
    pub(crate) tree: &'c Tree,
    pub(crate) level: usize,
    /// With slices of the filter of level 0.
    pub(crate) sliced: bool,
    /// How many entries there are to be read.
    pub(crate) entries: u64,
}

/// What a job wrote.
pub(crate) struct Output {
    /// Added tables, open: those of each part together, and in key order.
    pub(crate) tables: Vec<Opened>,
    pub(crate) bytes: u64,
}

impl TableJob<'_> {
    /// Writes all of `parts` into tables: synced, named durably, and open. Side by side, as far as there are threads to be had, and
    /// in turn for the rest. No table has entries of two parts.
    ///
    /// # Errors
    /// What it wrote is removed again, and the other parts end early. `Closed` where the database is closing. `Corruption` where the
    /// parts had more entries, or fewer, than there were to be.
    pub(crate) fn write<I: InternalIterator + Send>(
        &self,
        parts: Vec<(CompactionStream<I>, OutputSplitter)>,
    ) -> Result<Output, Trouble> {
        let shared = Shared::default();
        let mut writers: Vec<_> = parts
            .into_iter()
            .map(|part| Writer::new(self, &shared, part))
            .collect();
        self.run(&mut writers);
        let (mut started, mut finished) = (Vec::new(), Vec::new());
        for writer in writers {
            started.extend(writer.started);
            finished.extend(writer.finished);
        }
        let outcome = match shared.trouble.into_inner() {
            Some(trouble) => Err(trouble),
            None => self
                .check_count(shared.entries.into_inner())
                .and_then(|()| self.open(finished).map_err(Trouble::Output)),
        };
        outcome.inspect_err(|_| self.core.abandon(started))
    }

    /// Runs the writers here and on a thread for each but the first, as long as such threads are no more in the whole database than
    /// there are for background work. They have the priority of this one, and are gone at the end.
    fn run<I: InternalIterator + Send>(&self, writers: &mut [Writer<'_, I>]) {
        let threads_max = match self.core.background {
            BackgroundMode::Threads => self.core.options.background_threads,
            BackgroundMode::Manual => 0,
        };
        let threads = 1..writers.len();
        let queue = Mutex::new(writers.iter_mut());
        let run = || {
            loop {
                let next = queue.lock().next();
                match next {
                    Some(writer) => writer.run(),
                    None => break,
                }
            }
        };
        std::thread::scope(|scope| {
            let spawn = |_| {
                let leave = self.core.scheduler.part_thread(threads_max)?;
                let thread = std::thread::Builder::new().name("siltstone-part".to_owned());
                let body = move || {
                    let _leave = leave;
                    run();
                };
                thread.spawn_scoped(scope, body).ok()
            };
            let threads: Vec<_> = threads.map_while(spawn).collect();
            run();
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// Nothing that was to be read may have been left out or come twice, whatever led to it.
    fn check_count(&self, read: u64) -> Result<(), Trouble> {
        if read == self.entries {
            return Ok(());
        }
        let what = format!(
            "tables for level {} were to have come from {} entries, but {read} were read",
            self.level, self.entries
        );
        Err(Trouble::Input(
            Error::new(ErrorKind::Corruption, what).with_advice(
                "nothing was changed; check the tables with sst-dump check: if they are sound, this is a bug in Siltstone",
            ),
        ))
    }

    /// Makes the names durable and opens what was written.
    fn open(&self, finished: Vec<Finished>) -> Result<Output> {
        if !finished.is_empty() {
            self.core.fs.sync_dir(&self.core.dir)?;
        }
        let bytes = finished.iter().map(|table| table.summary.size_bytes).sum();
        let mut tables = Vec::with_capacity(finished.len());
        for Finished { id, summary, slice } in finished {
            // What we wrote ourselves must open: anything else is an error of the job, not of a later read.
            let table = self.core.open_table(id).inspect_err(|_| {
                let mapped = &self.core.mapped_tables;
                mapped.fetch_sub(tables.len(), Ordering::Relaxed);
            })?;
            let meta = Arc::new(meta_of(id, summary));
            let garbage = self.core.garbage.clone();
            let handle = TableHandle::new(meta, self.core.table_path(id), Ok(table), garbage);
            tables.push(Opened { handle, slice });
        }
        Ok(Output { tables, bytes })
    }
}

/// What the writers of a job's parts have in common.
#[derive(Default)]
struct Shared {
    /// What stopped the first of them that was stopped. The others end early.
    trouble: OnceLock<Trouble>,
    /// Entries that were read by those that have come to their end.
    entries: AtomicU64,
}

struct Finished {
    id: TableId,
    summary: TableSummary,
    slice: Option<Slice>,
}

/// Writes one part.
struct Writer<'j, I> {
    job: &'j TableJob<'j>,
    shared: &'j Shared,
    /// Taken when it runs.
    part: Option<(CompactionStream<I>, OutputSplitter)>,
    /// Every file that has been created.
    started: Vec<PathBuf>,
    finished: Vec<Finished>,
    current: Option<(TableId, TableBuilder)>,
}

impl<'j, I: InternalIterator> Writer<'j, I> {
    fn new(
        job: &'j TableJob<'j>,
        shared: &'j Shared,
        part: (CompactionStream<I>, OutputSplitter),
    ) -> Writer<'j, I> {
        Writer {
            job,
            shared,
            part: Some(part),
            started: Vec::new(),
            finished: Vec::new(),
            current: None,
        }
    }

    /// Does nothing where another part has failed.
    fn run(&mut self) {
        let Some((mut stream, mut splitter)) = self.part.take() else {
            return;
        };
        if self.shared.trouble.get().is_some() {
            return;
        }
        match self.fill(&mut stream, &mut splitter) {
            Ok(()) => {
                let read = stream.counts().read;
                self.shared.entries.fetch_add(read, Ordering::Relaxed);
            }
            Err(trouble) => {
                // The first one is the cause.
                let _ = self.shared.trouble.set(trouble);
            }
        }
        // Removed files are not to be open.
        self.current = None;
    }

    fn fill(
        &mut self,
        stream: &mut CompactionStream<I>,
        splitter: &mut OutputSplitter,
    ) -> Result<(), Trouble> {
        let mut until_check = ENTRIES_BETWEEN_CHECKS;
        while let Some((key, value)) = stream.next().map_err(Trouble::Input)? {
            until_check -= 1;
            if until_check == 0 {
                until_check = ENTRIES_BETWEEN_CHECKS;
                if self.job.core.closing() {
                    return Err(closed().into());
                }
                if self.shared.trouble.get().is_some() {
                    return Ok(());
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
                none => none.insert(start(self.job, &mut self.started)?),
            };
            builder.add(key, value)?;
        }
        Ok(self.finish_current()?)
    }

    fn finish_current(&mut self) -> Result<()> {
        if let Some((id, builder)) = self.current.take() {
            let tree = self.job.tree;
            let slice = if self.job.sliced {
                let memtable_size_bytes = tree.options.load().memtable_size_bytes;
                tree.slicer.slice(memtable_size_bytes, builder.key_hashes())
            } else {
                None
            };
            let summary = builder.finish()?;
            self.finished.push(Finished { id, summary, slice });
        }
        Ok(())
    }
}

fn start(job: &TableJob<'_>, started: &mut Vec<PathBuf>) -> Result<(TableId, TableBuilder)> {
    let TableJob {
        core, tree, level, ..
    } = *job;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use siltstone_compaction::BottomCheck;
    use siltstone_sstable::{SeqNo, Tag, ValueKind, VecIterator};
    use siltstone_vfs::{Fs, ManualClock, MemFs};

    use super::*;
    use crate::{Environment, Options};

    /// What a mistake of ours in cutting a merge into parts would lose, or double, is not installed.
    #[test]
    fn tables_that_come_from_other_than_all_entries_are_not_kept() {
        let fs = MemFs::new();
        let environment = Environment {
            fs: Arc::new(fs.clone()),
            clock: Arc::new(ManualClock::new()),
            background: BackgroundMode::Manual,
        };
        let db = Options::default().open_with("db", environment).expect("opened");
        let tree = Arc::clone(&db.core().trees.load()[0]);
        let part = |keys: &[u8]| {
            let entry = |key: &u8| (vec![*key], Tag::new(SeqNo(1), ValueKind::Put), Vec::new());
            let input = VecIterator::new(Arc::new(keys.iter().map(entry).collect()));
            let stream = CompactionStream::new(input, &[], BottomCheck::never());
            (stream, OutputSplitter::new(u64::MAX, Vec::new()))
        };
        for entries in [4, 5, 6] {
            let job = TableJob {
                core: db.core(),
                tree: &tree,
                level: 0,
                sliced: false,
                entries,
            };
            let tables = || {
                let names = fs.list(Path::new("db")).expect("listed");
                names.iter().filter(|name| name.ends_with(".sst")).count()
            };
            match job.write(vec![part(b"abc"), part(b"de")]) {
                Ok(output) => {
                    assert_eq!((entries, output.tables.len(), tables()), (5, 2, 2));
                    output.tables.iter().for_each(|opened| opened.handle.retire());
                    drop(output);
                    while db.run_background_job().expect("reaped") {}
                }
                Err(Trouble::Input(error)) => {
                    assert_ne!(entries, 5);
                    assert_eq!((error.kind(), tables()), (ErrorKind::Corruption, 0));
                    assert!(error.to_string().contains("5 were read"), "{error}");
                }
                Err(trouble) => panic!("{trouble:?}"),
            }
        }
    }
}
