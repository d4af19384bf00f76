//! Background work: which jobs there are, who takes which, and that no two of them meet.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use siltstone_compaction::{InFlight, Plan, pick, scores};
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::batch::KeyspaceId;
use crate::core::Core;
use crate::options::BackgroundMode;
use crate::table_handle::TableHandle;
use crate::table_writer::Trouble;
use crate::tree::Tree;

/// A piece of background work.
pub(crate) enum Job {
    /// Preallocate the next log segment.
    PrepareLog,
    /// Turn the immutable memtables of a keyspace into tables.
    Flush(Arc<Tree>),
    /// Carry out a plan.
    Compact(Arc<Tree>, Box<Plan>),
    /// Verify index and filter, and fill the page tables, of a table that was there when the database was opened.
    Populate(Arc<TableHandle>),
}

impl Job {
    fn tree(&self) -> Option<&Arc<Tree>> {
        match self {
            Job::PrepareLog | Job::Populate(_) => None,
            Job::Flush(tree) | Job::Compact(tree, _) => Some(tree),
        }
    }
}

/// Which jobs a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The next log segment: a writer that finds none makes one itself, in milliseconds. And tables found at open, which
    /// take no longer.
    Log,
    /// What writers wait for next.
    Flush,
    Compact,
}

/// Says "look for work" to the workers of each class.
pub(crate) struct Scheduler {
    /// Set under the commit lock, so apart from what another lock guards.
    wants_log: AtomicBool,
    /// Writes of some keyspace press, and compactions may wait until they let up.
    holding_back: AtomicBool,
    /// How many callers wait until there is nothing left to do.
    settling: AtomicUsize,
    /// Threads that write parts of running jobs, beside those that took the jobs.
    part_threads: AtomicUsize,
    running: Mutex<Running>,
    log: Sender<()>,
    flush: Sender<()>,
    compact: Sender<()>,
}

#[derive(Default)]
struct Running {
    preparing_log: bool,
    populating: usize,
    /// It is too early for [`Job::PrepareLog`] and [`Job::Populate`].
    just_opened: bool,
    /// Tables that wait for [`Job::Populate`]. Weak: none of them outlives its last view for that.
    unpopulated: Vec<Weak<TableHandle>>,
    flushing: HashSet<KeyspaceId>,
    in_flight: HashMap<KeyspaceId, InFlight>,
    compactions: HashMap<KeyspaceId, usize>,
    /// Keyspaces whose compaction somebody does by hand.
    manual: HashSet<KeyspaceId>,
}

impl Running {
    fn any(&self) -> bool {
        self.preparing_log
            || self.populating > 0
            || !self.flushing.is_empty()
            || self.compactions.values().any(|count| *count > 0)
    }
}

/// The receiving ends, for the workers.
pub(crate) struct Inboxes {
    pub(crate) log: Receiver<()>,
    pub(crate) flush: Receiver<()>,
    pub(crate) compact: Receiver<()>,
}

impl Scheduler {
    pub(crate) fn new() -> (Scheduler, Inboxes) {
        // One token says "there is work"; a worker that finds some leaves a token for the next.
        let (log, log_inbox) = crossbeam_channel::bounded(1);
        let (flush, flush_inbox) = crossbeam_channel::bounded(1);
        let (compact, compact_inbox) = crossbeam_channel::bounded(1);
        let scheduler = Scheduler {
            wants_log: AtomicBool::new(false),
            holding_back: AtomicBool::new(false),
            settling: AtomicUsize::new(0),
            part_threads: AtomicUsize::new(0),
            running: Mutex::new(Running::default()),
            log,
            flush,
            compact,
        };
        (
            scheduler,
            Inboxes {
                log: log_inbox,
                flush: flush_inbox,
                compact: compact_inbox,
            },
        )
    }

    /// Asks for the page tables of these tables to be filled when there is nothing better to do, those of the first
    /// one last.
    pub(crate) fn want_populated(&self, tables: impl Iterator<Item = Weak<TableHandle>>) {
        self.running.lock().unpopulated.extend(tables);
    }

    /// As long as the database has just been opened, the tables that were found are left alone, and no log segment is made
    /// ready. It has not at first.
    pub(crate) fn set_just_opened(&self, just_opened: bool) {
        self.running.lock().just_opened = just_opened;
    }

    /// Asks for a log segment to be made ready.
    pub(crate) fn want_log_segment(&self) {
        self.wants_log.store(true, Ordering::Release);
    }

