//! A page of plots that needs nothing but itself: no scripts, no fonts, no network.

mod bars;
mod growth;
mod latency;
mod plot;
mod timeline;

use std::fmt::Write;
use std::path::Path;

use crate::engine::{EngineKind, Result};
use crate::report::{self, Median};

/// Writes the page.
pub(crate) fn write(path: &Path, heading: &str, engines: &[&EngineKind], medians: &[Median]) -> Result<()> {
    std::fs::write(path, page(heading, engines, medians)?)?;
    Ok(())
}

/// Colours that people with any colour vision can tell apart, on light and on dark ground, by an engine's place.
const STYLE: &str = "
:root{color-scheme:light dark;--c0:#0072b2;--c1:#b87400;--c2:#00805d;--c3:#b4508a;--c4:#c44f00;--c5:#5a5a5a;
--c6:#3a8fc0;--c7:#8a7d00}
@media(prefers-color-scheme:dark){:root{--c0:#56b4e9;--c1:#e69f00;--c2:#2fc79c;--c3:#e0a0c8;--c4:#ff8a47;
--c5:#bbb;--c6:#9ad2f5;--c7:#f0e442}}
body{font:14px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
svg{display:block;max-width:100%;height:auto}
text{font:12px sans-serif;fill:currentColor}
.grid{stroke:currentColor;stroke-opacity:.15}
.range{stroke:currentColor}
.line{fill:none;stroke-width:1.5}
";
const COLOURS: usize = 8;

fn page(heading: &str, engines: &[&EngineKind], medians: &[Median]) -> Result<String> {
    let mut html = String::new();
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Siltstone's benchmark</title><style>{STYLE}"
    )?;
    for colour in 0..COLOURS {
        write!(
            html,
            ".e{colour}{{fill:var(--c{colour})}}.l{colour}{{stroke:var(--c{colour})}}"
        )?;
    }
    write!(
        html,
        "</style><h1>Siltstone's benchmark</h1><p>{}. Bars: operations a second, median; thin line: minimum to \
         maximum; % is the share of what the machine allows. Latencies and courses are those of the median run.</p><ul>",
        escape(heading)
    )?;
    for kind in engines {
        write!(
            html,
            "<li><b>{}</b> ({} {}): {}; {}</li>",
            escape(kind.name),
            escape(kind.package),
            escape(kind.version()),
            escape(kind.settings),
            escape(&report::compression(kind))
        )?;
    }
    html.push_str("</ul>");
    growth::write(&mut html, engines, medians)?;
    for of_one_n in medians.chunk_by(|a, b| a.run.n == b.run.n) {
        if let Some(first) = of_one_n.first() {
            write!(html, "<h2>{} records</h2>", plot::count(first.run.n as f64))?;
        }
        for name in workloads(of_one_n) {
            let rows: Vec<&Median> = of_one_n
                .iter()
                .filter(|median| median.run.workload == name)
                .collect();
            write!(html, "<h3>{}</h3>", escape(name))?;
            bars::write(&mut html, engines, &rows)?;
            latency::write(&mut html, engines, &rows)?;
            timeline::write(&mut html, engines, &rows)?;
        }
    }
    html.push_str("</html>\n");
    Ok(html)
}

/// Their names, each once, in order.
fn workloads(medians: &[Median]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for median in medians {
        if !names.contains(&median.run.workload.as_str()) {
            names.push(&median.run.workload);
        }
    }
    names
}

/// The colour of an engine, the same all over the page.
fn colour(engines: &[&EngineKind], name: &str) -> usize {
    engines.iter().position(|kind| kind.name == name).unwrap_or(0) % COLOURS
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
    use crate::timeline::Timeline;

    fn drawn(runs: &[Run]) -> String {
        let engines: Vec<&EngineKind> = ENGINES.iter().collect();
        page("n < 5", &engines, &medians(runs)).unwrap()
    }

    fn run(n: u64, workload: &str, ops_per_s: f64) -> Run {
        Run {
            n,
            workload: workload.to_owned(),
            engine: "siltstone".to_owned(),
            repeat: 0,
            limit_ops_per_s: None,
            of_limit: Some(0.25),
            outcome: Outcome {
                ops: 1000,
                ops_per_s,
                ..Outcome::default()
            },
        }
    }

    #[test]
    fn a_page_has_a_bar_for_each_engine_and_escapes_names() {
        let html = drawn(&[run(5, "a&b", 100.0), run(5, "scan", 50.0)]);
        assert_eq!(html.matches("<rect").count(), 2);
        assert!(
            html.contains("<h3>a&amp;b</h3>")
                && html.contains("n &lt; 5")
                && html.contains("width=\"520.0\"")
                && html.contains("25.0%")
        );
        assert!(!html.contains("polyline"), "nothing but bars to draw");
    }

    #[test]
    fn latencies_and_courses_are_drawn_where_there_are_any() {
        let mut with_both = run(5, "fillrandom", 100.0);
        with_both.outcome.latency_percentiles_ns =
            Some(vec![(50.0, 1_000), (99.0, 20_000), (100.0, 3_000_000)]);
        with_both.outcome.timeline = Some(Timeline {
            interval_ms: 100,
            ops_per_s: vec![90.0, 0.0, 110.0],
        });
        let html = drawn(&[with_both]);
        assert_eq!(html.matches("<polyline").count(), 2);
        assert!(html.contains("Latency") && html.contains("Throughput"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn growth_is_drawn_from_two_numbers_of_records_on() {
        let html = drawn(&[run(1_000_000, "scan", 100.0), run(50_000_000, "scan", 50.0)]);
        assert_eq!(html.matches("<polyline").count(), 1);
        assert!(html.contains("<h2>Growth</h2>") && html.contains("50M records"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let html = drawn(&[run(5, "scan", 100.0)]);
        for foreign in ["http", "<script", "<link", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
