//! One entry of the skiplist, laid out in a single allocation:
//!
//! ```text
//!   link[height-1] … link[1] │ link[0] │ back  tag  key_len  value_len │ key, zeros up to 8 bytes │ value
//!    next, head      next, head  next   ▲ address of the node
//! ```
//!
//! The tower of links grows downwards from the node's address, so that the links that are followed most stand
//! closest to what is compared most: the key's first eight bytes, its *head*, read as one big-endian number. Two
//! different heads order their keys; only equal ones need the rest of the key. A link above level 0 has a copy of
//! the head of the node that it leads to, so that a search that has to turn down there does not have to touch that
//! node: what a search costs is the cache misses that it takes.
//!
//! Everything but the tower and `back` is written once, before the node is linked, and never again: slices of key
//! and value can be handed out for as long as the arena lives.
#![allow(unsafe_code)] // Nodes have a variable size: their parts are reached by offsets from the node's address.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering as Memory};

use siltstone_sstable::{InternalKey, Tag};

use super::arena::{ALIGN_BYTES, Arena};

/// The most links that a node can have: enough for 2^20 entries at one link more for every second node, and still
/// good for many times that.
pub(super) const HEIGHT_MAX: usize = 20;

/// The address of a node, null for none.
type Link = AtomicPtr<Node>;

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
            upper: [const {
                UpperLink {
                    next: Link::new(ptr::null_mut()),
                    head: AtomicU64::new(NO_HEAD),
                }
            }; HEIGHT_MAX - 1],
            ground: Link::new(ptr::null_mut()),
        }
    }
}

/// The size of a tower, which is the distance from its lowest address to its node.
const fn tower_bytes(height: usize) -> usize {
    size_of::<Link>() + (height - 1) * size_of::<UpperLink>()
}

const _: () = assert!(size_of::<StartTower>() == tower_bytes(HEIGHT_MAX));

/// The fixed part of a node.
#[repr(C)]
pub(super) struct Node {
    /// A node somewhere before this one, most often the one directly before it; null stands for the list's start.
    back: Link,
    tag: Tag,
    key_len: u32,
    value_len: u32,
}

const KEY_OFFSET: usize = size_of::<Node>();
const HEAD_BYTES: usize = size_of::<u64>();
const _: () = assert!(align_of::<Node>() <= ALIGN_BYTES && align_of::<UpperLink>() <= ALIGN_BYTES);
const _: () = assert!(
    size_of::<Link>().is_multiple_of(align_of::<UpperLink>()),
    "a tower's parts leave no gaps"
);

/// The first eight bytes of a key, filled up with zeros, as a number that orders like them.
fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; HEAD_BYTES];
    let len = key.len().min(HEAD_BYTES);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

/// A border in the internal order, prepared for comparison with many nodes.
#[derive(Clone, Copy)]
pub(super) struct Target<'k> {
    head: u64,
    key: InternalKey<'k>,
    /// Whether the border is behind the key itself.
    is_inclusive: bool,
}

impl<'k> Target<'k> {
    /// The border between the nodes before `key` and those at or behind it.
    pub(super) fn before(key: InternalKey<'k>) -> Self {
        Self {
            head: head_of(key.user_key),
            key,
            is_inclusive: false,
        }
    }

    /// The border between the nodes before or at `key` and those behind it.
    pub(super) fn behind(key: InternalKey<'k>) -> Self {
        Self {
            is_inclusive: true,
            ..Self::before(key)
        }
    }
}

/// A node in an arena that lives at least as long as `'a`, complete but for its links.
///
/// Invariant: points at a node written by [`NodeRef::create`], with the provenance of its whole block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeRef<'a> {
    node: NonNull<Node>,
    arena: PhantomData<&'a Arena>,
}

