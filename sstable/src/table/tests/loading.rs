//! Index and filter, which an open leaves to the first read: sound or damaged, before and after they are loaded.

use std::sync::{Arc, Barrier};

use siltstone_vfs::{ErrorKind, MapMode};

use super::damage::{check_all_answers, footer_of, variants};
use crate::fixture::{open, open_lazily};
use crate::format::{SECTION_EVEN_INDEX, SECTION_FILTER, SECTION_INDEX, Section};
use crate::{InternalIterator, InternalKey, key_hash};

#[test]
fn a_filter_that_is_not_known_to_be_sound_is_not_asked() {
    for (entries, bytes) in variants() {
        let (_, _, sections) = footer_of(&bytes);
        let Some(filter) = sections.iter().find(|section| section.kind == SECTION_FILTER) else {
            continue;
        };
        let mut damaged = bytes.clone();
        let payload = crate::format::index(filter.offset) + crate::format::FILTER_HEADER_BYTES;
        let end = crate::format::index(filter.offset + filter.len);
        damaged[payload..end].iter_mut().for_each(|byte| *byte = 0);
        for mode in [MapMode::Map, MapMode::Read] {
            assert_eq!(open(&damaged, mode).unwrap_err().kind(), ErrorKind::Corruption);
            let table = open_lazily(&damaged, mode).unwrap();
            check_all_answers(&table, &entries);
            for _ in 0..2 {
                let error = table.load().unwrap_err();
                assert_eq!(
                    (error.kind(), error.offset()),
                    (ErrorKind::Corruption, Some(filter.offset))
                );
                check_all_answers(&table, &entries);
            }
            assert!(table.verify().is_err());
            let table = open_lazily(&bytes, mode).unwrap();
            check_all_answers(&table, &entries);
            table.load().unwrap();
            check_all_answers(&table, &entries);
        }
    }
}

#[test]
fn the_first_reads_may_come_from_many_threads_and_while_the_table_is_loaded() {
    for (entries, bytes) in variants() {
        for mode in [MapMode::Map, MapMode::Read] {
            // Each round meets itself at another moment.
            for _ in 0..if cfg!(miri) { 1 } else { 50 } {
                let table = &open_lazily(&bytes, mode).unwrap();
                let begin = &Barrier::new(4);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        begin.wait();
                        table.load().unwrap();
                    });
                    for _ in 0..3 {
                        scope.spawn(|| {
                            begin.wait();
                            check_all_answers(table, &entries);
                        });
                    }
                });
            }
        }
    }
}

#[test]
fn a_damaged_index_fails_every_read_that_needs_it() {
    for (entries, bytes) in variants() {
        let (_, _, sections) = footer_of(&bytes);
        let is_index = |section: &&Section| [SECTION_INDEX, SECTION_EVEN_INDEX].contains(&section.kind);
        let index = sections.iter().find(is_index).unwrap();
        let mut damaged = bytes.clone();
        damaged[crate::format::index(index.offset + index.len / 2)] ^= 0x10;
        for mode in [MapMode::Map, MapMode::Read] {
            assert_eq!(open(&damaged, mode).unwrap_err().kind(), ErrorKind::Corruption);
            let table = Arc::new(open_lazily(&damaged, mode).unwrap());
            let refuses = |what: &str, outcome: siltstone_vfs::Result<()>| {
                let error = outcome.expect_err(what);
                assert_eq!(
                    (error.kind(), error.offset()),
                    (ErrorKind::Corruption, Some(index.offset)),
                    "{what}"
                );
            };
            let (key, tag, _) = &entries[entries.len() / 2];
            let hash = key_hash(key);
            let target = InternalKey::new(key, *tag);
            table.prefetch_filter(hash);
            table.prefetch_seek(key);
            let lead = table.lead(hash).expect("what is not known may be there");
            refuses("follow", table.follow(&lead, key, hash, tag.seqno()).map(drop));
            refuses("get", table.get(key, hash, tag.seqno()).map(drop));
            let mut iter = table.iter();
            refuses("first", iter.seek_to_first());
            refuses("last", iter.seek_to_last());
            refuses("seek", iter.seek(target));
            refuses("seek back", iter.seek_for_prev(target));
            assert!(!iter.valid());
            refuses("bytes before", table.approximate_bytes_before(key).map(drop));
            refuses("dividing keys", table.dividing_keys(2).map(drop));
            refuses("layout", table.layout().map(drop));
            refuses("verify", table.verify().map(drop));
            refuses("load", table.load());
        }
        let table = Arc::new(open_lazily(&bytes, MapMode::Map).unwrap());
        check_all_answers(&table, &entries);
    }
}
