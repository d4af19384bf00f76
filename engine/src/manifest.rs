//! The manifest: which tables make up which level of which keyspace, as a log of edits.
//!
//! A manifest file begins with one snapshot of everything and goes on with edits, each synced before anything rests
//! on it. `CURRENT` names the live file together with the length and checksum of its snapshot, and is replaced by
//! rename and directory sync. Byte layout: `engine/FORMAT.md`.

mod format;
mod log;
mod state;

pub(crate) use format::current_of;
pub(crate) use log::Manifest;
pub(crate) use state::{Edit, KeyspaceEdit, State};
