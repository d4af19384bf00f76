//! The appending end of a log.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use siltstone_vfs::{Error, ErrorKind, Fs, LogWriter, Result};

use crate::format::{
    RECORD_ALIGNMENT_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordChecksum,
    RecordHeader, RecordType, SEGMENT_HEADER_BYTES, SegmentHeader, put, record_bytes, record_header,
    seal_record,
};
use crate::syncer::NewSegment;
use crate::{LogOptions, LogSyncer, RecordSeq, SegmentId, parse_segment_name, segment_path};

/// Payloads up to this are put together in memory and written at once; larger ones are written part by part.
const ASSEMBLED_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Where a record is put together. Each thread has its own: one of the log's would, where several threads append in turn, be
    /// in the cache of the other's core each time, under the lock that all of them wait for.
    static ASSEMBLED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The appending end of a log. It has one owner, who keeps it under a lock of his own; syncing happens through the
/// [`LogSyncer`], outside that lock.
pub struct Log {
    syncer: Arc<LogSyncer>,
    /// `None` before the first segment has been begun.
    writer: Option<Box<dyn LogWriter>>,
    segment: SegmentId,
    /// Where the next record goes: a multiple of the records' alignment.
    offset: u64,
    next_sequence: RecordSeq,
    /// The first sequence in this segment.
    first_sequence: RecordSeq,
    /// What this segment's header says about the segment that it was rotated from.
    previous_first: RecordSeq,
    /// The watermark that the last record carries.
    noted: RecordSeq,
    /// Whether somebody has been told to prepare the segment after this one.
    asked: bool,
}

