//! Which seqnos are being read at: compaction keeps what they can see.

use std::collections::BTreeMap;

use siltstone_sstable::SeqNo;

use crate::sync::Mutex;

/// The live snapshots, each seqno with the number of its holders.
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    live: Mutex<BTreeMap<SeqNo, usize>>,
}

impl SnapshotList {
    /// Takes a snapshot at what `visible` says. The seqno is read under the list's lock: a compaction that lists
    /// the snapshots either sees this one, or began when everything it merges was visible to it.
    pub(crate) fn acquire(&self, visible: impl FnOnce() -> SeqNo) -> SeqNo {
        let mut live = self.live.lock();
        let seqno = visible();
        *live.entry(seqno).or_insert(0) += 1;
        seqno
    }

    /// Gives one back.
    pub(crate) fn release(&self, seqno: SeqNo) {
        let mut live = self.live.lock();
        if let Some(holders) = live.get_mut(&seqno) {
            *holders -= 1;
            if *holders == 0 {
                live.remove(&seqno);
            }
        }
    }

    /// All live seqnos, ascending.
    pub(crate) fn list(&self) -> Vec<SeqNo> {
        self.live.lock().keys().copied().collect()
    }

    /// The oldest one.
    pub(crate) fn oldest(&self) -> Option<SeqNo> {
        self.live.lock().keys().next().copied()
    }

    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.live.lock().values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seqno_lives_as_long_as_its_last_holder() {
        let list = SnapshotList::default();
        for seqno in [5, 7, 5] {
            list.acquire(|| SeqNo(seqno));
        }
        list.release(SeqNo(5));
        assert_eq!(list.list(), [SeqNo(5), SeqNo(7)]);
        list.release(SeqNo(5));
        assert_eq!((list.oldest(), list.count()), (Some(SeqNo(7)), 1));
    }
}
