//! Siltstone side by side with the stores one would otherwise choose; README.md says how to run it and how it is
//! kept fair.

mod bound;
mod cgroup;
mod child;
mod cold;
mod data;
mod engine;
mod engines;
mod limit;
mod measure;
mod page;
mod parent;
mod report;
mod timeline;
mod workload;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use tempfile::TempDir;

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
        /// Bytes of a value, which is what a random read takes; an append takes 16 more.
        #[arg(long, default_value_t = 100)]
        value_bytes: usize,
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
    /// Records; with several numbers, separated by commas, everything is run for each and growth is drawn.
    #[arg(long, value_delimiter = ',', default_value = "5000000")]
    pub(crate) n: Vec<u64>,
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
    /// Whether engines that can are to compress; values are then half zeros.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// Memory of cold runs, page cache included, in MiB.
    #[arg(long, default_value_t = 256)]
    pub(crate) cold_memory_mib: u64,
    /// Leave out the machine's limits, which take some seconds at the start.
    #[arg(long)]
    pub(crate) no_limits: bool,
    /// Where the databases are made; the system's temporary directory if not given.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where the results go as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Where a page of plots goes as HTML.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
}

/// What becomes of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Noise, stored as it is.
    None,
    /// Half noise, half zeros, compressed as each engine recommends.
    On,
}

/// A directory of this run's own, on the disk that `dir` names.
fn scratch(dir: Option<&Path>) -> engine::Result<TempDir> {
    Ok(match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            tempfile::tempdir_in(dir)?
        }
        None => tempfile::tempdir()?,
    })
}

fn print_limits(memory_bytes: usize, value_bytes: usize, dir: Option<&Path>) -> engine::Result<()> {
    let scope = limit::Scope {
        memory_bytes,
        value_bytes,
        record_bytes: data::KEY_BYTES + value_bytes,
        threads: vec![1, 8],
    };
    limit::Limits::measure(scratch(dir)?.path(), &scope)?.print();
    Ok(())
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
        Command::Limit {
            bytes,
            value_bytes,
            dir,
        } => print_limits(bytes, value_bytes, dir.as_deref()),
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
