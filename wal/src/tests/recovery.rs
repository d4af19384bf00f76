//! Logs that went on after a recovery had dropped something.

use super::*;
use crate::{SegmentState, Tail};

/// Five records, of which the fourth is torn.
fn torn_log() -> Arc<MemFs> {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 3);
    let end = fs.read_file(segment_path(dir(), SegmentId(1))).expect("read");
    let end = (end.iter().rposition(|&byte| byte != 0).expect("written") + 1).next_multiple_of(8);
    append_to(&mut log, 5);
    corrupt(&fs, 1, |bytes| bytes[end] ^= 1);
    fs
}

fn go_on(fs: &Arc<MemFs>) -> (Log, Arc<LogSyncer>, Replay) {
    let replay = read_strict(&**fs).1;
    let (log, syncer) = Log::create(
        fs.clone(),
        dir(),
        replay.next_segment,
        replay.next_sequence,
        small(),
    )
    .expect("a log");
    (log, syncer, replay)
}

#[test]
fn a_tail_that_was_dropped_once_stays_dropped() {
    let fs = torn_log();
    let (mut log, syncer, replay) = go_on(&fs);
    assert!(matches!(
        replay.tail,
        Tail::Torn {
            segment: SegmentId(1),
            ..
        }
    ));
    assert_eq!(replay.next_sequence, RecordSeq(4));
    append_to(&mut log, 9);
    syncer.sync_to(RecordSeq(9)).expect("synced");
    log.note_synced().expect("noted");
    let (records, replay) = read_strict(&*fs);
    assert_eq!(
        (records, replay.tail, replay.synced),
        (expected(9), Tail::Clean, RecordSeq(9))
    );
}

#[test]
fn a_recovery_that_crashes_again_and_again_still_finds_its_place() {
    let fs = torn_log();
    // Each leaves a segment with a header and nothing else.
    for _ in 0..3 {
        let (_log, _syncer, replay) = go_on(&fs);
        assert_eq!(replay.next_sequence, RecordSeq(4));
    }
    let (mut log, _syncer, _) = go_on(&fs);
    append_to(&mut log, 7);
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(7), Tail::Clean));
}

#[test]
fn damage_to_the_new_segment_is_still_damage() {
    let fs = torn_log();
    let (mut log, syncer, _) = go_on(&fs);
    let new = log.segment().0;
    append_to(&mut log, 9);
    syncer.sync_to(RecordSeq(9)).expect("synced");
    append_to(&mut log, 10);
    // Its header: without it, what follows the torn tail would seem never to have been.
    corrupt(&fs, new, |bytes| bytes[20] ^= 1);
    assert!(read(&*fs, TailPolicy::Strict).1.is_err());
}

#[test]
fn segments_left_over_from_before_the_recovery_are_passed_over() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 60);
    let left_over = segments(&*fs).len() - 1;
    assert!(left_over >= 2);
    // The first segment loses its last records; nothing was ever synced.
    corrupt(&fs, 1, |bytes| bytes[1024..].fill(0));
    let (mut log, syncer, replay) = go_on(&fs);
    let next = replay.next_sequence.0;
    assert!(matches!(replay.tail, Tail::Torn { .. }));
    append_to(&mut log, 40);
    syncer.sync_to(RecordSeq(40)).expect("synced");
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(40), Tail::Clean));
    assert!(next < 40);
    assert!(
        replay.segments[1..=left_over]
            .iter()
            .all(|segment| segment.state == SegmentState::Dropped)
    );
}

#[test]
fn a_segment_created_and_never_begun_is_unused() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 3);
    syncer.prepare().expect("prepared");
    fs.write_file(segment_path(dir(), SegmentId(3)), Vec::new())
        .expect("written");
    fs.write_file(segment_path(dir(), SegmentId(4)), vec![0; 17])
        .expect("written");
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(3), Tail::Clean));
    let states: Vec<_> = replay.segments.iter().map(|segment| segment.state).collect();
    use SegmentState::{Live, Unused};
    assert_eq!(states, [Live, Unused, Unused, Unused]);
    assert_eq!(replay.next_segment, SegmentId(5));
}

#[test]
fn a_segment_whose_header_was_torn_is_dropped_and_gone_past() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 3);
    log.rotate().expect("rotated");
    append_to(&mut log, 5);
    corrupt(&fs, 2, |bytes| bytes[30..].fill(0));
    let (mut log, _syncer, replay) = go_on(&fs);
    assert!(
        matches!(replay.tail, Tail::Torn { bytes: 1.., .. }),
        "{:?}",
        replay.tail
    );
    assert_eq!(replay.segments[1].state, SegmentState::Dropped);
    append_to(&mut log, 8);
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(8), Tail::Clean));
}

#[test]
fn a_first_segment_that_never_got_its_header_is_where_nothing_begins() {
    let fs = mem_fs();
    fs.write_file(segment_path(dir(), SegmentId(1)), vec![0; 4096])
        .expect("written");
    let (mut log, _syncer) =
        Log::create(fs.clone(), dir(), SegmentId(2), RecordSeq(1), small()).expect("a log");
    append_to(&mut log, 4);
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(4), Tail::Clean));
    assert_eq!(replay.segments[0].state, SegmentState::Unused);
}

