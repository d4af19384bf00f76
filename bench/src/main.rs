//! Siltstone side by side with the stores one would otherwise choose; README.md says how to run it and how it is
//! kept fair.

mod child;
mod data;
mod engine;
mod engines;
mod limit;
mod measure;
mod page;
mod parent;
mod report;
mod workload;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "siltstone-bench", about = "Siltstone side by side with its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure engines under workloads.
    Run(RunArguments),
    /// Name the engines of this build, with versions and settings, and the workloads.
    List,
    /// Measure what the machine could do at best.
    Limit {
        /// Bytes of the memory that is read at random.
        #[arg(long, default_value_t = 512 << 20)]
        bytes: usize,
        /// Where files are made; the system's temporary directory if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// One run, for the parent process.
    #[command(hide = true)]
    Child {
        /// The order, as JSON.
        order: String,
    },
}

/// What `run` can be told.
#[derive(clap::Args)]
pub(crate) struct RunArguments {
    /// Engines, separated by commas; all of this build if not given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) engines: Vec<String>,
    /// Workloads, separated by commas, `name` or `name@threads`; all if not given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) workloads: Vec<String>,
    /// Records.
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) n: u64,
    /// Runs of each engine and workload; medians are reported.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeat: u32,
    /// Threads of the workloads that can have several and name none.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    pub(crate) value_bytes: usize,
    /// Bytes of a prefix that all keys share, before their own 16 bytes (at most 64).
    #[arg(long, default_value_t = 0)]
    pub(crate) key_prefix_bytes: usize,
    /// Where the databases are made; the system's temporary directory if not given.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where the results go as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where a page of bars goes as HTML.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => parent::run(&arguments),
        Command::List => {
            report::list_engines(engine::ENGINES.iter());
            println!("workloads:");
            workload::list();
            Ok(())
        }
        Command::Limit { bytes, dir } => limit::print(bytes, dir.as_deref()),
        Command::Child { order } => serde_json::from_str(&order)
            .map_err(Into::into)
            .and_then(|order| child::obey(&order)),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
