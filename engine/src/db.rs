//! The database: opening, closing, and what concerns all keyspaces at once.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use siltstone_sstable::BlockCache;
use siltstone_vfs::{DirLock, Error, ErrorKind, Fs, Removable, Result};
use siltstone_wal::{Log, LogOptions, LogSyncer, RecordSeq, SegmentId};

use crate::batch::{DEFAULT_KEYSPACE, WriteBatch};
use crate::commit::{Commit, CommitState, Places};
use crate::core::Core;
use crate::failure::Failure;
use crate::files;
use crate::jobs::{Inboxes, Scheduler};
use crate::keyspace::{DEFAULT_NAME, Keyspace};
use crate::manifest::{Edit, KeyspaceEdit, Manifest, State};
use crate::memtable::BlockPool;
use crate::metrics::{Counters, Metrics};
use crate::options::{BackgroundMode, Environment, KeyspaceOptions, Options, WriteOptions};
use crate::reaper::{Garbage, Reaper};
use crate::recovery::{self, Leftover, RecoveryReport};
use crate::snapshot::Snapshot;
use crate::snapshot_list::SnapshotList;
use crate::space::Space;
use crate::stall::{Pacer, Progress, StallCounts};
use crate::table_open::Opener;
use crate::table_set::{Opened, TableSet};
use crate::tree::Tree;
use crate::verify::{self, VerifyOptions, VerifyReport};
use crate::workers::Threads;

/// The longest name of a keyspace, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// An open database. A cheap clone, `Send + Sync`; the last clone (of it or of one of its [`Keyspace`]s) closes it.
///
/// Its own reads and writes are those of the default [`Keyspace`], which it dereferences to.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// db.put("stone", "silt")?;
/// assert_eq!(db.get("stone")?.unwrap(), "silt");
/// db.delete("stone")?;
/// assert!(db.get("stone")?.is_none());
/// db.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Db {
    default: Keyspace,
}

/// What the clones share: the core, and the threads that end with the last clone.
pub(crate) struct Handle {
    core: Arc<Core>,
    threads: Mutex<Threads>,
}

impl Handle {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stops accepting, joins the threads, and lets go of the log. Returns whether this call did it.
    fn shut_down(&self) -> (bool, Option<Log>) {
        let first = !self.core.closed.swap(true, Ordering::AcqRel);
        // Whoever waits for background work looks up and sees that there will be none.
        self.core.progress.announce();
        let panicked = self.threads.lock().join();
        if panicked {
            let error = Error::new(ErrorKind::Io, "a background thread panicked")
                .with_advice("this is a bug in Siltstone; reopen the database");
            self.core.failure.record(&error);
        }
        (first, self.core.commit.lock().log.take())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let (_, Some(log)) = self.shut_down() {
            // A log that does not say that it was closed is searched for a torn tail by the next open.
            let _ = log.close();
        }
    }
}

impl Deref for Db {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.default
    }
}

static DATABASES: AtomicU64 = AtomicU64::new(1);

