//! Histories of many threads, checked for an order that explains them; and what an application may rely on.

use std::sync::Mutex;

use siltstone_tests::{Concurrency, ConcurrencyFigures, SEED_VARIABLE, Seeds};

#[test]
fn threads_see_one_order_of_everything() {
    let total = Mutex::new(ConcurrencyFigures::default());
    let start = std::time::Instant::now();
    // One after the other: each has threads enough.
    Seeds::new("concurrency", "threads_see_one_order_of_everything", 24).run(1, |seed| {
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
