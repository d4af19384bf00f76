//! Sorted sources of entries, as one type without dynamic dispatch.

use siltstone_sstable::{InternalIterator, InternalKey, TableIter, Tag};
use siltstone_vfs::Result;

use crate::level_iter::LevelIter;
use crate::memtable::MemtableIter;

/// A memtable, a table of level 0, or a whole deeper level. Which one it is stands in a byte of its own: to find it out from a
/// value that one of them cannot have takes longer, and each step of a cursor asks several times.
#[repr(u8)]
pub(crate) enum Source {
    Memtable(MemtableIter),
    Table(TableIter),
    Level(LevelIter),
}

macro_rules! each {
    ($self:ident, $iter:ident => $call:expr) => {
        match $self {
            Source::Memtable($iter) => $call,
            Source::Table($iter) => $call,
            Source::Level($iter) => $call,
        }
    };
}

impl InternalIterator for Source {
    fn seek_to_first(&mut self) -> Result<()> {
        each!(self, iter => iter.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        each!(self, iter => iter.seek_to_last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        each!(self, iter => iter.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        each!(self, iter => iter.seek_for_prev(target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, iter => iter.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        each!(self, iter => iter.prev())
    }

    #[inline]
    fn next_user_key(&mut self, scratch: &mut Vec<u8>) -> Result<()> {
        each!(self, iter => iter.next_user_key(scratch))
    }

    #[inline]
    fn begins_user_key(&self) -> bool {
        each!(self, iter => iter.begins_user_key())
    }

    #[inline]
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        each!(self, iter => iter.prefetch_seek(target))
    }

    #[inline]
    fn valid(&self) -> bool {
        each!(self, iter => iter.valid())
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        each!(self, iter => iter.user_key())
    }

    #[inline]
    fn tag(&self) -> Tag {
        each!(self, iter => iter.tag())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        each!(self, iter => iter.value())
    }
}
