//! LMDB through `heed`: the unnamed database, one transaction an operation.
#![allow(unsafe_code)] // heed's open is unsafe (the file must not change under the mapping), and so is its lifetime here

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Reads, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "lmdb",
    package: "lmdb-master-sys",
    settings: "LMDB 0.9 built by lmdb-master-sys, through heed; map of 64 GiB, one read transaction a read; \
               no sync: MDB_NOSYNC | MDB_WRITEMAP, sync: no flags; cold random reads: MDB_NORDAHEAD",
    compression: None,
    open,
};

const MAP_BYTES: usize = 64 << 30;

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    let mut flags = EnvFlags::empty();
    if setup.survives == Survives::Process {
        flags |= EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP;
    }
    if let Reads::ColdRandom(_) = setup.reads {
        flags |= EnvFlags::NO_READ_AHEAD;
    }
    // SAFETY: NO_SYNC gives up consistency after power loss, which is not claimed at this level; WRITE_MAP asks that
    // nobody writes through stray pointers, and this program has none into the map; NO_READ_AHEAD asks for nothing.
    unsafe { options.flags(flags) };
    // SAFETY: the directory is this run's own; nothing else opens, truncates or edits the file meanwhile.
    let env = unsafe { options.open(dir)? };
    let env: &'static Env = Box::leak(Box::new(env));
    let transaction = env.write_txn()?;
    let records = env
        .create_databases_and_commit(transaction, |opener, transaction| {
            opener
                .create_database(transaction, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Ok(Box::new(Lmdb { env, records }))
}

struct Lmdb {
    env: &'static Env,
    records: Database<'static, Bytes, Bytes>,
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        // SAFETY: `env` came from `Box::leak` in `open`, only this struct has the reference, sessions and their
        // transactions borrow the struct and are gone, and `records` has no drop that would look at it.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self.env).cast_mut()) });
    }
}

impl Engine for Lmdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            store: self,
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

impl Lmdb {
    fn walk(&self, transaction: &RoTxn<'_>, from: &[u8], limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        let bounds = (Bound::Included(from), Bound::Unbounded);
        for record in self.records.range(transaction, &bounds)? {
            let (key, value) = record?;
            seen.add(key, value);
            if seen.records == limit {
                break;
            }
        }
        Ok(seen)
    }
}

struct Worker<'e> {
    store: &'e Lmdb,
    reused: Option<RoTxn<'e, WithTls>>,
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.store.env.write_txn()?;
        self.store.records.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.store.env.write_txn()?;
        for (key, value) in records {
            self.store.records.put(&mut transaction, key.as_ref(), value)?;
        }
        Ok(transaction.commit()?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let mut transaction = self.store.env.write_txn()?;
        self.store.records.delete(&mut transaction, key)?;
        Ok(transaction.commit()?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        let transaction = self.store.env.read_txn()?;
        Ok(self.store.records.get(&transaction, key)?.map(sum))
    }

    fn multi_get(&mut self, keys: &[Key]) -> Result<Seen> {
        let transaction = self.store.env.read_txn()?;
        let mut seen = Seen::default();
        for key in keys {
            if let Some(value) = self.store.records.get(&transaction, key.as_ref())? {
                seen.add(&[], value);
            }
        }
        Ok(seen)
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let transaction = self.store.env.read_txn()?;
        self.store.walk(&transaction, from, limit)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        let transaction = match self.reused.take() {
            Some(transaction) => transaction,
            None => self.store.env.read_txn()?,
        };
        let transaction = self.reused.insert(transaction);
        self.store.walk(transaction, from, limit)
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let transaction = self.store.env.read_txn()?;
        let mut seen = Seen::default();
        if reverse {
            for record in self.store.records.rev_iter(&transaction)? {
                let (key, value) = record?;
                seen.add(key, value);
            }
        } else {
            for record in self.store.records.iter(&transaction)? {
                let (key, value) = record?;
                seen.add(key, value);
            }
        }
        Ok(seen)
    }
}
