//! redb: one table, a 1 GiB cache, one transaction an operation.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition, TableError};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "redb",
    package: "redb",
    settings: "cache 1 GiB (cold: a quarter of the memory), Durability::Immediate; no sync: over a backend whose sync_data does nothing, because \
               its Durability::None loses everything when the process dies; sync: its own file backend",
    compression: None,
    open,
};

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("bench");

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("bench.redb");
    let mut builder = Database::builder();
    builder.set_cache_size(usize::try_from(setup.cache_bytes())?);
    let db = match setup.survives {
        Survives::PowerLoss => builder.create(path)?,
        Survives::Process => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            builder.create_with_backend(Unsynced::new(file)?)?
        }
    };
    let transaction = db.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    Ok(Box::new(Redb(db)))
}

/// A file that leaves its bytes with the operating system.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl Unsynced {
    fn new(file: File) -> Result<Self> {
        Ok(Self(FileBackend::new(file)?))
    }
}

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

struct Redb(Database);

impl Engine for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            db: &self.0,
            reused: None,
        }))
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct Worker<'d> {
    db: &'d Database,
    reused: Option<Records>,
}

impl Worker<'_> {
    fn records(&self) -> Result<Records> {
        let transaction = self.db.begin_read()?;
        let table: std::result::Result<_, TableError> = transaction.open_table(RECORDS);
        Ok(table?)
    }
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let transaction = self.db.begin_write()?;
        transaction.open_table(RECORDS)?.insert(key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let transaction = self.db.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, value) in records {
                table.insert(key.as_ref(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let transaction = self.db.begin_write()?;
        transaction.open_table(RECORDS)?.remove(key)?;
        Ok(transaction.commit()?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.records()?.get(key)?.map(|value| sum(value.value())))
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        walk(&self.records()?, from, limit)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let records = match self.reused.take() {
            Some(records) => records,
            None => self.records()?,
        };
        walk(self.reused.insert(records), from, limit)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut records = self.records()?.range::<&[u8]>(..)?;
        while let Some(record) = if reverse {
            records.next_back()
        } else {
            records.next()
        } {
            let (key, value) = record?;
            seen.add(key.value(), value.value());
        }
        Ok(seen)
    }
}

fn walk(records: &Records, from: &[u8], limit: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    for record in records.range(from..)? {
        let (key, value) = record?;
        seen.add(key.value(), value.value());
        if seen.records == limit {
            break;
        }
    }
    Ok(seen)
}
