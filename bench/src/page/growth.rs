//! Throughput against the number of records, when there was more than one.

use std::fmt::Write;

use crate::engine::{EngineKind, Result};
use crate::page::plot::{self, Axis, Line, Scale};
use crate::page::{colour, workloads};
use crate::report::Median;

/// Draws a plot for each workload.
pub(super) fn write(html: &mut String, engines: &[&EngineKind], medians: &[Median]) -> Result<()> {
    if medians.chunk_by(|a, b| a.run.n == b.run.n).count() < 2 {
        return Ok(());
    }
    write!(html, "<h2>Growth</h2>")?;
    let x = Axis {
        label: "records",
        scale: Scale::Log,
        show: plot::count,
    };
    let y = Axis {
        label: "operations a second",
        scale: Scale::Log,
        show: plot::count,
    };
    for workload in workloads(medians) {
        let lines: Vec<Line<'_>> = engines
            .iter()
            .map(|kind| {
                let mut points: Vec<(f64, f64)> = medians
                    .iter()
                    .map(|median| &median.run)
                    .filter(|run| run.workload == workload && run.engine == kind.name)
                    .map(|run| (run.n as f64, run.outcome.ops_per_s))
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Line {
                    name: kind.name,
                    colour: colour(engines, kind.name),
                    points,
                }
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        plot::write(html, workload, &x, &y, &lines)?;
    }
    Ok(())
}
