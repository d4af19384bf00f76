use proptest::prelude::*;

use super::*;
use crate::{RECORD_BYTES_MAX, SegmentState, Tail};

#[test]
fn what_was_appended_is_read_back_across_segments() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 200);
    assert_eq!(syncer.appended(), RecordSeq(200));
    assert!(log.segment() > SegmentId(5));
    let (records, replay) = read_strict(&*fs);
    assert_eq!(records, expected(200));
    assert_eq!(replay.tail, Tail::Clean);
    assert_eq!((replay.records, replay.next_sequence), (200, RecordSeq(201)));
    assert_eq!(replay.next_segment, log.segment().next());
    assert!(
        replay
            .segments
            .iter()
            .all(|segment| segment.state == SegmentState::Live)
    );
    for pair in replay.segments.windows(2) {
        assert_eq!(pair[0].last_sequence.map(RecordSeq::next), pair[1].first_sequence);
    }
}

#[test]
fn an_empty_payload_and_one_larger_than_a_segment_are_records_like_others() {
    for prepared in [false, true] {
        let fs = mem_fs();
        let (mut log, syncer) = create(&fs);
        let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(log.append(&[]).expect("appended"), RecordSeq(1));
        if prepared {
            syncer.prepare().expect("prepared");
        }
        assert_eq!(
            log.append(&[b"ab", &large, b"", b"cd"]).expect("appended"),
            RecordSeq(2)
        );
        assert_eq!(log.append(&[b"", b""]).expect("appended"), RecordSeq(3));
        syncer.sync_to(RecordSeq(3)).expect("synced");
        let (records, replay) = read_strict(&*fs);
        assert_eq!(replay.tail, Tail::Clean);
        assert_eq!(records.len(), 3);
        assert_eq!(records[1].1, [b"ab", &large[..], b"cd"].concat());
        assert!(records[0].1.is_empty() && records[2].1.is_empty());
        // The spare that was too small has an owner, too.
        assert_eq!(
            syncer
                .live_segments()
                .iter()
                .map(|live| live.0)
                .collect::<Vec<_>>(),
            segments(&*fs)
        );
    }
}

#[test]
fn a_record_that_fills_its_segment_to_the_last_byte_fits() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    let full = vec![7; 4096 - 64 - 40];
    log.append(&[&full]).expect("appended");
    assert_eq!(log.segment(), SegmentId(1));
    log.append(&[b"next"]).expect("appended");
    assert_eq!(log.segment(), SegmentId(2));
    let (records, replay) = read_strict(&*fs);
    assert_eq!(
        (records[0].1.len(), &records[1].1[..], replay.tail),
        (full.len(), &b"next"[..], Tail::Clean)
    );
}

#[test]
fn the_limit_on_a_record_is_an_error_and_not_the_end_of_the_log() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    let part = vec![0; 1 << 20];
    let parts = vec![&part[..]; (RECORD_BYTES_MAX >> 20) + 1];
    let error = log.append(&parts).expect_err("too large");
    assert_eq!(error.kind(), siltstone_vfs::ErrorKind::InvalidInput);
    assert_eq!(log.append(&[b"fits"]).expect("appended"), RecordSeq(1));
}

#[test]
fn options_and_arguments_out_of_range_are_rejected() {
    let fs = mem_fs();
    for (segment_size_bytes, sequence) in [(4095, 1), (0, 1), (u64::MAX, 1), (4096, 0)] {
        let options = LogOptions {
            segment_size_bytes,
            ..small()
        };
        let outcome = Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(sequence), options);
        assert_eq!(
            outcome.expect_err("rejected").kind(),
            siltstone_vfs::ErrorKind::InvalidInput
        );
    }
    assert!(segments(&*fs).is_empty());
    let unsorted = [SegmentId(2), SegmentId(1)];
    assert!(replay(&*fs, dir(), &unsorted, TailPolicy::Strict, &mut |_| Ok(())).is_err());
    let (_log, syncer) = create(&fs);
    assert_eq!(
        syncer.sync_to(RecordSeq(1)).expect_err("early").kind(),
        siltstone_vfs::ErrorKind::InvalidInput
    );
}

#[test]
fn the_next_segment_is_asked_for_once_when_one_is_half_full() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    for _ in 0..2 {
        assert!(!log.needs_preparing());
        log.append(&[&[1; 2100]]).expect("appended");
        assert!(log.needs_preparing());
        assert!(!log.needs_preparing(), "somebody has been asked");
        log.rotate().expect("rotated");
    }
    syncer.prepare().expect("prepared");
    log.append(&[&[1; 2100]]).expect("appended");
    assert!(!log.needs_preparing(), "it stands ready");
}

