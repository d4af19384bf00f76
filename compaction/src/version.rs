//! Which tables make up a keyspace, level by level.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use siltstone_sstable::TableId;
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::runs::{Run, sorted_runs};
use crate::table_meta::KeyRange;
use crate::{TableMeta, VersionEdit};

mod check;

/// How many levels there are. Level 0 takes the flushes; the last one is the bottom.
pub const LEVELS: usize = 7;

/// The tables of one keyspace at one moment. Immutable: [`Version::apply`] makes the next one, which shares the
/// levels that did not change.
///
/// * Level 0 is ordered newest first. Its tables may overlap; of two that do, all entries of the newer one are
///   newer than all entries of the older one.
/// * Every deeper level is one sorted run: ordered by key, no two tables share a user key, so all the versions of
///   a user key that a level has are in one table.
/// * For any user key, the entries in a level are newer than those in the deeper ones.
///
/// [`Version::check`] checks what can be seen without opening a table.
#[derive(Clone, Debug, Default)]
pub struct Version {
    levels: [Level; LEVELS],
    /// Level 0 once more, once somebody has asked for its runs.
    l0_runs: OnceLock<Arc<[Run]>>,
}

#[derive(Clone, Debug, Default)]
struct Level {
    tables: Arc<Vec<Arc<TableMeta>>>,
    size_bytes: u64,
}

impl Version {
    /// The tables of level `n`: level 0 newest first, the others by key.
    ///
    /// # Panics
    /// If `n` is not below [`LEVELS`].
    pub fn level(&self, n: usize) -> &[Arc<TableMeta>] {
        &self.levels[n].tables
    }

    /// Every table with its level, from level 0 down.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableMeta>)> {
        (0..LEVELS).flat_map(|n| self.level(n).iter().map(move |table| (n, table)))
    }

    /// The tables of a level that overlap `smallest..=largest`, in the level's order. By binary search but in
    /// level 0.
    ///
    /// # Panics
    /// If `level` is not below [`LEVELS`].
    pub fn overlapping<'a>(
        &'a self,
        level: usize,
        smallest: &'a [u8],
        largest: &'a [u8],
    ) -> impl Iterator<Item = &'a Arc<TableMeta>> + 'a {
        self.overlapping_range(level, KeyRange::closed(smallest, largest))
    }

    pub(crate) fn overlapping_range<'a>(
        &'a self,
        level: usize,
        range: KeyRange<'a>,
    ) -> impl Iterator<Item = &'a Arc<TableMeta>> + 'a {
        let tables = self.level(level);
        let run = if level == 0 {
            0..tables.len()
        } else {
            self.run(level, range)
        };
        tables[run].iter().filter(move |table| range.overlaps(table))
    }

    /// Where in a sorted level the tables are that overlap `range`.
    pub(crate) fn run(&self, level: usize, range: KeyRange<'_>) -> Range<usize> {
        debug_assert!(level > 0, "level 0 is not one sorted run");
        let tables = self.level(level);
        let start = tables.partition_point(|table| range.is_after(table));
        let end = tables.partition_point(|table| !range.is_before(table));
        start..end.max(start)
    }

    /// Whether a level below `level` has a table that overlaps `range`.
    pub(crate) fn any_deeper(&self, level: usize, range: KeyRange<'_>) -> bool {
        (level + 1..LEVELS).any(|deeper| self.overlapping_range(deeper, range).next().is_some())
    }

    /// The one table of a level below 0 whose range contains `user_key`.
    ///
    /// # Panics
    /// If `level` is 0, where there may be several, or not below [`LEVELS`].
    pub fn find(&self, level: usize, user_key: &[u8]) -> Option<&Arc<TableMeta>> {
        assert!(level > 0, "level 0 is not one sorted run");
        let tables = self.level(level);
        let index = tables.partition_point(|table| *table.largest < *user_key);
        tables.get(index).filter(|table| *table.smallest <= *user_key)
    }

    /// The sizes of a level's tables, added up.
    ///
    /// # Panics
    /// If `n` is not below [`LEVELS`].
    pub fn level_bytes(&self, n: usize) -> u64 {
        self.levels[n].size_bytes
    }

    /// The sizes of all tables, added up.
    pub fn total_bytes(&self) -> u64 {
        self.levels
            .iter()
            .map(|level| level.size_bytes)
            .fold(0, u64::saturating_add)
    }

    /// How many tables level 0 has.
    pub fn l0_count(&self) -> usize {
        self.level(0).len()
    }

    /// Level 0 as sorted runs, the newest first: see [`sorted_runs`].
    pub fn l0_runs(&self) -> &[Run] {
        self.l0_runs.get_or_init(|| sorted_runs(self.level(0)).into())
    }

    /// Whether no level has a table.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.tables.is_empty())
    }

    /// The version after `edit`. The levels that change are checked; all of [`Version::check`] runs in builds with
    /// debug assertions.
    ///
    /// # Errors
    /// `Corruption` if the edit names a level or removes a table that does not exist, adds a table twice, or leaves
    /// a level that breaks its invariants. The caller adds the file that the edit came from.
    pub fn apply(&self, edit: &VersionEdit) -> Result<Version> {
        let mut next = self.clone();
        let mut changed = [false; LEVELS];
        for (level, _) in &edit.added {
            *flag(&mut changed, *level)? = true;
        }
        for (level, _) in &edit.removed {
            *flag(&mut changed, *level)? = true;
        }
        for (n, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
            next.levels[n] = self.levels[n].after(n, edit)?;
            next.check_level(n)?;
        }
        if changed[0] {
            next.l0_runs = OnceLock::new();
        }
        if cfg!(debug_assertions) {
            next.check()?;
        }
        Ok(next)
    }
}

