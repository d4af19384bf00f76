//! A user key that is kept while entries go by.

use std::cmp::Ordering;

use crate::index::head;

/// A copy of a user key, to compare those that follow with. Made for whoever does that with every entry: keys that differ in
/// their first eight bytes are told apart by a word, and keys of 8 to 16 bytes, if they are all of one length, copied without a call.
#[derive(Clone, Debug, Default)]
pub struct KeyBuf {
    bytes: Vec<u8>,
    head: u64,
}

impl KeyBuf {
    /// Keeps `key` from now on.
    #[inline]
    pub fn set(&mut self, key: &[u8]) {
        self.head = head(key);
        put_suffix(&mut self.bytes, 0, key);
    }

    /// How `key` sorts beside the one that is kept.
    #[inline]
    pub fn order_of(&self, key: &[u8]) -> Ordering {
        // Heads that differ order as their keys do.
        match head(key).cmp(&self.head) {
            Ordering::Equal => key.cmp(&self.bytes),
            order => order,
        }
    }

    /// The key that is kept, empty at first.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// Puts `suffix` behind the first `prefix_len` bytes of `key`.
#[inline]
pub(crate) fn put_suffix(key: &mut Vec<u8>, prefix_len: usize, suffix: &[u8]) {
    if key.len() == prefix_len + suffix.len() {
        // Where keys are of one length this is every step.
        copy_short(&mut key[prefix_len..], suffix);
    } else {
        key.truncate(prefix_len);
        key.extend_from_slice(suffix);
    }
}

/// Whether two keys are equal. Keys that differ in their first eight bytes, and keys of 8 to 16 bytes, are compared by
/// words, without a call.
#[inline]
pub(crate) fn is_same(key: &[u8], other: &[u8]) -> bool {
    match (key.first_chunk::<8>(), other.first_chunk::<8>()) {
        (Some(first), Some(others)) if first != others => false,
        (Some(_), Some(_)) if key.len() <= 16 => {
            key.len() == other.len() && key.last_chunk::<8>() == other.last_chunk::<8>()
        }
        _ => key == other,
    }
}

/// Copies bytes that are likely 8 to 16: two words that overlap are cheaper than a call.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub(crate) fn copy_short(place: &mut [u8], from: &[u8]) {
    if from.len() <= 16
        && let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>())
    {
        let last_at = from.len() - 8;
        place[..8].copy_from_slice(first);
        place[last_at..].copy_from_slice(last);
    } else {
        place.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_slices_do_and_keeps_what_it_was_given() {
        let long = [0x61; 40];
        let mut keys: Vec<&[u8]> = (0..=long.len()).map(|len| &long[..len]).collect();
        keys.extend([
            &b"a\0"[..],
            b"a\0\0\0\0\0\0\0\0",
            b"aaaaaaaa\0",
            b"aaaaaaaaaaaaaaab",
            b"aaaaaaab",
            b"aaaaaaaaaaaaaaaaaaaab",
            b"aaaaaaaabaaaaaaaaaaaa",
            b"\xff",
        ]);
        let mut kept = KeyBuf::default();
        assert_eq!(kept.order_of(b""), Ordering::Equal);
        for first in &keys {
            kept.set(first);
            assert_eq!(kept.as_slice(), *first);
            for second in &keys {
                assert_eq!(
                    kept.order_of(second),
                    second.cmp(first),
                    "{second:?} beside {first:?}"
                );
                assert_eq!(
                    is_same(first, second),
                    first == second,
                    "{second:?} beside {first:?}"
                );
            }
        }
    }

    #[test]
    fn short_copies_of_every_length_are_whole() {
        let from: Vec<u8> = (1..=40).collect();
        for len in 0..=from.len() {
            let mut place = vec![0; len];
            copy_short(&mut place, &from[..len]);
            assert_eq!(place, from[..len]);
        }
    }
}
