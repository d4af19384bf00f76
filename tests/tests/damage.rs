//! A bit flipped anywhere, a file cut anywhere: an error or the right answer.

use std::sync::Mutex;

use siltstone_tests::{DamageDriver, DamageFigures, Seeds, WorkloadOptions};

fn small() -> WorkloadOptions {
    WorkloadOptions {
        keys: 25,
        value_bytes: 24,
        batch_writes_max: 6,
        reads_percent: 0,
        ..WorkloadOptions::default()
    }
}

#[test]
fn every_byte_of_a_small_database() {
    // One database; its bytes are dealt out to the threads.
    let seed = 6;
    let database = DamageDriver::new(seed, 90, small()).unwrap();
    let total = Mutex::new(DamageFigures::default());
    let start = std::time::Instant::now();
    let share = 16;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (database, total) = (&database, &total);
            scope.spawn(move || {
                for from in (thread..share).step_by(2) {
                    let figures = database.flip_every(from, share, seed).unwrap();
                    total.lock().unwrap().add(&figures);
                }
            });
        }
    });
    let total = *total.lock().unwrap();
    println!(
        "every byte: {} bytes, {total:?} in {:?}",
        database.size_bytes(),
        start.elapsed()
    );
    for kind in ["CURRENT", "MANIFEST", ".wal", ".sst"] {
        let named = |path: &std::path::Path| path.to_string_lossy().contains(kind);
        assert!(
            database.files().iter().any(|(path, _)| named(path)),
            "no {kind} to damage"
        );
    }
    assert_eq!(total.tried, database.size_bytes() as u64);
}

#[test]
fn a_sample_of_larger_databases() {
    let total = Mutex::new(DamageFigures::default());
    let start = std::time::Instant::now();
    Seeds::new("damage", "a_sample_of_larger_databases", 5).run(2, |seed| {
        let database = DamageDriver::new(seed, 400, WorkloadOptions::default())?;
        let stride = (database.size_bytes() / 300).max(1);
        let from = usize::try_from(seed).unwrap_or_default() % stride;
        let figures = database.flip_every(from, stride, seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    println!("sample: {:?} in {:?}", total.lock().unwrap(), start.elapsed());
}

#[test]
fn files_cut_anywhere() {
    let total = Mutex::new(DamageFigures::default());
    let start = std::time::Instant::now();
    Seeds::new("damage", "files_cut_anywhere", 5).run(2, |seed| {
        let database = DamageDriver::new(seed, 120, small())?;
        let figures = database.truncate(60, seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    println!("cuts: {:?} in {:?}", total.lock().unwrap(), start.elapsed());
}

#[test]
fn files_cut_at_every_length() {
    let seed = 6;
    let database = DamageDriver::new(seed, 90, small()).unwrap();
    let (stride, mut total) = (7, DamageFigures::default());
    let fresh = Seeds::new("damage", "files_cut_at_every_length", 0);
    let from = usize::try_from(fresh.list()[0]).unwrap() % stride;
    total.add(&database.truncate_every(from, stride).unwrap());
    println!("every {stride}th length: {total:?}");
}

#[test]
fn files_of_the_wrong_place_or_time() {
    let total = Mutex::new(DamageFigures::default());
    Seeds::new("damage", "files_of_the_wrong_place_or_time", 6).run(2, |seed| {
        let database = DamageDriver::new(seed, 60, small())?;
        for figures in [
            database.swap_every()?,
            database.duplicate_every()?,
            database.remove_every()?,
            database.replace_by_past()?,
            database.append_to_every(seed)?,
        ] {
            total.lock().unwrap().add(&figures);
        }
        Ok(())
    });
    println!("places and times: {:?}", total.lock().unwrap());
}
