//! Reading a log back, and telling a torn tail from damage.
//!
//! One pass over the segments in order of their ids. A segment is part of the log if its header is sound and its first
//! sequence is the one expected; its records are visited up to the first that cannot be read. Then the sequence that
//! could not be read is expected of a later segment: that is how an ordinary rotation looks, and also what a log looks
//! like whose torn tail an earlier recovery dropped. Everything behind the last segment that is part of the log is
//! evidence only (see `scan`): if a record in it was written when the log was already synced past the point where
//! reading stopped, what is missing there was lost to damage. Otherwise a crash cut it off.

mod reader;
mod report;
mod scan;
mod verdict;

use std::path::{Path, PathBuf};

use siltstone_vfs::{Error, ErrorKind, Fs, Result};

use self::reader::SegmentReader;
pub use self::report::{Record, Replay, SegmentReplay, SegmentState, Tail, TailPolicy};
use self::scan::{Evidence, scan};
use crate::format::{
    CAPACITY_UNIT_BYTES, HeaderFault, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader, RecordType,
    SEGMENT_HEADER_BYTES, SEGMENT_HEADER_LEN, SegmentHeader, is_unwritten, record_checksums, segment_header,
    unsupported,
};
use crate::{RecordSeq, SegmentId, segment_path};

/// Reads the `segments` of the log in `dir`, which are sorted, and calls `visit` for each record in order.
///
/// Segments whose records are all durable elsewhere should be left out; the first one given tells where to begin.
///
/// # Errors
/// `Corruption` for damage under [`TailPolicy::Strict`], after the records before it have been visited; `Unsupported`
/// for a segment of a newer format; `InvalidInput` where `segments` is not sorted; what `visit` returns; those of the
/// file system.
pub fn replay(
    fs: &dyn Fs,
    dir: &Path,
    segments: &[SegmentId],
    policy: TailPolicy,
    visit: &mut dyn FnMut(Record<'_>) -> Result<()>,
) -> Result<Replay> {
    if !segments.is_sorted_by(|a, b| a < b) {
        return Err(Error::invalid(
            "the log segments to replay must be sorted, each named once",
        ));
    }
    let mut replayer = Replayer {
        fs,
        dir,
        policy,
        first: segments.first().copied(),
        reports: Vec::new(),
        leading: Vec::new(),
        expected: None,
        synced: 0,
        cut_short: None,
        stop: None,
    };
    let superseded = replayer.find_superseded(segments)?;
    for (&segment, superseded) in segments.iter().zip(superseded) {
        replayer.read_segment(segment, superseded, visit)?;
    }
    replayer.finish()
}

struct Replayer<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    policy: TailPolicy,
    /// The first of the segments that were given: those below were not needed when the log was last written.
    first: Option<SegmentId>,
    reports: Vec<SegmentReplay>,
    /// Segments in front of the first header that can be read.
    leading: Vec<Headless>,
    /// The sequence of the next record; unknown before the first segment.
    expected: Option<u64>,
    synced: u64,
    /// A segment in front of the log that was begun and is now smaller than any is created.
    cut_short: Option<SegmentId>,
    /// Where reading stopped in the last segment that is part of the log.
    stop: Option<Stop>,
}

/// A segment whose header cannot be read.
struct Headless {
    /// Into `reports`.
    index: usize,
    /// The rest of a sentence that begins with "its header".
    why: String,
    evidence: Evidence,
}

struct Stop {
    /// Into `reports`.
    index: usize,
    offset: u64,
    cause: Cause,
}

enum Cause {
    /// Zeros where a record would be.
    Unwritten,
    /// Too few bytes for another record.
    Full,
    /// As [`Cause::Full`], but the file once was larger.
    Truncated(String),
    /// The log goes on in another segment.
    Sealed,
    /// The writer left the log here: nothing was ever written behind it.
    Closed,
    /// What is there is no record: the rest of a sentence that begins with "what should be there".
    Unreadable(String),
    /// The segment cannot be read at all: the rest of a sentence that begins with "its header".
    Headless(String),
}

enum Decoded {
    Record(RecordHeader),
    Stop(Cause),
}

