//! How large each level should be, and how far off it is.

use crate::runs::Backlog;
use crate::{InFlight, LEVELS, LeveledOptions, TableMeta, Version};

/// The sizes that the levels should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    /// Where level 0 is compacted into.
    pub(crate) base_level: usize,
    /// Levels above this one, but for level 0, are not needed: what they have is drained.
    first_needed: usize,
    /// The largest size of each level below level 0; at least 1.
    bytes: [u64; LEVELS],
}

impl Targets {
    pub(crate) fn new(version: &Version, options: &LeveledOptions) -> Targets {
        if options.dynamic_levels {
            Self::dynamic(version, options)
        } else {
            Self::fixed(options)
        }
    }

    /// What `size_bytes` in a level below level 0 score: from 1.0 up, some of it has to go on.
    fn score(&self, level: usize, size_bytes: u64) -> f64 {
        let score = size_bytes as f64 / self.bytes[level] as f64;
        if level < self.first_needed && size_bytes > 0 {
            score.max(1.0)
        } else {
            score
        }
    }

    /// Where `merged_bytes` of level 0 go that have waited there: to the first level that is as large as they are. To stop
    /// on the way would rewrite them once more.
    pub(crate) fn drain_level(&self, merged_bytes: u64) -> usize {
        (self.base_level..LEVELS - 1)
            .find(|level| self.bytes[*level] >= merged_bytes)
            .unwrap_or(LEVELS - 1)
    }

    /// What is rewritten when they go.
    pub(crate) fn drain_bytes(&self, version: &Version, merged_bytes: u64) -> u128 {
        let levels = self.base_level..=self.drain_level(merged_bytes);
        let below: u128 = levels.map(|level| u128::from(version.level_bytes(level))).sum();
        u128::from(merged_bytes) + below
    }

    /// How much of `size_bytes` has to go on.
    fn excess(&self, level: usize, size_bytes: u128) -> u128 {
        let kept = if level < self.first_needed {
            0
        } else {
            self.bytes[level]
        };
        size_bytes.saturating_sub(u128::from(kept))
    }

    /// From the top: level 1 has the base size, each deeper one `multiplier` times more.
    fn fixed(options: &LeveledOptions) -> Targets {
        let mut bytes = [options.level_base_bytes.max(1); LEVELS];
        for level in 2..LEVELS {
            bytes[level] = bytes[level - 1].saturating_mul(options.level_multiplier);
        }
        Targets {
            base_level: 1,
            first_needed: 1,
            bytes,
        }
    }

    /// From the bottom: the last level is as large as it is, each level above it `multiplier` times smaller, and the
    /// first one that comes out at no more than the base size is the one that level 0 goes into. A backlog in
    /// level 0 raises that one's target, up to the base size, so that it does not have to go on at once.
    ///
    /// Levels above are not needed. Where there still are tables in one (the options changed, or most of the data
    /// was deleted) it is the base level for order's sake, and it is drained.
    fn dynamic(version: &Version, options: &LeveledOptions) -> Targets {
        let last = LEVELS - 1;
        let mut bytes = [1; LEVELS];
        bytes[last] = (1..LEVELS)
            .map(|level| version.level_bytes(level))
            .max()
            .unwrap_or(0)
            .max(1);
        for level in (1..last).rev() {
            bytes[level] = (bytes[level + 1] / options.level_multiplier.max(2)).max(1);
        }
        let fits = |level: &usize| bytes[*level] <= options.level_base_bytes;
        let first_needed = (1..LEVELS).rev().find(fits).unwrap_or(1);
        let base_level = (1..first_needed)
            .find(|level| version.level_bytes(*level) > 0)
            .unwrap_or(first_needed);
        let backlog = version.level_bytes(0).min(options.level_base_bytes);
        bytes[first_needed] = bytes[first_needed].max(backlog);
        Targets {
            base_level,
            first_needed,
            bytes,
        }
    }
}

/// The level that level 0 is compacted into now. Levels between the two have no tables.
pub fn base_level(version: &Version, options: &LeveledOptions) -> usize {
    Targets::new(version, options).base_level
}

/// How urgently each level needs a compaction: from 1.0 up it is over its target. Level 0's is the larger of its
/// count of tables to the trigger, and its bytes to the base size; another's is its bytes to its target. Most
/// urgent first; the last level has no score, because there is nowhere to go from it.
pub fn scores(version: &Version, options: &LeveledOptions) -> Vec<(usize, f64)> {
    scores_beside(
        version,
        options,
        &Targets::new(version, options),
        &InFlight::new(),
    )
}

/// As [`scores`], without the tables that running plans take away.
pub(crate) fn scores_beside(
    version: &Version,
    options: &LeveledOptions,
    targets: &Targets,
    busy: &InFlight,
) -> Vec<(usize, f64)> {
    let idle = |level: usize| {
        version
            .level(level)
            .iter()
            .filter(|table| !busy.contains(table.id))
    };
    let bytes = |level: usize| {
        if busy.is_empty() {
            version.level_bytes(level)
        } else {
            sum_bytes(idle(level).map(|table| &**table))
        }
    };
    let count_score = idle(0).count() as f64 / options.l0_compaction_trigger.max(1) as f64;
    let l0_score = if options.dynamic_levels || count_score >= 1.0 {
        count_score.max(bytes(0) as f64 / options.level_base_bytes.max(1) as f64)
    } else {
        count_score
    };
    let mut scores = vec![(0, l0_score)];
    scores.extend((1..LEVELS - 1).map(|level| (level, targets.score(level, bytes(level)))));
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores
}

/// How many bytes compactions will have to read and write until every level is within its target, estimated from the
/// sizes alone: what the engine slows writers down by. 0 when no level is over its target.
///
/// The estimate takes the levels from the top. Level 0 goes down with all of the base level, or where merged runs have
/// gathered in it, with all levels down to the one they go to; what a level then has over its target goes down with its
/// share of the level below.
pub fn debt_bytes(version: &Version, options: &LeveledOptions) -> u64 {
    let targets = Targets::new(version, options);
    let mut debt: u128 = 0;
    let mut arriving: u128 = 0;
    let mut first = targets.base_level;
    let l0 = u128::from(version.level_bytes(0));
    if version.l0_count() >= options.l0_compaction_trigger
        || (options.dynamic_levels && l0 >= u128::from(options.level_base_bytes))
    {
        let merged_bytes = Backlog::of(version).merged_bytes();
        if merged_bytes > 0 {
            first = targets.drain_level(merged_bytes);
        }
        let above = (targets.base_level..first).map(|level| u128::from(version.level_bytes(level)));
        arriving = l0 + above.sum::<u128>();
        debt = arriving + u128::from(version.level_bytes(first));
    }
    for level in first..LEVELS - 1 {
        let size = u128::from(version.level_bytes(level)) + arriving;
        let excess = targets.excess(level, size);
        if excess > 0 {
            let below = u128::from(version.level_bytes(level + 1));
            debt += excess + excess.saturating_mul(below) / size;
        }
        arriving = excess;
    }
    u64::try_from(debt).unwrap_or(u64::MAX)
}

pub(crate) fn sum_bytes<'a>(tables: impl IntoIterator<Item = &'a TableMeta>) -> u64 {
    tables
        .into_iter()
        .map(|table| table.size_bytes)
        .fold(0, u64::saturating_add)
}
