//! A private copy of the workspace, in which one file at a time is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::list::Mutation;

/// The copy; removed when it is dropped.
pub(crate) struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    /// Copies every file that git knows of, as it is in the working tree.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn of(workspace: &Path) -> Result<Copy, String> {
        let output = Command::new("git")
            .current_dir(workspace)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|error| format!("git cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "git ls-files: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let copy = Copy { dir };
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (workspace.join(name), copy.root().join(name));
            // One that git knows and somebody has removed.
            if !from.exists() {
                continue;
            }
            let parent = to.parent().unwrap_or(copy.dir.path());
            fs::create_dir_all(parent)
                .and_then(|()| fs::copy(&from, &to))
                .map_err(|error| format!("{name} cannot be copied: {error}"))?;
        }
        Ok(copy)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    /// Where the copy is built.
    pub(crate) fn target_dir(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// Makes the mistake, calls `with`, and unmakes it.
    ///
    /// # Errors
    /// In words, where the text is not there exactly once; what `with` returns.
    pub(crate) fn mutated<R>(
        &self,
        mutation: &Mutation,
        with: impl FnOnce() -> Result<R, String>,
    ) -> Result<R, String> {
        let path = self.root().join(mutation.file);
        let explain = |error: std::io::Error| format!("{}: {error}", mutation.file);
        let sound = fs::read_to_string(&path).map_err(explain)?;
        let times = sound.matches(mutation.before).count();
        if times != 1 {
            return Err(format!(
                "no longer applies: its text is {times} times in {}",
                mutation.file
            ));
        }
        fs::write(&path, sound.replacen(mutation.before, mutation.after, 1)).map_err(explain)?;
        let outcome = with();
        fs::write(&path, sound).map_err(explain)?;
        outcome
    }
}
