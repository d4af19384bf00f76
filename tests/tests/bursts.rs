//! Writes that come faster than the levels can take them in: level 0 puts off what it can, and nobody reads anything else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{Fs, ManualClock, MemFs, OsFs};
use siltstone::{BackgroundMode, Db, Environment, Metrics, Options};

const KEYS: u32 = 4000;
const WRITES_A_ROUND: usize = 150;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Four tables make a run, and a base level of 64 KiB takes in none of them for long.
fn options() -> Options {
    Options::default()
        .memtable_size_bytes(64 << 10)
        .l0_compaction_trigger(4)
        .l0_stall_tables(6, 8)
        .level_base_bytes(128 << 10)
        .target_table_bytes(32 << 10)
}

/// As long as the clock stands still, any flushes are fast.
struct Burst {
    db: Db,
    clock: ManualClock,
    model: Model,
    rng: StdRng,
}

impl Burst {
    fn new(fs: Arc<dyn Fs>, dir: &Path, background: BackgroundMode, options: Options) -> Burst {
        let clock = ManualClock::new();
        let environment = Environment {
            fs,
            clock: Arc::new(clock.clone()),
            background,
        };
        Burst {
            db: options.open_with(dir, environment).unwrap(),
            clock,
            model: Model::new(),
            rng: StdRng::seed_from_u64(7),
        }
    }

    /// A table's worth of puts and deletes, and a flush.
    fn round(&mut self) {
        for _ in 0..WRITES_A_ROUND {
            let key = self.rng.random_range(0..KEYS).to_be_bytes().to_vec();
            if self.rng.random_range(0..5) == 0 {
                self.db.delete(&key).unwrap();
                self.model.remove(&key);
            } else {
                let value = vec![self.rng.random(); self.rng.random_range(0..100)];
                self.db.put(&key, &value).unwrap();
                self.model.insert(key, value);
            }
        }
        self.db.flush_all().unwrap();
    }

    fn run_jobs(&self) {
        while self.db.run_background_job().unwrap() {}
    }

    fn metrics(&self) -> Metrics {
        self.db.metrics()
    }

    /// Every way to read says what the model says.
    fn check(&mut self) {
        let keys: Vec<Vec<u8>> = (0..KEYS).map(|key| key.to_be_bytes().to_vec()).collect();
        for (key, found) in keys.iter().zip(self.db.multi_get(&keys)) {
            let expected = self.model.get(key);
            assert_eq!(found.unwrap().as_deref(), expected.map(Vec::as_slice), "{key:?}");
            assert_eq!(self.db.get(key).unwrap().as_deref(), expected.map(Vec::as_slice));
        }
        let all = self.db.iter().unwrap().map(|entry| entry.unwrap());
        let all: Model = all.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(all, self.model);
        let back = self
            .db
            .iter()
            .unwrap()
            .rev()
            .map(|entry| entry.unwrap().0.to_vec());
        assert!(back.eq(self.model.keys().rev().cloned()));
        let mut cursor = self.db.cursor::<&[u8]>(..).unwrap();
        for _ in 0..50 {
            let key = keys.choose(&mut self.rng).unwrap();
            cursor.seek(key).unwrap();
            let expected = self.model.range(key.clone()..).next();
            let found = cursor.valid().then(|| cursor.key());
            assert_eq!(found, expected.map(|(key, _)| key.as_slice()));
        }
    }
}

