//! Crash at every I/O of random histories, and at every I/O of some recoveries.

use siltstone_tests::{CrashDriver, CrashFigures, Seeds, WorkloadOptions};

fn crash_everywhere(test: &'static str, driver: &CrashDriver, seeds: u64) -> CrashFigures {
    let total = std::sync::Mutex::new(CrashFigures::default());
    let seeds = Seeds::new("crash", test, seeds);
    let start = std::time::Instant::now();
    seeds.run(2, |seed| {
        let figures = driver.run(seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    let total = *total.lock().unwrap();
    println!(
        "{test}: {} crash points ({} of them in recoveries), {total:?} in {:?}",
        total.points + total.nested_points,
        total.nested_points,
        start.elapsed()
    );
    // A single seed that is replayed has fewer.
    if seeds.list().len() > 1 {
        assert!(
            total.flushes > 0 && total.compactions > 0 && total.reuses > 0,
            "the histories have become too short"
        );
    }
    total
}

#[test]
fn every_crash_leaves_a_prefix() {
    let total = crash_everywhere("every_crash_leaves_a_prefix", &CrashDriver::default(), 240);
    if std::env::var_os(siltstone_tests::SEED_VARIABLE).is_none()
        && std::env::var_os(siltstone_tests::SEED_COUNT_VARIABLE).is_none()
    {
        assert!(total.points >= 10_000, "{total:?}");
    }
}

/// More data, fewer keys, no keyspaces but the default one: deeper trees and more compactions.
#[test]
fn crashes_of_longer_histories() {
    let driver = CrashDriver {
        operations: 350,
        power_losses: 1,
        nested_every: 500,
        workload: WorkloadOptions {
            keys: 200,
            value_bytes: 250,
            keyspaces: false,
            reads_percent: 15,
            ..WorkloadOptions::default()
        },
    };
    crash_everywhere("crashes_of_longer_histories", &driver, 24);
}
