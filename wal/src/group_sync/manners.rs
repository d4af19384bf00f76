//! Whether a leader lets others come before it closes its group.
//!
//! To yield costs next to nothing where nobody else is ready to run, and a few microseconds for each writer that is:
//! less than a sync that would have to carry it later. But the kernel does not say who is ready. Where that is somebody
//! else's loop, the processor is gone for a whole time slice, milliseconds, and twenty syncs could have run. So each
//! yield is timed and judged by who came meanwhile, and each bad one doubles the number of groups that are closed
//! without one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a leader yields while others keep coming.
const YIELDS_MAX: u32 = 4;
/// A yield may take this long for each one that comes, and once more: several times what a writer takes from one wait
/// to the next, and less than a sync takes.
const PATIENCE: Duration = Duration::from_micros(100);
/// After a bad yield, so many groups are closed without one at first, and at most.
const ABSTENTION_MIN: u32 = 16;
const ABSTENTION_MAX: u32 = 4096;

/// What earlier groups have taught. Used by one leader at a time.
#[derive(Debug, Default)]
pub(super) struct Manners {
    /// How many waited when the last sync ended: for that one, and for the next.
    about: AtomicU32,
    /// How many groups are still to be closed without yielding.
    abstain: AtomicU32,
    /// For how many it was after the last bad yield; halved by each good one.
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
        for _ in 0..YIELDS_MAX {
            let took = timed_yield();
            let came = members().saturating_sub(present);
            present += came;
            if !self.was_worth_it(took, came) {
                return;
            }
        }
    }

    /// Remembers how many waited when a sync ended.
    pub(super) fn remember(&self, about: u32) {
        self.about.store(about, Ordering::Relaxed);
    }

    fn was_worth_it(&self, took: Duration, came: u32) -> bool {
        let abstention = self.abstention.load(Ordering::Relaxed);
        if took > PATIENCE.saturating_mul(came.saturating_add(1)) {
            let longer = abstention.saturating_mul(2).clamp(ABSTENTION_MIN, ABSTENTION_MAX);
            self.abstention.store(longer, Ordering::Relaxed);
            self.abstain.store(longer, Ordering::Relaxed);
        } else if came > 0 {
            self.abstention.store(abstention / 2, Ordering::Relaxed);
            return true;
        }
        false
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
        // A good one halves the next abstention, and any number of them make it the shortest.
        assert_eq!(yields(&manners, 2, 1, SHORT), 2);
        yields(&manners, 2, 1, LONG);
        assert_eq!(manners.abstain.load(Ordering::Relaxed), 4096);
        manners.abstain.store(0, Ordering::Relaxed);
        for _ in 0..20 {
            assert_eq!(yields(&manners, 2, 1, SHORT), 2);
        }
        yields(&manners, 2, 1, LONG);
        assert_eq!(manners.abstain.load(Ordering::Relaxed), ABSTENTION_MIN);
    }

    /// The longer a yield takes, the more have to come for it to be worth it.
    #[test]
    fn a_long_yield_is_good_if_it_brings_many() {
        let manners = Manners::default();
        let took = PATIENCE * 11;
        assert!(manners.was_worth_it(took, 10));
        assert_eq!(manners.abstain.load(Ordering::Relaxed), 0);
        assert!(!manners.was_worth_it(took, 9));
        assert_eq!(manners.abstain.load(Ordering::Relaxed), ABSTENTION_MIN);
    }
}
