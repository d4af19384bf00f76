//! `mutants`: makes hand-made mistakes in a copy of the engine, one after the other, and shows that each is noticed.
//!
//! ```console
//! cargo run --release -p siltstone-tests --bin mutants
//! cargo run --release -p siltstone-tests --bin mutants -- --list
//! cargo run --release -p siltstone-tests --bin mutants -- --only ack-before-sync,cursor-shows-newer
//! ```
//!
//! Every suite that is named must pass without a mistake first. Then each mutation is applied to a copy of the working
//! tree, the suite that has to catch it is built and run, and a line says what became of it: caught, with the test and
//! the times to build and to catch; or survived, which is a missing test. The exit status is 0 only if all were caught.

mod copy;
mod list;
mod suite;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::copy::Copy;
use crate::list::{MUTATIONS, Mutation};
use crate::suite::{Suite, Verdict};

/// Makes mistakes in a copy of the engine, and shows that a suite catches each.
#[derive(Debug, Parser)]
struct Arguments {
    /// Prints the mutations, a line each, and does nothing.
    #[arg(long)]
    list: bool,
    /// Only these, by name.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Only those of these areas.
    #[arg(long, value_delimiter = ',')]
    area: Vec<String>,
    /// Ends with the first mutation that is not caught.
    #[arg(long)]
    stop: bool,
    /// The longest that a suite may run, in seconds; one that takes longer hangs, and counts as caught.
    #[arg(long, default_value_t = 240, value_name = "SECONDS")]
    limit: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("mutants: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was caught.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let chosen = choose(arguments)?;
    if arguments.list {
        for mutation in chosen {
            println!(
                "{:36} {:11} {} ({}; caught by {})",
                mutation.name, mutation.area, mutation.breaks, mutation.file, mutation.suite
            );
        }
        return Ok(true);
    }
    let start = Instant::now();
    let limit = Duration::from_secs(arguments.limit);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = Copy::of(&workspace)?;
    check_baseline(&copy, &chosen, limit)?;
    let mut figures = Figures::default();
    for mutation in &chosen {
        let caught = try_one(&copy, mutation, limit, &mut figures);
        if arguments.stop && !caught {
            break;
        }
    }
    println!(
        "{} mutations: {} caught ({} of them by a hang), {} survived, {} not tried; {:.1} min",
        figures.caught + figures.survived + figures.broken,
        figures.caught,
        figures.hung,
        figures.survived,
        figures.broken,
        start.elapsed().as_secs_f64() / 60.0
    );
    Ok(figures.caught == chosen.len())
}

fn choose(arguments: &Arguments) -> Result<Vec<&'static Mutation>, String> {
    let known = |name: &String| MUTATIONS.iter().any(|mutation| mutation.name == name);
    if let Some(unknown) = arguments.only.iter().find(|name| !known(name)) {
        return Err(format!(
            "there is no mutation called {unknown}; --list names them"
        ));
    }
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
    let chosen: Vec<_> = MUTATIONS
        .iter()
        .filter(|mutation| wanted(&arguments.only, mutation.name) && wanted(&arguments.area, mutation.area))
        .collect();
    if chosen.is_empty() {
        return Err("nothing is chosen; --list names the areas".into());
    }
    Ok(chosen)
}

/// A suite that fails by itself proves nothing.
fn check_baseline(copy: &Copy, chosen: &[&Mutation], limit: Duration) -> Result<(), String> {
    let mut suites: Vec<Suite> = Vec::new();
    for mutation in chosen {
        if !suites.contains(&mutation.suite) {
            suites.push(mutation.suite);
        }
    }
    for suite in suites {
        let built = suite.build(&copy.root(), &copy.target_dir())?;
        match built.run(&suite, limit)? {
            (Verdict::Passed, elapsed) => {
                println!(
                    "sound     {:>6} {:>6}  {suite}",
                    seconds(built.elapsed),
                    seconds(elapsed)
                );
            }
            (verdict, _) => return Err(format!("{suite} does not pass without a mutation: {verdict:?}")),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Figures {
    caught: usize,
    hung: usize,
    survived: usize,
    /// No longer applicable, or not compiled.
    broken: usize,
}

/// Whether the mutation was caught.
fn try_one(copy: &Copy, mutation: &Mutation, limit: Duration, figures: &mut Figures) -> bool {
    let suite = &mutation.suite;
    let outcome = copy.mutated(mutation, || {
        let built = suite.build(&copy.root(), &copy.target_dir())?;
        let (verdict, elapsed) = built.run(suite, limit)?;
        Ok((verdict, built.elapsed, elapsed))
    });
    let name = mutation.name;
    let line = |what: &str, build, run, how: String| {
        println!(
            "{what:9} {:>6} {:>6}  {name}: {how}",
            seconds(build),
            seconds(run)
        );
    };
    match outcome {
        Ok((Verdict::Failed { tests, message }, build, run)) => {
            figures.caught += 1;
            let by = if tests.is_empty() {
                format!("{suite}, which died")
            } else {
                tests.join(", ")
            };
            line("caught", build, run, format!("{by}: {message}"));
            true
        }
        Ok((Verdict::Hung, build, run)) => {
            figures.caught += 1;
            figures.hung += 1;
            line("hung", build, run, format!("{suite} did not end"));
            true
        }
        Ok((Verdict::Passed, build, run)) => {
            figures.survived += 1;
            line(
                "SURVIVED",
                build,
                run,
                format!("{suite} passes, although {} breaks", mutation.breaks),
            );
            false
        }
        Err(why) => {
            figures.broken += 1;
            println!("NOT TRIED  {name}: {why}");
            false
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
