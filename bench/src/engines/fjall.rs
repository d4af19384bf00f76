//! fjall: one keyspace, a 1 GiB cache.

use std::path::Path;
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "fjall",
    package: "fjall",
    settings: "cache 1 GiB (cold: a quarter of the memory), memtable 64 MiB, data blocks uncompressed, the rest default; \
               no sync: PersistMode::Buffer (its default), sync: persist(SyncData) after each write",
    compression: Some("lz4 on all levels"),
    open,
};

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let db = Database::builder(dir).cache_size(setup.cache_bytes()).open()?;
    let compression = if setup.compress {
        CompressionType::Lz4
    } else {
        CompressionType::None
    };
    let records = db.keyspace("bench", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(64 << 20)
            .data_block_compression_policy(CompressionPolicy::all(compression))
    })?;
    Ok(Box::new(Fjall {
        db,
        records,
        sync: setup.survives == Survives::PowerLoss,
    }))
}

struct Fjall {
    db: Database,
    records: Keyspace,
    sync: bool,
}

impl Fjall {
    fn acknowledge(&self) -> Result<()> {
        if self.sync {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            store: self,
            reused: None,
        }))
    }

    fn settle(&self) -> Result<()> {
        self.records.rotate_memtable_and_wait()?;
        // fjall has no call that waits for compaction: quiet for half a second is taken for settled.
        let mut quiet = 0;
        let mut completed = self.db.compactions_completed();
        while quiet < 10 {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.db.compactions_completed();
            let busy =
                self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 || now != completed;
            completed = now;
            quiet = if busy { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

struct Worker<'e> {
    store: &'e Fjall,
    reused: Option<Snapshot>,
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.store.records.insert(key, value)?;
        self.store.acknowledge()
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = self.store.db.batch();
        for (key, value) in records {
            batch.insert(&self.store.records, key.as_ref(), value.as_slice());
        }
        batch.commit()?;
        self.store.acknowledge()
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.store.records.remove(key)?;
        self.store.acknowledge()
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.store.records.get(key)?.map(|value| sum(&value)))
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        walk(self.store.records.range(from..), limit)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let view = self.reused.get_or_insert_with(|| self.store.db.snapshot());
        walk(view.range(&self.store.records, from..), limit)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut records = self.store.records.iter();
        while let Some(record) = if reverse {
            records.next_back()
        } else {
            records.next()
        } {
            let (key, value) = record.into_inner()?;
            seen.add(&key, &value);
        }
        Ok(seen)
    }
}

fn walk(records: Iter, limit: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    for record in records {
        let (key, value) = record.into_inner()?;
        seen.add(&key, &value);
        if seen.records == limit {
            break;
        }
    }
    Ok(seen)
}
