//! Blocks against a vector, and parsing of bytes that are no block.

use proptest::prelude::*;

use super::{BlockBuilder, BlockDamage, BlockHeader, encode_lone_head, lone_content_len};
use crate::fixture::{Entry, any_entries, any_key, cases, key_of, model_get};
use crate::format::{BLOCK_FINGERPRINTS, BLOCK_TAG_BASE, BLOCK_UNIFORM, BLOCK_WHOLE, BLOCK_WIDE};
use crate::{InternalKey, SeqNo, Tag, key_hash};

fn encode(entries: &[Entry]) -> Vec<u8> {
    encode_with(entries, usize::MAX)
}

fn encode_with(entries: &[Entry], fingerprints_below: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(fingerprints_below);
    let mut bounded = BlockBuilder::new(fingerprints_below);
    let mut out = vec![0xee; 7];
    for entry in entries {
        let (key, hash) = (key_of(entry), key_hash(&entry.0));
        builder.push(key, hash, &entry.2);
        let len = builder.content_len();
        assert!(!bounded.push_within(len - 1, key, hash, &entry.2));
        assert!(bounded.push_within(len, key, hash, &entry.2));
        assert_eq!(bounded.content_len(), len);
    }
    let limit = builder.content_len();
    builder.encode(&mut out);
    assert!(out.len() <= limit && builder.is_empty());
    let mut same = Vec::new();
    bounded.encode(&mut same);
    assert!(out == same);
    out
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_block_holds_its_entries(
        entries in any_entries(300), others in prop::collection::vec(any_key(), 0..20), searched in any::<bool>(),
    ) {
        let content = encode_with(&entries, if searched { usize::MAX } else { 0 });
        let header = BlockHeader::parse(&content).unwrap();
        prop_assert_eq!(header.count(), entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let raw = header.entry(&content, index).unwrap();
            let key = [&content[header.prefix()], &content[raw.suffix()]].concat();
            prop_assert_eq!((&key, raw.tag, &content[raw.value()]), (&entry.0, entry.1, &entry.2[..]));
            prop_assert_eq!(header.lower_bound(&content, key_of(entry)).unwrap(), index);
        }
        let keys = entries.iter().map(|entry| &entry.0).chain(&others);
        for key in keys {
            for seqno in [SeqNo::ZERO, SeqNo(3), SeqNo::MAX] {
                let found = header.find(&content, key, key_hash(key), seqno).unwrap();
                let expected = model_get(&entries, key, seqno);
                prop_assert_eq!(found.map(|raw| raw.tag), expected.map(|entry| entry.1));
                let target = InternalKey::new(key, Tag::seek_at(seqno));
                let bound = entries.partition_point(|entry| key_of(entry) < target);
                prop_assert_eq!(header.lower_bound(&content, target).unwrap(), bound);
            }
        }
        // Each truncation is refused or its entries lie inside it.
        for cut in [1, 2, 7, content.len() / 2, content.len() - 1] {
            walk(&content[..content.len() - cut.min(content.len())]);
        }
    }

    #[test]
    fn a_lone_entry_has_the_same_bytes(entries in any_entries(2)) {
        let entry = &entries[0];
        let mut content = encode_lone_head(key_of(entry), entry.2.len());
        content.extend_from_slice(&entry.2);
        prop_assert_eq!(content.len(), lone_content_len(key_of(entry), entry.2.len()));
        prop_assert_eq!(content, encode(&entries[..1]));
    }

    #[test]
    fn random_bytes_do_no_harm(
        mut content in prop::collection::vec(any::<u8>(), 16..200), count in 0u32..40, flags in 0u8..32,
        width in 0u8..9, suffix_len in 0u32..9, value_len in 0u32..9,
    ) {
        content[..4].copy_from_slice(&count.to_le_bytes());
        content[5] = 0;
        content[6] = flags;
        let uniform = flags & BLOCK_UNIFORM != 0;
        content[7] = if uniform { width } else { 0 };
        content[8..12].copy_from_slice(&if uniform { suffix_len } else { 0 }.to_le_bytes());
        content[12..16].copy_from_slice(&if uniform { value_len } else { 0 }.to_le_bytes());
        walk(&content);
    }
}

