//! The memtable's iterator.
#![allow(unsafe_code)] // Holds entries beside the `Arc` that keeps them alive.

use std::ptr;
use std::sync::Arc;

use siltstone_sstable::{InternalIterator, InternalKey, Tag};
use siltstone_vfs::{CACHE_LINE_BYTES, Result};

use super::entry::{Border, Entry, EntryRef};
use super::node::{Node, NodeRef, prefetch};
use super::{Memtable, NODE_ENTRIES};

/// How many entries ahead of the one it stands on the iterator asks for.
const PREFETCH_ENTRIES: usize = 8;

/// How much of each of these.
const PREFETCH_LINES: usize = 3;

/// A position in a memtable, which it keeps alive. Keys and values are read in place; nothing it does can fail.
///
/// A seek goes to the entry that is nearest at the moment of the seek; entries whose insert had returned before are all
/// there. From then on the iterator walks over copies of whole leaves, each made when it is reached: steps meet
/// every entry that was there at the last seek, and may or may not meet those that were inserted since. They come in order and
/// never twice, whatever is inserted meanwhile.
pub(crate) struct MemtableIter<const N: usize = NODE_ENTRIES> {
    memtable: Arc<Memtable<N>>,
    /// The leaf that was copied.
    leaf: *mut Node<N>,
    /// The entries of the leaf.
    copy: Vec<*mut Entry>,
    /// The place in the copy where it stands.
    position: usize,
    /// The entry it stands on; null if the iterator is not valid.
    entry: *mut Entry,
}

// SAFETY: leaf and entries are parts of the memtable, which is Send and Sync and which the iterator keeps alive
// wherever it goes.
unsafe impl<const N: usize> Send for MemtableIter<N> {}
// SAFETY: as above; through `&MemtableIter` they are only read.
unsafe impl<const N: usize> Sync for MemtableIter<N> {}

/// Which neighbour of a border is wanted.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

impl<const N: usize> MemtableIter<N> {
    pub(super) fn new(memtable: Arc<Memtable<N>>) -> Self {
        Self {
            memtable,
            leaf: ptr::null_mut(),
            copy: Vec::new(),
            position: 0,
            entry: ptr::null_mut(),
        }
    }

    /// The entry it stands on.
    ///
    /// # Panics
    /// If the iterator is not valid.
    #[inline]
    fn entry(&self) -> EntryRef<'_> {
        // SAFETY: `entry` is null or was copied from a leaf of this memtable, which lives as long as `self.memtable`,
        // so at least as long as the borrow of `self`; it was loaded with acquire order, and whoever has the iterator
        // has synchronised with the thread that moved it last.
        unsafe { EntryRef::from_ptr(self.entry) }.expect("the iterator is valid")
    }

    /// Goes to the entry on one side of `border`, the search for which begins at the copied leaf or at the root.
    fn go(&mut self, from_leaf: bool, border: Border<'_>, mut side: Side) {
        let mut border = border; // Of a shorter lifetime.
        let Self {
            memtable, copy, leaf, ..
        } = self;
        let tree = &memtable.tree;
        // SAFETY: null or a leaf of this memtable, as above.
        let start = from_leaf.then(|| unsafe { NodeRef::from_ptr(*leaf) }).flatten();
        let mut found = match start {
            Some(start) => Some(tree.leaf_from(start, &border)),
            None => tree.leaf(&border),
        };
        let position = loop {
            let Some((node, place)) = found else { break None };
            *leaf = node.as_ptr();
            if node.copy_entries(&place, copy) {
                match (side, place.after) {
                    (Side::Before, _) => break place.position.checked_sub(1),
                    (Side::After, None) => break None,
                    (Side::After, Some(_)) if place.position < place.count => break Some(place.position),
                    (Side::After, Some(fence)) => {
                        // It is the first entry of the next leaf.
                        border = Border::behind(fence.key());
                        side = Side::Before;
                    }
                }
            }
            found = Some(tree.leaf_from(node, &border));
        };
        self.stand(position);
    }

    /// Stands on the entry at `position` of the copy, or nowhere.
    #[inline]
    fn stand(&mut self, position: Option<usize>) {
        if position.is_none() {
            self.copy.clear();
        }
        self.position = position.unwrap_or(0);
        let entry = self.copy.get(self.position).copied();
        self.entry = entry.unwrap_or(ptr::null_mut());
    }

    #[cold]
    fn next_leaf(&mut self) {
        // SAFETY: as in `entry`; the key is in the memtable's memory, which `go` leaves alone.
        let entry = unsafe { EntryRef::from_ptr(self.entry) }.expect("the iterator is valid");
        self.go(true, Border::behind(entry.key()), Side::After);
        (self.position..self.position + PREFETCH_ENTRIES).for_each(|position| self.prefetch(position));
    }

    #[cold]
    fn prev_leaf(&mut self) {
        // SAFETY: as in `next_leaf`.
        let entry = unsafe { EntryRef::from_ptr(self.entry) }.expect("the iterator is valid");
        self.go(false, Border::before(entry.key()), Side::Before);
        let first = self.position.saturating_sub(PREFETCH_ENTRIES);
        (first..self.position).for_each(|position| self.prefetch(position));
    }

    /// Asks for an entry that steps will come to, if it is in the copy: its first lines.
    #[inline]
    fn prefetch(&self, position: usize) {
        if let Some(&entry) = self.copy.get(position) {
            for line in 0..PREFETCH_LINES {
                prefetch(entry.cast::<u8>().wrapping_add(line * CACHE_LINE_BYTES));
            }
        }
    }
}

impl<const N: usize> InternalIterator for MemtableIter<N> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.seek(InternalKey::new(b"", Tag::FIRST))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let position = loop {
            let Some((leaf, place)) = self.memtable.tree.last_leaf() else {
                break None;
            };
            self.leaf = leaf.as_ptr();
            if leaf.copy_entries(&place, &mut self.copy) {
                break place.position.checked_sub(1);
            }
        };
        self.stand(position);
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(false, Border::before(target), Side::After);
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(false, Border::behind(target), Side::Before);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let position = self.position + 1;
        if position < self.copy.len() {
            self.stand(Some(position));
            self.prefetch(position + PREFETCH_ENTRIES);
        } else {
            self.next_leaf();
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(position) = self.position.checked_sub(1) {
            self.stand(Some(position));
            self.prefetch(position.wrapping_sub(PREFETCH_ENTRIES));
        } else {
            self.prev_leaf();
        }
        Ok(())
    }

    #[inline]
    fn valid(&self) -> bool {
        !self.entry.is_null()
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.entry().user_key()
    }

    #[inline]
    fn tag(&self) -> Tag {
        self.entry().tag()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().value()
    }
}
