//! Verification: reads everything, believes nothing that was remembered.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone_vfs::{Error, Result};

use crate::core::Core;

/// What to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Stop at the first damage instead of listing all of it.
    pub stop_at_first: bool,
}

/// What verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Tables that were read.
    pub tables: usize,
    /// Data blocks whose checksums were computed.
    pub blocks: u64,
    /// Entries that were decoded.
    pub entries: u64,
    /// Bytes of the tables.
    pub bytes: u64,
    /// What is damaged, and how.
    pub damage: Vec<(PathBuf, Error)>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

pub(crate) fn verify(core: &Core, options: &VerifyOptions) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    for tree in core.trees.load().iter() {
        let tables = Arc::clone(&tree.pin().tables);
        if let Err(error) = tables.version.check() {
            report.damage.push((core.dir.clone(), error));
        }
        for handle in tables.handles() {
            core.check_open()?;
            let meta = handle.meta();
            report.tables += 1;
            report.bytes += meta.size_bytes;
            let outcome = handle.table().and_then(|table| table.verify());
            let outcome = outcome.and_then(|found| {
                report.blocks += found.data_blocks;
                report.entries += found.entries;
                if found.entries != meta.entries {
                    let what = format!(
                        "table has {} entries, the manifest says {}",
                        found.entries, meta.entries
                    );
                    return Err(Error::corruption(&core.table_path(meta.id), 0, what));
                }
                Ok(())
            });
            if let Err(error) = outcome {
                report.damage.push((core.table_path(meta.id), error));
                if options.stop_at_first {
                    return Ok(report);
                }
            }
        }
    }
    Ok(report)
}
