//! Write amplification of the picking and cutting rules and of the levels' shape, in a pure simulation: every level, plan, merge
//! and cut is the crate's own, only the files are vectors.
//!
//! `cargo run --release -p siltstone-compaction --example write_amp`

#[path = "../tests/levels/lsm.rs"]
mod lsm;

use lsm::Lsm;
use siltstone_compaction::{LEVELS, LeveledOptions, PickOrder};

const KEYS: u64 = 400_000;
const WRITES: u64 = 1_200_000;
const ENTRIES_PER_FLUSH: u64 = 1600;

/// Keys of the growing load, each put once; the sizes of its flushes and tables are the engine's, 256 times smaller.
const GROWTH_KEYS: u64 = 580_000;
const GROWTH_ENTRIES_PER_FLUSH: u64 = 1200;
const GROWTH_MIB: u64 = (1 << 20) / 256;

/// Sizes as by default, 1,024 times smaller: flushes and tables of 64 KiB, 256 KiB in the base level.
fn options(pick_order: PickOrder) -> LeveledOptions {
    LeveledOptions {
        level_base_bytes: 256 << 10,
        target_table_bytes: 64 << 10,
        max_compaction_bytes: 25 * (64 << 10),
        pick_order,
        ..LeveledOptions::default()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The key of the n-th write.
type NextKey = fn(&mut Random, u64) -> u64;

fn uniform(random: &mut Random, _: u64) -> u64 {
    random.below(KEYS)
}

/// Four of five writes go to a fifth of the keys, which lie together.
fn skewed(random: &mut Random, _: u64) -> u64 {
    if random.below(5) < 4 {
        random.below(KEYS / 5)
    } else {
        random.below(KEYS)
    }
}

fn ascending(_: &mut Random, index: u64) -> u64 {
    index
}

fn main() {
    println!(
        "{KEYS} keys, {WRITES} puts of 40 bytes; flushes and tables of 64 KiB, base level 256 KiB, levels 10 times larger"
    );
    println!(
        "{:<10} {:<12} {:<9} {:>6} {:>7} {:>8} {:>7} {:>9} {:>6}",
        "keys", "order", "cuts", "w-amp", "plans", "moves", "tables", "avg KiB", "space"
    );
    let workloads: [(&str, NextKey); 3] =
        [("uniform", uniform), ("skewed", skewed), ("ascending", ascending)];
    for (name, next_key) in workloads {
        for pick_order in [PickOrder::MinOverlap, PickOrder::RoundRobin] {
            for aligned_cuts in [true, false] {
                run(name, next_key, pick_order, aligned_cuts);
            }
        }
    }
    println!(
        "\n{GROWTH_KEYS} keys, put once in random order: 50 million of 116 bytes, 256 times smaller; bytes that compactions wrote over those flushed"
    );
    println!(
        "{:>7} {:>8} {:>10} {:>9} {:>9}",
        "trigger", "base MiB", "multiplier", "at a tenth", "at the end"
    );
    for (trigger, base_mib, multiplier) in [
        (16, 256, 10),
        (32, 256, 10),
        (16, 512, 10),
        (16, 512, 5),
        (16, 512, 3),
        (32, 512, 5),
        (48, 512, 5),
    ] {
        grow(trigger, base_mib, multiplier);
    }
}

/// A load that never waits for its compactions and never lets them wait either.
fn grow(trigger: usize, base_mib: u64, multiplier: u64) {
    let mut lsm = Lsm::new(LeveledOptions {
        l0_compaction_trigger: trigger,
        level_base_bytes: base_mib * GROWTH_MIB,
        level_multiplier: multiplier,
        target_table_bytes: 64 * GROWTH_MIB,
        max_compaction_bytes: 25 * 64 * GROWTH_MIB,
        ..LeveledOptions::default()
    });
    let mut at_a_tenth = 0.0;
    for index in 0..GROWTH_KEYS {
        // Odd, so that no key comes twice.
        let key = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        lsm.write(&key.to_be_bytes(), Some(vec![7; 24]));
        if (index + 1) % GROWTH_ENTRIES_PER_FLUSH == 0 {
            lsm.flush();
            lsm.run_to_idle();
        }
        if index + 1 == GROWTH_KEYS / 10 {
            at_a_tenth = lsm.compacted_bytes as f64 / lsm.flushed_bytes as f64;
        }
    }
    let at_the_end = lsm.compacted_bytes as f64 / lsm.flushed_bytes as f64;
    println!("{trigger:>7} {base_mib:>8} {multiplier:>10} {at_a_tenth:>10.2} {at_the_end:>10.2}");
}

fn run(name: &str, next_key: NextKey, pick_order: PickOrder, aligned_cuts: bool) {
    let mut lsm = Lsm::new(options(pick_order));
    lsm.aligned_cuts = aligned_cuts;
    let mut random = Random(1);
    for index in 0..WRITES {
        lsm.write(&next_key(&mut random, index).to_be_bytes(), Some(vec![7; 24]));
        if (index + 1) % ENTRIES_PER_FLUSH == 0 {
            lsm.flush();
            lsm.run_to_idle();
        }
    }
    let tables = lsm.version.tables().count() as f64;
    let bytes = lsm.version.total_bytes() as f64;
    println!(
        "{name:<10} {:<12} {:<9} {:>6.2} {:>7} {:>8} {tables:>7} {:>9.1} {:>6.2}",
        format!("{pick_order:?}"),
        if aligned_cuts { "aligned" } else { "by size" },
        (lsm.flushed_bytes + lsm.compacted_bytes) as f64 / lsm.flushed_bytes as f64,
        lsm.plans,
        lsm.trivial_moves,
        bytes / tables / 1024.0,
        bytes / lsm.version.level_bytes(LEVELS - 1).max(1) as f64,
    );
}
