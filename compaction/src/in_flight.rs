//! What the picker must keep clear of.

use std::collections::HashSet;

use siltstone_sstable::{SeqNo, TableId};

use crate::table_meta::KeyRange;
use crate::{Plan, TableMeta};

/// The compactions that are running, and the oldest snapshot that is held. A plan is registered with
/// [`start`](InFlight::start) before it runs and taken out with [`finish`](InFlight::finish) in the same critical
/// section that installs its edit (or gives it up).
///
/// The picker never chooses a table that a running plan reads, nor one whose outputs could overlap a running
/// plan's outputs in the same level.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    tables: HashSet<TableId>,
    outputs: Vec<Output>,
    /// Those of the plans that do not run: see [`put_aside`](InFlight::put_aside).
    put_aside: Vec<Plan>,
    oldest_snapshot: Option<SeqNo>,
}

/// Where a running plan is going to write.
#[derive(Clone, Debug)]
struct Output {
    first_input: TableId,
    level: usize,
    smallest: Box<[u8]>,
    largest: Box<[u8]>,
}

impl InFlight {
    /// Nothing running, no snapshot.
    pub fn new() -> InFlight {
        InFlight::default()
    }

    /// Registers a plan that is about to run.
    pub fn start(&mut self, plan: &Plan) {
        let Some(first_input) = plan.input_ids().next() else {
            return;
        };
        for id in plan.input_ids() {
            let fresh = self.tables.insert(id);
            debug_assert!(fresh, "table {id} is in two running plans");
        }
        let (smallest, largest) = plan.key_range();
        self.outputs.push(Output {
            first_input,
            level: plan.output_level,
            smallest: smallest.into(),
            largest: largest.into(),
        });
    }

    /// Takes out a plan that was registered.
    pub fn finish(&mut self, plan: &Plan) {
        let Some(first_input) = plan.input_ids().next() else {
            return;
        };
        for id in plan.input_ids() {
            self.tables.remove(&id);
        }
        self.outputs.retain(|output| output.first_input != first_input);
    }

    /// Leaves a plan registered although it has failed: what cannot be read cannot be compacted, and picking it again and
    /// again would go on for ever.
    pub fn put_aside(&mut self, plan: Plan) {
        self.put_aside.push(plan);
    }

    /// Takes out all plans that were put aside: the picker may choose their tables again.
    pub fn take_up_put_aside(&mut self) {
        for plan in std::mem::take(&mut self.put_aside) {
            self.finish(&plan);
        }
    }

    /// Whether any plan is put aside.
    pub fn has_put_aside(&self) -> bool {
        !self.put_aside.is_empty()
    }

    /// The oldest snapshot that is held, `None` without any. It decides only which tables are worth rewriting for
    /// their tombstones: what may be dropped is for the [`CompactionStream`](crate::CompactionStream), which gets
    /// the snapshots of the moment it starts.
    pub fn set_oldest_snapshot(&mut self, oldest: Option<SeqNo>) {
        self.oldest_snapshot = oldest;
    }

    /// The oldest snapshot that is held.
    pub fn oldest_snapshot(&self) -> Option<SeqNo> {
        self.oldest_snapshot
    }

    /// Whether a running plan reads the table.
    pub fn contains(&self, id: TableId) -> bool {
        self.tables.contains(&id)
    }

    /// How many plans are running or put aside.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether no plan is running or put aside.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    pub(crate) fn any(&self, tables: &[impl AsRef<TableMeta>]) -> bool {
        !self.tables.is_empty() && tables.iter().any(|table| self.contains(table.as_ref().id))
    }

    /// Whether a running plan writes into `range` of one of `levels`.
    pub(crate) fn writes(&self, levels: std::ops::RangeInclusive<usize>, range: KeyRange<'_>) -> bool {
        self.outputs.iter().any(|output| {
            levels.contains(&output.level)
                && range.smallest.is_none_or(|smallest| *smallest <= *output.largest)
                && range.largest.is_none_or(|largest| *output.smallest <= *largest)
        })
    }
}
