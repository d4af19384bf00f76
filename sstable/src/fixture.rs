//! What the crate's tests share: random entries, tables in memory, and the model that they are held against.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use siltstone_vfs::{Fs, MapMode, Mapping, MemFs, Result};

use crate::{
    BlockCache, Compression, FilterKind, InternalIterator, InternalKey, SeqNo, Table, TableBuilder, TableId,
    TableOptions, TableSummary, Tag, ValueKind,
};

pub(crate) type Entry = (Vec<u8>, Tag, Vec<u8>);

pub(crate) const DIR: &str = "/tables";
pub(crate) const FILE: &str = "/tables/000001.sst";

/// Cases of a property test: miri is some hundred times slower.
pub(crate) fn cases(native: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { native };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn put(key: impl AsRef<[u8]>, seqno: u64, value: impl AsRef<[u8]>) -> Entry {
    (
        key.as_ref().to_vec(),
        Tag::new(SeqNo(seqno), ValueKind::Put),
        value.as_ref().to_vec(),
    )
}

pub(crate) fn delete(key: impl AsRef<[u8]>, seqno: u64) -> Entry {
    (
        key.as_ref().to_vec(),
        Tag::new(SeqNo(seqno), ValueKind::Delete),
        Vec::new(),
    )
}

pub(crate) fn key_of(entry: &Entry) -> InternalKey<'_> {
    InternalKey::new(&entry.0, entry.1)
}

/// Sorts, and drops entries that repeat an internal key.
pub(crate) fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    entries.dedup_by(|a, b| key_of(a) == key_of(b));
    entries
}

/// Keys that collide, share prefixes, contain extreme bytes, and are sometimes long.
pub(crate) fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(255)], 0..4),
        3 => (0u32..400).prop_map(|n| format!("user/{n:08}").into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 100usize..3000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let value = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..40),
        2 => (any::<u8>(), 0usize..1200).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 4000usize..9000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let seqno = prop_oneof![3 => 0u64..6, 3 => 0u64..5_000_000, 1 => Just(SeqNo::MAX.0)];
    (any_key(), seqno, any::<bool>(), value).prop_map(|(key, seqno, is_put, value)| {
        if is_put {
            put(key, seqno, value)
        } else {
            delete(key, seqno)
        }
    })
}

pub(crate) fn any_entries(len: usize) -> impl Strategy<Value = Vec<Entry>> {
    let len = if cfg!(miri) { len.min(12) } else { len };
    let mixed = prop::collection::vec(any_entry(), 1..len).prop_map(sorted);
    // Keys and values of one length each, so that blocks are uniform.
    let uniform =
        (1..len, 1usize..20, 0usize..150, 1u64..1 << 40).prop_map(|(count, key_len, value_len, seqno)| {
            let step = 1 + seqno % 97;
            sorted(
                (0..count as u64)
                    .map(|n| {
                        let key = [&[b'p'; 20][..20 - key_len.min(8)], &(n * step).to_be_bytes()].concat();
                        put(key, seqno + n * n % 1000, vec![n.to_le_bytes()[0]; value_len])
                    })
                    .collect(),
            )
        });
    // A few keys with very many versions.
    let versions = (1..len as u64, 1u64..4, 0usize..60).prop_map(|(count, keys, value_len)| {
        sorted(
            (0..count)
                .map(|n| put([b'k', (n % keys).to_le_bytes()[0]], n, vec![b'v'; value_len]))
                .collect(),
        )
    });
    prop_oneof![3 => mixed, 1 => uniform, 1 => versions]
}

pub(crate) fn any_options() -> impl Strategy<Value = TableOptions> {
    let block = prop_oneof![
        Just(512usize),
        Just(1000),
        Just(4096),
        Just(4097),
        Just(16 << 10),
        Just(1 << 20)
    ];
    let compression = if cfg!(miri) {
        Just(Compression::None).boxed()
    } else {
        prop_oneof![
            Just(Compression::None),
            (-7..6i32).prop_map(|level| Compression::Zstd { level })
        ]
        .boxed()
    };
    let filter = prop_oneof![
        Just(FilterKind::None),
        (1u32..=64).prop_map(|bits_per_key| FilterKind::Standard { bits_per_key }),
        (1u32..=64).prop_map(|bits_per_key| FilterKind::Blocked { bits_per_key }),
        Just(FilterKind::HashIndex),
        Just(FilterKind::Auto),
    ];
    (block, compression, filter).prop_map(|(block_size_bytes, compression, filter)| TableOptions {
        block_size_bytes,
        compression,
        filter,
    })
}

pub(crate) fn any_mode() -> impl Strategy<Value = MapMode> {
    prop_oneof![Just(MapMode::Map), Just(MapMode::Read)]
}

fn empty_fs() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new(DIR)).unwrap();
    fs
}

const ID: TableId = TableId(1);

/// The file's bytes, and what the builder said about them.
pub(crate) fn build(entries: &[Entry], options: TableOptions) -> (Vec<u8>, TableSummary) {
    let fs = empty_fs();
    let path = Path::new(FILE);
    let mut builder = TableBuilder::new(fs.create(path).unwrap(), path, options).with_id(ID);
    for entry in entries {
        builder.add(key_of(entry), &entry.2).unwrap();
    }
    let summary = builder.finish().unwrap();
    let mut bytes = vec![0; usize::try_from(fs.len(path).unwrap()).unwrap()];
    assert_eq!(
        fs.open(path).unwrap().read_at(0, &mut bytes).unwrap(),
        bytes.len()
    );
    assert_eq!(summary.size_bytes, bytes.len() as u64);
    (bytes, summary)
}

