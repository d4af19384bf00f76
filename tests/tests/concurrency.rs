//! Histories of many threads, checked for an order that explains them; and what an application may rely on.

use std::sync::Mutex;

use siltstone_tests::{Concurrency, ConcurrencyFigures, SEED_VARIABLE, Seeds};

#[allow(dead_code, reason = "the example's main is nobody's here")]
#[path = "../examples/bank.rs"]
mod bank;

#[test]
fn threads_see_one_order_of_everything() {
    let total = Mutex::new(ConcurrencyFigures::default());
    let start = std::time::Instant::now();
    // One after the other: each has threads enough.
    Seeds::new("concurrency", "threads_see_one_order_of_everything", 48).run(1, |seed| {
        let figures = Concurrency::default().run(seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    let total = *total.lock().unwrap();
    println!("{total:?} in {:?}", start.elapsed());
    assert_eq!(total.undecided, 0, "{total:?}");
    if std::env::var_os(SEED_VARIABLE).is_none() {
        assert!(
            total.flushes > 0 && total.compactions > 0 && total.closed_at_work > 0 && total.dropped > 0,
            "the histories have become too short: {total:?}"
        );
    }
}

/// A child process, in which the system gives out so many threads and no more.
#[test]
fn an_open_that_is_refused_a_thread_says_so_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_thread_child"))
        .arg(dir.path())
        .env("RUST_MIN_STACK", (1u64 << 30).to_string())
        .output()
        .unwrap();
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{errors}");
    let refused: u64 = out
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap();
    // One for each thread that a database has.
    assert!(refused >= 4, "{out}");
}

#[test]
fn a_bank_that_writes_transfers_in_batches_is_proved() {
    let figures = bank::prove(2, false).unwrap();
    println!("{figures:?}");
    assert!(
        figures.points > 20 && figures.nested_points > 20 && figures.faults > 100,
        "{figures:?}"
    );
}

#[test]
fn a_bank_that_writes_its_accounts_one_by_one_is_found_out() {
    let violation = bank::prove(2, true).unwrap_err().to_string();
    assert!(violation.contains("the accounts hold"), "{violation}");
}
