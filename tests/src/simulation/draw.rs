//! Histories drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::FaultEffect;

use super::step::{Crash, Step};
use crate::crash::Loss;
use crate::fault::FaultPlan;
use crate::workload::{Workload, WorkloadOptions};

/// Of a thousand steps, how many are of which kind; the rest are operations. Each history has a mood of its own: where
/// everything happens all the time, little data builds up.
#[derive(Clone, Copy)]
struct Mood {
    crashes: u32,
    faults: u32,
    full_disks: u32,
    reopens: u32,
    jumps: u32,
}

const MOODS: [Mood; 6] = [
    Mood {
        crashes: 20,
        faults: 20,
        full_disks: 5,
        reopens: 10,
        jumps: 10,
    },
    Mood {
        crashes: 60,
        faults: 60,
        full_disks: 20,
        reopens: 10,
        jumps: 10,
    },
    Mood {
        crashes: 80,
        faults: 0,
        full_disks: 0,
        reopens: 30,
        jumps: 10,
    },
    Mood {
        crashes: 10,
        faults: 80,
        full_disks: 0,
        reopens: 0,
        jumps: 20,
    },
    Mood {
        crashes: 10,
        faults: 0,
        full_disks: 60,
        reopens: 10,
        jumps: 20,
    },
    Mood {
        crashes: 15,
        faults: 0,
        full_disks: 0,
        reopens: 0,
        jumps: 0,
    },
];

/// The history of `seed`: `steps` of them, whose operations are shaped by `workload`.
pub(super) fn draw(seed: u64, steps: usize, workload: WorkloadOptions) -> Vec<Step> {
    let mut operations = Workload::new(seed, workload);
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6869_7374_6f72_7900);
    let mood = MOODS[rng.random_range(0..MOODS.len())];
    (0..steps)
        .map(|_| disturbance(&mut rng, mood).unwrap_or_else(|| Step::Operation(next(&mut operations))))
        .collect()
}

fn next(operations: &mut Workload) -> crate::Operation {
    operations.next().expect("a workload has no end")
}

fn disturbance(rng: &mut StdRng, mood: Mood) -> Option<Step> {
    let mut left: u32 = rng.random_range(0..1000);
    let mut falls = |share: u32| {
        let hit = left < share;
        left = left.wrapping_sub(share);
        hit
    };
    if falls(mood.crashes) {
        return Some(Step::Crash(crash(rng, mood)));
    }
    if falls(mood.faults) {
        return Some(Step::Fault(plan(rng)));
    }
    // What has been broken is mended about as often.
    if falls(mood.faults / 2) {
        return Some(Step::Mend);
    }
    if falls(mood.faults / 2) {
        return Some(Step::Resume);
    }
    if falls(mood.full_disks) {
        let most = [1, 8 << 10, 128 << 10][rng.random_range(0..3)];
        let spare_bytes = rng.random_range(0..most);
        return Some(Step::DiskFull { spare_bytes });
    }
    if falls(mood.full_disks) {
        return Some(Step::DiskFreed);
    }
    if falls(mood.reopens) {
        let (options, clean) = (rng.random(), rng.random_bool(0.5));
        return Some(Step::ReopenWith { options, clean });
    }
    if falls(mood.jumps) {
        // From milliseconds to days.
        let exponent = rng.random_range(0.0..9.0_f64);
        return Some(Step::ClockJump(Duration::from_secs_f64(
            0.001 * 10_f64.powf(exponent),
        )));
    }
    None
}

fn loss(rng: &mut StdRng) -> Loss {
    if rng.random_bool(0.3) {
        Loss::Process
    } else {
        Loss::Power(rng.random())
    }
}

fn crash(rng: &mut StdRng, mood: Mood) -> Crash {
    // Most in the middle of an operation, some of them in one that is still some way off.
    let reach = [4, 20, 80][rng.random_range(0..3)];
    let nested = [0, 0, 1, 2][rng.random_range(0..4)];
    Crash {
        loss: loss(rng),
        before_io: rng.random_bool(0.75).then(|| rng.random_range(0..reach)),
        nested: (0..nested)
            .map(|_| (rng.random_range(0..30), loss(rng)))
            .collect(),
        fault: (mood.faults > 0 && rng.random_bool(0.3)).then(|| plan(rng)),
        options: rng.random_bool(0.2).then(|| rng.random()),
    }
}

fn plan(rng: &mut StdRng) -> FaultPlan {
    let effects = [
        FaultEffect::Eio,
        FaultEffect::Enospc,
        FaultEffect::ShortWrite,
        FaultEffect::FailedSync,
        FaultEffect::FailedMap,
    ];
    let reach = [1, 5, 40][rng.random_range(0..3)];
    FaultPlan {
        effect: effects[rng.random_range(0..effects.len())],
        nth: rng.random_range(0..reach),
        from_then_on: rng.random_bool(0.4),
    }
}
