//! One entry of the skiplist, laid out in a single allocation:
//!
//! ```text
//!   link[height-1] … link[1] │ link[0] │ back  tag  key_len  value_len │ key, zeros up to 8 bytes │ value
//!    next, head      next, head  next   ▲ address of the node
//! ```
//!
//! The key's first eight bytes, its *head*, are compared first, as one big-endian number. Two different heads order
//! their keys; only equal ones need the rest of the key. What stands before the node is its [tower](super::tower).
//!
//! Everything but the tower and `back` is written once, before the node is linked, and never again: slices of key
//! and value can be handed out for as long as the arena lives.
#![allow(unsafe_code)] // Nodes have a variable size: their parts are reached by offsets from the node's address.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering as Memory};

use siltstone_sstable::{InternalKey, Tag};

use super::arena::{ALIGN_BYTES, Arena};
use super::tower::{HEIGHT_MAX, Place, tower_bytes, write_tower};

/// The address of a node, null for none.
pub(super) type Link = AtomicPtr<Node>;

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
const _: () = assert!(align_of::<Node>() <= ALIGN_BYTES);

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

    /// The head of the key.
    pub(super) fn head(&self) -> u64 {
        self.head
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
            write_tower(memory, height);
            let node = memory.add(tower_bytes).cast::<Node>();
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
        Place::of(self)
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

    /// The key's first eight bytes, filled up with zeros, as a number.
    pub(super) fn head(self) -> u64 {
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
