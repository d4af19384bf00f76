//! One thread of a history: writes, reads, holds snapshots and iterators, and writes down what it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::{Db, ErrorKind, Iter, Keyspace, KeyspaceSnapshot, Snapshot, Value, WriteBatch, WriteOptions};

use super::history::{LogicalClock, Span};
use super::keys::{Key, OWN_KEYS, SHARED_KEYS, id_of, value_of};
use super::record::{Batch, Record, Sight, batch_id, shared_id};
use super::register::{Access, Action};
use crate::violation::Violation;

/// Snapshots, and iterators, that one thread holds at most.
const HELD_MAX: usize = 3;

/// What ends a thread early.
pub(super) enum Stop {
    /// Somebody has closed the database.
    Closed,
    Wrong(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Stop::Wrong(violation)
    }
}

/// What all threads of a round share.
pub(super) struct Shared {
    pub(super) clock: Arc<LogicalClock>,
    /// Set before the database is closed: from then on it may answer so.
    pub(super) closing: AtomicBool,
    /// How many threads have keys of their own.
    pub(super) writers: usize,
}

impl Shared {
    /// An answer of the engine; only a closed database may refuse one.
    pub(super) fn answer<T>(&self, what: &str, answer: siltstone::Result<T>) -> Result<T, Stop> {
        answer.map_err(|error| {
            if error.kind() == ErrorKind::Closed && self.closing.load(Ordering::SeqCst) {
                Stop::Closed
            } else {
                Stop::Wrong(Violation::unexpected(what, &error))
            }
        })
    }

    /// Calls and times.
    fn timed<T>(&self, call: impl FnOnce() -> T) -> (Span, T) {
        let begin = self.clock.tick();
        let answer = call();
        let end = Some(self.clock.tick());
        (Span { begin, end }, answer)
    }
}

/// A snapshot with what it showed when it was first read.
struct HeldSnapshot {
    snapshot: Snapshot,
    span: Span,
    found: Option<Vec<(Key, Option<u64>)>>,
}

struct HeldIter {
    iter: Iter,
    span: Span,
    other: bool,
}

/// What outlives a thread: held beyond the end of the database.
#[derive(Default)]
pub(super) struct Held {
    snapshots: Vec<HeldSnapshot>,
    iters: Vec<HeldIter>,
}

impl Held {
    /// Checks that a closed database answers so to whoever still holds a part of it.
    pub(super) fn check_closed(self) -> Result<(), Violation> {
        let snapshots = self.snapshots.iter();
        let answers = snapshots.map(|held| held.snapshot.get(Key::Shared(0).bytes()).map(drop));
        let iters = self.iters.into_iter();
        let answers = answers.chain(iters.map(|mut held| held.iter.next().transpose().map(drop)));
        for answer in answers {
            if answer.as_ref().err().map(siltstone::Error::kind) != Some(ErrorKind::Closed) {
                return Err(Violation::new(format!(
                    "the database has been closed, and what is held of it answers {answer:?}"
                )));
            }
        }
        Ok(())
    }
}

pub(super) struct Worker {
    db: Db,
    other: Keyspace,
    shared: Arc<Shared>,
    thread: usize,
    /// Batches of this thread so far, those of earlier rounds included.
    batches: u64,
    /// Values that this thread has put into shared keys, and so in this round and earlier ones.
    pub(super) values: u64,
    rng: StdRng,
    record: Record,
    held: Held,
    pub(super) operations: u64,
}

impl Worker {
    pub(super) fn new(
        (db, other): (Db, Keyspace),
        shared: Arc<Shared>,
        thread: usize,
        (batches, values): (u64, u64),
        seed: u64,
    ) -> Self {
        Self {
            record: Record::new(shared.writers),
            db,
            other,
            shared,
            thread,
            batches,
            values,
            rng: StdRng::seed_from_u64(seed),
            held: Held::default(),
            operations: 0,
        }
    }

    /// Runs so many operations, or until `stop` or the database is closed. Lets go of the database.
    pub(super) fn run(
        mut self,
        operations: u64,
        stop: &AtomicBool,
    ) -> Result<(Record, Held, u64, u64), Violation> {
        while self.operations < operations && !stop.load(Ordering::Relaxed) {
            match self.step() {
                Ok(()) => self.operations += 1,
                Err(Stop::Closed) => break,
                Err(Stop::Wrong(violation)) => {
                    return Err(violation.context(format!("thread {}", self.thread)));
                }
            }
        }
        Ok((self.record, self.held, self.operations, self.values))
    }

