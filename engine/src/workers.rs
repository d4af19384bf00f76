//! The threads that take jobs, and what ends them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never};
use siltstone_vfs::{Error, ErrorKind, Result, lower_thread_priority};

use crate::core::Core;
use crate::jobs::{Class, Inboxes};
use crate::reaper::Garbage;

/// How long after opening the tables found are left alone, and no log segment is made ready. Filling page tables would take memory
/// bandwidth, locks of the address space and a processor from the first reads, and making 16 MiB of log would, too; a process
/// that opens the database for one read and goes would wait for both.
const FIRST_READS: Duration = Duration::from_millis(3);

/// How soon it is noticed that writes have let up.
const LET_UP: Duration = Duration::from_millis(100);

/// The threads of an open database.
#[derive(Default)]
pub(crate) struct Threads {
    stop: Option<Sender<()>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts the log's worker, one flush worker, the compaction workers and the reaper.
    ///
    /// # Errors
    /// Where a thread cannot be had; those already started are joined.
    pub(crate) fn start(core: &Arc<Core>, inboxes: &Inboxes, garbage: &Receiver<Garbage>) -> Result<Threads> {
        core.scheduler.set_just_opened(true);
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let mut threads = Threads {
            stop: Some(stop),
            handles: Vec::new(),
        };
        let first = [
            (Class::Log, &inboxes.log, "siltstone-log".to_owned()),
            (Class::Flush, &inboxes.flush, "siltstone-flush".to_owned()),
        ];
        let compactors = (1..core.options.background_threads).map(|number| {
            (
                Class::Compact,
                &inboxes.compact,
                format!("siltstone-comp{number}"),
            )
        });
        for (class, inbox, name) in first.into_iter().chain(compactors) {
            let (core, inbox, stopped) = (Arc::clone(core), inbox.clone(), stopped.clone());
            threads.spawn(name, move || work(&core, class, &inbox, &stopped))?;
        }
        let (core, garbage) = (Arc::clone(core), garbage.clone());
        threads.spawn("siltstone-reaper".to_owned(), move || {
            crate::reaper::run(&core, &garbage, &stopped)
        })?;
        Ok(threads)
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        match std::thread::Builder::new().name(name.clone()).spawn(body) {
            Ok(handle) => {
                self.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                self.join();
                Err(
                    Error::new(ErrorKind::Io, format!("could not start the thread {name}"))
                        .with_source(error),
                )
            }
        }
    }

    /// Tells the threads to stop and waits for them. Returns whether one of them had panicked.
    pub(crate) fn join(&mut self) -> bool {
        self.stop = None;
        let own = std::thread::current().id();
        // The last handle of a database can be dropped by its own thread only if a callback holds one; it would
        // wait for itself.
        self.handles
            .drain(..)
            .filter(|handle| handle.thread().id() != own)
            .any(|handle| handle.join().is_err())
    }
}

fn work(core: &Core, class: Class, inbox: &Receiver<()>, stopped: &Receiver<()>) {
    match class {
        Class::Log => {}
        Class::Flush => lower_thread_priority(core.options.flush_nice),
        Class::Compact => lower_thread_priority(core.options.compaction_nice),
    }
    // Whichever of them is free by then: the log's worker may still be making a segment.
    let mut first_reads = match class {
        Class::Log | Class::Compact => after(FIRST_READS),
        Class::Flush => never(),
    };
    loop {
        let look_again = match class {
            Class::Compact if core.scheduler.is_holding_back() => after(LET_UP),
            _ => never(),
        };
        crossbeam_channel::select! {
            recv(inbox) -> token => if token.is_err() { return },
            recv(first_reads) -> _ => {
                first_reads = never();
                core.scheduler.set_just_opened(false);
            }
            recv(look_again) -> _ => {}
            recv(stopped) -> _ => return,
        }
        while let Some(job) = core.take_job(class) {
            core.schedule();
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| core.run(job)));
            match ran {
                Ok(Ok(())) => {}
                // With room again, or when a table has gone, the job is taken up anew.
                Ok(Err(trouble)) if trouble.error().kind() == ErrorKind::NoSpace => break,
                Ok(Err(_)) => {}
                Err(panic) => {
                    let message = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("unknown panic");
                    core.failure.record(
                        &Error::new(ErrorKind::Io, format!("a background job panicked: {message}"))
                            .with_advice("this is a bug in Siltstone; reopen the database"),
                    );
                    core.progress.announce();
                    return;
                }
            }
        }
    }
}
