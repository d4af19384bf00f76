//! Where one output table ends and the next begins.

use std::cmp::Ordering;
use std::sync::Arc;

use siltstone_sstable::KeyBuf;

use crate::{Plan, TableMeta};

/// An output overlaps at most about this many target sizes of the level below (its grandparents).
const OVERLAP_TABLES_MAX: u64 = 20;

/// As long as there are grandparents to wait for the end of, an output may grow to this many target sizes.
const GROWTH_MAX: u64 = 2;

/// The first run in a range of level 0 is cut into tables of this share of the target size, as many of them as there are
/// runs will go down together.
const ALIGNED_SHARE: u64 = 4;

pub(crate) fn overlap_bytes_max(target_table_bytes: u64) -> u64 {
    target_table_bytes.saturating_mul(OVERLAP_TABLES_MAX)
}

/// Decides where a compaction cuts its output.
///
/// * Never between two entries of a user key.
/// * Where the next level's tables (the grandparents) begin and end, once the output is near its target size: from 50%
///   of it at the first such boundary, 5% more for each boundary passed, up to 90%. Tables that end together are
///   compacted together without half a table more on either side. The rule is RocksDB's.
/// * At such a boundary of any output that would otherwise overlap more than 20 target sizes of grandparents, so
///   that no single table is expensive to compact.
/// * Anywhere at the target size without grandparents ahead, and at twice that with some.
///
/// A plan that stays in level 0 is cut wherever one of the given tables ends, and at the target size;
/// where there is none, at a quarter of it.
#[derive(Clone, Debug)]
pub struct OutputSplitter {
    target_bytes: u64,
    /// Whether every end of a grandparent is one of the output.
    aligned: bool,
    grandparents: Vec<Arc<TableMeta>>,
    /// The first grandparent that does not end before the last key.
    position: usize,
    /// Whether the last key is within that grandparent, not in the gap before it.
    inside: bool,
    /// Boundaries that the output has passed, and grandparents' bytes it overlaps.
    boundaries: u64,
    overlap_bytes: u64,
    /// `None` before the first key.
    last_key: Option<KeyBuf>,
}

impl OutputSplitter {
    /// A splitter for one compaction. `grandparents` are [`Plan::grandparents`](crate::Plan::grandparents); without
    /// any, only size counts.
    pub fn new(target_table_bytes: u64, grandparents: Vec<Arc<TableMeta>>) -> OutputSplitter {
        debug_assert!(
            grandparents.is_sorted_by(|a, b| a.largest < b.smallest),
            "a level is one sorted run"
        );
        OutputSplitter {
            target_bytes: target_table_bytes.max(1),
            aligned: false,
            grandparents,
            position: 0,
            inside: false,
            boundaries: 0,
            overlap_bytes: 0,
            last_key: None,
        }
    }

    /// The splitter for the outputs of `plan`.
    pub fn for_plan(plan: &Plan, target_table_bytes: u64) -> OutputSplitter {
        OutputSplitter {
            aligned: plan.output_level == 0,
            ..Self::new(target_table_bytes, plan.grandparents.clone())
        }
    }

    /// Whether the table under construction, now `output_size_bytes` long, must be finished before the entry of
    /// `user_key` is added, which then goes into a new one. REQUIRES: called once for each entry, in order.
    pub fn should_cut_before(&mut self, user_key: &[u8], output_size_bytes: u64) -> bool {
        let first = self.last_key.is_none();
        let last = self.last_key.get_or_insert_default();
        if !first {
            match last.order_of(user_key) {
                Ordering::Equal => return false,
                order => debug_assert!(order == Ordering::Greater, "keys must not descend"),
            }
        }
        last.set(user_key);
        let step = self.step_to(user_key);
        if first {
            self.start_output();
            return false;
        }
        let cut = output_size_bytes > 0 && self.is_end(&step, output_size_bytes);
        if cut {
            self.start_output();
        } else {
            self.boundaries += u64::from(step.crossed);
            self.overlap_bytes = self.overlap_bytes.saturating_add(step.entered_bytes);
        }
        cut
    }

    fn is_end(&self, step: &Step, output_size_bytes: u64) -> bool {
        if self.aligned {
            return step.passed_end || output_size_bytes >= self.aligned_size_max();
        }
        let size_max = if step.grandparents_ahead {
            self.target_bytes.saturating_mul(GROWTH_MAX)
        } else {
            self.target_bytes
        };
        if output_size_bytes >= size_max {
            return true;
        }
        if !step.crossed {
            return false;
        }
        let percent = 50 + (5 * self.boundaries).min(40);
        let near = u128::from(output_size_bytes) * 100 >= u128::from(self.target_bytes) * u128::from(percent);
        let overlap_bytes = self.overlap_bytes.saturating_add(step.entered_bytes);
        near || overlap_bytes > overlap_bytes_max(self.target_bytes)
    }

    /// Where the other runs have tables, theirs are the ends; the first run makes ends for those that follow.
    fn aligned_size_max(&self) -> u64 {
        if self.inside {
            self.target_bytes
        } else {
            (self.target_bytes / ALIGNED_SHARE).max(1)
        }
    }

    /// The output begins with the last key.
    fn start_output(&mut self) {
        self.boundaries = 0;
        self.overlap_bytes = if self.inside {
            self.grandparents[self.position].size_bytes
        } else {
            0
        };
    }

    /// Moves on to `user_key` among the grandparents.
    fn step_to(&mut self, user_key: &[u8]) -> Step {
        let (was_position, was_inside) = (self.position, self.inside);
        while self
            .grandparents
            .get(self.position)
            .is_some_and(|table| *table.largest < *user_key)
        {
            self.position += 1;
        }
        self.inside = self
            .grandparents
            .get(self.position)
            .is_some_and(|table| *table.smallest <= *user_key);
        let crossed = (was_position, was_inside) != (self.position, self.inside);
        let mut entered = &[][..];
        if crossed {
            // An output that spans the last key and this one overlaps every grandparent between the two.
            let first_new = was_position + usize::from(was_inside);
            let end_new = self.position + usize::from(self.inside);
            entered = self.grandparents.get(first_new..end_new).unwrap_or_default();
        }
        Step {
            crossed,
            passed_end: was_position != self.position,
            entered_bytes: crate::targets::sum_bytes(entered.iter().map(|table| &**table)),
            grandparents_ahead: self.position < self.grandparents.len(),
        }
    }
}

/// What lies between the last key and the next.
struct Step {
    /// Whether a grandparent begins or ends there.
    crossed: bool,
    /// Whether one ends there.
    passed_end: bool,
    /// The sizes of the grandparents that begin there.
    entered_bytes: u64,
    grandparents_ahead: bool,
}

#[cfg(test)]
mod tests;
