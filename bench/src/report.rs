//! What is printed and written.

use std::path::Path;

use serde::Serialize;

use crate::RunArguments;
use crate::child::Outcome;
use crate::engine::{EngineKind, Result};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) engine: String,
    pub(crate) repeat: u32,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// All runs of one engine under one workload: the run with the median throughput, and the range.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Median {
    #[serde(flatten)]
    pub(crate) run: Run,
    pub(crate) ops_per_s_min: f64,
    pub(crate) ops_per_s_max: f64,
    /// Throughput over that of the fastest other engine; `None` where there is no other.
    ratio_to_best_other: Option<f64>,
}

/// Prints engines with versions and settings.
pub(crate) fn list_engines<'k>(engines: impl Iterator<Item = &'k EngineKind>) {
    println!("engines:");
    for kind in engines {
        println!(
            "  {} ({} {})\n    {}",
            kind.name,
            kind.package,
            kind.version(),
            kind.settings
        );
    }
}

/// The medians, in the order in which workloads and engines first ran.
pub(crate) fn medians(runs: &[Run]) -> Vec<Median> {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| {
            group
                .first()
                .is_some_and(|first| first.workload == run.workload && first.engine == run.engine)
        }) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let mut medians: Vec<Median> = groups
        .into_iter()
        .map(|mut group| {
            group.sort_by(|a, b| a.outcome.ops_per_s.total_cmp(&b.outcome.ops_per_s));
            // Of an even number the slower of the middle two.
            let middle = group[(group.len() - 1) / 2];
            Median {
                run: middle.clone(),
                ops_per_s_min: group[0].outcome.ops_per_s,
                ops_per_s_max: group[group.len() - 1].outcome.ops_per_s,
                ratio_to_best_other: None,
            }
        })
        .collect();
    for at in 0..medians.len() {
        let this = &medians[at];
        let best = medians
            .iter()
            .filter(|other| other.run.workload == this.run.workload && other.run.engine != this.run.engine)
            .map(|other| other.run.outcome.ops_per_s)
            .max_by(f64::total_cmp);
        medians[at].ratio_to_best_other = best.map(|best| medians[at].run.outcome.ops_per_s / best);
    }
    medians
}

/// Prints the medians.
pub(crate) fn table(runs: &[Run]) {
    println!(
        "\n{:<17} {:<10} {:>11} {:>23} {:>6} {:>9} {:>9} {:>10} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "workload",
        "engine",
        "ops/s",
        "min .. max",
        "ratio",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu us",
        "+settle",
        "anon MiB",
        "map MiB",
        "wrote MiB",
        "disk/log"
    );
    let mut last = String::new();
    let mut sorted = medians(runs);
    let order = |name: &str| runs.iter().position(|run| run.workload == name);
    sorted.sort_by_key(|median| order(&median.run.workload));
    for median in sorted {
        let Run {
            workload,
            engine,
            outcome,
            ..
        } = &median.run;
        if *workload != last && !last.is_empty() {
            println!();
        }
        last.clone_from(workload);
        let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns as f64 / 1e3));
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        println!(
            "{workload:<17} {engine:<10} {:>11} {:>23} {:>6} {:>9} {:>9} {:>10} {:>7.2} {:>7.2} {:>9} {:>9} {:>9} {:>9}",
            rate(outcome.ops_per_s),
            format!("{} .. {}", rate(median.ops_per_s_min), rate(median.ops_per_s_max)),
            median
                .ratio_to_best_other
                .map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            us(outcome.p50_ns),
            us(outcome.p99_ns),
            us(outcome.p999_ns),
            outcome.cpu_us_per_op,
            outcome.cpu_settled_us_per_op,
            mib(outcome.peak_anonymous_bytes),
            mib(outcome.peak_mapped_bytes),
            outcome.written_bytes.map_or("-".to_owned(), mib),
            if outcome.logical_bytes == 0 {
                "-".to_owned()
            } else {
                format!("{:.2}", outcome.disk_bytes as f64 / outcome.logical_bytes as f64)
            },
        );
        if let Some(writer) = outcome.writer_ops_per_s {
            println!("{:<17} {:<10} {writer:>11.0} (its writer)", "", "");
        }
    }
}

/// Operations a second, with decimals where there are few.
fn rate(ops_per_s: f64) -> String {
    if ops_per_s < 100.0 {
        format!("{ops_per_s:.2}")
    } else {
        format!("{ops_per_s:.0}")
    }
}

/// Writes medians and single runs.
pub(crate) fn json(
    path: &Path,
    arguments: &RunArguments,
    engines: &[&EngineKind],
    runs: &[Run],
) -> Result<()> {
    let engines: Vec<_> = engines
        .iter()
        .map(|kind| {
            serde_json::json!({"name": kind.name, "package": kind.package, "version": kind.version(),
                               "settings": kind.settings})
        })
        .collect();
    let report = serde_json::json!({
        "n": arguments.n,
        "repeat": arguments.repeat,
        "value_bytes": arguments.value_bytes,
        "key_prefix_bytes": arguments.key_prefix_bytes,
        "cache_state": "warm",
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "engines": engines,
        "results": medians(runs),
        "runs": runs,
    });
    std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_have_range_and_ratio() {
        let run = |engine: &str, ops_per_s| Run {
            workload: "scan".to_owned(),
            engine: engine.to_owned(),
            repeat: 0,
            outcome: Outcome {
                ops_per_s,
                ..Outcome::default()
            },
        };
        let medians = medians(&[run("a", 30.0), run("b", 5.0), run("a", 10.0), run("a", 20.0)]);
        assert_eq!(medians.len(), 2);
        let a = &medians[0];
        assert_eq!(
            (a.run.outcome.ops_per_s, a.ops_per_s_min, a.ops_per_s_max),
            (20.0, 10.0, 30.0)
        );
        assert_eq!(a.ratio_to_best_other, Some(4.0));
    }
}
