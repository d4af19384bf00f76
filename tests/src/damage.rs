//! Damage to every byte of a database, and what may be answered then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{ManualClock, MemFs};
use siltstone::{BackgroundMode, Db, Environment, ErrorKind, Keyspace, RecoveryMode, VerifyOptions};

use crate::model::{DEFAULT_KEYSPACE, Entries, State, difference, show};
use crate::random_options::RandomOptions;
use crate::session::Session;
use crate::violation::{Violation, must};
use crate::workload::{Operation, Workload, WorkloadOptions};

/// Builds a database from a seed, closes it, damages copies of it, and checks that every answer is right or an error:
/// never a wrong answer, never a panic.
///
/// The one exception is what nothing can tell from a torn tail: log records past the point that the log itself says
/// was synced. A database that was closed has none.
#[derive(Clone, Debug)]
pub struct DamageDriver {
    files: Vec<(PathBuf, Vec<u8>)>,
    state: State,
    options: RandomOptions,
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DamageFigures {
    /// Damaged copies that were opened and read.
    pub tried: u64,
    /// Copies that did not open.
    pub refused: u64,
    /// Copies that opened, and answered some reads with errors.
    pub damaged: u64,
    /// Copies that answered everything, and rightly.
    pub harmless: u64,
}

impl DamageFigures {
    /// Adds other figures.
    pub fn add(&mut self, other: &DamageFigures) {
        self.tried += other.tried;
        self.refused += other.refused;
        self.damaged += other.damaged;
        self.harmless += other.harmless;
    }
}

enum Outcome {
    Refused,
    Damaged,
    Harmless,
}

impl DamageDriver {
    /// A database with a history of `operations`, synced and closed.
    ///
    /// # Errors
    /// A [`Violation`] of the history itself.
    pub fn new(seed: u64, operations: usize, workload: WorkloadOptions) -> Result<Self, Violation> {
        let mem = MemFs::new();
        let options = RandomOptions::new(seed);
        let mut session = Session::on(Arc::new(mem.clone()), Path::new("db"), options.clone())?;
        for operation in Workload::new(seed, workload).take(operations) {
            session.apply(&operation)?;
        }
        // Data in the log, in memory and in tables.
        session.apply(&Operation::Reopen { clean: true })?;
        let state = session.model().state_at(session.model().last());
        session.close()?;
        let files = mem
            .files()
            .into_iter()
            .filter(|(path, _)| !path.ends_with("LOCK") && !path.ends_with("RESERVE"));
        let files = files
            .map(|(path, _)| Ok((path.clone(), must("reading a file", mem.read_file(&path))?)))
            .collect::<Result<Vec<_>, Violation>>()?;
        Ok(Self {
            files,
            state,
            options,
        })
    }

    /// The files of the database, with their bytes.
    pub fn files(&self) -> &[(PathBuf, Vec<u8>)] {
        &self.files
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Flips one random bit of each of the bytes from `from` on in steps of `stride`, one copy each.
    ///
    /// # Errors
    /// A [`Violation`] that names the file, the offset and the bit.
    pub fn flip_every(&self, from: usize, stride: usize, seed: u64) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        let mut start = 0;
        for (n, (path, bytes)) in self.files.iter().enumerate() {
            let first = (from + stride - start % stride) % stride;
            for at in (first..bytes.len()).step_by(stride) {
                let bit = StdRng::seed_from_u64(seed ^ (start + at) as u64).random_range(0..8);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                self.try_one(n, damaged, &mut figures).map_err(|violation| {
                    violation.context(format!("bit {bit} of byte {at} of {} flipped", path.display()))
                })?;
            }
            start += bytes.len();
        }
        Ok(figures)
    }

    /// Cuts each file at `cuts` random lengths. (Not to nothing: an empty log segment is what a crash leaves of one
    /// that was being made, and says nothing about what it held before.)
    ///
    /// # Errors
    /// A [`Violation`] that names the file and the length.
    pub fn truncate(&self, cuts: usize, seed: u64) -> Result<DamageFigures, Violation> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut figures = DamageFigures::default();
        for (n, (path, bytes)) in self.files.iter().enumerate() {
            for _ in 0..cuts.min(bytes.len().saturating_sub(1)) {
                let len = rng.random_range(1..bytes.len());
                self.try_one(n, bytes[..len].to_vec(), &mut figures)
                    .map_err(|violation| {
                        violation.context(format!(
                            "{} cut from {} to {len} bytes",
                            path.display(),
                            bytes.len()
                        ))
                    })?;
            }
        }
        Ok(figures)
    }

