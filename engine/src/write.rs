//! The write path: admission, commit, memtables.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use siltstone_sstable::{InternalKey, SeqNo, Tag, ValueKind};
use siltstone_vfs::{BusyReason, Error, ErrorKind, Result};
use siltstone_wal::RecordSeq;

use crate::batch::{KeyspaceId, WriteBatch};
use crate::commit::{CommitState, Place, SealedSegment};
use crate::core::{Core, closed};
use crate::options::{BackgroundMode, Durability, WriteOptions};
use crate::space;
use crate::stall::{self, Demand};
use crate::tree::{Tree, ViewGuard};

thread_local! {
    /// Single puts and deletes go through one batch a thread, so that they allocate nothing.
    static SCRATCH: RefCell<WriteBatch> = RefCell::new(WriteBatch::new());
}

/// A scratch batch that grew past this gives its memory back.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// The memtables that a batch goes to. Nearly all batches touch one keyspace.
struct Targets {
    first: (KeyspaceId, ViewGuard),
    others: Vec<(KeyspaceId, ViewGuard)>,
}

impl Targets {
    #[inline]
    fn view(&self, id: KeyspaceId) -> &ViewGuard {
        if self.first.0 == id {
            return &self.first.1;
        }
        let other = self.others.iter().find(|(other, _)| *other == id);
        &other.expect("every keyspace of a batch has been resolved").1
    }

    fn views(&self) -> impl Iterator<Item = &ViewGuard> {
        std::iter::once(&self.first.1).chain(self.others.iter().map(|(_, view)| view))
    }
}

impl Core {
    /// One operation as a batch of its own.
    pub(crate) fn write_one(&self, id: KeyspaceId, kind: ValueKind, key: &[u8], value: &[u8]) -> Result<()> {
        SCRATCH.with_borrow_mut(|batch| {
            batch.push(id, kind, key, value);
            let outcome = self.write(batch, &WriteOptions::default());
            if batch.size_bytes() > SCRATCH_BYTES_MAX {
                *batch = WriteBatch::new()
            } else {
                batch.clear()
            }
            outcome
        })
    }

    /// Commits `batch`.
    pub(crate) fn write(&self, batch: &mut WriteBatch, options: &WriteOptions) -> Result<()> {
        batch.check(self.database)?;
        self.check_open()?;
        self.failure.check()?;
        let durability = options.durability.unwrap_or(self.options.durability);
        if batch.is_empty() {
            return if durability == Durability::Sync {
                self.sync()
            } else {
                Ok(())
            };
        }
        if self.space.is_full() && !batch.only_deletes() {
            self.space.check(self)?;
        }
        let limit = options.deadline.unwrap_or(self.options.stall_timeout);
        let mut patience = Patience::new(self, limit);
        self.admit(batch, &mut patience)?;

        let (place, record, targets) = self.order(batch, &mut patience)?;
        for operation in batch.operations() {
            let operation = operation.expect("a batch decodes as it was encoded");
            let key = InternalKey::new(operation.key, Tag::new(operation.seqno, operation.kind));
            let view = targets.view(operation.keyspace);
            view.memtable.table.insert(key, operation.value);
            // After the seqno was given and before it is published: see `dead_ranges`.
            if operation.kind != ValueKind::Delete && view.dead.watches() {
                view.dead.revive(operation.key);
            }
        }
        drop(targets);
        self.commit.publish(place);
        let synced = match durability {
            Durability::Sync => self.sync_to(record),
            Durability::Buffered => Ok(()),
        };
        self.commit.wait_until_visible(place.last);
        synced
    }

    /// Holds the writer up where flush and compaction ask for it.
    fn admit(&self, batch: &WriteBatch, patience: &mut Patience<'_>) -> Result<()> {
        for id in batch.keyspaces() {
            loop {
                let seen = self.progress.generation();
                let demand = self.with_tree(*id, |tree| Some(tree?.pressure.demand()));
                match demand.ok_or_else(|| no_such_keyspace(*id))? {
                    Demand::None => break,
                    Demand::Slow { bytes_per_s, reason } => {
                        patience.pace(batch.size_bytes() as u64, bytes_per_s, reason)?;
                        break;
                    }
                    Demand::Stop { reason } => patience.wait(seen, reason)?,
                }
            }
        }
        Ok(())
    }

    /// The commit lock: seqnos, the log, and the memtables that take the batch.
    fn order(
        &self,
        batch: &mut WriteBatch,
        patience: &mut Patience<'_>,
    ) -> Result<(Place, RecordSeq, Targets)> {
        let puts = !batch.only_deletes();
        loop {
            let seen = self.progress.generation();
            let mut state = self.commit.lock();
            if state.log.is_none() {
                return Err(closed());
            }
            // Again, under the lock: nothing is committed behind a failure that has been reported.
            self.failure.check()?;
            let Some(targets) = self.resolve(batch, &mut state)? else {
                drop(state);
                patience.wait(seen, BusyReason::MemtableQueue)?;
                continue;
            };
            let (place, record) = self.append(batch, &mut state)?;
            for view in targets.views() {
                view.memtable.note_commit(place.first);
                if puts {
                    view.dead.note_put(place.last);
                }
            }
            return Ok((place, record, targets));
        }
    }

