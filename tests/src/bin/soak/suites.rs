//! The suites, and what each counts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use siltstone::vfs::FaultEffect;
use siltstone_tests::{
    Concurrency, CrashDriver, DamageDriver, DamageFigures, FaultDriver, Metamorphic, OptionGroup,
    ProcessDriver, Simulation, StepSet, Violation, WorkloadOptions, panic_message, shrink,
};

/// A suite: with each seed it does so many parts, which together are complete.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Its share of the time.
    pub(crate) weight: f64,
    /// How many parts one seed has.
    pub(crate) parts: u64,
    /// What is complete with them.
    pub(crate) set: &'static str,
    /// Does one part.
    pub(crate) part: fn(seed: u64, part: u64) -> Result<Counts, String>,
}

/// All there are. A suite is added with a line here.
static SUITES: [Suite; 7] = [
    suite("simulation", 20.0, 1, "histories", simulation),
    suite("metamorphic", 8.0, 1, "histories under all options", metamorphic),
    suite("crash", 35.0, 1, "histories crashed at every I/O", crash),
    suite(
        "faults",
        20.0,
        FAULTS.len() as u64,
        "histories failed at every I/O in every way",
        faults,
    ),
    suite(
        "damage",
        14.0,
        DAMAGE_PARTS,
        "databases damaged in every byte and length",
        damage,
    ),
    suite("concurrency", 3.0, 1, "histories of many threads", concurrency),
    suite("process", 3.0, 1, "databases killed", process),
];

const fn suite(
    name: &'static str,
    weight: f64,
    parts: u64,
    set: &'static str,
    part: fn(u64, u64) -> Result<Counts, String>,
) -> Suite {
    Suite {
        name,
        weight,
        parts,
        set,
        part,
    }
}

impl Suite {
    /// The suites of these names; all where there are none.
    pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Suite>, String> {
        if names.is_empty() {
            return Ok(SUITES.iter().collect());
        }
        let find = |name: &String| {
            SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| {
                let all: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
                format!("no suite is called {name}; there are {}", all.join(", "))
            })
        };
        names.iter().map(find).collect()
    }

    /// What was found, with the command that finds it again.
    pub(crate) fn describe(&self, seed: u64, found: &str) -> String {
        let name = self.name;
        if found.contains("\nreplay: ") {
            return format!("{name}: {found}");
        }
        format!(
            "{name}: seed {seed}: {found}\nreplay: cargo run --release -p siltstone-tests --bin soak -- --suite {name} \
             --seed {seed}"
        )
    }

    /// Everything that it does with one seed, or the steps that are kept of it.
    pub(crate) fn replay(
        &self,
        seed: u64,
        keep: Option<&StepSet>,
        plain: &[OptionGroup],
    ) -> Result<Counts, String> {
        let named = |found: String| self.describe(seed, &found);
        if keep.is_some() || !plain.is_empty() {
            let simulation = Simulation::default();
            let all = StepSet::first(simulation.steps);
            return match self.name {
                "simulation" => simulation
                    .replay(seed, keep.unwrap_or(&all), plain)
                    .map(|figures| Counts::default().with("histories", figures.histories)),
                "metamorphic" if plain.is_empty() => Metamorphic::default()
                    .replay(seed, keep.unwrap_or(&all))
                    .map(|figures| Counts::default().with("histories", figures.variants)),
                name => Err(Violation::new(format!(
                    "histories of the suite {name} are not replayed in part"
                ))),
            }
            .map_err(|violation| named(violation.to_string()));
        }
        let mut counts = Counts::default();
        for part in 0..self.parts {
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.part)(seed, part)));
            let outcome =
                outcome.unwrap_or_else(|panic| Err(format!("panicked: {}", panic_message(&*panic))));
            counts.add(&outcome.map_err(named)?);
        }
        Ok(counts)
    }
}

/// What is counted, in the order of the table.
pub(crate) const COUNTED: [&str; 21] = [
    "histories",
    "operations",
    "answers compared",
    "I/Os",
    "crash points",
    "crash points in recoveries",
    "recoveries checked",
    "fault points",
    "faults in simulations",
    "full disks",
    "bytes flipped",
    "truncations",
    "files exchanged",
    "files duplicated",
    "files removed",
    "files of the past put back",
    "files appended to",
    "processes killed",
    "reopenings",
    "closed or dropped at work",
    "keys without a verdict",
];

/// How often everything [counted](COUNTED) happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) by_name: std::collections::BTreeMap<&'static str, u64>,
}

impl Counts {
    fn with(mut self, name: &'static str, count: u64) -> Self {
        *self.by_name.entry(name).or_default() += count;
        self
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        for (name, count) in &other.by_name {
            *self.by_name.entry(name).or_default() += count;
        }
    }
}

fn simulation(seed: u64, _part: u64) -> Result<Counts, String> {
    let figures = Simulation::default()
        .check(seed)
        .map_err(|failure| failure.to_string())?;
    Ok(Counts::default()
        .with("histories", figures.histories)
        .with("operations", figures.operations)
        .with("I/Os", figures.ios)
        .with("crash points", figures.crashes)
        .with("crash points in recoveries", figures.nested_crashes)
        .with("recoveries checked", figures.recoveries)
        .with("faults in simulations", figures.faults)
        .with("full disks", figures.full_disks)
        .with("reopenings", figures.reopenings))
}

