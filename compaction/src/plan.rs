//! One compaction, decided but not yet run.

use std::sync::Arc;

use siltstone_sstable::TableId;

use crate::table_meta::KeyRange;
use crate::{TableMeta, VersionEdit};

/// One compaction: which tables go in, and where the result goes.
///
/// While it runs it is registered in [`InFlight`](crate::InFlight); when it is done, [`Plan::edit`] with the tables
/// it wrote makes the next version.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The level it starts from.
    pub level: usize,
    /// The level that takes the result; the same as `level` when a table is rewritten in place, or when tables of level 0
    /// become one sorted run of it.
    pub output_level: usize,
    /// Level and tables, from the newest entries to the oldest: `level` first, level 0 newest table first. No
    /// level appears twice, and none is empty.
    pub inputs: Vec<(usize, Vec<Arc<TableMeta>>)>,
    /// What has to be done.
    pub kind: PlanKind,
    /// Whether no level below `output_level` overlaps the inputs: everything written stays at the bottom. A hint
    /// for the choice of compression; what may be dropped is for [`BottomCheck`](crate::BottomCheck) to say.
    pub bottommost: bool,
    /// The tables of the level below `output_level` that overlap the inputs, by key: where to cut the outputs. Of a plan
    /// that stays in level 0, tables of the other runs there.
    pub grandparents: Vec<Arc<TableMeta>>,
    /// Why it was picked.
    pub reason: Reason,
}

/// What a [`Plan`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// The inputs change their level in the next version. No byte is read or written.
    Trivial,
    /// The inputs are merged and rewritten.
    Merge,
    /// The inputs are nothing but tombstones with nothing below: they leave the version. No byte is read or written.
    DeleteOnly,
}

/// Why a [`Plan`] was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Level 0 has too many tables or bytes.
    L0,
    /// Level 0 has what was put off while writes pressed, or puts it off.
    Backlog,
    /// A level is over its target.
    LevelSize,
    /// A table has too many tombstones.
    Tombstones,
    /// Somebody asked for this range.
    Range,
}

impl Plan {
    /// All inputs with their levels.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableMeta>)> {
        self.inputs
            .iter()
            .flat_map(|(level, tables)| tables.iter().map(move |table| (*level, table)))
    }

    /// The ids of all inputs.
    pub fn input_ids(&self) -> impl Iterator<Item = TableId> {
        self.tables().map(|(_, table)| table.id)
    }

    /// The sizes of all inputs, added up: what a merge reads.
    pub fn input_bytes(&self) -> u64 {
        self.tables()
            .map(|(_, table)| table.size_bytes)
            .fold(0, u64::saturating_add)
    }

    /// How many entries the inputs have: what a merge reads.
    pub fn input_entries(&self) -> u64 {
        self.tables()
            .map(|(_, table)| table.entries)
            .fold(0, u64::saturating_add)
    }

    /// The smallest and the largest user key of the inputs, both inclusive. All outputs lie within.
    pub fn key_range(&self) -> (&[u8], &[u8]) {
        let hull = KeyRange::hull(self.tables().map(|(_, table)| &**table));
        match hull {
            Some(KeyRange {
                smallest: Some(smallest),
                largest: Some(largest),
            }) => (smallest, largest),
            _ => (&[], &[]),
        }
    }

    pub(crate) fn hull(&self) -> KeyRange<'_> {
        let (smallest, largest) = self.key_range();
        KeyRange::closed(smallest, largest)
    }

    /// The edit that makes this plan done. `outputs` are the tables that a [`PlanKind::Merge`] wrote; it may have
    /// written none. The other kinds write nothing: pass an empty vector.
    pub fn edit(&self, outputs: Vec<TableMeta>) -> VersionEdit {
        debug_assert!(
            self.kind == PlanKind::Merge || outputs.is_empty(),
            "only a merge writes tables"
        );
        let number = |level: usize| u8::try_from(level).expect("there are 7 levels");
        let removed = self
            .tables()
            .map(|(level, table)| (number(level), table.id))
            .collect();
        let output_level = number(self.output_level);
        let added = match self.kind {
            PlanKind::Merge => outputs.into_iter().map(|table| (output_level, table)).collect(),
            PlanKind::Trivial => self
                .tables()
                .map(|(_, table)| (output_level, (**table).clone()))
                .collect(),
            PlanKind::DeleteOnly => Vec::new(),
        };
        VersionEdit { added, removed }
    }
}
