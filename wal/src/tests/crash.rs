use super::*;
use crate::Tail;

/// Lives, power losses and recoveries in a row: each recovers a prefix that contains everything synced, and the next
/// life goes on from there.
#[test]
fn after_power_loss_a_prefix_with_everything_synced_is_read() {
    let (mut torn, mut closed, mut closed_read) = (0, 0, 0);
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let mut fs = mem_fs();
        let mut next_sequence = RecordSeq(1);
        let mut next_segment = SegmentId(1);
        let mut settled = false;
        for life in 0..5 {
            // What a closed log has synced is durable without being synced again.
            let open = if settled { Log::create_unbegun } else { Log::create };
            let (mut log, syncer) =
                open(fs.clone(), dir(), next_segment, next_sequence, small()).expect("a log");
            let steps = random.below(60);
            for _ in 0..steps {
                match random.below(12) {
                    0 => syncer.sync_to(syncer.appended()).expect("synced"),
                    1 => log.note_synced().expect("noted"),
                    2 => syncer.prepare().expect("prepared"),
                    3 if random.below(4) == 0 => drop(log.rotate().expect("rotated")),
                    _ => {
                        let next = log.next_sequence().0;
                        append_to(&mut log, next);
                    }
                }
            }
            let (synced, appended) = (syncer.synced().0, syncer.appended().0);
            if random.below(3) == 0 {
                log.close().expect("closed");
                closed += 1;
            }
            let process_only = random.below(4) == 0;
            let crashed = if process_only {
                fs.process_crash_clone()
            } else {
                fs.crash_clone(seed * 31 + life)
            };
            fs = Arc::new(crashed);
            let what = format!("seed {seed}, life {life}");
            let (records, outcome) = read(&*fs, TailPolicy::Strict);
            let replay = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
            let recovered = replay.next_sequence.0 - 1;
            assert_eq!(records, expected(recovered), "{what}");
            check_recovered(&what, &replay, recovered, synced..=appended, synced, process_only);
            settled = replay.closed && replay.synced == replay.next_sequence.previous();
            closed_read += usize::from(replay.closed);
            torn += usize::from(replay.tail != Tail::Clean);
            next_sequence = replay.next_sequence;
            next_segment = replay.next_segment;
        }
    }
    assert!(
        torn > 100,
        "the matrix tears too few tails to mean anything: {torn}"
    );
    assert!(
        closed > closed_read && closed_read > 100,
        "the matrix loses too few closing records, or too many: {closed_read} of {closed} were read"
    );
}

/// What was recovered from the page cache after the death of a process counts as durable once a later record does.
#[test]
fn a_sync_covers_what_an_earlier_process_left_unsynced() {
    for seed in 0..100 {
        let fs = mem_fs();
        let (mut log, syncer) = create(&fs);
        append_to(&mut log, 20);
        drop((log, syncer));
        // The process is gone, and its pages are still not on the disk.
        let replay = read_strict(&*fs).1;
        let (mut log, syncer) = Log::create(
            fs.clone(),
            dir(),
            replay.next_segment,
            replay.next_sequence,
            small(),
        )
        .expect("a log");
        append_to(&mut log, 21);
        syncer.sync_to(RecordSeq(21)).expect("synced");
        assert_eq!(read_strict(&fs.crash_clone(seed)).0, expected(21), "seed {seed}");
    }
}

/// The process dies in the middle of an append: any prefix of the record's bytes may be there.
#[test]
fn a_record_cut_at_any_byte_is_a_torn_tail() {
    let fs = mem_fs();
    let (mut log, _syncer) = create(&fs);
    append_to(&mut log, 3);
    let path = segment_path(dir(), SegmentId(1));
    let before = fs.read_file(&path).expect("read");
    append_to(&mut log, 4);
    let after = fs.read_file(&path).expect("read");
    let end = after.iter().rposition(|&byte| byte != 0).expect("written") + 1;
    let begin = before
        .iter()
        .zip(&after)
        .position(|(old, new)| old != new)
        .expect("appended")
        & !7;
    for cut in begin..end {
        let mut bytes = before.clone();
        bytes[begin..cut].copy_from_slice(&after[begin..cut]);
        fs.write_file(&path, bytes).expect("written");
        let (records, replay) = read_strict(&*fs);
        assert_eq!(
            (records, replay.next_sequence),
            (expected(3), RecordSeq(4)),
            "{cut}"
        );
        match replay.tail {
            Tail::Clean => assert_eq!(cut, begin),
            Tail::Torn {
                segment,
                offset,
                bytes,
                ..
            } => {
                assert_eq!((segment, offset, bytes > 0), (SegmentId(1), begin as u64, true));
            }
            other => panic!("{other:?}"),
        }
    }
}
