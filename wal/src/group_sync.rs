//! Group commit: one sync serves everyone who waited for it.
//!
//! A caller who needs record `n` durable joins the group that is *gathering*; where there is none, it begins one and is
//! that group's *leader*. The leader waits until no other leads, closes its group, and runs one sync, which covers
//! whatever has been appended by then; whoever comes meanwhile, and needs a later record, is in the next group. So at
//! most one sync runs at a time, and each caller waits for at most the running one and the next one.
//!
//! What that costs is mostly switches between threads, so there are as few as can be. All of a group wait for one
//! word, and are woken by one call (`OnceLock` does that where there are futexes). The next leader is woken after them,
//! and before it closes its group it yields the processor to those who are ready to run: they are about to append and
//! would otherwise have to wait for the sync after this one. Where yielding turns out to take long for the few who
//! come, because the machine has other work to do, it is left off for a while ([`Manners`]). RocksDB's writers yield
//! with the same caution before they sleep.
//!
//! A failed sync is never retried: the error becomes the [`FirstError`], fails its group, the one that gathers, and
//! everyone after them. Whoever asks for a record that was durable before that is still told so.

use std::mem;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::first_error::FirstError;
use manners::{Manners, timed_yield};

mod manners;

/// The meeting point of everyone who waits for a sync.
#[derive(Debug)]
pub(crate) struct GroupSync {
    /// Every record up to this one is durable. Only grows.
    synced: AtomicU64,
    groups: Mutex<Groups>,
    manners: Manners,
}

/// Its lock is held for a few moves only, never over a sync or a wake-up.
#[derive(Debug, Default)]
struct Groups {
    /// Somebody leads: a sync runs, or its leader has been chosen and is about to start it.
    led: bool,
    /// Those whom the next sync will cover.
    gathering: Option<Arc<Group>>,
    /// Those whom the running sync covers, and the last record that it does.
    syncing: Option<(u64, Arc<Group>)>,
}

/// Those whom one sync makes durable.
#[derive(Debug)]
struct Group {
    /// How many there are, the leader included. Grows under the lock.
    members: AtomicU32,
    /// Set when no other group is led any more: what this one's leader waits for.
    lead: OnceLock<()>,
    /// What the others wait for.
    outcome: OnceLock<Result<()>>,
}

impl Group {
    fn led_by_one() -> Self {
        Self {
            members: AtomicU32::new(1),
            lead: OnceLock::new(),
            outcome: OnceLock::new(),
        }
    }

    fn members(&self) -> u32 {
        self.members.load(Ordering::Relaxed)
    }
}

/// What becomes of a thread that asks for a sync.
enum Turn {
    Durable,
    Follow(Arc<Group>),
    /// Begins a group, and leads it at once or when that is handed on.
    Lead {
        group: Arc<Group>,
        at_once: bool,
    },
}

impl GroupSync {
    /// For a log whose records up to `synced` are durable.
    pub(crate) fn new(synced: u64) -> Self {
        Self {
            synced: AtomicU64::new(synced),
            groups: Mutex::default(),
            manners: Manners::default(),
        }
    }

    /// Every record up to this one is durable.
    pub(crate) fn synced(&self) -> u64 {
        // Acquire pairs with the Release in `settle`.
        self.synced.load(Ordering::Acquire)
    }

    /// Returns when `sequence` is durable. `appended` says which record is the last one appended; `sync`, called after
    /// it, makes everything up to there durable.
    ///
    /// REQUIRES: `sequence` was appended before this call, so that `appended` is at least that from now on.
    pub(crate) fn sync_to(
        &self,
        sequence: u64,
        first_error: &FirstError,
        appended: impl FnOnce() -> u64,
        sync: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.synced() >= sequence {
            return Ok(());
        }
        match self.join(sequence, first_error)? {
            Turn::Durable => Ok(()),
            Turn::Follow(group) => group.outcome.wait().clone(),
            Turn::Lead { group, at_once } => {
                if !at_once {
                    group.lead.wait();
                }
                self.lead(&group, first_error, appended, sync)
            }
        }
    }

    /// A place in a group. Excludes the moves of a leader by the lock: whoever joins a group before it is closed is
    /// covered by its sync, and whoever comes after the end of a sync finds what it left.
    fn join(&self, sequence: u64, first_error: &FirstError) -> Result<Turn> {
        let mut groups = self.groups.lock();
        if self.synced() >= sequence {
            return Ok(Turn::Durable);
        }
        first_error.check()?;
        // Appended before the running sync began, by a thread that has been held up since.
        let covered = groups
            .syncing
            .as_ref()
            .filter(|(covers, _)| sequence <= *covers)
            .map(|(_, group)| group);
        if let Some(group) = covered.or(groups.gathering.as_ref()) {
            group.members.fetch_add(1, Ordering::Relaxed);
            return Ok(Turn::Follow(Arc::clone(group)));
        }
        let group = Arc::new(Group::led_by_one());
        groups.gathering = Some(Arc::clone(&group));
        let at_once = !mem::replace(&mut groups.led, true);
        Ok(Turn::Lead { group, at_once })
    }

    fn lead(
        &self,
        group: &Arc<Group>,
        first_error: &FirstError,
        appended: impl FnOnce() -> u64,
        sync: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let lead = Lead {
            sync: self,
            group,
            first_error,
        };
        self.manners.let_others_come(|| group.members(), timed_yield);
        let covers = self.close(group, appended);
        // An append may have failed since the group was begun: nothing is synced after the first error.
        let outcome = first_error.check().and_then(|()| sync());
        mem::forget(lead);
        self.settle(group, first_error, outcome.map(|()| covers))
    }

    /// Nobody joins the group any more but those whom its sync covers anyway: says up to where it does.
    fn close(&self, group: &Arc<Group>, appended: impl FnOnce() -> u64) -> u64 {
        let mut groups = self.groups.lock();
        groups.gathering = None;
        // After the last of them has joined, so that this is at least what each of them needs.
        let covers = appended();
        groups.syncing = Some((covers, Arc::clone(group)));
        covers
    }

    /// Ends the lead: publishes what is durable now, wakes everyone who is done, and hands the lead on.
    fn settle(&self, group: &Group, first_error: &FirstError, outcome: Result<u64>) -> Result<()> {
        let outcome = outcome.map_err(|error| first_error.set(error));
        let next = {
            let mut groups = self.groups.lock();
            if let Ok(synced) = outcome {
                self.synced.fetch_max(synced, Ordering::Release);
            }
            groups.syncing = None;
            groups.led = groups.gathering.is_some();
            let waiting = groups.gathering.as_ref().map_or(0, |next| next.members());
            self.manners.remember(group.members() + waiting);
            groups.gathering.clone()
        };
        let outcome = outcome.map(|_| ());
        // Each is set once, by the one leader of its group and by the one before it.
        let _ = group.outcome.set(outcome.clone());
        if let Some(next) = next {
            let _ = next.lead.set(());
        }
        outcome
    }
}

/// Held while leading, so that a panic in a sync fails the group instead of leaving it asleep.
struct Lead<'a> {
    sync: &'a GroupSync,
    group: &'a Group,
    first_error: &'a FirstError,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "The thread that synced the log panicked");
        // The panic goes on; the error is remembered.
        let _ = self.sync.settle(self.group, self.first_error, Err(error));
    }
}

#[cfg(test)]
mod tests;