    fn step(&mut self) -> Result<(), Stop> {
        let writes_percent = if self.thread < self.shared.writers { 60 } else { 0 };
        if self.rng.random_range(0..100) < writes_percent {
            return match self.rng.random_range(0..10) {
                0..5 => self.batch(),
                _ => self.write_shared(),
            };
        }
        match self.rng.random_range(0..16) {
            0..5 => self.get_shared(),
            5 => self.get_own(),
            6 | 7 => self.multi_get(),
            8 => self.scan(),
            9 => self.seek(),
            10 | 11 => self.hold_iter(),
            12 => self.take_snapshot(),
            _ => self.read_snapshot(),
        }
    }

    fn keyspace(&self, other: bool) -> &Keyspace {
        if other { &self.other } else { &self.db }
    }

    fn new_value(&mut self) -> u64 {
        self.values += 1;
        shared_id(self.thread, self.values)
    }

    /// Writes keys of its own, the stamps, and now and then shared keys.
    fn batch(&mut self) -> Result<(), Stop> {
        let id = batch_id(self.thread, self.batches + 1);
        let mut batch = WriteBatch::new();
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for other in [false, true] {
            let keyspace = self.keyspace(other).clone();
            let thread = self.thread;
            for n in 0..OWN_KEYS {
                let key = Key::Own { other, thread, n };
                match self.rng.random_range(0..8) {
                    0..3 => {
                        batch.put_in(&keyspace, key.bytes(), value_of(id));
                        own.push((key, true));
                    }
                    3 => {
                        batch.delete_in(&keyspace, key.bytes());
                        own.push((key, false));
                    }
                    _ => {}
                }
            }
            batch.put_in(&keyspace, Key::Stamp { other, thread }.bytes(), value_of(id));
        }
        if self.rng.random_bool(0.2) {
            let (key, value) = (self.rng.random_range(0..SHARED_KEYS), self.new_value());
            batch.put(Key::Shared(key).bytes(), value_of(value));
            shared.push((key, Some(value)));
        }
        let options = if self.rng.random_bool(0.05) {
            WriteOptions::sync()
        } else {
            WriteOptions::default()
        };
        let (mut span, answer) = self.shared.timed(|| self.db.write_with(batch, &options));
        let answer = self.shared.answer("a batch", answer);
        if answer.is_err() {
            span.end = None;
        }
        self.batches += 1;
        self.record.batches[self.thread].push(Batch { span, own, shared });
        answer
    }

    fn write_shared(&mut self) -> Result<(), Stop> {
        let key = self.rng.random_range(0..SHARED_KEYS);
        let value = self.rng.random_bool(0.75).then(|| self.new_value());
        let bytes = Key::Shared(key).bytes();
        let (mut span, answer) = self.shared.timed(|| match value {
            Some(id) => self.db.put(&bytes, value_of(id)),
            None => self.db.delete(&bytes),
        });
        let answer = self.shared.answer("a write", answer);
        if answer.is_err() {
            span.end = None;
        }
        let action = Action::Write(value);
        self.record.shared.push((key, Access { span, action }));
        answer
    }

    fn get_shared(&mut self) -> Result<(), Stop> {
        let key = self.rng.random_range(0..SHARED_KEYS);
        let bytes = Key::Shared(key).bytes();
        let copied = self.rng.random_bool(0.5);
        let (span, answer) = self.shared.timed(|| {
            if copied {
                self.db.get(&bytes)
            } else {
                self.db.get_with(&bytes, |value| Value::from(value))
            }
        });
        let value = self.shared.answer("get", answer)?;
        let action = Action::Read(value.map(|value| id_of(&value)).transpose()?);
        self.record.shared.push((key, Access { span, action }));
        Ok(())
    }

    fn get_own(&mut self) -> Result<(), Stop> {
        let other = self.rng.random_bool(0.5);
        let key = Key::Own {
            other,
            thread: self.rng.random_range(0..self.shared.writers),
            n: self.rng.random_range(0..OWN_KEYS),
        };
        let (span, answer) = self.shared.timed(|| self.keyspace(other).get(key.bytes()));
        let value = self.shared.answer("get", answer)?;
        let id = value.map(|value| id_of(&value)).transpose()?;
        self.note(span, "get", vec![(key, id)]);
        Ok(())
    }

