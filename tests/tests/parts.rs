//! Flushes and merges that several threads write side by side, each a part.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{Fault, FaultEffect, FaultFs, ManualClock, MemFs, OpKind};
use siltstone::{BackgroundMode, Db, Environment, Options};
use siltstone_tests::check_directory;

const ROUNDS: usize = 6;
const PUTS_A_ROUND: usize = 400;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Six tables of some 50 KiB are merged; a part has to have 64.
fn options() -> Options {
    Options::default()
        .memtable_size_bytes(128 << 10)
        .l0_compaction_trigger(ROUNDS)
        .l0_stall_tables(100, 200)
        .target_table_bytes(32 << 10)
        .reserve_bytes(0)
}

fn open(fs: &FaultFs, background: BackgroundMode, options: Options) -> Db {
    open_at(&ManualClock::new(), fs, background, options)
}

fn open_at(clock: &ManualClock, fs: &FaultFs, background: BackgroundMode, options: Options) -> Db {
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(clock.clone()),
        background,
    };
    options.open_with("db", environment).unwrap()
}

/// Random puts and deletes, as much as fits into a memtable.
fn write_round(db: &Db, rng: &mut StdRng, model: &mut Model) {
    for _ in 0..PUTS_A_ROUND {
        let key = rng.random_range(0..5000_u32).to_be_bytes().to_vec();
        if rng.random_range(0..8) == 0 {
            db.delete(&key).unwrap();
            model.remove(&key);
        } else {
            let value = vec![rng.random(); rng.random_range(60..140)];
            db.put(&key, &value).unwrap();
            model.insert(key, value);
        }
    }
}

fn check(mem: &MemFs, db: &Db, model: &Model) {
    check_directory(mem, Path::new("db"), db).unwrap();
    let entries = db.iter().unwrap().map(|entry| entry.unwrap());
    let found: Model = entries
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(found, *model);
    for key in 0..5000_u32 {
        let key = key.to_be_bytes();
        assert_eq!(
            db.get(key).unwrap().as_deref(),
            model.get(&key[..]).map(Vec::as_slice)
        );
    }
}

fn thread_is(name: &str) -> bool {
    std::thread::current().name() == Some(name)
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: nothing in a minute");
        std::thread::yield_now();
    }
}

/// Has the first table of `worker` and the first of a part's thread wait for each other; returns how many have come.
fn have_them_meet(fs: &FaultFs, worker: &'static str) -> Arc<AtomicUsize> {
    let met = Arc::new(AtomicUsize::new(0));
    let (came, here, there) = (Arc::clone(&met), AtomicBool::new(false), AtomicBool::new(false));
    fs.on_op(Box::new(move |op| {
        let first = match op.kind {
            OpKind::Create if thread_is(worker) => !here.swap(true, Ordering::SeqCst),
            OpKind::Create if thread_is("siltstone-part") => !there.swap(true, Ordering::SeqCst),
            _ => false,
        };
        if first {
            came.fetch_add(1, Ordering::SeqCst);
            wait_for("the other part", || came.load(Ordering::SeqCst) == 2);
        }
    }));
    met
}

#[test]
fn a_merge_of_level_0_is_written_by_two_threads_at_a_time() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = open(&fs, BackgroundMode::Threads, options());
    let (mut rng, mut model) = (StdRng::seed_from_u64(1), Model::new());
    let met = have_them_meet(&fs, "siltstone-comp1");
    let snapshot = db.snapshot().unwrap();
    for _ in 0..ROUNDS {
        write_round(&db, &mut rng, &mut model);
        db.flush_all().unwrap();
    }
    db.wait_idle().unwrap();
    assert_eq!(met.load(Ordering::SeqCst), 2);
    assert_eq!(snapshot.iter().unwrap().count(), 0);
    drop(snapshot);
    check(&mem, &db, &model);
    drop(db);
    check(&mem, &open(&fs, BackgroundMode::Threads, options()), &model);
}

