//! One section of a table; the rest of the file is sound. The input's first byte chooses the table, the others are the
//! section.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use siltstone::vfs::MapMode;
use siltstone::{Compression, FilterKind, SeqNo};
use siltstone_sstable::format::{
    FOOTER_BYTES, Footer, SECTION_ALIGN_BYTES, SECTION_FILTER, SECTION_PROPERTIES, Section, checksum,
};
use siltstone_sstable::{Table, key_hash};

use super::table::{build, open};

const KEYS: u32 = 50;
const VALUE_BYTES: usize = 70;

/// A sound table in its parts.
struct Parts {
    file: Vec<u8>,
    sections: Vec<Section>,
}

/// One for each kind of filter.
static TABLES: LazyLock<Vec<Parts>> = LazyLock::new(|| {
    let zstd = Compression::Zstd { level: 1 };
    let tables = [
        build(FilterKind::HashIndex, Compression::None, KEYS, VALUE_BYTES),
        build(
            FilterKind::Blocked { bits_per_key: 10 },
            Compression::None,
            KEYS,
            VALUE_BYTES,
        ),
        build(
            FilterKind::Standard { bits_per_key: 10 },
            Compression::None,
            KEYS,
            VALUE_BYTES,
        ),
        build(FilterKind::HashIndex, zstd, KEYS, VALUE_BYTES),
    ];
    tables.into_iter().map(Parts::of).collect()
});

impl Parts {
    fn of(file: Vec<u8>) -> Parts {
        let path = Path::new("000001.sst");
        let tail = file.last_chunk::<FOOTER_BYTES>().expect("a table has a footer");
        let footer = Footer::decode(tail, path, file.len() as u64).expect("a sound footer");
        let directory = &file[place(footer.directory_offset)..file.len() - FOOTER_BYTES];
        let sections = Section::decode_all(directory, &footer, path).expect("a sound directory");
        Parts { file, sections }
    }

    fn section(&self, kind: u32) -> &[u8] {
        let section = self.sections.iter().find(|section| section.kind == kind);
        let section = section.expect("every table of this kind has it");
        &self.file[place(section.offset)..place(section.offset + section.len)]
    }

    /// The file with `bytes` for the section of this kind.
    fn with(&self, kind: u32, bytes: &[u8]) -> Vec<u8> {
        let data_end = self.sections.iter().map(|section| section.offset).min();
        let mut file = self.file[..place(data_end.expect("a table has sections"))].to_vec();
        let mut sections = Vec::new();
        for section in &self.sections {
            file.resize(file.len().next_multiple_of(place(SECTION_ALIGN_BYTES)), 0);
            let content = if section.kind == kind {
                bytes
            } else {
                self.section(section.kind)
            };
            sections.push(Section {
                kind: section.kind,
                offset: file.len() as u64,
                len: content.len() as u64,
                checksum: checksum(content),
            });
            file.extend_from_slice(content);
        }
        let mut directory = Vec::new();
        sections.iter().for_each(|section| section.encode(&mut directory));
        let footer = Footer {
            table_id: 0,
            directory_offset: file.len() as u64,
            directory_len: directory.len() as u64,
            directory_checksum: checksum(&directory),
            file_len: (file.len() + directory.len() + FOOTER_BYTES) as u64,
        };
        file.extend_from_slice(&directory);
        file.extend_from_slice(&footer.encode());
        file
    }
}

/// A place in a file that is in memory.
fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("an offset in a table in memory")
}

fn run(kind: u32, input: &[u8]) {
    let Some((choice, section)) = input.split_first() else {
        return;
    };
    let parts = &TABLES[usize::from(*choice) % TABLES.len()];
    let file = parts.with(kind, section);
    for mode in [MapMode::Map, MapMode::Read] {
        if let Ok(table) = open(&file, mode) {
            let _ = table.load();
            ask(&table);
        }
    }
}

/// Asks for every key and for some that are not there. A hostile filter may hide a key, or fail; it never gives one the
/// value of another, nor makes one up.
fn ask(table: &Arc<Table>) {
    for key in 0..KEYS + 10 {
        let user_key = format!("key{key:05}");
        let hash = key_hash(user_key.as_bytes());
        let _ = table.may_contain(hash);
        table.prefetch_filter(hash);
        let _ = table.lead(hash);
        let Ok(found) = table.get(user_key.as_bytes(), hash, SeqNo::MAX) else {
            continue;
        };
        if let Some(entry) = found {
            let own = b'a' + user_key.as_bytes()[7] % 16;
            // The older tombstone has no value.
            let right =
                key < KEYS && (entry.tag.is_tombstone() || entry.value.iter().all(|byte| *byte == own));
            assert!(right, "{user_key} has the entry {entry:?}");
        }
        let _ = table.get(user_key.as_bytes(), hash, SeqNo(6));
    }
    let _ = table.verify();
    let _ = table.properties().clone();
}

pub(super) fn run_filter(input: &[u8]) {
    run(SECTION_FILTER, input);
}

pub(super) fn run_properties(input: &[u8]) {
    run(SECTION_PROPERTIES, input);
}

fn seeds(kind: u32) -> Vec<Vec<u8>> {
    let seed = |(choice, parts): (u8, &Parts)| [&[choice], parts.section(kind)].concat();
    (0_u8..).zip(TABLES.iter()).map(seed).collect()
}

pub(super) fn filter_seeds() -> Vec<Vec<u8>> {
    seeds(SECTION_FILTER)
}

pub(super) fn properties_seeds() -> Vec<Vec<u8>> {
    seeds(SECTION_PROPERTIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_table_put_together_are_the_table() {
        for parts in TABLES.iter() {
            let again = parts.with(SECTION_FILTER, parts.section(SECTION_FILTER));
            let table = open(&again, MapMode::Map).unwrap();
            table.verify().unwrap();
            let found = table.get(b"key00007", key_hash(b"key00007"), SeqNo::MAX).unwrap();
            assert_eq!(found.unwrap().value.len(), VALUE_BYTES + 1);
        }
    }
}
