//! Log segments. The input is one or more of them, each after its length in four bytes.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use siltstone::vfs::Fs;
use siltstone::{Db, WriteBatch, WriteOptions};
use siltstone_wal::format::{
    CAPACITY_UNIT_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, record_bytes, record_header,
    segment_header,
};
use siltstone_wal::{RecordSeq, SegmentId, TailPolicy, replay, segment_path};

use super::database::{
    DIR, files_of, keyspace_options, open_and_use, put_u64, restore, seal, u32_at, u64_at,
};

/// More add nothing but time.
const SEGMENTS_MAX: usize = 4;
const RECORD_HEADER: usize = 40;
const SEGMENT_HEADER: usize = 64;
const _: () =
    assert!(RECORD_HEADER as u64 == RECORD_HEADER_BYTES && SEGMENT_HEADER as u64 == SEGMENT_HEADER_BYTES);

/// A database with two keyspaces and an empty log, whose first segment has this id.
struct Template {
    files: Vec<(PathBuf, Vec<u8>)>,
    first_segment: SegmentId,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let (logs, files): (Vec<_>, Vec<_>) = files_of(|db| fill(db, 0))
        .into_iter()
        .partition(|(path, _)| is_log(path));
    let ids = logs
        .iter()
        .filter_map(|(path, _)| siltstone_wal::parse_segment_name(path.file_name()?.to_str()?));
    Template {
        files,
        first_segment: ids.min().expect("a write makes a segment"),
    }
});

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

pub(super) fn run(input: &[u8]) {
    let first = TEMPLATE.first_segment.0;
    let segments: Vec<(PathBuf, Vec<u8>)> = (first..)
        .zip(split(input))
        .map(|(id, mut bytes)| {
            mend(&mut bytes);
            (segment_path(Path::new(DIR), SegmentId(id)), bytes)
        })
        .collect();
    let logs = || segments.iter().map(|(path, bytes)| (path.as_path(), &bytes[..]));
    check_replay(&restore(logs()), first..first + segments.len() as u64);
    let all: Vec<_> = logs()
        .chain(
            TEMPLATE
                .files
                .iter()
                .map(|(path, bytes)| (path.as_path(), &bytes[..])),
        )
        .collect();
    open_and_use(&all);
}

/// Strict replay hands out records in sequence, and never more than salvage does.
fn check_replay(fs: &dyn Fs, ids: std::ops::Range<u64>) {
    let ids: Vec<SegmentId> = ids.map(SegmentId).collect();
    let read = |policy| {
        let mut seen: Vec<(RecordSeq, Vec<u8>)> = Vec::new();
        let outcome = replay(fs, Path::new(DIR), &ids, policy, &mut |record| {
            if let Some((last, _)) = seen.last() {
                assert_eq!(record.sequence, last.next(), "a hole in the log");
            }
            seen.push((record.sequence, record.payload.to_vec()));
            Ok(())
        });
        (outcome, seen)
    };
    let (strict, seen) = read(TailPolicy::Strict);
    let (salvage, salvaged) = read(TailPolicy::DropDamaged);
    if let Ok(strict) = strict {
        assert_eq!(strict.records, seen.len() as u64);
        let salvage = salvage.expect("what strict replay accepts can be salvaged");
        assert_eq!(salvage.next_sequence, strict.next_sequence);
        assert!(
            seen == salvaged,
            "strict replay and salvage read different records"
        );
    }
}

fn split(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    while segments.len() < SEGMENTS_MAX
        && let Some((len, rest)) = input.split_first_chunk::<4>()
    {
        let len = usize::try_from(u32::from_le_bytes(*len)).map_or(rest.len(), |len| len.min(rest.len()));
        let (segment, rest) = rest.split_at(len);
        segments.push(segment.to_vec());
        input = rest;
    }
    segments
}

/// Makes the checksums of the header and of all records that follow each other valid, and the capacity that of the file.
fn mend(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    if u64_at(bytes, segment_header::CAPACITY).is_none_or(|capacity| capacity as u64 > len) {
        put_u64(bytes, segment_header::CAPACITY, len);
    }
    seal(bytes, 0..segment_header::CHECKSUM, segment_header::CHECKSUM);
    let mut at = SEGMENT_HEADER;
    while let Some(payload) = u32_at(bytes, at + record_header::PAYLOAD_BYTES) {
        let end = at + RECORD_HEADER + payload;
        if end > bytes.len() || bytes[at..at + RECORD_HEADER].iter().all(|byte| *byte == 0) {
            return;
        }
        seal(
            bytes,
            at + record_header::PAYLOAD_BYTES..end,
            at + record_header::CHECKSUM,
        );
        let payload = u32::try_from(payload).expect("it was read from four bytes");
        at += usize::try_from(record_bytes(payload)).expect("a record within the input");
    }
}

/// Writes to both keyspaces; `rounds` of them fill several segments.
fn fill(db: &Db, rounds: u32) -> siltstone::Result<()> {
    let other = db.keyspace("other", keyspace_options())?;
    db.put("first", "value")?;
    for round in 0..rounds {
        let mut batch = WriteBatch::new();
        batch
            .put(format!("key{round:03}"), vec![b'v'; 60])
            .put_in(&other, round.to_be_bytes(), "there")
            .delete(format!("key{:03}", round / 2));
        let options = if round % 5 == 0 {
            WriteOptions::sync()
        } else {
            WriteOptions::default()
        };
        db.write_with(batch, &options)?;
    }
    Ok(())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let trimmed = |bytes: &[u8]| {
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        // A shorter file would be one that has been cut.
        let whole = used.next_multiple_of(usize::try_from(CAPACITY_UNIT_BYTES).unwrap_or(used));
        bytes[..whole.min(bytes.len())].to_vec()
    };
    let inputs = [0, 1, 8, 40].map(|rounds| {
        let files = files_of(|db| fill(db, rounds));
        let mut input = Vec::new();
        for (_, bytes) in files.iter().filter(|(path, _)| is_log(path)) {
            let bytes = trimmed(bytes);
            input.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            input.extend_from_slice(&bytes);
        }
        input
    });
    inputs.to_vec()
}

#[cfg(test)]
mod tests {
    use siltstone::RecoveryMode;

    use super::super::database::open;
    use super::*;

    /// The template, the id of its first segment, and the mending of checksums fit together: else the target would
    /// exercise nothing but refusals.
    #[test]
    fn a_seed_is_a_log_that_the_template_recovers() {
        let seed = seeds().pop().unwrap();
        let fs = restore(
            TEMPLATE
                .files
                .iter()
                .map(|(path, bytes)| (path.as_path(), &bytes[..])),
        );
        for (id, mut bytes) in (TEMPLATE.first_segment.0..).zip(split(&seed)) {
            bytes[SEGMENT_HEADER] ^= 1;
            mend(&mut bytes);
            fs.write_file(segment_path(Path::new(DIR), SegmentId(id)), bytes)
                .unwrap();
        }
        let db = open(&fs, RecoveryMode::Strict).unwrap();
        assert_eq!(db.recovery().dropped_because, None);
        assert!(db.get("key039").unwrap().is_some());
    }
}
