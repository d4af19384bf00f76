//! Publication and snapshots under the model checker: every schedule with up to two preemptions.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;

use super::*;
use crate::snapshot_list::SnapshotList;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(test);
}

/// A commit, and the memtable: whether the operation with each seqno, from 1 on, is there.
struct Engine {
    commit: Commit,
    inserted: [AtomicBool; 3],
}

impl Engine {
    fn new() -> Arc<Engine> {
        let commit = Commit::new(CommitState {
            log: None,
            next: SeqNo(1),
            log_bytes: 0,
            last_record: RecordSeq(0),
            sealed: VecDeque::new(),
            places: Places::default(),
        });
        let inserted = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Engine { commit, inserted })
    }

    /// What a writer does with a batch of so many operations.
    fn write(&self, operations: u64) {
        let place = self.commit.give_place(&mut self.commit.lock(), operations);
        for seqno in place.first.0..=place.last.0 {
            self.inserted[usize::try_from(seqno).unwrap() - 1].store(true, Relaxed);
        }
        self.commit.publish(place);
        self.commit.wait_until_visible(place.last);
        assert!(self.read() >= place.last, "a writer does not see what it wrote");
    }

    /// Everything up to what is visible is there.
    fn read(&self) -> SeqNo {
        let visible = self.commit.visible();
        for inserted in &self.inserted[..usize::try_from(visible.0).unwrap()] {
            assert!(
                inserted.load(Relaxed),
                "{visible} is visible, and not all up to it is there"
            );
        }
        visible
    }
}

fn spawn(engine: &Arc<Engine>, run: impl FnOnce(&Engine) + Send + 'static) -> thread::JoinHandle<()> {
    let engine = Arc::clone(engine);
    thread::spawn(move || run(&engine))
}

#[test]
fn model_what_is_visible_is_there_and_does_not_go_back() {
    model(|| {
        let engine = Engine::new();
        let writers = [2, 1].map(|operations| spawn(&engine, move |engine| engine.write(operations)));
        let first = engine.read();
        assert!(engine.read() >= first);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(engine.read(), SeqNo(3));
    });
}

/// A flush waits for the last batch of its memtable. A wake-up that is lost is a deadlock, which the checker reports.
#[test]
fn model_who_waits_for_a_seqno_is_woken() {
    model(|| {
        let engine = Engine::new();
        let writers = [1, 1].map(|operations| spawn(&engine, move |engine| engine.write(operations)));
        engine.commit.wait_until_visible(SeqNo(2));
        assert!(engine.read() >= SeqNo(2));
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

/// A compaction that does not see a snapshot in the list merges nothing that is newer than it.
#[test]
fn model_a_snapshot_is_listed_or_as_new_as_all_that_is_merged() {
    model(|| {
        let engine = Engine::new();
        let snapshots = Arc::new(SnapshotList::default());
        let writer = spawn(&engine, |engine| engine.write(1));
        let taker = {
            let (engine, snapshots) = (Arc::clone(&engine), Arc::clone(&snapshots));
            thread::spawn(move || snapshots.acquire(|| engine.commit.visible()))
        };
        let merged = engine.commit.visible();
        let listed = snapshots.list();
        let taken = taker.join().unwrap();
        assert!(
            listed.contains(&taken) || taken >= merged,
            "{taken} reads what a compaction of {merged} took for overwritten"
        );
        writer.join().unwrap();
    });
}