#[test]
fn salvage_goes_on_behind_damage() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 6);
    syncer.sync_to(RecordSeq(6)).expect("synced");
    log.note_synced().expect("noted");
    corrupt(&fs, 1, |bytes| bytes[64 + 40] ^= 1);
    assert!(read(&*fs, TailPolicy::Strict).1.is_err());
    let replay = read(&*fs, TailPolicy::DropDamaged).1.expect("salvaged");
    assert!(matches!(
        replay.tail,
        Tail::Damaged {
            segment: SegmentId(1),
            offset: 64,
            first_lost: RecordSeq(1),
            last_lost: RecordSeq(6),
            ..
        }
    ));
    let (mut log, _syncer) = Log::create(
        fs.clone(),
        dir(),
        replay.next_segment,
        replay.next_sequence,
        small(),
    )
    .expect("a log");
    append_to(&mut log, 2);
    let (records, replay) = read_strict(&*fs);
    assert_eq!((records, replay.tail), (expected(2), Tail::Clean));
}

#[test]
fn a_first_segment_without_its_header_is_missed_by_the_one_that_follows() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 60);
    // Never synced: a crash may have done it, and the log is empty.
    let whole = segment_path(dir(), SegmentId(1));
    let sound = fs.read_file(&whole).expect("read");
    corrupt(&fs, 1, |bytes| bytes.fill(0));
    let (records, replay) = read_strict(&*fs);
    assert!(
        records.is_empty() && matches!(replay.tail, Tail::Torn { .. }),
        "{:?}",
        replay.tail
    );
    assert_eq!(replay.next_sequence, RecordSeq(1));

    fs.write_file(&whole, sound).expect("restored");
    syncer.sync_to(RecordSeq(60)).expect("synced");
    log.note_synced().expect("noted");
    corrupt(&fs, 1, |bytes| bytes.fill(0));
    let error = read(&*fs, TailPolicy::Strict).1.expect_err("damaged");
    assert!(error.to_string().contains("record 1 was expected"), "{error}");
}

#[test]
fn records_recovered_once_are_missed_when_their_header_is_gone() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 3);
    let (mut log, _syncer, _) = go_on(&fs);
    append_to(&mut log, 5);
    assert_eq!(read_strict(&*fs).0, expected(5));
    corrupt(&fs, 1, |bytes| bytes[..64].fill(0));
    assert!(read(&*fs, TailPolicy::Strict).1.is_err());
}

#[test]
fn an_empty_segment_that_lost_its_header_is_no_loss() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    log.rotate().expect("rotated");
    append_to(&mut log, 3);
    corrupt(&fs, 1, |bytes| bytes.fill(0));
    assert_eq!(read_strict(&*fs).0, expected(3));
    syncer.sync_to(RecordSeq(3)).expect("synced");
}

#[test]
fn a_log_that_lost_all_its_headers_begins_where_it_had_begun() {
    let fs = mem_fs();
    let (mut log, _syncer) =
        Log::create(fs.clone(), dir(), SegmentId(1), RecordSeq(9), small()).expect("a log");
    append_to(&mut log, 14);
    // The header and the first record.
    corrupt(&fs, 1, |bytes| bytes[..128].fill(0));
    let (records, replay) = read_strict(&*fs);
    assert!(
        records.is_empty() && matches!(replay.tail, Tail::Torn { .. }),
        "{:?}",
        replay.tail
    );
    assert_eq!(replay.next_sequence, RecordSeq(9));
}

/// A regression: recovery dropped segments 1 to 3, went on in segment 9, and had removed only the first of them when it
/// crashed. What is left of the others is not where the log begins.
#[test]
fn segments_left_of_a_dropped_tail_are_superseded() {
    // Without the first one, and with it alone.
    for first_is_left in [false, true] {
        let fs = mem_fs();
        let (mut log, _) = create(&fs);
        append_to(&mut log, 40);
        assert!(log.segment() >= SegmentId(3));
        let dropped = segments(&*fs);
        drop(log);
        let (mut log, _) =
            Log::create(fs.clone(), dir(), SegmentId(9), RecordSeq(1), small()).expect("created");
        log.append(&[b"the first again"]).expect("appended");
        let (first, others) = dropped.split_at(1);
        for id in if first_is_left { others } else { first } {
            fs.remove(&siltstone_vfs::Removable::plain(&segment_path(dir(), *id)).expect("a log"))
                .expect("removed");
        }
        let mut seen = Vec::new();
        let replay = replay(&*fs, dir(), &segments(&*fs), TailPolicy::Strict, &mut |record| {
            seen.push((record.segment, record.sequence, record.payload.to_vec()));
            Ok(())
        })
        .expect("sound");
        assert_eq!(seen, [(SegmentId(9), RecordSeq(1), b"the first again".to_vec())]);
        assert_eq!(replay.next_sequence, RecordSeq(2));
    }
}

/// A regression: the log's first segments were lost in a power loss, and one that was rotated from them was not. The one
/// in between had no records (a spare too small for what came next), so that no record seems to be missing.
#[test]
fn a_rotated_segment_does_not_begin_the_log() {
    let fs = mem_fs();
    let (mut log, syncer) = create(&fs);
    append_to(&mut log, 3);
    syncer.prepare().expect("a spare");
    log.append(&[&[7; 8000]])
        .expect("appended to a segment of its own");
    let all = segments(&*fs);
    assert_eq!(all.len(), 3);
    for id in &all[..2] {
        corrupt(&fs, id.0, |bytes| bytes.fill(0));
    }
    let (records, replay) = read_strict(&*fs);
    assert_eq!(records, []);
    assert!(matches!(replay.tail, Tail::Torn { .. }), "{:?}", replay.tail);
}
