//! What a user can choose: plain data, validated once, never adjusted in silence.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siltstone_compaction::{LEVELS, LeveledOptions};
use siltstone_sstable::{Compression, FilterKind, TableOptions};
use siltstone_vfs::{Clock, Error, Fs, LogIo, OsFs, Result, SystemClock};

use crate::Db;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the batch survives the death of the process: it is in the operating system's hands, not on the device.
    #[default]
    Buffered,
    /// When the batch survives power loss: the log is synced up to it. Writers that wait share one sync.
    Sync,
}

/// What to do about damage in the write-ahead log at open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Refuse to open where synced records are damaged, and say what would be lost. A torn tail, which was never
    /// acknowledged as synced, is dropped.
    #[default]
    Strict,
    /// Keep what lies before the damage and drop the rest; [`RecoveryReport`](crate::RecoveryReport) says what.
    Salvage,
}

/// Who runs flushes, compactions and the removal of obsolete files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackgroundMode {
    /// Threads of the database.
    #[default]
    Threads,
    /// The caller, through [`Db::run_background_job`], and writers that would have to wait. Nothing happens behind
    /// the caller's back: for simulations and single-threaded programs.
    Manual,
}

/// What a database stands on. The default is the operating system.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The clock that stalls and deadlines go by.
    pub clock: Arc<dyn Clock>,
    /// Who runs the background work.
    pub background: BackgroundMode,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            fs: Arc::new(OsFs::new()),
            clock: Arc::new(SystemClock::new()),
            background: BackgroundMode::Threads,
        }
    }
}

/// The options of one keyspace. Persisted with it; may be changed at every open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyspaceOptions {
    pub(crate) memtable_size_bytes: u64,
    pub(crate) memtables_max: usize,
    pub(crate) block_size_bytes: usize,
    pub(crate) compression: [Compression; LEVELS],
    pub(crate) filter: FilterKind,
    pub(crate) l0_compaction_trigger: usize,
    pub(crate) l0_slowdown_tables: usize,
    pub(crate) l0_stop_tables: usize,
    pub(crate) level_base_bytes: u64,
    pub(crate) level_multiplier: u64,
    pub(crate) target_table_bytes: u64,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            memtable_size_bytes: 16 << 20,
            memtables_max: 3,
            block_size_bytes: 4096,
            compression: [Compression::None; LEVELS],
            filter: FilterKind::Auto,
            l0_compaction_trigger: 16,
            l0_slowdown_tables: 32,
            l0_stop_tables: 48,
            level_base_bytes: 256 << 20,
            level_multiplier: 10,
            target_table_bytes: 64 << 20,
        }
    }
}

