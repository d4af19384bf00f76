//! How nodes change: under their version's lock, or before anything points at them.

use super::entry::{EntryRef, head_of};
use super::node::{NodeRef, Place};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicPtr, fence};

/// A split computes heads anew, from the entries, where they can skip at least so many bytes more than before.
const PREFIX_GAIN_BYTES_MIN: u8 = 4;

/// A node that only this thread changes, until it is dropped.
pub(super) struct Locked<'a, const N: usize> {
    node: NodeRef<'a, N>,
}

impl<'a, const N: usize> NodeRef<'a, N> {
    /// Locks the node, if it still is as it was when `place` was found.
    pub(super) fn lock(self, place: &Place<'_>) -> Option<Locked<'a, N>> {
        let locked = place.version + 1;
        self.node()
            .version
            .compare_exchange(place.version, locked, Acquire, Relaxed)
            .ok()?;
        // No reader sees what is stored from here on without seeing that the node is locked.
        fence(Release);
        Some(Locked { node: self })
    }

    /// Makes a new node that nothing points at yet the root over two others.
    pub(super) fn make_root(self, left: Self, border: EntryRef<'_>, right: Self) {
        let node = self.node();
        self.children()[0].store(left.as_ptr(), Release);
        self.put_at(1, border, Some(right));
        node.count.store(2, Relaxed);
    }

    /// Makes a new node that nothing points at yet a leaf of one entry.
    pub(super) fn make_leaf(self, entry: EntryRef<'_>) {
        self.put_at(0, entry, None);
        self.node().count.store(1, Relaxed);
    }

    fn put_at(self, at: usize, entry: EntryRef<'_>, child: Option<Self>) {
        let node = self.node();
        let prefix_len = node.prefix_len.load(Relaxed) as usize;
        node.heads[at].store(head_of(entry.user_key(), prefix_len), Relaxed);
        node.entries[at].store(entry.as_ptr(), Release);
        if let Some(child) = child {
            self.children()[at].store(child.as_ptr(), Release);
        }
    }

    /// Takes bytes that all keys in the range share out of the heads, if that makes them much better. The range is that
    /// from the first entry to `high`.
    fn lengthen_prefix(self, high: Option<EntryRef<'_>>) {
        let node = self.node();
        let (Some(high), false) = (high, node.is_leftmost) else {
            return;
        };
        let count = usize::from(node.count.load(Relaxed));
        let (first, last) = (node.heads[0].load(Relaxed), node.heads[count - 1].load(Relaxed));
        if (first ^ last).leading_zeros() < u32::from(8 * PREFIX_GAIN_BYTES_MIN) {
            return; // The keys share less than that: spares touching the fences.
        }
        let low = Self::entry_in(&node.entries[0]).expect("a split leaves no node empty");
        let shared = low
            .user_key()
            .iter()
            .zip(high.user_key())
            .take_while(|(a, b)| a == b)
            .count();
        if shared < node.prefix_len.load(Relaxed) as usize + usize::from(PREFIX_GAIN_BYTES_MIN) {
            return;
        }
        node.prefix_len
            .store(u32::try_from(shared).expect("a key's length fits"), Relaxed);
        for (head, entry) in node.heads[..count].iter().zip(&node.entries) {
            let entry = Self::entry_in(entry).expect("an entry for each that is counted");
            head.store(head_of(entry.user_key(), shared), Relaxed);
        }
    }
}

impl<'a, const N: usize> Locked<'a, N> {
    /// Puts an entry, on a level above 0 with its child, before the one at `position`. There is room.
    pub(super) fn put(&mut self, position: usize, entry: EntryRef<'a>, child: Option<NodeRef<'a, N>>) {
        put(self.node, position, entry, child);
    }

    /// Moves the upper part of the entries to `right`, a new node that nothing points at yet, and puts an entry before
    /// the one that was at `position`. Returns the first entry of `right`.
    pub(super) fn split(
        &mut self,
        right: NodeRef<'a, N>,
        position: usize,
        entry: EntryRef<'a>,
        child: Option<NodeRef<'a, N>>,
    ) -> EntryRef<'a> {
        let (left, from, to) = (self.node, self.node.node(), right.node());
        let high = NodeRef::<N>::entry_in(&from.high);
        let is_run = usize::from(from.last_put.load(Relaxed)) + 1 == N;
        // Where one comes behind the other, the left node is left full.
        let middle = if position == N && (is_run || high.is_none()) {
            N
        } else {
            N.div_ceil(2)
        };
        for (i, at) in (middle..N).enumerate() {
            to.heads[i].store(from.heads[at].load(Relaxed), Relaxed);
            to.entries[i].store(from.entries[at].load(Relaxed), Relaxed);
            if left.level() > 0 {
                right.children()[i].store(left.children()[at].load(Relaxed), Relaxed);
            }
        }
        to.prefix_len.store(from.prefix_len.load(Relaxed), Relaxed);
        to.count.store(narrow(N - middle), Relaxed);
        to.high.store(from.high.load(Relaxed), Relaxed);
        to.next.store(from.next.load(Relaxed), Relaxed);
        from.count.store(narrow(middle), Relaxed);
        if position <= middle && middle < N {
            put(left, position, entry, child);
        } else {
            put(right, position - middle, entry, child);
        }
        let border = NodeRef::<N>::entry_in(&to.entries[0]).expect("a split leaves no node empty");
        right.lengthen_prefix(high);
        left.lengthen_prefix(Some(border));
        from.high.store(border.as_ptr(), Release);
        from.next.store(right.as_ptr(), Release);
        border
    }
}

impl<const N: usize> Drop for Locked<'_, N> {
    fn drop(&mut self) {
        let version = &self.node.node().version;
        version.store(version.load(Relaxed) + 1, Release);
    }
}

fn narrow(count: usize) -> u16 {
    u16::try_from(count).expect("nodes are small")
}

/// Puts an entry into a node that is locked or not yet shared, and has room.
fn put<'a, const N: usize>(
    node: NodeRef<'a, N>,
    position: usize,
    entry: EntryRef<'a>,
    child: Option<NodeRef<'a, N>>,
) {
    fn shift<T>(fields: &[AtomicPtr<T>]) {
        for i in (1..fields.len()).rev() {
            fields[i].store(fields[i - 1].load(Relaxed), Release);
        }
    }
    let fields = node.node();
    let count = usize::from(fields.count.load(Relaxed));
    let heads = &fields.heads[position..=count];
    for i in (1..heads.len()).rev() {
        heads[i].store(heads[i - 1].load(Relaxed), Relaxed);
    }
    shift(&fields.entries[position..=count]);
    if child.is_some() {
        shift(&node.children()[position..=count]);
    }
    node.put_at(position, entry, child);
    fields.last_put.store(narrow(position), Relaxed);
    fields.count.store(narrow(count + 1), Relaxed);
}