pub(crate) fn open(bytes: &[u8], mode: MapMode) -> Result<Arc<Table>> {
    open_with_cache(bytes, mode, BlockCache::new(1 << 20))
}

/// Opens it as another table than it is.
pub(crate) fn open_as(bytes: &[u8], id: TableId) -> Result<Table> {
    Table::open(map(bytes, MapMode::Map)?, id, BlockCache::new(0))
}

pub(crate) fn open_with_cache(bytes: &[u8], mode: MapMode, cache: Arc<BlockCache>) -> Result<Arc<Table>> {
    Table::open(map(bytes, mode)?, ID, cache).map(Arc::new)
}

pub(crate) fn open_lazily(bytes: &[u8], mode: MapMode) -> Result<Table> {
    Table::open_lazily(map(bytes, mode)?, ID, BlockCache::new(1 << 20))
}

fn map(bytes: &[u8], mode: MapMode) -> Result<Mapping> {
    let fs = empty_fs();
    let path = Path::new(FILE);
    fs.create(path).unwrap().append(bytes).unwrap();
    let lock = fs.lock_dir(Path::new(DIR)).unwrap();
    fs.open_table(path, &lock, mode)
}

/// The answer that a read must give.
pub(crate) fn model_get<'e>(entries: &'e [Entry], user_key: &[u8], seqno: SeqNo) -> Option<&'e Entry> {
    let at = entries.partition_point(|entry| key_of(entry) < InternalKey::new(user_key, Tag::seek_at(seqno)));
    entries.get(at).filter(|entry| entry.0 == user_key)
}

/// One step of an iterator.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    First,
    Last,
    Seek(Vec<u8>, u64),
    SeekForPrev(Vec<u8>, u64),
    /// To the entry with this number, modulo the count, exactly.
    SeekExactly(usize),
    SeekForPrevExactly(usize),
    Next(usize),
    Prev(usize),
}

pub(crate) fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => (any_key(), 0u64..8).prop_map(|(key, seqno)| Move::Seek(key, seqno)),
        2 => (any_key(), 0u64..8).prop_map(|(key, seqno)| Move::SeekForPrev(key, seqno)),
        2 => any::<usize>().prop_map(Move::SeekExactly),
        2 => any::<usize>().prop_map(Move::SeekForPrevExactly),
        4 => (1usize..12).prop_map(Move::Next),
        4 => (1usize..12).prop_map(Move::Prev),
    ]
}

/// Does `moves` on `iter` and on a position in `model`, and compares after each.
pub(crate) fn check_moves(iter: &mut impl InternalIterator, model: &[Entry], moves: &[Move]) {
    assert!(!iter.valid(), "a fresh iterator is not valid");
    let mut at: Option<usize> = None;
    let last_up_to = |target: InternalKey<'_>| {
        model
            .partition_point(|entry| key_of(entry) <= target)
            .checked_sub(1)
    };
    let first_from = |target: InternalKey<'_>| {
        Some(model.partition_point(|entry| key_of(entry) < target)).filter(|&at| at < model.len())
    };
    for step in moves {
        match step {
            Move::First => {
                iter.seek_to_first().unwrap();
                at = Some(0).filter(|_| !model.is_empty());
            }
            Move::Last => {
                iter.seek_to_last().unwrap();
                at = model.len().checked_sub(1);
            }
            Move::Seek(key, seqno) => {
                let target = InternalKey::new(key, Tag::seek_at(SeqNo(*seqno)));
                iter.seek(target).unwrap();
                at = first_from(target);
            }
            Move::SeekForPrev(key, seqno) => {
                let target = InternalKey::new(key, Tag::seek_at(SeqNo(*seqno)));
                iter.seek_for_prev(target).unwrap();
                at = last_up_to(target);
            }
            Move::SeekExactly(number) | Move::SeekForPrevExactly(number) => {
                let Some(number) = number.checked_rem(model.len()) else {
                    continue;
                };
                let target = key_of(&model[number]);
                if matches!(step, Move::SeekExactly(_)) {
                    iter.seek(target).unwrap();
                    at = first_from(target);
                } else {
                    iter.seek_for_prev(target).unwrap();
                    at = last_up_to(target);
                }
            }
            Move::Next(count) => {
                for _ in 0..*count {
                    let Some(now) = at else { break };
                    iter.next().unwrap();
                    at = Some(now + 1).filter(|&at| at < model.len());
                    check_position(iter, model, at);
                }
            }
            Move::Prev(count) => {
                for _ in 0..*count {
                    let Some(now) = at else { break };
                    iter.prev().unwrap();
                    at = now.checked_sub(1);
                    check_position(iter, model, at);
                }
            }
        }
        check_position(iter, model, at);
    }
}

fn check_position(iter: &impl InternalIterator, model: &[Entry], at: Option<usize>) {
    assert_eq!(iter.valid(), at.is_some(), "at {at:?} of {}", model.len());
    if let Some(at) = at {
        assert_eq!(iter.key(), key_of(&model[at]), "at {at} of {}", model.len());
        assert_eq!(iter.value(), model[at].2, "value at {at}");
    }
}
