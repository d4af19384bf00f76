//! Which seeds a suite runs, on how many threads, and what is printed when one fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Violation;

/// The variable that makes a suite run one seed only.
pub const SEED_VARIABLE: &str = "SILTSTONE_SEED";

/// The variable that gives a suite another number of seeds, all fresh, for a long run.
pub const SEED_COUNT_VARIABLE: &str = "SILTSTONE_SEED_COUNT";

/// The seeds of one run of a suite: a fixed list and one fresh seed, or the one in `SILTSTONE_SEED`, or as many fresh
/// ones as `SILTSTONE_SEED_COUNT` says.
///
/// ```
/// let seeds = siltstone_tests::Seeds::new("model", "any test", 4);
/// seeds.run(1, |seed| if seed == 1 << 40 { Err(siltstone_tests::Violation::new("never")) } else { Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Seeds {
    suite: &'static str,
    test: &'static str,
    seeds: Vec<u64>,
}

impl Seeds {
    /// `fixed` seeds from 1 on, and a fresh one; `suite` and `test` are the names of the test binary and of the test,
    /// for the command that replays a failure.
    pub fn new(suite: &'static str, test: &'static str, fixed: u64) -> Self {
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seeds = match (variable(SEED_VARIABLE), variable(SEED_COUNT_VARIABLE)) {
            (Some(seed), _) => vec![seed],
            (None, Some(count)) => (0..count.max(1)).map(|n| Self::fresh() + n).collect(),
            (None, None) => (1..=fixed).chain([Self::fresh()]).collect(),
        };
        println!(
            "{suite}::{test}: {} seeds, the fresh one is {}",
            seeds.len(),
            seeds[seeds.len() - 1]
        );
        Self { suite, test, seeds }
    }

    /// A seed that no run has had before, small enough to type.
    pub fn fresh() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        1_000_000 + (now.as_secs().wrapping_mul(1_000_003) ^ u64::from(now.subsec_nanos())) % 1_000_000_000
    }

    /// The seeds.
    pub fn list(&self) -> &[u64] {
        &self.seeds
    }

    /// Runs `history` for every seed on `threads` threads.
    ///
    /// # Panics
    /// With the first violation or panic, its seed, and the command that replays it.
    pub fn run(&self, threads: usize, history: impl Fn(u64) -> Result<(), Violation> + Sync) {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let failures: Mutex<Vec<(u64, String)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let Some(seed) = self.seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        let outcome = catch_unwind(AssertUnwindSafe(|| history(*seed)));
                        let message = match outcome {
                            Ok(Ok(())) => continue,
                            Ok(Err(violation)) => violation.to_string(),
                            Err(panic) => format!("panicked: {}", panic_message(&*panic)),
                        };
                        failed.store(true, Ordering::Relaxed);
                        if let Ok(mut failures) = failures.lock() {
                            failures.push((*seed, message));
                        }
                    }
                });
            }
        });
        let failures = failures.into_inner().unwrap_or_default();
        if let Some((seed, message)) = failures.first() {
            panic!(
                "seed {seed}: {message}\nreplay: {SEED_VARIABLE}={seed} cargo test -p siltstone-tests --test {} {} -- --nocapture",
                self.suite, self.test
            );
        }
    }
}

/// The text of a caught panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without a message".into())
}
