#![doc = include_str!("../../FORMAT.md")]

use std::path::{Path, PathBuf};

use siltstone_vfs::{Error, ErrorKind, Fs, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::files::{CURRENT, FileKind, manifest_name};

use super::state::{Edit, Snapshot};

/// First bytes of a manifest.
pub(super) const MAGIC: [u8; 8] = *b"SILTMANI";
/// The version that this code writes, and the only one it reads.
pub(super) const VERSION: u32 = 1;
/// Magic, version, zero, file number, checksum.
pub(super) const HEADER_BYTES: usize = 32;
/// Checksum, payload length, record type, three zero bytes, synced offset.
pub(super) const FRAME_BYTES: usize = 24;

const _: () = assert!(HEADER_BYTES == 8 + 4 + 4 + 8 + 8 && FRAME_BYTES == 8 + 4 + 1 + 3 + 8);

/// The type of a manifest record. On disk: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordType {
    /// The whole state; the first record of a file.
    Snapshot = 1,
    /// A step.
    Edit = 2,
    /// Nothing but its synced offset, which covers the edit before it.
    Synced = 3,
}

impl RecordType {
    fn from_number(number: u8) -> Option<RecordType> {
        match number {
            1 => Some(RecordType::Snapshot),
            2 => Some(RecordType::Edit),
            3 => Some(RecordType::Synced),
            _ => None,
        }
    }
}

pub(super) fn header(number: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = xxh3_64(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A record as it stands at `offset` in manifest `number`: its checksum covers both, so that no record is read at
/// another place or in another file than it was written. The file was known to be synced up to `synced`.
pub(super) fn frame(
    number: u64,
    offset: u64,
    synced: u64,
    kind: RecordType,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let len = u32::try_from(payload.len()).map_err(|_| {
        Error::invalid(format!(
            "a manifest record of {} bytes is too long",
            payload.len()
        ))
    })?;
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(&synced.to_le_bytes());
    bytes.extend_from_slice(payload);
    let checksum = checksum(number, offset, &bytes[8..]);
    bytes[..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn checksum(number: u64, offset: u64, rest: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(rest);
    hasher.digest()
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

struct Record<'m> {
    kind: RecordType,
    synced: u64,
    payload: &'m [u8],
}

/// The records of a manifest's bytes.
pub(super) struct Records<'m> {
    number: u64,
    bytes: &'m [u8],
    offset: usize,
}

impl<'m> Records<'m> {
    pub(super) fn new(path: &Path, number: u64, bytes: &'m [u8]) -> Result<Self> {
        let expected = header(number);
        if bytes.len() < HEADER_BYTES || bytes[..HEADER_BYTES] != expected {
            if bytes.len() >= HEADER_BYTES
                && bytes[..8] == MAGIC
                && bytes[8..12] != VERSION.to_le_bytes()
                && word(&bytes[24..]) == xxh3_64(&bytes[..24])
            {
                let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("manifest has format version {version}, this Siltstone reads {VERSION}"),
                )
                .with_path(path)
                .with_advice("open it with the version that wrote it"));
            }
            return Err(Error::corruption(path, 0, "manifest header is damaged")
                .with_advice("restore the file from a backup"));
        }
        Ok(Self {
            number,
            bytes,
            offset: HEADER_BYTES,
        })
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The next record, or `None` where the bytes there are no valid record.
    pub(super) fn next(&mut self) -> Option<(RecordType, &'m [u8])> {
        let record = self.at(self.offset)?;
        self.offset += FRAME_BYTES + record.payload.len();
        Some((record.kind, record.payload))
    }

    fn at(&self, offset: usize) -> Option<Record<'m>> {
        let rest = self.bytes.get(offset..)?;
        let frame = rest.get(..FRAME_BYTES)?;
        let len = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]) as usize;
        let payload = rest.get(FRAME_BYTES..)?.get(..len)?;
        let kind = RecordType::from_number(frame[12])?;
        let sum = checksum(self.number, offset as u64, &rest[8..FRAME_BYTES + len]);
        (sum == word(frame)).then_some(Record {
            kind,
            synced: word(&frame[16..]),
            payload,
        })
    }

    /// Whether a later record says that what is at the present offset was synced: then it is damaged rather than torn.
    /// (That a later record is valid proves nothing by itself. Unsynced bytes survive a crash in any order.)
    pub(super) fn was_synced_here(&self) -> bool {
        (self.offset + 1..self.bytes.len()).any(|offset| {
            // Only frames whose fixed bytes look right are hashed.
            let Some(frame) = self.bytes.get(offset..offset + FRAME_BYTES) else {
                return false;
            };
            frame[13..16] == [0, 0, 0]
                && (1..=3).contains(&frame[12])
                && self
                    .at(offset)
                    .is_some_and(|record| record.synced > self.offset as u64)
        })
    }
}

