//! Cold runs: no page of the store's files in the page cache, and little memory to keep any.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use siltstone::vfs::cached_pages;

use crate::engine::Result;

/// What a child process does before it opens the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cold {
    /// The file that lets it into its memory group, if there is one.
    pub(crate) entrance: Option<PathBuf>,
    /// What the group is, or why there is none.
    pub(crate) group: String,
    /// The memory that is left: a limit if there is a group, otherwise only what stores size their caches by.
    pub(crate) memory_bytes: u64,
}

/// Above this share of a store's bytes in memory, a run is not cold.
const RESIDENT_SHARE_MAX: f64 = 0.01;

/// Empties the page cache of the files under `dir` and enters the memory group; with it, the state in words. Fails if
/// the files stay in memory, as on a RAM disk.
pub(crate) fn prepare(cold: &Cold, dir: &Path) -> Result<String> {
    let files = files(dir)?;
    for file in &files {
        // Only clean pages can be dropped.
        file.sync_all()?;
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    let bytes: u64 = files.iter().map(length).sum::<Result<u64>>()?;
    let mut resident = resident_bytes(&files)?;
    if too_many(resident, bytes) {
        // Costs everyone on this machine their cache, so it is the last resort; it takes rights that we may not have.
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
        resident = resident_bytes(&files)?;
    }
    if too_many(resident, bytes) {
        return Err(
            format!("{resident} of {bytes} bytes stay in the page cache: the run would not be cold").into(),
        );
    }
    drop(files);
    if let Some(entrance) = &cold.entrance {
        enter(entrance)?;
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(format!(
        "cold: {:.1} of {:.1} MiB in the page cache before opening; {}",
        mib(resident),
        mib(bytes),
        cold.group
    ))
}

/// Enters the group and looks whether we are in.
fn enter(entrance: &Path) -> Result<()> {
    std::fs::write(entrance, "0")?;
    let inside = std::fs::read_to_string(entrance)?;
    let own = std::process::id().to_string();
    if inside.lines().any(|pid| pid == own) {
        Ok(())
    } else {
        Err(format!("{} did not let this process in", entrance.display()).into())
    }
}

fn too_many(resident: u64, bytes: u64) -> bool {
    resident as f64 > bytes as f64 * RESIDENT_SHARE_MAX
}

/// The regular files under `dir`, open.
fn files(dir: &Path) -> Result<Vec<File>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(File::open(entry.path())?);
        }
    }
    Ok(found)
}

/// Blocks rather than length: LMDB's file is as long as its map.
fn length(file: &File) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.blocks() * 512)
}

fn resident_bytes(files: &[File]) -> Result<u64> {
    const WINDOW_BYTES: u64 = 1 << 30;
    let mut pages = 0;
    for file in files {
        for start in (0..file.metadata()?.len()).step_by(usize::try_from(WINDOW_BYTES)?) {
            let cached = cached_pages(file, start..start + WINDOW_BYTES)?;
            pages += cached.iter().filter(|cached| **cached).count() as u64;
        }
    }
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(dir: &Path) -> Result<String> {
        let cold = Cold {
            entrance: None,
            group: "no group".to_owned(),
            memory_bytes: 1 << 20,
        };
        prepare(&cold, dir)
    }

    #[test]
    fn residency_counts_what_was_just_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("inner/file"), vec![1_u8; 1 << 20]).unwrap();
        let found = files(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(resident_bytes(&found).unwrap(), 1 << 20);
    }

    #[test]
    fn what_cannot_leave_memory_is_not_cold() {
        let file = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::empty()).unwrap();
        let file = File::from(file);
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 1 << 20], 0).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let resident = resident_bytes(&[file]).unwrap();
        assert!(too_many(resident, 1 << 20), "{resident}");
        assert!(!too_many(resident, 1 << 30));
    }

    #[test]
    fn a_group_that_lets_nobody_in_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let refused = enter(&dir.path().join("cgroup.procs")).unwrap_err();
        assert!(refused.to_string().contains("did not let"), "{refused}");
    }

    #[test]
    fn what_was_on_disk_leaves_memory() {
        // A RAM disk under the temporary directory keeps its pages, and then the run must be refused.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![1_u8; 1 << 20]).unwrap();
        match prepared(dir.path()) {
            Ok(state) => {
                assert!(state.contains("cold: 0.0 of 1.0 MiB"), "{state}");
                assert_eq!(resident_bytes(&files(dir.path()).unwrap()).unwrap(), 0);
            }
            Err(error) => assert!(error.to_string().contains("would not be cold"), "{error}"),
        }
    }
}
