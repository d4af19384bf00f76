//! The nodes of the tree: sorted arrays of entries that change under a version word.
//!
//! A node holds the entries of one range of the internal order: from its low fence, which is its first entry, to its
//! *high fence*, which is the first entry of the node that `next` leads to. The leftmost node of a level has no low
//! fence, the rightmost no high one. Ranges only ever shrink, at their high end, when a node is split; a node is never
//! freed, so whoever comes with a pointer that has grown old finds what has been moved away by going right.
//!
//! *Heads.* All keys in a node's range share the prefix that its two fences share. Beside each entry stand the
//! eight bytes of its key behind that prefix (or behind a shorter one), as a number: most searches compare nothing else,
//! and touch one entry.
//!
//! *Versions.* A writer makes the version odd, changes the node, and makes it even again; a reader discards what it
//! read if the version was odd or has changed. What is read of a node while it changes may be inconsistent, but it is
//! never invalid: every field is an atomic, every pointer null or a complete entry or node. So a reader does not write
//! and waits for nobody, but for a writer that is between the two versions: moving a few hundred bytes of two nodes.
#![allow(unsafe_code)] // Nodes point at each other and at entries of the same memtable.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use super::arena::{ARENA_ALIGN_BYTES, Arena};
use super::entry::{Border, Entry, EntryRef};
use crate::sync::atomic::Ordering::{Acquire, Relaxed};
use crate::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, fence};
use crate::sync::{Written, spin_loop, yield_now};

/// How often a reader looks at a locked node before it lets other threads run.
const SPINS: u32 = 100;

/// A leaf, and the first part of an inner node. `N` is how many entries fit.
///
/// Invariant: pointers are null, or entries and nodes of one memtable, stored with release order. Only `locked` stores.
#[repr(C, align(64))]
pub(super) struct Node<const N: usize> {
    /// Odd while a writer is changing the node, larger after each change.
    pub(super) version: AtomicU64,
    /// The high fence, null for none.
    pub(super) high: AtomicPtr<Entry>,
    /// The node to the right.
    pub(super) next: AtomicPtr<Node<N>>,
    /// The heads skip this many bytes, which all keys in the node's range share.
    pub(super) prefix_len: AtomicU32,
    pub(super) count: AtomicU16,
    /// Where the last entry was put.
    pub(super) last_put: AtomicU16,
    /// 0 for a leaf.
    level: u8,
    pub(super) is_leftmost: bool,
    written: Written,
    pub(super) heads: [AtomicU64; N],
    pub(super) entries: [AtomicPtr<Entry>; N],
}

/// An inner node. Child `i` has the range from entry `i` to entry `i + 1`, or to the high fence. In the leftmost node of
/// a level entry 0 stands for the low fence that is not there, and is null.
#[repr(C)]
struct Inner<const N: usize> {
    node: Node<N>,
    children: [AtomicPtr<Node<N>>; N],
}

/// A node in memory that lives at least as long as `'a`.
///
/// Invariant: points at a node that was written by [`NodeRef::create`], with the provenance of its whole allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRef<'a, const N: usize> {
    node: NonNull<Node<N>>,
    arena: PhantomData<&'a Arena>,
}

/// Where a border is in a node, at one version of it.
pub(super) struct Place<'a> {
    pub(super) version: u64,
    /// The number of entries before the border.
    pub(super) position: usize,
    pub(super) count: usize,
    /// The first entry behind the border, if there is one in the whole level: the high fence if not in the node.
    pub(super) after: Option<EntryRef<'a>>,
}

