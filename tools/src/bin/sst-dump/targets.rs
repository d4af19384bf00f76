//! From the paths of the command line to table files.

use std::io;
use std::path::{Path, PathBuf};

use siltstone_vfs::{Error, Fs, OsFs, Result, TABLE_EXTENSION};

use crate::output::Output;

/// The tables that the paths stand for, in the order given, those of a directory by name. What is wrong with a path is
/// told at once.
pub(crate) fn find(paths: &[PathBuf], output: &mut Output<'_>) -> io::Result<Vec<PathBuf>> {
    let mut tables = Vec::new();
    for path in paths {
        match resolve(path) {
            Ok(found) => {
                if found.is_empty() {
                    output.remark(path, "there are no tables in this directory")?;
                }
                tables.extend(found);
            }
            Err(error) => output.unusable(path, &error)?,
        }
    }
    Ok(tables)
}

fn resolve(path: &Path) -> Result<Vec<PathBuf>> {
    let metadata = path
        .metadata()
        .map_err(|source| Error::io("open", path, source))?;
    if metadata.is_dir() {
        let names = OsFs.list(path)?;
        let inside = names.iter().map(|name| path.join(name));
        return Ok(inside
            .filter(|path| is_table_name(path) && path.is_file())
            .collect());
    }
    // Opening a pipe would wait for its other end.
    if !metadata.is_file() {
        return Err(Error::invalid("neither a file nor a directory").with_path(path));
    }
    if !is_table_name(path) {
        return Err(Error::invalid("not a table by its name")
            .with_path(path)
            .with_advice("give it a name that ends in .sst"));
    }
    Ok(vec![path.to_path_buf()])
}

fn is_table_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(TABLE_EXTENSION))
}
