//! Write stalls: smooth delays with a reason and a deadline, never an unbounded wait.
//!
//! Flush and compaction have to keep up with writes; where they fall behind, each write is delayed a little, in
//! proportion to its bytes, and only past a hard limit does it wait. The state is kept for each keyspace and looked
//! at with one relaxed load a write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use siltstone_vfs::{BusyReason, Error};

use crate::options::KeyspaceOptions;
use crate::super_version::SuperVersion;

/// Bytes a second that a keyspace just past its slowdown mark may write.
const DELAYED_BYTES_PER_S_MAX: u64 = 64 << 20;
/// … and just before its stop mark.
const DELAYED_BYTES_PER_S_MIN: u64 = 2 << 20;
/// Delays are put together until they come to so much, as in RocksDB. A sleep takes some 80 us longer than it was asked for:
/// one for each write of a hundred bytes, two microseconds at the rate asked for, made delayed writes twenty times slower than
/// asked, and kept a processor busy with going to sleep (docs/notes/0024-delays-and-two-writers.md).
const DELAY_MIN: Duration = Duration::from_millis(1);
/// Time that sleeps took too long, or that nobody used, counts for later ones up to this.
const CREDIT_MAX: Duration = Duration::from_millis(10);
/// The longest that one batch keeps the others waiting.
const SLOT_MAX: Duration = Duration::from_secs(1);
/// Compaction debt, in multiples of the first level's target, from which writes are delayed, and at which they wait.
const DEBT_SLOWDOWN_FACTOR: u64 = 64;
const DEBT_STOP_FACTOR: u64 = 256;

/// What a keyspace's tables and memtables ask of its writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    None,
    /// Write no faster than this.
    Slow {
        bytes_per_s: u64,
        reason: BusyReason,
    },
    /// Wait until it is over.
    Stop {
        reason: BusyReason,
    },
}

impl Demand {
    pub(crate) fn reason(self) -> Option<BusyReason> {
        match self {
            Demand::None => None,
            Demand::Slow { reason, .. } | Demand::Stop { reason } => Some(reason),
        }
    }
}

/// The demand on a keyspace's writers, packed into one word.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    word: AtomicU64,
}

