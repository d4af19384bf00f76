//! The towers of links that make a list of nodes a skiplist, and the protocol by which they change.
//!
//! A tower grows downwards from the address of its node, so that the links that are followed most stand closest to
//! what is compared most, the node's head. A link above level 0 has a copy of the head of the node that it leads to,
//! so that a search that has to turn down there does not have to touch that node: the cost of a search is the cache
//! misses that it takes.
#![allow(unsafe_code)] // A tower's height is known only to the algorithm that follows its links.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering as Memory};

use super::arena::{ALIGN_BYTES, Arena};
use super::node::{Link, NodeRef, Target};

/// The most links that a node can have: enough for 2^20 entries at one link more for every second node, and still
/// good for many times that.
pub(super) const HEIGHT_MAX: usize = 20;

/// A link above level 0.
#[repr(C)]
struct UpperLink {
    next: Link,
    /// The head of the node at `next`, or, for a moment while a node is inserted, of one that follows it; the
    /// largest number if there is none. So: a number larger than `head` is larger than the head of `next`, where
    /// `head` is loaded first, with acquire order.
    ///
    /// It holds because `next` only ever moves towards smaller keys, and `head` is set after it.
    head: AtomicU64,
}

impl UpperLink {
    const fn to_nothing() -> Self {
        Self {
            next: Link::new(ptr::null_mut()),
            head: AtomicU64::new(NO_HEAD),
        }
    }
}

/// What `UpperLink::head` is for a link to nothing.
const NO_HEAD: u64 = u64::MAX;

/// The tower that the list starts with, at full height.
#[repr(C)]
pub(super) struct StartTower {
    upper: [UpperLink; HEIGHT_MAX - 1],
    ground: Link,
}

impl StartTower {
    /// Links to nothing.
    pub(super) fn new() -> Self {
        Self {
            upper: [const { UpperLink::to_nothing() }; HEIGHT_MAX - 1],
            ground: Link::new(ptr::null_mut()),
        }
    }
}

/// The size of a tower, which is the distance from its lowest address to its node.
pub(super) const fn tower_bytes(height: usize) -> usize {
    size_of::<Link>() + (height - 1) * size_of::<UpperLink>()
}

const _: () = assert!(size_of::<StartTower>() == tower_bytes(HEIGHT_MAX));
const _: () = assert!(align_of::<UpperLink>() <= ALIGN_BYTES && align_of::<Link>() <= ALIGN_BYTES);
const _: () = assert!(
    size_of::<Link>().is_multiple_of(align_of::<UpperLink>()),
    "a tower's parts leave no gaps"
);

/// Writes a tower of links to nothing.
///
/// # Safety
/// `memory` is valid for writes of [`tower_bytes`] of `height`, and aligned to [`ALIGN_BYTES`].
pub(super) unsafe fn write_tower(memory: NonNull<u8>, height: usize) {
    // SAFETY: the links fill exactly the bytes that the caller gives; their alignment is checked above.
    unsafe {
        for i in 0..height - 1 {
            memory.cast::<UpperLink>().add(i).write(UpperLink::to_nothing());
        }
        memory
            .add(tower_bytes(height) - size_of::<Link>())
            .cast()
            .write(Link::new(ptr::null_mut()));
    }
}

/// Something that has a tower of links: a node, or the start of the list.
///
/// Invariant: `end` is the end of a tower that lives for `'a`, and may reach all of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    end: NonNull<Link>,
    arena: PhantomData<&'a Arena>,
}

impl<'a> Place<'a> {
    /// The start of the list. Its address is never a node's: it ends a tower that is not in an arena, and every
    /// node has a tower between the start of its block and itself.
    pub(super) fn start(tower: &'a StartTower) -> Self {
        // SAFETY: one past the end of the tower.
        let end = unsafe { NonNull::from(tower).add(1).cast() };
        Self {
            end,
            arena: PhantomData,
        }
    }

    /// The place of a node, whose tower ends at its address.
    pub(super) fn of(node: NodeRef<'a>) -> Self {
        // SAFETY: a node's address is not null.
        let end = unsafe { NonNull::new_unchecked(node.as_ptr()).cast() };
        Self {
            end,
            arena: PhantomData,
        }
    }

