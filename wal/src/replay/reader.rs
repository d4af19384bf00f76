//! Positioned reads of a segment through one buffer.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use siltstone_vfs::{Error, Fs, ReadFile, Result};

/// How much is read at a time, once more than a little has been read. Larger records get an allocation of their own for
/// as long as they are looked at.
const BUFFER_BYTES: usize = 1 << 20;

/// How much is read at first: most segments are opened for their header, and then for all there is.
const FIRST_BYTES: usize = 4 << 10;

/// More than any header.
const CHUNK_BYTES_MIN: usize = 64;

/// A segment file that is being read.
pub(crate) struct SegmentReader {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    file_bytes: u64,
    buffer: Vec<u8>,
    /// Where the buffer's content lies in the file.
    buffer_start: u64,
    /// How much is read next; grows to [`BUFFER_BYTES`].
    fetch_bytes: usize,
    /// A record that is larger than the buffer.
    large: Vec<u8>,
}

impl SegmentReader {
    pub(crate) fn open(fs: &dyn Fs, path: PathBuf) -> Result<Self> {
        let file = fs.open(&path)?;
        let file_bytes = file.len()?;
        Ok(Self {
            path,
            file,
            file_bytes,
            buffer: Vec::new(),
            buffer_start: 0,
            fetch_bytes: FIRST_BYTES,
            large: Vec::new(),
        })
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether the file has `count` bytes at `offset`.
    pub(crate) fn holds(&self, offset: u64, count: u64) -> bool {
        offset
            .checked_add(count)
            .is_some_and(|end| end <= self.file_bytes)
    }

    /// The `count` bytes at `offset`.
    ///
    /// REQUIRES: [`holds`](Self::holds), so that what is allocated is bounded by the file's size.
    pub(crate) fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8]> {
        debug_assert!(self.holds(offset, count as u64));
        if count > BUFFER_BYTES {
            let mut large = std::mem::take(&mut self.large);
            self.fill(offset, count, &mut large)?;
            self.large = large;
            return Ok(&self.large);
        }
        self.large = Vec::new();
        if let Some(range) = self.buffered(offset, count) {
            return Ok(&self.buffer[range]);
        }
        let rest = self.file_bytes.saturating_sub(offset);
        let fetch = usize::try_from(rest)
            .map_or(self.fetch_bytes, |rest| rest.min(self.fetch_bytes))
            .max(count);
        self.fetch_bytes = (self.fetch_bytes * 8).min(BUFFER_BYTES);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.fill(offset, fetch, &mut buffer)?;
        self.buffer = buffer;
        self.buffer_start = offset;
        Ok(&self.buffer[..count])
    }

    /// The `N` bytes at `offset`, with the same requirement as [`bytes`](Self::bytes).
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(offset, N)?);
        Ok(array)
    }

    /// What is at hand from `offset` on: up to the file's end, or at least [`CHUNK_BYTES_MIN`].
    ///
    /// REQUIRES: `offset` lies within the file.
    pub(crate) fn chunk(&mut self, offset: u64) -> Result<&[u8]> {
        let rest = self.file_bytes.saturating_sub(offset);
        let required = usize::try_from(rest).map_or(CHUNK_BYTES_MIN, |rest| rest.min(CHUNK_BYTES_MIN));
        self.bytes(offset, required)?;
        let start = usize::try_from(offset.saturating_sub(self.buffer_start)).unwrap_or(usize::MAX);
        Ok(self.buffer.get(start..).unwrap_or_default())
    }

    fn buffered(&self, offset: u64, count: usize) -> Option<Range<usize>> {
        let start = usize::try_from(offset.checked_sub(self.buffer_start)?).ok()?;
        let end = start.checked_add(count)?;
        (end <= self.buffer.len()).then_some(start..end)
    }

    fn fill(&self, offset: u64, count: usize, into: &mut Vec<u8>) -> Result<()> {
        into.try_reserve_exact(count.saturating_sub(into.len()))
            .map_err(|source| {
                Error::new(
                    siltstone_vfs::ErrorKind::Io,
                    format!("No memory to read a log record of {count} bytes"),
                )
                .with_path(&self.path)
                .with_offset(offset)
                .with_source(source)
            })?;
        into.resize(count, 0);
        let read = self.file.read_at(offset, into)?;
        if read < count {
            into.clear();
            return Err(Error::corruption(
                &self.path,
                offset,
                format!(
                    "The log segment became shorter while it was read: {count} bytes were expected, {read} found"
                ),
            ));
        }
        Ok(())
    }
}
