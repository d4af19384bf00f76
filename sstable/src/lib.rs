//! Siltstone's table files: immutable, sorted, read in place.
//!
//! A *table* (one SST file) holds entries in internal order: user keys upwards, the newest entry of a key first.
//! [`TableBuilder`] streams them into a file in bounded memory; [`Table`] reads the finished file where the mapping
//! put it: an uncompressed value is returned without a copy, a block's checksum is verified on first touch and
//! remembered. The bytes are described in [`mod@format`].
//!
//! What a point read touches, in order: one cache line of the [filter](FilterKind), the index's 8-byte key heads,
//! one block offset, the block's first line (header and one-byte key fingerprints), and the entry.
//!
//! This crate never lists a directory, starts a thread or looks at a clock.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use siltstone_sstable::*;
//! use siltstone_vfs::{Fs, MapMode, MemFs};
//!
//! let fs = MemFs::new();
//! let dir = Path::new("/db");
//! fs.create_dir_all(dir)?;
//! let path = dir.join("000001.sst");
//!
//! let mut builder = TableBuilder::new(fs.create(&path)?, &path, TableOptions::default());
//! builder.add(InternalKey::new(b"apple", Tag::new(SeqNo(7), ValueKind::Put)), b"green")?;
//! builder.add(InternalKey::new(b"apple", Tag::new(SeqNo(3), ValueKind::Put)), b"red")?;
//! assert_eq!(builder.finish()?.entries, 2);
//!
//! let lock = fs.lock_dir(dir)?;
//! let mapping = fs.open_table(&path, &lock, MapMode::Map)?;
//! let table = Table::open(mapping, TableId(1), BlockCache::new(8 << 20))?;
//! let found = table.get(b"apple", key_hash(b"apple"), SeqNo(5))?.expect("an entry that old exists");
//! assert_eq!(&*found.value, b"red");
//! # Ok::<(), siltstone_vfs::Error>(())
//! ```

mod block;
mod builder;
mod cache;
mod codec;
mod filter;
#[cfg(test)]
mod fixture;
pub mod format;
mod index;
mod iterator;
mod key;
mod key_buf;
mod key_heads;
mod merge;
mod options;
mod properties;
mod search;
mod table;
mod varint;
mod vec_iterator;

pub use builder::{TableBuilder, TableSummary};
pub use cache::{BlockCache, BlockSlice};
pub use iterator::*;
pub use key::*;
pub use key_buf::KeyBuf;
pub use key_heads::KeyHeads;
pub use merge::MergeIterator;
pub use options::{Compression, FilterKind, TableOptions};
pub use properties::Properties;
pub use table::{BlockKind, BlockLayout, Lead, Table, TableEntry, TableIter, TableValue, VerifySummary};
pub use vec_iterator::VecIterator;

pub use filter::key_hash;
