//! Latency against the share of calls that took no longer: both on log scales, so that the tail has room.

use crate::engine::{EngineKind, Result};
use crate::page::colour;
use crate::page::plot::{self, Axis, Line, Scale, decimals};
use crate::report::Median;

/// Draws the rows of one workload that have a distribution.
pub(super) fn write(html: &mut String, engines: &[&EngineKind], rows: &[&Median]) -> Result<()> {
    let lines: Vec<Line<'_>> = rows
        .iter()
        .filter_map(|row| {
            let percentiles = row.run.outcome.latency_percentiles_ns.as_ref()?;
            let points = percentiles
                .iter()
                .filter_map(|(percent, ns)| Some((one_in(*percent, row.run.outcome.ops)?, *ns as f64)))
                .collect();
            Some(Line {
                name: &row.run.engine,
                colour: colour(engines, &row.run.engine),
                points,
            })
        })
        .collect();
    let x = Axis {
        label: "share of the calls that took no longer",
        scale: Scale::Log,
        show: |one_in| format!("{}%", trim(100.0 - 100.0 / one_in)),
    };
    let y = Axis {
        label: "a call",
        scale: Scale::Log,
        show: plot::time,
    };
    plot::write(html, "Latency", &x, &y, &lines)
}

/// One call in how many takes longer; the last percentile is the slowest call. `None` if there are too few calls.
fn one_in(percent: f64, calls: u64) -> Option<f64> {
    let calls = calls.max(2) as f64;
    if percent >= 100.0 {
        return Some(calls);
    }
    let one_in = 100.0 / (100.0 - percent);
    (one_in < calls).then_some(one_in)
}

/// Nines are counted, so more decimals than elsewhere.
fn trim(percent: f64) -> String {
    if percent < 99.99 {
        return decimals(percent);
    }
    let text = format!("{percent:.7}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_as_far_out_as_they_are_rare() {
        assert_eq!(one_in(0.0, 1000), Some(1.0));
        assert_eq!(one_in(50.0, 1000), Some(2.0));
        assert_eq!(one_in(90.0, 1000).map(f64::round), Some(10.0));
        assert_eq!(one_in(100.0, 1000), Some(1000.0));
        assert_eq!(one_in(99.99, 1000), None);
    }

    #[test]
    fn nines_are_written_out() {
        let shown = [1.0, 10.0, 100.0, 10_000.0, 100_000.0].map(|one_in| trim(100.0 - 100.0 / one_in));
        assert_eq!(shown, ["0", "90", "99", "99.99", "99.999"]);
    }
}
