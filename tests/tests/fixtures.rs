//! Databases that earlier versions have written, and what is read from them today.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::vfs::{Fs, ManualClock, MemFs};
use siltstone::{BackgroundMode, Db, Environment, Keyspace, KeyspaceOptions, Options, VerifyOptions};
use siltstone_sstable::format::checksum;
use siltstone_tests::{DEFAULT_KEYSPACE, State};

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

fn versions() -> Vec<PathBuf> {
    let found = folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    assert!(!found.is_empty());
    found
}

/// The names of all files below `dir`, relative to `root`.
fn files(root: &Path, dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(root, &path, names);
        } else {
            names.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn no_fixture_has_been_rewritten() {
    for version in versions() {
        let listed = fs::read_to_string(version.join("CHECKSUMS")).unwrap();
        let mut found = BTreeSet::new();
        files(&version, &version, &mut found);
        assert!(found.remove("CHECKSUMS"));
        for line in listed.lines() {
            let [name, len, sum] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let bytes = fs::read(version.join(name)).unwrap();
            assert_eq!(
                (bytes.len().to_string(), format!("{:016x}", checksum(&bytes))),
                (len.to_owned(), sum.to_owned()),
                "{name} is not as it was written"
            );
            assert!(found.remove(name), "{name} is listed twice");
        }
        assert!(found.is_empty(), "not listed: {found:?}");
    }
}

/// A copy in memory: real syncs would be most of the time.
fn copy(source: &Path) -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("db")).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = Path::new("db").join(path.file_name().unwrap());
        fs.write_file(name, fs::read(&path).unwrap()).unwrap();
    }
    fs
}

fn open(fs: &MemFs, what: &str) -> Db {
    let environment = Environment {
        fs: Arc::new(fs.clone()),
        clock: Arc::new(ManualClock::new()),
        background: BackgroundMode::Manual,
    };
    let options = Options::default()
        .memtable_size_bytes(16 << 10)
        .log_segment_bytes(4 << 10)
        .log_size_max_bytes(64 << 10)
        .reserve_bytes(0)
        .create_if_missing(false);
    options
        .open_with("db", environment)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// Reads everything forwards, then each entry by its key, and everything backwards.
fn read(db: &Db, what: &str) -> State {
    let state = State::read(db, |_| KeyspaceOptions::default()).unwrap();
    for (name, entries) in &state.keyspaces {
        let keyspace = if name == DEFAULT_KEYSPACE {
            Keyspace::clone(db)
        } else {
            db.keyspace(name, KeyspaceOptions::default()).unwrap()
        };
        for (key, value) in entries {
            assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(&value[..]), "{what}");
        }
        let backwards = keyspace.iter().unwrap().rev().map(Result::unwrap);
        assert!(
            backwards.eq(entries
                .iter()
                .rev()
                .map(|(key, value)| (key[..].into(), value[..].into()))),
            "{what}: {name} is another one backwards"
        );
    }
    state
}

#[test]
fn what_earlier_versions_wrote_is_read_written_and_read_again() {
    let mut databases = 0;
    for version in versions() {
        for source in folders(&version) {
            let what = source.display().to_string();
            let expected = fs::read_to_string(source.with_extension("expected")).unwrap();
            let fs = copy(&source);
            let db = open(&fs, &what);
            assert_eq!(db.recovery().dropped_because, None, "{what}");
            assert_eq!(read(&db, &what).describe(), expected, "{what}");
            let report = db.verify(&VerifyOptions::default()).unwrap();
            assert!(report.is_sound(), "{what}: {report:?}");

            db.put("written today", "1").unwrap();
            db.delete("never there").unwrap();
            db.flush_all().unwrap();
            db.compact::<&[u8]>(..).unwrap();
            let mut now = read(&db, &what);
            db.close().unwrap();
            let db = open(&fs, &what);
            assert_eq!(read(&db, &what), now, "{what}");
            let default = now.keyspaces.get_mut(DEFAULT_KEYSPACE).unwrap();
            assert_eq!(
                default.remove(&b"written today"[..]).as_deref(),
                Some(&b"1"[..]),
                "{what}"
            );
            assert_eq!(now.describe(), expected, "{what}");
            databases += 1;
        }
    }
    assert!(databases >= 7, "{databases} databases");
}
