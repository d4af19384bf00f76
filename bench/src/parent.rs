//! What the parent does: one child process a run, engines interleaved, sums compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bound;
use crate::cgroup::MemoryGroup;
use crate::child::{Order, Outcome, Stage};
use crate::cold::Cold;
use crate::data::{Data, KEY_BYTES, KEY_PREFIX_BYTES_MAX};
use crate::engine::{ENGINES, EngineKind, Result, engine_named};
use crate::limit::{Limits, Scope};
use crate::page;
use crate::report::{self, Run};
use crate::workload::{ALL, Ground, Work, Workload};
use crate::{Compression, RunArguments, scratch};

/// What a run is about.
struct Plan<'a> {
    arguments: &'a RunArguments,
    engines: Vec<&'static EngineKind>,
    workloads: Vec<Workload>,
}

/// Runs everything that was asked for, prints tables and writes JSON and page.
pub(crate) fn run(arguments: &RunArguments) -> Result<()> {
    let plan = Plan::new(arguments)?;
    let root = scratch(arguments.dir.as_deref())?;
    report::list_engines(plan.engines.iter().copied());
    println!(
        "cache state: warm (one scan and n/10 gets before each timed phase over loaded records), unless said"
    );
    let (mut runs, mut limits) = (Vec::new(), Vec::new());
    for n in &arguments.n {
        println!("\nn = {n}");
        // Dropped, and so removed, before the next one needs the disk.
        let dir = tempfile::tempdir_in(root.path())?;
        if !arguments.no_limits {
            let measured = Limits::measure(dir.path(), &plan.scope(*n)?)?;
            measured.print();
            limits.push(measured);
        }
        let of_this_n = Size {
            plan: &plan,
            n: *n,
            dir: dir.path(),
            limits: limits.last(),
        }
        .run()?;
        report::table(&of_this_n);
        runs.extend(of_this_n);
    }
    if let Some(path) = &arguments.json {
        report::json(path, arguments, &plan.engines, &limits, &runs)?;
    }
    if let Some(path) = &arguments.html {
        page::write(path, &plan.heading(), &plan.engines, &report::medians(&runs))?;
    }
    compare_sums(&runs)
}

impl<'a> Plan<'a> {
    fn new(arguments: &'a RunArguments) -> Result<Self> {
        let engines = if arguments.engines.is_empty() {
            ENGINES.iter().collect()
        } else {
            arguments
                .engines
                .iter()
                .map(|name| engine_named(name))
                .collect::<Result<_>>()?
        };
        let names: Vec<&str> = if arguments.workloads.is_empty() {
            ALL.split(',').collect()
        } else {
            arguments.workloads.iter().map(String::as_str).collect()
        };
        let workloads = names
            .into_iter()
            .map(|name| Workload::parse(name, arguments.threads))
            .collect::<Result<_>>()?;
        if arguments.key_prefix_bytes > KEY_PREFIX_BYTES_MAX {
            return Err(format!("a common prefix can have at most {KEY_PREFIX_BYTES_MAX} bytes").into());
        }
        if arguments.n.iter().any(|n| *n < 4) {
            return Err("at least 4 records are needed".into());
        }
        Ok(Self {
            arguments,
            engines,
            workloads,
        })
    }

    /// What limits to measure: memory as large as the data, within reason.
    fn scope(&self, n: u64) -> Result<Scope> {
        let data = self.data(n);
        let record_bytes = usize::try_from(data.logical_bytes(1))?;
        let most = (4 * record_bytes).max(1 << 30);
        let mut threads: Vec<u64> = self
            .workloads
            .iter()
            .filter(|workload| workload.work == Work::ColdRead)
            .map(|workload| workload.threads)
            .collect();
        threads.sort_unstable();
        threads.dedup();
        Ok(Scope {
            memory_bytes: usize::try_from(data.logical_bytes(n))?
                .clamp((4 * record_bytes).max(1 << 20), most)
                .next_multiple_of(4096),
            value_bytes: self.arguments.value_bytes,
            record_bytes,
            threads,
        })
    }

    fn data(&self, n: u64) -> Data {
        let arguments = self.arguments;
        Data::new(
            n,
            arguments.value_bytes,
            arguments.key_prefix_bytes,
            arguments.compression == Compression::On,
        )
    }

    fn heading(&self) -> String {
        let RunArguments {
            n,
            repeat,
            value_bytes,
            key_prefix_bytes,
            compression,
            ..
        } = self.arguments;
        let n: Vec<String> = n.iter().map(u64::to_string).collect();
        let compression = match compression {
            Compression::None => "not compressed",
            Compression::On => "compressed where the engine can",
        };
        format!(
            "{} records with keys of {} and values of {value_bytes} bytes, {compression}, {repeat} runs each",
            n.join(", "),
            key_prefix_bytes + KEY_BYTES
        )
    }
}

/// The runs over one number of records.
struct Size<'a> {
    plan: &'a Plan<'a>,
    n: u64,
    dir: &'a Path,
    limits: Option<&'a Limits>,
}

