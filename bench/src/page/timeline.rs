//! Throughput over time: stalls, flushes and compactions show.

use crate::engine::{EngineKind, Result};
use crate::page::colour;
use crate::page::plot::{self, Axis, Line, Scale, decimals};
use crate::report::Median;

/// Draws the rows of one workload that have a course.
pub(super) fn write(html: &mut String, engines: &[&EngineKind], rows: &[&Median]) -> Result<()> {
    let lines: Vec<Line<'_>> = rows
        .iter()
        .filter_map(|row| {
            let timeline = row.run.outcome.timeline.as_ref()?;
            let seconds = timeline.interval_ms as f64 / 1e3;
            let points = timeline
                .ops_per_s
                .iter()
                .enumerate()
                .map(|(at, rate)| ((at + 1) as f64 * seconds, *rate))
                .collect();
            Some(Line {
                name: &row.run.engine,
                colour: colour(engines, &row.run.engine),
                points,
            })
        })
        .collect();
    let x = Axis {
        label: "seconds",
        scale: Scale::Linear,
        show: decimals,
    };
    let y = Axis {
        label: "operations a second",
        scale: Scale::Linear,
        show: plot::count,
    };
    plot::write(html, "Throughput", &x, &y, &lines)
}
