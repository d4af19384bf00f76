//! The verdict on what is behind the last record of the log: nothing, a torn tail, or damage.

use std::path::Path;

use siltstone_vfs::{Error, Result};

use super::reader::SegmentReader;
use super::scan::Evidence;
use super::{Cause, Replayer, SegmentState, Tail, TailPolicy, is_cut_short};
use crate::format::CAPACITY_UNIT_BYTES;
use crate::{RecordSeq, SegmentId, segment_path};

/// What all segments behind the last record hold.
#[derive(Default)]
pub(super) struct Behind {
    synced: u64,
    written_bytes: u64,
    first_written: Option<(SegmentId, u64)>,
    undecided: bool,
    /// A file that was begun and is now smaller than any segment is created.
    cut_short: Option<SegmentId>,
}

impl Behind {
    fn add(&mut self, segment: SegmentId, from: u64, evidence: &Evidence) {
        self.synced = self.synced.max(evidence.synced);
        self.undecided |= evidence.undecided;
        if evidence.written_bytes > 0 {
            self.written_bytes = self.written_bytes.saturating_add(evidence.written_bytes);
            self.first_written = self.first_written.or(Some((segment, from)));
        }
    }
}

impl Replayer<'_> {
    pub(super) fn look_behind(&mut self) -> Result<Behind> {
        let mut behind = Behind::default();
        let (first, from) = match &self.stop {
            Some(stop) => (stop.index, stop.offset),
            None => (0, 0),
        };
        // Whoever proves that the expected record was synced, and nobody else, is worth a checksum.
        let synced_min = Some(self.expected.unwrap_or(0));
        // The rest of a closed segment was never written. Those behind it are another matter: the log may have gone on.
        let closed = matches!(&self.stop, Some(stop) if matches!(stop.cause, Cause::Closed));
        for index in first..self.reports.len() {
            let segment = self.reports[index].id;
            let mut reader = SegmentReader::open(self.fs, segment_path(self.dir, segment))?;
            let from = match index == first {
                true if closed => reader.file_bytes(),
                true => from,
                false => 0,
            };
            let mut evidence = self.scan_segment(&mut reader, segment, from, synced_min)?;
            if from == 0
                && let Ok(header) = self.read_header(&mut reader, segment)?
            {
                evidence.synced = evidence.synced.max(header.synced.0);
            }
            behind.add(segment, from, &evidence);
            if is_cut_short(&mut reader)? {
                behind.cut_short = behind.cut_short.or(Some(segment));
            }
            if evidence.written_bytes == 0 && from == 0 {
                self.reports[index].state = SegmentState::Unused;
            }
        }
        Ok(behind)
    }

    pub(super) fn judge(&mut self, behind: &Behind) -> Result<Tail> {
        let cut_short = self.cut_short.or(behind.cut_short);
        let (segment, offset, cause) = match (&self.stop, cut_short, behind.first_written) {
            (Some(stop), _, _) if self.cut_short.is_none() => {
                (self.reports[stop.index].id, stop.offset, Some(&stop.cause))
            }
            (_, Some(segment), _) => (segment, 0, None),
            (_, None, Some((segment, offset))) => (segment, offset, None),
            (_, None, None) => return Ok(Tail::Clean),
        };
        let expected = self.expected.unwrap_or(1);
        let successor_missing = matches!(cause, Some(Cause::Sealed)) && self.successor_is_missing(segment);
        let proven = self.expected.is_some() && behind.synced >= expected;
        let cut_short = cut_short.is_some() || matches!(cause, Some(Cause::Truncated(_)));
        if !proven && !successor_missing && !behind.undecided && !cut_short {
            if behind.written_bytes == 0 {
                return Ok(Tail::Clean);
            }
            let reason = reason(cause);
            return Ok(Tail::Torn {
                segment,
                offset,
                bytes: behind.written_bytes,
                reason,
            });
        }
        let reason = if successor_missing {
            "the segment is sealed, but the one that must follow is missing or was cut short".to_owned()
        } else if cause.is_none() && cut_short {
            "the file has been cut short".to_owned()
        } else if proven || cut_short {
            reason(cause)
        } else {
            format!(
                "{}; too many bytes behind it look like records to tell what was lost",
                reason(cause)
            )
        };
        self.synced = self.synced.max(behind.synced);
        if self.policy == TailPolicy::Strict {
            let path = segment_path(self.dir, segment);
            return Err(damage(&path, offset, expected, self.synced, &reason));
        }
        Ok(Tail::Damaged {
            segment,
            offset,
            bytes: behind.written_bytes,
            first_lost: RecordSeq(expected),
            last_lost: RecordSeq(self.synced.max(expected)),
            reason,
        })
    }

    /// A segment's successor had its file, at its full size, before the seal was written.
    fn successor_is_missing(&self, segment: SegmentId) -> bool {
        let successor = self.reports.iter().find(|report| report.id > segment);
        successor.is_none_or(|report| report.file_bytes < CAPACITY_UNIT_BYTES)
    }
}

fn reason(cause: Option<&Cause>) -> String {
    match cause {
        None => "no segment has a header that can be read".to_owned(),
        Some(Cause::Unwritten) => "the record was not written, but bytes behind it were".to_owned(),
        Some(Cause::Full) => {
            "the segment is full, and none that follows begins with the next record".to_owned()
        }
        Some(Cause::Sealed) => {
            "the segment is sealed, and none that follows begins with the next record".to_owned()
        }
        Some(Cause::Closed) => {
            "the log was closed there, and none of the segments that follow begins with the next record"
                .to_owned()
        }
        Some(Cause::Truncated(why)) => why.clone(),
        Some(Cause::Headless(why)) => format!("the segment cannot be read: its header {why}"),
        Some(Cause::Unreadable(why)) => format!("what should be there {why}"),
    }
}

fn damage(path: &Path, offset: u64, expected: u64, synced: u64, reason: &str) -> Error {
    let lost = if synced > expected {
        format!("records {expected} to {synced} and whatever was appended after them")
    } else {
        format!("record {expected} and whatever was appended after it")
    };
    Error::corruption(
        path,
        offset,
        format!(
            "The log is damaged: record {expected} was expected, but {reason}. The log had been synced up to record \
             {synced}; without the damaged part, {lost} would be lost"
        ),
    )
    .with_advice("restore the file from a backup, or open the database with salvage to go on without those records")
}
