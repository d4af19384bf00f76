//! Which compaction comes next.

use bulk::Bulk;

use crate::runs::Backlog;
use crate::targets::{Targets, scores_beside};
use crate::{Cursors, InFlight, LeveledOptions, Plan, Reason, Version};

mod assemble;
mod bulk;
mod l0;
mod range;
mod sorted;
mod tombstones;

pub use range::pick_range;

/// The most urgent compaction that can run beside those in flight, or `None` if there is nothing to do, or nothing
/// that can be done now.
///
/// Levels go by score, see [`scores`](crate::scores). From level 0 go all the tables that overlap, directly or through
/// others, the oldest one that is free; from a deeper level the table with the least to rewrite below it, and its
/// neighbours where they come for free. If no level is over its target, tables with many tombstones go.
///
/// While [`bulk_load`](LeveledOptions::bulk_load) says that writes come faster than that can be done, level 0 puts off what
/// it can: until it has [`l0_run_trigger`](LeveledOptions::l0_run_trigger) tables nothing is done, and these become one
/// sorted run that stays there. When writes let up, such runs go down together, a range of keys at a time.
///
/// With nothing in flight and without `bulk_load`, `None` means that every level is within its target. The cost is that
/// of sorting the tables of one level.
///
/// The caller passes the plan to [`InFlight::start`] before the next call.
pub fn pick(
    version: &Version,
    options: &LeveledOptions,
    busy: &InFlight,
    cursors: &mut Cursors,
) -> Option<Plan> {
    let picker = Picker::new(version, options, busy);
    let backlog = Backlog::of(version);
    match picker.pick_bulk(&backlog) {
        Bulk::Plan(plan) => return Some(plan),
        Bulk::Wait => return None,
        Bulk::Usual => {}
    }
    let mut l0_waits = false;
    for (level, score) in scores_beside(version, options, &picker.targets, busy) {
        if score < 1.0 {
            break;
        }
        if level == 0 {
            if let Some(plan) = picker
                .pick_merged(&backlog)
                .or_else(|| picker.pick_l0(Reason::L0))
            {
                return Some(plan);
            }
            l0_waits = true;
        } else if l0_waits && level == picker.targets.base_level {
            // Level 0 waits for the base level: another compaction out of it would make it wait for ever.
        } else if let Some(plan) = picker.pick_sorted(level, cursors) {
            return Some(plan);
        }
    }
    picker.pick_tombstones()
}

/// What every rule of the picker looks at.
struct Picker<'a> {
    version: &'a Version,
    options: &'a LeveledOptions,
    busy: &'a InFlight,
    targets: Targets,
}

impl<'a> Picker<'a> {
    fn new(version: &'a Version, options: &'a LeveledOptions, busy: &'a InFlight) -> Self {
        Self {
            version,
            options,
            busy,
            targets: Targets::new(version, options),
        }
    }
}