#[test]
fn tags_are_stored_above_the_smallest_one_where_that_is_shorter() {
    use crate::fixture::put;
    // What is stored of each tag, and whether above the block's smallest.
    let stored = |seqnos: &[u64]| {
        let entries: Vec<_> = (0..)
            .zip(seqnos)
            .map(|(n, seqno)| put([n], *seqno, b"v"))
            .collect();
        let content = encode_with(&entries, 0);
        let header = BlockHeader::parse(&content).unwrap();
        for (index, seqno) in seqnos.iter().enumerate() {
            assert_eq!(header.entry(&content, index).unwrap().tag.seqno(), SeqNo(*seqno));
        }
        (content[7], content[6] & BLOCK_TAG_BASE != 0)
    };
    let million = 1 << 20;
    assert_eq!(stored(&[million]), (3, false));
    assert_eq!(stored(&[million; 4]), (3, false), "as long either way");
    assert_eq!(stored(&[million; 5]), (1, true));
    assert_eq!(stored(&[SeqNo::MAX.0, SeqNo::MAX.0 - 1]), (1, true));
    assert_eq!(stored(&[SeqNo::MAX.0; 20]), (1, true));
    let spread = |by: u64| [0, by, 2, 3, 4, 5, 6, 7, 8].map(|above| million + above);
    assert_eq!(stored(&spread(31)), (1, true));
    assert_eq!(stored(&spread(32)), (2, true), "256 above it");
    assert_eq!(stored(&[&spread(32)[..], &[0]].concat()), (3, false));

    let entries: Vec<_> = (0..9).map(|n| put([n], million, b"v")).collect();
    let mut content = encode_with(&entries, 0);
    let base = super::BLOCK_HEADER_BYTES..super::BLOCK_HEADER_BYTES + super::TAG_BASE_BYTES;
    content[base.clone()].fill(0xff);
    content[base.end] = 1;
    let header = BlockHeader::parse(&content).unwrap();
    assert!(
        matches!(header.entry(&content, 0), Err(BlockDamage::Tag(0, u64::MAX))),
        "past the largest number"
    );
    assert!(matches!(
        BlockHeader::parse(&content[..base.end - 1]),
        Err(BlockDamage::Header)
    ));
    let varied = [put("a", million, b"v"), put("b", million, b"longer")];
    let mut content = encode(&varied);
    content[6] |= BLOCK_TAG_BASE;
    assert!(
        matches!(BlockHeader::parse(&content), Err(BlockDamage::Header)),
        "slots and a base exclude each other"
    );
}

/// Reads all there is; must not panic.
fn walk(content: &[u8]) {
    let Ok(header) = BlockHeader::parse(content) else {
        return;
    };
    for index in 0..header.count() {
        if let Ok(raw) = header.entry(content, index) {
            let _ = (&content[raw.suffix()], &content[raw.value()]);
        }
    }
    for key in [&b""[..], b"a", &content[header.prefix()]] {
        let _ = header.lower_bound(content, InternalKey::new(key, Tag::FIRST));
        for hash in 0..=255 {
            let _ = header.find(content, key, hash, SeqNo::MAX);
        }
    }
}

#[test]
fn the_shape_follows_the_entries() {
    use crate::fixture::put;
    let flags = |entries: &[Entry]| encode(entries)[6];
    let same: Vec<_> = (0..9u8).map(|n| put([n; 4], 1, [n; 3])).collect();
    assert_eq!(flags(&same), BLOCK_UNIFORM | BLOCK_FINGERPRINTS);
    assert_eq!(flags(&same[..1]), BLOCK_UNIFORM);
    let mut varied = same.clone();
    varied[4].2.push(1);
    assert_eq!(flags(&varied), BLOCK_FINGERPRINTS);
    varied[4].2.resize(70_000, 1);
    assert_eq!(flags(&varied), BLOCK_FINGERPRINTS | BLOCK_WIDE);
    let many: Vec<_> = (0..257u16).map(|n| put(n.to_be_bytes(), 1, [0; 3])).collect();
    assert_eq!(flags(&many), BLOCK_UNIFORM);
    assert_eq!(flags(&many[..256]), BLOCK_UNIFORM | BLOCK_FINGERPRINTS);
    // Entries that are as long as a hash index asks for.
    let flags = |entries: &[Entry]| encode_with(entries, 7)[6];
    assert_eq!(flags(&same), BLOCK_UNIFORM | BLOCK_WHOLE);
    assert_eq!(flags(&same[..1]), BLOCK_UNIFORM);
    assert_eq!(flags(&varied), BLOCK_WIDE);
    // Slots and whole records exclude each other.
    let mut content = encode(&varied);
    content[6] |= BLOCK_WHOLE;
    assert!(matches!(BlockHeader::parse(&content), Err(BlockDamage::Header)));
}
