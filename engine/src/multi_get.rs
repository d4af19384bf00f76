//! Point reads of many keys at once: the cache misses of one overlap with those of the others.
//!
//! A single read is a chain of dependent misses: the filter says where the entry is, the block's header where in the
//! block. Keys are therefore taken through their tables together, a step at a time: where their filters are, which
//! entries these lead to, what is there. This is the group prefetching of Chen, Ailamaki, Gibbons and Mowry ("Improving
//! Hash Join Performance through Prefetching", 2004).
//!
//! What a step wants to have in the cache it asks for in a loop that does nothing else: a processor looks no more than a few
//! hundred instructions ahead of a prefetch whose page it has yet to find (docs/notes/0018).

use std::ops::Range;

use siltstone_sstable::{Lead, SeqNo, Tag, key_hash};
use siltstone_vfs::Result;

use crate::super_version::{SuperVersion, alive};
use crate::table_handle::TableHandle;
use crate::value::Value;

/// Keys that are read at a time: enough to keep the processor's queue of misses full. Of more, the headers of their blocks,
/// which all lie at the start of a page, would push each other out of the nearest cache.
const GROUP: usize = 8;

type Answer = Result<Option<Value>>;

/// The values of `keys`, in their order.
pub(crate) fn get_all<K: AsRef<[u8]>>(view: &SuperVersion, keys: &[K], seqno: SeqNo) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(keys.len());
    let mut group = Group {
        keys: Vec::with_capacity(keys.len().min(GROUP)),
        candidates: Vec::new(),
    };
    for keys in keys.chunks(GROUP) {
        group.find(view, keys, seqno);
        for (key, state) in keys.iter().zip(&group.keys) {
            answers.push(group.read(state, key.as_ref(), seqno));
        }
    }
    answers
}

/// Keys on their way.
struct Group<'v> {
    keys: Vec<State<'v>>,
    /// The tables that may have the keys: those of one key after the other's.
    candidates: Vec<&'v TableHandle>,
}

/// How far one key has come.
struct State<'v> {
    hash: u64,
    /// Found in a memtable: then no table is asked.
    entry: Option<(Tag, &'v [u8])>,
    /// Those of the group's candidates that are this key's and have not been asked yet.
    candidates: Range<usize>,
    /// The first candidate whose filter does not rule the key out, and where that leads to.
    lead: Option<(&'v TableHandle, Lead)>,
}

impl<'v> Group<'v> {
    /// Looks where `keys`, of which there are up to [`GROUP`], may be, and asks for what is there.
    fn find<K: AsRef<[u8]>>(&mut self, view: &'v SuperVersion, keys: &[K], seqno: SeqNo) {
        self.keys.clear();
        self.candidates.clear();
        for key in keys {
            let hash = key_hash(key.as_ref());
            view.tables.prefetch(hash);
            view.prefetch_memtables(hash);
            self.keys.push(State {
                hash,
                entry: None,
                candidates: 0..0,
                lead: None,
            });
        }
        for (key, state) in keys.iter().zip(&mut self.keys) {
            let key = key.as_ref();
            state.entry = view.get_from_memtables(key, state.hash, seqno);
            if state.entry.is_none() {
                let first = self.candidates.len();
                view.tables
                    .candidates(key, state.hash, |handle| self.candidates.push(handle));
                state.candidates = first..self.candidates.len();
            }
        }
        for state in &self.keys {
            for handle in &self.candidates[state.candidates.clone()] {
                handle.prefetch_filter(state.hash);
            }
        }
        for state in &mut self.keys {
            state.lead = state.candidates.find_map(|at| {
                let handle = self.candidates[at];
                handle.lead(state.hash).map(|lead| (handle, lead))
            });
        }
        for state in &self.keys {
            if let Some((handle, lead)) = &state.lead {
                handle.prefetch_lead(lead);
            }
        }
    }

    /// The value of `key`, which has been looked for.
    fn read(&self, state: &State<'v>, key: &[u8], seqno: SeqNo) -> Answer {
        if let Some((tag, value)) = state.entry {
            return Ok(alive(tag, value).map(Value::from));
        }
        let Some((handle, lead)) = &state.lead else {
            return Ok(None);
        };
        let mut found = handle.follow(lead, key, state.hash, seqno)?;
        for handle in &self.candidates[state.candidates.clone()] {
            if found.is_some() {
                break;
            }
            found = handle.get(key, state.hash, seqno)?;
        }
        let value = found.and_then(|entry| alive(entry.tag, entry.value));
        Ok(value.map(|value| Value::from(&*value)))
    }
}
