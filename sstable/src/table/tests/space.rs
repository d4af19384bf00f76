//! Where blocks lie, and what a table costs beside its entries.

use siltstone_vfs::MapMode;

use crate::fixture::{Entry, build, open, put, sorted};
use crate::{BlockKind, BlockLayout, Compression, TableOptions};

fn entries(count: u64, value_len: usize) -> Vec<Entry> {
    // A multiplicative generator: keys are spread over the whole key space.
    let word = |n: u64| {
        n.wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    sorted(
        (0..count)
            .map(|n| {
                let key = [word(n).to_be_bytes(), word(!n).to_be_bytes()].concat();
                put(key, 5_000_000 - n, vec![n.to_le_bytes()[0]; value_len])
            })
            .collect(),
    )
}

fn data_blocks(bytes: &[u8]) -> Vec<BlockLayout> {
    let table = open(bytes, MapMode::Map).unwrap();
    table
        .layout()
        .unwrap()
        .into_iter()
        .filter(|part| part.kind == BlockKind::Data)
        .collect()
}

fn straddling(blocks: &[BlockLayout]) -> usize {
    let page = |at: u64| at / 4096;
    blocks
        .iter()
        .filter(|block| page(block.offset) != page(block.offset + block.stored_bytes - 1))
        .count()
}

#[test]
fn small_entries_cost_less_than_a_tenth_beside_themselves() {
    let entries = entries(if cfg!(miri) { 200 } else { 50_000 }, 100);
    let (bytes, summary) = build(&entries, TableOptions::default());
    let logical = summary.key_bytes + summary.value_bytes;
    let percent = bytes.len() as u64 * 100 / logical;
    assert!(
        percent <= 110 || cfg!(miri),
        "{} bytes for {logical}: {percent} %",
        bytes.len()
    );
    let blocks = data_blocks(&bytes);
    assert_eq!(straddling(&blocks), 0);
    assert!(
        blocks.iter().all(|block| block.offset % 4096 == 0),
        "one block, one page"
    );
}

#[test]
fn small_blocks_share_pages_and_do_not_straddle_them() {
    let entries = entries(if cfg!(miri) { 60 } else { 5000 }, 60);
    for block_size_bytes in [512, 1024, 2048] {
        let (bytes, _) = build(
            &entries,
            TableOptions {
                block_size_bytes,
                ..TableOptions::default()
            },
        );
        let blocks = data_blocks(&bytes);
        assert_eq!(straddling(&blocks), 0, "{block_size_bytes}");
        assert!(
            blocks
                .iter()
                .all(|block| block.stored_bytes <= block_size_bytes as u64 + 512)
        );
    }
}

#[test]
fn a_page_s_end_is_not_left_to_a_block_of_one_entry() {
    // Thirty-five keys with eight bytes in common leave 171 bytes of a page, and the next one, which shares none of them, would
    // make each of their suffixes longer. It fits behind them as a block of its own.
    let key = |n: u64| [(n / 35).to_le_bytes(), n.to_be_bytes()].concat();
    let entries = sorted((0..350).map(|n| put(key(n), 5_000_000, vec![1; 100])).collect());
    let (bytes, _) = build(&entries, TableOptions::default());
    let blocks = data_blocks(&bytes);
    let (_, whole) = blocks.split_last().unwrap();
    assert!(whole.iter().all(|block| block.stored_bytes == 4096), "{blocks:?}");
}

#[test]
fn an_entry_that_lies_on_two_pages_is_alone_in_its_block() {
    // Of these, a page end leaves more room than may be padding.
    for (value_len, block_size_bytes) in [(1024, 4096), (1100, 4096), (1500, 2048)] {
        let entries = entries(if cfg!(miri) { 20 } else { 700 }, value_len);
        let options = TableOptions {
            block_size_bytes,
            ..TableOptions::default()
        };
        let (bytes, _) = build(&entries, options);
        let blocks = data_blocks(&bytes);
        let page = |at: u64| at / 4096;
        let across: Vec<_> = blocks
            .iter()
            .filter(|block| page(block.offset) != page(block.offset + block.stored_bytes - 1))
            .collect();
        assert!(!across.is_empty());
        assert!(across.iter().all(|block| block.entries == 1), "{across:?}");
        assert!(
            block_size_bytes < 4096 || blocks.len() < entries.len() / 2,
            "{} blocks",
            blocks.len()
        );
    }
}

#[test]
fn padding_is_bounded_and_large_entries_do_without() {
    let entries = entries(if cfg!(miri) { 20 } else { 400 }, 1500);
    let (bytes, summary) = build(&entries, TableOptions::default());
    let logical = summary.key_bytes + summary.value_bytes;
    assert!(
        (bytes.len() as u64) < logical * 8 / 7,
        "{} bytes for {logical}",
        bytes.len()
    );
}

#[test]
#[cfg(not(miri))]
fn compressed_blocks_share_pages() {
    let entries = entries(5000, 100);
    let options = TableOptions {
        compression: Compression::Zstd { level: 1 },
        ..TableOptions::default()
    };
    let (bytes, summary) = build(&entries, options);
    let blocks = data_blocks(&bytes);
    assert!(blocks.iter().all(|block| block.compression == 1));
    assert!((bytes.len() as u64) < (summary.key_bytes + summary.value_bytes) / 2);
    assert!(
        straddling(&blocks) * 2 < blocks.len(),
        "{} of {} straddle",
        straddling(&blocks),
        blocks.len()
    );
}

/// What a builder of `entries` says of its size before it is finished, and its size.
fn estimated(entries: &[Entry], options: TableOptions) -> (u64, u64) {
    use siltstone_vfs::{Fs, MemFs};
    let fs = MemFs::new();
    let path = std::path::Path::new("/000001.sst");
    let mut builder = crate::TableBuilder::new(fs.create(path).unwrap(), path, options);
    for entry in entries {
        builder.add(crate::fixture::key_of(entry), &entry.2).unwrap();
        assert!(builder.size_bytes() > 0);
    }
    (builder.size_bytes(), builder.finish().unwrap().size_bytes)
}

#[test]
fn the_size_estimate_is_close() {
    let entries = entries(if cfg!(miri) { 100 } else { 20_000 }, 100);
    let (estimate, size) = estimated(&entries, TableOptions::default());
    assert!(
        estimate.abs_diff(size) <= size / 50 + 2048,
        "estimated {estimate}, became {size}"
    );
}

/// Whoever cuts tables by the estimate would cut those of long keys far too early.
#[test]
fn the_size_estimate_counts_a_shared_prefix_once() {
    let key = |n: u32| [&[b'p'; 990][..], &n.to_be_bytes()].concat();
    let entries: Vec<Entry> = (0..500).map(|n| put(key(n), 1, [7; 8])).collect();
    let options = TableOptions {
        block_size_bytes: 1 << 20,
        ..TableOptions::default()
    };
    let (estimate, size) = estimated(&entries, options);
    assert!(estimate <= size, "estimated {estimate}, became {size}");
}
