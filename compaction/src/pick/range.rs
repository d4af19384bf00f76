//! Manual compaction: one step of taking a range to the bottom.

use super::Picker;
use crate::table_meta::KeyRange;
use crate::targets::sum_bytes;
use crate::{InFlight, LeveledOptions, Plan, Reason, TableMeta, Version};

/// One step of compacting a range of keys (both ends inclusive, `None` is open): tables of `level` that overlap it go
/// one level down; from level 0 into the base level. Where nothing lies below `level` in the range, tables are rewritten
/// in place, once, to drop their tombstones and the versions that no snapshot needs: those that are not settled
/// ([`TableMeta::seqno_max`] is not 0) and that no snapshot holds back. A large range is taken in parts of about
/// `max_compaction_bytes`.
///
/// To compact a range: for each level from 0 to the last, run plans until there is none. `None` with nothing in
/// flight means that the level is done; `None` beside running plans may mean that they are in the way: ask again
/// when one has finished. Afterwards, with no snapshots and no writes meanwhile, every key of the range has one
/// entry, and no tombstone is left.
///
/// # Panics
/// If `level` is not below [`LEVELS`](crate::LEVELS).
pub fn pick_range(
    version: &Version,
    options: &LeveledOptions,
    busy: &InFlight,
    level: usize,
    smallest: Option<&[u8]>,
    largest: Option<&[u8]>,
) -> Option<Plan> {
    let picker = Picker::new(version, options, busy);
    let range = KeyRange { smallest, largest };
    if level == 0 {
        return picker.pick_l0_where(Reason::Range, |table| range.overlaps(table));
    }
    let run = version.run(level, range);
    let tables = &version.level(level)[run.clone()];
    let hull = KeyRange::hull(tables.iter().map(|table| &**table))?;
    if version.any_deeper(level, hull) {
        run.clone()
            .find_map(|start| picker.pick_down(level, start..run.end))
    } else {
        run.clone()
            .find_map(|start| picker.pick_settle(level, start..run.end))
    }
}

impl Picker<'_> {
    /// As many tables from the start of `run` on as the limit allows, into the next level.
    fn pick_down(&self, level: usize, run: std::ops::Range<usize>) -> Option<Plan> {
        let tables = &self.version.level(level)[run];
        if self.busy.contains(tables.first()?.id) {
            return None;
        }
        let mut count = 1;
        while count < tables.len() && !self.busy.contains(tables[count].id) {
            let grown = &tables[..count + 1];
            let below = self.below(level + 1, grown)?;
            let size_bytes = sum_bytes(grown.iter().chain(below).map(|table| &**table));
            if size_bytes > self.options.max_compaction_bytes {
                break;
            }
            count += 1;
        }
        self.assemble(level, level + 1, &tables[..count], Reason::Range)
    }

    /// As many unsettled tables from the start of `run` on as the limit allows, in place.
    fn pick_settle(&self, level: usize, run: std::ops::Range<usize>) -> Option<Plan> {
        let tables = &self.version.level(level)[run];
        let mut size_bytes = 0_u64;
        let fits = |table: &&std::sync::Arc<TableMeta>| {
            size_bytes = size_bytes.saturating_add(table.size_bytes);
            self.can_settle(table)
                && (size_bytes <= self.options.max_compaction_bytes || size_bytes == table.size_bytes)
        };
        let count = tables.iter().take_while(fits).count();
        self.assemble_in_place(level, &tables[..count], Reason::Range)
    }

    fn can_settle(&self, table: &TableMeta) -> bool {
        table.seqno_max.0 > 0
            && table.is_older_than_snapshots(self.busy.oldest_snapshot())
            && !self.busy.contains(table.id)
    }
}
