//! Everything at once, from one seed on one thread: histories with crashes, faults, full disks and other options.

use std::sync::Mutex;

use siltstone_tests::{Operation, Seeds, Session, Simulation, SimulationFigures, Step, Violation};

fn check(simulation: &Simulation, seed: u64) -> Result<SimulationFigures, Violation> {
    simulation
        .check(seed)
        .map_err(|failure| Violation::new(failure.to_string()))
}

#[test]
fn random_histories() {
    let total = Mutex::new(SimulationFigures::default());
    let start = std::time::Instant::now();
    let seeds = Seeds::new("simulation", "random_histories", 60);
    seeds.run(2, |seed| {
        let figures = check(&Simulation::default(), seed)?;
        total.lock().unwrap().add(&figures);
        Ok(())
    });
    let total = *total.lock().unwrap();
    println!("{total:?} in {:?}", start.elapsed());
    if seeds.list().len() > 50 {
        assert!(total.crashes > 100 && total.nested_crashes > 20, "{total:?}");
        assert!(total.faults > 100 && total.full_disks > 5, "{total:?}");
        assert!(total.flushes > 100 && total.compactions > 10, "{total:?}");
    }
}

#[test]
fn a_seed_gives_the_same_history_to_the_last_io() {
    for seed in 1..8 {
        let simulation = Simulation::default();
        assert_eq!(simulation.history(seed), simulation.history(seed));
        assert_eq!(check(&simulation, seed), check(&simulation, seed), "seed {seed}");
    }
}

/// A compaction of a database that was opened again and has the keyspaces a and c: a violation that the test plants.
fn planted(session: &Session, step: &Step) -> Result<(), Violation> {
    let compacted = matches!(step, Step::Operation(Operation::Compact(..)));
    let there = |name| session.model().incarnation(name).is_some();
    if compacted && there("a") && there("c") && !session.db().recovery().created {
        return Err(Violation::new("the planted violation"));
    }
    Ok(())
}

#[test]
fn a_history_that_fails_is_cut_to_what_it_needs() {
    let simulation = Simulation::default();
    let failure = (1..200)
        .find_map(|seed| simulation.check_with(seed, &planted).err())
        .expect("some history does that");
    // Two creations, an opening, a compaction; and none of the options.
    let has = |operation: &Operation| {
        failure
            .steps
            .iter()
            .any(|(_, step)| *step == Step::Operation(operation.clone()))
    };
    assert_eq!(failure.steps.len(), 4, "{failure}");
    assert!(
        has(&Operation::CreateKeyspace("a".into())) && has(&Operation::CreateKeyspace("c".into())),
        "{failure}"
    );
    assert_eq!(failure.plain, siltstone_tests::OptionGroup::ALL, "{failure}");
    assert!(failure.to_string().contains("the planted violation"), "{failure}");
    // The command names the seed and the steps, and nothing is needed beside them.
    let kept: Vec<String> = failure
        .steps
        .iter()
        .map(|(number, _)| number.to_string())
        .collect();
    let keep = failure
        .replay
        .split("--keep ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let keep: siltstone_tests::StepSet = keep.parse().unwrap();
    let steps: Vec<String> = keep.as_slice().iter().map(usize::to_string).collect();
    assert_eq!(steps, kept);
    assert!(failure.replay.contains(&format!("--seed {} ", failure.seed)));
    assert!(
        simulation.replay(failure.seed, &keep, &failure.plain).is_ok(),
        "the engine is not at fault"
    );
}
