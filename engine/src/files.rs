//! The names of the files of a database. Everything lies in one directory.

use std::path::{Path, PathBuf};

use siltstone_sstable::TableId;
use siltstone_wal::SegmentId;

/// Holds the name of the live manifest; replaced by rename.
pub(crate) const CURRENT: &str = "CURRENT";
/// The next `CURRENT` before its rename.
pub(crate) const CURRENT_TMP: &str = "CURRENT.tmp";
/// The lock file.
pub(crate) const LOCK: &str = "LOCK";
/// Space set aside for a full disk.
pub(crate) const RESERVE: &str = "RESERVE";

/// What a name in the directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Table(TableId),
    Segment(SegmentId),
    Manifest(u64),
    Current,
    CurrentTmp,
    Lock,
    Reserve,
}

impl FileKind {
    /// Classifies a name; `None` for a file that is not ours, which is left alone.
    pub(crate) fn of(name: &str) -> Option<FileKind> {
        match name {
            CURRENT => return Some(FileKind::Current),
            CURRENT_TMP => return Some(FileKind::CurrentTmp),
            LOCK => return Some(FileKind::Lock),
            RESERVE => return Some(FileKind::Reserve),
            _ => {}
        }
        if let Some(segment) = siltstone_wal::parse_segment_name(name) {
            return Some(FileKind::Segment(segment));
        }
        if let Some(number) = name.strip_prefix("MANIFEST-") {
            return Some(FileKind::Manifest(number_of(number)?));
        }
        Some(FileKind::Table(TableId(number_of(name.strip_suffix(".sst")?)?)))
    }
}

/// A number as we print it: six digits or more, no sign, no other spelling of the same number.
fn number_of(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok()?;
    (format!("{number:06}") == text).then_some(number)
}

pub(crate) fn table_path(dir: &Path, id: TableId) -> PathBuf {
    dir.join(format!("{id}.sst"))
}

pub(crate) fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_ours() {
        assert_eq!(FileKind::of("000012.sst"), Some(FileKind::Table(TableId(12))));
        assert_eq!(
            FileKind::of("1234567.sst"),
            Some(FileKind::Table(TableId(1_234_567)))
        );
        assert_eq!(FileKind::of("MANIFEST-000003"), Some(FileKind::Manifest(3)));
        assert_eq!(FileKind::of("CURRENT"), Some(FileKind::Current));
        for foreign in [
            "12.sst",
            "+00012.sst",
            "000012.sst.bak",
            "MANIFEST-3",
            "notes.txt",
            "",
            ".sst",
        ] {
            assert_eq!(FileKind::of(foreign), None, "{foreign}");
        }
    }
}
