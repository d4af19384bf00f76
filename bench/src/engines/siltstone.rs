//! Siltstone with a fresh `Options`: nothing is tuned for a benchmark.

use std::path::Path;

use siltstone::{Compression, Cursor, Db, Durability, Options, WriteBatch};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "siltstone",
    package: "siltstone",
    settings: "Options::default(): memtable 16 MiB, no compression, tables mapped; no sync: Durability::Buffered, \
               sync: Durability::Sync",
    compression: Some("zstd level 1 on all levels, block cache as large as the others' caches"),
    open,
};

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = Options::default().durability(match setup.survives {
        Survives::Process => Durability::Buffered,
        Survives::PowerLoss => Durability::Sync,
    });
    if setup.compress {
        options = options
            .compression(Compression::Zstd { level: 1 })
            .block_cache_bytes(setup.cache_bytes());
    }
    Ok(Box::new(Siltstone(options.open(dir)?)))
}

struct Siltstone(Db);

impl Engine for Siltstone {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            db: &self.0,
            reused: None,
        }))
    }

    fn settle(&self) -> Result<()> {
        self.0.flush_all()?;
        Ok(self.0.wait_idle()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

struct Worker<'d> {
    db: &'d Db,
    reused: Option<Cursor>,
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put(key, value)?)
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in records {
            batch.put(key, value);
        }
        Ok(self.db.write(batch)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete(key)?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.db.get_with(key, sum)?)
    }

    fn multi_get(&mut self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        for value in self.db.multi_get(keys) {
            if let Some(value) = value? {
                seen.add(&[], &value);
            }
        }
        Ok(seen)
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let mut cursor = self.db.cursor::<&[u8]>(..)?;
        cursor.seek(from)?;
        walk(&mut cursor, limit, false)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        if self.reused.is_none() {
            self.reused = Some(self.db.cursor::<&[u8]>(..)?);
        }
        let cursor = self.reused.as_mut().ok_or("the cursor was just made")?;
        cursor.seek(from)?;
        walk(cursor, limit, false)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut cursor = self.db.cursor::<&[u8]>(..)?;
        if reverse {
            cursor.last()?
        } else {
            cursor.first()?
        }
        walk(&mut cursor, u64::MAX, reverse)
    }
}

fn walk(cursor: &mut Cursor, limit: u64, reverse: bool) -> Result<Seen> {
    let mut seen = Seen::default();
    while cursor.valid() {
        seen.add(cursor.key(), cursor.value());
        if seen.records == limit {
            break;
        }
        if reverse { cursor.prev()? } else { cursor.next()? }
    }
    Ok(seen)
}