impl Size<'_> {
    fn run(&self) -> Result<Vec<Run>> {
        let Plan {
            arguments,
            engines,
            workloads,
        } = self.plan;
        if workloads
            .iter()
            .any(|workload| workload.ground() == Ground::Shared)
        {
            for engine in engines {
                eprintln!("loading {}", engine.name);
                let dir = self.dir.join(engine.name);
                finish(spawn(&self.order(engine, workloads[0], &dir, Stage::Load))?)?;
            }
        }
        let mut runs = Vec::new();
        for repeat in 0..arguments.repeat.max(1) {
            for workload in workloads {
                // Another engine goes first each time.
                for turn in 0..engines.len() {
                    let engine = engines[(turn + repeat as usize) % engines.len()];
                    eprint!("{} {} {}: ", repeat + 1, workload.name(), engine.name);
                    let outcome = self
                        .run_one(engine, *workload)
                        .map_err(|error| format!("{} under {}: {error}", engine.name, workload.name()))?;
                    eprintln!("{:.0}/s", outcome.ops_per_s);
                    let limit = self.limit_ops_per_s(*workload);
                    runs.push(Run {
                        n: self.n,
                        workload: workload.name(),
                        engine: engine.name.to_owned(),
                        repeat,
                        limit_ops_per_s: limit,
                        of_limit: limit.map(|limit| outcome.ops_per_s / limit),
                        outcome,
                    });
                }
            }
        }
        Ok(runs)
    }

    fn data_bytes(&self) -> u64 {
        self.plan.data(self.n).logical_bytes(self.n)
    }

    /// The device bounds no cold run whose data mostly stays in memory once it was read.
    fn limit_ops_per_s(&self, workload: Workload) -> Option<f64> {
        let memory_bytes = self.plan.arguments.cold_memory_mib << 20;
        if workload.is_cold() && self.data_bytes() < 4 * memory_bytes {
            return None;
        }
        bound::ops_per_s(workload, self.limits?)
    }

    fn order(&self, engine: &EngineKind, workload: Workload, dir: &Path, stage: Stage) -> Order {
        let arguments = self.plan.arguments;
        Order {
            stage,
            engine: engine.name.to_owned(),
            workload,
            n: self.n,
            value_bytes: arguments.value_bytes,
            key_prefix_bytes: arguments.key_prefix_bytes,
            compress: arguments.compression == Compression::On,
            dir: dir.to_path_buf(),
            cold: None,
        }
    }

    fn run_one(&self, engine: &EngineKind, workload: Workload) -> Result<Outcome> {
        let ground = workload.ground();
        let own;
        let dir = if ground == Ground::Shared {
            self.dir.join(engine.name)
        } else {
            own = tempfile::tempdir_in(self.dir)?;
            own.path().join("db")
        };
        if ground == Ground::Killed {
            kill_a_writer(&self.order(engine, workload, &dir, Stage::FillAndWait))?;
        }
        let mut order = self.order(engine, workload, &dir, Stage::Run);
        // Lives as long as the child, and is removed after it.
        let group;
        if workload.is_cold() {
            let mib = self.plan.arguments.cold_memory_mib;
            let memory_bytes = mib << 20;
            group = MemoryGroup::new(memory_bytes);
            let room = match memory_bytes as f64 / self.data_bytes() as f64 {
                share if share < 1.0 => format!("{:.0}% of the data", share * 100.0),
                _ => "which has room for all of the data".to_owned(),
            };
            let words = match &group {
                Ok(group) => format!("memory group of {mib} MiB (cgroup v{}), {room}", group.version()),
                Err(reason) => format!("NO memory group, so what was read stays cached ({reason})"),
            };
            order.cold = Some(Cold {
                entrance: group.as_ref().ok().map(MemoryGroup::entrance),
                group: words,
                memory_bytes,
            });
        }
        let output = finish(spawn(&order)?)?;
        Ok(serde_json::from_str(&output)?)
    }
}

fn spawn(order: &Order) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(serde_json::to_string(order)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn finish(child: Child) -> Result<String> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the child process ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts a writer and kills it once everything is acknowledged.
fn kill_a_writer(order: &Order) -> Result<()> {
    let mut child = spawn(order)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    child.kill()?;
    child.wait()?;
    if line.trim() != "ready" {
        return Err("the writer that was to be killed ended by itself".into());
    }
    Ok(())
}

/// Every run of a workload must have read the same bytes and left the same records.
fn compare_sums(runs: &[Run]) -> Result<()> {
    let mut expected: BTreeMap<(u64, &str), &Run> = BTreeMap::new();
    let mut wrong = Vec::new();
    for run in runs {
        let first = expected.entry((run.n, &run.workload)).or_insert(run);
        let sums = |run: &Run| (run.outcome.sum, run.outcome.state_sum, run.outcome.state_records);
        if sums(first) != sums(run) {
            wrong.push(format!(
                "{} (n = {}): {} {:x?}, {} {:x?}",
                run.workload,
                run.n,
                first.engine,
                sums(first),
                run.engine,
                sums(run)
            ));
        }
    }
    if wrong.is_empty() {
        println!("sums: equal over all engines and repeats of each workload");
        Ok(())
    } else {
        Err(format!(
            "engines read different bytes (read, left, records left):\n{}",
            wrong.join("\n")
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_differs_is_a_failure() {
        let run = |n, engine: &str, sum| Run {
            n,
            workload: "scan".to_owned(),
            engine: engine.to_owned(),
            repeat: 0,
            limit_ops_per_s: None,
            of_limit: None,
            outcome: Outcome {
                sum,
                ..Outcome::default()
            },
        };
        assert!(compare_sums(&[run(5, "a", 1), run(5, "b", 1), run(50, "a", 2)]).is_ok());
        let message = compare_sums(&[run(5, "a", 1), run(5, "b", 2)])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("scan (n = 5): a") && message.contains(", b"),
            "{message}"
        );
    }
}
