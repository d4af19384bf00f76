//! An LSM tree without files: tables are vectors. It runs plans as the engine does, in two halves with other work
//! between, and its reads rely on the order of the levels.

#![allow(dead_code, reason = "the tests and the example use different parts")]

use std::collections::HashMap;
use std::sync::Arc;

use siltstone_compaction::{
    BottomCheck, CompactionStream, Cursors, InFlight, LeveledOptions, OutputSplitter, Plan, PlanKind,
    Stretch, TableMeta, Version, VersionEdit, pick,
};
use siltstone_sstable::{InternalKey, MergeIterator, SeqNo, TableId, Tag, ValueKind, VecIterator};

pub(crate) type Entries = Arc<Vec<(Vec<u8>, Tag, Vec<u8>)>>;

/// A plan that has been started: it sees the tables, the snapshots and the levels below as they were then.
pub(crate) struct Job {
    pub(crate) plan: Plan,
    inputs: Vec<Entries>,
    snapshots: Vec<SeqNo>,
    bottom: BottomCheck,
}

pub(crate) struct Lsm {
    pub(crate) options: LeveledOptions,
    pub(crate) version: Version,
    pub(crate) cursors: Cursors,
    pub(crate) in_flight: InFlight,
    /// Ascending.
    pub(crate) snapshots: Vec<SeqNo>,
    pub(crate) seqno: SeqNo,
    pub(crate) aligned_cuts: bool,
    pub(crate) flushed_bytes: u64,
    pub(crate) compacted_bytes: u64,
    pub(crate) plans: u64,
    pub(crate) trivial_moves: u64,
    memtable: Vec<(Vec<u8>, Tag, Vec<u8>)>,
    tables: HashMap<TableId, Entries>,
    next_id: u64,
}

impl Lsm {
    pub(crate) fn new(options: LeveledOptions) -> Lsm {
        options.check().unwrap();
        Lsm {
            options,
            version: Version::default(),
            cursors: Cursors::default(),
            in_flight: InFlight::new(),
            snapshots: Vec::new(),
            seqno: SeqNo::ZERO,
            aligned_cuts: true,
            flushed_bytes: 0,
            compacted_bytes: 0,
            plans: 0,
            trivial_moves: 0,
            memtable: Vec::new(),
            tables: HashMap::new(),
            next_id: 1,
        }
    }

