//! What the threads of a history have done and seen, and the verdict on it.

use std::collections::HashMap;

use super::history::Span;
use super::keys::{Key, SHARED_KEYS};
use super::order::{self, Cut, Seen};
use super::register::{self, Access, Action, Verdict};
use crate::violation::Violation;

/// A search for the order of one key's accesses is given up after so many configurations.
const CONFIGURATIONS_MAX: usize = 200_000;

/// A batch of one thread: the keys of its own and the shared keys that it wrote.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) span: Span,
    /// Whether each is put; else it is deleted.
    pub(super) own: Vec<(Key, bool)>,
    pub(super) shared: Vec<(usize, Option<u64>)>,
}

/// What a read of many keys at one moment found; nothing is known of keys that are not there.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) span: Span,
    pub(super) name: &'static str,
    pub(super) found: Vec<(Key, Option<u64>)>,
}

/// Everything so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of each thread, in program order.
    pub(super) batches: Vec<Vec<Batch>>,
    pub(super) sights: Vec<Sight>,
    /// Reads and writes of single shared keys.
    pub(super) shared: Vec<(usize, Access)>,
}

impl Record {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            batches: vec![Vec::new(); threads],
            ..Self::default()
        }
    }

    /// Adds what one thread has recorded.
    pub(super) fn merge(&mut self, other: Record) {
        for (all, new) in self.batches.iter_mut().zip(other.batches) {
            all.extend(new);
        }
        self.sights.extend(other.sights);
        self.shared.extend(other.shared);
    }

    /// Learns from `sight`, which was seen when all threads had stopped, which of the last batches that were not answered had
    /// been done. One that had not is gone: it is not done later.
    pub(super) fn settle(&mut self, sight: &Sight) {
        for (thread, batches) in self.batches.iter_mut().enumerate() {
            let number = batches.len() as u64;
            let Some(last) = batches.last_mut().filter(|last| last.span.end.is_none()) else {
                continue;
            };
            let stamp = Key::Stamp { other: false, thread };
            if sight.found.contains(&(stamp, Some(batch_id(thread, number)))) {
                last.span.end = Some(sight.span.begin);
            } else {
                batches.pop();
            }
        }
    }

    /// Checks everything; returns how many keys' searches were given up.
    ///
    /// # Errors
    /// What cannot have been.
    pub(super) fn check(&self) -> Result<u64, Violation> {
        let writes = self.writes_by_key();
        let cuts = self
            .sights
            .iter()
            .map(|sight| self.cut(sight, &writes))
            .collect::<Result<Vec<Cut>, Violation>>()?;
        let spans: Vec<Vec<Span>> = self
            .batches
            .iter()
            .map(|batches| batches.iter().map(|batch| batch.span).collect())
            .collect();
        order::check(&spans, &cuts).map_err(Violation::new)?;

        let mut accesses: Vec<Vec<Access>> = vec![Vec::new(); SHARED_KEYS];
        for (key, access) in &self.shared {
            accesses[*key].push(*access);
        }
        for batch in self.batches.iter().flatten() {
            for (key, value) in &batch.shared {
                let action = Action::Write(*value);
                let span = batch.span;
                accesses[*key].push(Access { span, action });
            }
        }
        for sight in &self.sights {
            for (key, value) in &sight.found {
                if let Key::Shared(key) = key {
                    let action = Action::Read(*value);
                    let span = sight.span;
                    accesses[*key].push(Access { span, action });
                }
            }
        }
        let mut undecided = 0;
        for (key, accesses) in accesses.iter().enumerate() {
            match register::check(accesses, CONFIGURATIONS_MAX) {
                Verdict::Legal => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Illegal(why) => {
                    return Err(Violation::new(why).context(format!("shared key {key}")));
                }
            }
        }
        Ok(undecided)
    }

    /// For each key of a thread's own: the numbers of the batches that wrote it, and whether they put it.
    fn writes_by_key(&self) -> HashMap<Key, Vec<(u64, bool)>> {
        let mut writes: HashMap<Key, Vec<(u64, bool)>> = HashMap::new();
        for batches in &self.batches {
            for (batch, number) in batches.iter().zip(1..) {
                for (key, is_put) in &batch.own {
                    writes.entry(*key).or_default().push((number, *is_put));
                }
            }
        }
        writes
    }

    /// What a sight says about the order of batches.
    fn cut(&self, sight: &Sight, writes: &HashMap<Key, Vec<(u64, bool)>>) -> Result<Cut, Violation> {
        let wrong = |what: String| {
            let Span { begin, end } = sight.span;
            Err(Violation::new(format!(
                "{} at {begin}..{end:?}: {what}",
                sight.name
            )))
        };
        let mut seen: Vec<Seen> = Vec::new();
        let mut stamps: HashMap<usize, u64> = HashMap::new();
        for (key, id) in &sight.found {
            let Key::Stamp { thread, .. } = key else { continue };
            let number = id.map_or(0, |id| id & NUMBER_MASK);
            if id.is_some_and(|id| id != batch_id(*thread, number))
                || number > self.batches[*thread].len() as u64
            {
                return wrong(format!(
                    "{key:?} has a stamp that no batch of its thread made: {id:?}"
                ));
            }
            if let Some(before) = stamps.insert(*thread, number)
                && before != number
            {
                return wrong(format!(
                    "a torn batch: thread {thread} is at {before} in one keyspace, at {number} in the other"
                ));
            }
        }
        for (thread, included) in &stamps {
            let all = self.batches[*thread].len() as u64;
            seen.push(Seen {
                thread: *thread,
                included: *included,
                excluded: (*included < all).then_some(included + 1),
            });
        }
        for (key, id) in &sight.found {
            let Key::Own { thread, .. } = *key else { continue };
            let writes = writes.get(key).map_or(&[][..], Vec::as_slice);
            if let Some(included) = stamps.get(&thread) {
                let last = writes[..writes.partition_point(|(number, _)| number <= included)].last();
                let expected = last.filter(|(_, is_put)| *is_put);
                let expected = expected.map(|(number, _)| batch_id(thread, *number));
                if *id != expected {
                    return wrong(format!(
                        "a torn batch: after batch {included} of thread {thread} {key:?} is {expected:?}, not {id:?}"
                    ));
                }
            } else if let Some(id) = id {
                let number = id & NUMBER_MASK;
                let Ok(at) = writes.binary_search(&(number, true)) else {
                    return wrong(format!("{key:?} has a value that no batch put there: {id}"));
                };
                seen.push(Seen {
                    thread,
                    included: number,
                    excluded: writes.get(at + 1).map(|(number, _)| *number),
                });
            }
        }
        Ok(Cut {
            span: sight.span,
            seen,
            name: sight.name,
        })
    }
}

