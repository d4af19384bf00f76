//! A level 0 that has gathered more tables than its filter has slices for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
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

/// Puts, overwrites and deletes, a table of each round; keys that a round has are in few others.
#[test]
fn reads_of_many_overlapping_tables_find_what_a_model_has() {
    let environment = Environment {
        fs: Arc::new(MemFs::new()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    let options = Options::default()
        .memtable_size_bytes(64 << 10)
        .l0_compaction_trigger(1_000)
        .l0_stall_tables(2_000, 3_000);
    let db = options.open_with("db", environment).unwrap();
    let mut model = Model::new();
    let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
    for half in 0..2_u32 {
        for round in 0..FLUSHES {
            for step in 0..20_u32 {
                let n = (round * 37 + step * 61 + half) % KEYS;
                if (round + step) % 5 == 0 {
                    db.delete(key(n)).unwrap();
                    model.insert(n, None);
                } else {
                    let value = format!("{half}.{round}.{n}").into_bytes();
                    db.put(key(n), &value).unwrap();
                    model.insert(n, Some(value));
                }
            }
            db.flush_all().unwrap();
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
