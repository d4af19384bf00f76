//! Logs that were closed, and logs that are opened without a segment.

use siltstone_vfs::{ErrorKind, Fault, FaultEffect, FaultFs};

use super::*;
use crate::format::{RecordHeader, RecordType, SEGMENT_HEADER_BYTES};
use crate::{SegmentState, Tail};

/// A log of two lives: the first was closed, the second goes on in a later segment and is closed as well. All of it is
/// synced.
fn closed_twice() -> (Arc<MemFs>, u64) {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 8);
    syncer.sync_to(RecordSeq(8)).expect("synced");
    log.close().expect("closed");
    let replay = read_strict(&*fs).1;
    assert!(replay.closed && replay.synced == RecordSeq(8));
    let (mut log, syncer) = Log::create_unbegun(
        fs.clone(),
        dir(),
        replay.next_segment,
        replay.next_sequence,
        small(),
    )
    .expect("a log");
    append_to(&mut log, 16);
    syncer.sync_to(RecordSeq(16)).expect("synced");
    log.close().expect("closed");
    (fs, 16)
}

#[test]
fn a_closed_log_says_so_until_it_goes_on() {
    let (fs, last) = closed_twice();
    let (records, replay) = read_strict(&*fs);
    assert_eq!(records, expected(last));
    assert!(replay.closed && replay.tail == Tail::Clean && replay.synced == RecordSeq(last));
    assert_eq!(segments(&*fs), [SegmentId(1), SegmentId(2)]);
    let states: Vec<_> = replay.segments.iter().map(|segment| segment.state).collect();
    assert_eq!(states, [SegmentState::Live; 2]);

    let (mut log, _syncer) =
        Log::create_unbegun(fs.clone(), dir(), SegmentId(3), RecordSeq(17), small()).expect("a log");
    append_to(&mut log, 17);
    let (records, replay) = read_strict(&*fs);
    assert_eq!(records, expected(17));
    assert!(!replay.closed);
}

#[test]
fn what_was_never_synced_is_not_called_so_by_closing() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 3);
    syncer.sync_to(RecordSeq(3)).expect("synced");
    append_to(&mut log, 5);
    log.close().expect("closed");
    let replay = read_strict(&*fs).1;
    assert_eq!((replay.closed, replay.synced), (true, RecordSeq(3)));
}

/// Of a segment behind a closed one, its header above all, every byte is still looked at.
#[test]
fn every_byte_of_a_closed_log_flipped_is_refused_or_harmless() {
    let (fs, last) = closed_twice();
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
                }
            }
        }
        fs.write_file(&path, sound).expect("restored");
    }
    assert!(
        refused > 2000 && harmless > 2000,
        "{refused} refused, {harmless} harmless"
    );
}

/// Also in the middle of a record, with no segment behind it to say that the record was synced.
#[test]
fn a_closed_log_cut_anywhere_is_refused_or_whole() {
    let fs = mem_fs();
    // Larger than the smallest that a segment can be, below which no record is looked at.
    let options = LogOptions {
        segment_size_bytes: 12288,
        ..small()
    };
    let (mut log, syncer) =
        Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(1), options).expect("a log");
    append_to(&mut log, 45);
    syncer.sync_to(RecordSeq(45)).expect("synced");
    log.close().expect("closed");
    let path = segment_path(dir(), SegmentId(1));
    let sound = fs.read_file(&path).expect("read");
    let mut whole = 0;
    for len in 1..sound.len() {
        fs.write_file(&path, &sound[..len]).expect("written");
        let (records, outcome) = read(&*fs, TailPolicy::Strict);
        match outcome {
            Ok(_) => {
                whole += 1;
                assert_eq!(records, expected(45), "{len} bytes");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{len} bytes"),
        }
    }
    assert!((1000..6000).contains(&whole), "{whole}");
}

/// A sector that is lost in a segment behind a closed one: what the segment holds had been synced.
#[test]
fn a_lost_header_behind_a_closed_segment_is_damage() {
    let (fs, _) = closed_twice();
    corrupt(&fs, 2, |bytes| bytes[..512].fill(0));
    let (records, outcome) = read(&*fs, TailPolicy::Strict);
    assert_eq!(records, expected(8));
    assert_eq!(outcome.expect_err("damage").kind(), ErrorKind::Corruption);
}

