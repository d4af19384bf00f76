//! Throughput as bars, one an engine.

use std::fmt::Write;

use crate::engine::{EngineKind, Result};
use crate::page::{colour, escape};
use crate::report::Median;

const LABEL_WIDTH: f64 = 110.0;
const BAR_WIDTH: f64 = 520.0;
const ROW_HEIGHT: f64 = 18.0;

/// Draws the rows of one workload.
pub(super) fn write(html: &mut String, engines: &[&EngineKind], rows: &[&Median]) -> Result<()> {
    let most = rows.iter().map(|row| row.ops_per_s_max).fold(1e-9, f64::max);
    let width = |ops_per_s: f64| ops_per_s / most * BAR_WIDTH;
    write!(
        html,
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">",
        width = LABEL_WIDTH + BAR_WIDTH + 320.0,
        height = ROW_HEIGHT * rows.len() as f64
    )?;
    for (at, row) in rows.iter().enumerate() {
        let top = ROW_HEIGHT * at as f64;
        let (outcome, middle) = (&row.run.outcome, top + ROW_HEIGHT / 2.0);
        let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
        let of_limit = row
            .run
            .of_limit
            .map_or(String::new(), |share| format!(", {:.1}%", share * 100.0));
        write!(
            html,
            "<text x=\"0\" y=\"{y}\">{name}</text>\
             <rect class=\"e{colour}\" x=\"{LABEL_WIDTH}\" y=\"{bar}\" width=\"{length:.1}\" height=\"{height}\"/>\
             <line class=\"range\" x1=\"{least:.1}\" x2=\"{greatest:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <text x=\"{after}\" y=\"{y}\">{ops:.0}/s{of_limit}, p50 {p50}, p99 {p99} us</text>",
            y = top + 13.0,
            name = escape(&row.run.engine),
            colour = colour(engines, &row.run.engine),
            bar = top + 2.0,
            length = width(outcome.ops_per_s),
            height = ROW_HEIGHT - 4.0,
            least = LABEL_WIDTH + width(row.ops_per_s_min),
            greatest = LABEL_WIDTH + width(row.ops_per_s_max),
            after = LABEL_WIDTH + BAR_WIDTH + 8.0,
            ops = outcome.ops_per_s,
            p50 = us(outcome.p50_ns),
            p99 = us(outcome.p99_ns),
        )?;
    }
    html.push_str("</svg>");
    Ok(())
}