const NUMBER_MASK: u64 = (1 << 40) - 1;

/// The id of the values of a thread's batch; the first is number 1.
pub(super) fn batch_id(thread: usize, number: u64) -> u64 {
    ((thread as u64) << 48) | number
}

/// The id of the n-th value that a thread puts into shared keys.
pub(super) fn shared_id(thread: usize, n: u64) -> u64 {
    (1 << 63) | batch_id(thread, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Key = Key::Own {
        other: false,
        thread: 0,
        n: 0,
    };
    const STAMP: Key = Key::Stamp {
        other: false,
        thread: 0,
    };
    const STAMP_THERE: Key = Key::Stamp {
        other: true,
        thread: 0,
    };

    /// One thread that puts its key in batch 1, deletes it in batch 2, and leaves it alone in batch 3.
    fn record() -> Record {
        let mut record = Record::new(1);
        for (number, own) in [(0, vec![(OWN, true)]), (1, vec![(OWN, false)]), (2, Vec::new())] {
            record.batches[0].push(Batch {
                span: Span {
                    begin: 10 * number + 1,
                    end: Some(10 * number + 2),
                },
                own,
                shared: Vec::new(),
            });
        }
        record
    }

    fn check(begin: u64, found: &[(Key, Option<u64>)]) -> Result<u64, Violation> {
        let mut record = record();
        record.sights.push(Sight {
            span: Span {
                begin,
                end: Some(begin + 1),
            },
            name: "scan",
            found: found.to_vec(),
        });
        record.check()
    }

    fn id(number: u64) -> Option<u64> {
        Some(batch_id(0, number))
    }

    #[test]
    fn whole_batches_are_legal() {
        check(0, &[(STAMP, None), (OWN, None), (STAMP_THERE, None)]).unwrap();
        check(5, &[(STAMP, id(1)), (OWN, id(1)), (STAMP_THERE, id(1))]).unwrap();
        check(15, &[(STAMP, id(2)), (OWN, None)]).unwrap();
        check(25, &[(STAMP, id(3)), (OWN, None)]).unwrap();
        check(5, &[(OWN, id(1))]).unwrap();
    }

    #[test]
    fn torn_batches_are_not() {
        for found in [
            [(STAMP, id(1)), (OWN, None)],
            [(STAMP, None), (OWN, id(1))],
            [(STAMP, id(2)), (OWN, id(1))],
            [(STAMP, id(1)), (STAMP_THERE, None)],
            [(STAMP, id(1)), (STAMP_THERE, id(2))],
        ] {
            let violation = check(5, &found).unwrap_err().to_string();
            assert!(violation.contains("a torn batch"), "{violation}");
        }
    }

    #[test]
    fn stale_values_and_values_from_nowhere_are_not() {
        for (begin, found) in [
            (15, (OWN, id(1))),
            (25, (STAMP, id(2))),
            (5, (STAMP, id(2))),
            (5, (OWN, id(2))),
            (5, (STAMP, Some(shared_id(0, 1)))),
            (35, (STAMP, id(4))),
        ] {
            check(begin, &[found]).unwrap_err();
        }
    }

    #[test]
    fn a_batch_without_an_answer_is_settled_by_what_is_there_in_the_end() {
        for (number, batches) in [(3, 2), (4, 3)] {
            let mut record = record();
            record.batches[0].truncate(2);
            record.batches[0].push(Batch {
                span: Span { begin: 21, end: None },
                own: Vec::new(),
                shared: vec![(0, Some(shared_id(0, 1)))],
            });
            let sight = Sight {
                span: Span {
                    begin: 31,
                    end: Some(32),
                },
                name: "the end",
                found: vec![(STAMP, id(number - 1)), (Key::Shared(0), Some(shared_id(0, 1)))],
            };
            record.settle(&sight);
            assert_eq!(record.batches[0].len(), batches);
            record.sights.push(sight);
            // Where the batch was not done, nobody has written the shared key.
            assert_eq!(record.check().is_ok(), batches == 3);
        }
    }
}
