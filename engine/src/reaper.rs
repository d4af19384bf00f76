//! The reaper: the one place where views are freed, and where obsolete tables are unmapped, truncated and removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, TryRecvError};
use siltstone_sstable::Table;
use siltstone_vfs::{Error, Result, Unmapped};

use crate::core::Core;
use crate::super_version::SuperVersion;

/// Bytes cut from an obsolete table at a time.
const TRUNCATE_CHUNK_BYTES: u64 = 8 << 20;
/// Pause between two cuts, so that freeing a large file does not hold up the device's journal.
const TRUNCATE_PAUSE: Duration = Duration::from_micros(500);
/// How soon to look again at what somebody still holds.
const HELD_INTERVAL: Duration = Duration::from_millis(20);

/// What nobody needs any more, on its way out.
pub(crate) enum Garbage {
    /// A view that has been replaced; readers may still hold it.
    View(Arc<SuperVersion>),
    /// An obsolete table; iterators may still hold it.
    Table(Arc<Table>),
    /// An obsolete or unfinished table that is not open.
    Orphan(PathBuf),
}

/// What has been sent and is not gone yet.
pub(crate) struct Reaper {
    inbox: Receiver<Garbage>,
    views: Vec<Arc<SuperVersion>>,
    tables: Vec<Arc<Table>>,
    /// Files whose removal failed; tried again.
    failed: Vec<PathBuf>,
}

impl Reaper {
    pub(crate) fn new(inbox: Receiver<Garbage>) -> Reaper {
        Reaper {
            inbox,
            views: Vec::new(),
            tables: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// How many views and tables wait for somebody to let go.
    pub(crate) fn held(&self) -> usize {
        self.views.len() + self.tables.len()
    }

    fn accept(&mut self, garbage: Garbage) {
        match garbage {
            Garbage::View(view) => self.views.push(view),
            Garbage::Table(table) => self.tables.push(table),
            Garbage::Orphan(path) => self.failed.push(path),
        }
    }

    /// Takes in what has been sent, without waiting.
    fn collect(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(garbage) => self.accept(garbage),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Frees the views that no reader holds any more. Returns whether there were any.
    fn free_views(&mut self) -> bool {
        self.collect();
        let before = self.views.len();
        self.views.retain(|view| Arc::strong_count(view) > 1);
        // Freeing a view can free tables, which arrive in the inbox.
        self.collect();
        self.views.len() < before
    }

    /// Does all that can be done now. Returns whether anything was.
    pub(crate) fn step(&mut self, core: &Core) -> bool {
        let mut worked = self.free_views();
        let mut removed = false;
        for table in std::mem::take(&mut self.tables) {
            // Cutting a table takes a while, and views hold whole memtables.
            worked |= self.free_views();
            match Arc::try_unwrap(table) {
                Err(held) => self.tables.push(held),
                Ok(table) => {
                    worked = true;
                    core.mapped_tables.fetch_sub(1, Ordering::Relaxed);
                    let bytes = table.size_bytes();
                    match retire(core, table.into_mapping().unmap()) {
                        Ok(()) => {
                            removed = true;
                            core.counters.tables_retired.fetch_add(1, Ordering::Relaxed);
                            core.counters.bytes_retired.fetch_add(bytes, Ordering::Relaxed);
                        }
                        Err((path, error)) => {
                            core.counters.note_background_error(&error);
                            self.failed.push(path);
                        }
                    }
                }
            }
        }
        for path in std::mem::take(&mut self.failed) {
            match remove_orphan(core, &path) {
                Ok(()) => (removed, worked) = (true, true),
                Err(error) => {
                    core.counters.note_background_error(&error);
                    if !core.closing() {
                        self.failed.push(path);
                    }
                }
            }
        }
        if removed && let Err(error) = core.fs.sync_dir(&core.dir) {
            // A name that comes back after a crash is recognised and removed at the next open.
            core.counters.note_background_error(&error);
        }
        worked
    }
}

/// unmap → truncate in chunks → unlink.
fn retire(core: &Core, table: Unmapped) -> std::result::Result<(), (PathBuf, Error)> {
    let mut pace = || {
        if !core.closing() {
            core.clock.sleep(TRUNCATE_PAUSE);
        }
    };
    let path = table.path().to_owned();
    match table.truncate(&*core.fs, TRUNCATE_CHUNK_BYTES, &mut pace) {
        Ok(truncated) => truncated
            .remove(&*core.fs)
            .map(drop)
            .map_err(|(_, error)| (path, error)),
        Err((_, error)) => Err((path, error)),
    }
}

/// Removes a table file that no version knows and nobody has open.
pub(crate) fn remove_orphan(core: &Core, path: &std::path::Path) -> Result<()> {
    if !core.fs.exists(path)? {
        return Ok(());
    }
    core.lock
        .claim_orphan(path.to_owned())?
        .remove(&*core.fs)
        .map(drop)
        .map_err(|(_, error)| error)
}

/// The reaper's thread.
pub(crate) fn run(core: &Core, inbox: &Receiver<Garbage>, stop: &Receiver<()>) {
    loop {
        let held = core.reaper.lock().held() > 0;
        let wait = if held {
            HELD_INTERVAL
        } else {
            Duration::from_secs(3600)
        };
        // Garbage is only looked for here, and taken under the reaper's lock: in this thread's hands it would be nowhere to
        // be seen by who waits until all is reaped.
        let mut either = Select::new();
        either.recv(inbox);
        either.recv(stop);
        // Whatever ends the wait, the step looks at everything.
        let _ = either.ready_timeout(wait);
        if !matches!(stop.try_recv(), Err(TryRecvError::Empty)) {
            return;
        }
        let mut reaper = core.reaper.lock();
        let worked = reaper.step(core);
        drop(reaper);
        if worked {
            core.progress.announce();
            if core.space.is_full() {
                core.schedule();
            }
        }
    }
}
