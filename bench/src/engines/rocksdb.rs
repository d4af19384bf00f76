//! RocksDB: one column family, set up as its wiki's "Setup Options and Basic Tuning" says, with its block cache or
//! with mmap reads.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, CompactionPri, DB, DBCompressionType, DBRawIterator, FlushOptions, Options,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "rocksdb",
    package: "librocksdb-sys",
    settings: "LRU block cache 1 GiB (cold: a quarter of the memory) with index and filters in it, blocks of 16 KiB, \
               bloom filters of 10 bits, memtable 64 MiB, dynamic level bytes, kMinOverlappingRatio, bytes_per_sync \
               1 MiB, max_background_jobs 6, uncompressed, the rest default; no sync: default WriteOptions (the log \
               is written, not synced), sync: WriteOptions.sync",
    compression: Some("lz4 on all levels"),
    open: |dir, setup| open(dir, setup, false),
};

pub(crate) const KIND_MMAP: EngineKind = EngineKind {
    name: "rocksdb-mmap",
    package: "librocksdb-sys",
    settings: "as rocksdb, with allow_mmap_reads",
    compression: Some("lz4 on all levels"),
    open: |dir, setup| open(dir, setup, true),
};

const FAMILY: &str = "default";

fn open(dir: &Path, setup: &Setup, mmap_reads: bool) -> Result<Box<dyn Engine>> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(usize::try_from(setup.cache_bytes())?));
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(64 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compaction_pri(CompactionPri::MinOverlappingRatio);
    options.set_max_background_jobs(6);
    options.set_bytes_per_sync(1 << 20);
    options.set_allow_mmap_reads(mmap_reads);
    options.set_compression_type(if setup.compress {
        DBCompressionType::Lz4
    } else {
        DBCompressionType::None
    });

    let mut write = WriteOptions::default();
    write.set_sync(setup.survives == Survives::PowerLoss);
    let db = DB::open_cf_with_opts(&options, dir, [(FAMILY, options.clone())])?;
    Ok(Box::new(Rocks { db, write }))
}

struct Rocks {
    db: DB,
    write: WriteOptions,
}

impl Engine for Rocks {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            store: self,
            reused: None,
        }))
    }

    fn settle(&self) -> Result<()> {
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush)?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.flush_wal(true)?;
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}

struct Worker<'e> {
    store: &'e Rocks,
    reused: Option<DBRawIterator<'e>>,
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.store.db.put_opt(key, value, &self.store.write)?)
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in records {
            batch.put(key, value);
        }
        Ok(self.store.db.write_opt(batch, &self.store.write)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        Ok(self.store.db.delete_opt(key, &self.store.write)?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.store.db.get_pinned(key)?.map(|value| sum(&value)))
    }

    fn multi_get(&mut self, keys: &[Key]) -> Result<Seen> {
        let family = self
            .store
            .db
            .cf_handle(FAMILY)
            .ok_or("the default column family is not there")?;
        let mut seen = Seen::default();
        for value in self.store.db.batched_multi_get_cf(family, keys, false) {
            if let Some(value) = value? {
                seen.add(&[], &value);
            }
        }
        Ok(seen)
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let mut records = self.store.db.raw_iterator();
        records.seek(from);
        walk(&mut records, limit, false)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let records = self.reused.get_or_insert_with(|| self.store.db.raw_iterator());
        records.seek(from);
        walk(records, limit, false)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut records = self.store.db.raw_iterator();
        if reverse {
            records.seek_to_last();
        } else {
            records.seek_to_first();
        }
        walk(&mut records, u64::MAX, reverse)
    }
}

fn walk(records: &mut DBRawIterator<'_>, limit: u64, reverse: bool) -> Result<Seen> {
    let mut seen = Seen::default();
    while let Some((key, value)) = records.item() {
        seen.add(key, value);
        if seen.records == limit {
            break;
        }
        if reverse {
            records.prev();
        } else {
            records.next();
        }
    }
    // An iterator that met an error is not valid and looks like one at the end.
    records.status()?;
    Ok(seen)
}