#[test]
fn a_prepared_segment_is_taken_over_and_released_segments_are_let_go() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    syncer.prepare().expect("prepared");
    syncer.prepare().expect("prepared already");
    assert_eq!(segments(&*fs), [SegmentId(1), SegmentId(2)]);
    append_to(&mut log, 1);
    assert_eq!(log.rotate().expect("rotated"), SegmentId(2));
    append_to(&mut log, 2);
    assert_eq!(log.rotate().expect("rotated"), SegmentId(3));
    append_to(&mut log, 3);
    assert_eq!(syncer.live_segments(), [1, 2, 3].map(|id| (SegmentId(id), 4096)));
    syncer.release_below(SegmentId(3));
    assert_eq!(syncer.live_segments(), [(SegmentId(3), 4096)]);
    syncer.release_below(SegmentId(99));
    assert_eq!(
        syncer.live_segments(),
        [(SegmentId(3), 4096)],
        "the segment in use is kept"
    );
    syncer.sync_to(RecordSeq(3)).expect("synced");
    assert_eq!(read_strict(&*fs).0, expected(3));
}

#[test]
fn the_watermark_is_carried_by_records_and_by_notes() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 3);
    log.note_synced().expect("nothing to note");
    assert_eq!(read_strict(&*fs).1.synced, RecordSeq(0));
    syncer.sync_to(RecordSeq(2)).expect("synced");
    assert_eq!(syncer.synced(), RecordSeq(3));
    append_to(&mut log, 4);
    assert_eq!(read_strict(&*fs).1.synced, RecordSeq(3));
    syncer.sync_to(RecordSeq(4)).expect("synced");
    log.note_synced().expect("noted");
    let before = fs.read_file(segment_path(dir(), SegmentId(1))).expect("read");
    log.note_synced().expect("noted already");
    assert_eq!(
        before,
        fs.read_file(segment_path(dir(), SegmentId(1))).expect("read")
    );
    let replay = read_strict(&*fs).1;
    assert_eq!(
        (replay.synced, replay.records, replay.next_sequence),
        (RecordSeq(4), 4, RecordSeq(5))
    );
}

#[test]
fn an_empty_list_of_segments_is_an_empty_log() {
    let fs = mem_fs();
    let (records, replay) = read_strict(&*fs);
    assert!(records.is_empty());
    assert_eq!(
        (replay.next_sequence, replay.next_segment, replay.tail),
        (RecordSeq(1), SegmentId(1), Tail::Clean)
    );
}

#[test]
fn what_the_visitor_says_ends_the_replay() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 5);
    let mut visited = 0;
    let outcome = replay(&*fs, dir(), &[SegmentId(1)], TailPolicy::Strict, &mut |_| {
        visited += 1;
        if visited < 3 {
            Ok(())
        } else {
            Err(siltstone_vfs::Error::invalid("enough"))
        }
    });
    assert_eq!(
        (outcome.expect_err("stopped").to_string(), visited),
        ("enough".to_owned(), 3)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    Sync,
    Note,
    Prepare,
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..6).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => Just(Step::Note),
        1 => Just(Step::Prepare),
        1 => Just(Step::Rotate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_read_back(steps in prop::collection::vec(step(), 0..40), write: bool) {
        let fs = mem_fs();
        let io = if write { LogIo::Write } else { LogIo::Mapped };
        let options = LogOptions { io, ..small() };
        let (mut log, syncer) =
            Log::create(fs.clone(), dir(), SegmentId(3), RecordSeq(70), options).expect("a log");
        let mut model = Vec::new();
        for step in steps {
            match step {
                Step::Append(parts) => {
                    let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
                    model.push((log.append(&parts).expect("appended").0, parts.concat()));
                }
                Step::Sync => syncer.sync_to(syncer.appended()).expect("synced"),
                Step::Note => log.note_synced().expect("noted"),
                Step::Prepare => syncer.prepare().expect("prepared"),
                Step::Rotate => drop(log.rotate().expect("rotated")),
            }
        }
        let (records, replay) = read_strict(&*fs);
        prop_assert_eq!(replay.tail, Tail::Clean);
        prop_assert_eq!(replay.next_sequence, log.next_sequence());
        prop_assert!(replay.synced <= syncer.synced());
        prop_assert_eq!(records, model);
    }
}
