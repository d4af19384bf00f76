//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use siltstone_tests::{OptionGroup, StepSet};

/// How long it runs where nothing is said.
pub(crate) const MINUTES: f64 = 30.0;

/// Runs the suites with fresh seeds, and prints what was tried.
///
/// Ends with status 1 and a command that replays the failure if anything is found.
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub(crate) struct Arguments {
    /// How long to run, in minutes; fractions are welcome. [default: 30, or one replay where a seed is given]
    #[arg(long, value_parser = minutes)]
    pub(crate) minutes: Option<f64>,
    /// The suites, separated by commas; all where none is given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) suite: Vec<String>,
    /// The first seed; alone, the seed to replay.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The steps of a history to replay, such as 3,17,40-44; all where none is given.
    #[arg(long, requires = "seed", conflicts_with = "minutes")]
    pub(crate) keep: Option<StepSet>,
    /// The groups of options that are left at their defaults in a replay.
    #[arg(long, value_delimiter = ',', requires = "seed", conflicts_with = "minutes")]
    pub(crate) plain: Vec<OptionGroup>,
    /// How many threads to run on. [default: as many as there are processors]
    #[arg(long)]
    threads: Option<usize>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The process that the kill suite starts and kills.
    #[command(hide = true)]
    Writer {
        /// The database.
        dir: PathBuf,
        /// How many threads write.
        threads: u64,
        /// The seed of the options.
        seed: u64,
    },
}

impl Arguments {
    pub(crate) fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(processors).max(1)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes < 1e6 => Ok(minutes),
        _ => Err("a positive number of minutes is needed".to_owned()),
    }
}
