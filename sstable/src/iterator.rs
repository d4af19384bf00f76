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

    /// To the first entry of the following user key, past the other entries of the current one. The way may lead
    /// through `scratch`, a buffer that the caller keeps.
    fn next_user_key(&mut self, scratch: &mut Vec<u8>) -> Result<()> {
        pass_user_key(self, scratch)
    }

    /// Whether the preceding entry, if there is one, is known to have another user key. `false` also where a step
    /// would be needed to find out.
    fn begins_user_key(&self) -> bool {
        false
    }

    /// Starts to load what a `seek` to `target` will read. A merge asks all its sources before the first one seeks, so
    /// that their waits for memory overlap.
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        let _ = target;
    }

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

/// Steps forward until the user key changes.
pub(crate) fn pass_user_key<I: InternalIterator + ?Sized>(iter: &mut I, scratch: &mut Vec<u8>) -> Result<()> {
    scratch.clear();
    scratch.extend_from_slice(iter.user_key());
    loop {
        iter.next()?;
        if !iter.valid() || iter.user_key() != *scratch {
            return Ok(());
        }
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
    fn next_user_key(&mut self, scratch: &mut Vec<u8>) -> Result<()> {
        (**self).next_user_key(scratch)
    }
    fn begins_user_key(&self) -> bool {
        (**self).begins_user_key()
    }
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        (**self).prefetch_seek(target)
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

#[cfg(test)]
mod tests;
