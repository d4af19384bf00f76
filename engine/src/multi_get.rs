//! Point reads of many keys at once: the cache misses of one overlap with those of the others.
//!
//! A single read is a chain of dependent misses: the filter says where the entry is, the block's header where in the
//! block. Keys are therefore taken through their tables in three rounds: the first asks for the lines of all their
//! filters, the second for the lines of the entry in the first table that may hold the key, the third reads. This is the
//! group prefetching of Chen, Ailamaki, Gibbons and Mowry ("Improving Hash Join Performance through Prefetching", 2004).

use siltstone_sstable::{Lead, SeqNo, key_hash};
use siltstone_vfs::Result;
use smallvec::SmallVec;

use crate::super_version::{Candidates, SuperVersion, alive};
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
    // The keys that no memtable has answered; to the others `None` stands for "not there".
    let mut open: SmallVec<[Open<'_>; GROUP]> = SmallVec::new();
    let hashes: SmallVec<[u64; GROUP]> = keys.iter().map(|key| key_hash(key.as_ref())).collect();
    for hash in &hashes {
        view.prefetch_memtables(*hash);
    }
    for (number, (key, hash)) in keys.iter().zip(hashes).enumerate() {
        let key = key.as_ref();
        match view.get_from_memtables(key, hash, seqno) {
            Some((tag, value)) => answers.push(Ok(alive(tag, value).map(Value::from))),
            None => {
                answers.push(Ok(None));
                let candidates = view.tables.candidates(key);
                for handle in &candidates {
                    handle.prefetch_filter(hash);
                }
                open.push(Open {
                    number,
                    hash,
                    candidates,
                    first: None,
                });
            }
        }
    }
    for key in &mut open {
        let mut candidates = key.candidates.iter().enumerate();
        key.first = candidates.find_map(|(at, handle)| Some((at, handle.lead(key.hash)?)));
    }
    for key in open {
        let Some((first, lead)) = key.first else { continue };
        let user_key = keys[key.number].as_ref();
        let mut found = key.candidates[first].follow(lead, user_key, key.hash, seqno);
        let mut others = key.candidates[first + 1..].iter();
        while let Ok(None) = found
            && let Some(handle) = others.next()
        {
            found = handle.get(user_key, key.hash, seqno);
        }
        answers[begin + key.number] = found.map(|entry| {
            let entry = entry?;
            alive(entry.tag, entry.value).map(|value| Value::from(&*value))
        });
    }
}

/// A key that is looked for in tables.
struct Open<'t> {
    number: usize,
    hash: u64,
    candidates: Candidates<'t>,
    /// The first candidate whose filter does not rule the key out, and where that leads to.
    first: Option<(usize, Lead)>,
}