    /// Whether somebody waits until there is nothing left to do.
    pub(crate) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Relaxed) > 0
    }

    /// Whether compactions may wait for what nobody announces: that writes let up.
    pub(crate) fn is_holding_back(&self) -> bool {
        self.holding_back.load(Ordering::Relaxed)
    }

    /// Leave to start a thread that writes parts of a job, as long as there are fewer than `max`.
    pub(crate) fn part_thread(&self, max: usize) -> Option<PartThread<'_>> {
        let one_more = |count: usize| (count < max).then_some(count + 1);
        self.part_threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| PartThread(&self.part_threads))
    }

    fn wake(&self) {
        for channel in [&self.log, &self.flush, &self.compact] {
            match channel.try_send(()) {
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }
}

impl Core {
    /// Has the workers look for work.
    pub(crate) fn schedule(&self) {
        if self.background == BackgroundMode::Threads {
            self.scheduler.wake();
        }
    }

    pub(crate) fn take_job(&self, class: Class) -> Option<Job> {
        let mut running = self.scheduler.running.lock();
        // Under the lock: whoever sees no job running after a failure may rely on it.
        if self.closing() || self.failure.cause().is_some() {
            return None;
        }
        match class {
            Class::Log => self
                .take_log(&mut running)
                .or_else(|| take_unpopulated(&mut running)),
            Class::Flush => self.take_flush(&mut running),
            Class::Compact => self
                .take_compaction(&mut running)
                .or_else(|| take_unpopulated(&mut running)),
        }
    }

    fn take_log(&self, running: &mut Running) -> Option<Job> {
        // The first write of a process that is in such a hurry makes its segment itself.
        if running.just_opened
            || running.preparing_log
            || !self.scheduler.wants_log.swap(false, Ordering::AcqRel)
        {
            return None;
        }
        running.preparing_log = true;
        Some(Job::PrepareLog)
    }

    fn take_flush(&self, running: &mut Running) -> Option<Job> {
        let trees = self.trees.load();
        let waiting = |tree: &&Arc<Tree>| {
            !tree.is_dropped() && !running.flushing.contains(&tree.id) && !tree.pin().immutables.is_empty()
        };
        // The one that has waited longest holds back the log.
        let oldest = |tree: &&Arc<Tree>| tree.pin().immutables.last().and_then(|slot| slot.first_seqno());
        let tree = Arc::clone(trees.iter().filter(waiting).min_by_key(oldest)?);
        running.flushing.insert(tree.id);
        Some(Job::Flush(tree))
    }

    fn take_compaction(&self, running: &mut Running) -> Option<Job> {
        let trees = self.trees.load();
        let worst = |tree: &Arc<Tree>| {
            let options = self.leveled_options(tree);
            scores(&tree.pin().tables.version, &options)
                .first()
                .map_or(0.0, |(_, score)| *score)
        };
        let mut order: Vec<_> = trees
            .iter()
            .filter(|tree| !tree.is_dropped() && !running.manual.contains(&tree.id))
            .map(|tree| (worst(tree), tree))
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.scheduler.holding_back.store(false, Ordering::Relaxed);
        for (_, tree) in order {
            let view = tree.pin();
            let in_flight = running.in_flight.entry(tree.id).or_default();
            let options = self.leveled_options(tree);
            if options.bulk_load {
                self.scheduler.holding_back.store(true, Ordering::Relaxed);
            }
            in_flight.set_oldest_snapshot(self.snapshots.oldest());
            let mut cursors = tree.cursors.lock();
            if let Some(plan) = pick(&view.tables.version, &options, in_flight, &mut cursors) {
                in_flight.start(&plan);
                *running.compactions.entry(tree.id).or_insert(0) += 1;
                return Some(Job::Compact(Arc::clone(tree), Box::new(plan)));
            }
        }
        None
    }

    /// Runs a job that was taken, and settles what its failure means. A panic is settled, too.
    pub(crate) fn run(&self, job: Job) -> Result<(), Trouble> {
        let mut settle = Settle {
            core: self,
            job: &job,
            put_aside: false,
        };
        let outcome = match &job {
            Job::PrepareLog => self.syncer.load_full().prepare().map_err(Trouble::Output),
            Job::Flush(tree) => self.flush_tree(tree).map_err(Trouble::Output),
            Job::Compact(tree, plan) => self.compact_tree(tree, plan),
            Job::Populate(handle) => {
                match handle.table() {
                    Ok(table) => {
                        crate::core::populate(table);
                        // Reads go on without a damaged filter; those that need a damaged index fail.
                        table.load().map_err(Trouble::Input)
                    }
                    Err(_) => Ok(()),
                }
            }
        };
        let interrupted = self.closing() || job.tree().is_some_and(|tree| tree.is_dropped());
        if let Err(trouble) = &outcome
            && !interrupted
        {
            self.counters.note_background_error(trouble.error());
            match trouble {
                Trouble::Output(error) => self.note_failure(error),
                Trouble::Input(_) => settle.put_aside = true,
            }
        }
        drop(settle);
        self.progress.announce();
        outcome
    }

    /// Takes one job of any class and runs it here; false where there is none.
    ///
    /// # Errors
    /// The job's own.
    pub(crate) fn run_job(&self) -> Result<bool> {
        if self.reaper.lock().step(self) {
            return Ok(true);
        }
        let Some(job) = self
            .take_job(Class::Log)
            .or_else(|| self.take_job(Class::Flush))
            .or_else(|| self.take_job(Class::Compact))
        else {
            return Ok(false);
        };
        match self.run(job) {
            // What could not be read has been put aside, and is in the metrics: no affair of whoever ran the job.
            Ok(()) | Err(Trouble::Input(_)) => Ok(true),
            Err(Trouble::Output(error)) => Err(error),
        }
    }

    /// Lets compactions whose inputs could not be read be tried once more.
    pub(crate) fn take_up_what_was_put_aside(&self) {
        let mut running = self.scheduler.running.lock();
        running
            .in_flight
            .values_mut()
            .for_each(InFlight::take_up_put_aside);
    }

    /// Whether there are compactions whose inputs could not be read.
    pub(crate) fn has_put_aside(&self) -> bool {
        let running = self.scheduler.running.lock();
        running.in_flight.values().any(InFlight::has_put_aside)
    }

    /// Whether a job is under way.
    pub(crate) fn jobs_running(&self) -> bool {
        self.scheduler.running.lock().any()
    }

    /// Whether background work is under way or waits to be.
    fn has_work(&self) -> bool {
        let mut running = self.scheduler.running.lock();
        if running.any()
            || !running.unpopulated.is_empty()
            || self.scheduler.wants_log.load(Ordering::Acquire)
        {
            return true;
        }
        if self
            .trees
            .load()
            .iter()
            .any(|tree| !tree.is_dropped() && !tree.pin().immutables.is_empty())
        {
            return true;
        }
        // Taken and put back: the one way to ask whether the picker would find something.
        match self.take_compaction(&mut running) {
            Some(Job::Compact(tree, plan)) => {
                if let Some(in_flight) = running.in_flight.get_mut(&tree.id) {
                    in_flight.finish(&plan);
                }
                if let Some(count) = running.compactions.get_mut(&tree.id) {
                    *count -= 1;
                }
                true
            }
            _ => false,
        }
    }

    /// Waits until nothing is running or due, and nothing waits to be reaped. Meanwhile each table of level 0 is due for
    /// compaction: who waits for that writes no more, and reads come next.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        self.scheduler.settling.fetch_add(1, Ordering::Relaxed);
        let _settling = Settling(&self.scheduler);
        self.schedule();
        self.wait_for("wait_idle", || !self.has_work() && !self.reap_undisturbed())?;
        // Nobody writes: what is kept for the next log segments would be kept for long.
        let log_is_begun = self.commit.lock().log.as_mut().is_some_and(|log| {
            log.ask_again();
            log.is_begun()
        });
        // Before the first record the spare is what that one goes to.
        if log_is_begun && let Err(error) = self.syncer.load().remove_spare() {
            // The next open finds that it was never begun, and removes it.
            self.counters.note_background_error(&error);
        }
        self.remove_reusable_segments();
        Ok(())
    }

    /// A step of the reaper while no worker looks for a job, so that none of them holds a view for that moment.
    fn reap_undisturbed(&self) -> bool {
        let _nobody_looks = self.scheduler.running.lock();
        // One that is at work has not finished.
        self.reaper.try_lock().is_none_or(|mut reaper| reaper.step(self))
    }

    /// Waits for `done`, doing the work here where there are no threads. Fails with the sticky error, where a job it
    /// waits for meets a full disk, or where the database closes.
    pub(crate) fn wait_for(&self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let full_before = self.space.failures();
        loop {
            let seen = self.progress.generation();
            self.check_open()?;
            if done() {
                return Ok(());
            }
            self.failure.check()?;
            if self.background == BackgroundMode::Manual {
                if !self.run_job()? && !done() {
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!("{what}: no background job is left to wait for"),
                    ));
                }
                continue;
            }
            if self.space.failures() != full_before {
                return Err(crate::space::refusal(self).context(what));
            }
            self.schedule();
            // A lost wake-up would cost one interval, not a hang.
            self.progress.wait_beyond(seen, Duration::from_millis(100));
        }
    }

    /// Takes a keyspace's compactions into one's own hands until the guard goes.
    pub(crate) fn take_over_compaction(&self, tree: &Arc<Tree>) -> Result<ManualCompaction<'_>> {
        let mut mine = false;
        self.wait_for("manual compaction", || {
            mine = mine || self.scheduler.running.lock().manual.insert(tree.id);
            mine
        })?;
        let guard = ManualCompaction {
            core: self,
            id: tree.id,
        };
        self.wait_for("manual compaction", || {
            self.scheduler
                .running
                .lock()
                .compactions
                .get(&tree.id)
                .is_none_or(|count| *count == 0)
        })?;
        Ok(guard)
    }

    /// Runs a plan made by hand.
    pub(crate) fn run_plan(
        &self,
        tree: &Arc<Tree>,
        make: impl FnOnce(&InFlight) -> Option<Plan>,
    ) -> Result<bool> {
        let plan = {
            let mut running = self.scheduler.running.lock();
            let in_flight = running.in_flight.entry(tree.id).or_default();
            in_flight.set_oldest_snapshot(self.snapshots.oldest());
            let Some(plan) = make(in_flight) else {
                return Ok(false);
            };
            in_flight.start(&plan);
            *running.compactions.entry(tree.id).or_insert(0) += 1;
            plan
        };
        self.run(Job::Compact(Arc::clone(tree), Box::new(plan)))
            .map_err(Trouble::into_error)?;
        Ok(true)
    }
}