/// One step of a search from the root.
pub(super) enum Step<'a, const N: usize> {
    /// The border is in this node's range.
    Here(Place<'a>),
    /// It is in or behind the range of the next node.
    Right(NodeRef<'a, N>),
    /// It is in or behind the range of this child, the high fence of which is the given one unless the child has been
    /// split and this node does not know yet.
    Down(NodeRef<'a, N>, *mut Entry),
}

/// Something inconsistent was read: the node is being changed.
struct Torn;

impl<'a, const N: usize> NodeRef<'a, N> {
    /// An empty node that nothing points at yet.
    pub(super) fn create(arena: &'a Arena, level: u8, is_leftmost: bool) -> Self {
        const { assert!(N >= 3 && N <= 255 && align_of::<Node<N>>() <= ARENA_ALIGN_BYTES) };
        let size = if level == 0 {
            size_of::<Node<N>>()
        } else {
            size_of::<Inner<N>>()
        };
        let node = arena.allocate(size).cast::<Node<N>>();
        // SAFETY: the allocation is ours alone, large enough for the node, or for an inner node at the same address, and
        // aligned for both. Zeros are a valid value of every field.
        unsafe {
            node.cast::<u8>().write_bytes(0, size);
            (&raw mut (*node.as_ptr()).level).write(level);
            (&raw mut (*node.as_ptr()).is_leftmost).write(is_leftmost);
            #[cfg(loom)]
            Self::write_for_checker(node, level, is_leftmost);
        }
        Self {
            node,
            arena: PhantomData,
        }
    }

    /// The model checker's atomics are not zeros.
    ///
    /// # Safety
    /// `node` is memory for a node of this level, and nobody else's.
    #[cfg(loom)]
    unsafe fn write_for_checker(node: NonNull<Node<N>>, level: u8, is_leftmost: bool) {
        use std::array::from_fn;
        // SAFETY: the caller's.
        unsafe {
            node.write(Node {
                version: AtomicU64::new(0),
                high: AtomicPtr::new(ptr::null_mut()),
                next: AtomicPtr::new(ptr::null_mut()),
                prefix_len: AtomicU32::new(0),
                count: AtomicU16::new(0),
                last_put: AtomicU16::new(0),
                level,
                is_leftmost,
                written: Written::default(),
                heads: from_fn(|_| AtomicU64::new(0)),
                entries: from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            });
            if level > 0 {
                (&raw mut (*node.cast::<Inner<N>>().as_ptr()).children)
                    .write(from_fn(|_| AtomicPtr::new(ptr::null_mut())));
            }
        }
    }

    /// The node that a link holds; `None` for null.
    ///
    /// # Safety
    /// Not null means: it came from [`NodeRef::as_ptr`], by way of a load that synchronises with a store by a thread
    /// that knew the node (or from the same thread), and the node's arena lives for `'a`.
    pub(super) unsafe fn from_ptr(node: *mut Node<N>) -> Option<Self> {
        NonNull::new(node).map(|node| Self {
            node,
            arena: PhantomData,
        })
    }

    /// The node's address, to store in a link.
    pub(super) fn as_ptr(self) -> *mut Node<N> {
        self.node.as_ptr()
    }

    pub(super) fn node(self) -> &'a Node<N> {
        // SAFETY: by the invariant a node is there, initialised; what changes in it is atomic.
        let node = unsafe { self.node.as_ref() };
        node.written.check();
        node
    }

    /// 0 for a leaf.
    pub(super) fn level(self) -> u8 {
        self.node().level
    }

    pub(super) fn children(self) -> &'a [AtomicPtr<Node<N>>; N] {
        assert!(self.level() > 0, "leaves have no children");
        // SAFETY: a node above level 0 is an `Inner`, which begins with a `Node`; its children are atomics.
        unsafe { &(*self.node.cast::<Inner<N>>().as_ptr()).children }
    }

    pub(super) fn entry_in(field: &AtomicPtr<Entry>) -> Option<EntryRef<'a>> {
        // SAFETY: what is stored in a node is null or an entry of the same memtable, each time with release order (or
        // before the node itself is published).
        unsafe { EntryRef::from_ptr(field.load(Acquire)) }
    }

    pub(super) fn node_in(field: &AtomicPtr<Node<N>>) -> Option<Self> {
        // SAFETY: what is stored in a node is null or a node of the same memtable, each time with release order (or
        // before the node itself is published).
        unsafe { Self::from_ptr(field.load(Acquire)) }
    }

    /// Reads something until the node has not changed meanwhile; returns the version, too.
    fn read<T>(self, mut read: impl FnMut(&'a Node<N>) -> Result<T, Torn>) -> (T, u64) {
        let node = self.node();
        let mut spins = 0;
        loop {
            let version = node.version.load(Acquire);
            if version.is_multiple_of(2) {
                let seen = read(node);
                fence(Acquire);
                if node.version.load(Relaxed) == version
                    && let Ok(seen) = seen
                {
                    return (seen, version);
                }
            }
            spins += 1;
            if spins < SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }

    /// One step of the search for `border` on `level`, which is this node's level or a lower one. The low fence is before
    /// the border. `high` is a fence that is not before the border, if one is known.
    pub(super) fn step(self, level: u8, border: &Border<'_>, high: Option<*mut Entry>) -> Step<'a, N> {
        let (mut step, version) = self.read(|node| {
            let fence = Self::entry_in(&node.high);
            // Outside of the range keys need not have its prefix: this is to be known before heads are compared. The
            // fence is where the parent says in all but a few cases, which spares touching it.
            if high != Some(fence.map_or(ptr::null_mut(), EntryRef::as_ptr))
                && fence.is_some_and(|fence| fence.is_before(border))
            {
                return Self::node_in(&node.next).map(Step::Right).ok_or(Torn);
            }
            let count = usize::from(node.count.load(Relaxed)).min(N);
            let position = self.position(usize::from(self.level() > 0), count, border)?;
            let after = if position < count {
                Some(Self::entry_in(&node.entries[position]).ok_or(Torn)?)
            } else {
                fence
            };
            if self.level() == level {
                return Ok(Step::Here(Place {
                    version: 0,
                    position,
                    count,
                    after,
                }));
            }
            // A torn count may be 0.
            let child = position.checked_sub(1).ok_or(Torn)?;
            let child = Self::node_in(&self.children()[child]).ok_or(Torn)?;
            Ok(Step::Down(child, after.map_or(ptr::null_mut(), EntryRef::as_ptr)))
        });
        if let Step::Here(place) = &mut step {
            place.version = version;
        }
        step
    }

    /// How many of the first `count` entries are before the border; those before `from` are known to be.
    fn position(self, from: usize, count: usize, border: &Border<'_>) -> Result<usize, Torn> {
        let node = self.node();
        let head = border.head(node.prefix_len.load(Relaxed) as usize);
        let start = partition(from, count, |i| node.heads[i].load(Relaxed) < head);
        let is_equal = |i: usize| i < count && node.heads[i].load(Relaxed) == head;
        if !is_equal(start) {
            return Ok(start);
        }
        let end = if is_equal(start + 1) {
            partition(start + 2, count, |i| node.heads[i].load(Relaxed) == head)
        } else {
            start + 1
        };
        let (mut start, mut end) = (start, end);
        while start < end {
            let middle = usize::midpoint(start, end);
            if Self::entry_in(&node.entries[middle])
                .ok_or(Torn)?
                .is_before(border)
            {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        Ok(start)
    }

    /// One step of the search for the end of the leaves.
    pub(super) fn last_step(self) -> Step<'a, N> {
        let (mut step, version) = self.read(|node| {
            if let Some(next) = Self::node_in(&node.next) {
                return Ok(Step::Right(next));
            }
            let count = usize::from(node.count.load(Relaxed)).min(N);
            if self.level() > 0 {
                let last = self.children().get(count.wrapping_sub(1)).ok_or(Torn)?;
                return Ok(Step::Down(Self::node_in(last).ok_or(Torn)?, ptr::null_mut()));
            }
            Ok(Step::Here(Place {
                version: 0,
                position: count,
                count,
                after: None,
            }))
        });
        if let Step::Here(place) = &mut step {
            place.version = version;
        }
        step
    }

    /// Puts copies of the leaf's entries into `copy`, if it still is as it was when `place` was found.
    pub(super) fn copy_entries(self, place: &Place<'_>, copy: &mut Vec<*mut Entry>) -> bool {
        let node = self.node();
        copy.clear();
        copy.reserve(N); // Once: no later copy allocates.
        copy.extend(
            node.entries[..place.count]
                .iter()
                .map(|entry| entry.load(Acquire)),
        );
        fence(Acquire);
        node.version.load(Relaxed) == place.version
    }

    /// Asks for the lines that a search in this node may touch.
    #[inline]
    pub(super) fn prefetch(self) {
        prefetch_lines(self.node.cast::<u8>(), size_of::<Node<N>>());
    }
}

/// The first of `from..to` of which `is_before` is not true, `to` if it is true of all.
#[inline]
fn partition(from: usize, to: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut len) = (from, to.saturating_sub(from));
    while len > 0 {
        let half = len.div_ceil(2);
        // No branch: which way it goes cannot be predicted.
        start += if is_before(start + half - 1) { half } else { 0 };
        len -= half;
    }
    start
}

/// Asks for the lines of `len` bytes at `start`. Without effect but on the caches.
#[inline]
fn prefetch_lines(start: NonNull<u8>, len: usize) {
    for offset in (0..len).step_by(64) {
        prefetch(start.as_ptr().wrapping_add(offset));
    }
}

/// Asks for the line at an address. Without effect but on the caches, whatever the address is.
#[inline]
pub(super) fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it accesses no memory in the language's sense.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// What a node at rest has in it, for tests.
#[cfg(test)]
pub(super) struct Contents<'a, const N: usize> {
    pub(super) entries: Vec<(u64, Option<EntryRef<'a>>)>,
    pub(super) children: Vec<NodeRef<'a, N>>,
    pub(super) high: Option<EntryRef<'a>>,
    pub(super) next: Option<NodeRef<'a, N>>,
    pub(super) prefix_len: usize,
}

#[cfg(test)]
impl<'a, const N: usize> NodeRef<'a, N> {
    pub(super) fn contents(self) -> Contents<'a, N> {
        let node = self.node();
        let count = usize::from(node.count.load(Relaxed));
        let heads = node.heads[..count].iter().map(|head| head.load(Relaxed));
        let children = if self.level() > 0 {
            &self.children()[..count]
        } else {
            &[]
        };
        Contents {
            entries: heads.zip(node.entries.iter().map(Self::entry_in)).collect(),
            children: children
                .iter()
                .map(|child| Self::node_in(child).expect("complete"))
                .collect(),
            high: Self::entry_in(&node.high),
            next: Self::node_in(&node.next),
            prefix_len: node.prefix_len.load(Relaxed) as usize,
        }
    }
}
