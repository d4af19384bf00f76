//! surrealkv: commits are futures; each thread waits for its own, as a thread of the other engines does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use surrealkv::{
    CompactRangeOptions, CompressionType, Durability, LSMIterator, Mode, Options, ReadOptions, Transaction,
    Tree, TreeBuilder,
};
use tokio::runtime::Runtime;

use crate::data::Key;
use crate::engine::{Engine, EngineKind, Result, Seen, Session, Setup, Survives, sum};

pub(crate) const KIND: EngineKind = EngineKind {
    name: "surrealkv",
    package: "surrealkv",
    settings: "block cache 1 GiB (cold: a quarter of the memory), memtable 64 MiB, the rest default (uncompressed, \
               write-only transactions of one put); a tokio runtime of two threads, each writer waits for its commit; \
               no sync: Durability::Eventual, sync: Durability::Immediate; has no call that waits for compactions: a \
               directory that stays the same for a second is taken for settled",
    compression: Some("snappy on all levels"),
    open,
};

fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut options = Options::default();
    if setup.compress {
        options = options.with_compression_per_level(vec![CompressionType::SnappyCompression]);
    }
    let tree = {
        let _entered = runtime.enter();
        TreeBuilder::with_options(options)
            .with_path(dir.to_owned())
            .with_block_cache_capacity(setup.cache_bytes())
            .with_max_memtable_size(64 << 20)
            .build()?
    };
    let durability = match setup.survives {
        Survives::Process => Durability::Eventual,
        Survives::PowerLoss => Durability::Immediate,
    };
    Ok(Box::new(Surrealkv {
        tree,
        runtime,
        durability,
        dir: dir.to_owned(),
    }))
}

struct Surrealkv {
    // Dropped before the runtime, which it uses to the end.
    tree: Tree,
    runtime: Runtime,
    durability: Durability,
    dir: PathBuf,
}

impl Engine for Surrealkv {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Worker {
            store: self,
            reused: None,
        }))
    }

    fn settle(&self) -> Result<()> {
        let _entered = self.runtime.enter();
        // To the level where flushed tables are anyway: nothing is compacted by this.
        self.tree.compact_range(
            None,
            None,
            &CompactRangeOptions {
                flush_memtable: true,
                target_level: Some(0),
                rewrite_bottommost: false,
            },
        )?;
        let (mut quiet, mut before) = (0, files(&self.dir)?);
        while quiet < 20 {
            std::thread::sleep(Duration::from_millis(50));
            let now = files(&self.dir)?;
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Surrealkv { tree, runtime, .. } = *self;
        runtime.block_on(tree.close())?;
        Ok(())
    }
}

/// All files below, with their lengths; one that goes meanwhile is left out.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut waiting) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => waiting.push(path),
                Ok(metadata) => found.push((path, metadata.len())),
                Err(_) => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

struct Worker<'e> {
    store: &'e Surrealkv,
    reused: Option<Transaction>,
}

impl Worker<'_> {
    fn write(&self, change: impl FnOnce(&mut Transaction) -> surrealkv::Result<()>) -> Result<()> {
        let mut transaction = self.store.tree.begin_with_mode(Mode::WriteOnly)?;
        transaction.set_durability(self.store.durability);
        change(&mut transaction)?;
        Ok(self.store.runtime.block_on(transaction.commit())?)
    }

    fn read(&self) -> Result<Transaction> {
        Ok(self.store.tree.begin_with_mode(Mode::ReadOnly)?)
    }
}

impl Session for Worker<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|transaction| transaction.set(key, value))
    }

    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        self.write(|transaction| {
            records
                .iter()
                .try_for_each(|(key, value)| transaction.set(key.as_ref(), value.as_slice()))
        })
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.write(|transaction| transaction.delete(key))
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.read()?.get(key)?.map(|value| sum(&value)))
    }

    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        walk(&self.read()?, from, limit)
    }

    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen> {
        if self.reused.is_none() {
            self.reused = Some(self.read()?);
        }
        match &self.reused {
            Some(view) => walk(view, from, limit),
            None => Ok(Seen::default()),
        }
    }

    fn scan(&mut self, reverse: bool) -> Result<Seen> {
        let view = self.read()?;
        let mut records = view.iter()?;
        let mut seen = Seen::default();
        let mut is_there = if reverse {
            records.seek_last()?
        } else {
            records.seek_first()?
        };
        while is_there {
            seen.add(records.key().user_key(), &records.value_ref()?);
            is_there = if reverse { records.prev()? } else { records.next()? };
        }
        Ok(seen)
    }
}

fn walk(view: &Transaction, from: &[u8], limit: u64) -> Result<Seen> {
    let mut bounds = ReadOptions::new();
    bounds.set_iterate_lower_bound(Some(from.to_vec()));
    let mut records = view.range_with_options(&bounds)?;
    let mut seen = Seen::default();
    let mut is_there = records.seek_first()?;
    while is_there && seen.records < limit {
        seen.add(records.key().user_key(), &records.value_ref()?);
        is_there = records.next()?;
    }
    Ok(seen)
}