impl Db {
    /// Opens the database in `dir` with default options, creating it if there is none.
    ///
    /// # Errors
    /// `Busy` where another process, or another handle in this one, has it open; `Corruption` where synced data is
    /// damaged (no live data has been changed then; leftovers may have been removed); `Unsupported` for a newer format; `NoSpace`; `Io`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Db> {
        Options::default().open(dir)
    }

    pub(crate) fn open_with(dir: &Path, options: Options, environment: Environment) -> Result<Db> {
        let Environment {
            fs,
            clock,
            background,
        } = environment;
        if options.create_if_missing {
            fs.create_dir_all(dir)?;
        }
        let lock: DirLock = fs.lock_dir(dir)?;
        let mut found = recovery::find(&*fs, dir, &lock, &options)?;
        let mut state = found
            .state
            .take()
            .unwrap_or_else(|| State::new(options.default_keyspace.clone()));
        if let Some(default) = state.keyspaces.get_mut(&DEFAULT_KEYSPACE) {
            default.options = options.default_keyspace.clone();
        }
        let (garbage, garbage_inbox) = crossbeam_channel::unbounded();
        let cache = BlockCache::new(options.block_cache_bytes);
        let opener = Opener {
            fs: &fs,
            dir,
            lock: &lock,
            cache: &cache,
            garbage: &garbage,
            options: &options,
        };
        let mapped_tables = AtomicUsize::new(0);
        let pool = Arc::new(BlockPool::new(
            options.default_keyspace.memtables_bytes_max(),
            Arc::clone(&clock),
        ));
        let trees: Vec<Arc<Tree>> = state
            .keyspaces
            .iter()
            .map(|(id, keyspace)| {
                let handles = keyspace.version.tables().map(|(_, meta)| {
                    let handle = opener.open(meta, &mapped_tables);
                    if let Some(error) = handle.damage() {
                        let path = files::table_path(dir, meta.id);
                        found.report.damaged_tables.push((path, error.clone()));
                    }
                    Opened { handle, slice: None }
                });
                let tables = TableSet::new(
                    keyspace.version.clone(),
                    &TableSet::default(),
                    handles.collect::<Vec<_>>(),
                );
                let (name, options) = (keyspace.name.clone(), keyspace.options.clone());
                Tree::new(*id, name, options, tables, Arc::clone(&pool), garbage.clone())
            })
            .collect();
        found.report.tables = trees.iter().map(|tree| tree.pin().tables.handles().count()).sum();
        let replayed = recovery::replay_log(&*fs, dir, &options, &state, &trees, &mut found)?;
        state.last_seqno = state
            .last_seqno
            .max(siltstone_sstable::SeqNo(replayed.next_seqno.0 - 1));
        let begins = replayed
            .sealed
            .first()
            .map_or(replayed.segment_next, |segment| segment.id);
        let begins_on_disk = state.log_segment_min;
        state.log_segment_min = state.log_segment_min.max(begins.0);

        let next_table = AtomicU64::new(state.next_table);
        let (old, number) = (found.manifest_number, found.manifest_number_next);
        let (segment, record) = (replayed.segment_next, replayed.next_record);
        // What the manifest on disk does not say is in the log, which begins where that manifest says.
        let unchanged = replayed.closed
            && found.manifest_compact
            && state.log_segment_min == begins_on_disk
            // Otherwise the first segment may have to be a smaller one.
            && fs.space_available(dir)? / 2 >= options.log_segment_bytes;
        let (manifest, (log, syncer)) = if unchanged {
            let log_options = LogOptions {
                segment_size_bytes: options.log_segment_bytes,
                io: options.log_io,
            };
            (
                Manifest::resume(Arc::clone(&fs), dir, number, old, state),
                Log::create_unbegun(Arc::clone(&fs), dir, segment, record, log_options)?,
            )
        } else {
            let manifest = match Manifest::create(Arc::clone(&fs), dir, number, old, state.clone()) {
                Err(error) if error.kind() == ErrorKind::NoSpace && Self::give_up_reserve(&fs, dir)? => {
                    Manifest::create(Arc::clone(&fs), dir, number + 1, old, state)?
                }
                other => other?,
            };
            (manifest, Self::begin_log(&fs, dir, &options, segment, record)?)
        };
        recovery::remove_dropped_segments(&*fs, dir, &replayed.dropped)?;
        let dropped = replayed
            .dropped
            .into_iter()
            .map(|path| (path, Leftover::DroppedSegment));
        found.report.leftovers.extend(dropped);
        let commit = Commit::new(CommitState {
            last_record: RecordSeq(replayed.next_record.0.saturating_sub(1)),
            log: Some(log),
            next: replayed.next_seqno,
            log_bytes: 0,
            sealed: replayed.sealed.into(),
            places: Places::default(),
        });
        let (scheduler, inboxes) = Scheduler::new();
        let core = Arc::new(Core {
            commit,
            closed: AtomicBool::new(false),
            trees: ArcSwap::from_pointee(trees),
            failure: Failure::default(),
            space: Space::default(),
            database: DATABASES.fetch_add(1, Ordering::Relaxed),
            dir: dir.to_owned(),
            fs,
            clock,
            background,
            options,
            syncer: ArcSwap::new(syncer),
            manifest: Mutex::new(manifest),
            next_table,
            mapped_tables,
            cache,
            pool,
            snapshots: SnapshotList::default(),
            scheduler,
            progress: Progress::default(),
            pacer: Pacer::default(),
            stalls: StallCounts::default(),
            counters: Counters::default(),
            garbage,
            reaper: Mutex::new(Reaper::new(garbage_inbox.clone())),
            doubtful: Mutex::new(Vec::new()),
            resuming: Mutex::new(()),
            report: found.report,
            lock,
        });
        core.space.take_reserve(&core)?;
        core.scheduler.want_log_segment();
        for tree in core.trees.load().iter() {
            core.scheduler
                .want_populated(tree.pin().tables.handles().map(Arc::downgrade));
        }
        Self::start(core, &inboxes, &garbage_inbox)
    }

    /// The first log segment of this open; a smaller one where the disk has no room for a whole one.
    fn begin_log(
        fs: &Arc<dyn Fs>,
        dir: &Path,
        options: &Options,
        segment: SegmentId,
        record: RecordSeq,
    ) -> Result<(Log, Arc<LogSyncer>)> {
        let begin = |segment_size_bytes: u64| {
            let log_options = LogOptions {
                segment_size_bytes,
                io: options.log_io,
            };
            // What is kept of older segments has been synced.
            Log::create_anew(Arc::clone(fs), dir, segment, record, log_options)
        };
        match begin(options.log_segment_bytes) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                // It may have been given up before, when the disk filled.
                Self::give_up_reserve(fs, dir)?;
                let half_the_reserve =
                    (options.reserve_bytes / 2).clamp(64 << 10, options.log_segment_bytes.max(64 << 10));
                // The directory's sync may have been what failed, with the segment made.
                let again = |segment_size_bytes: u64| {
                    let path = siltstone_wal::segment_path(dir, segment);
                    if fs.exists(&path)? {
                        fs.remove(&Removable::plain(&path)?)?;
                    }
                    begin(segment_size_bytes)
                };
                again(half_the_reserve.min(options.log_segment_bytes))
                    .or_else(|_| again(options.log_segment_bytes.min(16 << 10)))
            }
            other => other,
        }
    }

    /// A full disk must not keep a database shut, or nothing could be deleted. Returns whether there was a reserve.
    fn give_up_reserve(fs: &Arc<dyn Fs>, dir: &Path) -> Result<bool> {
        let reserve = dir.join(files::RESERVE);
        let there = fs.exists(&reserve)?;
        if there {
            fs.remove(&Removable::plain(&reserve)?)?;
        }
        Ok(there)
    }

    fn start(
        core: Arc<Core>,
        inboxes: &Inboxes,
        garbage: &crossbeam_channel::Receiver<Garbage>,
    ) -> Result<Db> {
        let threads = match core.background {
            BackgroundMode::Threads => Threads::start(&core, inboxes, garbage)?,
            BackgroundMode::Manual => Threads::default(),
        };
        core.schedule();
        let tree = core
            .with_tree(DEFAULT_KEYSPACE, |tree| tree.cloned())
            .expect("a state without a default keyspace is refused");
        let handle = Arc::new(Handle {
            core,
            threads: Mutex::new(threads),
        });
        Ok(Db {
            default: Keyspace::new(handle, tree),
        })
    }

    /// Commits `batch` as a whole: all of it survives a crash, or none.
    ///
    /// # Errors
    /// As [`Keyspace::put`]. Nothing has been done then, except where the log could not be synced: the batch is then
    /// visible and may survive.
    pub fn write(&self, batch: WriteBatch) -> Result<()> {
        self.write_with(batch, &WriteOptions::default())
    }

    /// Commits `batch` with a durability and a deadline of its own.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    pub fn write_with(&self, mut batch: WriteBatch, options: &WriteOptions) -> Result<()> {
        self.core().write(&mut batch, options)
    }

    /// The whole database at this moment.
    ///
    /// # Errors
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.default)
    }

    /// The keyspace called `name`, created with `options` where it does not exist. Where it does, it goes on with
    /// `options`: what is already on disk keeps its form.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty or over 255 bytes, for wrong options, and for the default keyspace,
    /// whose options are those of the database; `Io`, `NoSpace`, `Poisoned`, `Closed`.
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        if name == DEFAULT_NAME {
            return Err(Error::invalid(
                "the default keyspace has the options of the database: use Db's own methods",
            ));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a keyspace's name has 1 to {NAME_BYTES_MAX} bytes, this one has {}",
                name.len()
            )));
        }
        options.validate()?;
        let core = self.core();
        core.check_open()?;
        core.failure.check()?;
        let mut manifest = core.manifest.lock();
        let existing = core
            .trees
            .load()
            .iter()
            .find(|tree| tree.name == name && !tree.is_dropped())
            .cloned();
        if let Some(tree) = existing {
            if **tree.options.load() != options {
                let change = KeyspaceEdit {
                    id: tree.id,
                    flushed: None,
                    options: Some(options.clone()),
                    version: siltstone_compaction::VersionEdit::default(),
                };
                let edit = Edit {
                    keyspaces: vec![change],
                    ..Edit::default()
                };
                manifest
                    .commit(&edit)
                    .inspect_err(|error| core.note_failure(error))?;
                tree.options.store(Arc::new(options));
                tree.refresh_pressure();
                core.progress.announce();
                core.schedule();
            }
            return Ok(Keyspace::new(Arc::clone(self.handle()), tree));
        }
        let id = manifest.state().next_keyspace;
        let edit = Edit {
            created: vec![(id, name.to_owned(), options.clone())],
            ..Edit::default()
        };
        manifest
            .commit(&edit)
            .inspect_err(|error| core.note_failure(error))?;
        let tree = Tree::new(
            id,
            name.to_owned(),
            options,
            TableSet::default(),
            Arc::clone(&core.pool),
            core.garbage.clone(),
        );
        let mut trees = Vec::clone(&core.trees.load());
        trees.push(Arc::clone(&tree));
        core.trees.store(Arc::new(trees));
        Ok(Keyspace::new(Arc::clone(self.handle()), tree))
    }

    /// The names of all keyspaces, the default one first, the others in the order they were created.
    pub fn keyspaces(&self) -> Vec<String> {
        self.core()
            .trees
            .load()
            .iter()
            .map(|tree| tree.name.clone())
            .collect()
    }

    /// Drops the keyspace called `name` with all its data. Its files go through the reaper as soon as nobody reads
    /// them any more. Handles to it answer `NotFound` from now on.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for the default keyspace; `Io`, `NoSpace`, `Poisoned`, `Closed`.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let core = self.core();
        core.check_open()?;
        core.failure.check()?;
        if name == DEFAULT_NAME {
            return Err(
                Error::invalid("the default keyspace cannot be dropped").with_advice("delete its keys")
            );
        }
        let mut manifest = core.manifest.lock();
        let tree = core.trees.load().iter().find(|tree| tree.name == name).cloned();
        let tree =
            tree.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no keyspace {name}")))?;
        let edit = Edit {
            dropped: vec![tree.id],
            ..Edit::default()
        };
        manifest
            .commit(&edit)
            .inspect_err(|error| core.note_failure(error))?;
        tree.mark_dropped();
        let trees = core
            .trees
            .load()
            .iter()
            .filter(|other| other.id != tree.id)
            .cloned()
            .collect();
        core.trees.store(Arc::new(trees));
        tree.discard();
        drop(manifest);
        core.schedule();
        core.progress.announce();
        Ok(())
    }

    /// Makes tables of what is in the memtables of all keyspaces, and waits for it.
    ///
    /// # Errors
    /// As [`Keyspace::flush`].
    pub fn flush_all(&self) -> Result<()> {
        self.core().flush_now(&self.core().trees.load_full())
    }

    /// Makes everything committed so far survive power loss.
    ///
    /// # Errors
    /// `Io` where the log cannot be synced: writes are then refused until [`resume`](Db::resume) or reopening.
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// Waits until no flush or compaction is running or due, and obsolete files that nobody holds are gone. Until then
    /// level 0 is compacted, too, however few tables it has: call it where writes pause and reads follow, as at the end of
    /// a load. It waits, too, until the tables that an open has found are verified and in the page tables and a log segment has been
    /// made ready, which begins 3 ms after the open. Memtables are not flushed; [`flush_all`](Db::flush_all) does that. Log
    /// segments that were made or kept for later are removed, so that the next write that fills a segment makes one.
    ///
    /// # Errors
    /// The sticky write error; `NoSpace`; `Closed`.
    pub fn wait_idle(&self) -> Result<()> {
        self.core().wait_until_idle()
    }

    /// Runs one background job on this thread, whatever is due first; false where nothing is. With
    /// [`BackgroundMode::Manual`] this is how flushes, compactions and the removal of files happen; with threads it
    /// only helps them.
    ///
    /// # Errors
    /// The job's own.
    pub fn run_background_job(&self) -> Result<bool> {
        self.core().check_open()?;
        self.core().run_job()
    }

    /// Takes writes up again after a failed one: begins a new log and a new manifest, and makes tables of all that
    /// is in memory, so that nothing rests on files whose state is unknown. Compactions that could not read their
    /// tables, which were put aside, are tried once more. Does nothing where nothing has failed.
    ///
    /// # Errors
    /// What it met; writes stay refused then, and it may be called again.
    pub fn resume(&self) -> Result<()> {
        self.core().resume()
    }

    /// Reads everything and checks it: every block of every table, the order of keys, the levels, the manifest.
    ///
    /// # Errors
    /// `Closed`. Damage is no error here; it is what the report lists.
    pub fn verify(&self, options: &VerifyOptions) -> Result<VerifyReport> {
        verify::verify(self.core(), options)
    }

    /// The state of the database, and what it has done since it was opened.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(self.core())
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.core().report
    }

    /// Closes the database: waits for running background jobs to stop, syncs the log, and reports what failed.
    /// Memtables are not flushed; the log has them. Where they are empty no log is left, and the next open reads none.
    /// All other clones, snapshots and cursors answer `Closed` from now
    /// on; the directory stays locked until they are dropped.
    ///
    /// # Errors
    /// The sticky write error; `Io` where the log could not be synced; `Closed` where it had been closed before.
    pub fn close(self) -> Result<()> {
        let handle = self.handle();
        let core = handle.core();
        let record = core.commit.lock().last_record;
        let (first, log) = handle.shut_down();
        if !first {
            return Err(crate::core::closed());
        }
        core.failure.check()?;
        let Some(log) = log else { return Ok(()) };
        // A batch that was on its way in when the doors closed is no less committed.
        let record = record.max(RecordSeq(log.next_sequence().0.saturating_sub(1)));
        core.syncer
            .load_full()
            .sync_to(record)
            .map_err(|error| error.context("the log could not be synced"))?;
        core.leave_log(log)
    }
}
