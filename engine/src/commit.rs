//! Commit: one order for all batches of all keyspaces.
//!
//! Under the commit lock a batch gets its seqnos and its place in the log, nothing more: a few additions and a
//! memcpy. Memtables are filled outside the lock, by many threads at once. A batch becomes visible when all before
//! it are: its writer waits for its predecessor's seqno to be published, then publishes its own. Whoever asked for
//! [`Durability::Sync`](crate::Durability) then joins the log's group sync while the next batches form.

use std::collections::VecDeque;

use siltstone_sstable::SeqNo;
use siltstone_wal::{Log, RecordSeq, SegmentId};

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, spin_loop};

#[cfg(all(test, loom))]
mod model;

/// How often a writer looks for the lock, or for its predecessor, before it parks. What it waits for takes a fraction of
/// a microsecond; to park and be woken takes several. It does not yield in between: on a busy machine that gives away a
/// time slice.
const SPINS_MAX: u32 = if cfg!(loom) { 1 } else { 200 };

/// The commit lock, and the seqno up to which everything is visible.
pub(crate) struct Commit {
    state: Mutex<CommitState>,
    visible: AtomicU64,
    waiters: AtomicUsize,
    turn: Mutex<()>,
    turn_changed: Condvar,
}

/// What the commit lock guards.
pub(crate) struct CommitState {
    /// `None` once the database is closed.
    pub(crate) log: Option<Log>,
    /// The seqno of the next operation.
    pub(crate) next: SeqNo,
    /// The last record of the log.
    pub(crate) last_record: RecordSeq,
    /// Earlier segments, each with the last seqno that it can hold.
    pub(crate) sealed: VecDeque<SealedSegment>,
}

/// A segment that is no longer written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedSegment {
    pub(crate) id: SegmentId,
    pub(crate) last: SeqNo,
    pub(crate) bytes: u64,
}

impl CommitState {
    /// The last seqno given out.
    pub(crate) fn last(&self) -> SeqNo {
        SeqNo(self.next.0 - 1)
    }
}

impl Commit {
    pub(crate) fn new(state: CommitState) -> Commit {
        let visible = AtomicU64::new(state.last().0);
        Commit {
            state: Mutex::new(state),
            visible,
            waiters: AtomicUsize::new(0),
            turn: Mutex::new(()),
            turn_changed: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CommitState> {
        for _ in 0..SPINS_MAX {
            if !self.state.is_locked()
                && let Some(state) = self.state.try_lock()
            {
                return state;
            }
            spin_loop();
        }
        self.state.lock()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, CommitState>> {
        self.state.try_lock()
    }

    /// The last seqno that reads may see: every operation up to it is in its memtable.
    #[inline]
    pub(crate) fn visible(&self) -> SeqNo {
        SeqNo(self.visible.load(Ordering::Acquire))
    }

    /// Makes the operations from `first` to `last` visible, after all before them.
    pub(crate) fn publish(&self, first: SeqNo, last: SeqNo) {
        self.wait_until_visible(SeqNo(first.0 - 1));
        self.visible.store(last.0, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this with a waiter between its check and its wait.
            drop(self.turn.lock());
            self.turn_changed.notify_all();
        }
    }

    /// Waits until everything up to `seqno` is visible. Bounded by the memtable inserts of the writers before it,
    /// which wait for nothing but each other's moves within a node.
    pub(crate) fn wait_until_visible(&self, seqno: SeqNo) {
        for _ in 0..SPINS_MAX {
            if self.visible.load(Ordering::Acquire) >= seqno.0 {
                return;
            }
            spin_loop();
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut turn = self.turn.lock();
        while self.visible.load(Ordering::SeqCst) < seqno.0 {
            self.turn_changed.wait(&mut turn);
        }
        drop(turn);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
