//! Whether a keyspace is written faster than its levels can be kept.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

/// Bytes a second of new tables that one thread of compactions keeps up with. Each byte is rewritten some six times on its
/// way down, and a thread rewrites 200 to 300 MB a second (docs/notes/0007).
const LEVELED_BYTES_PER_S: u64 = 32 << 20;
/// A burst begins at this many times that rate, and goes on at that rate.
const BURST_FACTOR: u64 = 2;
/// Flushes that the rate is taken from: with memtables of 16 MiB, a device that halts for two seconds ends no burst.
const FLUSHES: usize = 9;
/// With fewer there is no telling.
const FLUSHES_MIN: usize = 5;

/// The last flushes of a keyspace.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each was installed, and how many bytes of tables it made; the oldest first.
    flushes: VecDeque<(Duration, u64)>,
    is_burst: bool,
}

impl Intake {
    pub(crate) fn note_flush(&self, now: Duration, size_bytes: u64) {
        let mut state = self.state.lock();
        if state.flushes.len() == FLUSHES {
            state.flushes.pop_front();
        }
        state.flushes.push_back((now, size_bytes));
    }

    /// Whether tables come faster than `threads` threads can merge them level by level. `left_over`: what an earlier burst
    /// brought has not gone down yet, and writers may be slowed down for it.
    pub(crate) fn outruns_levels(&self, now: Duration, threads: usize, left_over: bool) -> bool {
        let mut state = self.state.lock();
        let goes_on = state.is_burst || left_over;
        let factor = if goes_on { 1 } else { BURST_FACTOR };
        state.is_burst = state.is_faster_than(LEVELED_BYTES_PER_S * factor * threads as u64, now);
        state.is_burst
    }
}

impl State {
    fn is_faster_than(&self, bytes_per_s: u64, now: Duration) -> bool {
        if self.flushes.len() < FLUSHES_MIN {
            return false;
        }
        let size_bytes: u64 = self.flushes.iter().skip(1).map(|(_, bytes)| bytes).sum();
        let elapsed = now.saturating_sub(self.flushes[0].0);
        u128::from(size_bytes) * 1_000_000_000 >= u128::from(bytes_per_s) * elapsed.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE_BYTES: u64 = 16 << 20;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Eight tables of 16 MiB in two seconds are 64 MiB a second: the last eight of nine.
    #[test]
    fn a_burst_begins_with_fast_flushes_and_ends_when_they_come_slowly() {
        let intake = Intake::default();
        for _ in 1..=4 {
            intake.note_flush(at(0), TABLE_BYTES);
            assert!(!intake.outruns_levels(at(0), 1, true), "too few to tell");
        }
        let intake = Intake::default();
        for flush in 1..=9 {
            intake.note_flush(at(flush * 251), TABLE_BYTES);
            assert!(
                !intake.outruns_levels(at(flush * 251), 1, false),
                "a little too slow"
            );
        }
        intake.note_flush(at(2500), TABLE_BYTES);
        assert!(intake.outruns_levels(at(2500), 1, false));
        assert!(
            intake.outruns_levels(at(502 + 4000), 1, false),
            "until they come at half that rate"
        );
        assert!(!intake.outruns_levels(at(502 + 4001), 1, false));
        assert!(!intake.outruns_levels(at(2600), 1, false), "it has ended");
        assert!(
            intake.outruns_levels(at(2501), 1, true),
            "and goes on where something is left"
        );
        assert!(intake.outruns_levels(at(2600), 1, false));
        assert!(!intake.outruns_levels(at(2600), 3, true), "three threads do more");
    }
}
