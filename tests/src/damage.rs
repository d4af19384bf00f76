//! Damage to every byte of a database, and what may be answered then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siltstone::vfs::{ManualClock, MemFs};
use siltstone::{BackgroundMode, Db, Environment, ErrorKind, Keyspace, RecoveryMode, VerifyOptions};

use crate::model::{DEFAULT_KEYSPACE, Entries, Model, State, difference, show};
use crate::random_options::RandomOptions;
use crate::session::Session;
use crate::violation::{Violation, must};
use crate::workload::{Operation, Workload, WorkloadOptions};

/// Builds a database from a seed, closes it, damages copies of it, and checks that every answer is right or an error:
/// never a wrong answer, never a panic.
///
/// The exception is what nothing within the files tells from an honest past: a log segment that is empty, missing or an
/// earlier version of itself may be what a crash left of it, and a manifest or `CURRENT` of an earlier moment was right
/// then. What is promised of those is less: an error, or in every keyspace a state that it once had.
#[derive(Clone, Debug)]
pub struct DamageDriver {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// What each file once was, under the same name.
    past: Vec<(PathBuf, Vec<u8>)>,
    state: State,
    model: Model,
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
    /// Copies that answered as an earlier state, which nothing within the files can tell.
    pub past: u64,
}

impl DamageFigures {
    /// Adds other figures.
    pub fn add(&mut self, other: &DamageFigures) {
        self.tried += other.tried;
        self.refused += other.refused;
        self.damaged += other.damaged;
        self.harmless += other.harmless;
        self.past += other.past;
    }
}

/// What is promised of damaged files, an error aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// The right answers.
    Present,
    /// In every keyspace a state that one of its name once had.
    SomePast,
    /// Values that their keys once had: nothing tells that a log segment is missing all that it held, where the one behind
    /// it was begun by a later open.
    SomeValues,
}

enum Outcome {
    Refused,
    Damaged,
    Harmless,
    Past,
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
        let mut past: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        for operation in Workload::new(seed, workload).take(operations) {
            session.apply(&operation)?;
            for file in contents(&mem)? {
                let known = past.iter().rev().find(|(path, _)| *path == file.0);
                if known.is_none_or(|known| *known != file) {
                    past.push(file);
                }
            }
        }
        // Data in the log, in memory and in tables.
        session.apply(&Operation::Reopen { clean: true })?;
        let model = session.model().clone();
        session.close()?;
        let files = contents(&mem)?;
        past.retain(|old| {
            let mut now = files.iter();
            now.any(|now| now.0 == old.0) && !files.contains(old)
        });
        Ok(Self {
            files,
            past,
            state: model.state_at(model.last()),
            model,
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

    /// Cuts each file at `cuts` random lengths. (Not to nothing: see [`truncate_every`](Self::truncate_every).)
    ///
    /// # Errors
    /// A [`Violation`] that names the file and the length.
    pub fn truncate(&self, cuts: usize, seed: u64) -> Result<DamageFigures, Violation> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut figures = DamageFigures::default();
        for (n, (_, bytes)) in self.files.iter().enumerate() {
            for _ in 0..cuts.min(bytes.len().saturating_sub(1)) {
                let len = rng.random_range(1..bytes.len());
                self.cut(n, len, &mut figures)?;
            }
        }
        Ok(figures)
    }

    /// Cuts each file at the lengths from `from` on in steps of `stride`, nothing at all included, one copy each.
    ///
    /// # Errors
    /// A [`Violation`] that names the file and the length.
    pub fn truncate_every(&self, from: usize, stride: usize) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        let mut start = 0;
        for (n, (_, bytes)) in self.files.iter().enumerate() {
            let first = (from + stride - start % stride) % stride;
            for len in (first..bytes.len()).step_by(stride) {
                self.cut(n, len, &mut figures)?;
            }
            start += bytes.len();
        }
        Ok(figures)
    }

    fn cut(&self, nth: usize, len: usize, figures: &mut DamageFigures) -> Result<(), Violation> {
        let (path, bytes) = &self.files[nth];
        // A segment that a crash left while it was being made is empty, too.
        let promise = if len == 0 && is_log(path) {
            Promise::SomeValues
        } else {
            Promise::Present
        };
        let mut files = self.files.clone();
        files[nth].1.truncate(len);
        self.try_files(&files, promise, figures).map_err(|violation| {
            violation.context(format!(
                "{} cut from {} to {len} bytes",
                path.display(),
                bytes.len()
            ))
        })
    }

