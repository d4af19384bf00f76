//! A flat array for finding one's place among few keys that lie scattered on the heap.

use std::cmp::Ordering;

use crate::block::strip;
use crate::index::head;

/// Ascending keys, by their first eight bytes after the prefix that all share: a search touches one array, and looks at
/// whole keys only where these bytes are equal.
#[derive(Debug, Default)]
pub struct KeyHeads {
    prefix: Box<[u8]>,
    heads: Box<[u64]>,
}

impl KeyHeads {
    /// Of keys in ascending order.
    pub fn new<'k>(keys: impl Iterator<Item = &'k [u8]> + Clone) -> KeyHeads {
        let prefix_of = |first: &'k [u8], last: &[u8]| {
            let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            &first[..shared]
        };
        let prefix = match (keys.clone().next(), keys.clone().last()) {
            (Some(first), Some(last)) => prefix_of(first, last),
            _ => &[],
        };
        KeyHeads {
            heads: keys.map(|key| head(&key[prefix.len()..])).collect(),
            prefix: prefix.into(),
        }
    }

    /// The position of the first key that is at least `wanted`; their number where there is none. `key` gives the key at
    /// a position.
    #[inline]
    pub fn lower_bound<'k>(&self, wanted: &[u8], key: impl Fn(usize) -> &'k [u8]) -> usize {
        let wanted_head = match strip(&self.prefix, wanted) {
            Ok(rest) => head(rest),
            Err(Ordering::Less) => return 0,
            Err(_) => return self.heads.len(),
        };
        let mut at = self.heads.partition_point(|head| *head < wanted_head);
        while at < self.heads.len() && self.heads[at] == wanted_head && key(at) < wanted {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cases;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn agrees_with_a_search_over_the_keys(
            prefix in prop::collection::vec(0u8..2, 0..10),
            mut keys in prop::collection::vec(prop::collection::vec(0u8..2, 0..12), 0..20),
            wanted in prop::collection::vec(0u8..2, 0..20),
            strange in prop::bool::weighted(0.2),
        ) {
            keys.sort();
            let keys: Vec<Vec<u8>> = keys.into_iter().map(|key| [&prefix[..], &key].concat()).collect();
            let wanted = if strange { wanted } else { [prefix, wanted].concat() };
            let heads = KeyHeads::new(keys.iter().map(|key| &key[..]));
            let expected = keys.partition_point(|key| *key < wanted);
            prop_assert_eq!(heads.lower_bound(&wanted, |at| &keys[at]), expected);
        }
    }
}
