//! A B-link tree over entries in an arena, ordered by internal key, that only ever grows. After P. L. Lehman and S. B. Yao,
//! *Efficient locking for concurrent operations on B-trees* (ACM TODS 6, 1981), with versions instead of read locks.
//!
//! A search goes from the root down, and to the right where a node has been split and its parent does not know yet. An
//! insert finds its leaf in the same way and locks it only to put the entry there. If the leaf is full it is split, and
//! unlocked, before the new node is put into the level above, by an insert like the first: nobody ever holds two
//! locks. Until that is done the new node is found by way of its left neighbour.

use std::ptr;
use std::sync::Arc;

use super::arena::Arena;
use super::entry::{Border, Entry, EntryRef};
use super::node::{Node, NodeRef, Place, Step};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicPtr;
use crate::sync::atomic::Ordering::{Acquire, Release};

/// The tree, with `N` entries in a full node. Its nodes live as long as their arena; the entries are not its own.
pub(super) struct Tree<const N: usize> {
    /// Null before the first entry, a leaf at first.
    root: AtomicPtr<Node<N>>,
    /// Held to replace the root.
    growth: Mutex<()>,
    nodes: Arc<Arena>,
}

impl<const N: usize> Tree<N> {
    /// An empty tree, which makes its nodes in `nodes`.
    pub(super) fn new(nodes: Arc<Arena>) -> Self {
        Self {
            root: AtomicPtr::new(ptr::null_mut()),
            growth: Mutex::new(()),
            nodes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root().is_none()
    }

    #[allow(unsafe_code)] // The tree's only pointer.
    pub(super) fn root(&self) -> Option<NodeRef<'_, N>> {
        // SAFETY: null, or stored by `grow` from a node of our arena with release order.
        unsafe { NodeRef::from_ptr(self.root.load(Acquire)) }
    }

    /// Adds an entry, which lives at least as long as the tree. The caller never adds the same key and tag twice.
    pub(super) fn insert(&self, entry: EntryRef<'_>) {
        let (mut level, mut entry, mut child) = (0, entry, None);
        while let Some((border, right)) = self.put(level, entry, child) {
            (level, entry, child) = (level + 1, border, Some(right));
        }
    }

    /// Puts an entry into its node on a level. If that had to be split, returns what the level above is to be told: the
    /// new node and its first entry.
    fn put<'a>(
        &'a self,
        level: u8,
        entry: EntryRef<'a>,
        child: Option<NodeRef<'a, N>>,
    ) -> Option<(EntryRef<'a>, NodeRef<'a, N>)> {
        let border = Border::before(entry.key());
        let (mut node, mut place) = loop {
            match self.find(level, &border) {
                Some(found) => break found,
                None if self.grow(level, entry, child) => return None,
                None => {}
            }
        };
        let mut right = None;
        loop {
            debug_assert!(
                level > 0 || place.after.is_none_or(|after| after.key() != entry.key()),
                "{:?} is there already",
                entry.key()
            );
            // Made and touched before the lock, under which nobody shall wait for memory.
            if place.count == N && right.is_none() {
                right = Some(NodeRef::create(&self.nodes, level, false));
            }
            if let Some(mut locked) = node.lock(&place) {
                if place.count < N {
                    locked.put(place.position, entry, child);
                    return None;
                }
                let right = right.expect("made above");
                return Some((locked.split(right, place.position, entry, child), right));
            }
            (node, place) = Self::find_from(node, level, &border);
        }
    }

    /// Makes a root on `level`, which has none, for an entry with its child; false if another thread has just made one.
    fn grow<'a>(&'a self, level: u8, entry: EntryRef<'a>, child: Option<NodeRef<'a, N>>) -> bool {
        let _growing = self.growth.lock();
        let old = self.root();
        if old.is_some_and(|root| root.level() >= level) {
            return false;
        }
        let root = NodeRef::create(&self.nodes, level, true);
        match (old, child) {
            (Some(old), Some(child)) => root.make_root(old, entry, child),
            _ => root.make_leaf(entry),
        }
        self.root.store(root.as_ptr(), Release);
        true
    }

    /// Where `border` is on a level; `None` if there is no such level.
    fn find(&self, level: u8, border: &Border<'_>) -> Option<(NodeRef<'_, N>, Place<'_>)> {
        let root = self.root().filter(|root| root.level() >= level)?;
        // No fence, unless the root has just been split.
        Some(Self::walk(root, Some(ptr::null_mut()), |node, high| {
            node.step(level, border, high)
        }))
    }

    /// Where `border` is on a level, searched for from a node there the low fence of which is before it.
    fn find_from<'a>(node: NodeRef<'a, N>, level: u8, border: &Border<'_>) -> (NodeRef<'a, N>, Place<'a>) {
        Self::walk(node, None, |node, high| node.step(level, border, high))
    }

    /// Takes steps from a node, with the high fence that it is likely to have.
    fn walk<'a>(
        mut node: NodeRef<'a, N>,
        mut high: Option<*mut Entry>,
        step: impl Fn(NodeRef<'a, N>, Option<*mut Entry>) -> Step<'a, N>,
    ) -> (NodeRef<'a, N>, Place<'a>) {
        loop {
            (node, high) = match step(node, high) {
                Step::Here(place) => return (node, place),
                Step::Right(next) => (next, None),
                Step::Down(child, high) => {
                    child.prefetch();
                    (child, Some(high))
                }
            };
        }
    }

    /// The first entry behind a border.
    pub(super) fn after(&self, border: &Border<'_>) -> Option<EntryRef<'_>> {
        self.find(0, border)?.1.after
    }

    /// The leaf with the last entry before a border, if there is one, and the border's place there.
    pub(super) fn leaf(&self, border: &Border<'_>) -> Option<(NodeRef<'_, N>, Place<'_>)> {
        self.find(0, border)
    }

    /// As [`leaf`](Tree::leaf), from a leaf that has been found for a smaller border.
    pub(super) fn leaf_from<'a>(
        &'a self,
        leaf: NodeRef<'a, N>,
        border: &Border<'_>,
    ) -> (NodeRef<'a, N>, Place<'a>) {
        Self::find_from(leaf, 0, border)
    }

    /// The last leaf, and the place behind its last entry.
    pub(super) fn last_leaf(&self) -> Option<(NodeRef<'_, N>, Place<'_>)> {
        Some(Self::walk(self.root()?, None, |node, _| node.last_step()))
    }
}
