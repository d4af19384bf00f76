//! Where a merge is cut into parts that are written side by side.

use crate::Plan;

/// The user keys of one part: from one key on, up to another, which belongs to the next part. By default all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPart {
    from: Option<Box<[u8]>>,
    to: Option<Box<[u8]>>,
}

impl KeyPart {
    /// The smallest key that may be in the part; `None` where there is no bound.
    pub(crate) fn from(&self) -> Option<&[u8]> {
        self.from.as_deref()
    }

    /// Whether the part lies before `user_key` as a whole.
    #[inline]
    pub(crate) fn ends_before(&self, user_key: &[u8]) -> bool {
        self.to.as_ref().is_some_and(|to| **to <= *user_key)
    }
}

/// A stretch of an input table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// No key of it is larger.
    pub last_key: Vec<u8>,
    /// About how long it is.
    pub size_bytes: u64,
}

impl Plan {
    /// Cuts the plan's keys into at most `parts` parts, in key order, which together are all keys. Each reads about as much as
    /// the next, as far as `stretches`, in any order, of the inputs show it. (RocksDB calls the parts subcompactions, and takes
    /// such samples of its inputs.)
    ///
    /// A plan that stays in level 0 is cut where its outputs are cut anyway, where one of the grandparents ends, if it has some.
    pub fn key_parts(&self, mut stretches: Vec<Stretch>, parts: usize) -> Vec<KeyPart> {
        stretches.sort_by(|a, b| a.last_key.cmp(&b.last_key));
        let total: u128 = stretches
            .iter()
            .map(|stretch| u128::from(stretch.size_bytes))
            .sum();
        let (mut done, mut at) = (0, 0);
        let mut cut = vec![KeyPart::default()];
        for part in 1..parts {
            let share = total * part as u128 / parts as u128;
            while done < share && at < stretches.len() {
                done += u128::from(stretches[at].size_bytes);
                at += 1;
            }
            let Some(stretch) = at.checked_sub(1).map(|at| &stretches[at]) else {
                continue;
            };
            let Some(end) = self.end_near(&stretch.last_key) else {
                continue;
            };
            // The first key that is larger.
            let border: Box<[u8]> = [end, &[0]].concat().into();
            let last = cut.last_mut().expect("there is a first part");
            if last.from().is_none_or(|from| *from < *border) && *self.key_range().1 >= *border {
                last.to = Some(border.clone());
                cut.push(KeyPart {
                    from: Some(border),
                    to: None,
                });
            }
        }
        cut
    }

    /// Where an output may end at `key`, or the next place behind it.
    fn end_near<'k>(&'k self, key: &'k [u8]) -> Option<&'k [u8]> {
        if self.output_level > 0 || self.grandparents.is_empty() {
            return Some(key);
        }
        let at = self.grandparents.partition_point(|table| *table.largest < *key);
        self.grandparents.get(at).map(|table| &*table.largest)
    }
}

#[cfg(test)]
mod tests;
