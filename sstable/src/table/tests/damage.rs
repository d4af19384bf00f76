//! Tables that are not what was written: by accident, and by malice with the checksums put right again.

use std::sync::Arc;

use proptest::prelude::*;
use siltstone_vfs::{ErrorKind, MapMode};

use crate::fixture::{
    Entry, any_entries, any_options, build, cases, delete, key_of, model_get, open, open_as, open_lazily, put,
};
use crate::format::{
    BLOCK_TRAILER_BYTES, FOOTER_BYTES, Footer, SECTION_ENTRY_BYTES, SECTION_EVEN_INDEX, SECTION_FILTER,
    SECTION_INDEX, SECTION_REQUIRED, Section, checksum, u32_at, u64_at,
};
use crate::{
    BlockKind, Compression, FilterKind, InternalIterator, InternalKey, SeqNo, Table, TableId, TableOptions,
    Tag, key_hash,
};

/// A few blocks of both shapes, some keys with several versions, in less than 3 KiB.
fn small_table(compression: Compression, filter: FilterKind) -> (Vec<Entry>, Vec<u8>) {
    let mut entries = vec![put("", 8, "empty key"), delete("a", 7), put("a", 3, "older")];
    entries.extend((0..12).map(|n| put(format!("uniform/{n:02}"), 5_000_000, [b'v'; 30])));
    entries.extend((0..6).map(|n| {
        put(
            format!("varied/{n:02}"),
            n + 1,
            vec![b'w'; 20 + usize::try_from(n).unwrap()],
        )
    }));
    entries.push(put("z", 1, vec![b'z'; 600]));
    let (bytes, _) = build(
        &entries,
        TableOptions {
            block_size_bytes: 512,
            compression,
            filter,
        },
    );
    (entries, bytes)
}

/// Four blocks of one length, but for the last, in less than 3 KiB.
fn even_table() -> (Vec<Entry>, Vec<u8>) {
    let entries: Vec<Entry> = (b'a'..b's')
        .map(|n| put([b'k', n], 5_000_000, [b'v'; 90]))
        .collect();
    let options = TableOptions {
        block_size_bytes: 512,
        ..TableOptions::default()
    };
    let (bytes, _) = build(&entries, options);
    (entries, bytes)
}

#[test]
fn blocks_of_one_length_have_no_offsets() {
    let (_, bytes) = even_table();
    let table = open(&bytes, MapMode::Map).unwrap();
    let kinds: Vec<u32> = table.sections.iter().map(|section| section.kind).collect();
    assert!(
        kinds.contains(&SECTION_EVEN_INDEX) && !kinds.contains(&SECTION_INDEX),
        "{kinds:x?}"
    );
    let blocks = block_ranges(&bytes);
    assert!(
        blocks.len() == 4 && blocks[..3].iter().all(|block| block.len() == blocks[0].len()),
        "{blocks:?}"
    );
}

pub(super) fn variants() -> Vec<(Vec<Entry>, Vec<u8>)> {
    let bits_per_key = 10;
    let mut all = vec![small_table(
        Compression::None,
        FilterKind::Blocked { bits_per_key },
    )];
    all.push(small_table(Compression::None, FilterKind::HashIndex));
    all.push(even_table());
    if !cfg!(miri) {
        all.push(small_table(
            Compression::Zstd { level: 1 },
            FilterKind::Standard { bits_per_key },
        ));
        all.push(small_table(Compression::None, FilterKind::None));
    }
    all
}

/// Under miri a few positions stand for all.
fn stride() -> usize {
    if cfg!(miri) { 499 } else { 1 }
}

/// Every answer is right or an error.
fn check_answers(table: &Table, entries: &[Entry]) {
    for (key, tag, _) in entries {
        for seqno in [tag.seqno(), SeqNo::MAX, SeqNo(tag.seqno().0.saturating_sub(1))] {
            if let Ok(found) = table.get(key, key_hash(key), seqno) {
                let expected = model_get(entries, key, seqno);
                assert_eq!(found.is_some(), expected.is_some(), "{}", key.escape_ascii());
                if let (Some(found), Some(expected)) = (found, expected) {
                    assert_eq!((found.tag, &*found.value), (expected.1, &expected.2[..]));
                }
            }
        }
    }
}