impl Pressure {
    /// Computes the demand for a view.
    pub(crate) fn update(&self, view: &SuperVersion, options: &KeyspaceOptions) {
        let version = &view.tables.version;
        let leveled = options.leveled();
        let l0 = siltstone_compaction::l0_backlog(version, &leveled);
        let debt = siltstone_compaction::debt_bytes(version, &leveled);
        self.word
            .store(encode(demand(l0, debt, options)), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn demand(&self) -> Demand {
        decode(self.word.load(Ordering::Relaxed))
    }
}

fn demand(l0: usize, debt_bytes: u64, options: &KeyspaceOptions) -> Demand {
    let debt_slow = options.level_base_bytes.saturating_mul(DEBT_SLOWDOWN_FACTOR);
    let debt_stop = options.level_base_bytes.saturating_mul(DEBT_STOP_FACTOR);
    let by_tables = (
        l0 as u64,
        options.l0_slowdown_tables as u64,
        options.l0_stop_tables as u64,
    );
    let by_debt = (debt_bytes, debt_slow, debt_stop);
    let pressed = [
        (by_tables, BusyReason::L0Tables),
        (by_debt, BusyReason::CompactionDebt),
    ];
    let mut slowest = Demand::None;
    for ((at, slow, stop), reason) in pressed {
        if at >= stop {
            return Demand::Stop { reason };
        }
        if at < slow {
            continue;
        }
        // Linear in the logarithm would be smoother still; linear is easy to predict: half way, half the rate.
        let room = u128::from(stop - at) * u128::from(DELAYED_BYTES_PER_S_MAX) / u128::from(stop - slow);
        let rate = u64::try_from(room)
            .unwrap_or(DELAYED_BYTES_PER_S_MAX)
            .max(DELAYED_BYTES_PER_S_MIN);
        match slowest {
            Demand::Slow { bytes_per_s, .. } if bytes_per_s <= rate => {}
            _ => {
                slowest = Demand::Slow {
                    bytes_per_s: rate,
                    reason,
                }
            }
        }
    }
    slowest
}

const REASONS: [BusyReason; 4] = [
    BusyReason::L0Tables,
    BusyReason::CompactionDebt,
    BusyReason::MemtableQueue,
    BusyReason::LogSize,
];

fn encode(demand: Demand) -> u64 {
    let index = |reason| REASONS.iter().position(|known| *known == reason).unwrap_or(0) as u64;
    match demand {
        Demand::None => 0,
        Demand::Slow { bytes_per_s, reason } => (bytes_per_s << 8) | (index(reason) << 4) | 1,
        Demand::Stop { reason } => (index(reason) << 4) | 2,
    }
}

fn decode(word: u64) -> Demand {
    let reason = REASONS[usize::from(word.to_le_bytes()[0] >> 4) % REASONS.len()];
    match word & 15 {
        0 => Demand::None,
        1 => Demand::Slow {
            bytes_per_s: word >> 8,
            reason,
        },
        _ => Demand::Stop { reason },
    }
}

/// Hands out time slots to delayed writers: each takes as long as its bytes need at the asked rate, one after the
/// other. A writer waits for its slot where that is [`DELAY_MIN`] away, and is let through where it comes sooner.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    next_free: Mutex<Duration>,
}

impl Pacer {
    /// Reserves a slot for `bytes` and returns how long to wait for it; `None` where that is over `patience`, and
    /// then nothing is reserved.
    pub(crate) fn reserve(
        &self,
        now: Duration,
        bytes: u64,
        bytes_per_s: u64,
        patience: Duration,
    ) -> Option<Duration> {
        let mut next_free = self.next_free.lock();
        let start = (*next_free).max(now.saturating_sub(CREDIT_MAX));
        let mut wait = start.saturating_sub(now);
        if wait < DELAY_MIN {
            wait = Duration::ZERO;
        }
        if wait > patience {
            return None;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
        // One huge batch must not refuse its followers long after the pressure is gone.
        let slot = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(SLOT_MAX);
        *next_free = start + slot;
        Some(wait)
    }
}

/// How often, and how long, writes have been held up.
#[derive(Debug, Default)]
pub(crate) struct StallCounts {
    pub(crate) delayed: AtomicU64,
    pub(crate) stopped: AtomicU64,
    pub(crate) waited_ns: AtomicU64,
}

impl StallCounts {
    pub(crate) fn note(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// Says that background work got something done, so that whoever waits looks again.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    generation: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Progress {
    pub(crate) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        // Taking the lock orders this with a waiter between its check and its wait.
        drop(self.lock.lock());
        self.changed.notify_all();
    }