impl<'a> NodeRef<'a> {
    /// Writes a node with `height` links, all null, that nothing points at yet.
    ///
    /// # Panics
    /// If key or value are longer than 4 GiB.
    pub(super) fn create(arena: &'a Arena, height: usize, key: InternalKey<'_>, value: &[u8]) -> Self {
        assert!((1..=HEIGHT_MAX).contains(&height));
        let key_len = u32::try_from(key.user_key.len()).expect("the write path checks key sizes");
        let value_len = u32::try_from(value.len()).expect("the write path checks value sizes");
        let key_bytes = key.user_key.len().max(HEAD_BYTES);
        let tower_bytes = tower_bytes(height);
        let memory = arena.allocate(tower_bytes + KEY_OFFSET + key_bytes + value.len());
        // SAFETY: all writes are within the allocation, whose size is the sum of its parts in this order, and which
        // is ours alone. It is aligned for links, and as the tower is made of whole links, for `Node` behind it.
        // Key and value cannot overlap memory that the arena has just handed out.
        unsafe {
            for i in 0..height - 1 {
                let link = UpperLink {
                    next: Link::new(ptr::null_mut()),
                    head: AtomicU64::new(NO_HEAD),
                };
                memory.cast::<UpperLink>().add(i).write(link);
            }
            let node = memory.add(tower_bytes).cast::<Node>();
            node.cast::<Link>().sub(1).write(Link::new(ptr::null_mut()));
            node.write(Node {
                back: Link::new(ptr::null_mut()),
                tag: key.tag,
                key_len,
                value_len,
            });
            let key_start = node.cast::<u8>().add(KEY_OFFSET);
            key_start
                .cast::<[u8; HEAD_BYTES]>()
                .write(head_of(key.user_key).to_be_bytes());
            ptr::copy_nonoverlapping(key.user_key.as_ptr(), key_start.as_ptr(), key.user_key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), key_start.add(key_bytes).as_ptr(), value.len());
            Self {
                node,
                arena: PhantomData,
            }
        }
    }

    /// The node that a link or an iterator holds; `None` for null.
    ///
    /// # Safety
    /// Not null means: it came from [`NodeRef::as_ptr`], by way of a load that synchronises with the store of the
    /// node's creator (or from the same thread), and the node's arena lives for `'a`.
    pub(super) unsafe fn from_ptr(node: *mut Node) -> Option<Self> {
        NonNull::new(node).map(|node| Self {
            node,
            arena: PhantomData,
        })
    }

    /// The node's address, to store in a link.
    pub(super) fn as_ptr(self) -> *mut Node {
        self.node.as_ptr()
    }

    /// The place in the list where this node stands.
    pub(super) fn place(self) -> Place<'a> {
        Place {
            end: self.node.cast(),
            arena: PhantomData,
        }
    }

    fn fixed(self) -> &'a Node {
        // SAFETY: by the invariant a `Node` is there, initialised; nothing in it is written but through the atomic.
        unsafe { self.node.as_ref() }
    }

    fn key_start(self) -> NonNull<u8> {
        // SAFETY: the key stands behind the fixed part, in the same allocation; `self.node` may reach all of it.
        unsafe { self.node.cast::<u8>().add(KEY_OFFSET) }
    }

    fn key_len(self) -> usize {
        self.fixed().key_len as usize
    }

    fn head(self) -> u64 {
        // SAFETY: at least eight bytes of key were written, zeros included; an array of bytes has no alignment.
        u64::from_be_bytes(unsafe { self.key_start().cast::<[u8; HEAD_BYTES]>().read() })
    }

    pub(super) fn user_key(self) -> &'a [u8] {
        // SAFETY: `key_len` bytes were written there before the node was shared, and are never written again.
        unsafe { NonNull::slice_from_raw_parts(self.key_start(), self.key_len()).as_ref() }
    }

    pub(super) fn tag(self) -> Tag {
        self.fixed().tag
    }

    pub(super) fn value(self) -> &'a [u8] {
        let value_len = self.fixed().value_len as usize;
        // SAFETY: the value stands behind the key's bytes, which are at least eight; `value_len` bytes were written
        // there before the node was shared, and are never written again.
        unsafe {
            let start = self.key_start().add(self.key_len().max(HEAD_BYTES));
            NonNull::slice_from_raw_parts(start, value_len).as_ref()
        }
    }

    /// Whether this node comes before the border that `target` marks.
    pub(super) fn is_before(self, target: &Target<'_>) -> bool {
        match self
            .head()
            .cmp(&target.head)
            .then_with(|| self.cmp_with_equal_head(target))
        {
            Ordering::Less => true,
            Ordering::Equal => target.is_inclusive,
            Ordering::Greater => false,
        }
    }

    /// Equal heads mean equal bytes as far as both keys go, and zeros from there on in the longer one: what is
    /// behind the head decides, and if that is equal, the length.
    fn cmp_with_equal_head(self, target: &Target<'_>) -> Ordering {
        let (key, other) = (self.user_key(), target.key.user_key);
        let rest = key.get(HEAD_BYTES..).unwrap_or_default();
        let other_rest = other.get(HEAD_BYTES..).unwrap_or_default();
        rest.cmp(other_rest)
            .then_with(|| key.len().cmp(&other.len()))
            .then_with(|| target.key.tag.cmp(&self.tag()))
    }

    /// Whether this is the entry of the target's key and tag.
    pub(super) fn is_at(self, target: &Target<'_>) -> bool {
        self.has_user_key_of(target) && self.tag() == target.key.tag
    }

    /// Whether this is an entry of the target's user key.
    pub(super) fn has_user_key_of(self, target: &Target<'_>) -> bool {
        self.head() == target.head && self.user_key() == target.key.user_key
    }

    /// A node before this one; `None` for the list's start. See [`NodeRef::set_back`].
    pub(super) fn back(self) -> Option<NodeRef<'a>> {
        // SAFETY: `set_back` stores null or the address of a node in the same arena, with release order.
        unsafe { NodeRef::from_ptr(self.fixed().back.load(Memory::Acquire)) }
    }

    /// Remembers a node before this one in the list, `None` for the list's start.
    pub(super) fn set_back(self, back: Option<NodeRef<'a>>) {
        self.fixed()
            .back
            .store(back.map_or(ptr::null_mut(), NodeRef::as_ptr), Memory::Release);
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

    /// The node whose place this is.
    ///
    /// # Safety
    /// The place is not the start of the list.
    pub(super) unsafe fn node(self) -> NodeRef<'a> {
        NodeRef {
            node: self.end.cast(),
            arena: PhantomData,
        }
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
        // SAFETY: from the caller.
        if level == 0 {
            self.ground()
        } else {
            unsafe { &self.upper(level).next }
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

    /// On a level above 0: `Ok` with the next node if that is before `target`, `Err` with it if not. Says `Err` too of
    /// a node before `target` that another thread is only just inserting. `known` is a node that is not before
    /// `target`, which spares a comparison.
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
        match (next, target.head.cmp(&head)) {
            (Some(node), Ordering::Greater) => Ok(node),
            (Some(node), Ordering::Equal) if next != known && node.is_before(target) => Ok(node),
            _ => Err(next),
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
