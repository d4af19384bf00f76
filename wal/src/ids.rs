//! The two kinds of position in a log: which file, and which record.

use std::fmt;
use std::path::{Path, PathBuf};

/// The number of a segment file. Segments are written in ascending order of their ids; an id is never used twice
/// within a database, but ids may be skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// The position of a record in the life of a log: 1 for the first, one more for each that follows, across segments
/// and across reopening. 0 stands for "no record yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordSeq(pub u64);

impl RecordSeq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for RecordSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The path of a segment: `dir` and the id in at least six digits, `.wal` after it.
pub fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.wal"))
}

/// The id that a file name stands for; `None` where [`segment_path`] would not have given this very name.
pub fn parse_segment_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".wal")?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let id = SegmentId(digits.parse().ok()?);
    (id.to_string() == digits).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_only_canonical_names_parse() {
        for id in [0, 1, 999_999, 1_000_000, u64::MAX] {
            let path = segment_path(Path::new("/db"), SegmentId(id));
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert_eq!(parse_segment_name(name), Some(SegmentId(id)));
        }
        for name in [
            "",
            ".wal",
            "1.wal",
            "0000001.wal",
            "+00001.wal",
            "000001.sst",
            "00000a.wal",
            "000001.wal.tmp",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
        assert_eq!(parse_segment_name("99999999999999999999.wal"), None);
    }
}
