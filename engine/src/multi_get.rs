//! Point reads of many keys at once: the cache misses of one overlap with those of the others.
//!
//! A single read is a chain of dependent misses: the filter says where the entry is, the block's header where in the
//! block. Keys are therefore taken through their tables in three rounds: the first asks for the lines of all their
//! filters, the second for the lines of the entry in the first table that may hold the key, the third reads. This is the
//! group prefetching of Chen, Ailamaki, Gibbons and Mowry ("Improving Hash Join Performance through Prefetching", 2004).

use std::ops::Range;

use siltstone_sstable::{Lead, SeqNo, key_hash};
use siltstone_vfs::Result;
use smallvec::SmallVec;

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
    assert!(keys.len() <= GROUP, "a group at a time");
    let begin = answers.len();
    let mut hashes = [0; GROUP];
    for (hash, key) in hashes.iter_mut().zip(keys) {
        *hash = key_hash(key.as_ref());
        view.prefetch_memtables(*hash);
    }
    // The keys that no memtable has answered; to the others `None` stands for "not there".
    let mut open: SmallVec<[Open; GROUP]> = SmallVec::new();
    let mut candidates: SmallVec<[&TableHandle; 2 * GROUP]> = SmallVec::new();
    for (number, (key, hash)) in keys.iter().zip(hashes).enumerate() {
        let key = key.as_ref();
        match view.get_from_memtables(key, hash, seqno) {
            Some((tag, value)) => answers.push(Ok(alive(tag, value).map(Value::from))),
            None => {
                answers.push(Ok(None));
                let first = candidates.len();
                view.tables.candidates(key, |handle| {
                    handle.prefetch_filter(hash);
                    candidates.push(handle);
                });
                open.push(Open {
                    number,
                    hash,
                    candidates: first..candidates.len(),
                    lead: None,
                });
            }
        }
    }
    for key in &mut open {
        while key.lead.is_none()
            && let Some(at) = key.candidates.next()
        {
            key.lead = candidates[at].lead(key.hash).map(|lead| (at, lead));
        }
    }
    for key in &mut open {
        let Some((at, lead)) = key.lead.take() else {
            continue;
        };
        let user_key = keys[key.number].as_ref();
        let mut found = candidates[at].follow(lead, user_key, key.hash, seqno);
        while let Ok(None) = found
            && let Some(at) = key.candidates.next()
        {
            found = candidates[at].get(user_key, key.hash, seqno);
        }
        answers[begin + key.number] = found.map(|entry| {
            let entry = entry?;
            alive(entry.tag, entry.value).map(|value| Value::from(&*value))
        });
    }
}

/// A key that is looked for in tables.
struct Open {
    number: usize,
    hash: u64,
    /// Those of the group's candidates that are this key's and have not been asked yet.
    candidates: Range<usize>,
    /// The first candidate whose filter does not rule the key out, and where that leads to.
    lead: Option<(usize, Lead)>,
}
