//! fjall: one keyspace, a 1 GiB cache, no compression.

use std::path::Path;
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "fjall",
    package: "fjall",
    settings: "cache 1 GiB, memtable 64 MiB, data blocks uncompressed, the rest default; \
               no sync: PersistMode::Buffer (its default), sync: persist(SyncData) after each write",
    open,
};

fn open(dir: &Path, survives: Survives) -> Result<Box<dyn Engine>> {
    let db = Database::builder(dir).cache_size(1 << 30).open()?;
    let records = db.keyspace("bench", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(64 << 20)
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
    })?;
    Ok(Box::new(Fjall {
        db,
        records,
        sync: survives == Survives::PowerLoss,
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
        Ok(Box::new(Worker(self)))
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

struct Worker<'e>(&'e Fjall);

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.records.insert(key, value)?;
        self.0.acknowledge()
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = self.0.db.batch();
        for (key, value) in records {
            batch.insert(&self.0.records, key.as_ref(), value.as_slice());
        }
        batch.commit()?;
        self.0.acknowledge()
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.0.records.remove(key)?;
        self.0.acknowledge()
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.0.records.get(key)?.map(|value| sum(&value)))
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        for record in self.0.records.range(from..) {
            let (key, value) = record.into_inner()?;
            seen.add(&key, &value);
            if seen.records == limit {
                break;
            }
        }
        Ok(seen)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut records = self.0.records.iter();
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