    /// Pins the memtables of the batch's keyspaces, making room where they are full; `None` where that has to wait.
    fn resolve(&self, batch: &WriteBatch, state: &mut CommitState) -> Result<Option<Targets>> {
        let mut pins = batch.keyspaces().iter().map(|id| {
            self.with_tree(*id, |tree| {
                let tree = tree
                    .filter(|tree| !tree.is_dropped())
                    .ok_or_else(|| no_such_keyspace(*id))?;
                Ok(self.make_room(tree, state).map(|view| (*id, view)))
            })
        });
        let Some(first) = pins.next().expect("an empty batch is not ordered")? else {
            return Ok(None);
        };
        let others = pins.collect::<Result<Option<Vec<_>>>>()?;
        Ok(others.map(|others| Targets { first, others }))
    }

    /// A view whose active memtable takes another batch; `None` where too many wait for their flush.
    fn make_room(&self, tree: &Arc<Tree>, state: &mut CommitState) -> Option<ViewGuard> {
        let view = tree.pin();
        let memtable = &view.memtable;
        if memtable.table.bytes_used() < memtable.limit_bytes || memtable.table.is_empty() {
            return Some(view);
        }
        if view.immutables.len() + 1 >= tree.options.load().memtables_max {
            return None;
        }
        tree.rotate(state.last(), state.last_record);
        self.schedule();
        Some(tree.pin())
    }

    fn append(&self, batch: &mut WriteBatch, state: &mut CommitState) -> Result<(Place, RecordSeq)> {
        let first = state.next;
        if first.0 > SeqNo::MAX.0 - batch.len() as u64 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the 56-bit seqnos of this database are used up",
            ));
        }
        let last = state.last();
        let log = state.log.as_mut().expect("checked by the caller");
        let before = log.segment();
        let appended = log.append(&[batch.seal(first)]);
        let (after, needs_preparing) = (log.segment(), log.needs_preparing());
        let record = appended.inspect_err(|error| self.note_failure(error))?;
        state.last_record = record;
        let place = self.commit.give_place(state, batch.len() as u64);
        state.log_bytes += batch.size_bytes() as u64;
        self.counters.log_bytes.store(state.log_bytes, Ordering::Relaxed);
        if needs_preparing {
            self.scheduler.want_log_segment();
            self.schedule();
        }
        if after != before {
            // More than one where a spare was too small for the batch.
            let live = self.syncer.load().live_segments();
            let passed = live.into_iter().filter(|(id, _)| (before..after).contains(id));
            state
                .sealed
                .extend(passed.map(|(id, bytes)| SealedSegment { id, last, bytes }));
            self.bound_log(state);
        }
        Ok((place, record))
    }

    /// Where the log is past its bound, flushes the keyspaces that hold back its oldest segment.
    fn bound_log(&self, state: &mut CommitState) {
        let bytes: u64 = state.sealed.iter().map(|segment| segment.bytes).sum();
        let Some(oldest) = state.sealed.front() else {
            return;
        };
        if bytes + self.options.log_segment_bytes <= self.options.log_size_max_bytes {
            return;
        }
        for tree in self.trees.load().iter() {
            let holds_back = tree
                .pin()
                .memtable
                .first_seqno()
                .is_some_and(|first| first <= oldest.last);
            if holds_back {
                tree.rotate(state.last(), state.last_record);
            }
        }
        self.schedule();
    }
}

pub(crate) fn no_such_keyspace(id: KeyspaceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("keyspace {id} has been dropped"))
}

/// What is left of the time that a write may be held up for.
struct Patience<'c> {
    core: &'c Core,
    limit: Duration,
    start: Option<Duration>,
    full_before: u64,
}

impl<'c> Patience<'c> {
    fn new(core: &'c Core, limit: Duration) -> Self {
        Patience {
            core,
            limit,
            start: None,
            full_before: core.space.failures(),
        }
    }

    fn waited(&mut self) -> Duration {
        let now = self.core.clock.now();
        now.saturating_sub(*self.start.get_or_insert(now))
    }

    fn refusal(&self, reason: BusyReason, waited: Duration) -> Error {
        stall::refusal(reason, waited, self.core.has_put_aside())
    }

    /// Delays the writer by its share at `bytes_per_s`.
    fn pace(&mut self, bytes: u64, bytes_per_s: u64, reason: BusyReason) -> Result<()> {
        let waited = self.waited();
        let left = self.limit.saturating_sub(waited);
        let Some(delay) = self
            .core
            .pacer
            .reserve(self.core.clock.now(), bytes, bytes_per_s, left)
        else {
            return Err(self.refusal(reason, waited));
        };
        if !delay.is_zero() {
            self.core.stalls.delayed.fetch_add(1, Ordering::Relaxed);
            self.core.stalls.note(delay);
            self.core.clock.sleep(delay);
        }
        Ok(())
    }

    /// Waits until background work has announced something since `seen`; with no threads, does some of it.
    fn wait(&mut self, seen: u64, reason: BusyReason) -> Result<()> {
        let core = self.core;
        core.check_open()?;
        core.failure.check()?;
        // The flush that a delete waits for may find room in the reserve; one that has tried and failed did not.
        if core.space.failures() != self.full_before {
            return Err(space::refusal(core));
        }
        let waited = self.waited();
        if waited >= self.limit {
            return Err(self.refusal(reason, waited));
        }
        core.stalls.stopped.fetch_add(1, Ordering::Relaxed);
        if core.background == BackgroundMode::Manual {
            return if core.run_job()? {
                Ok(())
            } else {
                Err(self.refusal(reason, waited))
            };
        }
        core.schedule();
        let before = core.clock.now();
        core.progress.wait_beyond(seen, self.limit - waited);
        core.stalls.note(core.clock.now().saturating_sub(before));
        Ok(())
    }
}
