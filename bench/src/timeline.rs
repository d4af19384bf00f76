//! Throughput over time.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long calls are counted together at least.
const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_S: f64 = 10.0;
/// Points of a timeline at most: more than a plot has pixels to tell apart.
const POINTS_MAX: usize = 600;

/// One thread's calls, counted by the tick they ended in.
#[derive(Debug)]
pub(crate) struct Ticks {
    ends: Instant,
    current: u64,
    done: Vec<u64>,
}

impl Ticks {
    /// Ticks from `begun` on.
    pub(crate) fn new(begun: Instant) -> Self {
        Self {
            ends: begun + TICK,
            current: 0,
            done: Vec::new(),
        }
    }

    /// Counts a call that ended `now`.
    #[inline]
    pub(crate) fn count(&mut self, now: Instant) {
        while now >= self.ends {
            self.done.push(std::mem::take(&mut self.current));
            self.ends += TICK;
        }
        self.current += 1;
    }

    /// The calls of each whole tick.
    pub(crate) fn finish(self) -> Vec<u64> {
        self.done
    }
}

/// Operations a second, interval by interval. What came after the last whole interval is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) interval_ms: u64,
    pub(crate) ops_per_s: Vec<f64>,
}

impl Timeline {
    /// Adds threads up and thins what is too long to draw.
    pub(crate) fn of(threads: &[Vec<u64>]) -> Self {
        let ticks = threads.iter().map(Vec::len).max().unwrap_or(0);
        let total = |tick: usize| -> u64 { threads.iter().filter_map(|thread| thread.get(tick)).sum() };
        let together = ticks.div_ceil(POINTS_MAX).max(1);
        let ops_per_s = (0..ticks / together)
            .map(|point| {
                let ops: u64 = (point * together..(point + 1) * together).map(total).sum();
                ops as f64 * TICKS_PER_S / together as f64
            })
            .collect();
        Self {
            interval_ms: 100 * together as u64,
            ops_per_s,
        }
    }

    /// Multiplies the rates.
    pub(crate) fn scale(&mut self, factor: f64) {
        for rate in &mut self.ops_per_s {
            *rate *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_as_ticks_without_calls() {
        let begun = Instant::now();
        let mut ticks = Ticks::new(begun);
        for ms in [10, 20, 99, 100, 450, 501] {
            ticks.count(begun + Duration::from_millis(ms));
        }
        assert_eq!(ticks.finish(), [3, 1, 0, 0, 1]);
    }

    #[test]
    fn threads_add_up_to_rates() {
        let timeline = Timeline::of(&[vec![1, 2, 3], vec![10, 20]]);
        assert_eq!(
            timeline,
            Timeline {
                interval_ms: 100,
                ops_per_s: vec![110.0, 220.0, 30.0]
            }
        );
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_rate() {
        let timeline = Timeline::of(&[vec![7; 1500]]);
        assert_eq!(timeline.interval_ms, 300);
        assert_eq!(timeline.ops_per_s, vec![70.0; 500]);
    }
}
