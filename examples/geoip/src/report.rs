//! What is printed: the state of the database after each step, side by side, and the figures of each step.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use siltstone::{Db, Metrics};

use crate::Result;
use crate::job::Outcome;
use crate::reference::Reference;

/// The state of database and process at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    name: &'static str,
    entries: u64,
    metrics: Metrics,
    tables_retired: u64,
    files: Files,
    resident: Resident,
}

/// Bytes of the files in the database's directory, by kind.
#[derive(Clone, Copy, Debug, Default)]
struct Files {
    tables: u64,
    log: u64,
    other: u64,
}

/// Resident bytes of the process; zero where the system has no `/proc`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Resident {
    anonymous: u64,
    file: u64,
}

impl Shot {
    /// `entries` were found by a scan; `retired_before` tables were retired before this opening.
    pub(crate) fn take(
        name: &'static str,
        dir: &Path,
        db: &Db,
        entries: u64,
        retired_before: u64,
    ) -> Result<Shot> {
        let metrics = db.metrics();
        if let Some(error) = metrics.background_errors.first() {
            return Err(format!("background work failed: {error}").into());
        }
        let tables_retired = retired_before + metrics.tables_retired;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = Resident::of(&status);
        Ok(Shot {
            name,
            entries,
            metrics,
            tables_retired,
            files: Files::of(dir)?,
            resident,
        })
    }
}

impl Files {
    fn of(dir: &Path) -> Result<Files> {
        let mut files = Files::default();
        for file in std::fs::read_dir(dir)? {
            let file = file?;
            // Background work may remove a file between its listing and this.
            let Ok(metadata) = file.metadata() else { continue };
            let bytes = metadata.len();
            match Path::new(&file.file_name())
                .extension()
                .and_then(|extension| extension.to_str())
            {
                Some("sst") => files.tables += bytes,
                Some("wal") => files.log += bytes,
                _ => files.other += bytes,
            }
        }
        Ok(files)
    }
}

impl Resident {
    fn of(status: &str) -> Resident {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        };
        Resident {
            anonymous: bytes("RssAnon:").unwrap_or(0),
            file: bytes("RssFile:").unwrap_or(0),
        }
    }
}

/// The whole report.
pub(crate) fn print(out: &mut impl Write, source: &Reference, outcome: &Outcome) -> fmt::Result {
    writeln!(out, "{}", table(&rows(&outcome.shots)))?;
    let (v4, v6) = source.counts();
    let ranges = source.ranges().len();
    let rate = thousands(per_second(ranges as u64, outcome.load_took));
    let took = seconds(outcome.load_took);
    line(
        out,
        "load",
        format!("{ranges} ranges ({v4} IPv4, {v6} IPv6) in {took}: {rate} a second"),
    )?;
    line(
        out,
        "",
        format!(
            "then flush and compactions until idle: {}",
            seconds(outcome.flush_took)
        ),
    )?;
    if let Some(speed) = &outcome.speed {
        let lookups = speed.latency_ns.len();
        let threads = speed.threads;
        let took = seconds(speed.wall);
        line(
            out,
            "lookups under load",
            format!("{} on {threads} threads in {took}", thousands(lookups)),
        )?;
        let alone = speed.in_lookups.div_f64(threads as f64);
        let (alone, all) = (per_second(lookups, alone), per_second(lookups, speed.wall));
        let text = format!(
            "{} a second; {} with the check of each",
            thousands(alone),
            thousands(all)
        );
        line(out, "", text)?;
        let at = |quantile| nanoseconds(speed.latency_ns.value_at_quantile(quantile));
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), nanoseconds(speed.latency_ns.max()));
        line(
            out,
            "",
            format!("p50 {p50}, p99 {p99}, p99.9 {p999}, longest {max}"),
        )?;
    }
    let churned = outcome.churned;
    let (rounds, entries) = (churned.rounds, thousands(churned.entries));
    let text = format!("{entries} entries written meanwhile, {rounds} rounds compacted and dropped");
    line(out, "background load", text)?;
    let text = format!("{} flushes, {} compactions", outcome.flushes, outcome.compactions);
    line(out, "background work", text)?;
    let bytes = size(outcome.bytes_retired);
    line(
        out,
        "obsolete files",
        format!("{} tables retired, {bytes}", outcome.tables_retired),
    )?;
    let compacted = seconds(outcome.compact_took);
    line(
        out,
        "delete",
        format!("{} ranges, compacted in {compacted}", outcome.deleted),
    )?;
    let (took, blocks) = (seconds(outcome.reopen_took), outcome.sound_blocks);
    line(out, "reopen", format!("{took}; {blocks} blocks verified"))?;
    let (lookups, wrong) = (thousands(outcome.checked.lookups), outcome.checked.wrong);
    line(
        out,
        "checked",
        format!("{lookups} lookups against a binary search: {wrong} wrong"),
    )?;
    line(
        out,
        "",
        format!(
            "(the reference takes {} of the anonymous memory)",
            size(source.size_bytes() as u64)
        ),
    )
}

