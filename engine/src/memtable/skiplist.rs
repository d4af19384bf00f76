//! A skiplist of nodes in an arena, ordered by internal key, that only ever grows.
//!
//! Level 0 is the list of all nodes; each higher level is a subset of the one below. An insert finds its place on
//! every level and links the node there with one compare-and-swap a level, lowest first: from the first one on, the
//! node is in the list, the others only make it faster to find. Nothing is ever unlinked, so readers need no
//! protection, a link that was read stays good, and a failed compare-and-swap means only that a new neighbour has
//! to be stepped over.
//!
//! Every node also has a `back` link, for walks towards smaller keys. It is a hint: it leads to *some* node before
//! this one, from where the level-0 links lead forward to the exact predecessor. In a list at rest the hint is exact.
#![allow(unsafe_code)] // Follows links of towers whose height only the algorithm knows.

use std::sync::atomic::{AtomicUsize, Ordering};

use siltstone_sstable::{InternalKey, Tag};

use super::arena::Arena;
use super::node::{NodeRef, Target};
use super::tower::{HEIGHT_MAX, Place, StartTower};

/// A node reaches one level higher with a probability of 1 in `2^BITS_PER_LEVEL`.
///
/// One half, where other skiplists take a quarter: a search goes over one node of each level on average instead of
/// three, and has twice the levels. That is less to touch, as the copies of heads in the links spare the search the
/// other thing it would touch on each level, the node that makes it turn down.
const BITS_PER_LEVEL: u32 = 1;

/// The list. Dropping it frees the arena and with it all nodes.
pub(super) struct SkipList {
    /// The links that start each level.
    start: StartTower,
    /// Levels above this have no nodes: where searches begin. A search that reads an old, lower value is slower,
    /// not wrong.
    height: AtomicUsize,
    arena: Arena,
}

impl SkipList {
    pub(super) fn new(arena: Arena) -> Self {
        Self {
            start: StartTower::new(),
            height: AtomicUsize::new(1),
            arena,
        }
    }

    pub(super) fn bytes_used(&self) -> u64 {
        self.arena.bytes_used()
    }

    fn start(&self) -> Place<'_> {
        Place::start(&self.start)
    }

    /// Adds an entry. The caller never adds the same key and tag twice.
    pub(super) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        let height = height_of(key.tag);
        // All that can panic is in here, before the list is touched.
        let node = NodeRef::create(&self.arena, height, key, value);
        if height > self.height.load(Ordering::Relaxed) {
            self.height.fetch_max(height, Ordering::Relaxed);
        }
        let target = Target::before(key);
        let mut places = [self.start(); HEIGHT_MAX];
        self.find(&target, |level, place| places[level] = place);
        for (level, &place) in places.iter().enumerate().take(height) {
            let mut place = place;
            // SAFETY: `node` is higher than `level`; `place` was found on this level and is before `target`, or is the
            // start, and so is what `walk` returns.
            let after = unsafe {
                loop {
                    let (before, after) = walk(place, level, None, &target);
                    node.place().set_next(level, after);
                    if level == 0 {
                        debug_assert!(
                            after.is_none_or(|after| !after.is_at(&target)),
                            "{key:?} is there already"
                        );
                        node.set_back(self.node_at(before));
                    }
                    if before.link_next(level, after, node) {
                        break after;
                    }
                    place = before;
                }
            };
            if level == 0
                && let Some(after) = after
            {
                after.set_back(Some(node));
            }
        }
    }

    /// The last place before `target`, and the node that follows it. Tells `on_level` on every level from where the
    /// search went on: a place that is before `target` there, and in most cases the last one.
    fn find<'a>(
        &'a self,
        target: &Target<'_>,
        mut on_level: impl FnMut(usize, Place<'a>),
    ) -> (Place<'a>, Option<NodeRef<'a>>) {
        let (mut place, mut known) = (self.start(), None);
        for level in (1..self.height.load(Ordering::Relaxed)).rev() {
            loop {
                // SAFETY: `place` is the start, or was reached on this level or a higher one.
                match unsafe { place.next_before(level, target, known) } {
                    Ok(node) => place = node.place(),
                    Err(after) => {
                        known = after;
                        break;
                    }
                }
            }
            on_level(level, place);
        }
        // SAFETY: every tower has level 0; `place` is the start, or a node that is before `target`.
        let (before, after) = unsafe { walk(place, 0, known, target) };
        on_level(0, before);
        (before, after)
    }

    /// The node at a place; `None` at the start.
    fn node_at<'a>(&'a self, place: Place<'a>) -> Option<NodeRef<'a>> {
        // SAFETY: it is not the start.
        (place != self.start()).then(|| unsafe { place.node() })
    }

    pub(super) fn first(&self) -> Option<NodeRef<'_>> {
        self.start().next()
    }

    pub(super) fn last(&self) -> Option<NodeRef<'_>> {
        let mut place = self.start();
        for level in (0..self.height.load(Ordering::Relaxed)).rev() {
            // SAFETY: `place` is the start, or was reached on this level or a higher one.
            while let Some(node) = unsafe { place.next_on(level) } {
                place = node.place();
            }
        }
        self.node_at(place)
    }

    /// The node after the border that `target` marks.
    pub(super) fn after(&self, target: &Target<'_>) -> Option<NodeRef<'_>> {
        self.find(target, |_, _| ()).1
    }

    /// The node before the border that `target` marks.
    pub(super) fn before(&self, target: &Target<'_>) -> Option<NodeRef<'_>> {
        self.node_at(self.find(target, |_, _| ()).0)
    }

    /// The node after one of this list.
    pub(super) fn next<'a>(&'a self, node: NodeRef<'a>) -> Option<NodeRef<'a>> {
        node.place().next()
    }

    /// The node before one of this list.
    pub(super) fn prev<'a>(&'a self, node: NodeRef<'a>) -> Option<NodeRef<'a>> {
        // `back` is before `node`, and links are only ever split by nodes between their ends: the walk from there
        // along level 0 meets `node`.
        let hint = node.back();
        let mut found = hint;
        loop {
            let next = match found {
                Some(found) => self.next(found),
                None => self.first(),
            };
            if next == Some(node) {
                break;
            }
            debug_assert!(next.is_some(), "a node is behind its back link");
            found = next;
        }
        if found != hint {
            // Two inserts stored their hints in the wrong order: the next walk shall not pay for it again.
            node.set_back(found);
        }
        found
    }
}

/// Walks on one level from `place` to the last place before `target`; returns it and the node that follows.
/// `known` is a node that is not before `target`, which spares a comparison.
///
/// # Safety
/// `place` is before `target`, and has a link of this level.
unsafe fn walk<'a>(
    mut place: Place<'a>,
    level: usize,
    known: Option<NodeRef<'a>>,
    target: &Target<'_>,
) -> (Place<'a>, Option<NodeRef<'a>>) {
    loop {
        // SAFETY: `place` has a link of this level: by the caller, or because it was reached over one.
        let next = unsafe { place.next_on(level) };
        match next {
            Some(node) if next != known && node.is_before(target) => place = node.place(),
            _ => return (place, next),
        }
    }
}

