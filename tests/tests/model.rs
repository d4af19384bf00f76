//! The engine against the model, over random histories and random options.

use siltstone_tests::{RandomOptions, Seeds, Session, Workload, WorkloadOptions};

#[test]
fn in_memory() {
    Seeds::new("model", "in_memory", 120).run(2, |seed| {
        let mut session = Session::in_memory(RandomOptions::new(seed))?;
        for operation in Workload::new(seed, WorkloadOptions::default()).take(800) {
            session.apply(&operation)?;
        }
        session.finish()
    });
}

#[test]
fn on_the_operating_system_with_threads() {
    Seeds::new("model", "on_the_operating_system_with_threads", 30).run(2, |seed| {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut session = Session::with_threads(dir.path(), RandomOptions::new(seed))?;
        for operation in Workload::new(seed, WorkloadOptions::default()).take(600) {
            session.apply(&operation)?;
        }
        session.finish()
    });
}
