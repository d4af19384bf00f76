//! The work: suites take turns by their weights until the time is over, a thread each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use siltstone_tests::{Seeds, panic_message};

use crate::suites::{Counts, Suite};

/// Until a suite has gone through all parts of one seed it gets so many times its share.
const UNTIL_COMPLETE: f64 = 3.0;

/// Suites at work.
pub(crate) struct Run {
    first_seed: u64,
    stop: Arc<AtomicBool>,
    lanes: Mutex<Vec<Lane>>,
}

/// One suite's progress.
pub(crate) struct Lane {
    pub(crate) suite: &'static Suite,
    /// Processor time, as far as threads keep their processors.
    pub(crate) spent: Duration,
    /// Parts that have been handed out.
    next: u64,
    /// Parts done, by seed; a seed whose parts are all done is counted in `complete` and leaves.
    open: BTreeMap<u64, u64>,
    /// Seeds of which every part was done.
    pub(crate) complete: u64,
    pub(crate) counts: Counts,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) first_seed: u64,
    pub(crate) threads: usize,
    pub(crate) elapsed: Duration,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) failure: Option<String>,
}

impl Lane {
    /// The seeds that were begun.
    pub(crate) fn seeds(&self) -> u64 {
        self.next.div_ceil(self.suite.parts)
    }

    fn urgency(&self) -> f64 {
        let haste = if self.complete == 0 { UNTIL_COMPLETE } else { 1.0 };
        self.spent.as_secs_f64() / (self.suite.weight * haste)
    }
}

impl Run {
    pub(crate) fn new(suites: Vec<&'static Suite>, seed: Option<u64>) -> Self {
        let lanes = suites.into_iter().map(|suite| Lane {
            suite,
            spent: Duration::ZERO,
            next: 0,
            open: BTreeMap::new(),
            complete: 0,
            counts: Counts::default(),
        });
        Self {
            first_seed: seed.unwrap_or_else(Seeds::fresh),
            stop: Arc::default(),
            lanes: Mutex::new(lanes.collect()),
        }
    }

    /// Called by a signal: what is under way is finished, and the table printed.
    pub(crate) fn stopper(&self) -> impl Fn() + Send + 'static {
        let stop = Arc::clone(&self.stop);
        move || stop.store(true, Ordering::Release)
    }

    pub(crate) fn work(self, minutes: f64, threads: usize) -> Outcome {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(minutes * 60.0);
        let names: Vec<_> = self.lanes().iter().map(|lane| lane.suite.name).collect();
        println!(
            "{} for {minutes} minutes on {threads} threads, seeds from {}",
            names.join(", "),
            self.first_seed
        );
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while Instant::now() < end && !self.stop.load(Ordering::Acquire) {
                        if let Err(found) = self.one_part() {
                            self.stop.store(true, Ordering::Release);
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(found);
                        }
                    }
                });
            }
        });
        Outcome {
            first_seed: self.first_seed,
            threads,
            elapsed: start.elapsed(),
            lanes: self.lanes.into_inner().unwrap_or_else(PoisonError::into_inner),
            failure: failure.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the next part of the suite that has had the least of its share.
    fn one_part(&self) -> Result<(), String> {
        let (chosen, suite, nth) = {
            let mut lanes = self.lanes();
            let order =
                |(_, a): &(usize, &Lane), (_, b): &(usize, &Lane)| a.urgency().total_cmp(&b.urgency());
            let Some(chosen) = lanes.iter().enumerate().min_by(order).map(|(n, _)| n) else {
                return Err("there is no suite to run".to_owned());
            };
            let lane = &mut lanes[chosen];
            lane.next += 1;
            // So that the next thread chooses another one; the true time follows.
            lane.spent += Duration::from_millis(1);
            (chosen, lane.suite, lane.next - 1)
        };
        let (seed, part) = (self.first_seed + nth / suite.parts, nth % suite.parts);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (suite.part)(seed, part)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_message(&*panic))));
        let counts = outcome.map_err(|found| suite.describe(seed, &found))?;
        let mut lanes = self.lanes();
        let lane = &mut lanes[chosen];
        lane.spent += start.elapsed();
        lane.counts.add(&counts);
        let done = lane.open.entry(seed).or_default();
        *done += 1;
        if *done == suite.parts {
            lane.open.remove(&seed);
            lane.complete += 1;
        }
        Ok(())
    }
}
