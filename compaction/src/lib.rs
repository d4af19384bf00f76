//! Siltstone's level structure, as pure data and pure functions.
//!
//! A keyspace's tables form a [`Version`]: level 0 takes the flushes, and its tables may overlap; each deeper level is one
//! sorted run, about ten times larger than the one above. A [`VersionEdit`] leads from one version to the next.
//! A compaction keeps the levels in shape:
//!
//! 1. [`pick`] looks at a version, the [`LeveledOptions`] and what is [`InFlight`], and returns a [`Plan`]:
//!    level 0 by overlap, deeper levels by size and least overlap, tables full of tombstones when nothing else is
//!    to do. While writes come faster than that can be done, tables of level 0 become [sorted runs](sorted_runs) in it
//!    instead, which go down together later. [`pick_range`] is the manual kind. [`scores`] and [`debt_bytes`] say how far behind compaction is.
//! 2. A [`PlanKind::Trivial`] or [`PlanKind::DeleteOnly`] plan is only an edit. For a [`PlanKind::Merge`], the caller
//!    merges the inputs and writes what [`CompactionStream`] lets through: the newest entry of each key for each
//!    snapshot, without the tombstones that [`BottomCheck`] knows to hide nothing. [`Plan::key_parts`] cuts a large plan
//!    into parts that several threads write side by side.
//! 3. [`OutputSplitter`] says where one output table ends: near the target size, with the tables of the next
//!    level, never within a user key.
//! 4. [`Plan::edit`] and [`Version::apply`] make the next version.
//!
//! What always holds, whatever runs beside what: for any user key, the entries in a level are newer than those in
//! deeper ones, and of two overlapping tables in level 0 one is newer as a whole. So a read takes the first entry that
//! it finds on its way down. [`Version::check`] checks what metadata shows of it.
//!
//! This crate never opens a file, starts a thread or reads a clock: its tests run whole histories over vectors.
//!
//! ```
//! use std::sync::Arc;
//! use siltstone_compaction::*;
//! use siltstone_sstable::{SeqNo, TableId, Tag, ValueKind, VecIterator};
//!
//! // Four flushes, each newer than the last.
//! let mut version = Version::default();
//! for flush in 1..=4_u64 {
//!     version = version.apply(&VersionEdit::flush(TableMeta {
//!         id: TableId(flush),
//!         size_bytes: 1 << 20,
//!         entries: 1,
//!         tombstones: 0,
//!         smallest: (*b"apple").into(),
//!         largest: (*b"apple").into(),
//!         seqno_min: SeqNo(flush),
//!         seqno_max: SeqNo(flush),
//!     }))?;
//! }
//! let (options, mut busy) = (LeveledOptions::default(), InFlight::new());
//! let plan = pick(&version, &options, &busy, &mut Cursors::default()).expect("level 0 is at its trigger");
//! assert_eq!((plan.level, plan.output_level, plan.kind), (0, 6, PlanKind::Merge));
//! busy.start(&plan);
//!
//! // The caller merges the inputs; here they are written out.
//! let put = |seqno| (b"apple".to_vec(), Tag::new(SeqNo(seqno), ValueKind::Put), b"red".to_vec());
//! let input = VecIterator::new(Arc::new(vec![put(4), put(3), put(2), put(1)]));
//! let mut stream = CompactionStream::new(input, &[], BottomCheck::new(&version, &plan));
//! let mut splitter = OutputSplitter::new(options.target_table_bytes, plan.grandparents.clone());
//! let mut outputs = Vec::new();
//! while let Some((key, _value)) = stream.next()? {
//!     assert!(!splitter.should_cut_before(key.user_key, 0));
//!     outputs.push(TableMeta { id: TableId(5), seqno_min: key.tag.seqno(), seqno_max: key.tag.seqno(),
//!         ..(*version.level(0)[0]).clone() });
//! }
//! version = version.apply(&plan.edit(outputs))?;
//! busy.finish(&plan);
//! assert_eq!(version.tables().count(), 1);
//! assert_eq!(version.level(6)[0].seqno_max, SeqNo::ZERO, "nothing below, no snapshot: settled");
//! # Ok::<(), siltstone_vfs::Error>(())
//! ```

mod bottom;
mod cursors;
mod edit;
mod in_flight;
mod options;
mod parts;
mod pick;
mod plan;
mod runs;
mod split;
mod stream;
mod table_meta;
mod targets;
mod version;

pub use edit::VersionEdit;
pub use table_meta::TableMeta;
pub use version::{LEVELS, Version};

pub use cursors::Cursors;
pub use in_flight::InFlight;
pub use options::{LeveledOptions, PickOrder};
pub use parts::{KeyPart, Stretch};
pub use pick::{pick, pick_range};
pub use plan::{Plan, PlanKind, Reason};
pub use runs::{Run, l0_backlog, sorted_runs};
pub use targets::{base_level, debt_bytes, scores};

pub use bottom::BottomCheck;
pub use split::OutputSplitter;
pub use stream::{CompactionStream, StreamCounts};