fn flag(changed: &mut [bool; LEVELS], level: u8) -> Result<&mut bool> {
    changed.get_mut(usize::from(level)).ok_or_else(|| {
        Error::new(
            ErrorKind::Corruption,
            format!("version edit names level {level}; there are {LEVELS}"),
        )
    })
}

impl Level {
    fn after(&self, n: usize, edit: &VersionEdit) -> Result<Level> {
        let mut removed: HashSet<TableId> = HashSet::new();
        for (_, id) in edit.removed.iter().filter(|(level, _)| usize::from(*level) == n) {
            if !removed.insert(*id) {
                return Err(Error::new(
                    ErrorKind::Corruption,
                    format!("version edit removes table {id} from level {n} twice"),
                ));
            }
        }
        let mut tables = Vec::with_capacity(self.tables.len() + edit.added.len());
        for table in self.tables.iter() {
            if !removed.remove(&table.id) {
                tables.push(Arc::clone(table));
            }
        }
        if let Some(id) = removed.iter().min() {
            return Err(Error::new(
                ErrorKind::Corruption,
                format!("version edit removes table {id} from level {n}, which does not have it"),
            ));
        }
        let added = edit.added.iter().filter(|(level, _)| usize::from(*level) == n);
        tables.extend(added.map(|(_, table)| Arc::new(table.clone())));
        tables.sort_by(|a, b| order_in(n, a, b));
        let size_bytes = tables
            .iter()
            .map(|table| table.size_bytes)
            .fold(0, u64::saturating_add);
        Ok(Level {
            tables: Arc::new(tables),
            size_bytes,
        })
    }
}

/// The order of two tables within level `n`.
pub(crate) fn order_in(n: usize, a: &TableMeta, b: &TableMeta) -> Ordering {
    if n == 0 {
        let newest_first = |table: &TableMeta| Reverse((table.seqno_max, table.seqno_min, table.id));
        newest_first(a).cmp(&newest_first(b))
    } else {
        a.smallest.cmp(&b.smallest).then_with(|| a.id.cmp(&b.id))
    }
}

#[cfg(test)]
mod tests;
