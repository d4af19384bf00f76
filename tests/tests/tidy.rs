//! The invariants of ARCHITECTURE.md that reading the sources can check.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// All files below `dir` with this extension, build output aside.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a readable directory").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                left.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} file below {}", dir.display());
    found.sort();
    found
}

/// The code of a source file: without comments, and without what stands behind `#[cfg(test)]`.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a readable source file");
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = product
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Test modules in files of their own, and examples, are not the product.
fn is_product(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains("/src/")
        && !path.contains("/tests")
        && !path.ends_with("fixture.rs")
        && !path.contains("conformance")
}

fn nowhere(crates: &[&str], words: &[&str]) {
    for name in crates {
        for path in files(&root().join(name), "rs")
            .into_iter()
            .filter(|path| is_product(path))
        {
            let code = code_of(&path);
            for word in words {
                assert!(
                    !code.contains(word),
                    "{} says {word}: see the invariants in ARCHITECTURE.md",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn only_vfs_touches_the_operating_system() {
    nowhere(
        &["wal", "sstable", "compaction", "engine"],
        &["std::fs", "memmap2", "rustix", "File::open"],
    );
}

#[test]
fn compaction_opens_nothing_starts_nothing_and_reads_no_clock() {
    nowhere(
        &["compaction"],
        &["dyn Fs", "std::thread", "Instant", "SystemTime", "dyn Clock"],
    );
}

#[test]
fn sstable_and_wal_start_no_threads_and_sstable_lists_no_directory() {
    nowhere(&["sstable", "wal"], &["thread::spawn", "thread::Builder"]);
    nowhere(&["sstable"], &[".list(", "fs::read_dir"]);
}

#[test]
fn the_engine_takes_its_time_from_the_clock() {
    nowhere(&["engine"], &["Instant::now", "SystemTime", "thread::sleep"]);
}

#[test]
fn ci_runs_what_the_readme_says() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    for command in ["cargo test", "cargo run --release -p geoip"] {
        assert!(
            readme.contains(&format!("\n{command}\n")),
            "README.md does not give `{command}`"
        );
        let words: Vec<&str> = command.split(' ').collect();
        let runs = |line: &str| {
            words
                .iter()
                .all(|word| line.split_whitespace().any(|other| other == *word))
        };
        assert!(ci.lines().any(runs), ".ci/run does not run `{command}`");
    }
}

#[test]
fn documents_are_there_and_the_architecture_is_short() {
    for document in [
        "README.md",
        "CHANGELOG.md",
        "engine/FORMAT.md",
        "wal/FORMAT.md",
        "sstable/FORMAT.md",
    ] {
        assert!(
            fs::metadata(root().join(document)).unwrap().len() > 200,
            "{document} says nothing"
        );
    }
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md"))
        .unwrap()
        .lines()
        .count();
    assert!(
        lines <= 200,
        "ARCHITECTURE.md has {lines} lines, the limit is 200"
    );
}

#[test]
fn the_project_stands_alone() {
    let root = root();
    let mut all = files(&root, "rs");
    all.extend(files(&root, "md"));
    all.extend(files(&root, "toml"));
    // Put together here, so that this file does not find itself.
    let forbidden = [
        ["../sha", "red"].concat(),
        ["/work/", "shared"].concat(),
        ["crates", ".io"].concat(),
    ];
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        for word in &forbidden {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}
