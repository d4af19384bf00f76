//! A table. The input is the whole file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use siltstone::vfs::{Fs, MapMode, MemFs};
use siltstone::{Compression, FilterKind, SeqNo};
use siltstone_sstable::format::{
    FOOTER_BYTES, INDEX_HEADER_BYTES, SECTION_ENTRY_BYTES, SECTION_EVEN_INDEX, SECTION_INDEX,
};
use siltstone_sstable::{
    BlockCache, InternalIterator, InternalKey, Table, TableBuilder, TableId, TableOptions, Tag, ValueKind,
    key_hash,
};

use super::database::{DIR, files_of, open_and_use, put_u64, restore, seal, u32_at, u64_at};

/// Any: seeds come from databases, under numbers of their own.
const ID: TableId = TableId(0);
/// Enough to see every entry of a seed in both directions.
const STEPS_MAX: usize = 2000;

/// A database whose newest level-0 table the input takes the place of.
struct Template {
    files: Vec<(PathBuf, Vec<u8>)>,
    table: PathBuf,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let files = files_of(|db| {
        for round in 0..2_u32 {
            for key in 0..30_u32 {
                db.put((key * 2 + round).to_be_bytes(), [7; 40])?;
            }
            db.delete(3_u32.to_be_bytes())?;
            db.flush()?;
        }
        Ok(())
    });
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    let (table, _) = files
        .iter()
        .rfind(|(path, _)| is_table(path))
        .expect("a flush makes a table");
    Template {
        table: table.clone(),
        files,
    }
});

pub(super) fn run(input: &[u8]) {
    let mut bytes = input.to_vec();
    mend(&mut bytes);
    for mode in [MapMode::Map, MapMode::Read] {
        read(&bytes, mode);
    }
    let replaced = |path: &Path| *path == TEMPLATE.table;
    let files: Vec<(&Path, &[u8])> = TEMPLATE
        .files
        .iter()
        .map(|(path, sound)| {
            (
                path.as_path(),
                if replaced(path) { &bytes[..] } else { &sound[..] },
            )
        })
        .collect();
    open_and_use(&files);
}

/// Opens the table by itself, without index and filter.
pub(super) fn open(bytes: &[u8], mode: MapMode) -> siltstone::Result<Arc<Table>> {
    let path = Path::new(DIR).join("000001.sst");
    let fs: MemFs = restore([(path.as_path(), bytes)]);
    let lock = fs.lock_dir(Path::new(DIR))?;
    let mapping = fs.open_table(&path, &lock, mode)?;
    Table::open_lazily(mapping, ID, BlockCache::new(1 << 16)).map(Arc::new)
}

fn read(bytes: &[u8], mode: MapMode) {
    let Ok(table) = open(bytes, mode) else {
        return;
    };
    // The first read meets an index that nobody has looked at.
    let _ = table.lead(7);
    let _ = table.get(b"no such key", key_hash(b"no such key"), SeqNo::MAX);
    let sound = table.verify().is_ok();
    let _ = table.layout();
    let mut iter = table.iter();
    let mut keys: Vec<(Vec<u8>, Tag)> = Vec::new();
    let mut failed = iter.seek_to_first().is_err();
    for _ in 0..STEPS_MAX {
        if failed || !iter.valid() {
            break;
        }
        if keys.len() < 40 {
            keys.push((iter.user_key().to_vec(), iter.tag()));
        }
        let _ = iter.value();
        failed = iter.next().is_err();
    }
    // What verification has passed is read without an error.
    assert!(!(sound && failed), "a verified table cannot be read");
    let mut ok = iter.seek_to_last().is_ok();
    for step in 0..STEPS_MAX {
        if !ok || !iter.valid() {
            break;
        }
        ok = if step % 7 == 6 {
            iter.next().is_ok()
        } else {
            iter.prev().is_ok()
        };
    }
    let _ = table.dividing_keys(3);
    let mut scratch = Vec::new();
    for (key, tag) in &keys {
        let found = table.get(key, key_hash(key), SeqNo::MAX);
        // Of a sound table, a key that was walked over is found.
        assert!(
            !sound || matches!(&found, Ok(Some(entry)) if entry.tag >= *tag),
            "{key:?} is not found"
        );
        let _ = table.get(key, key_hash(key) ^ 1, tag.seqno());
        let _ = table.approximate_bytes_before(key);
        if iter.seek(InternalKey::new(key, *tag)).is_ok() && iter.valid() {
            let _ = iter.begins_user_key();
            let _ = iter.next_user_key(&mut scratch);
        }
        if iter.seek_for_prev(InternalKey::new(key, Tag::LAST)).is_ok() && iter.valid() {
            let _ = iter.prev();
        }
    }
    let _ = table.get(b"no such key", key_hash(b"no such key"), SeqNo::MAX);
    table.prefetch_filter(7);
    let _ = table.lead(7);
    let _ = table.properties().creator.len();
}

