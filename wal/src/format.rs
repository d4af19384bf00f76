#![doc = include_str!("../FORMAT.md")]

use siltstone_vfs::{Error, ErrorKind};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{RecordSeq, SegmentId};

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// The first eight bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"SILTWAL\0";
/// The version of the format that this crate writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The size of a segment's header; the first record follows it.
pub const SEGMENT_HEADER_BYTES: u64 = 64;
/// The size of a record's header; its payload follows it.
pub const RECORD_HEADER_BYTES: u64 = 40;
/// Records begin at multiples of this.
pub const RECORD_ALIGNMENT_BYTES: u64 = 8;
/// Capacities are multiples of this.
pub const CAPACITY_UNIT_BYTES: u64 = 4096;
/// The largest payload of a record, 64 KiB short of 2 GiB: a value of 1 GiB with its key and a batch around it fits.
pub const RECORD_BYTES_MAX: usize = (2 << 30) - (64 << 10);

/// Where the fields of a segment header lie.
pub mod segment_header {
    /// [`SEGMENT_MAGIC`](super::SEGMENT_MAGIC), 8 bytes.
    pub const MAGIC: usize = 0;
    /// Format version, `u32`.
    pub const VERSION: usize = 8;
    /// Segment id, `u64`, after 4 zero bytes.
    pub const SEGMENT: usize = 16;
    /// Sequence of the first data record, `u64`.
    pub const FIRST_SEQUENCE: usize = 24;
    /// Capacity of the segment in bytes, `u64`.
    pub const CAPACITY: usize = 32;
    /// Synced watermark, `u64`.
    pub const SYNCED: usize = 40;
    /// First sequence of the segment before, `u64`.
    pub const PREVIOUS_FIRST: usize = 48;
    /// XXH3-64 of all bytes before it, `u64`.
    pub const CHECKSUM: usize = 56;
}

/// Where the fields of a record header lie.
pub mod record_header {
    /// XXH3-64 of the rest of the header and the payload, `u64`.
    pub const CHECKSUM: usize = 0;
    /// Length of the payload, `u32`.
    pub const PAYLOAD_BYTES: usize = 8;
    /// Record type, `u8`, with 3 zero bytes after it.
    pub const TYPE: usize = 12;
    /// Segment id, `u64`.
    pub const SEGMENT: usize = 16;
    /// Sequence, `u64`.
    pub const SEQUENCE: usize = 24;
    /// Synced watermark, `u64`.
    pub const SYNCED: usize = 32;
}

pub(crate) const SEGMENT_HEADER_LEN: usize = 64;
pub(crate) const RECORD_HEADER_LEN: usize = 40;
pub(crate) const RECORD_ALIGNMENT_LEN: usize = 8;

const _: () = {
    assert!(SEGMENT_HEADER_LEN as u64 == SEGMENT_HEADER_BYTES);
    assert!(RECORD_HEADER_LEN as u64 == RECORD_HEADER_BYTES);
    assert!(RECORD_ALIGNMENT_LEN as u64 == RECORD_ALIGNMENT_BYTES);
    assert!(segment_header::MAGIC + SEGMENT_MAGIC.len() == segment_header::VERSION);
    assert!(segment_header::VERSION + 4 + 4 == segment_header::SEGMENT);
    assert!(segment_header::SEGMENT + 8 == segment_header::FIRST_SEQUENCE);
    assert!(segment_header::FIRST_SEQUENCE + 8 == segment_header::CAPACITY);
    assert!(segment_header::CAPACITY + 8 == segment_header::SYNCED);
    assert!(segment_header::SYNCED + 8 == segment_header::PREVIOUS_FIRST);
    assert!(segment_header::PREVIOUS_FIRST + 8 == segment_header::CHECKSUM);
    assert!(segment_header::CHECKSUM + 8 == SEGMENT_HEADER_LEN);
    assert!(record_header::CHECKSUM + 8 == record_header::PAYLOAD_BYTES);
    assert!(record_header::PAYLOAD_BYTES + 4 == record_header::TYPE);
    assert!(record_header::TYPE + 1 + 3 == record_header::SEGMENT);
    assert!(record_header::SEGMENT + 8 == record_header::SEQUENCE);
    assert!(record_header::SEQUENCE + 8 == record_header::SYNCED);
    assert!(record_header::SYNCED + 8 == RECORD_HEADER_LEN);
    assert!(SEGMENT_HEADER_BYTES.is_multiple_of(RECORD_ALIGNMENT_BYTES));
    assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGNMENT_BYTES));
    assert!(CAPACITY_UNIT_BYTES > SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES);
    assert!(RECORD_BYTES_MAX as u64 <= u32::MAX as u64);
    assert!(RECORD_BYTES_MAX > (1 << 30) + (1 << 20));
};