fn take_unpopulated(running: &mut Running) -> Option<Job> {
    if running.just_opened {
        return None;
    }
    while let Some(table) = running.unpopulated.pop() {
        if let Some(table) = table.upgrade() {
            running.populating += 1;
            return Some(Job::Populate(table));
        }
    }
    None
}

/// Takes a job out of the list of running ones when it is over, however it ended.
struct Settle<'j> {
    core: &'j Core,
    job: &'j Job,
    /// What cannot be read cannot be compacted: its tables stay taken until `resume` or the next open, and reads of
    /// them say why.
    put_aside: bool,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        let mut running = self.core.scheduler.running.lock();
        match self.job {
            Job::PrepareLog => running.preparing_log = false,
            Job::Populate(_) => running.populating -= 1,
            Job::Flush(tree) => _ = running.flushing.remove(&tree.id),
            Job::Compact(tree, plan) => {
                if let Some(count) = running.compactions.get_mut(&tree.id) {
                    *count -= 1;
                }
                match running.in_flight.get_mut(&tree.id) {
                    Some(in_flight) if self.put_aside => in_flight.put_aside(Plan::clone(plan)),
                    Some(in_flight) => in_flight.finish(plan),
                    None => {}
                }
                if tree.is_dropped() {
                    running.in_flight.remove(&tree.id);
                    running.compactions.remove(&tree.id);
                }
            }
        }
    }
}

