//! Write batches: the payload of one log record, and the only thing that is ever committed.
//!
//! ```text
//! offset  size  field
//! 0       8     seqno of the first operation, little endian; the others follow, one each
//! 8       4     number of operations
//! 12      …     the operations, each: kind (1 byte, as in sstable), keyspace id (varint), key length (varint),
//!               value length (varint, Put only), key, value (Put only)
//! ```

use siltstone_sstable::{SeqNo, ValueKind, check_entry_size};
use siltstone_vfs::{Error, Result};

use crate::keyspace::Keyspace;

/// Bytes before the first operation.
const HEADER_BYTES: usize = 12;

/// The most bytes that one batch may hold. (A record of the log holds a little more.)
pub const BATCH_BYTES_MAX: usize = (1 << 30) + (1 << 29);

/// Names a keyspace within one database; never reused.
pub(crate) type KeyspaceId = u32;

/// The default keyspace.
pub(crate) const DEFAULT_KEYSPACE: KeyspaceId = 0;

/// Operations that are committed together: after a crash all of them are there, or none, in every keyspace.
///
/// Later operations on the same key win. A batch may be written again; it keeps its operations.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// let mut batch = siltstone::WriteBatch::new();
/// batch.put("from", "90").put("to", "110").delete("pending");
/// db.write(batch)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u32,
    keyspaces: Vec<KeyspaceId>,
    /// The database whose keyspaces were named; the default keyspace belongs to any.
    database: Option<u64>,
    /// The first operation that was refused: reported when the batch is written.
    refused: Option<Error>,
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            count: 0,
            keyspaces: Vec::new(),
            database: None,
            refused: None,
        }
    }

    /// Sets `key` to `value` in the default keyspace. A key or value past the limits (64 KiB, 1 GiB) is reported
    /// when the batch is written, and nothing of the batch is then done.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(DEFAULT_KEYSPACE, ValueKind::Put, key.as_ref(), value.as_ref())
    }

    /// Deletes `key` from the default keyspace; a key that is not there is no error.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(DEFAULT_KEYSPACE, ValueKind::Delete, key.as_ref(), &[])
    }

    /// Sets `key` to `value` in `keyspace`.
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::Put, key.as_ref(), value.as_ref())
    }

    /// Deletes `key` from `keyspace`.
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::Delete, key.as_ref(), &[])
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that the batch takes in the log.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        self.keyspaces.clear();
        (self.count, self.database, self.refused) = (0, None, None);
    }

    fn claim(&mut self, keyspace: &Keyspace) {
        let database = keyspace.database();
        if *self.database.get_or_insert(database) != database && self.refused.is_none() {
            self.refused = Some(Error::invalid(
                "a batch names keyspaces of two different databases",
            ));
        }
    }

    pub(crate) fn push(
        &mut self,
        keyspace: KeyspaceId,
        kind: ValueKind,
        key: &[u8],
        value: &[u8],
    ) -> &mut Self {
        if self.refused.is_some() {
            return self;
        }
        if let Err(error) = check_entry_size(key, value) {
            self.refused = Some(error);
            return self;
        }
        // kind, three varints of at most five bytes, the bytes themselves
        if self.count == u32::MAX || self.bytes.len() + 16 + key.len() + value.len() > BATCH_BYTES_MAX {
            self.refused = Some(
                Error::invalid(format!("batch is over the limit of {BATCH_BYTES_MAX} bytes"))
                    .with_advice("write it in parts"),
            );
            return self;
        }
        self.bytes.push(kind as u8);
        put_varint(&mut self.bytes, u64::from(keyspace));
        put_varint(&mut self.bytes, key.len() as u64);
        if kind == ValueKind::Put {
            put_varint(&mut self.bytes, value.len() as u64);
        }
        self.bytes.extend_from_slice(key);
        if kind == ValueKind::Put {
            self.bytes.extend_from_slice(value);
        }
        self.count += 1;
        if self.keyspaces.last() != Some(&keyspace) && !self.keyspaces.contains(&keyspace) {
            self.keyspaces.push(keyspace);
        }
        self
    }

    /// Refuses a batch with a refused operation, or with keyspaces of another database.
    pub(crate) fn check(&self, database: u64) -> Result<()> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        if self.database.is_some_and(|own| own != database) {
            return Err(Error::invalid("the batch names keyspaces of another database"));
        }
        Ok(())
    }

    /// The keyspaces it writes to, each once.
    pub(crate) fn keyspaces(&self) -> &[KeyspaceId] {
        &self.keyspaces
    }

    /// Whether it only deletes (such a batch may go on while the disk is full).
    pub(crate) fn only_deletes(&self) -> bool {
        BatchReader::own(self).all(|op| op.is_ok_and(|op| op.kind == ValueKind::Delete))
    }

    /// Stamps the first seqno and returns the payload for the log.
    pub(crate) fn seal(&mut self, first: SeqNo) -> &[u8] {
        self.bytes[..8].copy_from_slice(&first.0.to_le_bytes());
        self.bytes[8..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        &self.bytes
    }

    /// The operations, as they were sealed.
    pub(crate) fn operations(&self) -> BatchReader<'_> {
        BatchReader::own(self)
    }
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'b> {
    pub(crate) seqno: SeqNo,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) kind: ValueKind,
    pub(crate) key: &'b [u8],
    pub(crate) value: &'b [u8],
}