/// A flush is held up until two more memtables are full: those become two tables, at the same time.
#[test]
fn memtables_that_wait_are_flushed_side_by_side() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let small = options().memtable_size_bytes(32 << 10).memtables_max(4);
    let db = open(&fs, BackgroundMode::Threads, small);
    let (mut rng, mut model) = (StdRng::seed_from_u64(2), Model::new());
    let (held, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    fs.on_op(Box::new({
        let (held, go_on) = (Arc::clone(&held), Arc::clone(&go_on));
        move |op| {
            if op.kind == OpKind::Create && thread_is("siltstone-flush") {
                held.store(true, Ordering::SeqCst);
                wait_for("the writer", || go_on.load(Ordering::SeqCst));
            }
        }
    }));
    let put = |n: u32, model: &mut Model| {
        let (key, value) = (n.to_be_bytes().to_vec(), vec![1; 100]);
        db.put(&key, &value).unwrap();
        model.insert(key, value);
    };
    let mut n = 0;
    // The first flush is to have one memtable only.
    while db.metrics().immutable_memtables == 0 {
        put(n % 5000, &mut model);
        n += 1;
    }
    wait_for("the first flush", || held.load(Ordering::SeqCst));
    while db.metrics().immutable_memtables < 3 {
        put(n % 5000, &mut model);
        n += 1;
    }
    assert_eq!(db.metrics().levels[0].0, 0);
    let met = have_them_meet(&fs, "siltstone-flush");
    go_on.store(true, Ordering::SeqCst);
    wait_for("the flushes", || db.metrics().flushes == 2);
    assert_eq!(met.load(Ordering::SeqCst), 2);
    let metrics = db.metrics();
    assert_eq!((metrics.immutable_memtables, metrics.levels[0].0), (0, 3));
    check(&mem, &db, &model);
    write_round(&db, &mut rng, &mut model);
    drop(db);
    check(&mem, &open(&fs, BackgroundMode::Threads, options()), &model);
}

fn tables(mem: &MemFs) -> usize {
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    mem.files().iter().filter(|(path, _)| is_table(path)).count()
}

const KINDS: [OpKind; 4] = [OpKind::Create, OpKind::Append, OpKind::Sync, OpKind::OpenTable];

/// Has the `nth` operation of `kind` on a table fail while `job` runs, which then succeeds; returns whether there were so
/// many. Nothing is left of any part where one failed.
fn fails_and_goes_on(
    mem: &MemFs,
    fs: &FaultFs,
    db: &Db,
    (kind, nth): (OpKind, u64),
    job: impl Fn() -> siltstone::Result<()>,
) -> bool {
    let (before, open) = (tables(mem), db.metrics().open_tables);
    fs.inject(Fault {
        nth,
        kinds: Some(vec![kind]),
        path_contains: Some(".sst".to_owned()),
        effect: FaultEffect::Eio,
        repeat: false,
    });
    let outcome = job();
    let struck = fs.faults_struck() == 1;
    fs.clear();
    assert_eq!(outcome.is_err(), struck, "{kind:?} {nth}: {outcome:?}");
    if struck {
        let left = (tables(mem), db.metrics().open_tables);
        assert_eq!(left, (before, open), "{kind:?} {nth}");
        db.resume().unwrap();
        job().unwrap();
    }
    struck
}

/// Each create, append and so on of a merge fails in turn.
#[test]
fn a_part_of_a_merge_that_fails_takes_the_others_with_it() {
    for background in [BackgroundMode::Manual, BackgroundMode::Threads] {
        for kind in KINDS {
            let fails = |nth: &u64| {
                let mem = MemFs::new();
                let fs = FaultFs::new(Arc::new(mem.clone()));
                let db = open(&fs, background, options().l0_compaction_trigger(100));
                let (mut rng, mut model) = (StdRng::seed_from_u64(3), Model::new());
                for _ in 0..ROUNDS {
                    write_round(&db, &mut rng, &mut model);
                    db.flush_all().unwrap();
                }
                let struck = fails_and_goes_on(&mem, &fs, &db, (kind, *nth), || db.compact::<&[u8]>(..));
                check(&mem, &db, &model);
                struck
            };
            let struck = (0..).take_while(fails).count();
            assert!(struck > 5, "{background:?}, {kind:?}: {struck} for twelve tables");
        }
    }
}