/// All versions of all keys are found, and no others.
pub(super) fn check_all_answers(table: &Table, entries: &[Entry]) {
    for (key, tag, _) in entries {
        let found = table.get(key, key_hash(key), tag.seqno()).unwrap().unwrap();
        let expected = model_get(entries, key, tag.seqno()).unwrap();
        assert_eq!((found.tag, &*found.value), (expected.1, &expected.2[..]));
    }
    assert!(
        table
            .get(b"nowhere", key_hash(b"nowhere"), SeqNo::MAX)
            .unwrap()
            .is_none()
    );
}

#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    for (entries, bytes) in variants() {
        for at in (0..bytes.len()).step_by(stride()) {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                for mode in [MapMode::Map, MapMode::Read] {
                    let Ok(table) = open_lazily(&damaged, mode).map(Arc::new) else {
                        continue;
                    };
                    // In one mode after the filter has been found sound or not, in the other one without.
                    let _ = (mode == MapMode::Map).then(|| table.load());
                    check_answers(&table, &entries);
                    let mut iter = table.iter();
                    let mut at_entry = 0;
                    let mut moved = iter.seek_to_first();
                    while moved.is_ok() && iter.valid() {
                        assert_eq!(
                            (iter.key(), iter.value()),
                            (key_of(&entries[at_entry]), &entries[at_entry].2[..])
                        );
                        at_entry += 1;
                        moved = iter.next();
                    }
                    assert!(
                        moved.is_err() || at_entry == entries.len(),
                        "byte {at}: the scan ended early"
                    );
                    let error = table.verify().expect_err("every byte is covered by a check");
                    assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}: {error}");
                    assert!(
                        error.path().is_some() && error.offset().is_some(),
                        "byte {at}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_damaged_block_fails_its_own_reads_only() {
    let (entries, mut bytes) = small_table(Compression::None, FilterKind::None);
    bytes[20] ^= 1;
    let table = open(&bytes, MapMode::Map).unwrap();
    let first = table.get(b"", key_hash(b""), SeqNo::MAX).unwrap_err();
    assert_eq!((first.kind(), first.offset()), (ErrorKind::Corruption, Some(0)));
    // Again: a block that failed is never remembered as verified.
    assert!(table.get(b"", key_hash(b""), SeqNo::MAX).is_err());
    assert_eq!(
        *table
            .get(b"z", key_hash(b"z"), SeqNo::MAX)
            .unwrap()
            .unwrap()
            .value,
        [b'z'; 600]
    );
    let mut iter = table.iter();
    assert!(iter.seek_to_first().is_err() && !iter.valid());
    iter.seek_to_last().unwrap();
    assert_eq!(iter.key(), key_of(entries.last().unwrap()));
}

#[test]
fn every_truncation_is_refused() {
    for (_, bytes) in variants() {
        for len in (0..bytes.len()).step_by(stride()) {
            for mode in [MapMode::Map, MapMode::Read] {
                let error = open(&bytes[..len], mode).expect_err("a truncated table");
                assert_eq!(error.kind(), ErrorKind::Corruption, "{len} bytes: {error}");
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(open(&longer, MapMode::Map).is_err());
    }
}

/// Where the data blocks of a sound table lie.
fn block_ranges(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let table = open(bytes, MapMode::Map).unwrap();
    let parts = table.layout().unwrap();
    let data = parts.iter().filter(|part| part.kind == BlockKind::Data);
    data.map(|part| part.offset as usize..(part.offset + part.stored_bytes) as usize)
        .collect()
}

/// Puts every checksum right, as somebody would who wants to be believed. `blocks` is where the data blocks were.
fn reseal(bytes: &mut [u8], blocks: &[std::ops::Range<usize>]) {
    for block in blocks {
        let sum = checksum(&bytes[block.start..block.end - 8]);
        bytes[block.end - 8..block.end].copy_from_slice(&sum.to_le_bytes());
    }
    let footer = bytes.len() - FOOTER_BYTES;
    let word = |bytes: &[u8], at| u64_at(bytes, at).unwrap() as usize;
    let directory = word(bytes, footer);
    if directory < footer {
        for entry in (directory..footer - SECTION_ENTRY_BYTES + 1).step_by(SECTION_ENTRY_BYTES) {
            let (start, len) = (word(bytes, entry + 4), word(bytes, entry + 12));
            if let Some(section) = bytes.get(start..start.saturating_add(len)) {
                let sum = checksum(section);
                bytes[entry + 20..entry + 28].copy_from_slice(&sum.to_le_bytes());
            }
        }
        let len = word(bytes, footer + 8);
        if let Some(section) = bytes.get(directory..directory.saturating_add(len)) {
            let sum = checksum(section);
            bytes[footer + 16..footer + 24].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let sum = checksum(&bytes[footer..footer + 48]);
    bytes[footer + 48..footer + 56].copy_from_slice(&sum.to_le_bytes());
}

/// Blocks that are all a page are not compared one by one; where the last one ends is the one place that can still be wrong.
#[test]
fn the_last_block_of_many_pages_ends_behind_its_start() {
    let key = |n: u32| format!("{n:016}").into_bytes();
    let entries: Vec<Entry> = (0..200).map(|n| put(key(n), 1, [7; 100])).collect();
    let (bytes, _) = build(&entries, TableOptions::default());
    let blocks = block_ranges(&bytes);
    let (last, whole) = blocks.split_last().unwrap();
    assert!(
        whole.len() > 2 && whole.iter().all(|block| block.len() == 4096),
        "{blocks:?}"
    );
    // Behind the data the index is the first to say where it ends.
    let end = (last.end as u64).to_le_bytes();
    let at = last.end + bytes[last.end..].windows(8).position(|word| word == end).unwrap();
    for (end, told) in [
        (last.start - 4096, "last block ends before it starts"),
        (last.start, "last block ends before it starts"),
        (last.start + 1, "has 1 bytes"),
        (last.start + BLOCK_TRAILER_BYTES + 3, "has 19 bytes"),
    ] {
        let mut hostile = bytes.clone();
        hostile[at..at + 8].copy_from_slice(&(end as u64).to_le_bytes());
        reseal(&mut hostile, &blocks);
        let error = open(&hostile, MapMode::Map).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(told), "{end}: {error}");
    }
}

#[test]
fn a_stride_is_said_of_even_blocks_only() {
    let plain = small_table(Compression::None, FilterKind::HashIndex).1;
    for (bytes, stride, told) in [
        (plain, 7, "reserved bytes that are not zero"),
        (even_table().1, 0, "blocks of no length"),
    ] {
        let blocks = block_ranges(&bytes);
        let data_end = blocks.last().unwrap().end;
        let index = data_end.next_multiple_of(64);
        assert_eq!(u32_at(&bytes, index).unwrap() as usize, blocks.len());
        let mut hostile = bytes.clone();
        hostile[index + 12..index + 16].copy_from_slice(&u32::to_le_bytes(stride));
        reseal(&mut hostile, &blocks);
        let error = open(&hostile, MapMode::Map).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Corruption && error.to_string().contains(told),
            "{error}"
        );
    }
}

/// Reads everything in every way. Nothing may panic, loop or read outside; and a table that `verify` passes must agree
/// with itself.
fn exercise(bytes: &[u8], keys: &[Entry]) {
    for mode in [MapMode::Map, MapMode::Read] {
        let Ok(table) = open_lazily(bytes, mode).map(Arc::new) else {
            continue;
        };
        let sound = table.verify().is_ok();
        let _ = table.layout();
        let _ = table.dividing_keys(3);
        for (key, tag, _) in keys {
            let _ = table.get(key, key_hash(key), tag.seqno());
            let _ = table.approximate_bytes_before(key);
        }
        let mut iter = table.iter();
        let mut scanned: Vec<Entry> = Vec::new();
        let mut moved = iter.seek_to_first();
        while moved.is_ok() && iter.valid() {
            scanned.push((iter.user_key().to_vec(), iter.tag(), iter.value().to_vec()));
            moved = iter.next();
        }
        assert!(scanned.len() <= bytes.len(), "an entry takes at least a byte");
        if sound {
            moved.unwrap();
            assert!(scanned.is_sorted_by(|a, b| key_of(a) < key_of(b)));
            check_answers(&table, &scanned);
        }
        let mut moved = iter.seek_to_last();
        while moved.is_ok() && iter.valid() {
            let _ = (iter.key(), iter.value().len());
            moved = iter.prev();
        }
        for (key, tag, _) in keys {
            for target in [InternalKey::new(key, *tag), InternalKey::new(key, Tag::LAST)] {
                if iter.seek(target).is_ok() && iter.valid() {
                    let _ = (iter.key(), iter.value().len());
                }
                if iter.seek_for_prev(target).is_ok() && iter.valid() {
                    let _ = (iter.key(), iter.value().len());
                }
            }
        }
    }
}

#[test]
fn every_hostile_byte_behind_good_checksums() {
    for (entries, bytes) in variants() {
        let blocks = block_ranges(&bytes);
        for at in (0..bytes.len()).step_by(stride()) {
            let values = [
                0,
                0xff,
                1,
                0x7f,
                0x80,
                bytes[at].wrapping_add(1),
                bytes[at].wrapping_sub(1),
            ];
            for &value in &values[..if cfg!(miri) { 1 } else { values.len() }] {
                let mut hostile = bytes.clone();
                hostile[at] = value;
                reseal(&mut hostile, &blocks);
                exercise(&hostile, &entries);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn hostile_words_behind_good_checksums(
        which in 0usize..3,
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                Just(0u64), Just(u64::MAX), Just(u64::MAX / 2), Just(1 << 31), Just(u64::from(u32::MAX)), any::<u64>(), 0u64..5000,
            ], 1usize..=8),
            1..4,
        ),
    ) {
        let all = variants();
        let (entries, bytes) = &all[which % all.len()];
        let blocks = block_ranges(bytes);
        let mut hostile = bytes.clone();
        for (at, word, width) in words {
            let at = at.index(hostile.len() - 8);
            hostile[at..at + width].copy_from_slice(&word.to_le_bytes()[..width]);
        }
        reseal(&mut hostile, &blocks);
        exercise(&hostile, entries);
    }

    #[test]
    fn random_tables_with_a_flipped_bit(
        entries in any_entries(60), options in any_options(), at in any::<prop::sample::Index>(), bit in 0u32..8,
    ) {
        let (mut bytes, _) = build(&entries, options);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(table) = open(&bytes, MapMode::Map) {
            check_answers(&table, &entries);
            prop_assert!(table.verify().is_err());
        }
    }
}

pub(super) fn footer_of(bytes: &[u8]) -> (usize, Footer, Vec<Section>) {
    let at = bytes.len() - FOOTER_BYTES;
    let path = std::path::Path::new("/t");
    let footer = Footer::decode(bytes[at..].first_chunk().unwrap(), path, bytes.len() as u64).unwrap();
    let directory = &bytes[footer.directory_offset as usize..at];
    let sections = Section::decode_all(directory, &footer, path).unwrap();
    (at, footer, sections)
}

/// The table with one more section.
fn with_section(bytes: &[u8], kind: u32) -> Vec<u8> {
    let (_, footer, mut sections) = footer_of(bytes);
    let mut out = bytes[..footer.directory_offset as usize].to_vec();
    out.resize(out.len().next_multiple_of(64), 0);
    sections.push(Section {
        kind,
        offset: out.len() as u64,
        len: 5,
        checksum: checksum(b"extra"),
    });
    out.extend_from_slice(b"extra");
    let directory_offset = out.len() as u64;
    let mut directory = Vec::new();
    sections.iter().for_each(|section| section.encode(&mut directory));
    out.extend_from_slice(&directory);
    let footer = Footer {
        table_id: 0,
        directory_offset,
        directory_len: directory.len() as u64,
        directory_checksum: checksum(&directory),
        file_len: (out.len() + FOOTER_BYTES) as u64,
    };
    out.extend_from_slice(&footer.encode());
    out
}

#[test]
fn a_table_is_not_opened_as_another_one() {
    let (_, bytes) = small_table(Compression::None, FilterKind::default());
    open_as(&bytes, TableId(1)).unwrap();
    open_as(&bytes, TableId(0)).unwrap();
    let error = open_as(&bytes, TableId(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(
        error.to_string().contains("it is 000001, expected 000002"),
        "{error}"
    );
}

#[test]
fn a_section_from_the_future_is_ignored_unless_it_must_be_understood() {
    let (entries, bytes) = small_table(Compression::None, FilterKind::default());
    let table = open(&with_section(&bytes, 77), MapMode::Map).unwrap();
    check_answers(&table, &entries);
    table.verify().unwrap();
    assert!(
        table
            .layout()
            .unwrap()
            .iter()
            .any(|part| part.kind == BlockKind::Unknown(77))
    );
    let error = open(&with_section(&bytes, SECTION_REQUIRED | 77), MapMode::Map).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let twice = open(&with_section(&bytes, SECTION_FILTER), MapMode::Map).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Corruption, "{twice}");
}

#[test]
fn another_format_version_is_unsupported_not_corrupt() {
    let (_, mut bytes) = small_table(Compression::None, FilterKind::None);
    let at = bytes.len() - FOOTER_BYTES + 40;
    bytes[at] = 2;
    reseal(&mut bytes, &[]);
    assert_eq!(
        open(&bytes, MapMode::Map).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn a_filter_of_an_unknown_kind_is_ignored() {
    let (entries, mut bytes) = small_table(Compression::None, FilterKind::default());
    let (_, _, sections) = footer_of(&bytes);
    let filter = sections
        .iter()
        .find(|section| section.kind == SECTION_FILTER)
        .unwrap();
    bytes[filter.offset as usize] = 200;
    reseal(&mut bytes, &[]);
    let table = open(&bytes, MapMode::Map).unwrap();
    assert!(table.may_contain(12345));
    check_answers(&table, &entries);
}

#[test]
fn a_reserved_value_kind_is_unsupported() {
    let (bytes, _) = build(&[put("k", 0, "v")], TableOptions::default());
    let blocks = block_ranges(&bytes);
    // Header, prefix "k", then the packed tag.
    let tag_at = 17;
    assert_eq!(bytes[tag_at], 1);
    for (packed, kind) in [
        (3, ErrorKind::Unsupported),
        (7, ErrorKind::Unsupported),
        (0, ErrorKind::Corruption),
    ] {
        let mut changed = bytes.clone();
        changed[tag_at] = packed;
        reseal(&mut changed, &blocks);
        let table = open(&changed, MapMode::Map).unwrap();
        assert_eq!(
            table.get(b"k", key_hash(b"k"), SeqNo(9)).unwrap_err().kind(),
            kind
        );
        assert_eq!(table.iter().seek_to_first().unwrap_err().kind(), kind);
        assert_eq!(table.verify().unwrap_err().kind(), kind);
    }
}

#[test]
#[cfg(not(miri))]
fn a_block_cannot_claim_more_than_its_bytes_can_stand_for() {
    let value = vec![0; 1 << 20];
    let options = TableOptions {
        compression: Compression::Zstd { level: 1 },
        ..TableOptions::default()
    };
    let (mut bytes, _) = build(&[put("k", 1, value)], options);
    let blocks = block_ranges(&bytes);
    let raw_len_at = blocks[0].end - BLOCK_TRAILER_BYTES + 4;
    assert!(
        u32_at(&bytes, raw_len_at).unwrap() > 1 << 20,
        "the block was compressed"
    );
    bytes[raw_len_at..raw_len_at + 4].copy_from_slice(&(1u32 << 30).to_le_bytes());
    reseal(&mut bytes, &blocks);
    let table = open(&bytes, MapMode::Map).unwrap();
    let error = table.get(b"k", key_hash(b"k"), SeqNo(9)).unwrap_err();
    assert!(error.to_string().contains("claims"), "{error}");
}
