//! Siltstone's write-ahead log.
//!
//! A log is a row of preallocated *segment* files that hold *records*. A record is a payload that this crate never
//! looks into, framed with its length, a checksum, the segment it belongs to and its place in the log's life, so that
//! replay reads exactly what was appended, in order, and takes nothing else for it: not a half-written record, not the
//! old bytes of a reused file, not a copy of another segment.
//!
//! - [`Log`] appends. It has one owner, and when [`append`](Log::append) returns the record survives the death of the
//!   process.
//! - [`LogSyncer`] makes durable, from any thread: one `fdatasync` serves everyone who waits for it. It also prepares
//!   the next segment ahead of time.
//! - [`replay()`] reads the log back and tells a *torn tail*, which is what a crash leaves and is dropped, from *damage*,
//!   which is refused. It can, because each record carries the *synced watermark*: how far the log was known to be
//!   durable when the record was written.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use siltstone_vfs::{Fs, MemFs, Result};
//! use siltstone_wal::{Log, LogOptions, RecordSeq, SegmentId, Tail, TailPolicy, replay};
//!
//! # fn main() -> Result<()> {
//! let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
//! let dir = Path::new("/db");
//! fs.create_dir_all(dir)?;
//!
//! let (mut log, syncer) = Log::create(fs.clone(), dir, SegmentId(1), RecordSeq(1), LogOptions::default())?;
//! log.append(&[b"put", b"rain"])?;
//! let last = log.append(&[b"snow"])?;
//! syncer.sync_to(last)?;
//!
//! let mut seen = Vec::new();
//! let replay = replay(&*fs, dir, &[SegmentId(1)], TailPolicy::Strict, &mut |record| {
//!     seen.push(record.payload.to_vec());
//!     Ok(())
//! })?;
//! assert_eq!(seen, [b"putrain".to_vec(), b"snow".to_vec()]);
//! assert_eq!((replay.tail, replay.next_sequence), (Tail::Clean, RecordSeq(3)));
//! # Ok(())
//! # }
//! ```
//!
//! What never happens here: a look inside a payload, a thread, a timer, the removal of a file that holds records.

pub mod format;

mod first_error;
mod group_sync;
mod ids;
mod log;
mod options;
mod replay;
mod syncer;

pub use format::RECORD_BYTES_MAX;
pub use ids::{RecordSeq, SegmentId, parse_segment_name, segment_path};
pub use log::Log;
pub use options::LogOptions;
pub use replay::{Record, Replay, SegmentReplay, SegmentState, Tail, TailPolicy, replay};
pub use syncer::LogSyncer;

#[cfg(test)]
mod tests;
