#![allow(clippy::cast_possible_truncation)] // counts of a test are small
//! No false negatives, few false positives, no trust in headers.

use std::path::Path;

use proptest::prelude::*;
use siltstone_vfs::{Fs, MapMode, Mapping, MemFs};

use super::{Filter, FilterBuilder, Place, key_hash};
use crate::FilterKind;
use crate::fixture::cases;
use crate::table::SectionBytes;

/// Any mapping: copied sections do not look at it.
fn mapping() -> Mapping {
    let fs = MemFs::new();
    let dir = Path::new("/filters");
    fs.create_dir_all(dir).unwrap();
    let path = dir.join("000001.sst");
    fs.create(&path).unwrap().append(b"x").unwrap();
    fs.open_table(&path, &fs.lock_dir(dir).unwrap(), MapMode::Read)
        .unwrap()
}

fn reopen(bytes: Vec<u8>, mapping: &Mapping) -> siltstone_vfs::Result<Filter> {
    Filter::open(SectionBytes::Copied(bytes.into()), mapping, 0)
}

fn kinds(bits_per_key: u32) -> [FilterKind; 3] {
    [
        FilterKind::Standard { bits_per_key },
        FilterKind::Blocked { bits_per_key },
        FilterKind::HashIndex,
    ]
}

/// The place that `build` gives to key `number`.
fn place(number: usize) -> Place {
    Place::new(number / 20, number % 20)
}

/// The section of a table with keys of these hashes.
fn build(kind: FilterKind, hashes: &[u64]) -> Option<Vec<u8>> {
    let mut builder = FilterBuilder::new(kind, false);
    for (number, &hash) in hashes.iter().enumerate() {
        builder.push(hash, place(number));
    }
    let entries = hashes.len() as u64;
    let foreseen = builder.size_bytes(entries, entries * 100);
    let bytes = builder.finish(entries, entries * 100)?;
    assert!(bytes.len() as u64 <= foreseen + 128, "{kind:?}");
    Some(bytes)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_key_passes(hashes in prop::collection::vec(any::<u64>(), 0..500), bits_per_key in 1u32..=64) {
        let mapping = mapping();
        for kind in kinds(bits_per_key) {
            let filter = reopen(build(kind, &hashes).unwrap(), &mapping).unwrap();
            for &hash in &hashes {
                prop_assert!(filter.may_contain(&mapping, hash), "{:?} lost {:x}", kind, hash);
            }
        }
    }
}

#[test]
fn false_positives_stay_near_one_in_a_hundred_at_ten_bits() {
    let count = if cfg!(miri) { 200 } else { 100_000u32 };
    let mapping = mapping();
    let hash = |n: u32| key_hash(&n.to_le_bytes());
    let hashes: Vec<u64> = (0..count).map(hash).collect();
    for kind in kinds(10) {
        let filter = reopen(build(kind, &hashes).unwrap(), &mapping).unwrap();
        let passed = (count..2 * count)
            .filter(|&n| filter.may_contain(&mapping, hash(n)))
            .count() as u32;
        assert!(
            passed * 1000 / count <= if cfg!(miri) { 60 } else { 16 },
            "{kind:?}: {passed} of {count}"
        );
    }
}

/// Every header byte at telling values, and every length: refused, or still answers.
#[test]
fn hostile_headers_do_no_harm() {
    let mapping = mapping();
    let hashes: Vec<u64> = (0..20u32).map(|n| key_hash(&n.to_le_bytes())).collect();
    // Any answer will do, as long as there is one.
    let probe_all = |filter: &Filter| {
        assert!(
            hashes
                .iter()
                .filter(|&&hash| filter.may_contain(&mapping, hash))
                .count()
                <= hashes.len()
        );
    };
    for kind in kinds(10) {
        let bytes = build(kind, &hashes).unwrap();
        for at in 0..bytes.len().min(64 + 45) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut hostile = bytes.clone();
                hostile[at] = value;
                if let Ok(filter) = reopen(hostile, &mapping) {
                    probe_all(&filter);
                }
            }
        }
        for len in 0..bytes.len() {
            let mut short = bytes[..len].to_vec();
            if len >= 64 {
                short[16..24].copy_from_slice(&(len as u64 - 64).to_le_bytes());
            }
            assert!(len >= 64 || reopen(short.clone(), &mapping).is_err());
            if let Ok(filter) = reopen(short, &mapping) {
                probe_all(&filter);
            }
        }
    }
}