#[test]
fn nothing_behind_a_closing_record_is_read() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 2);
    log.close().expect("closed");
    let close = RecordHeader {
        payload_bytes: 0,
        record_type: RecordType::Close,
        segment: SegmentId(1),
        sequence: RecordSeq(3),
        synced: RecordSeq(0),
    }
    .encode_with(&[]);
    let stray = RecordHeader {
        payload_bytes: 5,
        record_type: RecordType::Data,
        segment: SegmentId(1),
        sequence: RecordSeq(3),
        synced: RecordSeq(0),
    };
    corrupt(&fs, 1, |bytes| {
        let at = bytes
            .windows(close.len())
            .position(|bytes| bytes == close)
            .expect("the closing record");
        let behind = at + close.len();
        bytes[behind..behind + 45].copy_from_slice(&stray.encode_with(b"stray"));
    });
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.next_sequence), (expected(2), RecordSeq(3)));
}

#[test]
fn closing_removes_the_spare_and_a_full_segment_needs_no_record() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    let room = 4096 - SEGMENT_HEADER_BYTES - 40;
    log.append(&[&vec![1; usize::try_from(room).expect("small")]])
        .expect("appended");
    syncer.prepare().expect("prepared");
    assert_eq!(segments(&*fs).len(), 2);
    log.close().expect("closed");
    assert_eq!(segments(&*fs), [SegmentId(1)]);
    let replay = read_strict(&*fs).1;
    assert_eq!(
        (replay.closed, replay.tail, replay.records),
        (false, Tail::Clean, 1)
    );
}

/// Whoever settles removes the spare; the log goes on under the id that it had, and asks for another one.
#[test]
fn a_spare_that_was_removed_leaves_no_gap() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    let record = vec![1; 3000];
    log.append(&[&record]).expect("appended");
    assert!(log.needs_preparing() && !log.needs_preparing());
    syncer.prepare().expect("prepared");
    assert_eq!(segments(&*fs), [SegmentId(1), SegmentId(2)]);
    log.ask_again();
    syncer.remove_spare().expect("removed");
    syncer.remove_spare().expect("nothing to remove");
    assert_eq!(
        (segments(&*fs), syncer.next_segment()),
        (vec![SegmentId(1)], SegmentId(2))
    );
    assert!(log.needs_preparing());
    log.append(&[&record]).expect("appended to the next segment");
    assert_eq!(segments(&*fs), [SegmentId(1), SegmentId(2)]);
    syncer.sync_to(RecordSeq(2)).expect("synced");
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records.len(), replay.tail), (2, Tail::Clean));
}

#[test]
fn a_log_that_is_never_appended_to_leaves_nothing() {
    let fs = mem_fs();
    let open = || Log::create_unbegun(fs.clone(), dir(), SegmentId(4), RecordSeq(9), small()).expect("a log");
    let (log, syncer) = open();
    syncer.sync_to(RecordSeq(8)).expect("there is nothing to sync");
    assert!(!log.is_begun() && log.segment() == SegmentId(4));
    log.close().expect("closed");
    let (log, syncer) = open();
    syncer.prepare().expect("prepared");
    assert_eq!(segments(&*fs), [SegmentId(4)]);
    log.close().expect("closed");
    assert!(segments(&*fs).is_empty());
}

/// Whoever reads the log is told the id that it begins with before there is a segment.
#[test]
fn the_first_segment_has_the_id_that_was_announced_whatever_fails_before() {
    let mut passed = 0;
    for nth in 0..8 {
        let fs = mem_fs();
        let faulty = Arc::new(FaultFs::new(fs.clone()));
        let (mut log, syncer) =
            Log::create_unbegun(faulty.clone(), dir(), SegmentId(4), RecordSeq(1), small()).expect("a log");
        faulty.inject(Fault {
            nth,
            kinds: None,
            path_contains: None,
            effect: FaultEffect::Enospc,
            repeat: false,
        });
        let prepared = syncer.prepare();
        if log.append(&[b"first"]).is_err() && log.append(&[b"first"]).is_err() {
            assert!(
                syncer.prepare().is_err(),
                "{nth}: a failed sync of the directory is final"
            );
            continue;
        }
        passed += usize::from(prepared.is_err());
        assert_eq!(
            (log.segment(), segments(&*fs)[0]),
            (SegmentId(4), SegmentId(4)),
            "{nth}"
        );
    }
    assert!(passed > 0, "no attempt failed and was made good");
    // The spare may be too small for the first record, and is part of the log nevertheless.
    let fs = mem_fs();
    let (mut log, syncer) =
        Log::create_unbegun(fs.clone(), dir(), SegmentId(4), RecordSeq(1), small()).expect("a log");
    syncer.prepare().expect("prepared");
    log.append(&[&[7; 9000]]).expect("appended");
    syncer.sync_to(RecordSeq(1)).expect("synced");
    assert_eq!(segments(&*fs), [SegmentId(4), SegmentId(5)]);
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records.len(), replay.tail), (1, Tail::Clean));
}