    pub(crate) fn write(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        self.seqno = self.seqno.plus(1);
        let kind = if value.is_some() {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        self.memtable.push((
            key.to_vec(),
            Tag::new(self.seqno, kind),
            value.unwrap_or_default(),
        ));
    }

    pub(crate) fn snapshot(&mut self) -> SeqNo {
        self.snapshots.push(self.seqno);
        self.in_flight
            .set_oldest_snapshot(self.snapshots.first().copied());
        self.seqno
    }

    pub(crate) fn release(&mut self, index: usize) {
        self.snapshots.remove(index);
        self.in_flight
            .set_oldest_snapshot(self.snapshots.first().copied());
    }

    pub(crate) fn flush(&mut self) {
        if self.memtable.is_empty() {
            return;
        }
        let mut entries = std::mem::take(&mut self.memtable);
        entries.sort_by(|a, b| InternalKey::new(&a.0, a.1).cmp(&InternalKey::new(&b.0, b.1)));
        let input = VecIterator::new(Arc::new(entries));
        let mut stream = CompactionStream::new(input, &self.snapshots, BottomCheck::never());
        let mut kept = Vec::new();
        while let Some((key, value)) = stream.next().unwrap() {
            kept.push((key.user_key.to_vec(), key.tag, value.to_vec()));
        }
        let table = self.add_table(kept);
        self.flushed_bytes += table.size_bytes;
        self.apply(&VersionEdit::flush(table));
    }

    /// Picks and registers a plan, and takes what its job will need.
    pub(crate) fn start_picked(&mut self) -> Option<Job> {
        let plan = pick(&self.version, &self.options, &self.in_flight, &mut self.cursors)?;
        Some(self.start(plan))
    }

    pub(crate) fn start(&mut self, plan: Plan) -> Job {
        for (level, table) in plan.tables() {
            assert!(
                !self.in_flight.contains(table.id),
                "plan takes busy table {}",
                table.id
            );
            assert!(self.version.level(level).iter().any(|other| other.id == table.id));
        }
        assert!(plan.inputs.iter().all(|(_, tables)| !tables.is_empty()));
        self.in_flight.start(&plan);
        let inputs = plan.input_ids().map(|id| Arc::clone(&self.tables[&id])).collect();
        let bottom = BottomCheck::new(&self.version, &plan);
        Job {
            plan,
            inputs,
            snapshots: self.snapshots.clone(),
            bottom,
        }
    }

    /// Does the work of a job and installs the result.
    pub(crate) fn finish(&mut self, job: Job) {
        let Job {
            plan,
            inputs,
            snapshots,
            bottom,
        } = job;
        let input_ids: Vec<TableId> = plan.input_ids().collect();
        let mut outputs = Vec::new();
        self.plans += 1;
        if plan.kind == PlanKind::Merge {
            outputs = self.merge(&plan, inputs, &snapshots, bottom);
        } else {
            self.trivial_moves += 1;
        }
        self.compacted_bytes += outputs.iter().map(|table| table.size_bytes).sum::<u64>();
        self.apply(&plan.edit(outputs));
        self.in_flight.finish(&plan);
        if plan.kind != PlanKind::Trivial {
            for id in input_ids {
                self.tables.remove(&id);
            }
        }
    }

    fn merge(
        &mut self,
        plan: &Plan,
        inputs: Vec<Entries>,
        snapshots: &[SeqNo],
        bottom: BottomCheck,
    ) -> Vec<TableMeta> {
        let stretches = inputs.iter().flat_map(|input| {
            let stretch = |entry: &(Vec<u8>, Tag, Vec<u8>)| Stretch {
                last_key: entry.0.clone(),
                size_bytes: entry_bytes(entry),
            };
            input.iter().map(stretch).collect::<Vec<_>>()
        });
        // Of one, two and three parts in turn.
        let parts = plan.key_parts(stretches.collect(), usize::try_from(self.plans % 3).unwrap() + 1);
        let mut outputs = Vec::new();
        for part in parts {
            let merged = MergeIterator::new(inputs.iter().cloned().map(VecIterator::new).collect());
            let mut stream = CompactionStream::new(merged, snapshots, bottom.clone()).within(part);
            let mut splitter = if self.aligned_cuts {
                OutputSplitter::for_plan(plan, self.options.target_table_bytes)
            } else {
                OutputSplitter::new(self.options.target_table_bytes, Vec::new())
            };
            let mut output = Vec::new();
            let mut output_bytes = 0;
            while let Some((key, value)) = stream.next().unwrap() {
                if splitter.should_cut_before(key.user_key, output_bytes) {
                    outputs.push(self.add_table(std::mem::take(&mut output)));
                    output_bytes = 0;
                }
                output.push((key.user_key.to_vec(), key.tag, value.to_vec()));
                output_bytes += entry_bytes(output.last().unwrap());
            }
            if !output.is_empty() {
                outputs.push(self.add_table(output));
            }
        }
        let (smallest, largest) = plan.key_range();
        assert!(
            outputs
                .iter()
                .all(|table| *smallest <= *table.smallest && *table.largest <= *largest)
        );
        outputs
    }

    fn apply(&mut self, edit: &VersionEdit) {
        self.version = self.version.apply(edit).unwrap();
        if cfg!(debug_assertions) {
            self.version.check().unwrap();
        }
        self.check_runs();
    }

    /// The runs of level 0 have its tables, each once, disjoint in a run; of two that overlap the newer one comes first.
    fn check_runs(&self) {
        let l0 = self.version.level(0);
        let runs = self.version.l0_runs();
        assert_eq!(runs.iter().map(|run| run.tables.len()).sum::<usize>(), l0.len());
        let place = |id| {
            runs.iter()
                .position(|run| run.tables.iter().any(|other| other.id == id))
        };
        for run in runs {
            assert!(run.tables.is_sorted_by(|a, b| a.largest < b.smallest));
        }
        for (index, newer) in l0.iter().enumerate() {
            for older in l0[index + 1..].iter().filter(|older| older.overlaps(newer)) {
                assert!(place(newer.id).unwrap() < place(older.id).unwrap());
            }
        }
    }

    /// Runs plans one by one until there is none.
    pub(crate) fn run_to_idle(&mut self) {
        for _ in 0..100_000 {
            match self.start_picked() {
                Some(job) => self.finish(job),
                None => return,
            }
        }
        panic!("compaction does not come to an end");
    }

    fn add_table(&mut self, entries: Vec<(Vec<u8>, Tag, Vec<u8>)>) -> TableMeta {
        let id = TableId(self.next_id);
        self.next_id += 1;
        let seqnos = entries.iter().map(|entry| entry.1.seqno());
        let meta = TableMeta {
            id,
            size_bytes: entries.iter().map(entry_bytes).sum(),
            entries: entries.len().try_into().unwrap(),
            tombstones: entries
                .iter()
                .filter(|entry| entry.1.is_tombstone())
                .count()
                .try_into()
                .unwrap(),
            smallest: entries[0].0.clone().into(),
            largest: entries[entries.len() - 1].0.clone().into(),
            seqno_min: seqnos.clone().min().unwrap(),
            seqno_max: seqnos.max().unwrap(),
        };
        self.tables.insert(id, Arc::new(entries));
        meta
    }

    pub(crate) fn entries(&self, id: TableId) -> &Entries {
        &self.tables[&id]
    }

    /// The value of `key` at `seqno`, from the first table that knows it, newest first.
    pub(crate) fn get(&self, key: &[u8], seqno: SeqNo) -> Option<&[u8]> {
        let in_memtable = self
            .memtable
            .iter()
            .filter(|entry| entry.0 == key && entry.1.seqno() <= seqno);
        if let Some(entry) = in_memtable.max_by_key(|entry| entry.1) {
            return value_of(entry);
        }
        let l0 = self.version.level(0).iter().filter(|table| table.contains(key));
        let deeper = (1..siltstone_compaction::LEVELS).filter_map(|level| self.version.find(level, key));
        for table in l0.chain(deeper) {
            let entries = &self.tables[&table.id];
            let target = InternalKey::new(key, Tag::seek_at(seqno));
            let index = entries.partition_point(|entry| InternalKey::new(&entry.0, entry.1) < target);
            if let Some(entry) = entries.get(index).filter(|entry| entry.0 == key) {
                return value_of(entry);
            }
        }
        None
    }
}

fn value_of(entry: &(Vec<u8>, Tag, Vec<u8>)) -> Option<&[u8]> {
    (!entry.1.is_tombstone()).then_some(&entry.2)
}

fn entry_bytes(entry: &(Vec<u8>, Tag, Vec<u8>)) -> u64 {
    u64::try_from(entry.0.len() + entry.2.len() + 8).unwrap()
}
