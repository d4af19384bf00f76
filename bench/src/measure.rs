//! Time, CPU, memory and bytes written.

use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::{Engine, Result, Session};
use crate::timeline::{Ticks, Timeline};

/// What a timed phase gave.
pub(crate) struct Timed {
    /// Operations: calls, unless told otherwise.
    pub(crate) ops: u64,
    /// From the first call of any thread to the last.
    pub(crate) elapsed: Duration,
    /// Nanoseconds of each call.
    pub(crate) latency_ns: Histogram<u64>,
    /// Operations a second over time.
    pub(crate) timeline: Timeline,
    /// What the calls returned, added up.
    pub(crate) sum: u64,
}

impl Timed {
    /// The same with the calls counted as `ops` operations.
    pub(crate) fn counting(mut self, ops: u64) -> Self {
        self.timeline.scale(ops as f64 / self.ops.max(1) as f64);
        self.ops = ops;
        self
    }
}

/// Nanoseconds of a duration, which no run comes near the limit of.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An empty histogram of nanoseconds with three digits, up to ten minutes: `saturating_record` clamps to its bounds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000_000, 3)?)
}

/// Makes `calls` calls of `work` on `threads` threads, each with its own session. Call numbers are dealt out in turn.
///
/// The clock is read once a call: a latency is the time between the ends of two calls, so it contains making the key
/// and the value, and the clock (about 30 ns); so does the throughput, for every engine alike.
pub(crate) fn timed<W>(engine: &dyn Engine, threads: u64, calls: u64, work: W) -> Result<Timed>
where
    W: Fn(&mut dyn Session, u64) -> Result<u64> + Sync,
{
    let threads = threads.max(1);
    let start_line = Barrier::new(usize::try_from(threads)?);
    let one = |thread: u64| -> Result<Part> {
        // An error is handed back after the line: the others would wait there for ever.
        let (session, latency_ns) = (engine.session(), histogram());
        start_line.wait();
        let (mut session, mut latency_ns, mut total) = (session?, latency_ns?, 0_u64);
        let begun = Instant::now();
        let (mut last, mut ticks) = (begun, Ticks::new(begun));
        let mut call = thread;
        while call < calls {
            total = total.wrapping_add(work(&mut *session, call)?);
            let now = Instant::now();
            latency_ns.saturating_record(nanos(now - last));
            ticks.count(now);
            last = now;
            call += threads;
        }
        Ok(Part {
            begun,
            ended: last,
            latency_ns,
            ticks: ticks.finish(),
            sum: total,
        })
    };
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join())
            .collect::<Vec<_>>()
    });
    let (mut begun, mut ended) = (None::<Instant>, None::<Instant>);
    let (mut latency_ns, mut sum, mut ticks) = (histogram()?, 0_u64, Vec::new());
    for result in results {
        let part = result.map_err(|_| "a measuring thread panicked")??;
        begun = Some(begun.map_or(part.begun, |begun| begun.min(part.begun)));
        ended = Some(ended.map_or(part.ended, |ended| ended.max(part.ended)));
        latency_ns.add(&part.latency_ns)?;
        sum = sum.wrapping_add(part.sum);
        ticks.push(part.ticks);
    }
    let elapsed = ended
        .zip(begun)
        .map_or(Duration::ZERO, |(ended, begun)| ended - begun);
    Ok(Timed {
        ops: calls,
        elapsed,
        latency_ns,
        timeline: Timeline::of(&ticks),
        sum,
    })
}

/// What one thread brings home.
struct Part {
    begun: Instant,
    ended: Instant,
    latency_ns: Histogram<u64>,
    ticks: Vec<u64>,
    sum: u64,
}

/// CPU time of this process, all threads, user and system.
pub(crate) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What this process has moved to and from the device; nothing where the kernel does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceBytes {
    written: Option<u64>,
    read: Option<u64>,
}

impl DeviceBytes {
    /// Until now: `write_bytes` less what was taken back before it got there, and `read_bytes`.
    pub(crate) fn now() -> Self {
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let field = |name: &str| {
            io.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        let cancelled = field("cancelled_write_bytes:").unwrap_or(0);
        Self {
            written: field("write_bytes:").map(|bytes| bytes.saturating_sub(cancelled)),
            read: field("read_bytes:"),
        }
    }

    /// Bytes written since `before`.
    pub(crate) fn written_since(&self, before: &Self) -> Option<u64> {
        Some(self.written?.saturating_sub(before.written?))
    }

    /// Bytes read since `before`.
    pub(crate) fn read_since(&self, before: &Self) -> Option<u64> {
        Some(self.read?.saturating_sub(before.read?))
    }
}

/// Peak resident memory, sampled every 20 ms while it lives.
pub(crate) struct MemorySampler {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Memory>,
}

/// Resident bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Anonymous: what the program itself holds.
    pub(crate) anonymous_bytes: u64,
    /// Pages of mapped files, which the kernel can drop at will.
    pub(crate) mapped_bytes: u64,
}

impl MemorySampler {
    /// Starts sampling.
    pub(crate) fn start() -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut peak = Memory::default();
            loop {
                if let Some(now) = memory_now() {
                    peak.anonymous_bytes = peak.anonymous_bytes.max(now.anonymous_bytes);
                    peak.mapped_bytes = peak.mapped_bytes.max(now.mapped_bytes);
                }
                if stopped.recv_timeout(Duration::from_millis(20)) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        Self { stop, thread }
    }

    /// Stops and says what the peak was.
    pub(crate) fn stop(self) -> Memory {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn memory_now() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    Some(Memory {
        anonymous_bytes: kib("RssAnon:")? << 10,
        mapped_bytes: kib("RssFile:")? << 10,
    })
}

/// Bytes that the files under `dir` occupy: blocks, not lengths, since some stores make sparse files.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // A store may remove a file meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        total += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_a_nanosecond_and_of_a_minute_are_kept() {
        let mut latencies = histogram().unwrap();
        for ns in [1, 2_500, 60_000_000_000] {
            latencies.saturating_record(ns);
        }
        assert_eq!(latencies.min(), 1);
        assert!(latencies.max() >= 60_000_000_000);
        assert!((2_490..2_510).contains(&latencies.value_at_quantile(0.5)));
    }

    #[test]
    fn a_sparse_file_counts_for_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() < 1 << 20);
    }
}