    /// The stamp of a thread, and some of all keys.
    fn some_keys(&mut self, other: bool) -> Vec<Key> {
        let thread = self.rng.random_range(0..self.shared.writers);
        let stamp = Key::Stamp { other, thread };
        let mut keys = Key::all(other, self.shared.writers);
        keys.retain(|key| *key == stamp || self.rng.random_bool(0.4));
        keys
    }

    fn multi_get(&mut self) -> Result<(), Stop> {
        let other = self.rng.random_bool(0.5);
        let keys = self.some_keys(other);
        let (span, values) = self
            .shared
            .timed(|| self.keyspace(other).multi_get(keys.iter().map(|key| key.bytes())));
        let found = self.pair(keys, values)?;
        self.note(span, "multi_get", found);
        Ok(())
    }

    fn pair(
        &self,
        keys: Vec<Key>,
        values: Vec<siltstone::Result<Option<Value>>>,
    ) -> Result<Vec<(Key, Option<u64>)>, Stop> {
        if keys.len() != values.len() {
            return Err(Violation::new("multi_get gives another number of values than of keys").into());
        }
        let pairs = keys.into_iter().zip(values).map(|(key, value)| {
            let value = self.shared.answer("multi_get", value)?;
            Ok((key, value.map(|value| id_of(&value)).transpose()?))
        });
        pairs.collect()
    }

    fn scan(&mut self) -> Result<(), Stop> {
        let other = self.rng.random_bool(0.5);
        let (span, iter) = self.shared.timed(|| self.keyspace(other).iter());
        let iter = self.shared.answer("iter", iter)?;
        let found = self.read_all(iter, other)?;
        self.note(span, "a scan", found);
        Ok(())
    }

    /// All keys, from both ends.
    fn read_all(&mut self, mut iter: Iter, other: bool) -> Result<Vec<(Key, Option<u64>)>, Stop> {
        let ends: u64 = self.rng.random();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for n in 0.. {
            let from_front = ends >> (n / 3 % 64) & 1 == 0;
            let next = if from_front { iter.next() } else { iter.next_back() };
            let Some(entry) = next else { break };
            let (key, value) = self.shared.answer("a step of an iterator", entry)?;
            let entry = (key.to_vec(), id_of(&value)?);
            if from_front { &mut front } else { &mut back }.push(entry);
        }
        front.extend(back.into_iter().rev());
        let mut entries = front.into_iter().peekable();
        let found = Key::all(other, self.shared.writers)
            .into_iter()
            .map(|key| {
                (
                    key,
                    entries
                        .next_if(|(bytes, _)| *bytes == key.bytes())
                        .map(|(_, id)| id),
                )
            })
            .collect();
        match entries.next() {
            None => Ok(found),
            Some((key, _)) => {
                let key = key.escape_ascii();
                Err(Violation::new(format!("an iterator gives {key} out of order, or twice")).into())
            }
        }
    }

    /// Looks for some keys with a cursor, which stays at the moment of its creation.
    fn seek(&mut self) -> Result<(), Stop> {
        let other = self.rng.random_bool(0.5);
        let keys = self.some_keys(other);
        let (span, cursor) = self.shared.timed(|| self.keyspace(other).cursor::<&[u8]>(..));
        let mut cursor = self.shared.answer("cursor", cursor)?;
        let mut found = Vec::new();
        for key in keys {
            let bytes = key.bytes();
            let sought = if self.rng.random_bool(0.5) {
                cursor.seek(&bytes)
            } else {
                cursor.seek_for_prev(&bytes)
            };
            self.shared.answer("a seek", sought)?;
            let is_there = cursor.valid() && cursor.key() == bytes;
            let id = is_there.then(|| id_of(cursor.value())).transpose()?;
            found.push((key, id));
        }
        self.note(span, "a cursor", found);
        Ok(())
    }

    /// Opens an iterator and keeps it, or reads one that has been kept.
    fn hold_iter(&mut self) -> Result<(), Stop> {
        if self.held.iters.len() < HELD_MAX {
            let other = self.rng.random_bool(0.5);
            let (span, iter) = self.shared.timed(|| self.keyspace(other).iter());
            let iter = self.shared.answer("iter", iter)?;
            self.held.iters.push(HeldIter { iter, span, other });
            return Ok(());
        }
        let at = self.rng.random_range(0..HELD_MAX);
        let HeldIter { iter, span, other } = self.held.iters.swap_remove(at);
        let found = self.read_all(iter, other)?;
        self.note(span, "an iterator that was held", found);
        Ok(())
    }

