//! Every fault once at every I/O of random histories; and the full disk.

use std::sync::Mutex;

use siltstone::vfs::FaultEffect;
use siltstone_tests::{FaultDriver, FaultFigures, Seeds};

fn sweep(test: &'static str, seeds: u64, effects: &[FaultEffect], from_then_on: bool, stride: u64) {
    sweep_with(
        &FaultDriver::default(),
        test,
        seeds,
        effects,
        from_then_on,
        stride,
    );
}

fn sweep_with(
    driver: &FaultDriver,
    test: &'static str,
    seeds: u64,
    effects: &[FaultEffect],
    from_then_on: bool,
    stride: u64,
) {
    let total = Mutex::new(FaultFigures::default());
    let start = std::time::Instant::now();
    Seeds::new("faults", test, seeds).run(2, |seed| {
        for effect in effects {
            let figures = driver.sweep(seed, *effect, from_then_on, stride)?;
            total.lock().unwrap().add(&figures);
        }
        Ok(())
    });
    println!("{test}: {:?} in {:?}", total.lock().unwrap(), start.elapsed());
}

#[test]
fn every_io_error_once() {
    sweep("every_io_error_once", 24, &[FaultEffect::Eio], false, 1);
}

#[test]
fn every_short_write_failed_sync_and_failed_mapping_once() {
    let effects = [
        FaultEffect::ShortWrite,
        FaultEffect::FailedSync,
        FaultEffect::FailedMap,
    ];
    sweep(
        "every_short_write_failed_sync_and_failed_mapping_once",
        24,
        &effects,
        false,
        1,
    );
}

#[test]
fn every_full_disk_once() {
    sweep("every_full_disk_once", 24, &[FaultEffect::Enospc], false, 1);
}

#[test]
fn every_io_meets_a_full_disk() {
    let driver = FaultDriver {
        enospc_anywhere: true,
        ..FaultDriver::default()
    };
    let test = "every_io_meets_a_full_disk";
    sweep_with(&driver, test, 2, &[FaultEffect::Enospc], false, 1);
}

#[test]
fn everything_fails_from_some_point_on() {
    let effects = [
        FaultEffect::Eio,
        FaultEffect::Enospc,
        FaultEffect::FailedSync,
        FaultEffect::FailedMap,
    ];
    sweep("everything_fails_from_some_point_on", 24, &effects, true, 3);
}
