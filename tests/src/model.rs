//! What the engine should hold: an ordered map over keyspace, key and commit.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::{Bound, RangeInclusive};

use siltstone::{Db, Keyspace, KeyspaceOptions};

use crate::progress::{Presence, Progress};
use crate::violation::{Violation, must};

/// The name of the keyspace that `Db`'s own reads and writes go to.
pub const DEFAULT_KEYSPACE: &str = "default";

/// How many batches have been committed: index 0 is the empty database, index `n` the state after the n-th batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitIndex(pub u64);

/// One put (`Some`) or delete (`None`) of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The keyspace it goes to.
    pub keyspace: String,
    /// The key.
    pub key: Vec<u8>,
    /// The value, or `None` to delete the key.
    pub value: Option<Vec<u8>>,
}

/// Keys and values of one keyspace at one moment.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The bounds of a range of keys.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One life of a keyspace: a name that is dropped and made again begins another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(usize);

/// The contents of a database at one moment, by keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Each keyspace's entries.
    pub keyspaces: BTreeMap<String, Entries>,
}

impl State {
    /// Reads everything out of an open database, in forward order. `options` are those of each keyspace.
    ///
    /// # Errors
    /// A [`Violation`] where a read fails, or where entries are out of order.
    pub fn read(db: &Db, options: impl Fn(&str) -> KeyspaceOptions) -> Result<State, Violation> {
        let mut state = State::default();
        for name in db.keyspaces() {
            let keyspace = if name == DEFAULT_KEYSPACE {
                Keyspace::clone(db)
            } else {
                must("opening a keyspace", db.keyspace(&name, options(&name)))?
            };
            state.keyspaces.insert(name, read_forward(&keyspace)?);
        }
        Ok(state)
    }
}

impl State {
    /// A line for each entry, in order: keyspace, key (escaped), length of the value, a checksum of it. An empty
    /// keyspace has a line of its name alone.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, entries) in &self.keyspaces {
            if entries.is_empty() {
                text += &format!("{name}\n");
            }
            for (key, value) in entries {
                let (key, sum) = (key.escape_ascii(), siltstone_sstable::format::checksum(value));
                text += &format!("{name}\t{key}\t{}\t{sum:016x}\n", value.len());
            }
        }
        text
    }
}

/// Scans a keyspace from its first entry on.
pub(crate) fn read_forward(keyspace: &Keyspace) -> Result<Entries, Violation> {
    let mut entries = Entries::new();
    let mut cursor = must("making a cursor", keyspace.cursor::<&[u8]>(..))?;
    must("first", cursor.first())?;
    while cursor.valid() {
        if let Some((last, _)) = entries.last_key_value()
            && last.as_slice() >= cursor.key()
        {
            let (name, key, last) = (keyspace.name(), show(cursor.key()), show(last));
            return Err(Violation::new(format!(
                "a scan of {name} yields {key} after {last}"
            )));
        }
        entries.insert(cursor.key().to_vec(), cursor.value().to_vec());
        must("next", cursor.next())?;
    }
    Ok(entries)
}

/// What a key was set to by which commit; `None` where it was deleted.
type Versions = Vec<(CommitIndex, Option<Vec<u8>>)>;

#[derive(Clone, Debug)]
struct Life {
    name: String,
    /// The versions of each key by rising commit.
    keys: BTreeMap<Vec<u8>, Versions>,
    /// The sum of the entries' hashes after each commit that changed it.
    sums: Vec<(CommitIndex, u64)>,
}

impl Life {
    fn sum_at(&self, at: CommitIndex) -> u64 {
        let n = self.sums.partition_point(|(commit, _)| *commit <= at);
        n.checked_sub(1).map_or(0, |n| self.sums[n].1)
    }
}