fn line(out: &mut impl Write, name: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(out, "{name:<20}{text}")
}

/// One column for each shot.
fn rows(shots: &[Shot]) -> Vec<Vec<String>> {
    let row = |name: &str, cell: &dyn Fn(&Shot) -> String| {
        std::iter::once(name.to_owned())
            .chain(shots.iter().map(cell))
            .collect::<Vec<_>>()
    };
    let mut rows = vec![
        row("", &|shot| shot.name.to_owned()),
        row("entries, live", &|shot| thousands(shot.entries)),
        row("entries in tables", &|shot| thousands(shot.metrics.table_entries)),
    ];
    for level in 0..siltstone::LEVELS {
        if shots.iter().any(|shot| shot.metrics.levels[level].0 > 0) {
            rows.push(row(
                &format!("level {level}"),
                &|shot| match shot.metrics.levels[level] {
                    (0, _) => "-".to_owned(),
                    (1, bytes) => format!("1 table, {}", size(bytes)),
                    (tables, bytes) => format!("{tables} tables, {}", size(bytes)),
                },
            ));
        }
    }
    rows.push(row("table files", &|shot| size(shot.files.tables)));
    rows.push(row("log files", &|shot| size(shot.files.log)));
    rows.push(row("other files", &|shot| size(shot.files.other)));
    rows.push(row("memtables", &|shot| size(shot.metrics.memtable_bytes)));
    rows.push(row("resident, anonymous", &|shot| size(shot.resident.anonymous)));
    rows.push(row("resident, files", &|shot| size(shot.resident.file)));
    rows.push(row("tables retired", &|shot| thousands(shot.tables_retired)));
    rows
}

/// Columns aligned: the first to the left, the others to the right; a rule under the first row.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
        if number == 0 {
            text.push_str(&"─".repeat(widths.iter().sum::<usize>() + 3 * columns.saturating_sub(1)));
            text.push('\n');
        }
    }
    text
}

fn per_second(count: u64, took: Duration) -> u64 {
    let nanoseconds = took.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        1..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{} µs", time.as_micros()),
        10..10_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn nanoseconds(time: u64) -> String {
    match time {
        0..10_000 => format!("{time} ns"),
        _ => seconds(Duration::from_nanos(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = table(&[row(&["", "a", "bbb"]), row(&["name", "1,000", "2"])]);
        assert_eq!(
            text,
            "           a   bbb\n──────────────────\nname   1,000     2\n"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1023, 1536, 3 << 20].map(size),
            ["0", "1023 B", "1.5 KiB", "3.0 MiB"]
        );
        assert_eq!(per_second(10, Duration::from_millis(500)), 20);
        assert_eq!(
            [9_999, 20_000, 30_000_000].map(nanoseconds),
            ["9999 ns", "20 µs", "30 ms"]
        );
    }

    #[test]
    fn residency_is_read_from_the_status_file() {
        let status = "Name:\tgeoip\nVmRSS:\t  9 kB\nRssAnon:\t      12 kB\nRssFile:\t       3 kB\n";
        assert_eq!(
            Resident::of(status),
            Resident {
                anonymous: 12 << 10,
                file: 3 << 10
            }
        );
        assert_eq!(Resident::of("RssAnon: many kB"), Resident::default());
    }
}
