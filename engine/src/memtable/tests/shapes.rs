//! The shape of the tree: what its nodes have to look like at rest, and how full different orders of inserts leave them.

use super::*;
use crate::memtable::node::NodeRef;

/// Checks every node of a tree at rest.
pub(super) fn check<const N: usize>(memtable: &Memtable<N>) {
    let mut level = memtable.tree.root();
    let mut above: Option<Vec<_>> = None;
    while let Some(first) = level {
        let nodes: Vec<_> = std::iter::successors(Some(first), |node| node.contents().next).collect();
        if let Some(above) = above {
            assert!(
                above == nodes,
                "a level's nodes are the children of the one above"
            );
        } else {
            assert_eq!(nodes.len(), 1, "the root has no neighbour");
        }
        let mut last = None;
        for (i, node) in nodes.iter().enumerate() {
            let contents = node.contents();
            assert!((1..=N).contains(&contents.entries.len()));
            for (&(head, entry), at) in contents.entries.iter().zip(0..) {
                let Some(entry) = entry else {
                    assert!(
                        i == 0 && at == 0 && node.level() > 0,
                        "the border before all entries is at the start"
                    );
                    continue;
                };
                assert_eq!(head, entry::head_of(entry.user_key(), contents.prefix_len));
                assert!(
                    last.is_none_or(|last| last < entry.key()),
                    "{:?} after {last:?}",
                    entry.key()
                );
                last = Some(entry.key());
            }
            assert_eq!(
                contents.high.map(EntryRef::key),
                nodes
                    .get(i + 1)
                    .map(|next| next.contents().entries[0].1.expect("not at the start").key())
            );
            let low = contents.entries[0].1.filter(|_| i > 0).map(EntryRef::user_key);
            let high = contents.high.map(EntryRef::user_key);
            let (low, high) = (low.unwrap_or(b""), high.unwrap_or(b""));
            let shared = low.iter().zip(high).take_while(|(a, b)| a == b).count();
            assert!(
                contents.prefix_len <= shared,
                "the fences do not share {}",
                contents.prefix_len
            );
        }
        let children: Vec<_> = nodes.iter().flat_map(|node| node.contents().children).collect();
        level = children.first().copied();
        above = Some(children);
    }
}

fn leaves<const N: usize>(memtable: &Memtable<N>) -> Vec<NodeRef<'_, N>> {
    let first = memtable
        .tree
        .leaf(&Border::before(InternalKey::new(b"", Tag::FIRST)))
        .map(|(leaf, _)| leaf);
    std::iter::successors(first, |leaf| leaf.contents().next).collect()
}

/// All orders of `0..count`.
fn permutations(count: u8) -> Vec<Vec<u8>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let insert_last = |order: Vec<u8>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    permutations(last).into_iter().flat_map(insert_last).collect()
}

/// Seven entries make up to three levels of nodes of three: every way to split two levels is among them.
#[test]
fn every_order_of_inserts_makes_a_sound_tree() {
    for order in permutations(if cfg!(miri) { 4 } else { 7 }) {
        let memtable = new::<3>();
        for &key in &order {
            memtable.insert(InternalKey::new(&[key], put(1 + u64::from(key))), &[key]);
            check(&memtable);
        }
        let mut iter = memtable.iter();
        iter.seek_to_first().unwrap();
        for key in 0..u8::try_from(order.len()).unwrap() {
            assert_eq!(iter.user_key(), [key], "{order:?}");
            assert_eq!(
                memtable.look_up(&[key], SeqNo::MAX),
                Some((put(1 + u64::from(key)), &[key][..]))
            );
            iter.next().unwrap();
        }
        assert!(!iter.valid());
    }
}

#[test]
fn runs_leave_full_leaves_behind() {
    let count = rounds(2000, 40) as u64;
    let memtable = new::<SMALL>();
    // A run at the end, and then one between two entries.
    for i in 0..count {
        memtable.insert(InternalKey::new(&(i << 32).to_be_bytes(), put(1 + i)), b"");
    }
    for i in 1..count {
        memtable.insert(
            InternalKey::new(&((7 << 32) + i).to_be_bytes(), put(count + 1 + i)),
            b"",
        );
    }
    check(&memtable);
    let leaves = leaves(&memtable);
    let full = leaves
        .iter()
        .filter(|leaf| leaf.contents().entries.len() == SMALL)
        .count();
    assert!(
        full + 4 >= leaves.len(),
        "{full} of {} leaves are full",
        leaves.len()
    );
}

#[test]
fn heads_skip_what_the_keys_of_a_leaf_share() {
    let count = rounds(3000, 60) as u64;
    for step in [1, 7919] {
        let memtable = new::<SMALL>();
        for i in 0..count {
            let key = format!("a prefix that all keys share {:05}", i * step % count);
            memtable.insert(InternalKey::new(key.as_bytes(), put(1 + i)), b"");
        }
        check(&memtable);
        let leaves = leaves(&memtable);
        // Those at the ends have only one fence.
        for leaf in &leaves[1..leaves.len() - 1] {
            assert!(
                leaf.contents().prefix_len >= 29,
                "only {} bytes",
                leaf.contents().prefix_len
            );
        }
    }
}
