//! Lines in a frame.

use std::fmt::Write;

use crate::engine::Result;
use crate::page::escape;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Of positive values.
    Log,
}

/// One axis; its range is that of the points, from zero if it is linear.
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    /// How a value at a tick reads.
    pub(super) show: fn(f64) -> String,
}

/// One engine's points, in order.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) colour: usize,
    pub(super) points: Vec<(f64, f64)>,
}

const LEFT: f64 = 70.0;
const TOP: f64 = 24.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
const LEGEND: f64 = 150.0;
const BELOW: f64 = 40.0;

/// Draws them, or nothing if there is no line of two points.
pub(super) fn write(html: &mut String, title: &str, x: &Axis, y: &Axis, lines: &[Line<'_>]) -> Result<()> {
    if lines.iter().all(|line| line.points.len() < 2) {
        return Ok(());
    }
    let all = || lines.iter().flat_map(|line| &line.points);
    let across = Range::of(x.scale, all().map(|point| point.0));
    let up = Range::of(y.scale, all().map(|point| point.1));
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let at_x = |value: f64| LEFT + across.share(value) * WIDTH;
    let at_y = |value: f64| bottom - up.share(value) * HEIGHT;
    write!(
        html,
        "<svg viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" aria-label=\"{title}\">\
         <text x=\"{LEFT}\" y=\"14\">{title}: {label}</text>\
         <text x=\"{right}\" y=\"{under}\" text-anchor=\"end\">{label_x}</text>",
        w = right + LEGEND,
        h = bottom + BELOW,
        title = escape(title),
        label = escape(y.label),
        label_x = escape(x.label),
        under = bottom + 32.0,
    )?;
    for tick in across.ticks() {
        write!(
            html,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{under}\" text-anchor=\"middle\">{shown}</text>",
            at = at_x(tick),
            under = bottom + 16.0,
            shown = escape(&(x.show)(tick)),
        )?;
    }
    for tick in up.ticks() {
        write!(
            html,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{before}\" y=\"{base:.1}\" text-anchor=\"end\">{shown}</text>",
            at = at_y(tick),
            before = LEFT - 6.0,
            base = at_y(tick) + 4.0,
            shown = escape(&(y.show)(tick)),
        )?;
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = line.colour;
        if line.points.len() > 1 {
            write!(html, "<polyline class=\"line l{colour}\" points=\"")?;
            for (px, py) in &line.points {
                write!(html, "{:.1},{:.1} ", at_x(*px), at_y(*py))?;
            }
            html.push_str("\"/>");
        }
        let level = TOP + 16.0 * at as f64 + 8.0;
        write!(
            html,
            "<line class=\"line l{colour}\" x1=\"{from}\" x2=\"{to}\" y1=\"{level}\" y2=\"{level}\"/>\
             <text x=\"{text}\" y=\"{base}\">{name}</text>",
            from = right + 12.0,
            to = right + 32.0,
            text = right + 38.0,
            base = level + 4.0,
            name = escape(line.name),
        )?;
    }
    html.push_str("</svg>");
    Ok(())
}

/// What an axis covers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    scale: Scale,
    least: f64,
    greatest: f64,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let greatest = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        match scale {
            Scale::Linear => Self {
                scale,
                least: 0.0,
                greatest,
            },
            Scale::Log => {
                let least = values.filter(|value| *value > 0.0).fold(greatest, f64::min);
                // Never empty, so that a lone value has a place.
                let greatest = greatest.max(least * 2.0);
                Self {
                    scale,
                    least,
                    greatest,
                }
            }
        }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value / self.greatest,
            Scale::Log => (value.max(self.least) / self.least).ln() / (self.greatest / self.least).ln(),
        }
    }

    /// Round values within, a handful.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|round| round * 10_f64.powf((self.greatest / 5.0).log10().floor()))
                    .into_iter()
                    .find(|step| self.greatest / step <= 5.0)
                    .unwrap_or(self.greatest);
                (0..=5_u8)
                    .map(|at| f64::from(at) * step)
                    .filter(|tick| *tick <= self.greatest)
                    .collect()
            }
            Scale::Log => {
                let decades = (self.greatest / self.least).log10();
                let rounds: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                (-12_i32..=18)
                    .flat_map(|power| rounds.iter().map(move |round| round * 10_f64.powi(power)))
                    // The powers are not exact.
                    .filter(|tick| *tick >= self.least * 0.999 && *tick <= self.greatest * 1.001)
                    .collect()
            }
        }
    }
}

/// A count or a rate, short: 1.2M.
pub(super) fn count(value: f64) -> String {
    for (unit, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= unit {
            return format!("{}{letter}", decimals(value / unit));
        }
    }
    decimals(value)
}

/// Nanoseconds in the unit that suits them.
pub(super) fn time(ns: f64) -> String {
    for (unit, letters) in [(1e9, "s"), (1e6, "ms"), (1e3, "us")] {
        if ns >= unit {
            return format!("{} {letters}", decimals(ns / unit));
        }
    }
    format!("{} ns", decimals(ns))
}

/// At most two decimals, and no zeros at their end.
pub(super) fn decimals(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let linear = Range::of(Scale::Linear, [3.0, 47.0].into_iter());
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let log = Range::of(Scale::Log, [300.0, 2_500_000.0].into_iter());
        assert_eq!(
            log.ticks().iter().map(|tick| time(*tick)).collect::<Vec<_>>(),
            ["1 us", "10 us", "100 us", "1 ms"]
        );
        let narrow = Range::of(Scale::Log, [1e6, 5e6].into_iter());
        assert_eq!(
            narrow.ticks().iter().map(|tick| count(*tick)).collect::<Vec<_>>(),
            ["1M", "2M", "5M"]
        );
    }

    #[test]
    fn places_run_from_end_to_end_and_are_always_numbers() {
        let log = Range::of(Scale::Log, [10.0, 1000.0].into_iter());
        assert_eq!([log.share(10.0), log.share(1000.0)], [0.0, 1.0]);
        assert!((log.share(100.0) - 0.5).abs() < 1e-9);
        assert_eq!(log.share(0.0), 0.0);
        let lone = Range::of(Scale::Log, [7.0].into_iter());
        assert!(lone.share(7.0).is_finite());
        let nothing = Range::of(Scale::Linear, [0.0].into_iter());
        assert!(nothing.share(0.0).is_finite() && nothing.ticks().len() < 10);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [count(999.0), count(1_250_000.0), count(5e7)],
            ["999", "1.25M", "50M"]
        );
        assert_eq!(
            [time(250.0), time(1_500.0), time(2e9)],
            ["250 ns", "1.5 us", "2 s"]
        );
    }
}
