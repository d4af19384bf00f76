//! Operations on their way from the log into a memtable.
//!
//! Inserted one by one in the order of the log, each begins a search of its own in memory that is cold for it. Sorted by
//! key first, each goes in next to the one before.

use siltstone_sstable::{InternalKey, Tag};

use crate::memtable::Memtable;

/// What a memtable takes for an entry beside key and value, as a guess: how much fits is known once it is in.
const ENTRY_BYTES: u64 = 32;

/// Copies of operations, in the order of the log.
#[derive(Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    operations: Vec<Operation>,
}

struct Operation {
    /// The first eight bytes of the key as a number, so that most comparisons look no further.
    head: u64,
    at: usize,
    key_bytes: u32,
    value_bytes: u32,
    tag: Tag,
}

impl Backlog {
    /// About how much a memtable will take for all of it.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.operations.len() as u64 * ENTRY_BYTES
    }

    /// Takes a copy. Key and value are within the limits of a batch, which fit 32 bits.
    pub(crate) fn push(&mut self, key: InternalKey<'_>, value: &[u8]) {
        let (Ok(key_bytes), Ok(value_bytes)) =
            (u32::try_from(key.user_key.len()), u32::try_from(value.len()))
        else {
            unreachable!("a batch that decodes has keys and values of at most 1 GiB");
        };
        let mut head = [0; 8];
        let prefix = key.user_key.len().min(head.len());
        head[..prefix].copy_from_slice(&key.user_key[..prefix]);
        self.operations.push(Operation {
            head: u64::from_be_bytes(head),
            at: self.bytes.len(),
            key_bytes,
            value_bytes,
            tag: key.tag,
        });
        self.bytes.extend_from_slice(key.user_key);
        self.bytes.extend_from_slice(value);
    }

    /// Inserts everything in key order and is empty again.
    pub(crate) fn insert_into(&mut self, memtable: &Memtable) {
        let bytes = &self.bytes;
        self.operations.sort_unstable_by(|a, b| {
            let by_head = a.head.cmp(&b.head);
            by_head.then_with(|| a.entry(bytes).0.cmp(&b.entry(bytes).0))
        });
        for operation in self.operations.drain(..) {
            let (key, value) = operation.entry(&self.bytes);
            memtable.insert(key, value);
        }
        self.bytes.clear();
    }
}

impl Operation {
    fn entry<'b>(&self, bytes: &'b [u8]) -> (InternalKey<'b>, &'b [u8]) {
        let (key, rest) = bytes[self.at..].split_at(self.key_bytes as usize);
        (
            InternalKey::new(key, self.tag),
            &rest[..self.value_bytes as usize],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use siltstone_sstable::{InternalIterator, SeqNo, ValueKind, key_hash};

    use super::*;

    /// Keys that share their first eight bytes, that end within them, and that come back with a later seqno.
    #[test]
    fn everything_arrives_in_internal_order() {
        let keys: [&[u8]; 9] = [
            b"",
            b"a",
            b"a\0",
            b"a\0\0\0\0\0\0\0",
            b"a\0\0\0\0\0\0\0b",
            b"abcdefgh",
            b"abcdefgha",
            b"a",
            b"",
        ];
        let mut backlog = Backlog::default();
        let memtable = Arc::new(Memtable::new(1 << 16, 1 << 16, Arc::default()));
        for round in 0..2_u64 {
            for (nth, key) in keys.iter().rev().enumerate() {
                let seqno = SeqNo(1 + round * 100 + nth as u64);
                let tag = Tag::new(seqno, ValueKind::Put);
                backlog.push(InternalKey::new(key, tag), &seqno.0.to_le_bytes());
            }
            assert!(backlog.size_bytes() > 9 * ENTRY_BYTES);
            backlog.insert_into(&memtable);
            assert_eq!(backlog.size_bytes(), 0);
        }
        for (nth, key) in keys.iter().rev().enumerate() {
            let newest = keys.iter().rev().rposition(|other| other == key).unwrap_or(nth) as u64;
            let (tag, value) = memtable.get(key, key_hash(key), SeqNo(1000)).expect("inserted");
            assert_eq!(
                (tag.seqno(), value),
                (SeqNo(101 + newest), &(101 + newest).to_le_bytes()[..])
            );
        }
        let mut iter = memtable.iter();
        let mut entries = 0;
        iter.seek_to_first().expect("memory");
        while iter.valid() {
            entries += 1;
            iter.next().expect("memory");
        }
        assert_eq!(entries, 18);
    }
}