/// A burst leaves merged runs in level 0, for which no writer waits; when it is over, they go where everything goes.
#[test]
fn level_0_takes_a_burst_and_gives_it_up() {
    let mut burst = Burst::new(
        Arc::new(MemFs::new()),
        Path::new("db"),
        BackgroundMode::Manual,
        options(),
    );
    for _ in 0..40 {
        burst.round();
    }
    burst.run_jobs();
    burst.db.wait_idle().unwrap();
    let settled = burst.metrics();
    assert_eq!((settled.levels[0].0, settled.l0_runs), (0, 0));
    let snapshot = burst.db.snapshot().unwrap();
    let then = burst.model.clone();
    for round in 0..25 {
        burst.round();
        burst.run_jobs();
        if round % 8 == 7 {
            burst.check();
        }
    }
    let metrics = burst.metrics();
    let (tables, runs) = (metrics.levels[0].0, metrics.l0_runs);
    assert!(
        tables > 8,
        "level 0 has {tables} tables: as many as would stop writers"
    );
    assert!(runs < 8 && tables > 2 * runs, "{tables} tables are {runs} runs");
    assert_eq!(metrics.levels[6], settled.levels[6], "nothing has gone down");
    let held_up = |metrics: &Metrics| (metrics.writes_delayed, metrics.writes_stopped);
    assert_eq!(held_up(&metrics), held_up(&settled), "no writer waits for runs");
    let (burst_runs, written) = (runs, metrics.compacted_bytes_out - settled.compacted_bytes_out);
    let flushed = metrics.flushed_bytes - settled.flushed_bytes;
    // Once each, and what had gone one level down first, again.
    assert!(written <= flushed / 2 * 3, "{written} bytes of {flushed}");

    burst.clock.advance(Duration::from_secs(60));
    burst.run_jobs();
    let metrics = burst.metrics();
    assert!(
        metrics.l0_runs < 4 && metrics.l0_runs < burst_runs,
        "the burst is over"
    );
    burst.check();
    for (key, value) in &then {
        assert_eq!(snapshot.get(key).unwrap().as_deref(), Some(&value[..]));
    }
    drop(snapshot);
    burst.db.wait_idle().unwrap();
    assert_eq!(burst.metrics().l0_runs, 0);
    burst.check();
}

/// Who waits for all work to be done, waits for what has been put off.
#[test]
fn wait_idle_ends_a_burst() {
    for background in [BackgroundMode::Manual, BackgroundMode::Threads] {
        let mut burst = Burst::new(Arc::new(MemFs::new()), Path::new("db"), background, options());
        for _ in 0..20 {
            burst.round();
        }
        burst.db.wait_idle().unwrap();
        assert_eq!(burst.metrics().l0_runs, 0, "{background:?}");
        burst.check();
    }
}

/// Nobody tells a compaction's thread that writes have let up.
#[test]
fn a_burst_that_lets_up_is_noticed() {
    let mut burst = Burst::new(
        Arc::new(MemFs::new()),
        Path::new("db"),
        BackgroundMode::Threads,
        options(),
    );
    for _ in 0..40 {
        burst.round();
    }
    burst.db.wait_idle().unwrap();
    for _ in 0..25 {
        burst.round();
    }
    // A thread that still compacts would look for more by itself.
    let mut before = burst.metrics();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = burst.metrics();
        if (now.compactions, now.trivial_moves) == (before.compactions, before.trivial_moves) {
            break;
        }
        before = now;
    }
    assert!(before.levels[0].0 >= 4, "{:?}", before.levels);
    burst.clock.advance(Duration::from_secs(60));
    let deadline = Instant::now() + Duration::from_secs(60);
    while burst.metrics().levels[0].0 >= 4 {
        assert!(Instant::now() < deadline, "{:?}", burst.metrics().levels);
        std::thread::yield_now();
    }
    burst.check();
}

/// What the process leaves in the middle of a burst is read as it was, and is taken down.
#[test]
fn a_burst_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut burst = Burst::new(Arc::new(OsFs::new()), &path, BackgroundMode::Manual, options());
    for _ in 0..40 {
        burst.round();
    }
    burst.db.wait_idle().unwrap();
    for _ in 0..25 {
        burst.round();
        burst.run_jobs();
    }
    let before = burst.metrics();
    assert!(before.levels[0].0 > before.l0_runs);
    let Burst { db, model, rng, .. } = burst;
    drop(db);
    let reopened = Burst::new(Arc::new(OsFs::new()), &path, BackgroundMode::Manual, options());
    let mut burst = Burst {
        model,
        rng,
        ..reopened
    };
    assert_eq!(burst.metrics().l0_runs, before.l0_runs);
    burst.check();
    burst.run_jobs();
    assert!(burst.metrics().l0_runs < 4);
    burst.check();
}
