//! An ordered source in memory.

use std::sync::Arc;

use siltstone_vfs::Result;

use crate::{InternalIterator, InternalKey, Tag};

/// User key, tag and value.
type Entry = (Vec<u8>, Tag, Vec<u8>);

/// Iterates over entries in a vector, which must be in strictly ascending internal order (checked in debug builds).
#[derive(Clone, Debug)]
pub struct VecIterator {
    entries: Arc<Vec<Entry>>,
    /// Past the end where not valid.
    position: usize,
}

impl VecIterator {
    /// An iterator over `entries`: user key, tag, value.
    pub fn new(entries: Arc<Vec<Entry>>) -> Self {
        debug_assert!(
            entries.is_sorted_by(|a, b| InternalKey::new(&a.0, a.1) < InternalKey::new(&b.0, b.1)),
            "a source is in strictly ascending internal order"
        );
        let position = entries.len();
        Self { entries, position }
    }

    fn lower_bound(&self, target: InternalKey<'_>) -> usize {
        self.entries
            .partition_point(|entry| InternalKey::new(&entry.0, entry.1) < target)
    }
}

impl InternalIterator for VecIterator {
    fn seek_to_first(&mut self) -> Result<()> {
        self.position = 0;
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position = self.entries.len().checked_sub(1).unwrap_or(self.entries.len());
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.position = self.lower_bound(target);
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let after = self
            .entries
            .partition_point(|entry| InternalKey::new(&entry.0, entry.1) <= target);
        self.position = after.checked_sub(1).unwrap_or(self.entries.len());
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid(), "next requires a valid iterator");
        self.position += 1;
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid(), "prev requires a valid iterator");
        self.position = self.position.checked_sub(1).unwrap_or(self.entries.len());
        Ok(())
    }

    fn valid(&self) -> bool {
        self.position < self.entries.len()
    }

    fn user_key(&self) -> &[u8] {
        &self.entries[self.position].0
    }

    fn tag(&self) -> Tag {
        self.entries[self.position].1
    }

    fn value(&self) -> &[u8] {
        &self.entries[self.position].2
    }
}
