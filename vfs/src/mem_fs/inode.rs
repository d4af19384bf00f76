//! One file's bytes, and how to undo what has been written since its last sync.

use std::sync::Arc;

/// Identifies a file whatever its names; never used twice within a [`MemFs`](crate::MemFs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InodeId(pub(super) u64);

/// A file: its present bytes and the changes that a crash may undo.
///
/// The present bytes are shared with mappings and with crash clones, and copied before a change where they
/// are. Undo records rather than a second, synced copy keep a sync and an append as cheap as they are on a
/// disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    content: Arc<Vec<u8>>,
    unsynced: Vec<Change>,
    pub(super) names: usize,
    pub(super) handles: usize,
}

/// A change since the last sync. The bytes that a write brought are not kept: undoing the later changes, the
/// last one first, brings them back into the content.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    /// The file's length before.
    previous_len: usize,
    /// What was overwritten or cut off, without the zeros at its end.
    previous: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ChangeKind {
    Write { offset: usize, len: usize },
    Truncate { len: usize },
}

impl Inode {
    /// A synced file of zeros; `None` where there is no memory for it.
    pub(super) fn zeroed(len: u64) -> Option<Self> {
        let len = usize::try_from(len).ok()?;
        let mut content = Vec::new();
        content.try_reserve_exact(len).ok()?;
        content.resize(len, 0);
        Some(Self {
            content: Arc::new(content),
            ..Self::default()
        })
    }

    pub(super) fn content(&self) -> &Arc<Vec<u8>> {
        &self.content
    }

    pub(super) fn unsynced(&self) -> &[Change] {
        &self.unsynced
    }

    pub(super) fn len(&self) -> u64 {
        // usize has at most 64 bits on every platform that Rust supports.
        self.content.len() as u64
    }

    /// Whether it has neither a present name nor anybody who has it open.
    pub(super) fn is_loose(&self) -> bool {
        self.names == 0 && self.handles == 0
    }

    /// A file of these bytes, synced, with as many names.
    pub(super) fn survivor(content: Arc<Vec<u8>>, names: usize) -> Self {
        Self {
            content,
            unsynced: Vec::new(),
            names,
            handles: 0,
        }
    }

    pub(super) fn sync(&mut self) {
        self.unsynced = Vec::new();
    }

    /// Other bytes, durable at once.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.content = Arc::new(bytes);
        self.sync();
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let previous_len = self.content.len();
        let end = offset.saturating_add(bytes.len());
        let overwritten = self
            .content
            .get(offset..end.min(previous_len))
            .unwrap_or_default();
        let previous = without_trailing_zeros(overwritten).to_vec();
        overwrite(Arc::make_mut(&mut self.content), offset, bytes);
        let kind = ChangeKind::Write {
            offset,
            len: bytes.len(),
        };
        self.unsynced.push(Change {
            kind,
            previous_len,
            previous,
        });
    }

    /// Cuts the file to `len` bytes; it is at least that long.
    pub(super) fn truncate(&mut self, len: usize) {
        let previous_len = self.content.len();
        if len >= previous_len {
            return;
        }
        let cut = self.content.get(len..).unwrap_or_default();
        let previous = without_trailing_zeros(cut).to_vec();
        Arc::make_mut(&mut self.content).truncate(len);
        self.unsynced.push(Change {
            kind: ChangeKind::Truncate { len },
            previous_len,
            previous,
        });
    }
}

impl Change {
    /// What it brought, taken from the content right after it.
    pub(super) fn written<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        match self.kind {
            ChangeKind::Write { offset, len } => content.get(offset..offset + len).unwrap_or_default(),
            ChangeKind::Truncate { .. } => &[],
        }
    }

    /// Brings the content back to what it was right before it.
    pub(super) fn undo(&self, content: &mut Vec<u8>) {
        content.resize(self.previous_len, 0);
        let start = match self.kind {
            ChangeKind::Write { offset, len } => {
                let end = (offset + len).min(self.previous_len);
                content.get_mut(offset..end).unwrap_or_default().fill(0);
                offset
            }
            ChangeKind::Truncate { len } => len,
        };
        overwrite(content, start, &self.previous);
    }
}

/// Copies `bytes` to `offset`; what lies between the end and `offset` becomes zeros, as in a file with a
/// hole.
pub(super) fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if offset == content.len() {
        content.extend_from_slice(bytes);
        return;
    }
    let end = offset + bytes.len();
    if end > content.len() {
        content.resize(end, 0);
    }
    if let Some(target) = content.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

fn without_trailing_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}
