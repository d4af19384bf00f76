//! Commit: one order for all batches of all keyspaces.
//!
//! Under the commit lock a batch gets its seqnos and its place in the log, nothing more: a few additions and a
//! memcpy. Memtables are filled outside the lock, by many threads at once. A batch becomes visible when it and all
//! before it are in their memtables: a writer that is done says so in the ring of places, and whoever makes a batch
//! visible goes on with those behind it that are done. So a writer that is held up is waited for once, by each of those
//! behind it, and nobody is woken to hand something on. This is how Pebble's commit pipeline publishes, with seqnos
//! moved by compare-and-swap in place of its queue of batches. Whoever asked for [`Durability::Sync`](crate::Durability)
//! joins the log's group sync while the next batches form, and looks for its turn to be visible after that.

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

/// How many batches can be on their way into memtables at once: more than there are writing threads, as a rule.
const PLACES: usize = if cfg!(loom) { 2 } else { 1024 };
/// How many cache lines the places are spread over.
const LINES: usize = if cfg!(loom) { 2 } else { 256 };
/// Where threads wait for a seqno: those for different ones rarely meet.
const ROOMS: usize = if cfg!(loom) { 1 } else { 64 };

/// The commit lock, and the seqno up to which everything is visible.
pub(crate) struct Commit {
    state: Mutex<CommitState>,
    published: Published,
    places: Box<[BatchPlace]>,
    rooms: [Room; ROOMS],
}

/// How far batches are visible, and how many threads wait for that. On cache lines of its own (a pair: they are prefetched in
/// pairs), as every commit writes here.
#[repr(align(128))]
struct Published {
    visible: AtomicU64,
    waiters: AtomicUsize,
}

/// What is known of the batch that was given this place last.
struct BatchPlace {
    /// Its last seqno. Written under the commit lock.
    last: AtomicU64,
    /// That, once all of it is in its memtables; before that, that of the batch which had the place before, which is
    /// visible.
    done: AtomicU64,
}

impl BatchPlace {
    /// The place of no batch.
    fn new() -> Self {
        BatchPlace {
            last: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }
}

#[derive(Default)]
struct Room {
    lock: Mutex<()>,
    changed: Condvar,
}

/// A batch's place in the order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// How many batches there were before.
    number: usize,
    pub(crate) first: SeqNo,
    pub(crate) last: SeqNo,
}

/// What the commit lock guards: apart from the lock itself, which those who wait for it look at all the time.
#[repr(align(128))]
pub(crate) struct CommitState {
    /// `None` once the database is closed.
    pub(crate) log: Option<Log>,
    /// The seqno of the next operation.
    pub(crate) next: SeqNo,
    /// Bytes appended to the log.
    pub(crate) log_bytes: u64,
    /// The last record of the log.
    pub(crate) last_record: RecordSeq,
    /// Earlier segments, each with the last seqno that it can hold.
    pub(crate) sealed: VecDeque<SealedSegment>,
    pub(crate) places: Places,
}

/// The places that have been given out.
#[derive(Default)]
pub(crate) struct Places {
    given: usize,
    /// A seqno that is known to be visible: spares a look at what others are writing to.
    visible: SeqNo,
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
            published: Published {
                visible,
                waiters: AtomicUsize::new(0),
            },
            places: (0..PLACES).map(|_| BatchPlace::new()).collect(),
            rooms: std::array::from_fn(|_| Room::default()),
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
        SeqNo(self.published.visible.load(Ordering::Acquire))
    }

    /// Gives the next batch its seqnos. `state` is what [`Commit::lock`] gave.
    pub(crate) fn give_place(&self, state: &mut CommitState, operations: u64) -> Place {
        let (first, number) = (state.next, state.places.given);
        let place = self.place(number);
        let before = SeqNo(place.last.load(Ordering::Relaxed));
        if before > state.places.visible {
            // Under the lock: there are far more places than writers.
            self.wait_until_visible(before);
            state.places.visible = self.visible();
        }
        let last = first.plus(operations - 1);
        place.last.store(last.0, Ordering::Relaxed);
        state.places.given = number.wrapping_add(1);
        state.next = last.plus(1);
        Place { number, first, last }
    }

    /// Says that all of the batch in `place` is in its memtables. It is visible once all before it are, which
    /// [`wait_until_visible`](Commit::wait_until_visible) waits for.
    ///
    /// No batch is forgotten: its writer marks it and then looks whether the visible seqno has come up to it, to move it over
    /// it; whoever moves the visible seqno up to it then looks for the mark. In the one order that all these have, one of the
    /// two comes second. None is passed over or taken back: the visible seqno moves only from the end of one batch to the end of
    /// the next, and never has a value again.
    pub(crate) fn publish(&self, place: Place) {
        let (mut number, mut from, mut to) = (place.number, place.first.0 - 1, place.last.0);
        let visible = &self.published.visible;
        self.place(number).done.store(to, Ordering::SeqCst);
        // A look first: an exchange in vain would take the line from those who use it.
        while visible.load(Ordering::SeqCst) == from
            && visible
                .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        {
            if self.published.waiters.load(Ordering::SeqCst) > 0 {
                let room = self.room(SeqNo(to));
                // Taking the lock orders this with a waiter between its check and its wait.
                drop(room.lock.lock());
                room.changed.notify_all();
            }
            number = number.wrapping_add(1);
            from = to;
            to = self.place(number).done.load(Ordering::SeqCst);
            // What is not above is the mark of a batch of long ago. Of a batch much later it can only be if another
            // thread has moved on from here, and then this one does not.
            if to <= from {
                break;
            }
        }
    }

    /// The places of batches that follow one another are not on one cache line, for which their writers would compete.
    fn place(&self, number: usize) -> &BatchPlace {
        let at = number % PLACES;
        &self.places[at % LINES * (PLACES / LINES) + at / LINES]
    }

    fn room(&self, seqno: SeqNo) -> &Room {
        &self.rooms[usize::from(seqno.0.to_le_bytes()[0]) % ROOMS]
    }

    /// Waits until everything up to `seqno`, the last of a batch, is visible. Bounded by the memtable inserts of the
    /// writers before it, which wait for nothing but each other's moves within a node.
    pub(crate) fn wait_until_visible(&self, seqno: SeqNo) {
        for _ in 0..SPINS_MAX {
            if self.published.visible.load(Ordering::Acquire) >= seqno.0 {
                return;
            }
            spin_loop();
        }
        self.published.waiters.fetch_add(1, Ordering::SeqCst);
        let room = self.room(seqno);
        let mut waiting = room.lock.lock();
        while self.published.visible.load(Ordering::SeqCst) < seqno.0 {
            room.changed.wait(&mut waiting);
        }
        drop(waiting);
        self.published.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
