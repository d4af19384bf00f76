//! What the manifest says, in memory: a fold over its records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use siltstone_compaction::{TableMeta, Version, VersionEdit};
use siltstone_sstable::SeqNo;
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::batch::{DEFAULT_KEYSPACE, KeyspaceId};
use crate::options::KeyspaceOptions;

/// Everything that the manifest knows.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Larger than every table id ever used.
    pub(crate) next_table: u64,
    /// Larger than every keyspace id ever used.
    pub(crate) next_keyspace: KeyspaceId,
    /// No smaller than the seqno of anything in a table.
    pub(crate) last_seqno: SeqNo,
    /// The segment that the log begins with. Those with smaller ids are obsolete, even where their removal was lost in
    /// a crash; where this one holds nothing, nothing behind it is part of the log.
    pub(crate) log_segment_min: u64,
    /// The live keyspaces.
    pub(crate) keyspaces: BTreeMap<KeyspaceId, KeyspaceState>,
}

/// One keyspace as the manifest knows it.
#[derive(Clone, Debug)]
pub(crate) struct KeyspaceState {
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    /// Its operations up to this seqno are in tables; later ones are in the log.
    pub(crate) flushed: SeqNo,
    pub(crate) version: Version,
}

/// A step from one state to the next; durable as a whole or not at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Edit {
    pub(crate) next_table: Option<u64>,
    pub(crate) last_seqno: Option<SeqNo>,
    pub(crate) log_segment_min: Option<u64>,
    pub(crate) created: Vec<(KeyspaceId, String, KeyspaceOptions)>,
    pub(crate) dropped: Vec<KeyspaceId>,
    pub(crate) keyspaces: Vec<KeyspaceEdit>,
}

/// What an [`Edit`] does to one keyspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeyspaceEdit {
    pub(crate) id: KeyspaceId,
    pub(crate) flushed: Option<SeqNo>,
    pub(crate) options: Option<KeyspaceOptions>,
    pub(crate) version: VersionEdit,
}

/// The persistent form of a [`State`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    next_table: u64,
    next_keyspace: KeyspaceId,
    last_seqno: SeqNo,
    log_segment_min: u64,
    keyspaces: Vec<SnapshotKeyspace>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SnapshotKeyspace {
    id: KeyspaceId,
    name: String,
    options: KeyspaceOptions,
    flushed: SeqNo,
    tables: Vec<(u8, TableMeta)>,
}

impl State {
    /// A new database: one empty keyspace, the default one.
    pub(crate) fn new(default: KeyspaceOptions) -> State {
        let keyspace = KeyspaceState {
            name: crate::keyspace::DEFAULT_NAME.to_owned(),
            options: default,
            flushed: SeqNo::ZERO,
            version: Version::default(),
        };
        State {
            next_table: 1,
            next_keyspace: DEFAULT_KEYSPACE + 1,
            last_seqno: SeqNo::ZERO,
            log_segment_min: 1,
            keyspaces: BTreeMap::from([(DEFAULT_KEYSPACE, keyspace)]),
        }
    }

    /// The state after `edit`.
    ///
    /// # Errors
    /// `Corruption` where the edit does not fit: an unknown keyspace or table, a broken level.
    pub(crate) fn apply(&self, edit: &Edit) -> Result<State> {
        let mut next = self.clone();
        next.next_table = edit
            .next_table
            .map_or(next.next_table, |id| id.max(next.next_table));
        next.last_seqno = edit
            .last_seqno
            .map_or(next.last_seqno, |seqno| seqno.max(next.last_seqno));
        next.log_segment_min = edit
            .log_segment_min
            .map_or(next.log_segment_min, |id| id.max(next.log_segment_min));
        for (id, name, options) in &edit.created {
            let keyspace = KeyspaceState {
                name: name.clone(),
                options: options.clone(),
                // Ids are never reused: the log can hold nothing of it yet. The log's last seqno would do harm: after a
                // power loss that takes unsynced records, the same seqnos are given out again.
                flushed: SeqNo::ZERO,
                version: Version::default(),
            };
            let taken = next.keyspaces.values().any(|other| other.name == *name);
            if taken || *id < next.next_keyspace || next.keyspaces.insert(*id, keyspace).is_some() {
                return Err(misfit(format!("it creates keyspace {id} ({name}) again")));
            }
            next.next_keyspace = id
                .checked_add(1)
                .ok_or_else(|| misfit("keyspace ids have run out".to_owned()))?;
        }
        for id in &edit.dropped {
            if *id == DEFAULT_KEYSPACE || next.keyspaces.remove(id).is_none() {
                return Err(misfit(format!(
                    "it drops keyspace {id}, which is not there to be dropped"
                )));
            }
        }
        for change in &edit.keyspaces {
            let keyspace = next
                .keyspaces
                .get_mut(&change.id)
                .ok_or_else(|| misfit(format!("it changes keyspace {}, which is not there", change.id)))?;
            keyspace.version = keyspace.version.apply(&change.version)?;
            keyspace.flushed = change
                .flushed
                .map_or(keyspace.flushed, |seqno| seqno.max(keyspace.flushed));
            if let Some(options) = &change.options {
                keyspace.options = options.clone();
            }
        }
        Ok(next)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let keyspace = |(id, keyspace): (&KeyspaceId, &KeyspaceState)| SnapshotKeyspace {
            id: *id,
            name: keyspace.name.clone(),
            options: keyspace.options.clone(),
            flushed: keyspace.flushed,
            tables: tables_of(&keyspace.version),
        };
        Snapshot {
            next_table: self.next_table,
            next_keyspace: self.next_keyspace,
            last_seqno: self.last_seqno,
            log_segment_min: self.log_segment_min,
            keyspaces: self.keyspaces.iter().map(keyspace).collect(),
        }
    }

    pub(super) fn restore(snapshot: Snapshot) -> Result<State> {
        let mut keyspaces = BTreeMap::new();
        for keyspace in snapshot.keyspaces {
            let edit = VersionEdit {
                added: keyspace.tables,
                ..VersionEdit::default()
            };
            let version = Version::default().apply(&edit)?;
            version.check()?;
            let state = KeyspaceState {
                name: keyspace.name,
                options: keyspace.options,
                flushed: keyspace.flushed,
                version,
            };
            if keyspace.id >= snapshot.next_keyspace || keyspaces.insert(keyspace.id, state).is_some() {
                return Err(misfit(format!(
                    "keyspace id {} stands twice or too high",
                    keyspace.id
                )));
            }
        }
        if !keyspaces.contains_key(&DEFAULT_KEYSPACE) {
            return Err(misfit("there is no default keyspace".to_owned()));
        }
        Ok(State {
            next_table: snapshot.next_table,
            next_keyspace: snapshot.next_keyspace,
            last_seqno: snapshot.last_seqno,
            log_segment_min: snapshot.log_segment_min,
            keyspaces,
        })
    }
}

fn tables_of(version: &Version) -> Vec<(u8, TableMeta)> {
    let entry = |(level, table): (usize, &std::sync::Arc<TableMeta>)| {
        (
            u8::try_from(level).expect("there are seven levels"),
            TableMeta::clone(table),
        )
    };
    version.tables().map(entry).collect()
}

fn misfit(what: String) -> Error {
    Error::new(
        ErrorKind::Corruption,
        format!("a manifest edit does not fit: {what}"),
    )
}
