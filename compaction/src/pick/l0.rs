//! Level 0: overlapping tables go together, and never a newer one before an older one.

use std::sync::Arc;

use super::Picker;
use crate::table_meta::KeyRange;
use crate::targets::sum_bytes;
use crate::version::order_in;
use crate::{Plan, PlanKind, Reason, TableMeta};

/// Tables of level 0 that overlap each other, directly or through others; newest first. No table outside overlaps
/// one of them.
type Group = Vec<Arc<TableMeta>>;

impl Picker<'_> {
    /// The compaction of the group with the oldest table whose way is free.
    pub(super) fn pick_l0(&self, reason: Reason) -> Option<Plan> {
        self.pick_l0_where(reason, |_| true)
    }

    /// A `wanted` table that no other of level 0 overlaps, where it costs nothing to move it to the base level.
    pub(super) fn pick_moved(&self, wanted: impl Fn(&TableMeta) -> bool) -> Option<Plan> {
        groups(self.version.level(0))
            .iter()
            .filter(|group| group.len() == 1 && wanted(&group[0]) && !self.busy.any(group))
            .filter_map(|group| self.assemble(0, self.targets.base_level, group, Reason::L0))
            .find(|plan| plan.kind == PlanKind::Trivial)
    }

    /// As [`pick_l0`](Self::pick_l0), of groups with a table that is `wanted`.
    pub(super) fn pick_l0_where(&self, reason: Reason, wanted: impl Fn(&TableMeta) -> bool) -> Option<Plan> {
        let groups = groups(self.version.level(0));
        (0..groups.len())
            .filter(|index| {
                groups[*index].iter().any(|table| wanted(table)) && !self.busy.any(&groups[*index])
            })
            .find_map(|index| {
                let source = self.oldest_part(&groups[index]);
                let output_level = self.level_for(&source);
                let source = self.grown(&groups, index, source, output_level)?;
                self.assemble(0, output_level, &source, reason)
            })
    }

    /// Where `source` goes: into the base level, or past levels that are smaller than it is, if that is no large step. To stop
    /// on the way would rewrite it once more.
    pub(super) fn level_for(&self, source: &[Arc<TableMeta>]) -> usize {
        let source_bytes = sum_bytes(source.iter().map(|table| &**table));
        let level = self.targets.drain_level(source_bytes);
        let below = (self.targets.base_level..=level).filter_map(|level| self.below(level, source));
        let below_bytes = sum_bytes(below.flatten().map(|table| &**table));
        if source_bytes.saturating_add(below_bytes) <= self.options.max_compaction_bytes / 2 {
            level
        } else {
            self.targets.base_level
        }
    }

    /// A part of a group with all other groups that add nothing to the tables below. Newest first.
    fn grown(&self, groups: &[Group], index: usize, mut source: Group, output_level: usize) -> Option<Group> {
        let below = self.below(output_level, &source)?;
        if below.is_empty() {
            return Some(source);
        }
        let all = |source: &Group| source.iter().chain(below).cloned().collect::<Vec<_>>();
        let range_tables = all(&source);
        let range = KeyRange::hull(range_tables.iter().map(|table| &**table))?;
        let mut size_bytes = sum_bytes(range_tables.iter().map(|table| &**table));
        for (_, other) in groups.iter().enumerate().filter(|(other, _)| *other != index) {
            let other_bytes = sum_bytes(other.iter().map(|table| &**table));
            let fits = size_bytes.saturating_add(other_bytes) <= self.options.max_compaction_bytes;
            if fits && !self.busy.any(other) && other.iter().all(|table| range.contains(table)) {
                size_bytes += other_bytes;
                source.extend(other.iter().cloned());
            }
        }
        source.sort_by(|a, b| order_in(0, a, b));
        Some(source)
    }

    /// The oldest part of a group that `max_compaction_bytes` allows. Newest first, as the group. What stays behind is newer
    /// than what goes.
    fn oldest_part(&self, group: &Group) -> Group {
        let mut size_bytes = 0_u64;
        let mut start = group.len();
        for (index, table) in group.iter().enumerate().rev() {
            size_bytes = size_bytes.saturating_add(table.size_bytes);
            if size_bytes > self.options.max_compaction_bytes && start < group.len() {
                break;
            }
            start = index;
        }
        group[start..].to_vec()
    }
}

/// Divides level 0, given newest first, into groups; the group with the oldest table first.
pub(super) fn groups(tables: &[Arc<TableMeta>]) -> Vec<Group> {
    let mut by_key: Vec<usize> = (0..tables.len()).collect();
    by_key.sort_by(|a, b| tables[*a].smallest.cmp(&tables[*b].smallest));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut largest: &[u8] = &[];
    for index in by_key {
        let table = &tables[index];
        match groups.last_mut() {
            Some(group) if *table.smallest <= *largest => group.push(index),
            _ => groups.push(vec![index]),
        }
        // Of a new group, the table starts after everything before it, and so ends after it too.
        largest = largest.max(&table.largest);
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.last().copied()));
    groups
        .into_iter()
        .map(|group| {
            group
                .into_iter()
                .map(|index| Arc::clone(&tables[index]))
                .collect()
        })
        .collect()
}
