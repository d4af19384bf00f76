//! Internal keys: a user key with the sequence number and kind of the operation that wrote it.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use siltstone_vfs::{Error, Result};

/// The longest user key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// A sequence number: the position of one operation in the database's single commit order, from 1 up. A read at
/// seqno `s` sees exactly the operations with seqno at most `s`. At most [`SeqNo::MAX`] (56 bits); 0 is the seqno of
/// entries so old that no snapshot can tell them apart any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// Older than every operation.
    pub const ZERO: SeqNo = SeqNo(0);
    /// The largest seqno that a [`Tag`] can hold.
    pub const MAX: SeqNo = SeqNo((1 << 56) - 1);

    /// The seqno `count` operations later.
    #[must_use]
    pub fn plus(self, count: u64) -> SeqNo {
        debug_assert!(self.0 + count <= Self::MAX.0, "seqnos are 56 bits");
        SeqNo(self.0 + count)
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a table file; unique over the life of a database, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u64);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// What an entry does to its key. On disk: never renumber, never reuse. The numbers that are reserved are refused as
/// [`ErrorKind::Unsupported`](siltstone_vfs::ErrorKind) until the feature exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key has this value.
    Put = 1,
    /// The key is deleted: a tombstone.
    Delete = 2,
    // 3: single delete · 4: range tombstone · 5: merge operand · 6: value with an expiry
    // 7: pointer to a separated value · 8–63: free · 64 and up: never used
}

impl ValueKind {
    /// The largest number a kind may ever have: a seek to `(key, seqno)` uses it to land before all kinds.
    pub const NUMBER_MAX: u8 = 63;

    /// Decodes a kind read from disk.
    ///
    /// # Errors
    /// `Unsupported` for the reserved numbers, `Corruption` for the impossible ones; the caller adds file and offset.
    pub fn from_number(number: u8) -> Result<ValueKind> {
        use siltstone_vfs::ErrorKind::{Corruption, Unsupported};
        match number {
            1 => Ok(ValueKind::Put),
            2 => Ok(ValueKind::Delete),
            3..=7 => Err(Error::new(
                Unsupported,
                format!("value kind {number} is reserved for a later version of Siltstone"),
            )
            .with_advice("open it with the version that wrote it")),
            _ => Err(Error::new(
                Corruption,
                format!("value kind {number} does not exist (expected 1 or 2)"),
            )),
        }
    }
}

/// Seqno and kind in one word: `seqno << 8 | kind`. A larger tag is a newer entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The tag of an entry.
    pub fn new(seqno: SeqNo, kind: ValueKind) -> Tag {
        debug_assert!(seqno <= SeqNo::MAX, "seqnos are 56 bits");
        Tag((seqno.0 << 8) | kind as u64)
    }

    /// The tag that sorts before every entry visible at `seqno`, and after every newer one.
    pub fn seek_at(seqno: SeqNo) -> Tag {
        Tag((seqno.0.min(SeqNo::MAX.0) << 8) | u64::from(ValueKind::NUMBER_MAX))
    }

    /// The largest tag: sorts before all entries of a key.
    pub const FIRST: Tag = Tag(u64::MAX);

    /// The smallest tag: sorts after all entries of a key.
    pub const LAST: Tag = Tag(0);

    /// Decodes a tag read from disk.
    ///
    /// # Errors
    /// As [`ValueKind::from_number`].
    pub fn from_bits(bits: u64) -> Result<Tag> {
        ValueKind::from_number(bits.to_le_bytes()[0])?;
        Ok(Tag(bits))
    }

    /// The word itself.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The seqno.
    pub fn seqno(self) -> SeqNo {
        SeqNo(self.0 >> 8)
    }

    /// The kind.
    ///
    /// # Panics
    /// On a tag made for seeking; entries never have one.
    pub fn kind(self) -> ValueKind {
        match self.0.to_le_bytes()[0] {
            1 => ValueKind::Put,
            2 => ValueKind::Delete,
            other => unreachable!("tag with kind {other}: decoding checks the kind"),
        }
    }

    /// Whether the entry is a tombstone.
    pub fn is_tombstone(self) -> bool {
        self.0.to_le_bytes()[0] == ValueKind::Delete as u8
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ValueKind::from_number(self.0.to_le_bytes()[0]) {
            Ok(kind) => write!(f, "{}:{kind:?}", self.seqno()),
            Err(_) => write!(f, "{}:seek", self.seqno()),
        }
    }
}

/// A user key with its tag. The only type that has the internal order: by user key upwards, then by tag downwards, so
/// that the newest entry of a key comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InternalKey<'a> {
    /// The user's key.
    pub user_key: &'a [u8],
    /// Seqno and kind.
    pub tag: Tag,
}

impl<'a> InternalKey<'a> {
    /// A key with its tag.
    pub fn new(user_key: &'a [u8], tag: Tag) -> Self {
        Self { user_key, tag }
    }
}

impl Ord for InternalKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key
            .cmp(other.user_key)
            .then_with(|| other.tag.cmp(&self.tag))
    }
}

impl PartialOrd for InternalKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:?}", self.user_key.escape_ascii(), self.tag)
    }
}

/// Refuses keys and values past the format's limits.
///
/// # Errors
/// `InvalidInput`, naming length and limit.
pub fn check_entry_size(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "key of {} bytes is over the limit of {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "value of {} bytes is over the limit of {VALUE_BYTES_MAX}",
            value.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_entries_of_a_key_come_first() {
        let key = |k: &'static [u8], s| InternalKey::new(k, Tag::new(SeqNo(s), ValueKind::Put));
        assert!(key(b"a", 9) < key(b"a", 8));
        assert!(key(b"a", 1) < key(b"b", 9));
        assert!(key(b"", 1) < key(b"a", 9));
        let seek = InternalKey::new(b"a", Tag::seek_at(SeqNo(8)));
        assert!(key(b"a", 9) < seek && seek < key(b"a", 8));
    }

    #[test]
    fn every_kind_number_is_decoded_or_refused() {
        use siltstone_vfs::ErrorKind;
        for number in 0..=u8::MAX {
            match number {
                1 | 2 => assert_eq!(ValueKind::from_number(number).unwrap() as u8, number),
                3..=7 => {
                    assert_eq!(
                        ValueKind::from_number(number).unwrap_err().kind(),
                        ErrorKind::Unsupported
                    );
                }
                _ => assert_eq!(
                    ValueKind::from_number(number).unwrap_err().kind(),
                    ErrorKind::Corruption
                ),
            }
        }
    }
}
