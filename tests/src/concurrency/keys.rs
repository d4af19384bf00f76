//! The keys of a history, and values that say by which write they were made.
//!
//! Each writer has keys of its own, in two keyspaces, which only its batches write: what order they were written in is
//! known. Every batch also writes the writer's *stamp* in both keyspaces, with the batch's number. Other keys are everybody's.

use crate::violation::Violation;

/// Keys of its own that a writer has in each keyspace.
pub(super) const OWN_KEYS: usize = 5;
/// Keys that everybody writes, in the default keyspace.
pub(super) const SHARED_KEYS: usize = 6;
/// The name of the second keyspace.
pub(super) const OTHER: &str = "other";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Stamp { other: bool, thread: usize },
    Own { other: bool, thread: usize, n: usize },
    Shared(usize),
}

impl Key {
    /// All keys of one keyspace, in order.
    pub(super) fn all(other: bool, threads: usize) -> Vec<Key> {
        let own = (0..threads).flat_map(move |thread| {
            (0..OWN_KEYS)
                .map(move |n| Key::Own { other, thread, n })
                .chain([Key::Stamp { other, thread }])
        });
        let shared = (0..if other { 0 } else { SHARED_KEYS }).map(Key::Shared);
        own.chain(shared).collect()
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Key::Stamp { thread, .. } => format!("own/{thread}/stamp"),
            Key::Own { thread, n, .. } => format!("own/{thread}/{n}"),
            Key::Shared(n) => format!("shared/{n}"),
        }
        .into_bytes()
    }
}

/// The value that write `id` puts: the number, and bytes that follow from it.
pub(super) fn value_of(id: u64) -> Vec<u8> {
    let filler = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let len = 40 + usize::try_from(filler >> 56).expect("a byte");
    let mut value = id.to_le_bytes().to_vec();
    value.extend((0..len).map(|at| (filler >> (at % 8 * 7)).to_le_bytes()[0]));
    value
}

/// The write that a value was made by.
pub(super) fn id_of(value: &[u8]) -> Result<u64, Violation> {
    let id = value.first_chunk().map(|id| u64::from_le_bytes(*id));
    id.filter(|id| value_of(*id) == value)
        .ok_or_else(|| Violation::new(format!("a value that nobody wrote: {}", value.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_their_write_and_whether_they_are_whole() {
        for id in [0, 1, 77, 1 << 50] {
            let mut value = value_of(id);
            assert_eq!(id_of(&value).unwrap(), id);
            let last = value.len() - 1;
            value[last] ^= 1;
            assert!(id_of(&value).is_err());
            assert!(id_of(&value[..last]).is_err());
        }
        assert!(id_of(b"").is_err());
    }

    #[test]
    fn all_keys_of_a_keyspace_come_in_order() {
        for other in [false, true] {
            let keys = Key::all(other, 3);
            let bytes: Vec<_> = keys.iter().map(|key| key.bytes()).collect();
            assert!(bytes.is_sorted_by(|a, b| a < b));
        }
    }
}
