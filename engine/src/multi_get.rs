//! Point reads of many keys at once: the cache misses of one overlap with those of the others.
//!
//! A single read is a chain of dependent misses: the filter says where the entry is, the block's header where in the
//! block. Keys are therefore taken through each table source in three rounds: the first asks for the filters' lines, the
//! second for the entries' lines, the third reads. This is the group prefetching of Chen,
//! Ailamaki, Gibbons and Mowry ("Improving Hash Join Performance through Prefetching", 2004).

use siltstone_compaction::LEVELS;
use siltstone_sstable::{SeqNo, Table, key_hash};
use siltstone_vfs::Result;

use crate::super_version::{SuperVersion, alive};
use crate::table_handle::TableHandle;
use crate::value::Value;

/// Keys that are read at a time: as many as keep the processor's queue of misses full.
pub(crate) const GROUP: usize = 32;

type Answer = Result<Option<Value>>;

/// The values of up to [`GROUP`] keys, appended to `answers` in their order.
pub(crate) fn get_group<K: AsRef<[u8]>>(
    view: &SuperVersion,
    keys: &[K],
    seqno: SeqNo,
    answers: &mut Vec<Answer>,
) {
    debug_assert!(keys.len() <= GROUP, "a group at a time");
    let begin = answers.len();
    // The keys that no source has answered yet; to the others `None` stands for "not there".
    let mut open = Open {
        numbers: [0; GROUP],
        len: 0,
    };
    let mut hashes = [0; GROUP];
    for (number, key) in keys.iter().enumerate() {
        let key = key.as_ref();
        match view.get_from_memtables(key, seqno) {
            Some((tag, value)) => answers.push(Ok(alive(tag, value).map(Value::from))),
            None => {
                answers.push(Ok(None));
                hashes[number] = key_hash(key);
                open.push(number);
            }
        }
    }
    let read = |candidates: &[Option<&TableHandle>; GROUP], open: &mut Open, answers: &mut Vec<Answer>| {
        for table in tables(candidates, open) {
            table.1.prefetch_filter(hashes[table.0]);
        }
        for table in tables(candidates, open) {
            table.1.prefetch_entry(hashes[table.0]);
        }
        open.retain(|number| {
            let Some(handle) = candidates[number] else {
                return true;
            };
            let answer = match handle.get(keys[number].as_ref(), hashes[number], seqno) {
                Ok(None) => return true,
                Ok(Some(entry)) => Ok(alive(entry.tag, entry.value).map(|value| Value::from(&*value))),
                Err(error) => Err(error),
            };
            answers[begin + number] = answer;
            false
        });
    };
    for handle in view.tables.level(0).iter() {
        let mut candidates = [None; GROUP];
        for number in open.iter() {
            candidates[number] = handle.meta().contains(keys[number].as_ref()).then_some(&**handle);
        }
        read(&candidates, &mut open, answers);
    }
    for level in 1..LEVELS {
        if open.len == 0 {
            return;
        }
        let mut candidates = [None; GROUP];
        for number in open.iter() {
            candidates[number] = view
                .tables
                .candidate(level, keys[number].as_ref())
                .map(|handle| &**handle);
        }
        read(&candidates, &mut open, answers);
    }
}

/// The open keys that have a candidate which could be opened.
fn tables<'t>(
    candidates: &[Option<&'t TableHandle>; GROUP],
    open: &Open,
) -> impl Iterator<Item = (usize, &'t Table)> {
    open.iter()
        .filter_map(|number| Some((number, &**candidates[number]?.table().ok()?)))
}

/// Numbers of keys, in order.
struct Open {
    numbers: [usize; GROUP],
    len: usize,
}

impl Open {
    fn push(&mut self, number: usize) {
        self.numbers[self.len] = number;
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.numbers[..self.len].iter().copied()
    }

    fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            let number = self.numbers[at];
            if keep(number) {
                self.numbers[kept] = number;
                kept += 1;
            }
        }
        self.len = kept;
    }
}
