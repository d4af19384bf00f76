//! Whether anything older can lie below a key.

use std::sync::Arc;

use crate::{LEVELS, Plan, TableMeta, Version};

/// Answers, for the keys of a compaction in ascending order, whether a table outside of it may hold older entries of
/// the key. Where none does, a tombstone has nothing left to hide.
///
/// Looked at are all levels below the plan's output level, and the tables of level 0 that are older than the
/// plan's: a plan by this crate leaves none of those that overlap, and this check does not rely on it.
///
/// It stays right while other compactions run and install their edits: a running plan writes only within the hull
/// of its inputs, the picker keeps that clear of this plan's outputs in the same level and in those it skips, so
/// older entries of this plan's keys are, and stay, in the levels that were looked at. Flushes only add newer ones.
#[derive(Clone, Debug)]
pub struct BottomCheck {
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    Never,
    Covered {
        /// Disjoint and ascending: from the smallest key of one table to the largest key of another.
        ranges: Vec<(Arc<TableMeta>, Arc<TableMeta>)>,
        position: usize,
    },
}

impl BottomCheck {
    /// The check for `plan`, which was picked from `version` (or is still in flight in it).
    pub fn new(version: &Version, plan: &Plan) -> BottomCheck {
        if plan.output_level == 0 {
            // The seqnos of a run tell it from the other tables of level 0: none of them may settle.
            return BottomCheck::never();
        }
        let (smallest, largest) = plan.key_range();
        let mut tables: Vec<&Arc<TableMeta>> = (plan.output_level + 1..LEVELS)
            .flat_map(|level| version.overlapping(level, smallest, largest))
            .collect();
        tables.extend(older_in_l0(version, plan));
        tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        let mut ranges: Vec<(Arc<TableMeta>, Arc<TableMeta>)> = Vec::new();
        for table in tables {
            match ranges.last_mut() {
                Some((_, end)) if table.smallest <= end.largest => {
                    if table.largest > end.largest {
                        *end = Arc::clone(table);
                    }
                }
                _ => ranges.push((Arc::clone(table), Arc::clone(table))),
            }
        }
        BottomCheck {
            answer: Answer::Covered { ranges, position: 0 },
        }
    }

    /// For flushes and for runs of level 0: there may always be something below.
    pub fn never() -> BottomCheck {
        BottomCheck {
            answer: Answer::Never,
        }
    }

    /// There is nothing below: what is merged is all there is.
    pub fn always() -> BottomCheck {
        BottomCheck {
            answer: Answer::Covered {
                ranges: Vec::new(),
                position: 0,
            },
        }
    }

    /// Whether no older entry of `user_key` exists outside the compaction. REQUIRES: keys do not descend from call to
    /// call, and lie in the plan's key range. All calls for a part of a compaction together cost one pass over the tables below.
    pub fn is_bottom(&mut self, user_key: &[u8]) -> bool {
        match &mut self.answer {
            Answer::Never => false,
            Answer::Covered { ranges, position } => {
                debug_assert!(
                    position
                        .checked_sub(1)
                        .is_none_or(|passed| *ranges[passed].1.largest < *user_key),
                    "keys must not descend"
                );
                while ranges
                    .get(*position)
                    .is_some_and(|(_, end)| *end.largest < *user_key)
                {
                    *position += 1;
                }
                ranges
                    .get(*position)
                    .is_none_or(|(start, _)| *user_key < *start.smallest)
            }
        }
    }
}

/// The tables of level 0 that stay although they are older than one of the plan's inputs there.
fn older_in_l0<'a>(version: &'a Version, plan: &'a Plan) -> impl Iterator<Item = &'a Arc<TableMeta>> {
    let inputs = plan
        .inputs
        .iter()
        .find(|(level, _)| *level == 0)
        .map(|(_, tables)| tables.as_slice());
    let inputs = inputs.unwrap_or_default();
    let newest = inputs.iter().map(|table| table.seqno_max).max();
    version.level(0).iter().filter(move |table| {
        newest.is_some_and(|newest| table.seqno_min <= newest)
            && !inputs.iter().any(|input| input.id == table.id)
            && plan.hull().overlaps(table)
    })
}

#[cfg(test)]
mod tests;
