//! The builder's way to the file, and to zstd.

use std::io::Write;
use std::path::{Path, PathBuf};

use siltstone_vfs::{AnonymousMemory, Error, HUGE_PAGE_BYTES, Result, WriteFile};

/// Writes of 2 MiB at multiples of 2 MiB: the page cache then holds the file in huge folios, which makes mapping it
/// ninety times cheaper and reading it a fifth faster.
const CHUNK_BYTES: usize = HUGE_PAGE_BYTES;
/// Tables that stay shorter than this are gathered on the heap.
const SHORT_BYTES: usize = CHUNK_BYTES / 8;

/// Appends in aligned chunks.
pub(crate) struct Output {
    file: Box<dyn WriteFile>,
    /// Bytes that have gone to the file: a multiple of the chunk.
    written: u64,
    buffer: Buffer,
}

/// What has not gone to the file yet: a chunk at the most.
enum Buffer {
    /// Up to [`SHORT_BYTES`].
    Short(Vec<u8>),
    /// Not from the heap: an allocator that is given this much back may keep it, in each thread that writes tables.
    Chunk { memory: AnonymousMemory, len: usize },
}

impl Buffer {
    fn as_slice(&mut self) -> &[u8] {
        match self {
            Buffer::Short(bytes) => bytes,
            Buffer::Chunk { memory, len } => &memory.as_mut_slice()[..*len],
        }
    }

    fn len(&self) -> usize {
        match self {
            Buffer::Short(bytes) => bytes.len(),
            Buffer::Chunk { len, .. } => *len,
        }
    }

    fn clear(&mut self) {
        match self {
            Buffer::Short(bytes) => bytes.clear(),
            Buffer::Chunk { len, .. } => *len = 0,
        }
    }

    /// REQUIRES: not more than a chunk altogether.
    fn extend(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            // miri has no mappings.
            Buffer::Short(before) if before.len() + bytes.len() <= SHORT_BYTES || cfg!(miri) => {
                before.extend_from_slice(bytes);
            }
            Buffer::Short(before) => {
                let mut memory = AnonymousMemory::new(CHUNK_BYTES)?;
                let all = memory.as_mut_slice();
                all[..before.len()].copy_from_slice(before);
                all[before.len()..][..bytes.len()].copy_from_slice(bytes);
                let len = before.len() + bytes.len();
                *self = Buffer::Chunk { memory, len };
            }
            Buffer::Chunk { memory, len } => {
                memory.as_mut_slice()[*len..][..bytes.len()].copy_from_slice(bytes);
                *len += bytes.len();
            }
        }
        Ok(())
    }
}

impl Output {
    pub(crate) fn new(file: Box<dyn WriteFile>) -> Output {
        Output {
            file,
            written: 0,
            buffer: Buffer::Short(Vec::new()),
        }
    }

    /// The length of the file with what is still in the buffer.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.buffer.len() + bytes.len() >= CHUNK_BYTES {
            if self.buffer.len() == 0 {
                // Whole chunks of a large value need no copy.
                let (chunk, rest) = bytes.split_at(CHUNK_BYTES);
                self.file.append(chunk)?;
                bytes = rest;
            } else {
                let (part, rest) = bytes.split_at(CHUNK_BYTES - self.buffer.len());
                self.buffer.extend(part)?;
                self.file.append(self.buffer.as_slice())?;
                self.buffer.clear();
                bytes = rest;
            }
            self.written += CHUNK_BYTES as u64;
        }
        self.buffer.extend(bytes)
    }

    /// Writes the rest and syncs the file.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.buffer.len() > 0 {
            self.file.append(self.buffer.as_slice())?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        self.file.sync()
    }
}

/// Zstd with one reused context.
pub(crate) struct Compressor {
    bulk: zstd::bulk::Compressor<'static>,
    level: i32,
    path: PathBuf,
}

impl Compressor {
    pub(crate) fn new(level: i32, path: &Path) -> Result<Compressor> {
        let bulk = zstd::bulk::Compressor::new(level)
            .map_err(|error| Error::io("set up zstd for table", path, error))?;
        Ok(Compressor {
            bulk,
            level,
            path: path.to_owned(),
        })
    }

    /// Compresses the parts into `out` as one frame that names its content's length. `false` where that saves less than
    /// an eighth: the block is better stored as it is.
    pub(crate) fn compress(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        let raw_len: usize = parts.iter().map(|part| part.len()).sum();
        let failed = |error| Error::io("compress a block of table", &self.path, error);
        if let [part] = parts {
            out.reserve(zstd::zstd_safe::compress_bound(raw_len));
            self.bulk.compress_to_buffer(part, out).map_err(failed)?;
        } else {
            let mut encoder = zstd::stream::Encoder::new(&mut *out, self.level).map_err(failed)?;
            encoder
                .set_pledged_src_size(Some(raw_len as u64))
                .map_err(failed)?;
            encoder.include_contentsize(true).map_err(failed)?;
            for part in parts {
                encoder.write_all(part).map_err(failed)?;
            }
            encoder.finish().map_err(failed)?;
        }
        Ok(out.len() <= raw_len - raw_len / 8)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The lengths of all writes, the bytes, and whether the file was synced after the last one.
    #[derive(Default)]
    struct Seen {
        lens: Vec<usize>,
        bytes: Vec<u8>,
        synced: bool,
    }

    struct Recorder(Arc<Mutex<Seen>>);

    impl WriteFile for Recorder {
        fn append(&mut self, bytes: &[u8]) -> Result<()> {
            let mut seen = self.0.lock().unwrap();
            seen.lens.push(bytes.len());
            seen.bytes.extend_from_slice(bytes);
            seen.synced = false;
            Ok(())
        }

        fn sync(&mut self) -> Result<()> {
            self.0.lock().unwrap().synced = true;
            Ok(())
        }
    }

    #[test]
    fn all_writes_but_the_last_are_whole_aligned_chunks() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut output = Output::new(Box::new(Recorder(Arc::clone(&seen))));
        let mut expected = Vec::new();
        for (round, len) in [
            1,
            4096,
            CHUNK_BYTES - 4097,
            5,
            2 * CHUNK_BYTES,
            0,
            3 * CHUNK_BYTES + 9,
        ]
        .iter()
        .enumerate()
        {
            let part = vec![round.to_le_bytes()[0] + 1; *len];
            output.append(&part).unwrap();
            expected.extend_from_slice(&part);
            assert_eq!(output.offset(), expected.len() as u64);
        }
        output.finish().unwrap();
        let seen = seen.lock().unwrap();
        let (last, whole) = seen.lens.split_last().unwrap();
        assert!(
            whole.iter().all(|&len| len == CHUNK_BYTES) && *last < CHUNK_BYTES,
            "{:?}",
            seen.lens
        );
        assert!(seen.bytes == expected && seen.synced);
    }
}
