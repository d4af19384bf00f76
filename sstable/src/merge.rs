//! Many ordered sources as one.

use std::cmp::Ordering;

use siltstone_vfs::{Error, ErrorKind, Result};

use crate::index::head;
use crate::{InternalIterator, InternalKey, Tag};

/// Merges ordered sources into one sequence in internal order.
///
/// Where two sources have the same internal key, both entries come out, that of the earlier source first. A source
/// itself must not repeat an internal key. The valid sources form a binary heap whose top is the current one; it keeps
/// the first bytes of each source's key as a number, so that keys are looked at only where these agree. A step costs
/// nothing beyond the source's own while one source is left, one comparison while one source stays ahead, and at most
/// `2 log2(sources)`.
pub struct MergeIterator<I> {
    /// Vectors, although each costs an allocation for a cursor: what lies inline where it is short is looked for at every use.
    sources: Vec<I>,
    /// The valid sources; the first is the current one. Empty where the merge is not valid.
    heap: Vec<Ahead>,
    /// Where in the heap the source is whose entry comes out after those of the current one; `UNKNOWN` where that has to be
    /// found out.
    runner_up: usize,
    direction: Direction,
    /// The current user key while the direction changes, or while its entries are passed over.
    pivot: Vec<u8>,
}

/// A valid source in the heap.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// The first bytes of its user key. Not kept up to date where it is the only one.
    head: u64,
    source: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// No place of a runner-up: the current source is there.
const UNKNOWN: usize = 0;

impl<I: InternalIterator> MergeIterator<I> {
    /// Merges `sources`, wherever they stand: seek first.
    pub fn new(sources: Vec<I>) -> Self {
        Self {
            heap: Vec::with_capacity(sources.len()),
            sources,
            runner_up: UNKNOWN,
            direction: Direction::Forward,
            pivot: Vec::new(),
        }
    }

    /// The index of the source that the current entry comes from. Requires `valid()`.
    pub fn source_index(&self) -> usize {
        self.heap[0].source
    }

    /// The sources, in the order they were given in.
    pub fn into_sources(self) -> Vec<I> {
        self.sources
    }

    /// The source that the current entry comes from.
    #[inline]
    fn current(&self) -> &I {
        &self.sources[self.heap[0].source]
    }

    /// Whether source `a`'s entry comes out before source `b`'s.
    #[inline]
    fn before(&self, a: Ahead, b: Ahead) -> bool {
        before(&self.sources, self.direction, a, b)
    }

    fn sift_down(&mut self, mut at: usize) {
        self.runner_up = UNKNOWN;
        let (sources, heap) = (&*self.sources, &mut *self.heap);
        loop {
            let left = 2 * at + 1;
            if left >= heap.len() {
                return;
            }
            let right = left + 1;
            // No processor foretells which one it is: a sum, not a jump.
            let right_first = right < heap.len() && before(sources, self.direction, heap[right], heap[left]);
            let best = left + usize::from(right_first);
            if !before(sources, self.direction, heap[best], heap[at]) {
                return;
            }
            heap.swap(at, best);
            at = best;
        }
    }

    /// Where in the heap the source is that comes out after the current one. Requires two valid sources.
    #[inline]
    fn runner_up(&mut self) -> usize {
        if self.runner_up == UNKNOWN {
            self.find_runner_up();
        }
        self.runner_up
    }

    #[inline(never)]
    fn find_runner_up(&mut self) {
        let right_is_next = self.heap.len() > 2 && self.before(self.heap[2], self.heap[1]);
        self.runner_up = 1 + usize::from(right_is_next);
    }

    /// Seeks every source with `seek` and builds the heap for `direction`.
    #[inline]
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
        for (index, source) in self.sources.iter().enumerate() {
            if source.valid() {
                self.heap.push(Ahead {
                    head: head(source.user_key()),
                    source: index,
                });
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        self.runner_up = UNKNOWN;
        Ok(())
    }

    /// Turns round on the current entry: every other source moves to its neighbour on the other side of it.
    #[cold]
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.heap[0].source;
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
        result?;
        // Turning does not move. Where it did, a source does not stand where its seek should have put it: it is a table
        // whose entries are not in order, which only reading all of it would have shown before.
        if self.heap[0].source != current {
            self.heap.clear();
            return Err(
                Error::new(ErrorKind::Corruption, "a merged table's entries are not in order")
                    .with_advice("check the tables with sst-dump check"),
            );
        }
        Ok(())
    }

