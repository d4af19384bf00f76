//! Reads of a session: every way to ask, compared with the model.

use siltstone::{Cursor, Keyspace, KeyspaceSnapshot, Snapshot};

use super::{HELD_MAX, HeldCursor, HeldSnapshot, Session, Transcript};
use crate::model::{Bounds, CommitIndex, Incarnation, Model, show};
use crate::violation::Violation;
use crate::workload::{CursorStep, Operation};

/// A read that failed: in the engine, which a fault may excuse, or in its answer, which nothing excuses.
enum Failed {
    Engine(&'static str, siltstone::Error),
    Answer(Violation),
}

impl From<Violation> for Failed {
    fn from(violation: Violation) -> Self {
        Failed::Answer(violation)
    }
}

fn asked<T>(what: &'static str, outcome: siltstone::Result<T>) -> Result<T, Failed> {
    outcome.map_err(|error| Failed::Engine(what, error))
}

/// What a cursor should do: the entries it may show, and where among them it stands.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    bounds: Bounds,
    at: CommitIndex,
    key: Option<Vec<u8>>,
}

impl Session {
    pub(super) fn read(&mut self, operation: &Operation) -> Result<(), Violation> {
        match self.try_read(operation) {
            Ok(()) => Ok(()),
            Err(Failed::Answer(violation)) => Err(violation),
            Err(Failed::Engine(what, error)) => {
                self.excuse(what, &error, true)?;
                // Where a move failed a cursor stands nowhere, which the walk does not follow.
                self.cursors.clear();
                Ok(())
            }
        }
    }

    fn try_read(&mut self, operation: &Operation) -> Result<(), Failed> {
        let now = self.model.last();
        match operation {
            Operation::Get { keyspace, key } => {
                if let Some((keyspace, incarnation)) = self.keyspace(keyspace) {
                    let expected = self.model.get(incarnation, key, now);
                    get(&keyspace, key, expected, &mut self.transcript)?;
                }
            }
            Operation::MultiGet { keyspace, keys } => {
                if let Some((keyspace, incarnation)) = self.keyspace(keyspace) {
                    let found = keyspace.multi_get(keys);
                    if found.len() != keys.len() {
                        return Err(Violation::new(format!(
                            "multi_get of {} keys gives {} answers",
                            keys.len(),
                            found.len()
                        ))
                        .into());
                    }
                    for (key, found) in keys.iter().zip(found) {
                        let found = asked("multi_get", found)?;
                        self.transcript.answer(key, found.as_deref());
                        same(key, self.model.get(incarnation, key, now), found.as_deref())?;
                    }
                }
            }
            Operation::Scan {
                keyspace,
                bounds,
                ends,
            } => {
                if let Some((keyspace, incarnation)) = self.keyspace(keyspace) {
                    let iter = asked("range", keyspace.range(bounds.clone()))?;
                    let expected = self.model.range(incarnation, bounds, now);
                    scan(iter, &expected, *ends, &mut self.transcript)?;
                }
            }
            Operation::OpenCursor { keyspace, bounds } => {
                if let Some((keyspace, incarnation)) = self.keyspace(keyspace) {
                    let cursor = asked("cursor", keyspace.cursor(bounds.clone()))?;
                    let walk = Walk {
                        bounds: bounds.clone(),
                        at: now,
                        key: None,
                    };
                    if self.cursors.len() == HELD_MAX {
                        self.cursors.remove(0);
                    }
                    self.cursors.push(HeldCursor {
                        keyspace: incarnation,
                        cursor,
                        walk,
                    });
                }
            }
            Operation::MoveCursor { nth, steps } => {
                if !self.cursors.is_empty() {
                    let nth = nth % self.cursors.len();
                    let held = &mut self.cursors[nth];
                    for step in steps {
                        held.walk
                            .step(&self.model, held.keyspace, &mut held.cursor, step)?;
                        let shown = held
                            .cursor
                            .valid()
                            .then(|| (held.cursor.key(), held.cursor.value()));
                        self.transcript.entry(shown);
                    }
                }
            }
            Operation::CloseCursor(nth) => {
                if !self.cursors.is_empty() {
                    self.cursors.remove(nth % self.cursors.len());
                }
            }
            Operation::TakeSnapshot => {
                if self.snapshots.len() == HELD_MAX {
                    self.snapshots.remove(0);
                }
                let snapshot = asked("snapshot", self.db().snapshot())?;
                let names = self.model.keyspaces();
                let keyspaces = names
                    .filter_map(|name| Some((name.to_owned(), self.model.incarnation(name)?)))
                    .collect();
                self.snapshots.push(HeldSnapshot {
                    snapshot,
                    at: now,
                    keyspaces,
                });
            }
            Operation::ReadSnapshot { nth, keyspace, key } => self.read_snapshot(*nth, keyspace, key)?,
            Operation::DropSnapshot(nth) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.remove(nth % self.snapshots.len());
                }
            }
            other => return Err(Violation::new(format!("{other:?} is not a read")).into()),
        }
        Ok(())
    }

    fn read_snapshot(&mut self, nth: usize, name: &str, key: &[u8]) -> Result<(), Failed> {
        let Some((keyspace, incarnation)) = self.keyspace(name) else {
            return Ok(());
        };
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let held = &self.snapshots[nth % self.snapshots.len()];
        // A keyspace of the same name that came later is not what was there.
        if held.keyspaces.get(name) != Some(&incarnation) {
            return Ok(());
        }
        let view: KeyspaceSnapshot = asked(
            "keyspace of a snapshot",
            Snapshot::keyspace(&held.snapshot, &keyspace),
        )?;
        let expected = self.model.get(incarnation, key, held.at);
        let found = asked("get at a snapshot", view.get(key))?;
        self.transcript.answer(key, found.as_deref());
        same(key, expected, found.as_deref())?;
        let lent = asked("get_ref at a snapshot", view.get_ref(key))?;
        same(key, expected, lent)?;
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let expected = self.model.range(incarnation, &all, held.at);
        scan(
            asked("iter of a snapshot", view.iter())?,
            &expected,
            0xAAAA_F0F0_0F0F_5555,
            &mut self.transcript,
        )
    }
}

