//! The table at the end.

use std::fmt::Write;

use crate::run::Outcome;
use crate::suites::{COUNTED, Counts};

/// What was tried: in all, and suite by suite.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut total = Counts::default();
    outcome.lanes.iter().for_each(|lane| total.add(&lane.counts));
    let hours = outcome.elapsed.as_secs_f64() / 3600.0;
    let mut text = format!("\n{}", counts(&total));
    _ = writeln!(text, "{:<28}{hours:>14.3}", "hours");
    _ = writeln!(text, "{:<28}{:>14}", "threads", outcome.threads);
    _ = writeln!(text, "{:<28}{:>14}", "peak memory, MiB", peak_memory_mib());
    _ = writeln!(text, "{:<28}{:>14}", "commit", commit());
    _ = writeln!(text, "\n{:<13}{:>9}  {:<25}complete", "suite", "seconds", "seeds");
    for lane in &outcome.lanes {
        let (first, seeds) = (outcome.first_seed, lane.seeds());
        let range = format!("{first}..{}", first + seeds);
        let complete = if lane.complete == 0 {
            format!("not one of the {}", lane.suite.set)
        } else {
            format!("{} {}", lane.complete, lane.suite.set)
        };
        let seconds = lane.spent.as_secs();
        _ = writeln!(text, "{:<13}{seconds:>9}  {range:<25}{complete}", lane.suite.name);
    }
    text
}

/// One line each.
pub(crate) fn counts(counts: &Counts) -> String {
    let mut text = String::new();
    for name in COUNTED {
        if let Some(count) = counts.by_name.get(name) {
            _ = writeln!(text, "{name:<28}{count:>14}");
        }
    }
    text
}

/// The most memory that the process has had at once; 0 where the system does not say.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn commit() -> String {
    let described = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match described {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
