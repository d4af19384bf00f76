//! Whether a leader lets others come before it closes its group.
//!
//! To yield costs next to nothing where nobody else is ready to run, and a few microseconds for each writer that is:
//! less than a sync that would have to carry it later. But the kernel does not say who is ready. Where that is somebody
//! else's loop, the processor is gone for a whole time slice, milliseconds, and twenty syncs could have run. So each
//! yield is timed and judged by who came meanwhile, and each bad one doubles the number of groups that are closed
//! without one. It takes some fifty groups with good ones to halve it: that is about what a bad one costs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a leader yields while others keep coming.
const YIELDS_MAX: u32 = 4;
/// A yield may take this long, and this much longer for each one that comes: several times what a switch takes, and what a
/// writer takes from one wait to the next.
const PATIENCE: Duration = Duration::from_micros(25);
const PATIENCE_EACH: Duration = Duration::from_micros(50);
/// After a bad yield, so many groups are closed without one at first, and at most.
const ABSTENTION_MIN: u32 = 16;
const ABSTENTION_MAX: u32 = 4096;
/// A group with good yields takes one part in so many from the next abstention.
const GOOD_GROUPS: u32 = 64;

/// What earlier groups have taught. Used by one leader at a time.
#[derive(Debug, Default)]
pub(super) struct Manners {
    /// How many waited when the last sync ended: for that one, and for the next.
    about: AtomicU32,
    /// How many groups are still to be closed without yielding.
    abstain: AtomicU32,
    /// For how many it was after the last bad yield, less what good ones have taken from it.
    abstention: AtomicU32,
}

impl Manners {
    /// Yields, by `timed_yield`, while that makes `members`, the leader's group, grow. Does not where nobody but the
    /// leader has been about, or yielding has been found to be bad.
    pub(super) fn let_others_come(&self, members: impl Fn() -> u32, timed_yield: impl Fn() -> Duration) {
        let mut present = members();
        if present == 1 && self.about.load(Ordering::Relaxed) <= 1 {
            return;
        }
        let abstain = self.abstain.load(Ordering::Relaxed);
        if abstain > 0 {
            self.abstain.store(abstain - 1, Ordering::Relaxed);
            return;
        }
        let first = present;
        for _ in 0..YIELDS_MAX {
            let took = timed_yield();
            let came = members().saturating_sub(present);
            present += came;
            if took > PATIENCE + PATIENCE_EACH.saturating_mul(came) {
                return self.abstain_longer();
            }
            if came == 0 {
                break;
            }
        }
        if present > first {
            let abstention = self.abstention.load(Ordering::Relaxed);
            let less = abstention - abstention.div_ceil(GOOD_GROUPS);
            self.abstention.store(less, Ordering::Relaxed);
        }
    }

    /// Remembers how many waited when a sync ended.
    pub(super) fn remember(&self, about: u32) {
        self.about.store(about, Ordering::Relaxed);
    }

    fn abstain_longer(&self) {
        let abstention = self.abstention.load(Ordering::Relaxed);
        let longer = abstention.saturating_mul(2).clamp(ABSTENTION_MIN, ABSTENTION_MAX);
        self.abstention.store(longer, Ordering::Relaxed);
        self.abstain.store(longer, Ordering::Relaxed);
    }
}

/// Yields the processor, and says for how long.
pub(super) fn timed_yield() -> Duration {
    let start = Instant::now();
    thread::yield_now();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SHORT: Duration = Duration::from_micros(10);
    const LONG: Duration = Duration::from_millis(3);

    /// How often a leader with `members` yields, where each yield takes `took` and brings one of `to_come`.
    fn yields(manners: &Manners, members: u32, to_come: u32, took: Duration) -> u32 {
        let (present, yields) = (Cell::new(members), Cell::new(0));
        let timed_yield = || {
            yields.set(yields.get() + 1);
            present.set((present.get() + 1).min(members + to_come));
            took
        };
        manners.let_others_come(|| present.get(), timed_yield);
        manners.remember(present.get());
        yields.get()
    }

    #[test]
    fn a_leader_yields_while_others_come() {
        let manners = Manners::default();
        assert_eq!(yields(&manners, 2, 0, SHORT), 1);
        assert_eq!(yields(&manners, 2, 2, SHORT), 3);
        assert_eq!(yields(&manners, 2, 100, SHORT), YIELDS_MAX);
    }

    #[test]
    fn a_leader_who_is_alone_does_not_yield() {
        let manners = Manners::default();
        assert_eq!(yields(&manners, 1, 0, SHORT), 0);
        // One who was not alone a moment ago looks once whether that is still so.
        manners.remember(2);
        assert_eq!(yields(&manners, 1, 0, SHORT), 1);
        assert_eq!(yields(&manners, 1, 0, SHORT), 0);
    }

    #[test]
    fn bad_yields_are_made_ever_less_often() {
        let manners = Manners::default();
        let mut abstained = Vec::new();
        for _ in 0..12 {
            assert_eq!(yields(&manners, 2, 1, LONG), 1);
            let mut closed = 0;
            while manners.abstain.load(Ordering::Relaxed) > 0 {
                assert_eq!(yields(&manners, 2, 1, LONG), 0);
                closed += 1;
            }
            abstained.push(closed);
        }
        assert_eq!(abstained[..3], [16, 32, 64]);
        assert_eq!(abstained[10..], [4096, 4096]);
        // Some fifty groups with good ones halve the next abstention, and a thousand make it the shortest.
        for (good, next) in [(45, 4000), (1000, ABSTENTION_MIN)] {
            for _ in 0..good {
                assert_eq!(yields(&manners, 2, 1, SHORT), 2);
            }
            assert_eq!(yields(&manners, 2, 1, LONG), 1);
            assert_eq!(manners.abstain.swap(0, Ordering::Relaxed), next);
        }
    }

    /// The longer a yield takes, the more have to come for it to be good.
    #[test]
    fn a_long_yield_is_good_if_it_brings_many() {
        for (came, abstain) in [(10, 0), (9, ABSTENTION_MIN)] {
            let manners = Manners::default();
            let present = Cell::new(2);
            let timed_yield = || {
                present.set(present.get() + came);
                PATIENCE + PATIENCE_EACH * 10
            };
            manners.let_others_come(|| present.get(), timed_yield);
            assert_eq!(manners.abstain.load(Ordering::Relaxed), abstain);
        }
    }
}
