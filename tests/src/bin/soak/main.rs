//! Runs all suites with fresh seeds for as long as it is told, and prints what was tried; or replays one seed.
//!
//! ```text
//! cargo run --release -p siltstone-tests --bin soak -- --minutes 30
//! cargo run --release -p siltstone-tests --bin soak -- --suite simulation --seed 42 --keep 3,17,40-44
//! ```

mod arguments;
mod report;
mod run;
mod suites;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;

use self::arguments::{Arguments, Command};
use self::run::Run;
use self::suites::Suite;

/// What the last panic said, with its place: a suite that catches it reports it.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Writer { dir, threads, seed }) = &arguments.command {
        return match siltstone_tests::write_until_killed(dir, *threads, *seed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{error:?}")),
        };
    }
    // Shortening a history that panics panics hundreds of times: only the last one is of interest, and printed once.
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
    }));
    let suites = match Suite::chosen(&arguments.suite) {
        Ok(suites) => suites,
        Err(message) => return fail(&message),
    };
    if let (Some(seed), None) = (arguments.seed, arguments.minutes) {
        return replay(&suites, seed, &arguments);
    }
    let run = Run::new(suites, arguments.seed);
    if let Err(error) = ctrlc::set_handler(run.stopper()) {
        return fail(&format!("signals cannot be handled: {error}"));
    }
    let minutes = arguments.minutes.unwrap_or(arguments::MINUTES);
    let outcome = run.work(minutes, arguments.threads());
    print!("{}", report::table(&outcome));
    match &outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => fail(failure),
    }
}

/// Runs everything that the suites do with one seed.
fn replay(suites: &[&'static Suite], seed: u64, arguments: &Arguments) -> ExitCode {
    for suite in suites {
        match suite.replay(seed, arguments.keep.as_ref(), &arguments.plain) {
            Ok(counts) => print!("{}: nothing found\n{}", suite.name, report::counts(&counts)),
            Err(failure) => return fail(&failure),
        }
    }
    ExitCode::SUCCESS
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    let panic = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = panic {
        eprintln!("the last panic: {panic}");
    }
    ExitCode::FAILURE
}