/// Decodes the payload of a log record. Hostile bytes give an error, never a panic.
#[derive(Clone, Debug)]
pub(crate) struct BatchReader<'b> {
    rest: &'b [u8],
    seqno: SeqNo,
    left: u32,
}

impl<'b> BatchReader<'b> {
    pub(crate) fn new(payload: &'b [u8]) -> Result<Self> {
        let header: &[u8; HEADER_BYTES] = payload
            .first_chunk()
            .ok_or_else(|| damaged(format!("batch of {} bytes has no header", payload.len())))?;
        let mut word = [0; 8];
        word.copy_from_slice(&header[..8]);
        let seqno = SeqNo(u64::from_le_bytes(word));
        let left = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if seqno.0 == 0 || seqno.0 > SeqNo::MAX.0 - u64::from(left) {
            return Err(damaged(format!("batch begins at the impossible seqno {seqno}")));
        }
        Ok(Self {
            rest: &payload[HEADER_BYTES..],
            seqno,
            left,
        })
    }

    fn own(batch: &'b WriteBatch) -> Self {
        let mut word = [0; 8];
        word.copy_from_slice(&batch.bytes[..8]);
        Self {
            rest: &batch.bytes[HEADER_BYTES..],
            seqno: SeqNo(u64::from_le_bytes(word)),
            left: batch.count,
        }
    }

    /// The seqno of the first operation.
    pub(crate) fn first_seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The number of operations.
    pub(crate) fn len(&self) -> u32 {
        self.left
    }

    #[inline]
    fn decode(&mut self) -> Result<Operation<'b>> {
        let (&kind, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| damaged("batch ends early"))?;
        let kind = ValueKind::from_number(kind)?;
        self.rest = rest;
        let keyspace = u32::try_from(self.varint()?).map_err(|_| damaged("keyspace id of over 32 bits"))?;
        let key_len = self.varint()?;
        let value_len = if kind == ValueKind::Put { self.varint()? } else { 0 };
        let key = self.take(key_len)?;
        let value = self.take(value_len)?;
        check_entry_size(key, value)
            .map_err(|error| error.with_kind(siltstone_vfs::ErrorKind::Corruption))?;
        let seqno = self.seqno;
        self.seqno = SeqNo(seqno.0 + 1);
        Ok(Operation {
            seqno,
            keyspace,
            kind,
            key,
            value,
        })
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, rest) = self
                .rest
                .split_first()
                .ok_or_else(|| damaged("batch ends early"))?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("varint of over five bytes in a batch"))
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'b [u8]> {
        match usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
        {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(damaged(format!(
                "batch has {} bytes left where {len} are expected",
                self.rest.len()
            ))),
        }
    }
}

impl<'b> Iterator for BatchReader<'b> {
    type Item = Result<Operation<'b>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(damaged("bytes after the last operation of a batch")));
        }
        self.left -= 1;
        let operation = self.decode();
        if operation.is_err() {
            (self.left, self.rest) = (0, &[]);
        }
        Some(operation)
    }
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(siltstone_vfs::ErrorKind::Corruption, what)
}

#[inline]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put("a", vec![7; 300]).delete("b").put("", "");
        batch.push(300, ValueKind::Put, &[1; 200], b"x");
        batch.seal(SeqNo(41));
        batch
    }

    #[test]
    fn what_is_pushed_is_read_with_rising_seqnos() {
        let batch = sample();
        let ops: Vec<_> = BatchReader::new(&batch.bytes)
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
        assert_eq!(
            ops.iter().map(|op| op.seqno.0).collect::<Vec<_>>(),
            [41, 42, 43, 44]
        );
        assert_eq!((ops[0].key, ops[0].value.len()), (&b"a"[..], 300));
        assert_eq!((ops[1].kind, ops[1].key), (ValueKind::Delete, &b"b"[..]));
        assert_eq!((ops[2].key, ops[2].value), (&b""[..], &b""[..]));
        assert_eq!(
            (ops[3].keyspace, ops[3].key.len(), ops[3].value),
            (300, 200, &b"x"[..])
        );
        assert_eq!(batch.keyspaces(), [0, 300]);
    }

    #[test]
    fn golden_bytes_are_those_of_the_document() {
        let mut batch = WriteBatch::new();
        batch.put("k", "v").push(300, ValueKind::Delete, b"x", &[]);
        let hex: Vec<String> = batch
            .seal(SeqNo(41))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let document = include_str!("../FORMAT.md");
        for part in [&hex[..8], &hex[8..12], &hex[12..18], &hex[18..]] {
            assert!(
                document.contains(&part.join(" ")),
                "FORMAT.md should show {}",
                part.join(" ")
            );
        }
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error_or_another_batch_but_never_a_panic() {
        let bytes = sample().bytes;
        for cut in 0..bytes.len() {
            let outcome = BatchReader::new(&bytes[..cut]).and_then(|ops| ops.collect::<Result<Vec<_>>>());
            assert!(outcome.is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(ops) = BatchReader::new(&flipped) {
                    ops.for_each(drop);
                }
            }
        }
    }

    #[test]
    fn a_refused_operation_refuses_the_batch() {
        let mut batch = WriteBatch::new();
        batch.put("fine", "fine").put(vec![0; (64 << 10) + 1], "");
        assert!(batch.check(1).unwrap_err().to_string().contains("65537"));
        batch.clear();
        batch.put(vec![0; 64 << 10], "");
        batch.check(1).unwrap();
    }
}