    fn take_snapshot(&mut self) -> Result<(), Stop> {
        if self.held.snapshots.len() == HELD_MAX {
            self.held
                .snapshots
                .swap_remove(self.rng.random_range(0..HELD_MAX));
        }
        let (span, snapshot) = self.shared.timed(|| self.db.snapshot());
        let snapshot = self.shared.answer("snapshot", snapshot)?;
        self.held.snapshots.push(HeldSnapshot {
            snapshot,
            span,
            found: None,
        });
        Ok(())
    }

    /// Reads a snapshot: all of it the first time, and then some of it, which must not have changed.
    fn read_snapshot(&mut self) -> Result<(), Stop> {
        if self.held.snapshots.is_empty() {
            return self.take_snapshot();
        }
        let at = self.rng.random_range(0..self.held.snapshots.len());
        let held = self.held.snapshots.swap_remove(at);
        let there = self
            .shared
            .answer("the snapshot of a keyspace", held.snapshot.keyspace(&self.other))?;
        let found = match held.found {
            None => {
                let mut found = self.read_all(self.shared.answer("iter", held.snapshot.iter())?, false)?;
                found.extend(self.read_all(self.shared.answer("iter", there.iter())?, true)?);
                self.note(held.span, "a snapshot", found.clone());
                found
            }
            Some(found) => {
                let again = self.read_some(&held.snapshot, &there)?;
                if let Some((key, id)) = again.into_iter().find(|pair| !found.contains(pair)) {
                    let before = found.iter().find(|(other, _)| *other == key);
                    let at = held.snapshot.seqno();
                    return Err(Violation::new(format!(
                        "the snapshot at {at} has changed: {key:?} is {id:?}, and was {before:?}"
                    ))
                    .into());
                }
                found
            }
        };
        self.held.snapshots.push(HeldSnapshot {
            found: Some(found),
            ..held
        });
        Ok(())
    }

    fn read_some(
        &mut self,
        here: &KeyspaceSnapshot,
        there: &KeyspaceSnapshot,
    ) -> Result<Vec<(Key, Option<u64>)>, Stop> {
        let other = self.rng.random_bool(0.5);
        let snapshot = if other { there } else { here };
        match self.rng.random_range(0..4) {
            0 => self.read_all(self.shared.answer("iter", snapshot.iter())?, other),
            1 => {
                let keys = self.some_keys(other);
                let values = snapshot.multi_get(keys.iter().map(|key| key.bytes()));
                self.pair(keys, values)
            }
            way => {
                let key = self.some_keys(other)[0];
                let id = if way == 2 {
                    let value = self.shared.answer("get", snapshot.get(key.bytes()))?;
                    value.map(|value| id_of(&value)).transpose()?
                } else {
                    let value = self.shared.answer("get_ref", snapshot.get_ref(key.bytes()))?;
                    value.map(id_of).transpose()?
                };
                Ok(vec![(key, id)])
            }
        }
    }

    fn note(&mut self, span: Span, name: &'static str, found: Vec<(Key, Option<u64>)>) {
        self.record.sights.push(Sight { span, name, found });
    }
}

/// Everything at once, when nothing else runs.
pub(super) fn look(shared: &Shared, db: &Db, other: &Keyspace) -> Result<Sight, Violation> {
    let unexpected = |error: &siltstone::Error| Violation::unexpected("reading everything", error);
    let (span, snapshot) = shared.timed(|| db.snapshot());
    let snapshot = snapshot.map_err(|error| unexpected(&error))?;
    let there = snapshot.keyspace(other).map_err(|error| unexpected(&error))?;
    let mut found = Vec::new();
    for other in [false, true] {
        for key in Key::all(other, shared.writers) {
            let reader: &KeyspaceSnapshot = if other { &there } else { &snapshot };
            let value = reader.get(key.bytes()).map_err(|error| unexpected(&error))?;
            found.push((key, value.map(|value| id_of(&value)).transpose()?));
        }
    }
    let name = "all after reopening";
    Ok(Sight { span, name, found })
}
