//! What may lie in the directory of a database that is idle.

use std::path::Path;

use siltstone::Db;
use siltstone::vfs::Fs;

use crate::violation::{Violation, must};

/// Log segments beside those that recovery read: the one being written, and one prepared.
const SEGMENTS_OF_THIS_OPEN_MAX: usize = 2;

/// Checks that the directory holds live files only: one manifest, the live tables, no temporary file. For a database
/// without held cursors and snapshots; does the background work that is due first.
///
/// # Errors
/// A [`Violation`] that lists the directory.
pub fn check_directory(fs: &dyn Fs, dir: &Path, db: &Db) -> Result<(), Violation> {
    must("wait_idle", db.wait_idle())?;
    look(fs, dir, db)
}

fn look(fs: &dyn Fs, dir: &Path, db: &Db) -> Result<(), Violation> {
    let names = must("listing the directory", fs.list(dir))?;
    let metrics = db.metrics();
    let live_tables: usize = metrics.levels.iter().map(|(tables, _)| tables).sum();
    let (mut tables, mut manifests, mut segments) = (0, 0, 0);
    let mut strange = Vec::new();
    for name in &names {
        match name.as_str() {
            "CURRENT" | "LOCK" | "RESERVE" => {}
            name if name.starts_with("MANIFEST-") => manifests += 1,
            name if name.ends_with(".sst") => tables += 1,
            name if name.ends_with(".wal") => segments += 1,
            other => strange.push(other.to_owned()),
        }
    }
    let wrong = |what: String| Err(Violation::new(format!("{what} in the directory: {names:?}")));
    if !strange.is_empty() {
        return wrong(format!("leftovers {strange:?}"));
    }
    if !names.iter().any(|name| name == "CURRENT") || manifests != 1 {
        return wrong(format!("{manifests} manifests, or no CURRENT,"));
    }
    if tables != live_tables {
        return wrong(format!("{tables} tables where {live_tables} are live"));
    }
    // What this open has sealed since is bounded by what it logged.
    let sealed = usize::try_from(metrics.log_bytes / 4096).unwrap_or(usize::MAX);
    if segments > db.recovery().segments + SEGMENTS_OF_THIS_OPEN_MAX + sealed {
        return wrong(format!("{segments} log segments"));
    }
    Ok(())
}
