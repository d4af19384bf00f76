//! A real process under multi-threaded load is killed with SIGKILL at a random moment and the database opened again.

use siltstone_tests::{ProcessDriver, Seeds};

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let driver = ProcessDriver {
        program: env!("CARGO_BIN_EXE_crash_child").into(),
        arguments: Vec::new(),
        threads: 4,
        kills: 6,
    };
    Seeds::new("process", "a_killed_process_loses_nothing_acknowledged", 4).run(1, |seed| {
        println!("seed {seed}: {:?}", driver.run(seed)?);
        Ok(())
    });
}