impl Log {
    /// Begins a log, or goes on with one after recovery: always in a new segment, `first_segment`, whose first record
    /// will be `next_sequence`. The segment's file is durable when this returns.
    ///
    /// [`LogSyncer::sync_to`] promises that everything up to a record is durable, and what recovery read may so far
    /// be in the page cache only. So this syncs every segment file in `dir` with a lower id first.
    ///
    /// After [`replay`](crate::replay()), `first_segment` is at least [`Replay::next_segment`](crate::Replay) and
    /// `next_sequence` is [`Replay::next_sequence`](crate::Replay). Segments that recovery dropped may be removed once
    /// this has returned, not before.
    ///
    /// # Errors
    /// `InvalidInput` for options out of range or a `next_sequence` of 0; those of the file system.
    pub fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        first_segment: SegmentId,
        next_sequence: RecordSeq,
        options: LogOptions,
    ) -> Result<(Self, Arc<LogSyncer>)> {
        sync_older_segments(&*fs, dir, first_segment)?;
        Self::create_anew(fs, dir, first_segment, next_sequence, options)
    }

    /// As [`create`](Log::create), without syncing older segments.
    ///
    /// REQUIRES: whatever is in them is durable elsewhere, and they will not be replayed.
    ///
    /// # Errors
    /// As [`create`](Log::create).
    pub fn create_anew(
        fs: Arc<dyn Fs>,
        dir: &Path,
        first_segment: SegmentId,
        next_sequence: RecordSeq,
        options: LogOptions,
    ) -> Result<(Self, Arc<LogSyncer>)> {
        let (mut log, syncer) = Self::create_unbegun(fs, dir, first_segment, next_sequence, options)?;
        log.advance(RECORD_HEADER_BYTES)?;
        Ok((log, syncer))
    }

    /// As [`create_anew`](Log::create_anew), but does no I/O: the first segment is created, with the id
    /// `first_segment` and no other, by [`LogSyncer::prepare`] or else by the first append. A log that is never appended
    /// to leaves nothing.
    ///
    /// REQUIRES: what earlier segments hold is durable, in them or elsewhere.
    ///
    /// # Errors
    /// `InvalidInput`, as [`create`](Log::create).
    pub fn create_unbegun(
        fs: Arc<dyn Fs>,
        dir: &Path,
        first_segment: SegmentId,
        next_sequence: RecordSeq,
        options: LogOptions,
    ) -> Result<(Self, Arc<LogSyncer>)> {
        options.validate()?;
        if next_sequence == RecordSeq(0) {
            return Err(Error::invalid("the records of a log are numbered from 1"));
        }
        let synced = next_sequence.previous();
        let syncer = Arc::new(LogSyncer::new(fs, dir, first_segment, synced, options));
        let log = Self {
            syncer: Arc::clone(&syncer),
            writer: None,
            segment: first_segment,
            offset: 0,
            next_sequence,
            first_sequence: next_sequence,
            previous_first: RecordSeq(0),
            noted: synced,
            asked: false,
        };
        Ok((log, syncer))
    }

    /// Appends one record, whose payload is the parts one after the other. When this returns, the record survives the
    /// death of the process; [`LogSyncer::sync_to`] makes it survive power loss.
    ///
    /// A record that does not fit into the rest of the segment goes to the next one, which is made large enough.
    ///
    /// # Errors
    /// `InvalidInput` for a payload above [`RECORD_BYTES_MAX`]; nothing was written. `NoSpace` where the next segment
    /// could not be created: nothing was written, the log stays usable, and the append may be tried again.
    /// Everything else is final: the same error is returned from every later append and sync.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<RecordSeq> {
        self.syncer.first_error().check()?;
        let total = parts
            .iter()
            .fold(0_usize, |total, part| total.saturating_add(part.len()));
        let payload_bytes = match u32::try_from(total) {
            Ok(bytes) if total <= RECORD_BYTES_MAX => bytes,
            _ => {
                return Err(Error::invalid(format!(
                    "a log record of {total} bytes was to be written, but the limit is {RECORD_BYTES_MAX}"
                )));
            }
        };
        let size = record_bytes(payload_bytes);
        if size > self.remaining_bytes() {
            self.advance(size)?;
        }
        self.write_record(RecordType::Data, payload_bytes, parts)?;
        let sequence = self.next_sequence;
        self.next_sequence = sequence.next();
        self.syncer.set_appended(sequence);
        Ok(sequence)
    }

    /// Ends the segment and goes on in a new one, whose id is returned. The spare becomes that segment, if there is
    /// one; otherwise a file is created, which takes milliseconds.
    ///
    /// # Errors
    /// As for [`append`](Log::append).
    pub fn rotate(&mut self) -> Result<SegmentId> {
        self.syncer.first_error().check()?;
        self.advance(RECORD_HEADER_BYTES)?;
        Ok(self.segment)
    }

    /// Writes down how far the log is known to be synced, where no record has done so since that was learnt. What is
    /// written down can be told from a torn tail if it is damaged later. Worth calling when writes pause, and before
    /// closing; does nothing where there is nothing to note, or no room left in the segment.
    ///
    /// # Errors
    /// A failed write, which is final.
    pub fn note_synced(&mut self) -> Result<()> {
        self.syncer.first_error().check()?;
        if self.syncer.synced() <= self.noted || self.remaining_bytes() < RECORD_HEADER_BYTES {
            return Ok(());
        }
        self.write_record(RecordType::Watermark, 0, &[])
    }

    /// Leaves the log: says so in its last segment, so that the next replay need not look for what comes behind, and
    /// removes the spare and what was kept to be reused. Syncs nothing; call [`LogSyncer::sync_to`] first where the records must survive power loss.
    /// Nothing may be appended through the [`LogSyncer`]'s segments afterwards.
    ///
    /// # Errors
    /// The first error of any append or sync: the segment is left as it is then, for the next replay to judge. Those of
    /// removing those files.
    pub fn close(mut self) -> Result<()> {
        self.syncer.first_error().check()?;
        if self.remaining_bytes() >= RECORD_HEADER_BYTES {
            self.write_record(RecordType::Close, 0, &[])?;
        }
        self.syncer.remove_unused()
    }

    /// The segment that is appended to; before the first append to a log that is [not
    /// begun](Log::create_unbegun), the one that will be.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Whether there is a segment: false only for a log that was [created without one](Log::create_unbegun) and has
    /// not been appended to.
    pub fn is_begun(&self) -> bool {
        self.writer.is_some()
    }

    /// The sequence that the next record will get.
    pub fn next_sequence(&self) -> RecordSeq {
        self.next_sequence
    }

    /// Whether [`LogSyncer::prepare`] should now be called in the background: the segment is half full and no spare
    /// stands ready. Says so once a segment, or when [asked again](Self::ask_again).
    pub fn needs_preparing(&mut self) -> bool {
        let due = self
            .writer
            .as_ref()
            .is_some_and(|writer| self.offset >= writer.capacity_bytes() / 2);
        if self.asked || !due || self.syncer.has_spare() {
            return false;
        }
        self.asked = true;
        true
    }

    /// Has [`needs_preparing`](Self::needs_preparing) say so once more for this segment: for whoever removes the spare.
    pub fn ask_again(&mut self) {
        self.asked = false;
    }

    fn remaining_bytes(&self) -> u64 {
        let capacity = self.writer.as_ref().map_or(0, |writer| writer.capacity_bytes());
        capacity.saturating_sub(self.offset)
    }

    /// Goes on in a new segment with room for a record of `record_bytes`.
    fn advance(&mut self, record_bytes: u64) -> Result<()> {
        // First, because it may fail for want of space: up to here nothing has been written.
        let segments = match self.syncer.take_next(record_bytes) {
            Ok(segments) => segments,
            Err(error) if error.kind() == ErrorKind::NoSpace => return Err(error),
            Err(error) => return Err(self.syncer.first_error().set(error)),
        };
        for new in segments {
            if self.remaining_bytes() >= RECORD_HEADER_BYTES {
                self.write_record(RecordType::Seal, 0, &[])?;
            }
            let segment = new.id;
            // A segment without records (a spare that was too small) says nothing about what came before the next one:
            // what it was rotated from does.
            let empty = self.first_sequence == self.next_sequence && self.previous_first != RecordSeq(0);
            let previous = match &self.writer {
                None => RecordSeq(0),
                Some(_) if empty => self.previous_first,
                Some(_) => self.first_sequence,
            };
            let new = write_segment_header(&self.syncer, new, self.next_sequence, previous)?;
            self.previous_first = previous;
            self.begin(segment, new);
        }
        Ok(())
    }

    fn begin(&mut self, segment: SegmentId, new: NewSegment) {
        self.segment = segment;
        self.first_sequence = self.next_sequence;
        self.offset = SEGMENT_HEADER_BYTES;
        self.asked = false;
        let NewSegment { writer, sync, .. } = new;
        let capacity_bytes = writer.capacity_bytes();
        let sealed = self.writer.replace(writer);
        self.syncer.begin(segment, capacity_bytes, sync, sealed);
    }

    /// REQUIRES: the record fits into the rest of the segment, and `payload_bytes` is the length of all parts.
    fn write_record(&mut self, record_type: RecordType, payload_bytes: u32, parts: &[&[u8]]) -> Result<()> {
        let synced = self.syncer.synced();
        let header = RecordHeader {
            payload_bytes,
            record_type,
            segment: self.segment,
            sequence: self.next_sequence,
            synced,
        };
        let size = header.record_bytes();
        debug_assert!(size <= self.remaining_bytes() && self.offset.is_multiple_of(RECORD_ALIGNMENT_BYTES));
        let encoded = header.encode_unchecked();
        let written = if size <= ASSEMBLED_BYTES_MAX as u64 {
            self.write_assembled(&encoded, parts)
        } else {
            self.write_parts(encoded, parts)
        };
        written.map_err(|error| self.syncer.first_error().set(error))?;
        self.offset += size;
        self.noted = synced;
        Ok(())
    }

    /// One copy to put the record together, one pass over it for the checksum, one write.
    fn write_assembled(&mut self, header: &[u8; RECORD_HEADER_LEN], parts: &[&[u8]]) -> Result<()> {
        ASSEMBLED.with_borrow_mut(|record| {
            record.clear();
            record.extend_from_slice(header);
            for part in parts {
                record.extend_from_slice(part);
            }
            seal_record(record);
            begun(&mut self.writer)?.write_at(self.offset, record)
        })
    }

    /// The parts are written where they belong without a copy of the whole; the header follows them.
    fn write_parts(&mut self, mut header: [u8; RECORD_HEADER_LEN], parts: &[&[u8]]) -> Result<()> {
        let mut checksum = RecordChecksum::new(&header);
        let mut at = self.offset + RECORD_HEADER_BYTES;
        for part in parts {
            checksum.update(part);
            begun(&mut self.writer)?.write_at(at, part)?;
            at += part.len() as u64;
        }
        put(
            &mut header,
            record_header::CHECKSUM,
            checksum.finish().to_le_bytes(),
        );
        begun(&mut self.writer)?.write_at(self.offset, &header)
    }
}

