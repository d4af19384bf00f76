//! An open table: point reads, where the mapping put the bytes.

mod block_access;
mod blocks;
mod iter;
mod open;
mod piece;
mod pinned;
mod read_ahead;
mod section;
mod verify;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use siltstone_vfs::{Mapping, Result, prefetch, prefetch_range};

use crate::block::{BlockHeader, RawEntry};
use crate::filter::{Filter, HashIndex, Place, Probe, TypicalBlock, misplaced};
use crate::format::{Section, index as to_index};
use crate::{BlockCache, BlockSlice, Properties, SeqNo, TableId, Tag};

use block_access::Content;
use blocks::Blocks;

pub use iter::TableIter;
pub(crate) use section::SectionBytes;
pub use verify::{BlockKind, BlockLayout, VerifySummary};

/// The reader of one table file. `Send` and `Sync`; reads take no lock, and for an uncompressed block of a mapped table
/// neither allocate nor count references.
///
/// [`open`](Table::open) verifies the checksums of directory, properties, index and filter; a data block's checksum is
/// verified when it is first touched. The mapping's advice and population are the caller's business.
pub struct Table {
    mapping: Mapping,
    id: TableId,
    /// 0 for none.
    written_as: TableId,
    cache: Arc<BlockCache>,
    /// Once the index has been verified: what it leads to, or how it is damaged. To be asked for by way of
    /// [`Table::blocks`].
    blocks: OnceLock<Result<Blocks>>,
    /// Once it has been found sound. To be asked by way of [`Table::filter`].
    filter: OnceLock<Filter>,
    properties: Properties,
    sections: Vec<Section>,
    /// Whether blocks may be compressed: else no trailer is looked at after the first touch.
    compressed: bool,
}

/// Stands in for a filter that has not been verified.
static UNKNOWN: Filter = Filter::Absent;

/// Where a filter leads to: half a point read, from [`Table::lead`] to [`Table::follow`]. Without a place the key is looked for
/// in order.
#[derive(Debug, Default)]
pub struct Lead(Option<(Place, Probe)>);

/// What a point read found.
#[derive(Clone, Debug)]
pub struct TableEntry<'t> {
    /// Seqno and kind.
    pub tag: Tag,
    /// The value; empty for a tombstone.
    pub value: TableValue<'t>,
}

/// A value in place: no byte of it has been copied on the way here, decompression aside.
#[derive(Clone)]
pub enum TableValue<'t> {
    /// In the mapping.
    Mapped(&'t [u8]),
    /// In a decompressed or fetched block, which it keeps alive.
    Block(BlockSlice),
}

impl Deref for TableValue<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            TableValue::Mapped(bytes) => bytes,
            TableValue::Block(slice) => slice,
        }
    }
}

