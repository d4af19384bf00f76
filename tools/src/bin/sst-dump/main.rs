//! `sst-dump` looks inside Siltstone's tables: it checks them, lists their entries, and shows how they are laid out.
//!
//! ```text
//! sst-dump [--json] [--hex] <COMMAND> [OPTIONS] <FILE|DIR>...
//!
//! check        reads everything and verifies it: every checksum, the order of all entries, counts and bounds against
//!              the properties, every key against the filter. One line a table.
//! scan         lists the entries: key, seqno, kind (put, delete) and value, separated by tabs
//!     --from KEY     starts at this key
//!     --to KEY       ends before this key
//!     --prefix KEY   only keys that start with this
//!     --limit N      at most this many entries of each table
//! properties   what the table says about itself: counts, bounds, who wrote it
//! layout       the parts of the file in their order: kind, offset, stored and raw length, compression, entries, first key
//!
//! --hex        keys and values in hexadecimal, in the output and in --from, --to and --prefix
//! --json       check, properties, layout: one document, {"tables": [{"file": ..., ...}, ...]}; scan: one object a line
//! ```
//!
//! A `FILE` is a table, whose name ends in `.sst`; a `DIR` stands for all tables that lie directly in it. `scan` puts a
//! line `==> FILE <==` before the entries of each table where there are several.
//!
//! # Keys and values
//!
//! They are bytes. Without `--hex` they are written as ASCII in which `\t`, `\r`, `\n`, `\'`, `\"`, `\\` and `\xNN`
//! stand for what cannot be shown, so that a key can be copied from the output into `--from`; in JSON, strings hold the
//! same text (its backslashes are then doubled by JSON itself). With `--hex` they are two lowercase digits a byte
//! everywhere; given keys may have uppercase digits and a leading `0x` too.
//!
//! # Exit codes
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | every table was read, and nothing wrong was met |
//! | 1 | a table is damaged, has an unknown format, or cannot be read to its end (a bad sector) |
//! | 2 | usage: wrong arguments, a path that does not exist, cannot be opened, or is no table by its name; no table is damaged |
//!
//! `check` alone reads everything: 0 from another command says only that what it needed was sound. A file that is named
//! like a table and does not end with a table's magic number is damaged. A table that is damaged does not keep the next
//! one from being read: what can be shown is shown, and the error goes to standard error with file and offset, in JSON
//! mode into the document (the line) as well. When the reader of the output goes away, the program ends quietly.
//!
//! # Running databases
//!
//! Tables are read with positioned reads and never mapped, nothing is written, and no lock is taken: a database may be
//! open, and a file that it cuts cannot kill this program. A table that vanishes meanwhile is skipped with a remark. One
//! that is just being built or retired looks damaged, because it is incomplete; check it again.

mod args;
mod check;
mod keys;
mod layout;
mod output;
mod problem;
mod properties;
mod scan;
mod source;
mod targets;

use std::io;
use std::process::ExitCode;

use args::{Args, Request, Task};
use output::Output;
use siltstone_vfs::ErrorKind;
use source::Source;

fn main() -> ExitCode {
    let request = Args::request();
    let mut output = Output::new(io::stdout().lock(), request.format);
    let answer = run(&request, &mut output);
    output.exit_code(answer)
}

/// Works through all tables. The error is the output's: what is wrong with a table is told and left behind.
fn run(request: &Request, output: &mut Output<'_>) -> io::Result<()> {
    let targets = targets::find(&request.paths, output)?;
    let many = targets.len() > 1;
    for path in &targets {
        let source = match Source::open(path) {
            Ok(source) => source,
            // It was there a moment ago: its database has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                output.remark(path, "skipped: it has been removed meanwhile")?;
                continue;
            }
            Err(error) => {
                output.unusable(path, &error)?;
                continue;
            }
        };
        match &request.task {
            Task::Check => output.record(&source, &check::check(&source))?,
            Task::Properties => output.record(&source, &properties::properties(&source, request.notation))?,
            Task::Layout => output.record(&source, &layout::layout(&source, request.notation))?,
            Task::Scan(range) => scan::scan(&source, range, request.notation, many, output)?,
        }
    }
    output.finish()
}
