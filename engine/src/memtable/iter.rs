//! The memtable's iterator.
#![allow(unsafe_code)] // Holds a node beside the `Arc` that keeps the node alive.

use std::ptr;
use std::sync::Arc;

use siltstone_sstable::{InternalIterator, InternalKey, Tag};
use siltstone_vfs::Result;

use super::Memtable;
use super::node::{Node, NodeRef, Target};

/// A position in a memtable, which it keeps alive. Keys and values are read in place; nothing it does can fail.
///
/// A position stays valid while others insert. A step goes to the nearest entry in its direction that is there at
/// the moment of the step, so entries come in order and never twice, whatever is inserted meanwhile.
pub(crate) struct MemtableIter {
    memtable: Arc<Memtable>,
    /// A node of `memtable`'s list; null if the iterator is not valid.
    node: *mut Node,
}

// SAFETY: the node is part of the memtable, which is Send and Sync and which the iterator keeps alive wherever it
// goes.
unsafe impl Send for MemtableIter {}
// SAFETY: as above; through `&MemtableIter` the node is only read.
unsafe impl Sync for MemtableIter {}

impl MemtableIter {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self {
            memtable,
            node: ptr::null_mut(),
        }
    }

    /// The node it stands on.
    ///
    /// # Panics
    /// If the iterator is not valid.
    fn node(&self) -> NodeRef<'_> {
        // SAFETY: `node` is null or was stored by a seek or step from a node of this memtable's arena, which lives as long
        // as `self.memtable`, so at least as long as the borrow of `self`; it was loaded with acquire order,
        // and whoever has the iterator has synchronised with the thread that moved it last.
        unsafe { NodeRef::from_ptr(self.node) }.expect("the iterator is valid")
    }
}

/// A node's address; null for none.
fn address(node: Option<NodeRef<'_>>) -> *mut Node {
    node.map_or(ptr::null_mut(), NodeRef::as_ptr)
}

impl InternalIterator for MemtableIter {
    fn seek_to_first(&mut self) -> Result<()> {
        self.node = address(self.memtable.list.first());
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.node = address(self.memtable.list.last());
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.node = address(self.memtable.list.after(&Target::before(target)));
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.node = address(self.memtable.list.before(&Target::behind(target)));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.node = address(self.memtable.list.next(self.node()));
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.node = address(self.memtable.list.prev(self.node()));
        Ok(())
    }

    fn valid(&self) -> bool {
        !self.node.is_null()
    }

    fn user_key(&self) -> &[u8] {
        self.node().user_key()
    }

    fn tag(&self) -> Tag {
        self.node().tag()
    }

    fn value(&self) -> &[u8] {
        self.node().value()
    }
}