impl fmt::Debug for TableValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl Table {
    /// The newest entry of `user_key` with a seqno of at most `seqno`, be it a value or a tombstone. `hash` is
    /// [`key_hash`](crate::key_hash) of the key; with another hash the answer may be `None`. The filter is asked first, and
    /// where it is a hash index, it leads straight to the entry.
    ///
    /// # Errors
    /// `Corruption` and `Unsupported` about the block that had to be read, and other keys stay readable; `Corruption` about the
    /// index, where this is the first read that needs it; `Io`.
    #[inline]
    pub fn get(&self, user_key: &[u8], hash: u64, seqno: SeqNo) -> Result<Option<TableEntry<'_>>> {
        match self.lead(hash) {
            Some(lead) => {
                self.prefetch_lead(&lead);
                self.follow(&lead, user_key, hash, seqno)
            }
            None => Ok(None),
        }
    }

    /// The first half of a [`get`](Table::get): asks the filter, and if that is a hash index, finds where it leads to, for the
    /// other half, [`follow`](Table::follow). `None` is certain: the table holds no key with this hash. Who reads many keys
    /// asks for what all of them lead to in between ([`prefetch_lead`](Table::prefetch_lead)), and the waits for memory overlap.
    #[inline]
    pub fn lead(&self, hash: u64) -> Option<Lead> {
        match self.filter() {
            Filter::HashIndex(hashed) => {
                let mut probe = hashed.probe(hash);
                let place = hashed.next(&mut probe, &self.mapping)?;
                Some(Lead(Some((place, probe))))
            }
            filter => filter.may_contain(&self.mapping, hash).then_some(Lead(None)),
        }
    }

    /// Starts to load the entry that [`follow`](Table::follow) will look at.
    #[inline]
    pub fn prefetch_lead(&self, lead: &Lead) {
        if let (Lead(Some((place, _))), Filter::HashIndex(hashed), Some(blocks)) =
            (lead, self.filter(), self.loaded_blocks())
        {
            self.prefetch_place(blocks, *place, &hashed.typical);
        }
    }

    /// The second half of a [`get`](Table::get) with the same hash.
    ///
    /// # Errors
    /// As [`get`](Table::get).
    #[inline]
    pub fn follow(
        &self,
        lead: &Lead,
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<TableEntry<'_>>> {
        if let (Some((place, probe)), Filter::HashIndex(hashed)) = (&lead.0, self.filter()) {
            return self.get_by_hash(hashed, *place, probe, user_key, hash, seqno);
        }
        self.get_in_order(user_key, hash, seqno)
    }

    /// The filter, once it is known to be sound.
    #[inline]
    fn filter(&self) -> &Filter {
        self.filter.get().unwrap_or(&UNKNOWN)
    }

    /// Goes to the newest entry of the key at once. Where an older one is wanted, the search starts anew.
    #[inline]
    fn get_by_hash(
        &self,
        hashed: &HashIndex,
        mut place: Place,
        probe: &Probe,
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<TableEntry<'_>>> {
        let mut probe = Cow::Borrowed(probe);
        loop {
            match self.entry_at(place, user_key)? {
                Some(entry) if entry.tag.seqno() <= seqno => return Ok(Some(entry)),
                Some(_) => return self.get_in_order(user_key, hash, seqno),
                None => {}
            }
            match hashed.next(probe.to_mut(), &self.mapping) {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
    }

    /// The entry at `place`, if it is one of `user_key`.
    #[inline]
    fn entry_at(&self, place: Place, user_key: &[u8]) -> Result<Option<TableEntry<'_>>> {
        let blocks = self.blocks()?;
        if place.block() >= blocks.count() {
            return Err(misplaced(&self.mapping, place));
        }
        let content = self.content(blocks, place.block(), true, |_| false)?;
        let bytes = content.bytes();
        let header = BlockHeader::parse(bytes).map_err(|damage| self.damaged_block(place.block(), damage))?;
        if place.entry() >= header.count() {
            return Err(misplaced(&self.mapping, place));
        }
        let found = header
            .entry_of(bytes, place.entry(), user_key)
            .map_err(|damage| self.damaged_block(place.block(), damage))?;
        Ok(found.map(|raw| table_entry(content, &raw)))
    }

    /// Starts to load everything that reading the entry at `place` will touch, if its block looks like most. The header
    /// says where in a block the entry is: without this, its own lines could only be asked for when that has come.
    #[inline]
    fn prefetch_place(&self, blocks: &Blocks, place: Place, typical: &TypicalBlock) {
        let Some(bytes) = self.mapping.bytes() else { return };
        if self.compressed || place.block() >= blocks.count() {
            return;
        }
        let start = to_index(blocks.range_of(&self.mapping, place.block()).0);
        prefetch(bytes, start);
        let (key_stride, value_stride) = (usize::from(typical.key_stride), usize::from(typical.value_stride));
        let key = start + usize::from(typical.keys_start) + place.entry() * key_stride;
        prefetch_range(bytes, key, key_stride, if typical.is_whole() { 5 } else { 2 });
        let value = start + usize::from(typical.values_start) + place.entry() * value_stride;
        prefetch_range(bytes, value, value_stride, 4);
    }

    /// Starts to load what the filter looks at for `hash`, for a [`lead`](Table::lead) that comes later.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        self.filter().prefetch(&self.mapping, hash);
    }

    fn get_in_order(&self, user_key: &[u8], hash: u64, seqno: SeqNo) -> Result<Option<TableEntry<'_>>> {
        let blocks = self.blocks()?;
        let (index, view) = (&blocks.index, blocks.index.view(&self.mapping));
        let mut block = index.find(view, user_key);
        while block < index.count() {
            if let Some(found) = self.get_in_block(blocks, block, user_key, hash, seqno)? {
                return Ok(Some(found));
            }
            // Versions of one key may go on in the next block: then it is the separator.
            if !index.separator_is(view, block, user_key) {
                break;
            }
            block += 1;
        }
        Ok(None)
    }

    #[inline]
    fn get_in_block<'t>(
        &'t self,
        blocks: &Blocks,
        block: usize,
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<TableEntry<'t>>> {
        let content = self.content(blocks, block, true, |_| false)?;
        let bytes = content.bytes();
        let found = BlockHeader::parse(bytes)
            .and_then(|header| header.find(bytes, user_key, hash, seqno))
            .map_err(|damage| self.damaged_block(block, damage))?;
        Ok(found.map(|raw| table_entry(content, &raw)))
    }

    /// Whether a key with this hash may be in the table; `false` is certain.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter().may_contain(&self.mapping, hash)
    }

    /// An iterator over all entries, which keeps the table open.
    pub fn iter(self: &Arc<Self>) -> TableIter {
        TableIter::new(Arc::clone(self))
    }

    /// The name it was opened under.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// The number that its footer says it was written under; `None` where that says none.
    pub fn written_as(&self) -> Option<TableId> {
        (self.written_as.0 != 0).then_some(self.written_as)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }

    /// The file's length.
    pub fn size_bytes(&self) -> u64 {
        self.mapping.len()
    }

    /// Counts and bounds, as the builder wrote them.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The file's mapping, for advice and residency.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Closes the table and hands its mapping over, for retirement.
    pub fn into_mapping(self) -> Mapping {
        self.mapping
    }

    /// Keys that divide the blocks into at most `parts` parts of about as many: each is at least as large as every key of
    /// the part that it ends, and below those of later parts, but for versions of one key in several blocks. Ascending, the
    /// last part's too. Reads the index only.
    ///
    /// # Errors
    /// Those of the index, where no other read has found it sound.
    pub fn dividing_keys(&self, parts: usize) -> Result<Vec<Vec<u8>>> {
        let blocks = self.blocks()?;
        let view = blocks.index.view(&self.mapping);
        let parts = parts.min(blocks.count());
        // A table has less than 2^32 blocks, and no more parts: as u64 nothing overflows.
        let last_of = |part: usize| (part as u64 + 1) * blocks.count() as u64 / parts as u64 - 1;
        Ok((0..parts)
            .map(|part| blocks.index.separator(view, to_index(last_of(part))))
            .collect())
    }

    /// About how many bytes of the file lie before `user_key`: the start of the block that would hold it. Reads the
    /// index only.
    ///
    /// # Errors
    /// Those of the index, where no other read has found it sound.
    pub fn approximate_bytes_before(&self, user_key: &[u8]) -> Result<u64> {
        let blocks = self.blocks()?;
        let block = blocks.index.find(blocks.index.view(&self.mapping), user_key);
        Ok(if block == blocks.count() {
            blocks.range_of(&self.mapping, block - 1).1
        } else {
            blocks.range_of(&self.mapping, block).0
        })
    }
}

/// A decoded entry where it lies.
#[inline]
fn table_entry<'t>(content: Content<'t>, raw: &RawEntry) -> TableEntry<'t> {
    let value = match content {
        Content::Mapped(bytes) => TableValue::Mapped(&bytes[raw.value()]),
        Content::Cached(block) => TableValue::Block(BlockSlice::new(block, raw.value())),
    };
    TableEntry { tag: raw.tag, value }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("id", &self.id)
            .field("path", &self.path())
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
