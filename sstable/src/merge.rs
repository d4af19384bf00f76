//! Many ordered sources as one.

use std::cmp::Ordering;

use siltstone_vfs::Result;

use crate::{InternalIterator, InternalKey, Tag};

/// Merges ordered sources into one sequence in internal order.
///
/// Where two sources have the same internal key, both entries come out, that of the earlier source first. A source
/// itself must not repeat an internal key. The valid sources form a binary heap whose top is the current one: a step
/// costs two comparisons while one source stays ahead, and at most `2 log2(sources)`.
#[derive(Debug)]
pub struct MergeIterator<I> {
    sources: Vec<I>,
    /// Indices of the valid sources; the first is the current one. Empty where the merge is not valid.
    heap: Vec<usize>,
    direction: Direction,
    /// The current user key while the direction changes.
    pivot: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl<I: InternalIterator> MergeIterator<I> {
    /// Merges `sources`, wherever they stand: seek first.
    pub fn new(sources: Vec<I>) -> Self {
        let heap = Vec::with_capacity(sources.len());
        Self {
            sources,
            heap,
            direction: Direction::Forward,
            pivot: Vec::new(),
        }
    }

    /// The index of the source that the current entry comes from. Requires `valid()`.
    pub fn source_index(&self) -> usize {
        self.heap[0]
    }

    /// The sources, in the order they were given in.
    pub fn into_sources(self) -> Vec<I> {
        self.sources
    }

    /// Whether source `a`'s entry comes out before source `b`'s.
    #[inline]
    fn before(&self, a: usize, b: usize) -> bool {
        let order = self.sources[a].key().cmp(&self.sources[b].key()).then(a.cmp(&b));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let mut best = left;
            if right < self.heap.len() && self.before(self.heap[right], self.heap[left]) {
                best = right;
            }
            if !self.before(self.heap[best], self.heap[at]) {
                return;
            }
            self.heap.swap(at, best);
            at = best;
        }
    }

    /// Seeks every source with `seek` and builds the heap for `direction`.
    fn restart(
        &mut self,
        direction: Direction,
        mut seek: impl FnMut(usize, &mut I) -> Result<()>,
    ) -> Result<()> {
        // Not valid unless every source could be positioned.
        self.heap.clear();
        for (index, source) in self.sources.iter_mut().enumerate() {
            seek(index, source)?;
        }
        self.direction = direction;
        self.heap
            .extend((0..self.sources.len()).filter(|&index| self.sources[index].valid()));
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        Ok(())
    }

    /// Turns round on the current entry: every other source moves to its neighbour on the other side of it.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.heap[0];
        let mut pivot = std::mem::take(&mut self.pivot);
        pivot.clear();
        pivot.extend_from_slice(self.sources[current].user_key());
        let tag = self.sources[current].tag();
        let target = InternalKey::new(&pivot, tag);
        let result = self.restart(direction, |index, source| {
            if index == current {
                return Ok(());
            }
            // An equal key of another source lies before the current entry if that source comes first.
            match direction {
                Direction::Forward => {
                    source.seek(target)?;
                    if index < current && source.valid() && source.key() == target {
                        source.next()?;
                    }
                }
                Direction::Backward => {
                    source.seek_for_prev(target)?;
                    if index > current && source.valid() && source.key() == target {
                        source.prev()?;
                    }
                }
            }
            Ok(())
        });
        self.pivot = pivot;
        debug_assert!(
            result.is_err() || self.heap[0] == current,
            "turning does not move"
        );
        result
    }

    /// Moves the current source one step and restores the heap.
    #[inline]
    fn step(&mut self, step: impl FnOnce(&mut I) -> Result<()>) -> Result<()> {
        let current = self.heap[0];
        if let Err(error) = step(&mut self.sources[current]) {
            self.heap.clear();
            return Err(error);
        }
        if !self.sources[current].valid() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }
}

impl<I: InternalIterator> InternalIterator for MergeIterator<I> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.restart(Direction::Forward, |_, source| source.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.restart(Direction::Backward, |_, source| source.seek_to_last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.restart(Direction::Forward, |_, source| source.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.restart(Direction::Backward, |_, source| source.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            self.turn(Direction::Forward)?;
        }
        self.step(I::next)
    }

    fn prev(&mut self) -> Result<()> {
        if self.direction == Direction::Forward {
            self.turn(Direction::Backward)?;
        }
        self.step(I::prev)
    }

    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn user_key(&self) -> &[u8] {
        self.sources[self.heap[0]].user_key()
    }

    fn tag(&self) -> Tag {
        self.sources[self.heap[0]].tag()
    }

    fn value(&self) -> &[u8] {
        self.sources[self.heap[0]].value()
    }
}

#[cfg(test)]
mod tests;