/// The most runs that shortening a metamorphic history takes; each is one of several variants, with threads.
const METAMORPHIC_RUNS_MAX: usize = 100;

fn metamorphic(seed: u64, _part: u64) -> Result<Counts, String> {
    let driver = Metamorphic::default();
    let run = |kept: &StepSet| {
        catch_unwind(AssertUnwindSafe(|| driver.replay(seed, kept)))
            .unwrap_or_else(|panic| Err(Violation::new(format!("panicked: {}", panic_message(&*panic)))))
    };
    let all = StepSet::first(driver.operations);
    let figures = run(&all).map_err(|violation| {
        let (kept, _) = shrink(&all, METAMORPHIC_RUNS_MAX, |kept| run(kept).is_err());
        let last = run(&kept).err().unwrap_or(violation);
        format!(
            "seed {seed}: {last}\nreplay: cargo run --release -p siltstone-tests --bin soak -- --suite metamorphic --seed \
             {seed} --keep {kept}"
        )
    })?;
    Ok(Counts::default()
        .with("histories", figures.variants)
        .with("operations", figures.operations)
        .with("answers compared", figures.answers))
}

fn crash(seed: u64, _part: u64) -> Result<Counts, String> {
    let driver = CrashDriver::default();
    let figures = driver.run(seed).map_err(|violation| violation.to_string())?;
    Ok(Counts::default()
        .with("histories", 1)
        .with("operations", driver.operations as u64)
        .with("crash points", figures.points)
        .with("crash points in recoveries", figures.nested_points)
        .with("recoveries checked", figures.recoveries))
}

/// Threads that wait for each other: the checks are a small part of the time, and the processor is mostly free.
fn concurrency(seed: u64, _part: u64) -> Result<Counts, String> {
    let figures = Concurrency::default()
        .run(seed)
        .map_err(|violation| violation.to_string())?;
    Ok(Counts::default()
        .with("histories", 1)
        .with("operations", figures.operations)
        .with("answers compared", figures.accesses + figures.cuts)
        .with(
            "closed or dropped at work",
            figures.closed_at_work + figures.dropped,
        )
        .with("keys without a verdict", figures.undecided))
}

/// Each effect once and from then on; the last one is a full disk that every I/O may meet.
const FAULTS: [(FaultEffect, bool, bool); 11] = [
    (FaultEffect::Eio, false, false),
    (FaultEffect::Eio, true, false),
    (FaultEffect::Enospc, false, false),
    (FaultEffect::Enospc, true, false),
    (FaultEffect::ShortWrite, false, false),
    (FaultEffect::ShortWrite, true, false),
    (FaultEffect::FailedSync, false, false),
    (FaultEffect::FailedSync, true, false),
    (FaultEffect::FailedMap, false, false),
    (FaultEffect::FailedMap, true, false),
    (FaultEffect::Enospc, false, true),
];

fn faults(seed: u64, part: u64) -> Result<Counts, String> {
    let (effect, from_then_on, enospc_anywhere) = FAULTS[usize::try_from(part).unwrap_or_default()];
    let driver = FaultDriver {
        enospc_anywhere,
        ..FaultDriver::default()
    };
    let figures = driver
        .sweep(seed, effect, from_then_on, 1)
        .map_err(|violation| violation.to_string())?;
    Ok(Counts::default()
        .with("histories", figures.points)
        .with("operations", figures.points * driver.operations as u64)
        .with("fault points", figures.points))
}

/// Shares of the bytes of a database, then of its lengths, then the rest.
const FLIP_PARTS: u64 = 48;
const CUT_PARTS: u64 = 24;
const DAMAGE_PARTS: u64 = FLIP_PARTS + CUT_PARTS + 1;

fn damage(seed: u64, part: u64) -> Result<Counts, String> {
    let small = WorkloadOptions {
        keys: 25,
        value_bytes: 24,
        batch_writes_max: 6,
        reads_percent: 0,
        ..WorkloadOptions::default()
    };
    let counts = || -> Result<Counts, Violation> {
        let database = DamageDriver::new(seed, 60, small)?;
        let index = |part| usize::try_from(part).unwrap_or_default();
        let named = |name, figures: DamageFigures| Counts::default().with(name, figures.tried);
        if part < FLIP_PARTS {
            let figures = database.flip_every(index(part), index(FLIP_PARTS), seed)?;
            return Ok(named("bytes flipped", figures));
        }
        if part < FLIP_PARTS + CUT_PARTS {
            let figures = database.truncate_every(index(part - FLIP_PARTS), index(CUT_PARTS))?;
            return Ok(named("truncations", figures));
        }
        let mut counts = named("files exchanged", database.swap_every()?);
        counts.add(&named("files duplicated", database.duplicate_every()?));
        counts.add(&named("files removed", database.remove_every()?));
        counts.add(&named("files of the past put back", database.replace_by_past()?));
        counts.add(&named("files appended to", database.append_to_every(seed)?));
        Ok(counts)
    };
    counts().map_err(|violation| violation.to_string())
}

fn process(seed: u64, _part: u64) -> Result<Counts, String> {
    let driver = ProcessDriver {
        program: std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?,
        arguments: vec!["writer".into()],
        threads: 4,
        kills: 3,
    };
    let figures = driver.run(seed).map_err(|violation| violation.to_string())?;
    Ok(Counts::default().with("processes killed", figures.kills))
}
