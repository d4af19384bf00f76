//! The command line, and the request it stands for.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::keys::Notation;
use crate::output::Format;
use crate::scan::Range;

const EXIT_CODES: &str = "\
Exit codes:
  0  every table was read, and nothing wrong was met (only `check` reads everything)
  1  a table is damaged, has an unknown format, or cannot be read to its end;
     a file named *.sst without a table's magic number counts as damaged
  2  usage: wrong arguments, a path that does not exist, cannot be opened, or is no table
     by its name

Keys and values are shown as ASCII with \\t \\r \\n \\' \\\" \\\\ and \\xNN for the rest, in JSON too, and
keys are given the same way; with --hex both are hexadecimal. Tables are read without a lock and
without mapping them: the database may be open. A table that is being built or retired at that
moment looks damaged.";

/// Looks inside Siltstone tables: checks them, lists their entries, shows how they are laid out.
#[derive(Debug, Parser)]
#[command(name = "sst-dump", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Write JSON: one document, or one object a line for `scan`
    #[arg(long, global = true)]
    json: bool,

    /// Show keys and values in hexadecimal, and take keys in it
    #[arg(long, global = true)]
    hex: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read everything and verify it: checksums, order, counts, filter; one line a table
    #[command(after_help = EXIT_CODES)]
    Check(Paths),
    /// List the entries: key, seqno, kind and value
    #[command(after_help = EXIT_CODES)]
    Scan(ScanArgs),
    /// Show what a table says about itself
    #[command(after_help = EXIT_CODES)]
    Properties(Paths),
    /// Show the parts of the file in their order
    #[command(after_help = EXIT_CODES)]
    Layout(Paths),
}

#[derive(Debug, clap::Args)]
struct Paths {
    /// Tables (*.sst), or directories with tables in them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ScanArgs {
    /// Start at this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    from: Option<String>,

    /// End before this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    to: Option<String>,

    /// Only keys that start with this
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    prefix: Option<String>,

    /// At most this many entries of each table
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    #[command(flatten)]
    paths: Paths,
}

/// What is to be done with each table.
#[derive(Debug)]
pub(crate) enum Task {
    Check,
    Scan(Range),
    Properties,
    Layout,
}

/// The whole request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) task: Task,
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) format: Format,
    pub(crate) notation: Notation,
}

impl Args {
    /// The request of this process's arguments. Ends the process where they ask for help or are wrong.
    pub(crate) fn request() -> Request {
        let args = Args::parse();
        let notation = if args.hex {
            Notation::Hex
        } else {
            Notation::Escaped
        };
        let format = match (args.json, &args.command) {
            (false, _) => Format::Text,
            (true, Command::Scan(_)) => Format::JsonLines,
            (true, _) => Format::JsonDocument,
        };
        let (task, paths) = match args.command {
            Command::Check(paths) => (Task::Check, paths),
            Command::Properties(paths) => (Task::Properties, paths),
            Command::Layout(paths) => (Task::Layout, paths),
            Command::Scan(scan) => match scan.range(notation) {
                Ok(range) => (Task::Scan(range), scan.paths),
                Err(message) => Args::command().error(ErrorKind::ValueValidation, message).exit(),
            },
        };
        Request {
            task,
            paths: paths.paths,
            format,
            notation,
        }
    }
}

impl ScanArgs {
    fn range(&self, notation: Notation) -> Result<Range, String> {
        let key = |option: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match notation.parse(text) {
                Ok(key) => Ok(Some(key)),
                Err(why) => Err(format!("{option} {text}: {why}")),
            },
        };
        let range = Range {
            from: key("--from", &self.from)?,
            to: key("--to", &self.to)?,
            prefix: key("--prefix", &self.prefix)?,
            limit: self.limit,
        };
        match (&range.from, &range.to) {
            (Some(from), Some(to)) if from > to => Err("--from lies behind --to".to_owned()),
            _ => Ok(range),
        }
    }
}
