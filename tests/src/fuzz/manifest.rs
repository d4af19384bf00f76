//! A manifest. The input is the file; `CURRENT` is made to fit it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use siltstone_sstable::format::checksum;

use super::database::{DIR, files_of, keyspace_options, open_and_use, put_u64, seal, u32_at};

const HEADER: usize = 32;
const FRAME: usize = 24;
const NUMBER: u64 = 1;

/// The tables of a sound database, for a manifest to name.
static TABLES: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
    files_of(|db| fill(db, 3))
        .into_iter()
        .filter(|(path, _)| is_table(path))
        .collect()
});

fn fill(db: &siltstone::Db, rounds: u32) -> siltstone::Result<()> {
    for round in 0..rounds {
        let other = db.keyspace("other", keyspace_options())?;
        for key in 0..20_u32 {
            db.put(key.to_be_bytes(), format!("{round}"))?;
            other.put((key + round).to_be_bytes(), "there")?;
        }
        db.flush_all()?;
        if round == 1 {
            db.compact::<&[u8]>(..)?;
            db.keyspace("short-lived", keyspace_options())?;
            db.drop_keyspace("short-lived")?;
        }
    }
    Ok(())
}

pub(super) fn run(input: &[u8]) {
    let mut manifest = input.to_vec();
    let beginning = mend(&mut manifest);
    let name = format!("MANIFEST-{NUMBER:06}");
    let line = format!("{name} {beginning} {:016x}", checksum(&manifest[..beginning]));
    let current = format!("{line}\n{:016x}\n", checksum(line.as_bytes()));
    let (dir, tables) = (Path::new(DIR), TABLES.iter());
    let (current_path, manifest_path) = (dir.join("CURRENT"), dir.join(name));
    let files: Vec<(&Path, &[u8])> = [
        (current_path.as_path(), current.as_bytes()),
        (manifest_path.as_path(), &manifest[..]),
    ]
    .into_iter()
    .chain(tables.map(|(path, bytes)| (path.as_path(), &bytes[..])))
    .collect();
    open_and_use(&files);
}

/// Makes the number, and the checksums of the header and of all records that follow each other, valid. Says how long
/// header and first record are.
fn mend(bytes: &mut [u8]) -> usize {
    put_u64(bytes, 16, NUMBER);
    seal(bytes, 0..24, 24);
    let mut beginning = HEADER.min(bytes.len());
    let mut at = HEADER;
    while let Some(payload) = u32_at(bytes, at + 8) {
        let end = at + FRAME + payload;
        let Some(rest) = bytes.get(at + 8..end) else {
            break;
        };
        let covered = [&NUMBER.to_le_bytes()[..], &(at as u64).to_le_bytes(), rest].concat();
        put_u64(bytes, at, checksum(&covered));
        if at == HEADER {
            beginning = end;
        }
        at = end;
    }
    beginning
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let is_manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    let manifests = [0, 1, 3].map(|rounds| {
        let mut files = files_of(|db| fill(db, rounds)).into_iter();
        files
            .find(|(path, _)| is_manifest(path))
            .expect("every database has a manifest")
            .1
    });
    manifests.to_vec()
}

#[cfg(test)]
mod tests {
    use siltstone::RecoveryMode;

    use super::super::database::{open, restore};
    use super::*;

    #[test]
    fn a_seed_is_a_manifest_that_names_the_tables() {
        let mut manifest = seeds().pop().unwrap();
        manifest[24] ^= 1;
        let beginning = mend(&mut manifest);
        let line = format!(
            "MANIFEST-000001 {beginning} {:016x}",
            checksum(&manifest[..beginning])
        );
        let current = format!("{line}\n{:016x}\n", checksum(line.as_bytes()));
        let dir = Path::new(DIR);
        let fs = restore(TABLES.iter().map(|(path, bytes)| (path.as_path(), &bytes[..])));
        fs.write_file(dir.join("CURRENT"), current).unwrap();
        fs.write_file(dir.join("MANIFEST-000001"), manifest).unwrap();
        let db = open(&fs, RecoveryMode::Strict).unwrap();
        assert!(db.recovery().damaged_tables.is_empty() && db.recovery().tables > 1);
        assert_eq!(db.get(7_u32.to_be_bytes()).unwrap().unwrap(), "2");
    }
}
