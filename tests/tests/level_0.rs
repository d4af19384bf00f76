//! A level 0 that has gathered more tables than its filter has slices for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use siltstone::vfs::{ManualClock, MemFs};
use siltstone::{BackgroundMode, Db, Environment, Options, Snapshot};

const KEYS: u32 = 300;
const FLUSHES: u32 = 70;

type Model = BTreeMap<u32, Option<Vec<u8>>>;

fn key(n: u32) -> [u8; 4] {
    // The ranges of all tables overlap.
    n.wrapping_mul(0x9e37_79b1).to_be_bytes()
}

fn check(get: impl Fn(&[u8]) -> Option<Vec<u8>>, model: &Model, when: &str) {
    for n in 0..KEYS {
        let expected = model.get(&n).cloned().flatten();
        assert_eq!(get(&key(n)), expected, "key {n}, {when}");
    }
}

fn check_snapshot(snapshot: &Snapshot, model: &Model, when: &str) {
    check(
        |key| snapshot.get(key).unwrap().map(|value| value.to_vec()),
        model,
        when,
    );
}

fn check_all(db: &Db, model: &Model, snapshots: &[(Snapshot, Model)], when: &str) {
    check(
        |key| db.get(key).unwrap().map(|value| value.to_vec()),
        model,
        when,
    );
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    for (n, value) in (0..KEYS).zip(db.multi_get(&keys)) {
        let value = value.unwrap().map(|value| value.to_vec());
        assert_eq!(value, model.get(&n).cloned().flatten(), "key {n} of many, {when}");
    }
    for (snapshot, model) in snapshots {
        check_snapshot(snapshot, model, when);
    }
}

fn open(compaction_trigger: usize, slowdown_tables: usize) -> Db {
    let environment = Environment {
        fs: Arc::new(MemFs::new()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    let options = Options::default()
        .memtable_size_bytes(64 << 10)
        .l0_compaction_trigger(compaction_trigger)
        .l0_stall_tables(slowdown_tables, 3_000);
    options.open_with("db", environment).unwrap()
}

/// Puts, overwrites and deletes, and makes a table of them; keys that a round has are in few others.
fn write(db: &Db, model: &mut Model, round: u32) {
    for step in 0..20_u32 {
        let n = (round * 37 + step * 61 + round / FLUSHES) % KEYS;
        if (round + step).is_multiple_of(5) {
            db.delete(key(n)).unwrap();
            model.insert(n, None);
        } else {
            let value = format!("{round}.{n}").into_bytes();
            db.put(key(n), &value).unwrap();
            model.insert(n, Some(value));
        }
    }
    db.flush_all().unwrap();
}

#[test]
fn reads_of_many_overlapping_tables_find_what_a_model_has() {
    let db = open(1_000, 2_000);
    let mut model = Model::new();
    let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
    for half in 0..2_u32 {
        for round in 0..FLUSHES {
            write(&db, &mut model, half * FLUSHES + round);
            if half == 0 && round < 3 {
                assert_eq!(
                    db.metrics().l0_filter_bytes,
                    0,
                    "three tables are asked one by one"
                );
            }
            if round % 10 == 3 {
                snapshots.push((db.snapshot().unwrap(), model.clone()));
                check_all(&db, &model, &snapshots, &format!("round {round}"));
            }
        }
        let metrics = db.metrics();
        assert_eq!(metrics.levels[0].0, FLUSHES as usize);
        assert_eq!(metrics.l0_filter_bytes, (64 << 10) / 8);
        check_all(&db, &model, &snapshots, "level 0 full");
        db.wait_idle().unwrap();
        let metrics = db.metrics();
        assert_eq!((metrics.levels[0].0, metrics.l0_filter_bytes), (0, 0));
        check_all(&db, &model, &snapshots, "level 0 empty");
    }
}

/// What compactions take from level 0 leaves its slices to later tables; cursors hold theirs meanwhile.
#[test]
fn slices_are_used_again_while_views_are_held() {
    let db = open(12, 20);
    let mut model = Model::new();
    let mut cursors = VecDeque::new();
    for round in 0..3 * FLUSHES {
        write(&db, &mut model, round);
        if round.is_multiple_of(7) {
            cursors.push_back((db.iter().unwrap(), model.clone()));
        }
        if round.is_multiple_of(3) {
            while db.run_background_job().unwrap() {}
        }
        check_all(&db, &model, &[], &format!("round {round}"));
        if cursors.len() > 3 {
            let (cursor, then) = cursors.pop_front().unwrap();
            let found: Vec<_> = cursor.map(|entry| entry.unwrap().1.to_vec()).collect();
            let mut expected: Vec<_> = then.iter().map(|(n, value)| (key(*n), value)).collect();
            expected.sort();
            let expected: Vec<_> = expected
                .into_iter()
                .filter_map(|(_, value)| value.clone())
                .collect();
            assert_eq!(found, expected, "round {round}");
        }
    }
    let compactions = db.metrics().compactions;
    assert!(compactions > 10, "{compactions} compactions");
}