/// Defines the same builder methods for [`KeyspaceOptions`] and, for the default keyspace, on [`Options`].
macro_rules! keyspace_setters {
    ($(($($field:tt)+))?) => {
        /// Bytes after which a memtable is flushed. Default 16 MiB, minimum 16 KiB. Larger: fewer, bigger flushes,
        /// less write amplification, more memory and a longer log to replay. One that follows a memtable which took in less
        /// than 16 MiB a second, or none, is flushed at half of this: it and
        /// the memory of its flush then stay within the size, if that is the default or more. From the first flush onto three
        /// sorted runs of level 0 on, and as long as they gather there, a filter for these tables takes up to an eighth of this size more.
        #[must_use]
        pub fn memtable_size_bytes(mut self, bytes: u64) -> Self {
            self$(.$($field)+)?.memtable_size_bytes = bytes;
            self
        }

        /// Memtables in memory, the active one included, before writers wait. Default 3, minimum 2.
        #[must_use]
        pub fn memtables_max(mut self, count: usize) -> Self {
            self$(.$($field)+)?.memtables_max = count;
            self
        }

        /// Bytes of a data block as stored. Default 4096 (one page: a cold read costs one), 512 to 1 MiB. Larger
        /// blocks compress better and cost more for each point read.
        #[must_use]
        pub fn block_size_bytes(mut self, bytes: usize) -> Self {
            self$(.$($field)+)?.block_size_bytes = bytes;
            self
        }

        /// Compression of all levels. Default none: values are then returned in place.
        #[must_use]
        pub fn compression(mut self, compression: Compression) -> Self {
            self$(.$($field)+)?.compression = [compression; LEVELS];
            self
        }

        /// Compression of each level from 0 down; usual is none above and zstd at the bottom.
        #[must_use]
        pub fn compression_per_level(mut self, compression: [Compression; LEVELS]) -> Self {
            self$(.$($field)+)?.compression = compression;
            self
        }

        /// The filter of each table. Default [`FilterKind::Auto`]: a hash index, or where entries are small a blocked Bloom
        /// filter of 10 bits a key.
        #[must_use]
        pub fn filter(mut self, filter: FilterKind) -> Self {
            self$(.$($field)+)?.filter = filter;
            self
        }

        /// Tables in level 0 that start a compaction. Default 16, minimum 1. Fewer: faster reads, more rewriting.
        ///
        /// While flushes make tables faster than compactions can take them down the levels (64 MiB a second for each thread that
        /// compacts, until it is less than half of that), level 0 waits longer: until it has as many tables as lie half way
        /// from here to where writes are delayed. Then these become one sorted run, which stays in level 0 until writes let
        /// up; a read asks one table of it. Once there are as many such runs as tables make one, or more than 32 times
        /// [`level_base_bytes`](Self::level_base_bytes) would be rewritten to take them down, they go down beside the writes.
        #[must_use]
        pub fn l0_compaction_trigger(mut self, tables: usize) -> Self {
            self$(.$($field)+)?.l0_compaction_trigger = tables;
            self
        }

        /// Tables in level 0 from which writes are delayed, a little more with each, and at which they wait. What has been merged
        /// there into sorted runs does not count, up to twice as many runs as tables make one.
        /// Default 32 and 48; trigger ≤ slowdown < stop.
        #[must_use]
        pub fn l0_stall_tables(mut self, slowdown: usize, stop: usize) -> Self {
            self$(.$($field)+)?.l0_slowdown_tables = slowdown;
            self$(.$($field)+)?.l0_stop_tables = stop;
            self
        }

        /// Target bytes of the first level below 0. Default 256 MiB, minimum 64 KiB.
        #[must_use]
        pub fn level_base_bytes(mut self, bytes: u64) -> Self {
            self$(.$($field)+)?.level_base_bytes = bytes;
            self
        }

        /// How many times larger each level is than the one above. Default 10, 2 to 100.
        #[must_use]
        pub fn level_multiplier(mut self, multiplier: u64) -> Self {
            self$(.$($field)+)?.level_multiplier = multiplier;
            self
        }

        /// Bytes at which compaction cuts its output. Default 64 MiB, minimum 16 KiB.
        #[must_use]
        pub fn target_table_bytes(mut self, bytes: u64) -> Self {
            self$(.$($field)+)?.target_table_bytes = bytes;
            self
        }
    };
}

impl KeyspaceOptions {
    keyspace_setters!();

    pub(crate) fn validate(&self) -> Result<()> {
        at_least("memtable_size_bytes", self.memtable_size_bytes, 16 << 10)?;
        at_least("memtables_max", self.memtables_max as u64, 2)?;
        between("block_size_bytes", self.block_size_bytes as u64, 512, 1 << 20)?;
        at_least("l0_compaction_trigger", self.l0_compaction_trigger as u64, 1)?;
        if self.l0_slowdown_tables < self.l0_compaction_trigger
            || self.l0_stop_tables <= self.l0_slowdown_tables
        {
            return Err(Error::invalid(format!(
                "level-0 tables must go up from trigger ({}) to slowdown ({}) to stop ({})",
                self.l0_compaction_trigger, self.l0_slowdown_tables, self.l0_stop_tables
            )));
        }
        at_least("level_base_bytes", self.level_base_bytes, 64 << 10)?;
        between("level_multiplier", self.level_multiplier, 2, 100)?;
        at_least("target_table_bytes", self.target_table_bytes, 16 << 10)?;
        for compression in &self.compression {
            if let Compression::Zstd { level } = compression
                && !(-7..=22).contains(level)
            {
                return Err(Error::invalid(format!(
                    "zstd level {level} is not between -7 and 22"
                )));
            }
        }
        if let FilterKind::Standard { bits_per_key } | FilterKind::Blocked { bits_per_key } = self.filter {
            between("filter bits_per_key", u64::from(bits_per_key), 1, 64)?;
        }
        Ok(())
    }

