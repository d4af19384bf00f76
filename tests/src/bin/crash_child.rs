//! The process that `tests/process.rs` kills. Arguments: directory, threads, options seed.

use std::path::Path;
use std::process::ExitCode;

use siltstone_tests::write_until_killed;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, threads, seed] = &arguments[..] else {
        eprintln!("usage: crash_child DIRECTORY THREADS OPTIONS-SEED");
        return ExitCode::from(2);
    };
    let (Ok(threads), Ok(seed)) = (threads.parse(), seed.parse()) else {
        eprintln!("crash_child: threads and seed are numbers");
        return ExitCode::from(2);
    };
    match write_until_killed(Path::new(dir), threads, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crash_child: {error:?}");
            ExitCode::FAILURE
        }
    }
}