/// How many levels an entry is linked on: a fixed function of its tag, which is unique. It needs no state, shared
/// or of the thread, and the same writes make the same list every time.
fn height_of(tag: Tag) -> usize {
    // The finalizer of splitmix64: every bit of the tag moves every bit of the result.
    let mut bits = tag.bits().wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (1 + (bits.trailing_zeros() / BITS_PER_LEVEL) as usize).min(HEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use siltstone_sstable::{SeqNo, ValueKind};

    use super::*;

    #[test]
    fn half_of_the_nodes_reaches_each_next_level() {
        let mut counts = [0_u32; HEIGHT_MAX + 1];
        for seqno in 0..1 << 16 {
            counts[height_of(Tag::new(SeqNo(seqno), ValueKind::Put))] += 1;
        }
        assert_eq!(counts[0], 0);
        for height in 1..6 {
            let at_least: u32 = counts[height..].iter().sum();
            let higher: u32 = counts[height + 1..].iter().sum();
            let share = f64::from(higher) / f64::from(at_least);
            assert!(
                (0.45..0.55).contains(&share),
                "{share} of the nodes of height {height} go on"
            );
        }
    }

    fn list_of(seqnos: impl Iterator<Item = u64>) -> SkipList {
        let list = SkipList::new(Arena::new(64 << 10));
        for seqno in seqnos {
            list.insert(
                InternalKey::new(&seqno.to_be_bytes(), Tag::new(SeqNo(seqno), ValueKind::Put)),
                b"",
            );
        }
        list
    }

    fn nodes(list: &SkipList) -> Vec<NodeRef<'_>> {
        std::iter::successors(list.first(), |&node| list.next(node)).collect()
    }

    #[test]
    fn back_links_are_exact_in_a_list_at_rest() {
        let list = list_of((0..97).map(|i| 1 + i * 36 % 97));
        let mut before = None;
        for node in nodes(&list) {
            assert!(node.back() == before);
            before = Some(node);
        }
    }

    #[test]
    fn prev_is_exact_from_any_back_link_before_the_node_and_repairs_it() {
        let list = list_of(1..30);
        let nodes = nodes(&list);
        for (i, &node) in nodes.iter().enumerate().skip(1) {
            for hint in [None, Some(nodes[0]), Some(nodes[i / 2]), Some(nodes[i - 1])] {
                node.set_back(hint.filter(|&hint| hint != node));
                assert!(list.prev(node) == Some(nodes[i - 1]));
                assert!(node.back() == Some(nodes[i - 1]));
            }
        }
        assert!(list.prev(nodes[0]).is_none());
    }
}
