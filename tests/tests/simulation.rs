//! Everything at once, from one seed on one thread: histories with crashes, faults, full disks and other options.

use std::sync::Mutex;

use siltstone_tests::{Seeds, Simulation, SimulationFigures, Violation};

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