    /// The present generation: take it before looking at what is waited for.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Waits until something has been announced since `seen`, or `patience` is over.
    pub(crate) fn wait_beyond(&self, seen: u64, patience: Duration) {
        let mut lock = self.lock.lock();
        if self.generation.load(Ordering::SeqCst) == seen {
            self.changed.wait_for(&mut lock, patience);
        }
    }
}

/// The refusal of a write that may not wait any longer. `put_aside`: there are compactions that could not read their
/// tables.
pub(crate) fn refusal(reason: BusyReason, waited: Duration, put_aside: bool) -> Error {
    let why = match reason {
        BusyReason::MemtableQueue => "immutable memtables wait for their flush",
        BusyReason::L0Tables => "level 0 has too many tables",
        BusyReason::CompactionDebt => "too many bytes wait for compaction",
        BusyReason::LogSize => "the log has reached its bound",
        _ => "background work is behind",
    };
    Error::busy(
        reason,
        format!("the write was held up for {waited:?} because {why}, and its deadline has passed"),
    )
    .with_advice(if put_aside {
        "a compaction could not read its tables, see the metrics' background_errors: once they can be read again, \
         Db::resume has it tried again"
    } else {
        "try again later, or give a later deadline"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_smoothly_from_slowdown_to_stop() {
        let options = KeyspaceOptions::default();
        assert_eq!(demand(31, 0, &options), Demand::None);
        let mut last = u64::MAX;
        for l0 in 32..48 {
            let Demand::Slow { bytes_per_s, reason } = demand(l0, 0, &options) else {
                panic!("no delay at {l0}")
            };
            assert_eq!(reason, BusyReason::L0Tables);
            assert!(bytes_per_s < last && bytes_per_s >= DELAYED_BYTES_PER_S_MIN);
            last = bytes_per_s;
        }
        assert_eq!(
            demand(48, 0, &options),
            Demand::Stop {
                reason: BusyReason::L0Tables
            }
        );
        let debt = options.level_base_bytes * DEBT_STOP_FACTOR;
        assert_eq!(
            demand(0, debt, &options),
            Demand::Stop {
                reason: BusyReason::CompactionDebt
            }
        );
    }

    #[test]
    fn a_demand_survives_its_packing() {
        for reason in REASONS {
            for demand in [
                Demand::None,
                Demand::Stop { reason },
                Demand::Slow {
                    bytes_per_s: 123_456_789,
                    reason,
                },
            ] {
                assert_eq!(decode(encode(demand)), demand);
            }
        }
    }

    #[test]
    fn slots_follow_one_another_and_a_refused_one_takes_no_time() {
        let pacer = Pacer::default();
        let (now, patience) = (Duration::from_secs(5), Duration::from_secs(1));
        assert_eq!(pacer.reserve(now, 500, 1000, patience), Some(Duration::ZERO));
        assert_eq!(
            pacer.reserve(now, 1000, 1000, patience),
            Some(Duration::from_millis(500) - CREDIT_MAX)
        );
        assert_eq!(pacer.reserve(now, 1, 1000, patience), None);
        assert_eq!(
            pacer.reserve(now + Duration::from_millis(600), 1, 1000, patience),
            Some(Duration::from_millis(900) - CREDIT_MAX)
        );
    }

    /// Sleeps are few, and what they take too long is made up for: writes come as fast as asked.
    #[test]
    fn short_delays_are_put_together_and_late_wake_ups_made_up_for() {
        const OVERSLEPT: Duration = Duration::from_micros(60);
        let (bytes, bytes_per_s) = (128, DELAYED_BYTES_PER_S_MAX);
        let pacer = Pacer::default();
        let begin = Duration::from_secs(5);
        let (mut now, mut sleeps, mut written) = (begin, 0, 0);
        while written < 2 * bytes_per_s {
            let wait = pacer
                .reserve(now, bytes, bytes_per_s, Duration::MAX)
                .expect("patient");
            if !wait.is_zero() {
                assert!(wait >= DELAY_MIN);
                sleeps += 1;
                now += wait + OVERSLEPT;
            }
            written += bytes;
        }
        let elapsed = now - begin;
        assert!(
            elapsed.abs_diff(Duration::from_secs(2)) <= CREDIT_MAX + DELAY_MIN + OVERSLEPT,
            "{elapsed:?}"
        );
        assert!(sleeps <= 2000, "{sleeps}");
    }

    /// Nobody is owed more than a moment's worth for the time in which nothing was written.
    #[test]
    fn a_pause_is_worth_little() {
        let pacer = Pacer::default();
        for second in 1..4 {
            let now = Duration::from_secs(second * 100);
            let free = (0..)
                .take_while(|_| pacer.reserve(now, 1000, 1_000_000, Duration::MAX) == Some(Duration::ZERO))
                .count();
            // A thousand bytes a millisecond.
            assert_eq!(
                free, 11,
                "10 that were not used, and one until delays are worth a sleep"
            );
        }
    }
}