    /// The node whose place this is.
    ///
    /// # Safety
    /// The place is not the start of the list.
    pub(super) unsafe fn node(self) -> NodeRef<'a> {
        // SAFETY: from the caller: the place was made of a node of an arena that lives for `'a`; it is not null.
        unsafe { NodeRef::from_ptr(self.end.as_ptr().cast()).unwrap_unchecked() }
    }

    fn ground(self) -> &'a Link {
        // SAFETY: every tower has this link, at its end; links are only ever used as atomics.
        unsafe { self.end.sub(1).as_ref() }
    }

    /// # Safety
    /// `level` is at least 1, and the tower is higher than it.
    unsafe fn upper(self, level: usize) -> &'a UpperLink {
        debug_assert!((1..HEIGHT_MAX).contains(&level));
        // SAFETY: the caller says that the tower has the link; links are only ever used as atomics.
        unsafe { self.end.sub(1).cast::<UpperLink>().sub(level).as_ref() }
    }

    /// # Safety
    /// The tower is higher than `level`.
    unsafe fn link(self, level: usize) -> &'a Link {
        match level {
            0 => self.ground(),
            // SAFETY: from the caller.
            _ => unsafe { &self.upper(level).next },
        }
    }

    /// The node that a link leads to.
    fn follow(link: &Link) -> Option<NodeRef<'a>> {
        // SAFETY: a link of a tower that lives for `'a` holds null or a node of the same arena, published with release
        // order by `link_next`, or copied by `set_next` from a link that was, and published with the new node.
        unsafe { NodeRef::from_ptr(link.load(Memory::Acquire)) }
    }

    /// The next node on level 0, the list of all nodes.
    pub(super) fn next(self) -> Option<NodeRef<'a>> {
        Self::follow(self.ground())
    }

    /// The next node on a level.
    ///
    /// # Safety
    /// The tower is higher than `level`: it was reached over a link of this level or a higher one, or is the start.
    pub(super) unsafe fn next_on(self, level: usize) -> Option<NodeRef<'a>> {
        // SAFETY: from the caller.
        Self::follow(unsafe { self.link(level) })
    }

    /// On a level above 0: `Ok` with the next node if that is before `target`, else `Err`. Says `Err` too of a node
    /// before `target` that another thread is only just inserting.
    ///
    /// `known` is a node that is known not to be before `target`, which spares a comparison; so is what `Err` holds.
    ///
    /// # Safety
    /// `level` is at least 1, and as in [`Place::next_on`].
    pub(super) unsafe fn next_before(
        self,
        level: usize,
        target: &Target<'_>,
        known: Option<NodeRef<'a>>,
    ) -> Result<NodeRef<'a>, Option<NodeRef<'a>>> {
        // SAFETY: from the caller.
        let link = unsafe { self.upper(level) };
        // Before `next`: see `UpperLink::head`.
        let head = link.head.load(Memory::Acquire);
        let next = Self::follow(&link.next);
        match target.head().cmp(&head) {
            Ordering::Greater => next.ok_or(known),
            Ordering::Equal => match next {
                Some(node) if next != known && node.is_before(target) => Ok(node),
                _ => Err(next),
            },
            // Nothing is known of `next`: it may be new, and `head` of a node behind it.
            Ordering::Less => Err(known),
        }
    }

    /// Prepares a link of a node that is not yet linked on this level.
    ///
    /// # Safety
    /// The tower is higher than `level`.
    pub(super) unsafe fn set_next(self, level: usize, next: Option<NodeRef<'a>>) {
        // The release in `link_next` publishes these stores.
        if level > 0 {
            // SAFETY: from the caller.
            unsafe { self.upper(level) }
                .head
                .store(next.map_or(NO_HEAD, NodeRef::head), Memory::Relaxed);
        }
        // SAFETY: from the caller.
        unsafe { self.link(level) }.store(next.map_or(ptr::null_mut(), NodeRef::as_ptr), Memory::Relaxed);
    }

    /// Puts `node` between this place and `next`, unless another node has come between them.
    ///
    /// # Safety
    /// The tower is higher than `level`.
    pub(super) unsafe fn link_next(self, level: usize, next: Option<NodeRef<'a>>, node: NodeRef<'a>) -> bool {
        let next = next.map_or(ptr::null_mut(), NodeRef::as_ptr);
        // SAFETY: from the caller.
        let is_linked = unsafe { self.link(level) }
            .compare_exchange(next, node.as_ptr(), Memory::Release, Memory::Relaxed)
            .is_ok();
        if is_linked && level > 0 {
            // The smallest head wins, as the smallest node does, in whatever order two inserts get here.
            // SAFETY: from the caller.
            unsafe { self.upper(level) }
                .head
                .fetch_min(node.head(), Memory::Release);
        }
        is_linked
    }
}
