//! Group commit: one sync serves everyone who waited for it.
//!
//! A caller who needs record `n` durable becomes the *leader* if no sync is running, and queues otherwise. The leader
//! runs one sync, which covers whatever had been appended when it began, and then settles the queue: everyone it
//! covered is done; of the others, who arrived with records appended while it ran, the first becomes the next leader
//! and its sync covers them all. So at most one sync runs at a time, each waiter waits for at most the running one and
//! the next one, and each wake-up is meant for exactly one thread: nobody wakes to find nothing to do, and nobody
//! races for the lead.
//!
//! The queue's lock is held for list operations only, never over a sync or a wake-up. The lead is handed over before
//! the others are woken, so that the next sync starts while they still wake up.
//!
//! A failed sync is never retried: the error becomes the [`FirstError`], fails everyone in the queue and everyone
//! after them. Whoever asks for a record that was durable before that is still told so.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::first_error::FirstError;

/// The meeting point of everyone who waits for a sync.
#[derive(Debug)]
pub(crate) struct GroupSync {
    /// Every record up to this one is durable. Only grows.
    synced: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Somebody leads: a sync runs, or its leader has been chosen and is about to start it.
    led: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

impl GroupSync {
    /// A group for a log whose records up to `synced` are durable.
    pub(crate) fn new(synced: u64) -> Self {
        Self {
            synced: AtomicU64::new(synced),
            queue: Mutex::default(),
        }
    }

    /// Every record up to this one is durable.
    pub(crate) fn synced(&self) -> u64 {
        // Acquire pairs with the Release in `settle`.
        self.synced.load(Ordering::Acquire)
    }

    /// Returns when `sequence` is durable. `sync` makes durable everything that is appended when it is called, and
    /// says up to where that is.
    ///
    /// REQUIRES: `sequence` was appended before this call, so that any `sync` begun from now on covers it.
    pub(crate) fn sync_to(
        &self,
        sequence: u64,
        first_error: &FirstError,
        sync: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        if self.synced() >= sequence {
            return Ok(());
        }
        let verdict = match self.join(sequence, first_error)? {
            Turn::Now(verdict) => verdict,
            Turn::Queued(waiter) => waiter.wait(),
        };
        match verdict {
            Verdict::Durable => Ok(()),
            Verdict::Failed(error) => Err(error),
            Verdict::Lead => self.lead(sequence, first_error, sync),
        }
    }

    /// A place in the queue, or the lead where nobody has it. Excludes the end of the running sync (`settle`) by the
    /// lock: whoever queues before it is seen by it, and whoever comes after it finds what it left.
    fn join(&self, sequence: u64, first_error: &FirstError) -> Result<Turn> {
        let mut queue = self.queue.lock();
        if self.synced() >= sequence {
            return Ok(Turn::Now(Verdict::Durable));
        }
        first_error.check()?;
        if !queue.led {
            queue.led = true;
            return Ok(Turn::Now(Verdict::Lead));
        }
        let waiter = Arc::new(Waiter::new(sequence));
        queue.waiting.push_back(Arc::clone(&waiter));
        Ok(Turn::Queued(waiter))
    }

    fn lead(
        &self,
        sequence: u64,
        first_error: &FirstError,
        sync: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        let lead = Lead {
            group: self,
            first_error,
        };
        // An append may have failed since the lead was handed over: nothing is synced after the first error.
        let outcome = first_error.check().and_then(|()| sync());
        mem::forget(lead);
        let outcome = self.settle(first_error, outcome);
        if self.synced() >= sequence {
            Ok(())
        } else {
            outcome
        }
    }

    /// Ends the lead: publishes what is durable now, hands the lead on, and wakes everyone who is done.
    fn settle(&self, first_error: &FirstError, outcome: Result<u64>) -> Result<()> {
        let mut queue = self.queue.lock();
        let outcome = match outcome {
            Ok(synced) => {
                self.synced.fetch_max(synced, Ordering::Release);
                Ok(())
            }
            Err(error) => Err(first_error.set(error)),
        };
        let synced = self.synced();
        let (done, mut later): (VecDeque<_>, VecDeque<_>) = mem::take(&mut queue.waiting)
            .into_iter()
            .partition(|waiter| waiter.sequence <= synced);
        let mut failed = VecDeque::new();
        let mut next = None;
        match &outcome {
            Ok(()) => next = later.pop_front(),
            Err(_) => failed = mem::take(&mut later),
        }
        queue.led = next.is_some();
        queue.waiting = later;
        drop(queue);

        if let Some(next) = next {
            next.decide(Verdict::Lead);
        }
        for waiter in done {
            waiter.decide(Verdict::Durable);
        }
        if let Err(error) = &outcome {
            for waiter in failed {
                waiter.decide(Verdict::Failed(error.clone()));
            }
        }
        outcome
    }
}

/// Held while leading, so that a panic in a sync fails the waiters instead of leaving them asleep.
struct Lead<'a> {
    group: &'a GroupSync,
    first_error: &'a FirstError,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "The thread that synced the log panicked");
        // The panic goes on; the error is remembered.
        let _ = self.group.settle(self.first_error, Err(error));
    }
}

/// What becomes of a thread that asks for a sync.
enum Turn {
    Now(Verdict),
    Queued(Arc<Waiter>),
}

/// One thread in the queue.
#[derive(Debug)]
struct Waiter {
    sequence: u64,
    verdict: Mutex<Option<Verdict>>,
    decided: Condvar,
}

#[derive(Debug)]
enum Verdict {
    Durable,
    Failed(Error),
    Lead,
}

impl Waiter {
    fn new(sequence: u64) -> Self {
        Self {
            sequence,
            verdict: Mutex::new(None),
            decided: Condvar::new(),
        }
    }

    fn wait(&self) -> Verdict {
        let mut verdict = self.verdict.lock();
        loop {
            match verdict.take() {
                Some(verdict) => return verdict,
                None => self.decided.wait(&mut verdict),
            }
        }
    }

    fn decide(&self, verdict: Verdict) {
        *self.verdict.lock() = Some(verdict);
        self.decided.notify_one();
    }
}

#[cfg(test)]
mod tests;