#[test]
fn the_standard_filter_refuses_what_would_hang_or_divide_by_zero() {
    let mapping = mapping();
    let bytes = build(FilterKind::Standard { bits_per_key: 10 }, &[1, 2, 3]).unwrap();
    // The number of probes, in our header and in the crate's.
    for probes in [0u32, 65, u32::MAX] {
        let mut hostile = bytes.clone();
        hostile[4..8].copy_from_slice(&probes.to_le_bytes());
        hostile[64 + 9..64 + 13].copy_from_slice(&probes.to_le_bytes());
        assert!(reopen(hostile, &mapping).is_err(), "{probes} probes");
    }
    // No bits at all.
    let mut hostile = bytes[..64 + 45].to_vec();
    hostile[16..24].copy_from_slice(&45u64.to_le_bytes());
    hostile[64 + 1..64 + 9].copy_from_slice(&0u64.to_le_bytes());
    assert!(reopen(hostile, &mapping).is_err());
    // Seed halves that are equal.
    let mut hostile = bytes;
    hostile.copy_within(64 + 13..64 + 29, 64 + 29);
    assert!(reopen(hostile, &mapping).is_err());
}

fn found(filter: &Filter, mapping: &Mapping, hash: u64) -> Vec<Place> {
    let Filter::HashIndex(hashed) = filter else {
        panic!("{filter:?} is no hash index");
    };
    let mut probe = hashed.probe(hash);
    std::iter::from_fn(|| hashed.next(&mut probe, mapping)).collect()
}

proptest! {
    #![proptest_config(cases(64))]

    /// Many keys with equal hashes overflow their bucket, and the last buckets into the first.
    #[test]
    fn a_hash_index_leads_to_every_place(
        hashes in prop::collection::vec(
            prop_oneof![any::<u64>(), Just(u64::MAX), Just(0), (0u64..4).prop_map(|n| u64::MAX - n)],
            1..400,
        ),
    ) {
        let mapping = mapping();
        let filter = reopen(build(FilterKind::HashIndex, &hashes).unwrap(), &mapping).unwrap();
        for (number, &hash) in hashes.iter().enumerate() {
            prop_assert!(found(&filter, &mapping, hash).contains(&place(number)), "lost {number}");
        }
        let Filter::HashIndex(hashed) = &filter else { unreachable!() };
        prop_assert_eq!(hashed.words(&mapping), hashes.len() as u64);
    }
}

#[test]
fn places_that_do_not_fit_into_a_word_get_a_blocked_filter() {
    for (block, kind) in [((1 << 14) - 1, 3), (1 << 14, 2)] {
        let mut builder = FilterBuilder::new(FilterKind::HashIndex, false);
        builder.push(1, Place::new(block, 1023));
        assert_eq!(builder.finish(1, 100).unwrap()[0], kind);
    }
}

#[test]
fn auto_asks_whether_entries_are_worth_a_hash_index() {
    for (compressed, entry_bytes, kind) in [(false, 63, 2), (false, 64, 3), (true, 127, 2), (true, 128, 3)] {
        let mut builder = FilterBuilder::new(FilterKind::Auto, compressed);
        (0..10).for_each(|number| builder.push(number, place(0)));
        assert_eq!(builder.finish(10, 10 * entry_bytes).unwrap()[0], kind);
    }
}

#[test]
fn numbers_on_disk_never_change() {
    let numbers = kinds(10).map(|kind| build(kind, &[7]).unwrap()[0]);
    assert_eq!(numbers, [1, 2, 3]);
    assert!(build(FilterKind::None, &[7]).is_none());
}

/// A full index in which a search would go round for ever if it did not count.
#[test]
fn a_search_in_a_hostile_index_ends() {
    let mapping = mapping();
    let mut bytes = build(FilterKind::HashIndex, &[1; 30]).unwrap();
    bytes[64..].fill(0xff);
    let filter = reopen(bytes, &mapping).unwrap();
    assert!(found(&filter, &mapping, 2).is_empty());
    assert_eq!(found(&filter, &mapping, u64::MAX).len(), 3 * 15);
}