pub(super) fn decode_snapshot(path: &Path, offset: usize, payload: &[u8]) -> Result<Snapshot> {
    codec::decode(payload).map_err(|error| error.with_path(path).with_offset(offset as u64))
}

pub(super) fn decode_edit(path: &Path, offset: usize, payload: &[u8]) -> Result<Edit> {
    codec::decode(payload).map_err(|error| error.with_path(path).with_offset(offset as u64))
}

/// The content of `CURRENT`.
pub(super) fn encode_current(number: u64, snapshot: &[u8]) -> String {
    let line = format!(
        "{} {} {:016x}",
        manifest_name(number),
        snapshot.len(),
        xxh3_64(snapshot)
    );
    format!("{line}\n{:016x}\n", xxh3_64(line.as_bytes()))
}

/// What `CURRENT` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) number: u64,
    /// Length and checksum of the file's beginning: header and snapshot.
    pub(super) snapshot_bytes: u64,
    pub(super) snapshot_checksum: u64,
}

/// Reads `CURRENT`; `None` where there is none.
///
/// # Errors
/// `Corruption` where it is not as we wrote it.
pub(crate) fn current_of(fs: &dyn Fs, dir: &Path) -> Result<Option<Current>> {
    let path: PathBuf = dir.join(CURRENT);
    if !fs.exists(&path)? {
        return Ok(None);
    }
    let bytes = super::log::read_file(fs, &path, 4096)?;
    let damaged = || {
        Error::corruption(&path, 0, "CURRENT is not as it was written")
            .with_advice("restore it from a backup; the manifest it named is still there")
    };
    let current = parse_current(&bytes).ok_or_else(damaged)?;
    Ok(Some(current))
}

fn parse_current(bytes: &[u8]) -> Option<Current> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (line, checksum) = text.strip_suffix('\n')?.split_once('\n')?;
    if format!("{:016x}", xxh3_64(line.as_bytes())) != checksum {
        return None;
    }
    let mut words = line.split(' ');
    let FileKind::Manifest(number) = FileKind::of(words.next()?)? else {
        return None;
    };
    let snapshot_bytes = words.next()?.parse().ok()?;
    let snapshot_checksum = u64::from_str_radix(words.next()?, 16).ok()?;
    words.next().is_none().then_some(Current {
        number,
        snapshot_bytes,
        snapshot_checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_reads_back_and_any_flip_is_refused() {
        let text = encode_current(7, b"snapshot");
        assert_eq!(parse_current(text.as_bytes()).unwrap().number, 7);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                assert_eq!(parse_current(&flipped), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn golden_bytes_are_those_of_the_document() {
        let document = include_str!("../../FORMAT.md");
        let current = encode_current(7, &header(7));
        assert!(document.contains(&current), "FORMAT.md should show\n{current}");
        let edit = Edit {
            next_table: Some(9),
            dropped: vec![2],
            ..Edit::default()
        };
        let bytes = frame(7, 32, 32, RecordType::Edit, &codec::encode(&edit).unwrap()).unwrap();
        for bytes in [&header(7)[..], &bytes] {
            for line in bytes.chunks(16) {
                let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                assert!(
                    document.contains(&hex.join(" ")),
                    "FORMAT.md should show {}",
                    hex.join(" ")
                );
            }
        }
    }

    #[test]
    fn a_record_is_valid_only_where_it_was_written() {
        let path = Path::new("MANIFEST-000003");
        let mut bytes = header(3).to_vec();
        bytes.extend(frame(3, 32, 0, RecordType::Edit, b"one").unwrap());
        assert!(Records::new(path, 3, &bytes).unwrap().next().is_some());
        bytes.extend(frame(3, 32, 0, RecordType::Edit, b"two").unwrap());
        let mut records = Records::new(path, 3, &bytes).unwrap();
        assert!(records.next().is_some());
        assert!(records.next().is_none(), "a copy at another offset is no record");
        assert!(
            Records::new(path, 4, &bytes).is_err(),
            "nor is a file under another number a manifest"
        );
    }

    /// A regression: an edit that reached the disk although the unsynced record before it did not is no proof of
    /// damage. Only what a record says about syncs is.
    #[test]
    fn a_hole_is_damage_only_below_the_synced_offset() {
        let path = Path::new("MANIFEST-000003");
        let mut bytes = header(3).to_vec();
        let first = frame(3, 32, 32, RecordType::Edit, b"one").unwrap();
        bytes.extend(&first);
        let end = bytes.len() as u64;
        bytes.extend(vec![0; FRAME_BYTES]);
        for (synced, damaged) in [(end, false), (end + 1, true)] {
            let mut bytes = bytes.clone();
            let later = frame(3, bytes.len() as u64, synced, RecordType::Edit, b"two").unwrap();
            bytes.extend(later);
            let mut records = Records::new(path, 3, &bytes).unwrap();
            assert!(records.next().is_some());
            assert!(records.next().is_none());
            assert_eq!(records.was_synced_here(), damaged, "synced up to {synced}");
        }
    }
}
