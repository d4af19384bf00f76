//! What has been promised so far: what a crash at this moment may and may not take away.

use std::collections::BTreeMap;

use crate::model::{CommitIndex, Incarnation};

/// Whether a keyspace is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its creation or removal has begun and has not returned: either may be found.
    Uncertain,
    /// Its creation has returned.
    Live,
}

/// What the engine has acknowledged at one moment of a history.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Commits that survive power loss: acknowledged with `Durability::Sync`, or before a `sync`, `flush_all`,
    /// `close` or open that returned.
    pub synced: CommitIndex,
    /// Commits that survive the death of the process: those that returned.
    pub acknowledged: CommitIndex,
    /// Commits that may be found: those whose call has begun.
    pub started: CommitIndex,
    /// The keyspaces that must, or may, be there.
    pub keyspaces: BTreeMap<String, (Incarnation, Presence)>,
}
