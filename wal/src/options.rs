//! How a log is written.

use siltstone_vfs::{Error, LogIo, Result};

use crate::format::{CAPACITY_UNIT_BYTES, MIB};

/// How a log is written. Plain data; [`Log::create`](crate::Log::create) rejects what is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The capacity of a segment, rounded up to 4 KiB. A record that is larger gets a segment of its own size.
    ///
    /// Default 64 MiB, minimum 4 KiB, maximum 4 GiB. Larger segments are created (and synced) less often, but hold
    /// their disk space until their last record is obsolete, and the unwritten rest of the last one is read once
    /// when the database is opened after it was not closed.
    pub segment_size_bytes: u64,

    /// How bytes get from our address space into the file. Default [`LogIo::Mapped`], which costs less than a
    /// fifth of a write a record; either way a record survives the death of the process once `append` has returned.
    pub io: LogIo,
}

impl LogOptions {
    /// The smallest segment that can be asked for.
    pub const SEGMENT_SIZE_BYTES_MIN: u64 = CAPACITY_UNIT_BYTES;
    /// The largest segment that can be asked for.
    pub const SEGMENT_SIZE_BYTES_MAX: u64 = 4096 * MIB;

    pub(crate) fn validate(&self) -> Result<()> {
        let range = Self::SEGMENT_SIZE_BYTES_MIN..=Self::SEGMENT_SIZE_BYTES_MAX;
        if range.contains(&self.segment_size_bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a log segment of {} bytes was asked for, but it must have between {} and {}",
            self.segment_size_bytes,
            Self::SEGMENT_SIZE_BYTES_MIN,
            Self::SEGMENT_SIZE_BYTES_MAX
        )))
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_size_bytes: 64 * MIB,
            io: LogIo::default(),
        }
    }
}
