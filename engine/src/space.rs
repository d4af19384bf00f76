//! A full disk: puts are refused, what frees space goes on out of a reserve, and writes resume by themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_vfs::{Error, ErrorKind, LogIo, Removable, Result};

use crate::core::Core;
use crate::files::RESERVE;

/// How often writers may look whether there is room again.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Whether the disk is full.
#[derive(Debug, Default)]
pub(crate) struct Space {
    full: AtomicBool,
    last_probe: Mutex<Option<Duration>>,
    failures: AtomicU64,
}

impl Space {
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// How often something has met the full disk: whoever waits for a job sees by it that the job will not get done.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Takes the reserve at open; without room for it the database opens in the state of a full disk.
    pub(crate) fn take_reserve(&self, core: &Core) -> Result<()> {
        match ensure_reserve(core) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.full.store(true, Ordering::Release);
                Ok(())
            }
            other => other,
        }
    }

    /// The disk is full: gives up the reserve, and log segments that were kept to be reused, so that flushes and
    /// compactions have room to free some.
    pub(crate) fn note_full(&self, core: &Core) {
        if self.full.swap(true, Ordering::AcqRel) {
            // The reserve is gone already.
            self.failures.fetch_add(1, Ordering::AcqRel);
            return;
        }
        *self.last_probe.lock() = Some(core.clock.now());
        let path = core.dir.join(RESERVE);
        let given_up = core.fs.exists(&path).and_then(|there| {
            if there {
                core.fs.remove(&Removable::plain(&path)?)
            } else {
                Ok(())
            }
        });
        if let Err(error) = given_up {
            core.counters.note_background_error(&error);
        }
        core.remove_reusable_segments();
        core.schedule();
    }

    /// Passes when the disk is not full, or not any more.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn check(&self, core: &Core) -> Result<()> {
        if !self.is_full() {
            return Ok(());
        }
        let now = core.clock.now();
        // Held over the probe: two of them would take each other's reserve for a leftover.
        let Some(mut last) = self.last_probe.try_lock() else {
            return Err(refusal(core));
        };
        if last.is_some_and(|last| now >= last && now - last < PROBE_INTERVAL) {
            return Err(refusal(core));
        }
        *last = Some(now);
        match ensure_reserve(core) {
            Ok(()) => {
                self.full.store(false, Ordering::Release);
                core.schedule();
                core.progress.announce();
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NoSpace => Err(refusal(core)),
            Err(error) => {
                core.note_failure(&error);
                Err(error)
            }
        }
    }
}

/// Sees to it that the reserve stands, and that a further log segment would fit: without that, resuming would only
/// fail again.
fn ensure_reserve(core: &Core) -> Result<()> {
    let path = core.dir.join(RESERVE);
    let bytes = core.options.reserve_bytes;
    if core.fs.exists(&path)? {
        if core.fs.len(&path)? == bytes {
            return Ok(());
        }
        core.fs.remove(&Removable::plain(&path)?)?;
    }
    if core.fs.space_available(&core.dir)? < bytes.saturating_add(core.options.log_segment_bytes) {
        return Err(refusal(core));
    }
    if bytes > 0 {
        core.fs.create_log(&path, bytes, LogIo::Write)?;
    }
    Ok(())
}

pub(crate) fn refusal(core: &Core) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        "the disk is full; puts are refused, deletes and reads go on",
    )
    .with_path(&core.dir)
    .with_advice("make room: writes resume by themselves")
}
