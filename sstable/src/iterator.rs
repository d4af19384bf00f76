//! The one shape of every ordered source of entries: memtable, table, level, merge.

use siltstone_vfs::Result;

use crate::{InternalKey, Tag};

/// A position in a sequence of entries in internal order (user keys upwards, newest entry of a key first).
///
/// A fresh iterator is not valid until a seek. After an error it is not valid; a new seek may succeed.
/// `next`, `prev`, `key` and `value` require `valid()`.
pub trait InternalIterator {
    /// To the first entry.
    fn seek_to_first(&mut self) -> Result<()>;

    /// To the last entry.
    fn seek_to_last(&mut self) -> Result<()>;

    /// To the first entry at or after `target` in internal order.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// To the last entry at or before `target` in internal order.
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// To the following entry; past the last one the iterator is not valid.
    fn next(&mut self) -> Result<()>;

    /// To the preceding entry; before the first one the iterator is not valid.
    fn prev(&mut self) -> Result<()>;

    /// Whether the iterator stands on an entry.
    fn valid(&self) -> bool;

    /// The user key, in place where possible; valid until the iterator moves.
    fn user_key(&self) -> &[u8];

    /// Seqno and kind.
    fn tag(&self) -> Tag;

    /// The value, in place where possible; empty for a tombstone.
    fn value(&self) -> &[u8];

    /// User key and tag together.
    fn key(&self) -> InternalKey<'_> {
        InternalKey::new(self.user_key(), self.tag())
    }
}

impl<I: InternalIterator + ?Sized> InternalIterator for Box<I> {
    fn seek_to_first(&mut self) -> Result<()> {
        (**self).seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        (**self).seek_to_last()
    }
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek(target)
    }
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek_for_prev(target)
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
    fn valid(&self) -> bool {
        (**self).valid()
    }
    fn user_key(&self) -> &[u8] {
        (**self).user_key()
    }
    fn tag(&self) -> Tag {
        (**self).tag()
    }
    fn value(&self) -> &[u8] {
        (**self).value()
    }
}