    fn try_one(&self, nth: usize, damaged: Vec<u8>, figures: &mut DamageFigures) -> Result<(), Violation> {
        let mem = MemFs::new();
        must("mkdir", siltstone::vfs::Fs::create_dir_all(&mem, Path::new("db")))?;
        for (n, (path, bytes)) in self.files.iter().enumerate() {
            let bytes = if n == nth { damaged.clone() } else { bytes.clone() };
            must("write", mem.write_file(path, bytes))?;
        }
        figures.tried += 1;
        match self.check(&mem)? {
            Outcome::Refused => {
                figures.refused += 1;
                self.check_salvage(&mem)?;
            }
            Outcome::Damaged => figures.damaged += 1,
            Outcome::Harmless => figures.harmless += 1,
        }
        Ok(())
    }

    fn open(&self, mem: &MemFs, mode: RecoveryMode) -> siltstone::Result<Db> {
        let environment = Environment {
            fs: Arc::new(mem.clone()),
            clock: Arc::new(ManualClock::new()),
            background: BackgroundMode::Manual,
        };
        let options = self.options.options().recovery(mode).create_if_missing(false);
        options.open_with("db", environment)
    }

    /// Opens and reads everything, forwards, backwards, and key by key.
    fn check(&self, mem: &MemFs) -> Result<Outcome, Violation> {
        let db = match self.open(mem, RecoveryMode::Strict) {
            Ok(db) => db,
            Err(error) => return explained(&error).map(|()| Outcome::Refused),
        };
        let mut errors = 0;
        if let Some(name) = db
            .keyspaces()
            .iter()
            .find(|name| !self.state.keyspaces.contains_key(*name))
        {
            return Err(Violation::new(format!("a keyspace {name} appears")));
        }
        for (name, expected) in &self.state.keyspaces {
            let keyspace = if name == DEFAULT_KEYSPACE {
                Keyspace::clone(&db)
            } else if db.keyspaces().contains(name) {
                match db.keyspace(name, self.options.keyspace(name)) {
                    Ok(keyspace) => keyspace,
                    Err(error) => {
                        explained(&error)?;
                        errors += 1;
                        continue;
                    }
                }
            } else {
                return Err(Violation::new(format!("keyspace {name} is lost in silence")));
            };
            errors += check_keyspace(&keyspace, expected)?;
        }
        let report = must("verify", db.verify(&VerifyOptions::default()))?;
        if errors > 0 && report.is_sound() {
            return Err(Violation::new("reads fail, but verify finds nothing"));
        }
        for (_, error) in &report.damage {
            explained(error)?;
        }
        Ok(if errors == 0 && report.is_sound() {
            Outcome::Harmless
        } else {
            Outcome::Damaged
        })
    }

    /// Salvaging must not panic, and must not make up what was never written.
    fn check_salvage(&self, mem: &MemFs) -> Result<(), Violation> {
        match self.open(mem, RecoveryMode::Salvage) {
            Ok(db) => match State::read(&db, |name| self.options.keyspace(name)) {
                Ok(_) | Err(_) => Ok(()),
            },
            Err(error) => explained(&error),
        }
    }
}

/// Errors of damage say so, and where.
fn explained(error: &siltstone::Error) -> Result<(), Violation> {
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::Unsupported | ErrorKind::NotFound if error.path().is_some() => {
            Ok(())
        }
        _ => Err(Violation::unexpected("a call on damaged files", error)
            .context("the error is of the wrong kind, or names no file")),
    }
}

fn check_keyspace(keyspace: &Keyspace, expected: &Entries) -> Result<usize, Violation> {
    let mut errors = 0;
    for (key, value) in expected {
        match keyspace.get(key) {
            Ok(Some(found)) if found == value => {}
            Ok(found) => {
                return Err(Violation::new(format!(
                    "get({}) gives {:?} instead of {}",
                    show(key),
                    found.as_deref().map(show),
                    show(value)
                )));
            }
            Err(error) => {
                explained(&error)?;
                errors += 1;
            }
        }
    }
    for backwards in [false, true] {
        let mut found = Entries::new();
        let mut failed = false;
        let mut iter = match keyspace.iter() {
            Ok(iter) => iter,
            Err(error) => {
                explained(&error)?;
                errors += 1;
                continue;
            }
        };
        while let Some(entry) = if backwards { iter.next_back() } else { iter.next() } {
            match entry {
                Ok((key, value)) => _ = found.insert(key.to_vec(), value.to_vec()),
                Err(error) => {
                    explained(&error)?;
                    (failed, errors) = (true, errors + 1);
                    break;
                }
            }
        }
        let complete = found == *expected;
        let part = found.iter().all(|(key, value)| expected.get(key) == Some(value));
        // What was handed out before the error is a run without gaps.
        let covered = match (found.first_key_value(), found.last_key_value()) {
            (Some((first, _)), Some((last, _))) => expected.range(first.clone()..=last.clone()).count(),
            _ => 0,
        };
        if (!failed && !complete) || !part || covered != found.len() {
            return Err(Violation::new(format!(
                "a scan (backwards: {backwards}) gives no error and a wrong answer: {}",
                difference(expected, &found)
            )));
        }
    }
    Ok(errors)
}