impl Replayer<'_> {
    /// Which segments a later one stands in for: a recovery dropped them, and let the log go on with their first
    /// record or an earlier one. They may be left where others of the same recovery have been removed already.
    fn find_superseded(&self, segments: &[SegmentId]) -> Result<Vec<bool>> {
        let mut superseded = vec![false; segments.len()];
        let mut lowest_later = u64::MAX;
        for (index, &segment) in segments.iter().enumerate().rev() {
            let mut reader = SegmentReader::open(self.fs, segment_path(self.dir, segment))?;
            if let Ok(header) = self.read_header(&mut reader, segment)? {
                superseded[index] = header.first_sequence.0 >= lowest_later;
                lowest_later = lowest_later.min(header.first_sequence.0);
            }
        }
        Ok(superseded)
    }

    fn read_segment(
        &mut self,
        segment: SegmentId,
        superseded: bool,
        visit: &mut dyn FnMut(Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let index = self.reports.len();
        let mut reader = SegmentReader::open(self.fs, segment_path(self.dir, segment))?;
        self.reports.push(SegmentReplay {
            id: segment,
            state: SegmentState::Dropped,
            records: 0,
            bytes: 0,
            first_sequence: None,
            last_sequence: None,
            file_bytes: reader.file_bytes(),
        });
        match self.read_header(&mut reader, segment)? {
            Ok(_) if superseded => {}
            Ok(header) => {
                let expected = self.expected.unwrap_or_else(|| self.begin(&header));
                self.expected = Some(expected);
                if expected == header.first_sequence.0 {
                    self.synced = self.synced.max(header.synced.0);
                    self.read_records(&mut reader, index, &header, visit)?;
                }
            }
            Err(why) if self.expected.is_none() => {
                let evidence = self.scan_segment(&mut reader, segment, 0, None)?;
                if evidence.written_bytes == 0 {
                    self.reports[index].state = SegmentState::Unused;
                }
                if is_cut_short(&mut reader)? {
                    self.cut_short = self.cut_short.or(Some(segment));
                }
                self.leading.push(Headless { index, why, evidence });
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// The sequence to expect first, from the first header that can be read: its own, where no segment stands before
    /// it. Otherwise it tells what the segment before it began with, if it was rotated from that one. If the log was
    /// opened with it, then all that recovery had read before has lower sequences: where such a record is still
    /// there, it is missed; where none is, recovery had dropped those segments.
    fn begin(&mut self, header: &SegmentHeader) -> u64 {
        let first_sequence = header.first_sequence.0;
        let Some(front) = self.leading.first() else {
            return first_sequence;
        };
        let rotated = header.previous_first.0 != 0;
        let known = if rotated {
            header.previous_first.0
        } else {
            first_sequence
        };
        let expected = self.lowest_leading().map_or(known, |lowest| lowest.min(known));
        if expected != first_sequence {
            self.stop = Some(Stop {
                index: front.index,
                offset: 0,
                cause: Cause::Headless(front.why.clone()),
            });
        }
        expected
    }

    fn lowest_leading(&self) -> Option<u64> {
        self.leading
            .iter()
            .filter_map(|headless| headless.evidence.lowest_sequence)
            .min()
    }

    /// No header can be read. What records there are tell what to expect, but not whether anything came before them;
    /// unless one of them proves damage, none of these segments was ever synced, and all their watermarks say where
    /// the log stood before.
    fn begin_without_header(&mut self) -> Option<u64> {
        let lowest = self.lowest_leading()?;
        let headless = self
            .leading
            .iter()
            .find(|headless| headless.evidence.lowest_sequence.is_some())?;
        let cause = Cause::Headless(headless.why.clone());
        self.stop = Some(Stop {
            index: headless.index,
            offset: 0,
            cause,
        });
        self.expected = Some(lowest);
        self.leading
            .iter()
            .map(|headless| headless.evidence.synced.saturating_add(1))
            .max()
    }

    fn read_records(
        &mut self,
        reader: &mut SegmentReader,
        index: usize,
        segment_header: &SegmentHeader,
        visit: &mut dyn FnMut(Record<'_>) -> Result<()>,
    ) -> Result<()> {
        self.reports[index].state = SegmentState::Live;
        let segment = segment_header.segment;
        let mut expected = segment_header.first_sequence.0;
        let mut offset = SEGMENT_HEADER_BYTES;
        let cause = loop {
            let header = match self.decode_record(reader, offset, segment, expected)? {
                // No crash makes it smaller: it was durable at its full size before its header was written.
                Decoded::Stop(Cause::Full | Cause::Unreadable(_))
                    if reader.file_bytes() < segment_header.capacity_bytes =>
                {
                    break Cause::Truncated(format!(
                        "the file ends, with {} of the {} bytes it was created with",
                        reader.file_bytes(),
                        segment_header.capacity_bytes
                    ));
                }
                Decoded::Stop(cause) => break cause,
                Decoded::Record(header) => header,
            };
            self.synced = self.synced.max(header.synced.0);
            let at = offset;
            offset += header.record_bytes();
            match header.record_type {
                RecordType::Watermark => {}
                RecordType::Seal => break Cause::Sealed,
                RecordType::Close => break Cause::Closed,
                RecordType::Data => {
                    let payload = record_payload(reader, at, &header)?;
                    visit(Record {
                        segment,
                        offset: at,
                        sequence: RecordSeq(expected),
                        payload,
                    })?;
                    let report = &mut self.reports[index];
                    report.records += 1;
                    report.bytes += u64::from(header.payload_bytes);
                    report.first_sequence = report.first_sequence.or(Some(RecordSeq(expected)));
                    report.last_sequence = Some(RecordSeq(expected));
                    expected = expected.saturating_add(1);
                }
            }
        };
        self.expected = Some(expected);
        self.stop = Some(Stop { index, offset, cause });
        Ok(())
    }

    fn read_header(
        &self,
        reader: &mut SegmentReader,
        segment: SegmentId,
    ) -> Result<std::result::Result<SegmentHeader, String>> {
        if !reader.holds(0, SEGMENT_HEADER_BYTES) {
            return Ok(Err(format!(
                "is missing: the file has {} bytes",
                reader.file_bytes()
            )));
        }
        let bytes = match self.tolerate(reader.array::<SEGMENT_HEADER_LEN>(0))? {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Err(why)),
        };
        match SegmentHeader::decode(&bytes, segment) {
            Ok(header) => Ok(Ok(header)),
            Err(HeaderFault::Zero) => Ok(Err("was never written".into())),
            Err(HeaderFault::Invalid(why)) => Ok(Err(why)),
            // The file of a segment that the log does not need any more was to become this one, which was not synced.
            Err(HeaderFault::Foreign { segment: other }) if self.first.is_some_and(|first| other < first) => {
                Ok(Err(format!(
                    "is still that of segment {other}, whose file it was"
                )))
            }
            // No crash puts it there, and what stood there may have been synced.
            Err(HeaderFault::Foreign { segment: other }) if self.policy == TailPolicy::Strict => {
                Err(Error::corruption(
                    reader.path(),
                    segment_header::SEGMENT as u64,
                    format!("This file should be segment {segment} of the log, and holds segment {other}"),
                )
                .with_advice(
                    "files have been mixed up: give each its name back, or restore them from a backup",
                ))
            }
            Err(HeaderFault::Foreign { segment: other }) => Ok(Err(format!("is that of segment {other}"))),
            Err(HeaderFault::Unsupported { version }) => Err(unsupported(reader.path(), version)),
        }
    }

    fn decode_record(
        &self,
        reader: &mut SegmentReader,
        offset: u64,
        segment: SegmentId,
        expected: u64,
    ) -> Result<Decoded> {
        let stop = |why: String| Ok(Decoded::Stop(Cause::Unreadable(why)));
        if !reader.holds(offset, RECORD_HEADER_BYTES) {
            return Ok(Decoded::Stop(Cause::Full));
        }
        let bytes = match self.tolerate(reader.array::<RECORD_HEADER_LEN>(offset))? {
            Ok(bytes) => bytes,
            Err(why) => return stop(why),
        };
        if is_unwritten(&bytes) {
            return Ok(Decoded::Stop(Cause::Unwritten));
        }
        let header = match RecordHeader::decode(&bytes) {
            Ok(header) => header,
            Err(why) => return stop(why),
        };
        if header.segment != segment {
            return stop(format!("belongs to segment {}", header.segment));
        }
        if header.sequence.0 != expected {
            return stop(format!("has the sequence {}", header.sequence));
        }
        if !reader.holds(offset, header.record_bytes()) {
            return stop(format!(
                "claims {} bytes of payload, more than the file has",
                header.payload_bytes
            ));
        }
        let record = match self.tolerate(read_record(reader, offset, &header))? {
            Ok(record) => record,
            Err(why) => return stop(why),
        };
        let (stored, computed) = record_checksums(record);
        if stored != computed {
            return stop(format!(
                "has the checksum {stored:016x}, but its bytes have {computed:016x}"
            ));
        }
        Ok(Decoded::Record(header))
    }

    /// What is behind the last record of the log, and what that means.
    fn finish(mut self) -> Result<Replay> {
        let restart = if self.expected.is_none() {
            self.begin_without_header()
        } else {
            None
        };
        let behind = self.look_behind()?;
        let tail = self.judge(&behind)?;
        let next_sequence = match (&tail, restart) {
            (Tail::Clean | Tail::Torn { .. }, Some(restart)) => restart,
            _ => self.expected.unwrap_or(1),
        };
        let next_segment = self
            .reports
            .last()
            .map_or(SegmentId(1), |report| report.id.next());
        Ok(Replay {
            records: self.reports.iter().map(|report| report.records).sum(),
            bytes: self.reports.iter().map(|report| report.bytes).sum(),
            next_sequence: RecordSeq(next_sequence),
            next_segment,
            synced: RecordSeq(self.synced),
            closed: matches!(&self.stop, Some(stop) if matches!(stop.cause, Cause::Closed)
                && stop.index + 1 == self.reports.len()),
            tail,
            segments: self.reports,
        })
    }

    fn scan_segment(
        &self,
        reader: &mut SegmentReader,
        segment: SegmentId,
        from: u64,
        synced_min: Option<u64>,
    ) -> Result<Evidence> {
        match self.tolerate(scan(reader, segment, from, synced_min))? {
            Ok(evidence) => Ok(evidence),
            // Something is there, and nobody can say what it proves.
            Err(_) => Ok(Evidence {
                written_bytes: reader.file_bytes().saturating_sub(from),
                undecided: true,
                ..Evidence::default()
            }),
        }
    }

    /// In salvage, what cannot be read for a bad sector is as good as wrong.
    fn tolerate<T>(&self, read: Result<T>) -> Result<std::result::Result<T, String>> {
        match read {
            Ok(value) => Ok(Ok(value)),
            Err(error)
                if self.policy == TailPolicy::DropDamaged
                    && matches!(error.kind(), ErrorKind::Io | ErrorKind::Corruption) =>
            {
                Ok(Err(format!("cannot be read: {error}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a segment was begun, and is smaller than it can have been then: a segment has its full size, durably, before
/// anything is written into it, so that no crash makes it smaller.
fn is_cut_short(reader: &mut SegmentReader) -> Result<bool> {
    Ok(reader.file_bytes() < CAPACITY_UNIT_BYTES && reader.chunk(0)?.iter().any(|byte| *byte != 0))
}

fn read_record<'a>(reader: &'a mut SegmentReader, offset: u64, header: &RecordHeader) -> Result<&'a [u8]> {
    let path: &PathBuf = reader.path();
    let Some(count) = usize::try_from(header.payload_bytes)
        .ok()
        .and_then(|bytes| bytes.checked_add(RECORD_HEADER_LEN))
    else {
        return Err(Error::corruption(
            path,
            offset,
            "The log record exceeds the address space",
        ));
    };
    reader.bytes(offset, count)
}

fn record_payload<'a>(reader: &'a mut SegmentReader, offset: u64, header: &RecordHeader) -> Result<&'a [u8]> {
    Ok(&read_record(reader, offset, header)?[RECORD_HEADER_LEN..])
}
