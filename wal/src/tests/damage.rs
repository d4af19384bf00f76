use siltstone_vfs::ErrorKind;

use super::*;
use crate::format::{RecordHeader, RecordType};
use crate::{SegmentState, Tail};

/// Three segments, all synced, with a note of it; and a spare.
fn synced_log() -> (Arc<MemFs>, u64) {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 25);
    syncer.sync_to(RecordSeq(25)).expect("synced");
    append_to(&mut log, 50);
    syncer.sync_to(RecordSeq(50)).expect("synced");
    log.note_synced().expect("noted");
    syncer.prepare().expect("prepared");
    assert!(log.segment() >= SegmentId(3));
    (fs, 50)
}

/// Where the last record of a segment begins.
fn last_record(fs: &dyn Fs, segment: u64) -> u64 {
    let mut last = 0;
    replay(fs, dir(), &segments(fs), TailPolicy::Strict, &mut |record| {
        if record.segment == SegmentId(segment) {
            last = record.offset;
        }
        Ok(())
    })
    .expect("sound");
    last
}

#[test]
fn every_byte_of_a_synced_log_flipped_is_refused_or_harmless() {
    let (fs, last) = synced_log();
    let (mut refused, mut harmless) = (0, 0);
    for id in segments(&*fs) {
        let path = segment_path(dir(), id);
        let sound = fs.read_file(&path).expect("read");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= [0xff, 0x01, 0x80][at % 3];
            fs.write_file(&path, bytes).expect("written");
            let what = format!("segment {id}, byte {at}");
            let (records, outcome) = read(&*fs, TailPolicy::Strict);
            assert!(expected(last).starts_with(&records), "{what}: a wrong record");
            match outcome {
                Ok(_) => {
                    harmless += 1;
                    assert_eq!(records.len() as u64, last, "{what}: synced records are missing");
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                    let (salvaged, outcome) = read(&*fs, TailPolicy::DropDamaged);
                    assert_eq!(salvaged, records, "{what}");
                    assert!(
                        matches!(outcome.expect("salvaged").tail, Tail::Damaged { .. }),
                        "{what}"
                    );
                }
            }
        }
        fs.write_file(&path, sound).expect("restored");
    }
    assert!(
        refused > 8000 && harmless > 4000,
        "{refused} refused, {harmless} harmless"
    );
}

#[test]
fn a_synced_log_cut_at_any_length_but_to_nothing_is_refused() {
    let (fs, last) = synced_log();
    let last_live = segments(&*fs).len() as u64 - 1;
    for id in 1..=last_live {
        let path = segment_path(dir(), SegmentId(id));
        let sound = fs.read_file(&path).expect("read");
        for len in 0..sound.len() {
            fs.write_file(&path, &sound[..len]).expect("written");
            let (records, outcome) = read(&*fs, TailPolicy::Strict);
            assert!(expected(last).starts_with(&records));
            match outcome {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{id} {len}"),
                // Only unwritten space was cut off.
                Ok(_) if records.len() as u64 == last => {}
                // A file without a byte is what a crash leaves of one that was being created.
                Ok(replay) => {
                    assert_eq!((id, len), (last_live, 0));
                    assert!(matches!(replay.tail, Tail::Torn { .. }), "{:?}", replay.tail);
                }
            }
        }
        fs.write_file(&path, sound).expect("restored");
    }
}