/// Makes valid, from the inside to the outside: blocks, sections, the directory (which is taken to end where the footer
/// begins), the footer.
pub(super) fn mend(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return;
    };
    let file_len = bytes.len() as u64;
    put_u64(bytes, footer + 24, file_len);
    if let Some(directory_len) = u64_at(bytes, footer + 8).filter(|len| *len <= footer) {
        let directory = footer - directory_len;
        put_u64(bytes, footer, directory as u64);
        for at in (directory..footer).step_by(SECTION_ENTRY_BYTES) {
            mend_section(bytes, at);
        }
        seal(bytes, directory..footer, footer + 16);
    }
    seal(bytes, footer..footer + 48, footer + 48);
}

/// The section whose entry in the directory is at `at`.
fn mend_section(bytes: &mut [u8], at: usize) {
    let (Some(kind), Some(offset), Some(len)) =
        (u32_at(bytes, at), u64_at(bytes, at + 4), u64_at(bytes, at + 12))
    else {
        return;
    };
    let Some(end) = offset.checked_add(len) else {
        return;
    };
    if end <= bytes.len() {
        if kind == SECTION_INDEX as usize {
            mend_blocks(bytes, offset, len);
        } else if kind == SECTION_EVEN_INDEX as usize {
            mend_even_blocks(bytes, offset);
        }
    }
    seal(bytes, offset..end, at + 20);
}

fn mend_blocks(bytes: &mut [u8], index: usize, index_len: usize) {
    let count = u32_at(bytes, index).unwrap_or(0);
    if count > index_len / 16 {
        return;
    }
    let offsets = index + INDEX_HEADER_BYTES + 8 * count;
    for block in 0..count {
        let range = u64_at(bytes, offsets + 8 * block).zip(u64_at(bytes, offsets + 8 * block + 8));
        // Blocks lie in front of the index that names them: what is here is not sealed over.
        if let Some((start, end)) = range {
            mend_block(bytes, start..end, index);
        }
    }
}

fn mend_even_blocks(bytes: &mut [u8], index: usize) {
    let (count, stride) = (
        u32_at(bytes, index).unwrap_or(0),
        u32_at(bytes, index + 12).unwrap_or(0),
    );
    let offset_at = (index + INDEX_HEADER_BYTES).checked_add(count.saturating_mul(8));
    let Some(data_end) = offset_at.and_then(|at| u64_at(bytes, at)) else {
        return;
    };
    for start in (0..data_end.min(index)).step_by(stride.max(1)).take(count) {
        mend_block(bytes, start..(start + stride).min(data_end), index);
    }
}

fn mend_block(bytes: &mut [u8], block: Range<usize>, index: usize) {
    if block.end <= index
        && let Some(sum) = block.end.checked_sub(8).filter(|sum| *sum >= block.start)
    {
        seal(bytes, block.start..sum, sum);
    }
}

