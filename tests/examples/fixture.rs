//! Writes the fixtures of a format version: small databases, what they hold, and the checksums of all files.
//!
//! ```console
//! cargo run -p siltstone-tests --example fixture -- v1
//! ```
//!
//! Refuses a version that is there: fixtures are written once, by the program of their time, and stay.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use siltstone::{
    BackgroundMode, Compression, Db, Environment, FilterKind, Keyspace, KeyspaceOptions, Options, WriteBatch,
};
use siltstone_sstable::format::checksum;
use siltstone_tests::{DEFAULT_KEYSPACE, State};

/// Keyspace, key, and the value to put, or none to delete the key.
type Write<'w> = (&'w str, Vec<u8>, Option<Vec<u8>>);

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let version = env::args().nth(1).ok_or("usage: fixture VERSION")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(&version);
    if root.exists() {
        return Err(format!("{} is there: fixtures are never rewritten", root.display()).into());
    }
    let zstd = Compression::Zstd { level: 3 };
    write(
        &root,
        "plain",
        Compression::None,
        FilterKind::HashIndex,
        levels,
        true,
    )?;
    write(
        &root,
        "compressed",
        zstd,
        FilterKind::Blocked { bits_per_key: 10 },
        levels,
        true,
    )?;
    write(
        &root,
        "defaults",
        Compression::None,
        FilterKind::Auto,
        levels,
        false,
    )?;
    write(
        &root,
        "filters",
        Compression::None,
        FilterKind::None,
        filters,
        true,
    )?;
    write(
        &root,
        "log-only",
        Compression::None,
        FilterKind::Auto,
        log_only,
        false,
    )?;
    write(
        &root,
        "tombstones",
        zstd,
        FilterKind::HashIndex,
        tombstones,
        false,
    )?;
    write(
        &root,
        "snapshots",
        Compression::None,
        FilterKind::Standard { bits_per_key: 8 },
        snapshots,
        false,
    )?;
    write_checksums(&root)?;
    Ok(())
}

fn write(
    root: &Path,
    name: &str,
    compression: Compression,
    filter: FilterKind,
    fill: fn(&mut Writer) -> Outcome,
    close: bool,
) -> Outcome {
    let dir = root.join(name);
    fs::create_dir_all(&dir)?;
    let environment = Environment {
        background: BackgroundMode::Manual,
        ..Environment::default()
    };
    let options = Options::default()
        .memtable_size_bytes(16 << 10)
        .target_table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
        .log_segment_bytes(4 << 10)
        .log_size_max_bytes(64 << 10)
        .block_size_bytes(1 << 10)
        .l0_compaction_trigger(3)
        .compression(compression)
        .filter(filter)
        .reserve_bytes(0);
    let db = options.open_with(&dir, environment)?;
    let default = [(DEFAULT_KEYSPACE.to_owned(), BTreeMap::new())];
    let mut writer = Writer {
        db,
        keyspaces: BTreeMap::new(),
        state: State {
            keyspaces: default.into(),
        },
    };
    fill(&mut writer)?;
    let Writer { db, keyspaces, state } = writer;
    drop(keyspaces);
    if close {
        db.close()?;
    } else {
        db.sync()?;
        drop(db);
    }
    // It names the process that held it.
    fs::remove_file(dir.join("LOCK"))?;
    fs::write(root.join(format!("{name}.expected")), state.describe())?;
    Ok(())
}

/// A database, and what has been written to it.
struct Writer {
    db: Db,
    keyspaces: BTreeMap<String, Keyspace>,
    state: State,
}

impl Writer {
    fn keyspace(&mut self, name: &str, filter: FilterKind) -> Outcome {
        let options = KeyspaceOptions::default()
            .memtable_size_bytes(16 << 10)
            .block_size_bytes(777)
            .filter(filter);
        let keyspace = self.db.keyspace(name, options)?;
        self.keyspaces.insert(name.to_owned(), keyspace);
        self.state.keyspaces.insert(name.to_owned(), BTreeMap::new());
        Ok(())
    }

