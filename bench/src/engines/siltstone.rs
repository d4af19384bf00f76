//! Siltstone with a fresh `Options`: nothing is tuned for a benchmark.

use std::path::Path;

use siltstone::{Cursor, Db, Durability, Options, WriteBatch};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "siltstone",
    package: "siltstone",
    settings: "Options::default(): memtable 64 MiB, no compression, tables mapped; no sync: Durability::Buffered, \
               sync: Durability::Sync",
    open,
};

fn open(dir: &Path, survives: Survives) -> Result<Box<dyn Engine>> {
    let durability = match survives {
        Survives::Process => Durability::Buffered,
        Survives::PowerLoss => Durability::Sync,
    };
    Ok(Box::new(Siltstone(
        Options::default().durability(durability).open(dir)?,
    )))
}

struct Siltstone(Db);

impl Engine for Siltstone {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Writer(&self.0)))
    }

    fn settle(&self) -> Result<()> {
        self.0.flush_all()?;
        Ok(self.0.wait_idle()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

struct Writer<'d>(&'d Db);

impl Session for Writer<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.put(key, value)?)
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in records {
            batch.put(key, value);
        }
        Ok(self.0.write(batch)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.0.get_with(key, sum)?)
    }

    fn multi_get(&mut self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        for value in self.0.multi_get(keys) {
            if let Some(value) = value? {
                seen.add(&[], &value);
            }
        }
        Ok(seen)
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let mut cursor = self.0.cursor::<&[u8]>(..)?;
        cursor.seek(from)?;
        walk(&mut cursor, limit, false)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut cursor = self.0.cursor::<&[u8]>(..)?;
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