    /// What its memtables take while writes outrun flushes, with one that is flushed and on its way out.
    pub(crate) fn memtables_bytes_max(&self) -> u64 {
        self.memtable_size_bytes
            .saturating_mul(self.memtables_max as u64 + 1)
    }

    pub(crate) fn table_options(&self, level: usize) -> TableOptions {
        TableOptions {
            block_size_bytes: self.block_size_bytes,
            compression: self.compression[level],
            filter: self.filter,
        }
    }

    pub(crate) fn leveled(&self) -> LeveledOptions {
        LeveledOptions {
            l0_compaction_trigger: self.l0_compaction_trigger,
            // Before writers are delayed, where there is room between.
            l0_run_trigger: usize::midpoint(self.l0_compaction_trigger, self.l0_slowdown_tables).max(2),
            level_base_bytes: self.level_base_bytes,
            level_multiplier: self.level_multiplier,
            target_table_bytes: self.target_table_bytes,
            max_compaction_bytes: self.target_table_bytes.saturating_mul(25),
            ..LeveledOptions::default()
        }
    }
}

/// The options of a database; those of its default keyspace are set here, too.
///
/// ```
/// use siltstone::{Durability, Options};
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Options::default().durability(Durability::Sync).memtable_size_bytes(8 << 20).open(dir.path())?;
/// db.put("key", "value")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) create_if_missing: bool,
    pub(crate) durability: Durability,
    pub(crate) recovery: RecoveryMode,
    pub(crate) background_threads: usize,
    pub(crate) compaction_nice: u8,
    pub(crate) flush_nice: u8,
    pub(crate) block_cache_bytes: u64,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_size_max_bytes: u64,
    pub(crate) log_io: LogIo,
    pub(crate) reserve_bytes: u64,
    pub(crate) mapped_tables_max: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) default_keyspace: KeyspaceOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            durability: Durability::Buffered,
            recovery: RecoveryMode::Strict,
            background_threads: 2,
            compaction_nice: 10,
            flush_nice: 5,
            block_cache_bytes: 64 << 20,
            log_segment_bytes: 16 << 20,
            log_size_max_bytes: 512 << 20,
            log_io: LogIo::Mapped,
            reserve_bytes: 16 << 20,
            mapped_tables_max: 30_000,
            stall_timeout: Duration::from_secs(60),
            default_keyspace: KeyspaceOptions::default(),
        }
    }
}

impl Options {
    keyspace_setters!((default_keyspace));

    /// Whether a missing database is created. Default true.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// When writes are acknowledged that do not say so themselves. Default [`Durability::Buffered`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What to do about damage in the log at open. Default [`RecoveryMode::Strict`].
    #[must_use]
    pub fn recovery(mut self, mode: RecoveryMode) -> Self {
        self.recovery = mode;
        self
    }

    /// Threads for flushes (one) and compactions (the others); one more removes obsolete files, and one makes log
    /// segments ready. What writers wait for, memtables that wait for a flush together and large merges of tables of level 0, is
    /// cut into up to so many parts, and up to as many threads more, which last as long as that takes, write them side by side.
    /// Default 2, 2 to 64.
    #[must_use]
    pub fn background_threads(mut self, threads: usize) -> Self {
        self.background_threads = threads;
        self
    }

    /// How much nicer the threads for compactions are than the one that opens the database. Default 10, 0 to 19. With
    /// more, reads and writes are faster where there are not enough cores for all; with 0, compactions keep up
    /// where other threads would use every core all the time, and writes are held up later.
    #[must_use]
    pub fn compaction_nice(mut self, nice: u8) -> Self {
        self.compaction_nice = nice;
        self
    }

    /// How much the thread that flushes gives way to other threads of the machine, as
    /// [`compaction_nice`](Self::compaction_nice). Default 5: on a machine whose cores are all in use, reads and writes go
    /// before flushes, up to the point where writers wait for one (`memtables_max`).
    #[must_use]
    pub fn flush_nice(mut self, nice: u8) -> Self {
        self.flush_nice = nice;
        self
    }

    /// Bytes of decompressed blocks that are kept. Uncompressed tables never use it. Default 64 MiB; 0 keeps none.
    #[must_use]
    pub fn block_cache_bytes(mut self, bytes: u64) -> Self {
        self.block_cache_bytes = bytes;
        self
    }