    /// Moves the current source with `step` and restores the heap.
    #[inline]
    fn step(&mut self, step: impl FnOnce(&mut I, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        let current = self.heap[0].source;
        if let Err(error) = step(&mut self.sources[current], &mut self.pivot) {
            self.heap.clear();
            return Err(error);
        }
        self.restore(current);
        Ok(())
    }

    /// Puts the current source, which has moved, where it belongs now.
    #[inline]
    fn restore(&mut self, current: usize) {
        let sources = &*self.sources;
        let source = &sources[current];
        if !source.valid() {
            self.heap.swap_remove(0);
            return self.sift_down(0);
        }
        // A single one has nothing beside it, and no runner-up.
        let heap = &mut *self.heap;
        if heap.len() == 1 {
            return;
        }
        heap[0].head = head(source.user_key());
        let next = self.runner_up();
        let (sources, heap) = (&*self.sources, &mut *self.heap);
        if before(sources, self.direction, heap[next], heap[0]) {
            heap.swap(0, next);
            self.sift_down(next);
        }
    }

    /// Passes the entries of the current user key in all sources but the current one, whose own entry of it comes out
    /// first. Requires two valid sources, forward.
    #[inline(never)]
    fn pass_in_others(&mut self) -> Result<()> {
        loop {
            let next = self.runner_up();
            let (top, other) = (self.heap[0], self.heap[next]);
            if top.head != other.head
                || self.sources[top.source].user_key() != self.sources[other.source].user_key()
            {
                return Ok(());
            }
            let source = &mut self.sources[other.source];
            if let Err(error) = source.next_user_key(&mut self.pivot) {
                self.heap.clear();
                return Err(error);
            }
            if source.valid() {
                self.heap[next].head = head(source.user_key());
                self.sift_down(next);
            } else {
                // What takes its place is after the current one, above it, but perhaps also after those below.
                self.heap.swap_remove(next);
                self.sift_down(next);
                if self.heap.len() == 1 {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the entry of source `a` comes out before that of source `b`.
#[inline]
fn before<I: InternalIterator>(sources: &[I], direction: Direction, a: Ahead, b: Ahead) -> bool {
    let forward = direction == Direction::Forward;
    if a.head != b.head {
        return (a.head < b.head) == forward;
    }
    before_by_key(sources, forward, a.source, b.source)
}

#[inline(never)]
fn before_by_key<I: InternalIterator>(sources: &[I], forward: bool, a: usize, b: usize) -> bool {
    let order = sources[a].key().cmp(&sources[b].key()).then(a.cmp(&b));
    (order == Ordering::Less) == forward
}

impl<I: InternalIterator> InternalIterator for MergeIterator<I> {
    fn seek_to_first(&mut self) -> Result<()> {
        self.restart(Direction::Forward, |_, source| source.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.restart(Direction::Backward, |_, source| source.seek_to_last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.prefetch_seek(target);
        self.restart(Direction::Forward, |_, source| source.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.prefetch_seek(target);
        self.restart(Direction::Backward, |_, source| source.seek_for_prev(target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if self.direction == Direction::Backward {
            self.turn(Direction::Forward)?;
        }
        self.step(|source, _| source.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.direction == Direction::Forward {
            self.turn(Direction::Backward)?;
        }
        self.step(|source, _| source.prev())
    }

    #[inline]
    fn next_user_key(&mut self, _: &mut Vec<u8>) -> Result<()> {
        if self.direction == Direction::Backward {
            self.turn(Direction::Forward)?;
        }
        if self.heap.len() > 1 {
            let next = self.runner_up();
            let heap = &*self.heap;
            if heap[0].head == heap[next].head {
                self.pass_in_others()?;
            }
        }
        self.step(|source, pivot| source.next_user_key(pivot))
    }

    #[inline]
    fn begins_user_key(&self) -> bool {
        // Backwards the other sources stand on their last entries before the current one, the one with the greatest key
        // right below the top.
        let top = self.heap[0];
        let also_has = |other: &Ahead| {
            other.head == top.head && self.sources[other.source].user_key() == self.current().user_key()
        };
        self.direction == Direction::Backward
            && self.current().begins_user_key()
            && !self.heap[1..].iter().take(2).any(also_has)
    }

    #[inline]
    fn prefetch_seek(&self, target: InternalKey<'_>) {
        if self.sources.len() > 1 {
            for source in &self.sources {
                source.prefetch_seek(target);
            }
        }
    }

    #[inline]
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.current().user_key()
    }

    #[inline]
    fn tag(&self) -> Tag {
        self.current().tag()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }
}

impl<I> std::fmt::Debug for MergeIterator<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergeIterator")
            .field("heap", &self.heap)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
