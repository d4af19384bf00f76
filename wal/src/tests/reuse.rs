//! Files of segments that are not needed any more become the next ones.

use std::collections::BTreeMap;

use siltstone_vfs::{ErrorKind, Fault, FaultEffect, FaultFs, OpKind, Removable};

use super::*;
use crate::Tail;
use crate::format::{HeaderFault, SegmentHeader};

/// Lets go of what is below `segment`, as the engine does.
fn release(fs: &dyn Fs, syncer: &LogSyncer, segment: SegmentId) {
    let kept = syncer.release_below(segment);
    for id in segments(fs).into_iter().filter(|&id| id < segment) {
        if !kept.contains(&id) {
            remove(fs, id);
        }
    }
}

fn remove(fs: &dyn Fs, id: SegmentId) {
    let path = segment_path(dir(), id);
    fs.remove(&Removable::plain(&path).expect("a log"))
        .expect("removed");
}

/// A log of four records in the segments 1 to 4.
fn four_segments(fs: Arc<dyn Fs>) -> (Log, Arc<LogSyncer>) {
    let (mut log, syncer) = Log::create(fs, dir(), SegmentId(1), RecordSeq(1), small()).expect("a log");
    for last in 1..=4 {
        append_to(&mut log, last);
        if last < 4 {
            log.rotate().expect("rotated");
        }
    }
    (log, syncer)
}

fn created(fs: &FaultFs) -> usize {
    fs.trace()
        .iter()
        .filter(|line| line.starts_with("createlog"))
        .count()
}

#[test]
fn two_released_segments_are_kept_and_become_the_next_ones() {
    let fs = FaultFs::new(mem_fs());
    let (mut log, syncer) = four_segments(Arc::new(fs.clone()));
    let kept = syncer.release_below(SegmentId(4));
    assert_eq!(kept, [SegmentId(1), SegmentId(2)]);
    remove(&fs, SegmentId(3));
    let before = created(&fs);
    syncer.prepare().expect("prepared");
    log.rotate().expect("rotated to the prepared one");
    append_to(&mut log, 5);
    log.rotate().expect("rotated without one");
    append_to(&mut log, 6);
    assert_eq!(created(&fs), before, "{:?}", fs.trace());
    assert_eq!(segments(&fs), [4, 5, 6].map(SegmentId));
    let (records, replay) = read_strict(&fs);
    assert_eq!((records, replay.tail), (expected(6)[3..].to_vec(), Tail::Clean));
    log.rotate().expect("rotated to a new one");
    assert_eq!(created(&fs), before + 1);
}

#[test]
fn a_log_that_is_synced_or_has_failed_or_large_records_reuses_nothing() {
    let fs = FaultFs::new(mem_fs());
    let (mut log, syncer) = four_segments(Arc::new(fs.clone()));
    syncer.sync_to(RecordSeq(4)).expect("synced");
    assert_eq!(syncer.release_below(SegmentId(2)), []);
    // Not synced since the next one was begun.
    log.rotate().expect("rotated");
    assert_eq!(syncer.release_below(SegmentId(3)), [SegmentId(2)]);
    append_to(&mut log, 5);
    syncer.sync_to(RecordSeq(5)).expect("synced");
    let before = created(&fs);
    syncer.prepare().expect("prepared");
    assert_eq!(
        created(&fs),
        before + 1,
        "a sync would have had to write all its zeros"
    );
    let before = segments(&fs);
    syncer.remove_reusable().expect("removed");
    let after: Vec<_> = before.iter().filter(|&&id| id != SegmentId(2)).copied().collect();
    assert_eq!((segments(&fs), before.len()), (after.clone(), after.len() + 1));

    log.append(&[&[1; 9000]]).expect("a segment of its own size");
    let (large, _) = *syncer.live_segments().last().expect("live");
    log.rotate().expect("rotated");
    assert!(
        !syncer.release_below(log.segment()).contains(&large),
        "of the usual size only"
    );
    append_to(&mut log, 8);
    log.rotate().expect("rotated");
    fs.inject(Fault {
        nth: 0,
        kinds: Some(vec![OpKind::Write]),
        path_contains: None,
        effect: FaultEffect::Eio,
        repeat: false,
    });
    log.append(&[b"lost"]).expect_err("failed");
    syncer.remove_reusable().expect("removed");
    assert_eq!(
        syncer.release_below(SegmentId(99)),
        [],
        "whose bytes are in doubt"
    );
}

#[test]
fn a_file_that_cannot_be_reused_is_removed_and_a_new_one_made() {
    for effect in [FaultEffect::Eio, FaultEffect::Enospc] {
        let fs = FaultFs::new(mem_fs());
        let (mut log, syncer) = four_segments(Arc::new(fs.clone()));
        release(&fs, &syncer, SegmentId(4));
        fs.inject(Fault {
            nth: 0,
            kinds: Some(vec![OpKind::Reuse]),
            path_contains: None,
            effect,
            repeat: false,
        });
        syncer.prepare().expect("prepared another");
        assert_eq!(
            segments(&fs),
            [1, 4, 5].map(SegmentId),
            "the last one kept was tried"
        );
        append_to(&mut log, 60);
        let live = |id: &SegmentId| *id >= SegmentId(4);
        let ids: Vec<_> = segments(&fs).into_iter().filter(live).collect();
        let replay = replay(&fs, dir(), &ids, TailPolicy::Strict, &mut |_| Ok(())).expect("read");
        assert_eq!(replay.next_sequence, RecordSeq(61));
    }
}

