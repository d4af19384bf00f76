//! What the picker may be told.

use siltstone_vfs::{Error, Result};

/// The shape of the levels. Plain data; [`LeveledOptions::check`] rejects what makes no sense, nothing is adjusted
/// silently.
#[derive(Clone, Debug, PartialEq)]
pub struct LeveledOptions {
    /// Level 0 is compacted when it has this many tables. Default 4, minimum 1. More: fewer, larger compactions,
    /// but every read looks at more tables.
    pub l0_compaction_trigger: usize,
    /// While writes press, and until what they left has gone down, this many tables of level 0 are merged into one sorted run
    /// that stays there. Default 24, minimum 2.
    pub l0_run_trigger: usize,
    /// Writes come faster than compactions can take them down the levels: put off what can be put off, see
    /// [`pick`](crate::pick). Not a setting but what is the case at the moment. Default false.
    pub bulk_load: bool,
    /// The largest size of the first level below level 0 that is in use. Default 256 MiB, minimum 1; about
    /// `l0_compaction_trigger` flushes is a good choice.
    pub level_base_bytes: u64,
    /// How many times larger each level is than the one above. Default 10, minimum 2. Smaller: more levels and
    /// less write amplification a level; the space amplification is about `1 + 1 / (multiplier - 1)`.
    pub level_multiplier: u64,
    /// The size that output tables are cut at. Default 64 MiB, minimum 1.
    pub target_table_bytes: u64,
    /// Sizes of the levels follow from the size of the last one, as RocksDB's `level_compaction_dynamic_level_bytes`
    /// does: level 0 goes into the deepest level at which the targets above it stay under `level_base_bytes`, so a
    /// small database has two levels. Default true. False: level 1 has `level_base_bytes`, whatever is below.
    pub dynamic_levels: bool,
    /// On an otherwise idle keyspace, tables whose share of tombstones is over this are compacted, to give back the
    /// space. Default 0.25; above 1 switches it off.
    pub tombstone_ratio: f64,
    /// Inputs are not extended past this, and a long backlog in level 0 or a manual compaction is taken in parts of
    /// about this size. Default 1.6 GiB (25 tables), minimum `target_table_bytes`.
    pub max_compaction_bytes: u64,
    /// Which table of a level goes next. Default [`PickOrder::MinOverlap`].
    pub pick_order: PickOrder,
}

/// Which table of an oversized level goes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PickOrder {
    /// The one with the least bytes below it for its own size; of equals, the next in key order.
    #[default]
    MinOverlap,
    /// The next in key order after the last one picked.
    RoundRobin,
}

impl Default for LeveledOptions {
    fn default() -> Self {
        Self {
            l0_compaction_trigger: 4,
            l0_run_trigger: 24,
            bulk_load: false,
            level_base_bytes: 256 << 20,
            level_multiplier: 10,
            target_table_bytes: 64 << 20,
            dynamic_levels: true,
            tombstone_ratio: 0.25,
            max_compaction_bytes: 25 * (64 << 20),
            pick_order: PickOrder::MinOverlap,
        }
    }
}

impl LeveledOptions {
    /// Rejects values out of range.
    ///
    /// # Errors
    /// `InvalidInput`, naming the option and its minimum.
    pub fn check(&self) -> Result<()> {
        let fault = if self.l0_compaction_trigger == 0 {
            "l0_compaction_trigger is 0; the minimum is 1"
        } else if self.l0_run_trigger < 2 {
            "l0_run_trigger is below its minimum of 2"
        } else if self.level_base_bytes == 0 {
            "level_base_bytes is 0; the minimum is 1"
        } else if self.level_multiplier < 2 {
            "level_multiplier is below its minimum of 2"
        } else if self.target_table_bytes == 0 {
            "target_table_bytes is 0; the minimum is 1"
        } else if self.max_compaction_bytes < self.target_table_bytes {
            "max_compaction_bytes is below target_table_bytes, its minimum"
        } else if self.tombstone_ratio.is_nan() || self.tombstone_ratio < 0.0 {
            "tombstone_ratio is not a number from 0 up"
        } else {
            return Ok(());
        };
        Err(Error::invalid(fault))
    }

    /// How many bytes of the level below its own an output table may overlap: what its next compaction will cost.
    pub(crate) fn grandparent_overlap_bytes_max(&self) -> u64 {
        crate::split::overlap_bytes_max(self.target_table_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_out_of_range_is_named() {
        LeveledOptions::default().check().unwrap();
        let default = LeveledOptions::default;
        let wrong = [
            (
                "l0_compaction_trigger",
                LeveledOptions {
                    l0_compaction_trigger: 0,
                    ..default()
                },
            ),
            (
                "level_base_bytes",
                LeveledOptions {
                    level_base_bytes: 0,
                    ..default()
                },
            ),
            (
                "level_multiplier",
                LeveledOptions {
                    level_multiplier: 1,
                    ..default()
                },
            ),
            (
                "target_table_bytes",
                LeveledOptions {
                    target_table_bytes: 0,
                    ..default()
                },
            ),
            (
                "max_compaction_bytes",
                LeveledOptions {
                    max_compaction_bytes: 1,
                    ..default()
                },
            ),
            (
                "tombstone_ratio",
                LeveledOptions {
                    tombstone_ratio: f64::NAN,
                    ..default()
                },
            ),
        ];
        for (name, options) in wrong {
            assert!(options.check().unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
