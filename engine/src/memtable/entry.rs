//! One entry of a memtable, laid out in a single allocation: tag, length of the key, length of the value, key, value.
//!
//! An entry is written once, before anything points at it, and never again: slices of key and value can be handed
//! out for as long as the arena lives.
#![allow(unsafe_code)] // Entries have a variable size: their parts are reached by offsets from the entry's address.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use siltstone_sstable::{InternalKey, Tag};

use super::shards::{ENTRY_ALIGN_BYTES, Shards};
use crate::sync::Written;

/// The fixed part of an entry; key and value follow.
#[repr(C)]
pub(super) struct Entry {
    tag: Tag,
    key_len: u32,
    value_len: u32,
    written: Written,
}

const KEY_OFFSET: usize = size_of::<Entry>();
const _: () = assert!(align_of::<Entry>() <= ENTRY_ALIGN_BYTES);

/// The eight bytes of a key behind its first `prefix_len`, filled up with zeros, as a number that orders like them.
/// Among keys that share these first bytes, two different heads order the keys; equal ones leave it to the rest.
pub(super) fn head_of(key: &[u8], prefix_len: usize) -> u64 {
    let rest = key.get(prefix_len..).unwrap_or_default();
    u64::from_be_bytes(match rest.first_chunk() {
        Some(head) => *head,
        None => {
            let mut head = [0; 8];
            head[..rest.len()].copy_from_slice(rest);
            head
        }
    })
}

/// A border in the internal order, between two entries.
#[derive(Clone, Copy)]
pub(super) struct Border<'k> {
    key: InternalKey<'k>,
    /// Whether the border is behind the key itself.
    is_behind: bool,
}

impl<'k> Border<'k> {
    /// The border between the entries before `key` and those at or behind it.
    pub(super) fn before(key: InternalKey<'k>) -> Self {
        Self {
            key,
            is_behind: false,
        }
    }

    /// The border between the entries before or at `key` and those behind it.
    pub(super) fn behind(key: InternalKey<'k>) -> Self {
        Self { key, is_behind: true }
    }

    /// See [`head_of`].
    pub(super) fn head(&self, prefix_len: usize) -> u64 {
        head_of(self.key.user_key, prefix_len)
    }
}

/// A complete entry, in memory that lives at least as long as `'a`.
///
/// Invariant: points at an entry written by [`EntryRef::create`], with the provenance of its whole allocation.
#[derive(Clone, Copy)]
pub(super) struct EntryRef<'a> {
    entry: NonNull<Entry>,
    memory: PhantomData<&'a Shards>,
}

impl<'a> EntryRef<'a> {
    /// Writes an entry that nothing points at yet.
    ///
    /// # Panics
    /// If key or value are longer than 4 GiB.
    pub(super) fn create(memory: &'a Shards, key: InternalKey<'_>, value: &[u8]) -> Self {
        let key_len = u32::try_from(key.user_key.len()).expect("the write path checks key sizes");
        let value_len = u32::try_from(value.len()).expect("the write path checks value sizes");
        let start = memory.allocate(KEY_OFFSET + key.user_key.len() + value.len());
        let entry = start.cast::<Entry>();
        // SAFETY: all writes are within the allocation, whose size is the sum of its parts in this order, and which
        // is ours alone and aligned for `Entry`. Key and value cannot overlap memory that was just handed out.
        unsafe {
            entry.write(Entry {
                tag: key.tag,
                key_len,
                value_len,
                written: Written::default(),
            });
            let key_start = start.add(KEY_OFFSET);
            let value_start = key_start.add(key.user_key.len());
            ptr::copy_nonoverlapping(key.user_key.as_ptr(), key_start.as_ptr(), key.user_key.len());
            ptr::copy_nonoverlapping(value.as_ptr(), value_start.as_ptr(), value.len());
        }
        Self {
            entry,
            memory: PhantomData,
        }
    }

    /// The entry that a node or an iterator holds; `None` for null.
    ///
    /// # Safety
    /// Not null means: it came from [`EntryRef::as_ptr`], by way of a load that synchronises with a store by a thread
    /// that knew the entry (or from the same thread), and the entry's memory lives for `'a`.
    pub(super) unsafe fn from_ptr(entry: *mut Entry) -> Option<Self> {
        NonNull::new(entry).map(|entry| Self {
            entry,
            memory: PhantomData,
        })
    }

    /// The entry's address, to store in a node or an iterator.
    pub(super) fn as_ptr(self) -> *mut Entry {
        self.entry.as_ptr()
    }

    fn fixed(self) -> &'a Entry {
        // SAFETY: by the invariant an `Entry` is there, initialised, and it is never written again.
        let entry = unsafe { self.entry.as_ref() };
        entry.written.check();
        entry
    }

    pub(super) fn tag(self) -> Tag {
        self.fixed().tag
    }

    pub(super) fn user_key(self) -> &'a [u8] {
        // SAFETY: `key_len` bytes were written behind the fixed part, in the same allocation, before the entry was
        // shared, and are never written again.
        unsafe {
            let start = self.entry.cast::<u8>().add(KEY_OFFSET);
            NonNull::slice_from_raw_parts(start, self.fixed().key_len as usize).as_ref()
        }
    }

    pub(super) fn key(self) -> InternalKey<'a> {
        InternalKey::new(self.user_key(), self.tag())
    }

    pub(super) fn value(self) -> &'a [u8] {
        let fixed = self.fixed();
        // SAFETY: `value_len` bytes were written behind the key, in the same allocation, before the entry was shared,
        // and are never written again.
        unsafe {
            let start = self.entry.cast::<u8>().add(KEY_OFFSET + fixed.key_len as usize);
            NonNull::slice_from_raw_parts(start, fixed.value_len as usize).as_ref()
        }
    }

    /// Whether this entry is before `border`.
    pub(super) fn is_before(self, border: &Border<'_>) -> bool {
        match self.key().cmp(&border.key) {
            Ordering::Less => true,
            Ordering::Equal => border.is_behind,
            Ordering::Greater => false,
        }
    }
}