/// An ordered map over keyspace, key and commit index: what the engine should answer now, at every snapshot, and
/// after every crash.
///
/// ```
/// use siltstone_tests::{CommitIndex, Model, Write};
///
/// let mut model = Model::new();
/// let put = |value: &str| Write { keyspace: "default".into(), key: b"k".to_vec(), value: Some(value.into()) };
/// let first = model.commit(&[put("old")]);
/// model.commit(&[put("new")]);
/// let keyspace = model.incarnation("default").unwrap();
/// assert_eq!(model.get(keyspace, b"k", first), Some(&b"old"[..]));
/// assert_eq!(model.get(keyspace, b"k", model.last()), Some(&b"new"[..]));
/// assert_eq!(model.get(keyspace, b"k", CommitIndex(0)), None);
/// assert_eq!(model.prefix_states(CommitIndex(0)..=model.last()).count(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    last: CommitIndex,
    lives: Vec<Life>,
    live: BTreeMap<String, Incarnation>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty database with the default keyspace.
    pub fn new() -> Self {
        let mut model = Self {
            last: CommitIndex(0),
            lives: Vec::new(),
            live: BTreeMap::new(),
        };
        model.create_keyspace(DEFAULT_KEYSPACE);
        model
    }

    /// The last commit.
    pub fn last(&self) -> CommitIndex {
        self.last
    }

    /// Begins a life of the keyspace called `name`.
    pub fn create_keyspace(&mut self, name: &str) -> Incarnation {
        let incarnation = Incarnation(self.lives.len());
        self.lives.push(Life {
            name: name.to_owned(),
            keys: BTreeMap::new(),
            sums: Vec::new(),
        });
        self.live.insert(name.to_owned(), incarnation);
        incarnation
    }

    /// Ends the life of the keyspace called `name`; what it held can still be asked for by its [`Incarnation`].
    pub fn drop_keyspace(&mut self, name: &str) {
        self.live.remove(name);
    }

    /// The keyspace called `name` turns out to be alive in this incarnation.
    pub fn revive_keyspace(&mut self, name: &str, incarnation: Incarnation) {
        self.live.insert(name.to_owned(), incarnation);
    }

    /// The present life of the keyspace called `name`.
    pub fn incarnation(&self, name: &str) -> Option<Incarnation> {
        self.live.get(name).copied()
    }

    /// The names of the live keyspaces.
    pub fn keyspaces(&self) -> impl Iterator<Item = &str> {
        self.live.keys().map(String::as_str)
    }

    /// Commits a batch; later writes to the same key win.
    ///
    /// # Panics
    /// Where a write names a keyspace that is not live.
    pub fn commit(&mut self, batch: &[Write]) -> CommitIndex {
        self.last = CommitIndex(self.last.0 + 1);
        for write in batch {
            let incarnation = self.live[&write.keyspace];
            let life = &mut self.lives[incarnation.0];
            let versions = life.keys.entry(write.key.clone()).or_default();
            let mut sum = life.sums.last().map_or(0, |(_, sum)| *sum);
            if let Some((_, Some(old))) = versions.last() {
                sum = sum.wrapping_sub(entry_hash(&write.key, old));
            }
            if let Some(new) = &write.value {
                sum = sum.wrapping_add(entry_hash(&write.key, new));
            }
            if versions.last().is_some_and(|(commit, _)| *commit == self.last) {
                versions.pop();
            }
            versions.push((self.last, write.value.clone()));
            if life.sums.last().is_some_and(|(commit, _)| *commit == self.last) {
                life.sums.pop();
            }
            life.sums.push((self.last, sum));
        }
        self.last
    }

    /// Forgets the commits after `at`: the engine refused them, or a crash took them.
    pub fn rewind_to(&mut self, at: CommitIndex) {
        for life in &mut self.lives {
            for versions in life.keys.values_mut() {
                while versions.pop_if(|(commit, _)| *commit > at).is_some() {}
            }
            life.keys.retain(|_, versions| !versions.is_empty());
            while life.sums.pop_if(|(commit, _)| *commit > at).is_some() {}
        }
        self.last = self.last.min(at);
    }

    /// The value of `key` after commit `at`.
    pub fn get(&self, keyspace: Incarnation, key: &[u8], at: CommitIndex) -> Option<&[u8]> {
        version_at(self.lives[keyspace.0].keys.get(key)?, at)
    }

    /// The entries within `bounds` after commit `at`, in key order.
    pub fn range(&self, keyspace: Incarnation, bounds: &Bounds, at: CommitIndex) -> Vec<(&[u8], &[u8])> {
        let within = |key: &[u8]| {
            let above = match &bounds.0 {
                Bound::Unbounded => true,
                Bound::Included(lower) => key >= &lower[..],
                Bound::Excluded(lower) => key > &lower[..],
            };
            let below = match &bounds.1 {
                Bound::Unbounded => true,
                Bound::Included(upper) => key <= &upper[..],
                Bound::Excluded(upper) => key < &upper[..],
            };
            above && below
        };
        let keys = self.lives[keyspace.0].keys.iter();
        keys.filter(|(key, _)| within(key))
            .filter_map(|(key, versions)| Some((&key[..], version_at(versions, at)?)))
            .collect()
    }

    /// All entries of one keyspace after commit `at`.
    pub fn entries(&self, keyspace: Incarnation, at: CommitIndex) -> Entries {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let range = self.range(keyspace, &all, at);
        range.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    }

    /// The state of the live keyspaces after commit `at`.
    pub fn state_at(&self, at: CommitIndex) -> State {
        let live = self.live.iter();
        State {
            keyspaces: live
                .map(|(name, id)| (name.clone(), self.entries(*id, at)))
                .collect(),
        }
    }

    /// Whether a keyspace called `name` had exactly these entries after some commit.
    pub fn once_was(&self, name: &str, entries: &Entries) -> bool {
        let sum = state_sum(entries);
        let lives = self.lives.iter().enumerate();
        lives.filter(|(_, life)| life.name == name).any(|(n, life)| {
            let nothing = (CommitIndex(0), 0);
            let mut moments = life.sums.iter().copied().chain([nothing]);
            moments.any(|(at, then)| then == sum && self.entries(Incarnation(n), at) == *entries)
        })
    }

    /// Whether every value of `entries` was once that of its key in a keyspace called `name`.
    pub fn once_had(&self, name: &str, entries: &Entries) -> bool {
        entries.iter().all(|(key, value)| {
            (0..=self.last().0).any(|at| {
                let lives = self.lives.iter().enumerate();
                lives
                    .filter(|(_, life)| life.name == name)
                    .any(|(n, _)| self.entries(Incarnation(n), CommitIndex(at)).get(key) == Some(value))
            })
        })
    }

    /// The states after each of the commits `within`: what a crash may leave.
    pub fn prefix_states(
        &self,
        within: RangeInclusive<CommitIndex>,
    ) -> impl Iterator<Item = (CommitIndex, State)> {
        (within.start().0..=within.end().0).map(|at| (CommitIndex(at), self.state_at(CommitIndex(at))))
    }

    /// The newest commit `within` whose state is `found`; the prefix contract says that there is one. Of the
    /// keyspaces, those must be there that `progress` says have been created, and no others but those whose creation
    /// or removal was under way.
    ///
    /// # Errors
    /// A [`Violation`] that names the differences from the nearest commits.
    pub fn matching_prefix(
        &self,
        found: &State,
        progress: &Progress,
        within: RangeInclusive<CommitIndex>,
    ) -> Result<CommitIndex, Violation> {
        let mut sums = Vec::new();
        for (name, (incarnation, presence)) in &progress.keyspaces {
            match found.keyspaces.get(name) {
                Some(entries) => sums.push((*incarnation, state_sum(entries), entries)),
                None if *presence == Presence::Live => {
                    return Err(Violation::new(format!("keyspace {name} is lost")));
                }
                None => {}
            }
        }
        if let Some(name) = found
            .keyspaces
            .keys()
            .find(|name| !progress.keyspaces.contains_key(*name))
        {
            return Err(Violation::new(format!(
                "keyspace {name} is there, but was dropped or never created"
            )));
        }
        let candidates = (within.start().0..=within.end().0).rev().map(CommitIndex);
        for at in candidates {
            let equal = |(id, sum, _): &(Incarnation, u64, &Entries)| self.lives[id.0].sum_at(at) == *sum;
            let same = |(id, _, entries): &(Incarnation, u64, &Entries)| self.entries(*id, at) == **entries;
            if sums.iter().all(equal) && sums.iter().all(same) {
                return Ok(at);
            }
        }
        Err(self.describe_mismatch(&sums, within))
    }

    fn describe_mismatch(
        &self,
        found: &[(Incarnation, u64, &Entries)],
        within: RangeInclusive<CommitIndex>,
    ) -> Violation {
        let mut message = format!(
            "the state is that of no commit from {} to {}",
            within.start().0,
            within.end().0
        );
        for (id, sum, entries) in found {
            let life = &self.lives[id.0];
            let fits = (0..=self.last.0).filter(|at| life.sum_at(CommitIndex(*at)) == *sum);
            let fits: Vec<u64> = fits.collect();
            message += &format!("; keyspace {} has {} entries", life.name, entries.len());
            match (fits.first(), fits.last()) {
                (Some(first), Some(last)) => message += &format!(", the state of commits {first} to {last}"),
                _ => {
                    message += ", the state of no commit";
                    let expected = self.entries(*id, *within.end());
                    message += &format!(" (from the last: {})", difference(&expected, entries));
                }
            }
        }
        Violation::new(message)
    }
}