#[test]
fn the_error_says_what_is_lost_and_what_to_do() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 9);
    syncer.sync_to(RecordSeq(7)).expect("synced");
    log.note_synced().expect("noted");
    let at = last_record(&*fs, 1);
    corrupt(&fs, 1, |bytes| bytes[at as usize + 41] ^= 1);
    let error = read(&*fs, TailPolicy::Strict).1.expect_err("damaged");
    assert_eq!(error.path(), Some(&*segment_path(dir(), SegmentId(1))));
    assert_eq!(error.offset(), Some(at));
    let message = error.to_string();
    for part in [
        "record 9 was expected",
        "synced up to record 9",
        "record 9 and whatever",
        "salvage",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn damage_behind_the_watermark_is_a_torn_tail() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 4);
    syncer.sync_to(RecordSeq(4)).expect("synced");
    append_to(&mut log, 8);
    let at = last_record(&*fs, 1);
    append_to(&mut log, 40);
    assert!(log.segment() > SegmentId(1));
    corrupt(&fs, 1, |bytes| bytes[at as usize + 8] ^= 1);
    let (records, replay) = read_strict(&*fs);
    let lost = records.len() as u64 + 1;
    assert_eq!(records, expected(lost - 1));
    assert!(
        lost > 4
            && matches!(
                replay.tail,
                Tail::Torn {
                    segment: SegmentId(1),
                    ..
                }
            ),
        "{:?}",
        replay.tail
    );
    assert_eq!(
        (replay.next_sequence, replay.synced),
        (RecordSeq(lost), RecordSeq(4))
    );
    assert!(
        replay.segments[1..]
            .iter()
            .all(|segment| segment.state == SegmentState::Dropped)
    );
    assert_eq!(replay.next_segment, log.segment().next());
}

#[test]
fn the_bytes_of_another_segment_are_not_read() {
    let (fs, _) = synced_log();
    let old = fs.read_file(segment_path(dir(), SegmentId(1))).expect("read");

    // A whole file under another name, beside itself and alone under a lower one.
    let other = mem_fs();
    for (names, read_before) in [(&[1, 2][..], true), (&[0], false)] {
        let other = mem_fs();
        for &name in names {
            other
                .write_file(segment_path(dir(), SegmentId(name)), old.clone())
                .expect("written");
        }
        let (_, outcome) = read(&*other, TailPolicy::Strict);
        let error = outcome.expect_err("files have been mixed up");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.to_string().contains("holds segment 000001"), "{error}");
        let (records, salvaged) = read(&*other, TailPolicy::DropDamaged);
        assert_eq!(!records.is_empty(), read_before);
        let last = salvaged.expect("salvaged").segments.pop();
        assert_eq!(last.map(|last| last.state), Some(SegmentState::Dropped));
    }

    // The file of a segment that is not needed any more, which was to become the first of those that are.
    other
        .write_file(segment_path(dir(), SegmentId(2)), old.clone())
        .expect("written");
    let (records, replay) = read_strict(&*other);
    assert!(records.is_empty());
    assert_eq!(
        (replay.segments[0].state, replay.synced),
        (SegmentState::Dropped, RecordSeq(0))
    );

    // A reused file: a new header and a new record over old ones, with the very sequence that would be next.
    let reused = mem_fs();
    let (mut log, _syncer) =
        Log::create(reused.clone(), dir(), SegmentId(2), RecordSeq(1), small()).expect("a log");
    append_to(&mut log, 4);
    let end = reused.read_file(segment_path(dir(), SegmentId(2))).expect("read");
    let end = (end.iter().rposition(|&byte| byte != 0).expect("written") + 1).next_multiple_of(8);
    corrupt(&reused, 2, |bytes| bytes[end..].copy_from_slice(&old[end..]));
    let (records, replay) = read_strict(&*reused);
    assert_eq!(records, expected(4));
    assert!(
        matches!(&replay.tail, Tail::Torn { reason, .. } if reason.contains("segment 000001")),
        "{replay:?}"
    );
}

#[test]
fn a_synced_record_is_missed_even_where_zeros_are_left_of_it() {
    let (fs, _) = synced_log();
    let at = last_record(&*fs, 3) as usize;
    let len = fs
        .read_file(segment_path(dir(), SegmentId(3)))
        .expect("read")
        .len();
    // A lost sector in front of the note.
    corrupt(&fs, 3, |bytes| bytes[at..len.min(at + 48)].fill(0));
    assert_eq!(
        read(&*fs, TailPolicy::Strict).1.expect_err("damaged").kind(),
        ErrorKind::Corruption
    );
}