    /// One batch of puts (`Some`) and deletes.
    fn commit(&mut self, writes: &[Write<'_>]) -> Outcome {
        let mut batch = WriteBatch::new();
        for (name, key, value) in writes {
            match (self.keyspaces.get(*name), value) {
                (None, Some(value)) => batch.put(key, value),
                (None, None) => batch.delete(key),
                (Some(keyspace), Some(value)) => batch.put_in(keyspace, key, value),
                (Some(keyspace), None) => batch.delete_in(keyspace, key),
            };
            let entries = self.state.keyspaces.get_mut(*name).ok_or("no such keyspace")?;
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        self.db.write(batch)?;
        Ok(())
    }

    fn settle(&self) -> Outcome {
        self.db.flush_all()?;
        self.db.wait_idle()?;
        Ok(())
    }
}

fn key(n: u32) -> Vec<u8> {
    format!("user/{n:06}/name").into_bytes()
}

fn value(n: u32, len: usize) -> Vec<u8> {
    format!("{n}:")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(len)
        .collect()
}

/// Keys and values of odd sizes.
fn odd() -> Vec<Write<'static>> {
    vec![
        (
            DEFAULT_KEYSPACE,
            Vec::new(),
            Some(b"under the empty key".to_vec()),
        ),
        (DEFAULT_KEYSPACE, vec![0xff; 3], Some(Vec::new())),
        (DEFAULT_KEYSPACE, vec![0; 2], Some(vec![0; 9])),
        (DEFAULT_KEYSPACE, vec![b'k'; 700], Some(value(1, 5000))),
    ]
}

/// Several levels, overwritten and deleted entries, the last ones in the log.
fn levels(writer: &mut Writer) -> Outcome {
    for round in 0..4 {
        for n in (round..200).step_by(3) {
            let len = usize::try_from(20 + n % 60)?;
            writer.commit(&[(DEFAULT_KEYSPACE, key(n), Some(value(n + round, len)))])?;
        }
        writer.settle()?;
    }
    writer.db.compact::<&[u8]>(..)?;
    writer.commit(&odd())?;
    for n in (0..200).step_by(10) {
        writer.commit(&[
            (DEFAULT_KEYSPACE, key(n), None),
            (DEFAULT_KEYSPACE, key(n + 1), Some(b"later".to_vec())),
        ])?;
    }
    writer.db.flush()?;
    writer.commit(&[(DEFAULT_KEYSPACE, key(500), Some(b"last".to_vec()))])
}

/// A keyspace for each kind of filter, and one that was dropped.
fn filters(writer: &mut Writer) -> Outcome {
    let kinds = [
        ("none", FilterKind::None),
        ("standard", FilterKind::Standard { bits_per_key: 10 }),
        ("blocked", FilterKind::Blocked { bits_per_key: 12 }),
        ("hash-index", FilterKind::HashIndex),
        ("auto", FilterKind::Auto),
    ];
    writer.keyspace("dropped", FilterKind::Auto)?;
    for (name, filter) in kinds {
        writer.keyspace(name, filter)?;
        for n in 0..60 {
            writer.commit(&[
                (name, key(n * 7), Some(value(n, 70))),
                ("dropped", key(n), Some(value(n, 5))),
            ])?;
        }
    }
    writer.settle()?;
    writer.keyspaces.remove("dropped");
    writer.state.keyspaces.remove("dropped");
    writer.db.drop_keyspace("dropped")?;
    Ok(writer.db.wait_idle()?)
}

/// Nothing was ever flushed; batches go to several keyspaces.
fn log_only(writer: &mut Writer) -> Outcome {
    writer.keyspace("a", FilterKind::Auto)?;
    writer.keyspace("b", FilterKind::Auto)?;
    for n in 0..60 {
        writer.commit(&[
            (DEFAULT_KEYSPACE, key(n), Some(value(n, 30))),
            ("a", key(n), Some(value(n, 3))),
            ("b", key(n / 2), Some(value(n, 10))),
            ("a", key(n / 2), None),
        ])?;
    }
    writer.commit(&odd())
}

/// Deletes in newer tables over puts in older ones.
fn tombstones(writer: &mut Writer) -> Outcome {
    for n in 0..150 {
        writer.commit(&[(DEFAULT_KEYSPACE, key(n), Some(value(n, 40)))])?;
    }
    writer.settle()?;
    for n in 0..140 {
        writer.commit(&[(DEFAULT_KEYSPACE, key(n), None)])?;
    }
    writer.db.flush()?;
    for n in 50..60 {
        writer.commit(&[(DEFAULT_KEYSPACE, key(n), Some(b"again".to_vec()))])?;
    }
    Ok(writer.db.flush()?)
}

/// Versions that a snapshot kept, in tables.
fn snapshots(writer: &mut Writer) -> Outcome {
    let mut held = Vec::new();
    for round in 0..5 {
        for n in 0..40 {
            let new = (n % 5 != round).then(|| value(n * 10 + round, 25));
            writer.commit(&[(DEFAULT_KEYSPACE, key(n), new)])?;
        }
        held.push(writer.db.snapshot()?);
        writer.settle()?;
    }
    Ok(writer.db.compact::<&[u8]>(..)?)
}

/// Of every file, so that nobody rewrites one in silence.
fn write_checksums(root: &Path) -> io::Result<()> {
    let mut lines = Vec::new();
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let bytes = fs::read(&path)?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            lines.push(format!("{name} {} {:016x}\n", bytes.len(), checksum(&bytes)));
        }
    }
    lines.sort();
    fs::write(root.join("CHECKSUMS"), lines.concat())
}
