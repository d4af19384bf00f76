//! Looking for evidence in bytes that are not part of the log any more.
//!
//! Behind the point where a log can no longer be read, there may be records that were written later and are whole. If
//! one of them says that what is missing had been synced, then it was lost to damage, not to a crash.

use siltstone_vfs::Result;
use xxhash_rust::xxh3::Xxh3;

use super::reader::SegmentReader;
use crate::SegmentId;
use crate::format::{
    RECORD_ALIGNMENT_BYTES, RECORD_ALIGNMENT_LEN, RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader,
    record_header, u64_at,
};

/// How many bytes may be hashed in vain for each byte scanned. Records behind one another are hashed once; only
/// payloads that imitate headers, one inside the other, could make it more.
const HASHED_BYTES_PER_BYTE: u64 = 4;

/// What a scan found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// The lowest sequence of any record considered.
    pub(crate) lowest_sequence: Option<u64>,
    /// The highest watermark of any record considered.
    pub(crate) synced: u64,
    /// From where the scan began to the last byte that is not zero.
    pub(crate) written_bytes: u64,
    /// There were too many false headers to look behind all of them: what the bytes prove is unknown.
    pub(crate) undecided: bool,
}

/// Reads `reader` from `from` to its end. Considers whole records of `segment` that were written after the log was
/// known to be synced up to `synced_min`; `None` considers all records.
pub(crate) fn scan(
    reader: &mut SegmentReader,
    segment: SegmentId,
    from: u64,
    synced_min: Option<u64>,
) -> Result<Evidence> {
    let mut evidence = Evidence::default();
    let mut budget = reader
        .file_bytes()
        .saturating_sub(from)
        .saturating_mul(HASHED_BYTES_PER_BYTE);
    let start = from.next_multiple_of(RECORD_ALIGNMENT_BYTES);
    let mut at = start;
    while at < reader.file_bytes() {
        let rest = reader.file_bytes() - at;
        let chunk = reader.chunk(at)?;
        let step = examine_chunk(chunk, chunk.len() as u64 == rest, segment, synced_min);
        if let Some(end) = step.written_end {
            evidence.written_bytes = at - from + end;
        }
        let Some((position, header)) = step.candidate else {
            at += step.advance;
            continue;
        };
        at += position;
        let size = header.record_bytes();
        if !reader.holds(at, size) {
            at += RECORD_ALIGNMENT_BYTES;
            continue;
        }
        let hashed = RECORD_HEADER_BYTES + u64::from(header.payload_bytes);
        if hashed > budget {
            evidence.undecided = true;
            at += RECORD_ALIGNMENT_BYTES;
            continue;
        }
        budget -= hashed;
        if is_whole(reader, at, &header)? {
            let sequence = header.sequence.0;
            evidence.lowest_sequence = Some(
                evidence
                    .lowest_sequence
                    .map_or(sequence, |lowest| lowest.min(sequence)),
            );
            evidence.synced = evidence.synced.max(header.synced.0);
            evidence.written_bytes = at - from + hashed;
            at += size;
        } else {
            at += RECORD_ALIGNMENT_BYTES;
        }
    }
    Ok(evidence)
}

struct Step {
    /// How far the chunk has been looked at, where it holds no candidate.
    advance: u64,
    /// The end of the last word that is not zero, in what was looked at.
    written_end: Option<u64>,
    /// The first place that may be a record.
    candidate: Option<(u64, RecordHeader)>,
}

/// `last` says that the file ends with this chunk. Otherwise what may be the beginning of a header that goes on behind
/// it is left to the next one.
fn examine_chunk(chunk: &[u8], last: bool, segment: SegmentId, synced_min: Option<u64>) -> Step {
    const WORD: usize = RECORD_ALIGNMENT_LEN;
    let end = if last {
        chunk.len()
    } else {
        chunk.len().saturating_sub(RECORD_HEADER_LEN)
    };
    let mut written_end = None;
    let mut at = 0;
    while at < end {
        let word = &chunk[at..(at + WORD).min(chunk.len())];
        // Most of what is scanned was never written. A record begins with its checksum, which is not zero.
        if let Some(last) = word.iter().rposition(|&byte| byte != 0) {
            written_end = Some((at + last + 1) as u64);
            let header = chunk.get(at..at + RECORD_HEADER_LEN);
            if let Some(header) = header.and_then(|bytes| plausible(bytes, segment, synced_min)) {
                return Step {
                    advance: 0,
                    written_end,
                    candidate: Some((at as u64, header)),
                };
            }
            at += word.len();
        } else {
            at += chunk[at..]
                .chunks_exact(WORD)
                .take_while(|word| **word == [0; WORD])
                .count()
                .max(1)
                * WORD;
        }
    }
    Step {
        advance: at.min(chunk.len()) as u64,
        written_end,
        candidate: None,
    }
}

/// The header at these bytes, if nothing about it speaks against a record that says more than is known.
fn plausible(bytes: &[u8], segment: SegmentId, synced_min: Option<u64>) -> Option<RecordHeader> {
    if u64_at(bytes, record_header::SEGMENT) != segment.0 {
        return None;
    }
    let header = RecordHeader::decode(bytes.try_into().ok()?).ok()?;
    synced_min
        .is_none_or(|min| header.synced.0 >= min)
        .then_some(header)
}

fn is_whole(reader: &mut SegmentReader, at: u64, header: &RecordHeader) -> Result<bool> {
    let stored = u64_at(&reader.array::<RECORD_HEADER_LEN>(at)?, record_header::CHECKSUM);
    let mut state = Xxh3::new();
    let mut from = at + record_header::PAYLOAD_BYTES as u64;
    let end = at + RECORD_HEADER_BYTES + u64::from(header.payload_bytes);
    while from < end {
        let chunk = reader.chunk(from)?;
        let count = usize::try_from(end - from).map_or(chunk.len(), |rest| rest.min(chunk.len()));
        state.update(&chunk[..count]);
        from += count as u64;
    }
    Ok(state.digest() == stored)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use siltstone_vfs::MemFs;

    use super::*;
    use crate::RecordSeq;
    use crate::format::RecordType;

    #[test]
    fn a_record_is_found_wherever_it_lies_across_what_is_read_at_once() {
        let fs = MemFs::new();
        let segment = SegmentId(3);
        let header = RecordHeader {
            payload_bytes: 100,
            record_type: RecordType::Data,
            segment,
            sequence: RecordSeq(9),
            synced: RecordSeq(8),
        };
        let record = header.encode_with(&[1; 100]);
        for at in ((1 << 20) - 200..(1 << 20) + 16).step_by(8) {
            // Neither zeros nor anything like a header, so that every word is looked at.
            let mut bytes = vec![0xee; (1 << 20) + 1000];
            bytes[at..at + record.len()].copy_from_slice(&record);
            fs.write_file(Path::new("/000003.wal"), bytes).expect("written");
            let mut reader = SegmentReader::open(&fs, PathBuf::from("/000003.wal")).expect("opened");
            let evidence = scan(&mut reader, segment, 0, Some(8)).expect("read");
            assert_eq!((evidence.lowest_sequence, evidence.synced), (Some(9), 8), "{at}");
            assert_eq!(
                (evidence.written_bytes, evidence.undecided),
                ((1 << 20) + 1000, false)
            );
            let none = scan(&mut reader, segment, 0, Some(9)).expect("read");
            assert_eq!((none.lowest_sequence, none.synced), (None, 0), "{at}");
        }
    }
}
