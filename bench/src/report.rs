//! What is printed and written.

use std::path::Path;

use serde::Serialize;

use crate::RunArguments;
use crate::child::{Outcome, WARM};
use crate::engine::{EngineKind, Result};
use crate::limit::Limits;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) n: u64,
    pub(crate) workload: String,
    pub(crate) engine: String,
    pub(crate) repeat: u32,
    /// What the machine's limits allow, as `list` explains; `None` where nothing honest can be said.
    pub(crate) limit_ops_per_s: Option<f64>,
    pub(crate) of_limit: Option<f64>,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

impl Run {
    fn is_beside(&self, other: &Self) -> bool {
        self.n == other.n && self.workload == other.workload
    }
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
        println!("    {}", compression(kind));
    }
}

/// What becomes of an engine when compression is asked for.
pub(crate) fn compression(kind: &EngineKind) -> String {
    match kind.compression {
        Some(how) => format!("with --compression on: {how}"),
        None => "with --compression on: has none, runs without".to_owned(),
    }
}

/// The medians, in the order in which workloads and engines first ran.
pub(crate) fn medians(runs: &[Run]) -> Vec<Median> {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| {
            group
                .first()
                .is_some_and(|first| first.is_beside(run) && first.engine == run.engine)
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
            .filter(|other| other.run.is_beside(&this.run) && other.run.engine != this.run.engine)
            .map(|other| other.run.outcome.ops_per_s)
            .max_by(f64::total_cmp);
        medians[at].ratio_to_best_other = best.map(|best| medians[at].run.outcome.ops_per_s / best);
    }
    medians
}

/// Prints the medians of runs of one number of records.
pub(crate) fn table(runs: &[Run]) {
    println!(
        "\n{:<17} {:<12} {:>11} {:>23} {:>6} {:>8} {:>9} {:>9} {:>10} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "workload",
        "engine",
        "ops/s",
        "min .. max",
        "ratio",
        "of limit",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu us",
        "+settle",
        "anon MiB",
        "map MiB",
        "wrote MiB",
        "read MiB",
        "disk/log"
    );
    let mut sorted = medians(runs);
    let order = |name: &str| runs.iter().position(|run| run.workload == name);
    sorted.sort_by_key(|median| order(&median.run.workload));
    for together in sorted.chunk_by(|a, b| a.run.is_beside(&b.run)) {
        for median in together {
            row(median);
        }
        if let Some(first) = together.first() {
            remarks(&first.run);
        }
        println!();
    }
}

fn row(median: &Median) {
    let Run {
        workload,
        engine,
        outcome,
        of_limit,
        ..
    } = &median.run;
    let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns as f64 / 1e3));
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let two = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let disk = (outcome.logical_bytes > 0).then(|| outcome.disk_bytes as f64 / outcome.logical_bytes as f64);
    println!(
        "{workload:<17} {engine:<12} {:>11} {:>23} {:>6} {:>8} {:>9} {:>9} {:>10} {:>7.2} {:>7.2} {:>9} {:>9} {:>9} {:>9} {:>9}",
        rate(outcome.ops_per_s),
        format!("{} .. {}", rate(median.ops_per_s_min), rate(median.ops_per_s_max)),
        two(median.ratio_to_best_other),
        of_limit.map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0)),
        us(outcome.p50_ns),
        us(outcome.p99_ns),
        us(outcome.p999_ns),
        outcome.cpu_us_per_op,
        outcome.cpu_settled_us_per_op,
        mib(outcome.peak_anonymous_bytes),
        mib(outcome.peak_mapped_bytes),
        outcome.written_bytes.map_or("-".to_owned(), mib),
        outcome.read_bytes.map_or("-".to_owned(), mib),
        two(disk),
    );
    if let Some(writer) = outcome.writer_ops_per_s {
        println!("{:<17} {:<12} {writer:>11.0} (its writer)", "", "");
    }
}

/// What holds for all engines of a workload.
fn remarks(run: &Run) {
    if let Some(limit) = run.limit_ops_per_s {
        println!("{:<17} {:<12} {:>11}", run.workload, "(limit)", rate(limit));
    }
    if run.outcome.cache_state != WARM {
        println!("{:<17} {}", run.workload, run.outcome.cache_state);
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

/// Writes medians and single runs; distributions and courses are given for the medians alone.
pub(crate) fn json(
    path: &Path,
    arguments: &RunArguments,
    engines: &[&EngineKind],
    limits: &[Limits],
    runs: &[Run],
) -> Result<()> {
    let engines: Vec<_> = engines
        .iter()
        .map(|kind| {
            serde_json::json!({"name": kind.name, "package": kind.package, "version": kind.version(),
                               "settings": kind.settings, "compression": kind.compression})
        })
        .collect();
    let singles: Vec<Run> = runs
        .iter()
        .map(|run| Run {
            outcome: Outcome {
                latency_percentiles_ns: None,
                timeline: None,
                ..run.outcome.clone()
            },
            ..run.clone()
        })
        .collect();
    let report = serde_json::json!({
        "n": arguments.n,
        "repeat": arguments.repeat,
        "value_bytes": arguments.value_bytes,
        "key_prefix_bytes": arguments.key_prefix_bytes,
        "compression": arguments.compression,
        "cold_memory_mib": arguments.cold_memory_mib,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "limits": limits,
        "engines": engines,
        "results": medians(runs),
        "runs": singles,
    });
    std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_have_range_and_ratio() {
        let run = |n, engine: &str, ops_per_s| Run {
            workload: "scan".to_owned(),
            engine: engine.to_owned(),
            n,
            repeat: 0,
            limit_ops_per_s: None,
            of_limit: None,
            outcome: Outcome {
                ops_per_s,
                ..Outcome::default()
            },
        };
        let medians = medians(&[
            run(5, "a", 30.0),
            run(5, "b", 5.0),
            run(5, "a", 10.0),
            run(5, "a", 20.0),
            run(50, "b", 7.0),
        ]);
        assert_eq!(medians.len(), 3);
        let a = &medians[0];
        assert_eq!(
            (a.run.outcome.ops_per_s, a.ops_per_s_min, a.ops_per_s_max),
            (20.0, 10.0, 30.0)
        );
        assert_eq!(a.ratio_to_best_other, Some(4.0));
        // Other numbers of records are not held against each other.
        assert_eq!(medians[2].ratio_to_best_other, None);
    }
}