/// Somebody waits until there is nothing left to do.
struct Settling<'s>(&'s Scheduler);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.settling.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the threads that write parts of jobs, for as long as it lives.
pub(crate) struct PartThread<'s>(&'s AtomicUsize);

impl Drop for PartThread<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While it lives, nobody else compacts the keyspace.
pub(crate) struct ManualCompaction<'c> {
    core: &'c Core,
    id: KeyspaceId,
}

impl Drop for ManualCompaction<'_> {
    fn drop(&mut self) {
        self.core.scheduler.running.lock().manual.remove(&self.id);
        self.core.progress.announce();
        self.core.schedule();
    }
}

#[cfg(test)]
mod tests {
    use siltstone_vfs::{ManualClock, MemFs};

    use super::*;
    use crate::{Environment, Options};

    #[test]
    fn threads_for_parts_are_counted() {
        let (scheduler, _inboxes) = Scheduler::new();
        let first = scheduler.part_thread(2).expect("two");
        let second = scheduler.part_thread(2).expect("one more");
        assert!(scheduler.part_thread(2).is_none());
        drop(first);
        let third = scheduler.part_thread(2).expect("one has gone");
        assert!(scheduler.part_thread(2).is_none());
        drop((second, third));
        assert!(scheduler.part_thread(0).is_none());
    }

    #[test]
    fn a_log_segment_is_made_ready_once_first_reads_are_over_and_then_wait_idle_waits_for_it() {
        let environment = Environment {
            fs: Arc::new(MemFs::new()),
            clock: Arc::new(ManualClock::new()),
            background: BackgroundMode::Manual,
        };
        let db = Options::default().open_with("db", environment).expect("opened");
        let core = db.core();
        core.scheduler.set_just_opened(true);
        for class in [Class::Log, Class::Flush, Class::Compact] {
            assert!(core.take_job(class).is_none(), "{class:?}");
        }
        assert!(core.has_work());
        core.scheduler.set_just_opened(false);
        let job = core.take_job(Class::Log).expect("what was put off");
        assert!(matches!(job, Job::PrepareLog));
        core.run(job).expect("prepared");
        assert!(!core.has_work());
        assert!(core.take_job(Class::Log).is_none());
    }
}
