//! Random histories: whatever is flushed and compacted, in whatever order jobs end, every reader sees what the model
//! says, the levels keep their invariants, and the work comes to an end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use siltstone_compaction::{LEVELS, LeveledOptions, PickOrder, debt_bytes, pick_range, scores};
use siltstone_sstable::SeqNo;

use crate::lsm::{Job, Lsm};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Flush,
    Snapshot,
    Release(prop::sample::Index),
    Start,
    StartRange(usize, u8, u8),
    Finish(prop::sample::Index),
    BulkLoad(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<u8>(), any::<u8>()).prop_map(|(key, size)| Step::Put(key, size)),
        6 => any::<u8>().prop_map(Step::Delete),
        1 => (any::<u8>(), 1..40_u8).prop_map(|(key, count)| Step::DeleteRange(key, count)),
        6 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        1 => any::<prop::sample::Index>().prop_map(Step::Release),
        6 => Just(Step::Start),
        1 => (0..LEVELS, any::<u8>(), any::<u8>()).prop_map(|(level, a, b)| Step::StartRange(level, a, b)),
        6 => any::<prop::sample::Index>().prop_map(Step::Finish),
        1 => any::<bool>().prop_map(Step::BulkLoad),
    ]
}

fn options() -> impl Strategy<Value = LeveledOptions> {
    (
        1..4_usize,
        100..2000_u64,
        2..6_u64,
        60..400_u64,
        1..25_u64,
        any::<bool>(),
        0.0..1.0_f64,
        any::<bool>(),
        (2..6_usize, any::<bool>()),
    )
        .prop_map(
            |(
                trigger,
                base,
                multiplier,
                target,
                max_tables,
                dynamic_levels,
                tombstone_ratio,
                round_robin,
                (l0_run_trigger, bulk_load),
            )| LeveledOptions {
                l0_compaction_trigger: trigger,
                l0_run_trigger,
                bulk_load,
                level_base_bytes: base,
                level_multiplier: multiplier,
                target_table_bytes: target,
                dynamic_levels,
                tombstone_ratio,
                max_compaction_bytes: target * max_tables,
                pick_order: if round_robin {
                    PickOrder::RoundRobin
                } else {
                    PickOrder::MinOverlap
                },
            },
        )
}

/// Every version of every key.
#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<KeyVersion>>,
}

/// `None` is a deletion.
type KeyVersion = (SeqNo, Option<Vec<u8>>);

impl Model {
    fn write(&mut self, key: &[u8], seqno: SeqNo, value: Option<Vec<u8>>) {
        self.keys.entry(key.to_vec()).or_default().push((seqno, value));
    }

    fn get(&self, key: &[u8], seqno: SeqNo) -> Option<&[u8]> {
        let versions = self.keys.get(key)?;
        versions
            .iter()
            .rev()
            .find(|version| version.0 <= seqno)?
            .1
            .as_deref()
    }

    fn check(&self, lsm: &Lsm) {
        for seqno in lsm.snapshots.iter().copied().chain([lsm.seqno]) {
            for key in self.keys.keys() {
                assert_eq!(
                    lsm.get(key, seqno),
                    self.get(key, seqno),
                    "key {} at {seqno}",
                    key.escape_ascii()
                );
            }
        }
    }
}

/// Numbers whose order is the order of their keys, which differ in length.
fn key(number: u8) -> Vec<u8> {
    let mut key = format!("{number:03}").into_bytes();
    key.resize(3 + usize::from(number % 4), b'x');
    key
}

struct History {
    lsm: Lsm,
    model: Model,
    jobs: Vec<Job>,
}

