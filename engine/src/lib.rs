#![doc = include_str!("../../README.md")]

mod backlog;
mod batch;
mod codec;
mod commit;
mod compact;
mod core;
mod cursor;
mod db;
mod dead_ranges;
mod failure;
mod files;
mod flush;
mod install;
mod intake;
mod iter;
mod jobs;
mod keyspace;
mod level_iter;
mod manifest;
mod memtable;
mod metrics;
mod multi_get;
mod options;
mod reaper;
mod recovery;
mod resume;
mod sliced_filter;
mod snapshot;
mod snapshot_list;
mod source;
mod space;
mod stall;
mod super_version;
mod sync;
mod table_handle;
mod table_open;
mod table_set;
mod table_writer;
mod tree;
mod value;
mod verify;
mod workers;
mod write;

// A database, and what is read from it and written to it.
pub use batch::{BATCH_BYTES_MAX, WriteBatch};
pub use cursor::Cursor;
pub use db::Db;
pub use iter::Iter;
pub use keyspace::Keyspace;
pub use snapshot::{KeyspaceSnapshot, Snapshot};
pub use value::{Key, Value};

// What can be chosen.
pub use options::{
    BackgroundMode, Durability, Environment, KeyspaceOptions, Options, RecoveryMode, WriteOptions,
};
pub use siltstone_compaction::LEVELS;
pub use siltstone_sstable::{Compression, FilterKind, KEY_BYTES_MAX, SeqNo, VALUE_BYTES_MAX};
pub use siltstone_vfs::LogIo;

// What can be asked.
pub use metrics::Metrics;
pub use recovery::{Leftover, RecoveryReport};
pub use siltstone_vfs::{BusyReason, Error, ErrorKind, Result};
pub use verify::{VerifyOptions, VerifyReport};

/// File systems and clocks to open a database on: the seam that tests and simulations use, too.
pub use siltstone_vfs as vfs;
