//! A page of bars, one group a workload, that needs nothing but itself.

use std::fmt::Write;
use std::path::Path;

use crate::engine::{EngineKind, Result};
use crate::report::Median;

const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];
const LABEL_WIDTH: f64 = 110.0;
const BAR_WIDTH: f64 = 520.0;
const ROW_HEIGHT: f64 = 18.0;

/// Writes the page.
pub(crate) fn write(path: &Path, heading: &str, engines: &[&EngineKind], medians: &[Median]) -> Result<()> {
    std::fs::write(path, page(heading, engines, medians)?)?;
    Ok(())
}

fn page(heading: &str, engines: &[&EngineKind], medians: &[Median]) -> Result<String> {
    let mut html = String::new();
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Siltstone's benchmark</title>\
         <style>body{{font:14px sans-serif;max-width:60em;margin:2em auto}}text{{font:12px sans-serif}}</style>\
         <h1>Siltstone's benchmark</h1><p>{}. Bars: operations a second, median; thin line: minimum to maximum.</p><ul>",
        escape(heading)
    )?;
    for kind in engines {
        write!(
            html,
            "<li><b>{}</b> ({} {}): {}</li>",
            escape(kind.name),
            escape(kind.package),
            escape(kind.version()),
            escape(kind.settings)
        )?;
    }
    html.push_str("</ul>");
    let mut workloads: Vec<&str> = Vec::new();
    for median in medians {
        if !workloads.contains(&median.run.workload.as_str()) {
            workloads.push(&median.run.workload);
        }
    }
    for workload in workloads {
        let rows: Vec<&Median> = medians
            .iter()
            .filter(|median| median.run.workload == workload)
            .collect();
        bars(&mut html, workload, engines, &rows)?;
    }
    html.push_str("</html>\n");
    Ok(html)
}

fn bars(html: &mut String, workload: &str, engines: &[&EngineKind], rows: &[&Median]) -> Result<()> {
    let most = rows.iter().map(|row| row.ops_per_s_max).fold(1e-9, f64::max);
    let width = |ops_per_s: f64| ops_per_s / most * BAR_WIDTH;
    write!(
        html,
        "<h2>{}</h2><svg width=\"{}\" height=\"{}\" role=\"img\">",
        escape(workload),
        LABEL_WIDTH + BAR_WIDTH + 260.0,
        ROW_HEIGHT * rows.len() as f64
    )?;
    for (at, row) in rows.iter().enumerate() {
        let top = ROW_HEIGHT * at as f64;
        let (outcome, middle) = (&row.run.outcome, top + ROW_HEIGHT / 2.0);
        let engine = engines
            .iter()
            .position(|kind| kind.name == row.run.engine)
            .unwrap_or(0);
        let us = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
        write!(
            html,
            "<text x=\"0\" y=\"{y}\">{name}</text>\
             <rect x=\"{LABEL_WIDTH}\" y=\"{bar}\" width=\"{length:.1}\" height=\"{height}\" fill=\"{colour}\"/>\
             <line x1=\"{least:.1}\" x2=\"{greatest:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#000\"/>\
             <text x=\"{after}\" y=\"{y}\">{ops:.0}/s, p50 {p50}, p99 {p99} us</text>",
            y = top + 13.0,
            name = escape(&row.run.engine),
            bar = top + 2.0,
            length = width(outcome.ops_per_s),
            height = ROW_HEIGHT - 4.0,
            colour = COLOURS[engine % COLOURS.len()],
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Outcome;
    use crate::engine::ENGINES;
    use crate::report::{Run, medians};

    #[test]
    fn a_page_has_a_bar_for_each_engine_and_escapes_names() {
        let engines: Vec<&EngineKind> = ENGINES.iter().collect();
        let run = |workload: &str, ops_per_s| Run {
            workload: workload.to_owned(),
            engine: "siltstone".to_owned(),
            repeat: 0,
            outcome: Outcome {
                ops_per_s,
                ..Outcome::default()
            },
        };
        let html = page(
            "n < 5",
            &engines,
            &medians(&[run("a&b", 100.0), run("scan", 50.0)]),
        )
        .unwrap();
        assert_eq!(html.matches("<rect").count(), 2);
        assert!(
            html.contains("<h2>a&amp;b</h2>")
                && html.contains("n &lt; 5")
                && html.contains("width=\"520.0\"")
        );
    }
}
