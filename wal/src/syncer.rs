//! The syncing end of a log: which segments there are, what of them is durable, and the spare that stands ready.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use siltstone_vfs::{Error, ErrorKind, Fs, LogSync, LogWriter, Removable, Result};

use crate::first_error::FirstError;
use crate::format::{CAPACITY_UNIT_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::group_sync::GroupSync;
use crate::{LogOptions, RecordSeq, SegmentId, segment_path};

/// How many released segments are kept to be reused: flushes let go of them one or two at a time, in step with the
/// rotations that need new ones.
const REUSABLE_MAX: usize = 2;

/// The syncing end of a log: used from any thread, while the [`Log`](crate::Log) goes on appending.
pub struct LogSyncer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: LogOptions,
    /// The last record whose bytes are all in its segment. Stored with Release after the bytes, so that a sync that
    /// begins after reading it with Acquire covers them.
    /// Apart from what every append looks at.
    appended: CachePadded<AtomicU64>,
    group: GroupSync,
    first_error: FirstError,
    /// Segments that hold records, oldest first; the last one is being appended to. Locked for list operations only.
    live: Mutex<VecDeque<LiveSegment>>,
    /// Held while a segment is created, so that there is never more than one spare and ids ascend.
    creation: Mutex<Creation>,
    /// Whether `creation` holds a spare, to be asked without waiting for a creation that runs.
    spare_ready: AtomicBool,
}

struct LiveSegment {
    id: SegmentId,
    capacity_bytes: u64,
    sync: Arc<dyn LogSync>,
    /// The synced watermark when it was begun.
    synced_at_begin: u64,
    /// Nothing is appended to it any more.
    sealed: bool,
    /// Sealed, and a sync that began after that has succeeded.
    durable: bool,
    /// A sealed segment's writing end: dropping it unmaps the file, which is not for a commit's lock, and what was
    /// written here may make room for another segment.
    writer: Option<Box<dyn LogWriter>>,
}

struct Creation {
    next_segment: SegmentId,
    first: First,
    spare: Option<NewSegment>,
    /// At most [`REUSABLE_MAX`].
    reusable: Vec<Reusable>,
}

/// A segment whose records nobody needs any more, and whose file, space and pages will make another one.
struct Reusable {
    id: SegmentId,
    writer: Box<dyn LogWriter>,
}

/// What has become of the first segment. Before it is there, a failed attempt does not use its id up: whoever reads the
/// log may have been told which segment it begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Untried,
    /// An attempt has failed and may have left its file.
    Failed,
    Created,
}

/// A segment whose file is durable, all zero and in the directory, and which nothing was written to yet.
pub(crate) struct NewSegment {
    pub(crate) id: SegmentId,
    pub(crate) writer: Box<dyn LogWriter>,
    pub(crate) sync: Arc<dyn LogSync>,
}