/// What a record is for. Stored as its discriminant: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// A payload of the log's user; takes a sequence of its own.
    Data = 1,
    /// Carries the synced watermark when no data record is there to do it; no payload, and no sequence of its own:
    /// it bears that of the data record to come.
    Watermark = 2,
    /// The last record of a segment: the log goes on in a later one, whose file was durable before this was
    /// written. No payload, and no sequence of its own, as with [`RecordType::Watermark`].
    Seal = 3,
    /// The last record of a segment whose writer left the log: nobody ever writes behind it, and where the log went on,
    /// it did so in a later segment. No payload, and no sequence of its own.
    Close = 4,
}

impl RecordType {
    /// The type that a stored byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Data),
            2 => Some(Self::Watermark),
            3 => Some(Self::Seal),
            4 => Some(Self::Close),
            _ => None,
        }
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's id; must be that of the file's name.
    pub segment: SegmentId,
    /// The sequence of the first data record in it.
    pub first_sequence: RecordSeq,
    /// The size that the file was created with.
    pub capacity_bytes: u64,
    /// Up to where the log was known to be durable when the segment was begun; below `first_sequence`.
    pub synced: RecordSeq,
    /// The first sequence of the segment that this one was rotated from; 0 where the log was opened, or made, with
    /// this one.
    pub previous_first: RecordSeq,
}

/// Why the first bytes of a file are not the header of the expected segment.
#[derive(Clone, Debug)]
pub enum HeaderFault {
    /// All zero: created, never begun; or begun, and lost in a crash.
    Zero,
    /// Something else, described as the rest of a sentence that begins with "its header".
    Invalid(String),
    /// A sound header of another segment: files have been mixed up, for no segment is renamed or reused.
    Foreign {
        /// The segment whose header it is.
        segment: SegmentId,
    },
    /// A sound header of a format that this crate does not know.
    Unsupported {
        /// The format version found.
        version: u32,
    },
}

impl SegmentHeader {
    /// The stored form.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        put(&mut bytes, segment_header::MAGIC, SEGMENT_MAGIC);
        put(&mut bytes, segment_header::VERSION, FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, segment_header::SEGMENT, self.segment.0.to_le_bytes());
        put(
            &mut bytes,
            segment_header::FIRST_SEQUENCE,
            self.first_sequence.0.to_le_bytes(),
        );
        put(
            &mut bytes,
            segment_header::CAPACITY,
            self.capacity_bytes.to_le_bytes(),
        );
        put(&mut bytes, segment_header::SYNCED, self.synced.0.to_le_bytes());
        put(
            &mut bytes,
            segment_header::PREVIOUS_FIRST,
            self.previous_first.0.to_le_bytes(),
        );
        let checksum = xxh3_64(&bytes[..segment_header::CHECKSUM]);
        put(&mut bytes, segment_header::CHECKSUM, checksum.to_le_bytes());
        bytes
    }

    /// Reads the header of the segment `expected`.
    ///
    /// # Errors
    /// A [`HeaderFault`] for anything but a sound header of that segment.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_LEN], expected: SegmentId) -> Result<Self, HeaderFault> {
        let invalid = |what: String| Err(HeaderFault::Invalid(what));
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(HeaderFault::Zero);
        }
        if bytes[..SEGMENT_MAGIC.len()] != SEGMENT_MAGIC {
            return invalid("does not begin with the magic number of a log segment".into());
        }
        let (stored, computed) = (
            u64_at(bytes, segment_header::CHECKSUM),
            xxh3_64(&bytes[..segment_header::CHECKSUM]),
        );
        if stored != computed {
            return invalid(format!(
                "has the checksum {stored:016x}, but its bytes have {computed:016x}"
            ));
        }
        let version = u32_at(bytes, segment_header::VERSION);
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Unsupported { version });
        }
        let header = Self {
            segment: SegmentId(u64_at(bytes, segment_header::SEGMENT)),
            first_sequence: RecordSeq(u64_at(bytes, segment_header::FIRST_SEQUENCE)),
            capacity_bytes: u64_at(bytes, segment_header::CAPACITY),
            synced: RecordSeq(u64_at(bytes, segment_header::SYNCED)),
            previous_first: RecordSeq(u64_at(bytes, segment_header::PREVIOUS_FIRST)),
        };
        if header.segment != expected {
            return Err(HeaderFault::Foreign {
                segment: header.segment,
            });
        }
        if header.synced >= header.first_sequence {
            return invalid(format!(
                "says that record {} is durable before record {} was written",
                header.synced, header.first_sequence
            ));
        }
        if header.previous_first > header.first_sequence {
            return invalid(format!(
                "says that record {} was written before record {}",
                header.previous_first, header.first_sequence
            ));
        }
        Ok(header)
    }
}

