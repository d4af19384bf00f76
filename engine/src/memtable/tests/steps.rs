//! Any sequence of inserts, reads and steps, on a memtable and on a map.

use proptest::prelude::*;

use super::*;

/// Short keys of few letters behind long common prefixes: they share heads, are prefixes of one another, end in zeros.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![
        Just(&b""[..]),
        Just(&b"user:0000000000"[..]),
        Just(&b"user:0000000001"[..]),
        Just(&b"\0\0\0\0\0\0\0"[..]),
        Just(&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
    ];
    let rest = prop::collection::vec(prop_oneof![Just(0), Just(1), Just(b'7'), Just(0xff)], 0..10);
    (prefix, rest).prop_map(|(prefix, rest)| [prefix, &rest].concat())
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>),
    /// Keys that follow each other, from this one on.
    Run(Vec<u8>, u8),
    Get(Vec<u8>, u16),
    Seek(Vec<u8>, u16),
    SeekForPrev(Vec<u8>, u16),
    Next,
    Prev,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => keys().prop_map(Step::Insert),
        1 => (keys(), 0..40_u8).prop_map(|(key, count)| Step::Run(key, count)),
        2 => (keys(), 0..400_u16).prop_map(|(key, seqno)| Step::Get(key, seqno)),
        1 => (keys(), 0..400_u16).prop_map(|(key, seqno)| Step::Seek(key, seqno)),
        1 => (keys(), 0..400_u16).prop_map(|(key, seqno)| Step::SeekForPrev(key, seqno)),
        2 => Just(Step::Next),
        2 => Just(Step::Prev),
    ];
    prop::collection::vec(step, 1..rounds(400, 40))
}

/// Runs the steps on a memtable and on a map. Steps of the iterator are compared with the map as it was at the last
/// seek: what is inserted since may be met or not, so the memtable's iterator is checked to skip nothing older.
fn follow<const N: usize>(steps: &[Step]) {
    let memtable = new::<N>();
    let mut model = Model::new();
    let mut seqno = 0;
    let mut iter = memtable.iter();
    let mut sought = Model::new();
    for step in steps {
        let mut insert = |key: Vec<u8>| {
            seqno += 1;
            memtable.insert(InternalKey::new(&key, put(seqno)), &key);
            model.insert((key.clone(), Reverse(put(seqno).bits())), key);
        };
        let place =
            |key: &Vec<u8>, seqno: u16| (key.clone(), Reverse(Tag::seek_at(SeqNo(seqno.into())).bits()));
        match step {
            Step::Insert(key) => insert(key.clone()),
            Step::Run(key, count) => (0..*count).for_each(|i| insert([key.as_slice(), &[i]].concat())),
            Step::Get(key, seqno) => {
                let expected = model.range(place(key, *seqno)..).next();
                let expected = expected.filter(|((found, _), _)| found == key);
                let got = memtable.look_up(key, SeqNo(u64::from(*seqno)));
                assert_eq!(
                    got.map(|(tag, value)| (tag.bits(), value)),
                    expected.map(|((_, tag), value)| (tag.0, value.as_slice()))
                );
            }
            Step::Seek(key, seqno) => {
                let tag = Tag::seek_at(SeqNo(u64::from(*seqno)));
                iter.seek(InternalKey::new(key, tag)).unwrap();
                sought.clone_from(&model);
                assert_eq!(entry(&iter), owned(sought.range(place(key, *seqno)..).next()));
            }
            Step::SeekForPrev(key, seqno) => {
                let tag = Tag::seek_at(SeqNo(u64::from(*seqno)));
                iter.seek_for_prev(InternalKey::new(key, tag)).unwrap();
                sought.clone_from(&model);
                assert_eq!(
                    entry(&iter),
                    owned(sought.range(..=place(key, *seqno)).next_back())
                );
            }
            Step::Next | Step::Prev if !iter.valid() => {}
            Step::Next => {
                let at = entry(&iter).unwrap().0;
                iter.next().unwrap();
                let after = (std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded);
                nearest(
                    entry(&iter),
                    sought.range(after.clone()).next(),
                    model.range(after).next(),
                    false,
                );
            }
            Step::Prev => {
                let at = entry(&iter).unwrap().0;
                iter.prev().unwrap();
                let older = sought.range(..at.clone()).next_back();
                nearest(entry(&iter), older, model.range(..at).next_back(), true);
            }
        }
    }
    shapes::check(&memtable);
}

/// `met` is the nearest entry of those at the last seek, or one of those inserted since that is nearer.
fn nearest(
    met: Option<(ModelKey, Vec<u8>)>,
    at_seek: Option<(&ModelKey, &Vec<u8>)>,
    now: Option<(&ModelKey, &Vec<u8>)>,
    backwards: bool,
) {
    let order = |key: &ModelKey| {
        if backwards {
            Err(Reverse(key.clone()))
        } else {
            Ok(key.clone())
        }
    };
    match (met, at_seek, now) {
        (None, at_seek, _) => assert_eq!(at_seek, None),
        (Some(met), at_seek, now) => {
            assert!(
                at_seek.is_none_or(|(key, _)| order(&met.0) <= order(key)),
                "{met:?} is behind {at_seek:?}"
            );
            let now = now.expect("what is met is there");
            assert!(order(&met.0) >= order(now.0), "{met:?} is before {now:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 400 }, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_steps_do_what_a_map_does(steps in steps()) {
        follow::<3>(&steps);
        follow::<SMALL>(&steps);
        follow::<NODE_ENTRIES>(&steps);
    }
}