#[test]
fn a_name_that_is_taken_is_not_replaced() {
    let fs = mem_fs();
    let (mut log, syncer) = four_segments(fs.clone());
    release(&*fs, &syncer, SegmentId(4));
    let path = segment_path(dir(), SegmentId(5));
    fs.write_file(&path, b"not ours".to_vec()).expect("written");
    assert_eq!(syncer.prepare().expect_err("taken").kind(), ErrorKind::Io);
    assert_eq!(fs.read_file(&path).expect("read"), b"not ours");
    log.rotate().expect("the id is used up");
}

#[test]
fn leaving_the_log_removes_what_was_kept() {
    let fs = mem_fs();
    let (log, syncer) = four_segments(fs.clone());
    release(&*fs, &syncer, SegmentId(4));
    syncer.prepare().expect("prepared");
    assert_eq!(segments(&*fs), [1, 4, 5].map(SegmentId));
    log.close().expect("closed");
    assert_eq!(segments(&*fs), [SegmentId(4)]);
}

/// What the header of each file says, where that is another segment.
fn earlier_lives(fs: &MemFs) -> usize {
    let is_foreign = |&id: &SegmentId| {
        let bytes = fs.read_file(segment_path(dir(), id)).expect("read");
        let header = bytes[..64].try_into().expect("64 bytes");
        matches!(
            SegmentHeader::decode(header, id),
            Err(HeaderFault::Foreign { .. })
        )
    };
    segments(fs).iter().filter(|id| is_foreign(id)).count()
}

/// Lives with releases, power losses and recoveries in a row. After a power loss a reused file shows its earlier life, in
/// part or as a whole; nothing of that is ever read, and nothing that was synced is missed.
#[test]
fn after_power_loss_nothing_of_a_files_earlier_life_is_read() {
    let (mut reused, mut brought_back, mut torn) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut fs = mem_fs();
        let (mut next_sequence, mut next_segment) = (RecordSeq(1), SegmentId(1));
        // The first segment whose records are nowhere else, and what each segment begins with.
        let mut needed = next_segment;
        let mut firsts = BTreeMap::new();
        for life in 0..5 {
            let what = format!("seed {seed}, life {life}");
            let faults = FaultFs::new(fs.clone());
            let (mut log, syncer) = Log::create(
                Arc::new(faults.clone()),
                dir(),
                next_segment,
                next_sequence,
                small(),
            )
            .expect("a log");
            firsts.insert(next_segment, next_sequence.0);
            for _ in 0..random.below(120) {
                let next = log.next_sequence().0;
                match random.below(12) {
                    0 if random.below(8) == 0 => syncer.sync_to(syncer.appended()).expect("synced"),
                    1 | 2 => syncer.prepare().expect("prepared"),
                    3 if random.below(2) == 0 => {
                        let segment = log.rotate().expect("rotated");
                        firsts.entry(segment).or_insert(next);
                    }
                    4 | 5 => {
                        // (Not one without records: it goes with the one before it.)
                        let begun: Vec<_> = firsts.range(needed..).map(|(id, first)| (*id, *first)).collect();
                        let with_records =
                            |pair: &[(SegmentId, u64)]| (pair[0].1 != pair[1].1).then_some(pair[0].0);
                        let mut choice: Vec<_> = begun.windows(2).filter_map(with_records).collect();
                        choice.extend(begun.last().map(|(id, _)| *id));
                        needed = choice[random.below(choice.len() as u64) as usize];
                        release(&*fs, &syncer, needed);
                    }
                    _ => {
                        append_to(&mut log, next);
                        firsts.entry(log.segment()).or_insert(next);
                    }
                }
            }
            reused += faults
                .trace()
                .iter()
                .filter(|line| line.starts_with("reuse"))
                .count();
            let (synced, appended) = (syncer.synced().0, syncer.appended().0);
            let process_only = random.below(4) == 0;
            fs = Arc::new(if process_only {
                fs.process_crash_clone()
            } else {
                fs.crash_clone(seed * 31 + life)
            });
            brought_back += earlier_lives(&fs);

            let ids: Vec<_> = segments(&*fs).into_iter().filter(|&id| id >= needed).collect();
            assert_eq!(ids.first(), Some(&needed), "{what}");
            let mut records = Vec::new();
            let outcome = replay(&*fs, dir(), &ids, TailPolicy::Strict, &mut |record| {
                records.push((record.sequence.0, record.payload.to_vec()));
                Ok(())
            });
            let replay = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
            let first = firsts[&needed];
            // (Where nothing is left of several segments, it may go on above the first.)
            let recovered = records.last().map_or(first - 1, |(sequence, _)| *sequence);
            let whole: Vec<_> = (first..=recovered)
                .map(|sequence| (sequence, payload(sequence)))
                .collect();
            assert!(records == whole, "{what}: {first}, {replay:?}");
            check_recovered(
                &what,
                &replay,
                recovered,
                synced.max(first - 1)..=appended,
                synced,
                process_only,
            );
            torn += usize::from(replay.tail != Tail::Clean);
            let live = replay
                .segments
                .iter()
                .find(|segment| segment.state == crate::SegmentState::Live);
            (next_sequence, next_segment) = (replay.next_sequence, replay.next_segment);
            needed = live.map_or(next_segment, |segment| segment.id);
            firsts.retain(|id, _| *id >= needed && *id < next_segment);
            for segment in &replay.segments {
                if segment.state != crate::SegmentState::Live {
                    firsts.remove(&segment.id);
                }
            }
        }
    }
    assert!(
        reused > 1000 && brought_back > 100 && torn > 100,
        "too little happens to mean anything: {reused} reused, {brought_back} brought back, {torn} torn"
    );
}
