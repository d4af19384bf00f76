//! What the parent does: one child process a run, engines interleaved, sums compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::RunArguments;
use crate::child::{Order, Outcome, Stage};
use crate::data::KEY_PREFIX_BYTES_MAX;
use crate::engine::{ENGINES, EngineKind, Result, engine_named};
use crate::page;
use crate::report::{self, Run};
use crate::workload::{ALL, Ground, Workload};

/// Runs everything that was asked for, prints the table and writes the JSON.
pub(crate) fn run(arguments: &RunArguments) -> Result<()> {
    let engines: Vec<&EngineKind> = if arguments.engines.is_empty() {
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
    let workloads: Vec<Workload> = names
        .into_iter()
        .map(|name| Workload::parse(name, arguments.threads))
        .collect::<Result<_>>()?;
    if arguments.key_prefix_bytes > KEY_PREFIX_BYTES_MAX {
        return Err(format!("a common prefix can have at most {KEY_PREFIX_BYTES_MAX} bytes").into());
    }
    if arguments.n < 4 {
        return Err("at least 4 records are needed".into());
    }
    let root = match &arguments.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            tempfile::tempdir_in(dir)?
        }
        None => tempfile::tempdir()?,
    };
    report::list_engines(engines.iter().copied());
    println!("cache state: warm (one scan and n/10 gets before each timed phase over loaded records)");

    if workloads
        .iter()
        .any(|workload| workload.ground() == Ground::Shared)
    {
        for engine in &engines {
            eprintln!("loading {}", engine.name);
            let order = order(
                arguments,
                engine,
                workloads[0],
                &root.path().join(engine.name),
                Stage::Load,
            );
            finish(spawn(&order)?)?;
        }
    }
    let mut runs = Vec::new();
    for repeat in 0..arguments.repeat.max(1) {
        for workload in &workloads {
            // Another engine goes first each time.
            for turn in 0..engines.len() {
                let engine = engines[(turn + repeat as usize) % engines.len()];
                eprint!("{} {} {}: ", repeat + 1, workload.name(), engine.name);
                let outcome = run_one(arguments, root.path(), engine, *workload)
                    .map_err(|error| format!("{} under {}: {error}", engine.name, workload.name()))?;
                eprintln!("{:.0}/s", outcome.ops_per_s);
                runs.push(Run {
                    workload: workload.name(),
                    engine: engine.name.to_owned(),
                    repeat,
                    outcome,
                });
            }
        }
    }
    report::table(&runs);
    if let Some(path) = &arguments.json {
        report::json(path, arguments, &engines, &runs)?;
    }
    if let Some(path) = &arguments.html {
        let RunArguments {
            n,
            repeat,
            value_bytes,
            ..
        } = arguments;
        let heading = format!("{n} records with values of {value_bytes} bytes, {repeat} runs each, warm");
        page::write(path, &heading, &engines, &report::medians(&runs))?;
    }
    compare_sums(&runs)
}

fn order(
    arguments: &RunArguments,
    engine: &EngineKind,
    workload: Workload,
    dir: &Path,
    stage: Stage,
) -> Order {
    Order {
        stage,
        engine: engine.name.to_owned(),
        workload,
        n: arguments.n,
        value_bytes: arguments.value_bytes,
        key_prefix_bytes: arguments.key_prefix_bytes,
        dir: dir.to_path_buf(),
    }
}

fn run_one(
    arguments: &RunArguments,
    root: &Path,
    engine: &EngineKind,
    workload: Workload,
) -> Result<Outcome> {
    let ground = workload.ground();
    let own;
    let dir = if ground == Ground::Shared {
        root.join(engine.name)
    } else {
        own = tempfile::tempdir_in(root)?;
        own.path().join("db")
    };
    if ground == Ground::Killed {
        kill_a_writer(&order(arguments, engine, workload, &dir, Stage::FillAndWait))?;
    }
    let output = finish(spawn(&order(arguments, engine, workload, &dir, Stage::Run))?)?;
    Ok(serde_json::from_str(&output)?)
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
    let mut expected: BTreeMap<&str, &Run> = BTreeMap::new();
    let mut wrong = Vec::new();
    for run in runs {
        let first = expected.entry(&run.workload).or_insert(run);
        let sums = |run: &Run| (run.outcome.sum, run.outcome.state_sum, run.outcome.state_records);
        if sums(first) != sums(run) {
            wrong.push(format!(
                "{}: {} {:x?}, {} {:x?}",
                run.workload,
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
        let run = |engine: &str, sum| Run {
            workload: "scan".to_owned(),
            engine: engine.to_owned(),
            repeat: 0,
            outcome: Outcome {
                sum,
                ..Outcome::default()
            },
        };
        assert!(compare_sums(&[run("a", 1), run("b", 1)]).is_ok());
        let message = compare_sums(&[run("a", 1), run("b", 2)]).unwrap_err().to_string();
        assert!(
            message.contains("scan: a") && message.contains(", b"),
            "{message}"
        );
    }
}