impl LogSyncer {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        first_segment: SegmentId,
        synced: RecordSeq,
        options: LogOptions,
    ) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            options,
            appended: CachePadded::new(AtomicU64::new(synced.0)),
            group: GroupSync::new(synced.0),
            first_error: FirstError::default(),
            live: Mutex::default(),
            creation: Mutex::new(Creation {
                next_segment: first_segment,
                first: First::Untried,
                spare: None,
                reusable: Vec::new(),
            }),
            spare_ready: AtomicBool::new(false),
        }
    }

    /// Returns when every record up to `sequence` is durable. Any number of threads may wait; one `fdatasync` serves
    /// all whose records were appended when it began.
    ///
    /// Returns at once, and `Ok` even after a failure, where the record is durable already.
    ///
    /// # Errors
    /// `InvalidInput` where `sequence` has not been appended. The first error of any append or sync, now and ever
    /// after: the log is over, and what is in it is found out by opening it again.
    pub fn sync_to(&self, sequence: RecordSeq) -> Result<()> {
        let appended = self.appended();
        if sequence > appended {
            return Err(Error::invalid(format!(
                "a sync up to record {sequence} was asked for, but {appended} is the last one appended"
            )));
        }
        self.group.sync_to(
            sequence.0,
            &self.first_error,
            || self.appended().0,
            || self.sync_segments(),
        )
    }

    /// Every record up to this one is known to be durable: the synced watermark.
    pub fn synced(&self) -> RecordSeq {
        RecordSeq(self.group.synced())
    }

    /// The last record appended.
    pub fn appended(&self) -> RecordSeq {
        RecordSeq(self.appended.load(Ordering::Acquire))
    }

    /// Creates the next segment ahead of time, so that the rotation to it costs two small copies: reserves its space,
    /// syncs it and its directory, and has its pages ready unless the log is being synced. Does nothing where a spare stands ready. Takes milliseconds; for a background
    /// thread. A rotation that needs the segment meanwhile waits for it.
    ///
    /// # Errors
    /// Those of creating a file. Nothing was written to the log: it goes on, and the rotation tries again. Only a
    /// failed sync of the directory ends the log, as any failed sync does.
    pub fn prepare(&self) -> Result<()> {
        self.first_error.check()?;
        let mut creation = self.creation.lock();
        if creation.spare.is_none() {
            let mut spare = self.create_segment(&mut creation, self.options.segment_size_bytes)?;
            // Where nobody syncs, first touches are most of what an append costs. Where somebody does, the next sync
            // would have to write all of the segment.
            if !self.synced_since_begin() {
                spare.writer.populate();
            }
            creation.spare = Some(spare);
            self.spare_ready.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Lets go of the sealed segments below `segment`, synced or not; unmaps them, which may take long: for a
    /// background thread. Keeps the files of one or two to make the next segments of, unless the log is being synced:
    /// returns their ids. Deleting the others is the caller's business, once this has returned.
    ///
    /// REQUIRES: the records in them are durable elsewhere (in tables), no sync covers these segments any more, and it is
    /// durable that a replay begins at `segment` or above (in a synced manifest edit). A segment without records goes
    /// with the one before it: the one after it says what that one began with.
    pub fn release_below(&self, segment: SegmentId) -> Vec<SegmentId> {
        let mut released = Vec::new();
        {
            let mut live = self.live.lock();
            while live
                .front()
                .is_some_and(|front| front.sealed && front.id < segment)
            {
                released.extend(live.pop_front());
            }
        }
        let mut kept = Vec::new();
        if !self.has_failed() && !self.synced_since_begin() {
            let mut creation = self.creation.lock();
            for segment in &mut released {
                if creation.reusable.len() < REUSABLE_MAX
                    && segment.capacity_bytes == self.capacity_bytes()
                    && let Some(writer) = segment.writer.take()
                {
                    let id = segment.id;
                    creation.reusable.push(Reusable { id, writer });
                    kept.push(id);
                }
            }
        }
        // The unmapping happens here, outside the locks.
        drop(released);
        kept
    }

    /// Removes the files that were kept by [`release_below`](Self::release_below): worth calling when nothing will be
    /// appended for some time.
    ///
    /// # Errors
    /// The first failed removal; the others were tried.
    pub fn remove_reusable(&self) -> Result<()> {
        let reusable = std::mem::take(&mut self.creation.lock().reusable);
        let mut outcome = Ok(());
        for Reusable { id, writer } in reusable {
            drop(writer);
            outcome = outcome.and(self.remove_segment(id));
        }
        outcome
    }

    /// Removes the spare: the next segment is made when there is need for one, under the same id unless a later one has been
    /// used up (by a creation that failed, and may have left its file).
    ///
    /// # Errors
    /// Of the removal; the id is used up then.
    pub fn remove_spare(&self) -> Result<()> {
        let mut creation = self.creation.lock();
        self.spare_ready.store(false, Ordering::Release);
        let Some(NewSegment { id, .. }) = creation.spare.take() else {
            return Ok(());
        };
        self.remove_segment(id)?;
        if creation.next_segment == id.next() {
            creation.next_segment = id;
        }
        Ok(())
    }

    fn remove_segment(&self, id: SegmentId) -> Result<()> {
        self.fs.remove(&Removable::plain(&segment_path(&self.dir, id))?)
    }

    /// The size of a segment, unless a record is larger.
    fn capacity_bytes(&self) -> u64 {
        self.options
            .segment_size_bytes
            .next_multiple_of(CAPACITY_UNIT_BYTES)
    }

    /// The segments that hold records, with their capacities in bytes, oldest first; the one being appended to is the
    /// last. A spare is not among them.
    pub fn live_segments(&self) -> Vec<(SegmentId, u64)> {
        self.live
            .lock()
            .iter()
            .map(|segment| (segment.id, segment.capacity_bytes))
            .collect()
    }

    /// An id above those of all segments so far, the spare included.
    pub fn next_segment(&self) -> SegmentId {
        self.creation.lock().next_segment
    }

    /// Whether a write or sync has failed, so that this log takes nothing any more, whatever the error was.
    pub fn has_failed(&self) -> bool {
        self.first_error.check().is_err()
    }

    pub(crate) fn first_error(&self) -> &FirstError {
        &self.first_error
    }

    /// Publishes that the bytes of every record up to `sequence` have been written.
    pub(crate) fn set_appended(&self, sequence: RecordSeq) {
        self.appended.store(sequence.0, Ordering::Release);
    }

    /// Whether there has been a sync since the segment that is appended to was begun.
    fn synced_since_begin(&self) -> bool {
        let live = self.live.lock();
        live.back()
            .is_some_and(|segment| segment.synced_at_begin != self.group.synced())
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.spare_ready.load(Ordering::Acquire)
    }

    /// The segments to go on in when a record of `record_bytes` is next: the last of them has room for it. There are
    /// two where the spare is too small: it must be begun and sealed nevertheless, so that ids ascend and its file
    /// has an owner.
    ///
    /// # Errors
    /// Of creating a file; nothing has changed then, and a spare is kept.
    pub(crate) fn take_next(&self, record_bytes: u64) -> Result<Vec<NewSegment>> {
        let required = SEGMENT_HEADER_BYTES + record_bytes;
        let mut creation = self.creation.lock();
        let mut taken = Vec::with_capacity(2);
        if creation
            .spare
            .as_ref()
            .is_none_or(|spare| spare.writer.capacity_bytes() < required)
        {
            // With room for a seal, should the record be as large as that.
            let capacity = self
                .options
                .segment_size_bytes
                .max(required + RECORD_HEADER_BYTES);
            taken.push(self.create_segment(&mut creation, capacity)?);
        }
        if let Some(spare) = creation.spare.take() {
            self.spare_ready.store(false, Ordering::Release);
            taken.insert(0, spare);
        }
        Ok(taken)
    }

    /// Lists a segment whose header is written as the one that is appended to, and keeps the writing end of the one
    /// before it.
    ///
    /// Called before the first record in it counts as appended, so that a sync which covers that record finds it.
    pub(crate) fn begin(
        &self,
        id: SegmentId,
        capacity_bytes: u64,
        sync: Arc<dyn LogSync>,
        sealed: Option<Box<dyn LogWriter>>,
    ) {
        let mut live = self.live.lock();
        if let Some(last) = live.back_mut() {
            last.sealed = true;
            last.writer = sealed;
        }
        live.push_back(LiveSegment {
            id,
            capacity_bytes,
            sync,
            synced_at_begin: self.group.synced(),
            sealed: false,
            durable: false,
            writer: None,
        });
    }

    /// Creates a segment's file and makes it and its name durable. The id is used up whatever becomes of it, unless it
    /// is the first.
    fn create_segment(&self, creation: &mut Creation, capacity_bytes: u64) -> Result<NewSegment> {
        let id = creation.next_segment;
        let path = segment_path(&self.dir, id);
        match creation.first {
            First::Created => creation.next_segment = id.next(),
            First::Failed if self.fs.exists(&path)? => self.fs.remove(&Removable::plain(&path)?)?,
            First::Failed | First::Untried => creation.first = First::Failed,
        }
        let capacity_bytes = capacity_bytes.next_multiple_of(CAPACITY_UNIT_BYTES);
        let (writer, sync) = match self.reuse(creation, &path, capacity_bytes) {
            Some(reused) => reused,
            None => self.fs.create_log(&path, capacity_bytes, self.options.io)?,
        };
        if writer.capacity_bytes() < capacity_bytes {
            return Err(Error::new(
                ErrorKind::Io,
                "The log segment was created smaller than asked for",
            )
            .with_path(path));
        }
        self.fs
            .sync_dir(&self.dir)
            .map_err(|error| self.first_error.set(error))?;
        if creation.first != First::Created {
            creation.first = First::Created;
            creation.next_segment = id.next();
        }
        Ok(NewSegment { id, writer, sync })
    }

    /// The file of a released segment under the name of a new one, all zero, if there is one that will do. Where somebody
    /// syncs, none will: the next sync would have to write all those zeros. One that cannot be reused is of no more use,
    /// and its name says so to the next replay.
    fn reuse(
        &self,
        creation: &mut Creation,
        path: &Path,
        capacity_bytes: u64,
    ) -> Option<(Box<dyn LogWriter>, Arc<dyn LogSync>)> {
        let fits = capacity_bytes == self.capacity_bytes() && !self.synced_since_begin();
        // Where the name is taken, or that cannot be said, creating it will say what is wrong.
        if !fits || creation.reusable.is_empty() || !matches!(self.fs.exists(path), Ok(false)) {
            return None;
        }
        let Reusable { id, writer } = creation.reusable.pop()?;
        let reused = writer.reuse(path);
        reused.inspect_err(|_| _ = self.remove_segment(id)).ok()
    }

    /// Removes the files that hold nothing: the spare, if there is one, and what was kept to be reused. A removal that a
    /// crash undoes leaves segments that were never begun or are not needed.
    ///
    /// REQUIRES: nothing is appended any more.
    ///
    /// # Errors
    /// The first failed removal; the others were tried.
    pub fn remove_unused(&self) -> Result<()> {
        let removed = self.remove_spare();
        removed.and(self.remove_reusable())
    }

    /// Makes durable whatever is appended now, oldest segment first. A segment is listed before any record in it counts
    /// as appended, so none is missed that somebody has seen appended before this call.
    ///
    /// The order matters: a watermark promises that nothing is missing below it, so no segment may count as durable
    /// before those in front of it.
    fn sync_segments(&self) -> Result<()> {
        let pending: Vec<_> = {
            let live = self.live.lock();
            live.iter()
                .filter(|segment| !segment.durable)
                .map(|segment| (segment.id, segment.sealed, Arc::clone(&segment.sync)))
                .collect()
        };
        for (id, sealed, sync) in pending {
            sync.sync()?;
            if sealed {
                let mut live = self.live.lock();
                if let Some(segment) = live.iter_mut().find(|segment| segment.id == id) {
                    segment.durable = true;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for LogSyncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSyncer")
            .field("dir", &self.dir)
            .field("options", &self.options)
            .field("appended", &self.appended())
            .field("synced", &self.synced())
            .field("live_segments", &self.live_segments())
            .field("has_spare", &self.has_spare())
            .finish_non_exhaustive()
    }
}
