//! The search by heads of uniform blocks against a search over the keys.

use proptest::prelude::*;

use super::{BlockBuilder, BlockHeader, Shape};
use crate::fixture::{Entry, cases, key_of, put, sorted};
use crate::{InternalKey, SeqNo, Tag, key_hash};

/// Few bytes, the extreme ones among them, so that heads and whole keys are often equal.
fn any_bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], len)
}

/// With values behind their keys, or apart from them.
fn encode(entries: &[Entry], whole: bool) -> Vec<u8> {
    let mut builder = BlockBuilder::new(if whole { 0 } else { usize::MAX });
    for entry in entries {
        builder.push(key_of(entry), key_hash(&entry.0), &entry.2);
    }
    let mut content = Vec::new();
    builder.encode(&mut content);
    content
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn agrees_with_a_search_over_the_keys(
        prefix in any_bytes(0..4), key_len in 1usize..14, value_len in 0usize..12,
        keys in prop::collection::vec((any_bytes(14..15), 0u64..4), 1..60),
        wanted in prop::collection::vec((any_bytes(0..16), 0u64..5), 0..40), whole in any::<bool>(),
    ) {
        // Keys of one length that begin alike up to their last bytes, so that only these tell them apart.
        let key = |tail: &[u8]| [&prefix, &[7; 14][..key_len.saturating_sub(3)], &tail[..key_len.min(3)]].concat();
        let alike: Vec<Entry> = keys.iter().map(|(tail, seqno)| put(key(tail), *seqno, vec![5; value_len])).collect();
        let mixed: Vec<Entry> =
            keys.iter().map(|(tail, seqno)| put(&tail[..key_len], *seqno, vec![5; value_len])).collect();
        for (entries, whole) in [(sorted(alike), whole), (sorted(mixed), whole)] {
            let content = encode(&entries, whole);
            let header = BlockHeader::parse(&content).unwrap();
            let uniform = matches!(header.shape, Shape::Uniform { .. });
            prop_assert_eq!(uniform, header.uniform_end().is_some());
            let targets = wanted.iter().flat_map(|(bytes, seqno)| {
                let tail = [&bytes[..], &[0; 3]].concat();
                [(bytes.clone(), *seqno), (key(&tail), *seqno), ([&prefix[..], bytes].concat(), *seqno)]
            });
            let own = entries.iter().map(|entry| (entry.0.clone(), entry.1.seqno().0));
            for (user_key, seqno) in targets.chain(own) {
                for tag in [Tag::seek_at(SeqNo(seqno)), Tag::FIRST, Tag::LAST] {
                    let target = InternalKey::new(&user_key, tag);
                    let expected = entries.partition_point(|entry| key_of(entry) < target);
                    prop_assert_eq!(header.lower_bound(&content, target).unwrap(), expected, "{:?}", target);
                }
            }
            for (index, entry) in entries.iter().enumerate() {
                let suffix = header.suffix(&content, index).unwrap();
                prop_assert_eq!([&content[header.prefix()], &content[suffix]].concat(), &entry.0[..]);
            }
        }
    }
}