#[test]
fn a_sealed_segment_whose_successor_is_gone_is_damage() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 3);
    log.rotate().expect("rotated");
    append_to(&mut log, 6);
    let outcome = replay(&*fs, dir(), &[SegmentId(1)], TailPolicy::Strict, &mut |_| Ok(()));
    assert!(outcome.expect_err("damaged").to_string().contains("missing"));
    let outcome = replay(&*fs, dir(), &[SegmentId(1)], TailPolicy::DropDamaged, &mut |_| {
        Ok(())
    });
    assert_eq!(outcome.expect("salvaged").records, 3);
}

#[test]
fn a_payload_full_of_false_headers_costs_no_more_than_its_size() {
    let fs = mem_fs();
    let options = LogOptions {
        segment_size_bytes: 4 << 20,
        io: LogIo::Mapped,
    };
    let (mut log, syncer) =
        Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(1), options).expect("a log");
    append_to(&mut log, 2);
    syncer.sync_to(RecordSeq(2)).expect("synced");
    // Each claims the rest of the payload and a watermark far ahead; none has the right checksum.
    let mut false_headers = Vec::new();
    let total = 1_000_000_u32;
    while false_headers.len() < total as usize {
        let header = RecordHeader {
            payload_bytes: total - false_headers.len() as u32,
            record_type: RecordType::Data,
            segment: SegmentId(1),
            sequence: RecordSeq(1000),
            synced: RecordSeq(999),
        };
        let mut bytes = header.encode_with(b"");
        bytes[0] ^= 1;
        false_headers.extend(bytes);
    }
    log.append(&[&false_headers]).expect("appended");
    let at = last_record(&*fs, 1);
    corrupt(&fs, 1, |bytes| bytes[at as usize] ^= 1);
    // Whether something is lost cannot be told at a bearable price: the safe answer is to refuse.
    let error = read(&*fs, TailPolicy::Strict).1.expect_err("undecided");
    assert!(error.to_string().contains("look like records"), "{error}");
    assert_eq!(
        read(&*fs, TailPolicy::DropDamaged).1.expect("salvaged").records,
        2
    );
}

#[test]
fn a_newer_format_is_unsupported_not_damaged() {
    let (fs, _) = synced_log();
    corrupt(&fs, 1, |bytes| {
        bytes[8] = 2;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..56]);
        bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
    });
    assert_eq!(
        read(&*fs, TailPolicy::Strict).1.expect_err("newer").kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn a_record_in_the_place_of_another_is_not_read() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    log.append(&[b"first..."]).expect("appended");
    log.append(&[b"second.."]).expect("appended");
    syncer.sync_to(RecordSeq(2)).expect("synced");
    log.note_synced().expect("noted");
    corrupt(&fs, 1, |bytes| bytes.copy_within(64..64 + 48, 64 + 48));
    let (records, outcome) = read(&*fs, TailPolicy::Strict);
    assert_eq!(records, [(1, b"first...".to_vec())]);
    assert!(
        outcome
            .expect_err("damaged")
            .to_string()
            .contains("has the sequence 1")
    );
}

#[test]
fn the_header_of_the_next_segment_is_evidence_enough() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 3);
    syncer.sync_to(RecordSeq(3)).expect("synced");
    let at = last_record(&*fs, 1) as usize;
    log.rotate().expect("rotated");
    // The last record, and the seal behind it.
    corrupt(&fs, 1, |bytes| bytes[at..].fill(0));
    assert_eq!(
        read(&*fs, TailPolicy::Strict).1.expect_err("damaged").kind(),
        ErrorKind::Corruption
    );
}

/// A regression: a log of one segment that was cut into its header opened as an empty one.
#[test]
fn a_single_segment_cut_into_its_header_is_refused() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 2);
    syncer.sync_to(RecordSeq(2)).expect("synced");
    let path = segment_path(dir(), SegmentId(1));
    let sound = fs.read_file(&path).expect("read");
    for len in 1..100 {
        fs.write_file(&path, &sound[..len]).expect("written");
        let (records, outcome) = read(&*fs, TailPolicy::Strict);
        assert_eq!(records, []);
        assert_eq!(
            outcome.expect_err("damage").kind(),
            ErrorKind::Corruption,
            "{len}"
        );
        assert!(read(&*fs, TailPolicy::DropDamaged).1.is_ok(), "{len}");
    }
}
