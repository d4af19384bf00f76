//! What a store must be able to do to be measured, and the list of those that can.

use std::path::Path;

use crate::data::Key;

/// Whatever a store reports; the run ends with it.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// See [`Error`].
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What an acknowledged write survives: the same for every engine of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The death of the process.
    Process,
    /// Power loss.
    PowerLoss,
}

/// What reads find in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Everything: caches are sized for all of the data.
    Warm,
    /// Almost nothing, in this many bytes of memory, at random.
    ColdRandom(u64),
    /// Almost nothing, in this many bytes of memory, in key order.
    ColdScan(u64),
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// The level of every acknowledged write.
    pub(crate) survives: Survives,
    /// Whether data is to be compressed, if the store can.
    pub(crate) compress: bool,
    /// What memory there is for reads.
    pub(crate) reads: Reads,
}

impl Setup {
    /// Bytes for the store's own cache, the same for all: 1 GiB, or a quarter of the little memory of cold runs.
    pub(crate) fn cache_bytes(&self) -> u64 {
        match self.reads {
            Reads::Warm => 1 << 30,
            Reads::ColdRandom(memory) | Reads::ColdScan(memory) => memory / 4,
        }
    }
}

/// Records that were read, and the sum of all their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// How many.
    pub(crate) records: u64,
    /// [`sum`] of keys and values, wrapped around.
    pub(crate) sum: u64,
}

impl Seen {
    /// Adds one record.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(sum(key)).wrapping_add(sum(value));
    }
}

/// An open store.
pub(crate) trait Engine: Send + Sync {
    /// What one thread works through.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Flushes what is in memory and waits until the store has nothing left to do in the background.
    fn settle(&self) -> Result<()>;

    /// Closes it cleanly.
    fn close(self: Box<Self>) -> Result<()>;
}

/// One thread's work. Each call sees everything that was written before it, by any thread.
pub(crate) trait Session {
    /// Writes one record, acknowledged at the level the store was opened with.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes records atomically.
    fn put_batch(&mut self, records: &[(Key, Vec<u8>)]) -> Result<()>;

    /// Removes one record.
    fn delete(&mut self, key: &[u8]) -> Result<()>;

    /// The [`sum`] of the value of `key`.
    fn get(&mut self, key: &[u8]) -> Result<Option<u64>>;

    /// The values of `keys`, one by one where the store knows no better. Only values count in the sum.
    fn multi_get(&mut self, keys: &[Key]) -> Result<Seen> {
        let mut seen = Seen::default();
        for key in keys {
            if let Some(sum) = self.get(key.as_ref())? {
                seen.records += 1;
                seen.sum = seen.sum.wrapping_add(sum);
            }
        }
        Ok(seen)
    }

    /// Up to `limit` records from the first at or after `from`, over a view that is taken now.
    fn seek(&mut self, from: &[u8], limit: u64) -> Result<Seen>;

    /// As `seek`, over a view, and with a cursor where the store has one that can be moved, that the first call of
    /// this session takes and the others use again. A session that is asked this is asked nothing else: LMDB has one
    /// view a thread.
    fn seek_reused(&mut self, from: &[u8], limit: u64) -> Result<Seen>;

    /// All records in one direction.
    fn scan(&mut self, reverse: bool) -> Result<Seen>;
}

/// Reads every byte.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words
        .iter()
        .fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter()
        .fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

type Open = fn(&Path, &Setup) -> Result<Box<dyn Engine>>;

/// A store that this build knows.
pub(crate) struct EngineKind {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// The package in this program's lock file whose version is reported.
    pub(crate) package: &'static str,
    /// How it is configured, in words.
    pub(crate) settings: &'static str,
    /// How it compresses when asked to; `None` if it cannot.
    pub(crate) compression: Option<&'static str>,
    /// Opens or creates it.
    pub(crate) open: Open,
}

impl EngineKind {
    /// The version that was built, from the lock file.
    pub(crate) fn version(&self) -> &'static str {
        let lock = include_str!("../Cargo.lock");
        let entry = format!("name = \"{}\"\nversion = \"", self.package);
        lock.split_once(&entry)
            .and_then(|(_, rest)| rest.split('"').next())
            .unwrap_or("unknown")
    }
}

/// Every store of this build; features choose the peers.
pub(crate) const ENGINES: &[EngineKind] = &[
    crate::engines::siltstone::KIND,
    #[cfg(feature = "fjall")]
    crate::engines::fjall::KIND,
    #[cfg(feature = "lmdb")]
    crate::engines::lmdb::KIND,
    #[cfg(feature = "redb")]
    crate::engines::redb::KIND,
    #[cfg(feature = "rocksdb")]
    crate::engines::rocksdb::KIND,
    #[cfg(feature = "rocksdb")]
    crate::engines::rocksdb::KIND_MMAP,
    #[cfg(feature = "surrealkv")]
    crate::engines::surrealkv::KIND,
];

/// The store of that name.
pub(crate) fn engine_named(name: &str) -> Result<&'static EngineKind> {
    ENGINES.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let known: Vec<_> = ENGINES.iter().map(|kind| kind.name).collect();
        format!("no engine {name} in this build; it has {}", known.join(", ")).into()
    })
}