/// The writing end of the present segment; whoever writes a record has made room for it first.
fn begun(writer: &mut Option<Box<dyn LogWriter>>) -> Result<&mut Box<dyn LogWriter>> {
    writer
        .as_mut()
        .ok_or_else(|| Error::new(ErrorKind::Io, "The log has no segment to write to"))
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("segment", &self.segment)
            .field("offset", &self.offset)
            .field("next_sequence", &self.next_sequence)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

/// Writes a segment's header. It is durable with the segment's first sync; until then the segment looks like one that
/// was never begun.
fn write_segment_header(
    syncer: &LogSyncer,
    mut new: NewSegment,
    first_sequence: RecordSeq,
    previous_first: RecordSeq,
) -> Result<NewSegment> {
    let header = SegmentHeader {
        segment: new.id,
        first_sequence,
        capacity_bytes: new.writer.capacity_bytes(),
        synced: syncer.synced(),
        previous_first,
    };
    new.writer
        .write_at(0, &header.encode())
        .map_err(|error| syncer.first_error().set(error))?;
    Ok(new)
}

fn sync_older_segments(fs: &dyn Fs, dir: &Path, first_segment: SegmentId) -> Result<()> {
    for name in fs.list(dir)? {
        if let Some(id) = parse_segment_name(&name).filter(|&id| id < first_segment) {
            fs.sync_file(&segment_path(dir, id))?;
        }
    }
    Ok(())
}