fn same(key: &[u8], expected: Option<&[u8]>, found: Option<&[u8]>) -> Result<(), Violation> {
    if expected == found {
        return Ok(());
    }
    Err(Violation::new(format!(
        "wrong answer for {}: expected {:?}, found {:?}",
        show(key),
        expected.map(show),
        found.map(show)
    )))
}

fn get(
    keyspace: &Keyspace,
    key: &[u8],
    expected: Option<&[u8]>,
    transcript: &mut Transcript,
) -> Result<(), Failed> {
    let found = asked("get", keyspace.get(key))?;
    transcript.answer(key, found.as_deref());
    same(key, expected, found.as_deref())?;
    same(
        key,
        expected,
        asked("get_with", keyspace.get_with(key, <[u8]>::to_vec))?.as_deref(),
    )?;
    let there = asked("contains_key", keyspace.contains_key(key))?;
    if there != expected.is_some() {
        return Err(Violation::new(format!("contains_key({}) is {there}", show(key))).into());
    }
    for found in keyspace.multi_get([key, key]) {
        same(key, expected, asked("multi_get", found)?.as_deref())?;
    }
    Ok(())
}

/// Takes entries from both ends, as the bits of `ends` say, until they meet.
fn scan(
    mut iter: siltstone::Iter,
    expected: &[(&[u8], &[u8])],
    ends: u64,
    transcript: &mut Transcript,
) -> Result<(), Failed> {
    let (mut front, mut back) = (0, expected.len());
    for n in 0.. {
        let from_back = ends >> (n % 64) & 1 == 1;
        let found = if from_back { iter.next_back() } else { iter.next() };
        let expected = if front == back {
            None
        } else if from_back {
            back -= 1;
            Some(expected[back])
        } else {
            front += 1;
            Some(expected[front - 1])
        };
        let found = asked("a step of an iterator", found.transpose())?;
        let found = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
        transcript.entry(found);
        if found != expected {
            let show_entry = |(key, value): (&[u8], &[u8])| format!("{} = {}", show(key), show(value));
            return Err(Violation::new(format!(
                "step {n} of a scan (from the back: {from_back}): expected {:?}, found {:?}",
                expected.map(show_entry),
                found.map(show_entry)
            ))
            .into());
        }
        if expected.is_none() {
            break;
        }
    }
    Ok(())
}

impl Walk {
    /// Moves the cursor and the model's, and compares where they stand.
    fn step(
        &mut self,
        model: &Model,
        keyspace: Incarnation,
        cursor: &mut Cursor,
        step: &CursorStep,
    ) -> Result<(), Failed> {
        let entries = model.range(keyspace, &self.bounds, self.at);
        let at_or_after = |key: &[u8]| entries.partition_point(|(k, _)| *k < key);
        let after = |key: &[u8]| entries.partition_point(|(k, _)| *k <= key);
        let stands = self.key.as_deref().map(at_or_after);
        let target = match (step, stands) {
            (CursorStep::First, _) => Some(0),
            (CursorStep::Last, _) => entries.len().checked_sub(1),
            (CursorStep::Seek(key), _) => Some(at_or_after(key)),
            (CursorStep::SeekForPrev(key), _) => after(key).checked_sub(1),
            (CursorStep::Next, Some(stands)) => Some(stands + 1),
            (CursorStep::Prev, Some(stands)) => stands.checked_sub(1),
            (CursorStep::Next | CursorStep::Prev, None) => return Ok(()),
        };
        let expected = target.and_then(|target| entries.get(target)).copied();
        let moved = match step {
            CursorStep::First => cursor.first(),
            CursorStep::Last => cursor.last(),
            CursorStep::Seek(key) => cursor.seek(key),
            CursorStep::SeekForPrev(key) => cursor.seek_for_prev(key),
            CursorStep::Next => cursor.next(),
            CursorStep::Prev => cursor.prev(),
        };
        asked("a move of a cursor", moved)?;
        let found = cursor.valid().then(|| (cursor.key(), cursor.value()));
        if found != expected {
            return Err(Violation::new(format!(
                "a cursor at {:?} moved by {step:?}: expected {:?}, found {:?}",
                self.key.as_deref().map(show),
                expected.map(|(key, value)| (show(key), show(value))),
                found.map(|(key, value)| (show(key), show(value)))
            ))
            .into());
        }
        self.key = expected.map(|(key, _)| key.to_vec());
        Ok(())
    }
}
