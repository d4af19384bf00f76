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

/// Two flushes after a crash: a violation that the test plants, and that four steps are enough for.
fn planted() -> impl Fn(&Session, &Step) -> Result<(), Violation> {
    let seen = std::cell::Cell::new((false, 0));
    move |session, step| {
        let (crashed, flushes) = match step {
            // A history begins anew.
            _ if session.progress().started.0 == 0 => (false, 0),
            Step::Crash(_) => (true, 0),
            Step::Operation(Operation::FlushAll) => (seen.get().0, seen.get().1 + 1),
            _ => seen.get(),
        };
        seen.set((crashed, flushes));
        if crashed && flushes == 2 {
            return Err(Violation::new("two flushes after a crash"));
        }
        Ok(())
    }
}

#[test]
fn a_history_that_fails_is_cut_to_what_it_needs() {
    let simulation = Simulation::default();
    let invariant = planted();
    let failure = (1..200)
        .find_map(|seed| simulation.check_with(seed, &invariant).err())
        .expect("some history flushes twice after a crash");
    let kinds: Vec<&str> = failure
        .steps
        .iter()
        .map(|(_, step)| match step {
            Step::Crash(_) => "crash",
            Step::Operation(Operation::FlushAll) => "flush",
            Step::Operation(Operation::Commit { .. }) => "commit",
            _ => "other",
        })
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "flush").count(),
        2,
        "{failure}"
    );
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "crash").count(),
        1,
        "{failure}"
    );
    assert!(kinds.len() <= 4 && !kinds.contains(&"other"), "{failure}");
    assert_eq!(
        failure.plain.len(),
        siltstone_tests::OptionGroup::ALL.len(),
        "{failure}"
    );
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