fn version_at(versions: &[(CommitIndex, Option<Vec<u8>>)], at: CommitIndex) -> Option<&[u8]> {
    let n = versions.partition_point(|(commit, _)| *commit <= at);
    versions[n.checked_sub(1)?].1.as_deref()
}

pub(crate) fn entry_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(key.len());
    hasher.write(key);
    hasher.write(value);
    hasher.finish()
}

fn state_sum(entries: &Entries) -> u64 {
    entries
        .iter()
        .fold(0, |sum, (k, v)| sum.wrapping_add(entry_hash(k, v)))
}

/// The first few differences between two sets of entries, for messages.
pub(crate) fn difference(expected: &Entries, found: &Entries) -> String {
    let mut lines = Vec::new();
    for key in expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)))
    {
        let (e, f) = (expected.get(key), found.get(key));
        if e != f {
            let (e, f) = (e.map(|v| show(v)), f.map(|v| show(v)));
            lines.push(format!("{}: expected {e:?}, found {f:?}", show(key)));
        }
    }
    let more = lines.len().saturating_sub(4);
    lines.truncate(4);
    let mut text = lines.join(", ");
    if more > 0 {
        text += &format!(", and {more} more");
    }
    text
}

/// Bytes for messages: escaped, long ones cut.
pub(crate) fn show(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(24)];
    let dots = if head.len() < bytes.len() {
        format!("… ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    format!("{}{dots}", head.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keyspace: &str, key: &str, value: &str) -> Write {
        Write {
            keyspace: keyspace.into(),
            key: key.into(),
            value: Some(value.into()),
        }
    }

    fn delete(keyspace: &str, key: &str) -> Write {
        Write {
            keyspace: keyspace.into(),
            key: key.into(),
            value: None,
        }
    }

    fn progress(model: &Model) -> Progress {
        let mut progress = Progress::default();
        for name in model.keyspaces() {
            let id = model.incarnation(name).unwrap();
            progress.keyspaces.insert(name.into(), (id, Presence::Live));
        }
        progress
    }

    #[test]
    fn every_prefix_is_recognised_and_a_hole_is_not() {
        let mut model = Model::new();
        model.create_keyspace("a");
        model.commit(&[put("default", "k", "1"), put("a", "k", "1")]);
        model.commit(&[put("default", "k", "2"), delete("a", "k")]);
        model.commit(&[put("default", "j", "3")]);
        let all = CommitIndex(0)..=model.last();
        for (at, state) in model.prefix_states(all.clone()) {
            assert_eq!(
                model.matching_prefix(&state, &progress(&model), all.clone()),
                Ok(at)
            );
        }
        let mut hole = model.state_at(CommitIndex(3));
        hole.keyspaces
            .get_mut("default")
            .unwrap()
            .insert(b"k".into(), b"1".into());
        let message = model
            .matching_prefix(&hole, &progress(&model), all.clone())
            .unwrap_err()
            .to_string();
        assert!(message.contains("no commit"), "{message}");
        // One keyspace ahead of the other: a batch in part.
        let mut torn = model.state_at(CommitIndex(1));
        torn.keyspaces
            .insert("a".into(), model.state_at(CommitIndex(2)).keyspaces["a"].clone());
        assert!(model.matching_prefix(&torn, &progress(&model), all).is_err());
    }

    #[test]
    fn a_commit_that_is_rewound_leaves_no_trace() {
        let mut model = Model::new();
        model.commit(&[put("default", "k", "1")]);
        let before = model.state_at(model.last());
        model.commit(&[
            put("default", "k", "2"),
            delete("default", "k"),
            put("default", "j", "2"),
        ]);
        model.rewind_to(CommitIndex(1));
        assert_eq!(model.last(), CommitIndex(1));
        let at = model.matching_prefix(&before, &progress(&model), CommitIndex(1)..=CommitIndex(1));
        assert_eq!(at, Ok(CommitIndex(1)));
    }
}