/// A table of `keys`, each with a put and, every third time, an older tombstone.
pub(super) fn build(filter: FilterKind, compression: Compression, keys: u32, value_bytes: usize) -> Vec<u8> {
    let options = TableOptions {
        block_size_bytes: 512,
        compression,
        filter,
    };
    write_table(options, |builder| {
        for key in 0..keys {
            let user_key = format!("key{key:05}");
            let newest = Tag::new(SeqNo(u64::from(key) + 10), ValueKind::Put);
            let value = vec![b'a' + user_key.as_bytes()[7] % 16; value_bytes + key as usize % 3];
            builder.add(InternalKey::new(user_key.as_bytes(), newest), &value)?;
            if key % 3 == 0 {
                let older = Tag::new(SeqNo(5), ValueKind::Delete);
                builder.add(InternalKey::new(user_key.as_bytes(), older), b"")?;
            }
        }
        Ok(())
    })
}

/// A table as sorted loads leave them: records of one length, late seqnos, blocks that are all a page, a hash index.
fn build_pages() -> Vec<u8> {
    let options = TableOptions {
        filter: FilterKind::HashIndex,
        ..TableOptions::default()
    };
    write_table(options, |builder| {
        for key in 0..80_u32 {
            let tag = Tag::new(SeqNo((1 << 30) + u64::from(key)), ValueKind::Put);
            builder.add(InternalKey::new(&key.to_be_bytes(), tag), &[7; 100])?;
        }
        Ok(())
    })
}

/// The bytes of a table of what `fill` adds, in order.
fn write_table(
    options: TableOptions,
    fill: impl FnOnce(&mut TableBuilder) -> siltstone::Result<()>,
) -> Vec<u8> {
    let fs = MemFs::new();
    let path = Path::new(DIR).join("000001.sst");
    fs.create_dir_all(Path::new(DIR)).expect("memory has room");
    let mut builder = TableBuilder::new(fs.create(&path).expect("memory has room"), &path, options);
    fill(&mut builder).expect("in order");
    builder.finish().expect("memory has room");
    fs.read_file(&path).expect("it has just been written")
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let zstd = Compression::Zstd { level: 1 };
    let mut seeds = vec![
        build(FilterKind::None, Compression::None, 3, 5),
        build(FilterKind::HashIndex, Compression::None, 40, 30),
        build(FilterKind::Blocked { bits_per_key: 10 }, zstd, 60, 50),
        build(
            FilterKind::Standard { bits_per_key: 10 },
            Compression::None,
            30,
            300,
        ),
    ];
    let own = TEMPLATE.files.iter().find(|(path, _)| *path == TEMPLATE.table);
    seeds.extend(own.map(|(_, bytes)| bytes.clone()));
    seeds.push(build_pages());
    seeds
}

#[cfg(test)]
mod tests {
    use siltstone_sstable::format::{BLOCK_TAG_BASE, BLOCK_UNIFORM, BLOCK_WHOLE};

    use super::*;

    #[test]
    fn a_seed_has_a_base_of_tags_and_an_index_without_offsets() {
        let pages = build_pages();
        let flags = pages[6];
        assert_eq!(flags, BLOCK_UNIFORM | BLOCK_WHOLE | BLOCK_TAG_BASE);
        let directory = u64_at(&pages, pages.len() - FOOTER_BYTES).unwrap();
        assert_eq!(u32_at(&pages, directory), Some(SECTION_EVEN_INDEX as usize));
    }

    #[test]
    fn mending_makes_a_table_of_one_whose_bytes_were_changed() {
        for seed in seeds() {
            let (mut same, mut changed) = (seed.clone(), seed.clone());
            mend(&mut same);
            assert!(same == seed, "a sound table is left as it is");
            // A value of the first block, or its compressed bytes.
            changed[100] ^= 1;
            assert!(
                open(&changed, MapMode::Map)
                    .and_then(|table| table.verify())
                    .is_err()
            );
            mend(&mut changed);
            let error = open(&changed, MapMode::Map).unwrap().verify();
            assert!(
                error
                    .as_ref()
                    .err()
                    .is_none_or(|error| !error.to_string().contains("checksum")),
                "{error:?}"
            );
        }
    }
}