/// Each of the first flush of three memtables, of which three parts are made.
#[test]
fn a_part_of_a_flush_that_fails_takes_the_others_with_it() {
    for kind in KINDS {
        let fails = |nth: &u64| {
            let mem = MemFs::new();
            let fs = FaultFs::new(Arc::new(mem.clone()));
            let small = options()
                .memtable_size_bytes(32 << 10)
                .memtables_max(5)
                .background_threads(3);
            let db = open(&fs, BackgroundMode::Manual, small);
            let (mut rng, mut model) = (StdRng::seed_from_u64(6), Model::new());
            while db.metrics().immutable_memtables < 3 {
                write_round(&db, &mut rng, &mut model);
            }
            let struck = fails_and_goes_on(&mem, &fs, &db, (kind, *nth), || db.flush());
            assert!(tables(&mem) >= 3, "{kind:?} {nth}");
            check(&mem, &db, &model);
            struck
        };
        let struck = (0..).take_while(fails).count();
        assert!(struck >= 3, "{kind:?}: {struck} for three tables");
    }
}

/// Both parts are at work when the database is dropped: what they wrote is there as a whole or not at all.
#[test]
fn a_database_is_closed_in_the_middle_of_the_parts() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let clock = ManualClock::new();
    let db = open_at(&clock, &fs, BackgroundMode::Threads, options());
    let (mut rng, mut model) = (StdRng::seed_from_u64(4), Model::new());
    let (at_work, closing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    fs.on_op(Box::new({
        let (at_work, closing) = (Arc::clone(&at_work), Arc::clone(&closing));
        move |op| {
            if op.kind == OpKind::Create && (thread_is("siltstone-comp1") || thread_is("siltstone-part")) {
                at_work.fetch_add(1, Ordering::SeqCst);
                wait_for("the end", || closing.load(Ordering::SeqCst));
            }
        }
    }));
    for _ in 0..ROUNDS {
        write_round(&db, &mut rng, &mut model);
        db.flush_all().unwrap();
    }
    // Writes have let up.
    clock.advance(Duration::from_secs(60));
    wait_for("two parts", || at_work.load(Ordering::SeqCst) == 2);
    closing.store(true, Ordering::SeqCst);
    drop(db);
    fs.clear_on_op();
    let db = open(&fs, BackgroundMode::Threads, options());
    check(&mem, &db, &model);
    db.wait_idle().unwrap();
    check(&mem, &db, &model);
}

/// What happens in a thread of a part is as bad as in the worker's own, and no worse.
#[test]
fn a_part_that_panics_stops_the_database_and_nothing_else() {
    let mem = MemFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let db = open(&fs, BackgroundMode::Threads, options());
    let (mut rng, mut model) = (StdRng::seed_from_u64(5), Model::new());
    let panics = AtomicBool::new(false);
    fs.on_op(Box::new(move |op| {
        if op.kind == OpKind::Create && thread_is("siltstone-comp1") {
            // It would take the other part, too.
            wait_for("the other part", || panics.load(Ordering::SeqCst));
        }
        if op.kind == OpKind::Create && thread_is("siltstone-part") {
            panics.store(true, Ordering::SeqCst);
            panic!("on purpose");
        }
    }));
    for _ in 0..ROUNDS {
        write_round(&db, &mut rng, &mut model);
        db.flush_all().unwrap();
    }
    let error = db.wait_idle().unwrap_err().to_string();
    assert!(error.contains("panicked: on purpose"), "{error}");
    db.put("key", "value").unwrap_err();
    let first = model.iter().next().unwrap();
    assert_eq!(db.get(first.0).unwrap().unwrap(), *first.1);
    drop(db);
    fs.clear_on_op();
    check(&mem, &open(&fs, BackgroundMode::Threads, options()), &model);
}