    /// Exchanges the bytes of every two files.
    ///
    /// # Errors
    /// A [`Violation`] that names the files.
    pub fn swap_every(&self) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        for n in 0..self.files.len() {
            for m in n + 1..self.files.len() {
                let mut files = self.files.clone();
                let bytes = std::mem::take(&mut files[n].1);
                files[n].1 = std::mem::replace(&mut files[m].1, bytes);
                let promise = worse(self.promise(&files[n]), self.promise(&files[m]));
                self.try_files(&files, promise, &mut figures)
                    .map_err(|violation| {
                        let (a, b) = (files[n].0.display(), files[m].0.display());
                        violation.context(format!("{a} and {b} exchanged"))
                    })?;
            }
        }
        Ok(figures)
    }

    /// Copies every numbered file to the number after the last one of all, and to one before it that is free.
    ///
    /// # Errors
    /// A [`Violation`] that names the file and the copy.
    pub fn duplicate_every(&self) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        let taken: Vec<u64> = self.files.iter().filter_map(|(path, _)| number(path)).collect();
        let after = taken.iter().max().map_or(1, |last| last + 1);
        for (path, bytes) in &self.files {
            let Some(own) = number(path) else { continue };
            let before = (0..own).rev().find(|free| !taken.contains(free));
            for other in before.into_iter().chain([own + 1, after, after + 1]) {
                let copy = numbered(path, other);
                if self.files.iter().any(|(path, _)| *path == copy) {
                    continue;
                }
                let mut files = self.files.clone();
                files.push((copy.clone(), bytes.clone()));
                self.try_files(&files, Promise::Present, &mut figures)
                    .map_err(|violation| {
                        violation.context(format!("{} copied to {}", path.display(), copy.display()))
                    })?;
            }
        }
        Ok(figures)
    }

    /// Removes every file.
    ///
    /// # Errors
    /// A [`Violation`] that names the file.
    pub fn remove_every(&self) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        for n in 0..self.files.len() {
            let mut files = self.files.clone();
            let (path, _) = files.remove(n);
            let promise = if is_log(&path) {
                Promise::SomePast
            } else {
                Promise::Present
            };
            self.try_files(&files, promise, &mut figures)
                .map_err(|violation| violation.context(format!("{} removed", path.display())))?;
        }
        Ok(figures)
    }

    /// Puts every earlier version of every file back in its place, one at a time.
    ///
    /// # Errors
    /// A [`Violation`] that names the file and its length.
    pub fn replace_by_past(&self) -> Result<DamageFigures, Violation> {
        let mut figures = DamageFigures::default();
        for old in &self.past {
            let mut files = self.files.clone();
            for file in files.iter_mut().filter(|(path, _)| *path == old.0) {
                file.1.clone_from(&old.1);
            }
            self.try_files(&files, self.promise(old), &mut figures)
                .map_err(|violation| {
                    let (path, len) = (old.0.display(), old.1.len());
                    violation.context(format!("{path} as it once was, with {len} bytes"))
                })?;
        }
        Ok(figures)
    }

    /// Appends to every file: a zero, a page of zeros, a random byte, a random page, its own bytes again.
    ///
    /// # Errors
    /// A [`Violation`] that names the file and what was appended.
    pub fn append_to_every(&self, seed: u64) -> Result<DamageFigures, Violation> {
        const PAGE_BYTES: usize = 4096;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut figures = DamageFigures::default();
        for n in 0..self.files.len() {
            let mut random = vec![0; PAGE_BYTES];
            rng.fill(&mut random[..]);
            let own = self.files[n].1.clone();
            let tails = [vec![0], vec![0; PAGE_BYTES], vec![random[0] | 1], random, own];
            for tail in tails {
                let mut files = self.files.clone();
                files[n].1.extend_from_slice(&tail);
                self.try_files(&files, Promise::Present, &mut figures)
                    .map_err(|violation| {
                        let (path, len) = (files[n].0.display(), tail.len());
                        let head = show(&tail);
                        violation.context(format!("{len} bytes ({head}) appended to {path}"))
                    })?;
            }
        }
        Ok(figures)
    }

    /// What is promised where a file has these bytes.
    fn promise(&self, file: &(PathBuf, Vec<u8>)) -> Promise {
        if self.past.contains(file) && is_log(&file.0) {
            Promise::SomeValues
        } else if self.past.contains(file) {
            Promise::SomePast
        } else {
            Promise::Present
        }
    }

    fn try_one(&self, nth: usize, damaged: Vec<u8>, figures: &mut DamageFigures) -> Result<(), Violation> {
        let mut files = self.files.clone();
        files[nth].1 = damaged;
        self.try_files(&files, Promise::Present, figures)
    }

    fn try_files(
        &self,
        files: &[(PathBuf, Vec<u8>)],
        promise: Promise,
        figures: &mut DamageFigures,
    ) -> Result<(), Violation> {
        let mem = MemFs::new();
        must("mkdir", siltstone::vfs::Fs::create_dir_all(&mem, Path::new("db")))?;
        for (path, bytes) in files {
            must("write", mem.write_file(path, bytes.clone()))?;
        }
        figures.tried += 1;
        match self.check(&mem, promise)? {
            Outcome::Refused => {
                figures.refused += 1;
                self.check_salvage(&mem)?;
            }
            Outcome::Damaged => figures.damaged += 1,
            Outcome::Harmless => figures.harmless += 1,
            Outcome::Past => figures.past += 1,
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
    fn check(&self, mem: &MemFs, promise: Promise) -> Result<Outcome, Violation> {
        let db = match self.open(mem, RecoveryMode::Strict) {
            Ok(db) => db,
            Err(error) => return explained(&error).map(|()| Outcome::Refused),
        };
        if promise != Promise::Present {
            return self.check_past(&db, promise);
        }
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

    /// Every keyspace has a state that one of its name once had, or its reads fail.
    fn check_past(&self, db: &Db, promise: Promise) -> Result<Outcome, Violation> {
        let report = must("verify", db.verify(&VerifyOptions::default()))?;
        for (_, error) in &report.damage {
            explained(error)?;
        }
        if !report.is_sound() {
            return Ok(Outcome::Damaged);
        }
        let found = State::read(db, |name| self.options.keyspace(name))?;
        for (name, entries) in &found.keyspaces {
            let once_was = match promise {
                Promise::SomeValues => self.model.once_had(name, entries),
                Promise::Present | Promise::SomePast => self.model.once_was(name, entries),
            };
            if !once_was {
                let nothing = Entries::new();
                let expected = self.state.keyspaces.get(name).unwrap_or(&nothing);
                return Err(Violation::new(format!(
                    "keyspace {name} has a state that it never had (from the last: {})",
                    difference(expected, entries)
                )));
            }
        }
        Ok(if found == self.state {
            Outcome::Harmless
        } else {
            Outcome::Past
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

/// The files that count, with their bytes.
fn contents(mem: &MemFs) -> Result<Vec<(PathBuf, Vec<u8>)>, Violation> {
    let files = mem.files().into_iter();
    files
        .filter(|(path, _)| !path.ends_with("LOCK") && !path.ends_with("RESERVE"))
        .map(|(path, _)| Ok((path.clone(), must("reading a file", mem.read_file(&path))?)))
        .collect()
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

fn worse(a: Promise, b: Promise) -> Promise {
    match (a, b) {
        (Promise::Present, other) | (other, Promise::Present) => other,
        (Promise::SomePast, Promise::SomePast) => a,
        _ => Promise::SomeValues,
    }
}

/// The number in a file's name, with the number of digits.
fn digits(path: &Path) -> Option<(String, usize, usize)> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let start = name.find(|c: char| c.is_ascii_digit())?;
    let len = name[start..].chars().take_while(char::is_ascii_digit).count();
    Some((name, start, len))
}

fn number(path: &Path) -> Option<u64> {
    let (name, start, len) = digits(path)?;
    name[start..start + len].parse().ok()
}

/// The same name with another number.
fn numbered(path: &Path, number: u64) -> PathBuf {
    match digits(path) {
        None => path.to_owned(),
        Some((name, start, len)) => {
            let (head, tail) = (&name[..start], &name[start + len..]);
            path.with_file_name(format!("{head}{number:0len$}{tail}"))
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
