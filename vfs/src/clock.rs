//! Time, behind a trait: what waits and what measures asks a [`Clock`], so that tests decide how time passes.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A source of time.
pub trait Clock: Debug + Send + Sync {
    /// The time since an arbitrary origin; never goes back.
    fn now(&self) -> Duration;

    /// Returns after `duration` has passed on this clock.
    fn sleep(&self, duration: Duration);
}

/// The system's monotonic clock; its origin is the first use in the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The one there is.
    pub const fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is moved. Clones are the same clock; it starts at zero.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, duration: Duration) {
        let mut now = self.now.lock();
        *now = now.saturating_add(duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.lock()
    }

    /// Advances the clock and returns at once.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_by_advance_and_sleep_only() {
        let clock = ManualClock::new();
        let other = clock.clone();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        other.sleep(Duration::from_secs(3));
        assert_eq!(clock.now(), Duration::from_secs(5));
        clock.advance(Duration::MAX);
        assert_eq!(other.now(), Duration::MAX);
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let earlier = SystemClock.now();
        SystemClock.sleep(Duration::from_millis(1));
        assert!(SystemClock.now() >= earlier + Duration::from_millis(1));
    }
}