    /// Bytes of one preallocated log segment. Default 16 MiB, 4 KiB to 4 GiB. Beside the segments that recovery needs, the
    /// log has one that is ready to be written to and, while commits are not synced, keeps up to two to be written to again
    /// (where the file system overwrites in place: ext4). [`wait_idle`](Db::wait_idle) and a full disk have these two removed.
    #[must_use]
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log_segment_bytes = bytes;
        self
    }

    /// Bytes of log past which the keyspaces that hold it back are flushed, so that an idle one cannot. Default
    /// 512 MiB; at least two segments.
    #[must_use]
    pub fn log_size_max_bytes(mut self, bytes: u64) -> Self {
        self.log_size_max_bytes = bytes;
        self
    }

    /// How the log is written: through a shared mapping (the default) or with a system call a record. Always the latter on a
    /// file system that copies on write (btrfs, bcachefs, ZFS), where a store into a mapping can find the disk full, which
    /// is a SIGBUS.
    #[must_use]
    pub fn log_io(mut self, io: LogIo) -> Self {
        self.log_io = io;
        self
    }

    /// Bytes set aside on the disk, to be given up when it is full so that flushes and compactions can free space.
    /// Default 16 MiB; 0 for none.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Tables that are mapped at the most; the others are read with positioned reads. Default 30,000, under the
    /// kernel's usual limit of 65,530 mappings a process.
    #[must_use]
    pub fn mapped_tables_max(mut self, tables: usize) -> Self {
        self.mapped_tables_max = tables;
        self
    }

    /// The longest a write waits in a stall when its own options give no deadline. Default 60 s.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Opens the database in `dir`, creating it if that is allowed.
    ///
    /// # Errors
    /// See [`Db::open`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Db> {
        self.open_with(dir, Environment::default())
    }

    /// Opens the database on another file system or clock, or with background work under the caller's control.
    ///
    /// # Errors
    /// See [`Db::open`].
    pub fn open_with(self, dir: impl AsRef<Path>, environment: Environment) -> Result<Db> {
        self.validate()?;
        Db::open_with(dir.as_ref(), self, environment)
    }

    fn validate(&self) -> Result<()> {
        between("background_threads", self.background_threads as u64, 2, 64)?;
        between("compaction_nice", u64::from(self.compaction_nice), 0, 19)?;
        between("flush_nice", u64::from(self.flush_nice), 0, 19)?;
        between("log_segment_bytes", self.log_segment_bytes, 4 << 10, 4 << 30)?;
        at_least(
            "log_size_max_bytes",
            self.log_size_max_bytes,
            self.log_segment_bytes * 2,
        )?;
        self.default_keyspace.validate()
    }
}

/// How one write is done.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// When it is acknowledged; `None` for the database's own durability.
    pub durability: Option<Durability>,
    /// The longest it may wait in a stall before it is refused with `Busy`; `None` for
    /// [`Options::stall_timeout`]. Zero never waits.
    pub deadline: Option<Duration>,
}

impl WriteOptions {
    /// Acknowledged when it survives power loss.
    pub fn sync() -> Self {
        Self {
            durability: Some(Durability::Sync),
            deadline: None,
        }
    }

    /// Sets the durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

fn at_least(name: &str, value: u64, min: u64) -> Result<()> {
    if value < min {
        return Err(Error::invalid(format!("{name} is {value}, the minimum is {min}")));
    }
    Ok(())
}

fn between(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if !(min..=max).contains(&value) {
        return Err(Error::invalid(format!(
            "{name} is {value}, not between {min} and {max}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_refused_by_name() {
        let wrong = [
            (Options::default().memtable_size_bytes(1), "memtable_size_bytes"),
            (Options::default().block_size_bytes(2 << 20), "block_size_bytes"),
            (Options::default().l0_stall_tables(8, 8), "level-0"),
            (
                Options::default().compression(Compression::Zstd { level: 99 }),
                "zstd",
            ),
            (Options::default().background_threads(1), "background_threads"),
            (Options::default().compaction_nice(20), "compaction_nice"),
            (Options::default().flush_nice(20), "flush_nice"),
            (Options::default().log_size_max_bytes(1), "log_size_max_bytes"),
        ];
        for (options, name) in wrong {
            let message = options.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        Options::default().validate().unwrap();
    }
}