impl History {
    fn write(&mut self, number: u8, value: Option<Vec<u8>>) {
        self.lsm.write(&key(number), value.clone());
        self.model.write(&key(number), self.lsm.seqno, value);
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Put(number, size) => {
                let mut value = self.lsm.seqno.0.to_le_bytes().to_vec();
                value.resize(8 + usize::from(*size) % 32, *size);
                self.write(*number, Some(value));
            }
            Step::Delete(number) => self.write(*number, None),
            Step::DeleteRange(first, count) => {
                (*first..first.saturating_add(*count)).for_each(|number| self.write(number, None));
            }
            Step::Flush => self.lsm.flush(),
            Step::Snapshot => {
                self.lsm.snapshot();
            }
            Step::Release(index) if !self.lsm.snapshots.is_empty() => {
                self.lsm.release(index.index(self.lsm.snapshots.len()));
            }
            Step::Start if self.jobs.len() < 4 => self.jobs.extend(self.lsm.start_picked()),
            Step::StartRange(level, a, b) if self.jobs.len() < 4 => {
                let (smallest, largest) = (key(*a.min(b)), key(*a.max(b)));
                let (version, options) = (&self.lsm.version, &self.lsm.options);
                let plan = pick_range(
                    version,
                    options,
                    &self.lsm.in_flight,
                    *level,
                    Some(&smallest),
                    Some(&largest),
                );
                if let Some(plan) = plan {
                    let job = self.lsm.start(plan);
                    self.check_outputs_disjoint(&job);
                    self.jobs.push(job);
                }
            }
            Step::BulkLoad(now) => self.lsm.options.bulk_load = *now,
            Step::Finish(index) if !self.jobs.is_empty() => {
                let job = self.jobs.swap_remove(index.index(self.jobs.len()));
                self.lsm.finish(job);
                self.model.check(&self.lsm);
            }
            _ => {}
        }
        if let (Step::Start, Some((last, _))) = (step, self.jobs.split_last()) {
            self.check_outputs_disjoint(last);
        }
    }

    fn check_outputs_disjoint(&self, new: &Job) {
        let first = |job: &Job| job.plan.input_ids().next();
        for job in self.jobs.iter().filter(|job| first(job) != first(new)) {
            let (a, b) = (new.plan.key_range(), job.plan.key_range());
            // In level 0 age tells tables apart.
            let disjoint = a.1 < b.0 || b.1 < a.0 || new.plan.output_level == 0;
            assert!(
                disjoint || new.plan.output_level != job.plan.output_level,
                "{:?} and {:?}",
                new.plan,
                job.plan
            );
        }
    }

    fn finish(&mut self) {
        while let Some(job) = self.jobs.pop() {
            self.lsm.finish(job);
        }
        self.lsm.flush();
        self.lsm.run_to_idle();
        self.model.check(&self.lsm);
        self.lsm.options.bulk_load = false;
        self.lsm.run_to_idle();
        self.model.check(&self.lsm);
        for (level, score) in scores(&self.lsm.version, &self.lsm.options) {
            assert!(score < 1.0, "level {level} has score {score} and no plan");
        }
        assert_eq!(debt_bytes(&self.lsm.version, &self.lsm.options), 0);
        while !self.lsm.snapshots.is_empty() {
            self.lsm.release(0);
        }
        self.lsm.run_to_idle();
        self.model.check(&self.lsm);
        self.compact_everything();
    }

    /// After a manual compaction of everything, only what the newest reader sees is left.
    fn compact_everything(&mut self) {
        for level in 0..LEVELS {
            let mut plans = 0;
            while let Some(plan) = pick_range(
                &self.lsm.version,
                &self.lsm.options,
                &self.lsm.in_flight,
                level,
                None,
                None,
            ) {
                let job = self.lsm.start(plan);
                self.lsm.finish(job);
                plans += 1;
                assert!(plans < 10_000, "manual compaction does not come to an end");
            }
        }
        self.model.check(&self.lsm);
        let live = self
            .model
            .keys
            .values()
            .filter(|versions| versions.last().unwrap().1.is_some())
            .count();
        let tables = || self.lsm.version.tables().map(|(_, table)| table);
        assert_eq!(
            tables().map(|table| table.entries).sum::<u64>(),
            u64::try_from(live).unwrap()
        );
        assert!(tables().all(|table| table.tombstones == 0 && table.seqno_max == SeqNo::ZERO));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_the_same_whatever_is_compacted(
        options in options(),
        aligned_cuts in any::<bool>(),
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let mut lsm = Lsm::new(options);
        lsm.aligned_cuts = aligned_cuts;
        let mut history = History { lsm, model: Model::default(), jobs: Vec::new() };
        steps.iter().for_each(|step| history.run(step));
        history.finish();
    }
}

/// 40,000 random puts over 8,000 keys with small levels: write amplification stays near what the level sizes ask for.
#[test]
fn random_puts_converge() {
    let options = LeveledOptions {
        level_base_bytes: 16 << 10,
        target_table_bytes: 4 << 10,
        max_compaction_bytes: 100 << 10,
        ..LeveledOptions::default()
    };
    let mut lsm = Lsm::new(options);
    let mut state = 1_u64;
    for count in 1..=40_000_u32 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let number = (state >> 33) % 8000;
        lsm.write(format!("{number:08}").as_bytes(), Some(vec![7; 24]));
        if count % 100 == 0 {
            lsm.flush();
            lsm.run_to_idle();
        }
    }
    let amplification = (lsm.flushed_bytes + lsm.compacted_bytes) as f64 / lsm.flushed_bytes as f64;
    let levels: Vec<u64> = (0..LEVELS).map(|level| lsm.version.level_bytes(level)).collect();
    println!(
        "levels {levels:?}, {} plans, write amplification {amplification:.2}",
        lsm.plans
    );
    assert!(amplification < 12.0, "write amplification {amplification}");
    assert!(
        scores(&lsm.version, &lsm.options)
            .iter()
            .all(|(_, score)| *score < 1.0)
    );
    let newest = lsm.version.total_bytes() as f64 / lsm.version.level_bytes(LEVELS - 1) as f64;
    assert!(newest < 1.6, "space amplification {newest}");
}