/// The header of a record, its checksum aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The length of the payload, at most [`RECORD_BYTES_MAX`].
    pub payload_bytes: u32,
    /// What the record is for.
    pub record_type: RecordType,
    /// The segment it was written to.
    pub segment: SegmentId,
    /// Its own sequence (a data record), or that of the data record to come.
    pub sequence: RecordSeq,
    /// Up to where the log was known to be durable when this was written; below `sequence`.
    pub synced: RecordSeq,
}

impl RecordHeader {
    /// The stored form with a checksum of zero: [`seal_record`] and [`RecordChecksum`] complete it.
    pub(crate) fn encode_unchecked(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        put(
            &mut bytes,
            record_header::PAYLOAD_BYTES,
            self.payload_bytes.to_le_bytes(),
        );
        bytes[record_header::TYPE] = self.record_type as u8;
        put(&mut bytes, record_header::SEGMENT, self.segment.0.to_le_bytes());
        put(&mut bytes, record_header::SEQUENCE, self.sequence.0.to_le_bytes());
        put(&mut bytes, record_header::SYNCED, self.synced.0.to_le_bytes());
        bytes
    }

    /// The stored form of a whole record, without the padding after it.
    pub fn encode_with(&self, payload: &[u8]) -> Vec<u8> {
        let mut record = self.encode_unchecked().to_vec();
        record.extend_from_slice(payload);
        seal_record(&mut record);
        record
    }

    /// Reads a header, without its checksum.
    ///
    /// # Errors
    /// What is impossible about it, as the rest of a sentence that begins with "the record".
    pub fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Result<Self, String> {
        let type_byte = bytes[record_header::TYPE];
        let Some(record_type) = RecordType::from_byte(type_byte) else {
            return Err(format!("has the unknown type {type_byte}"));
        };
        if bytes[record_header::TYPE + 1..record_header::SEGMENT] != [0; 3] {
            return Err("has bytes set that must be zero".into());
        }
        let header = Self {
            payload_bytes: u32_at(bytes, record_header::PAYLOAD_BYTES),
            record_type,
            segment: SegmentId(u64_at(bytes, record_header::SEGMENT)),
            sequence: RecordSeq(u64_at(bytes, record_header::SEQUENCE)),
            synced: RecordSeq(u64_at(bytes, record_header::SYNCED)),
        };
        if usize::try_from(header.payload_bytes).map_or(true, |bytes| bytes > RECORD_BYTES_MAX) {
            return Err(format!(
                "claims {} bytes of payload, above the limit",
                header.payload_bytes
            ));
        }
        if record_type != RecordType::Data && header.payload_bytes != 0 {
            return Err(format!("is of type {record_type:?}, but has a payload"));
        }
        if header.synced >= header.sequence {
            return Err(format!(
                "has the sequence {}, but says that record {} is durable",
                header.sequence, header.synced
            ));
        }
        Ok(header)
    }

    /// What the record takes in its segment, padding included.
    pub fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes)
    }
}

/// What a record with such a payload takes in its segment, padding included.
pub fn record_bytes(payload_bytes: u32) -> u64 {
    RECORD_HEADER_BYTES + u64::from(payload_bytes).next_multiple_of(RECORD_ALIGNMENT_BYTES)
}

/// Whether these bytes are what the unwritten part of a segment has where a record would be: checksum, length and
/// type are zero.
pub fn is_unwritten(header: &[u8; RECORD_HEADER_LEN]) -> bool {
    header[..=record_header::TYPE].iter().all(|&byte| byte == 0)
}

/// Puts the checksum over the rest of `record`, a header and its payload, into its place.
pub(crate) fn seal_record(record: &mut [u8]) {
    let checksum = xxh3_64(&record[record_header::PAYLOAD_BYTES..]);
    put(record, record_header::CHECKSUM, checksum.to_le_bytes());
}

/// The checksum that a record, a header and its payload, carries, and the one it should have.
pub(crate) fn record_checksums(record: &[u8]) -> (u64, u64) {
    (
        u64_at(record, record_header::CHECKSUM),
        xxh3_64(&record[record_header::PAYLOAD_BYTES..]),
    )
}

/// The checksum of a record whose payload comes in pieces.
pub(crate) struct RecordChecksum(Xxh3);

impl RecordChecksum {
    pub(crate) fn new(header: &[u8; RECORD_HEADER_LEN]) -> Self {
        let mut state = Xxh3::new();
        state.update(&header[record_header::PAYLOAD_BYTES..]);
        Self(state)
    }

    pub(crate) fn update(&mut self, payload: &[u8]) {
        self.0.update(payload);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// The version is the one thing about a file that is worth an error of its own kind.
pub(crate) fn unsupported(path: &std::path::Path, version: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "The log segment has format version {version}; this program knows version {FORMAT_VERSION} only"
        ),
    )
    .with_path(path)
    .with_advice("open the database with the program that wrote it, or a newer one")
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// REQUIRES: eight bytes at `at`; every caller has a header of fixed size.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests;
