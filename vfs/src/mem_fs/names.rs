//! Directories: the names that files have now, the names that are durable, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::inode::InodeId;
use super::normal;

/// Where an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) name: String,
}

impl Place {
    /// `None` for a path that names no entry, such as `/` or `..`.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let path = normal(path);
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some(Self {
            dir: path.parent()?.to_path_buf(),
            name,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }
}

/// A change of names that is not durable yet. Atomic: a crash shows all of it or nothing.
#[derive(Clone, Debug)]
enum NameChange {
    Add { at: Place, inode: InodeId },
    Remove { at: Place },
    Rename { from: Place, to: Place, inode: InodeId },
}

impl NameChange {
    /// The directory whose sync and whose luck in a crash it belongs to.
    fn owner(&self) -> &Path {
        match self {
            Self::Add { at, .. } | Self::Remove { at } | Self::Rename { to: at, .. } => &at.dir,
        }
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let (first, second) = match self {
            Self::Add { at, .. } | Self::Remove { at } => (at, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn apply(&self, entries: &mut BTreeMap<Place, InodeId>) {
        match self {
            Self::Add { at, inode } => {
                entries.insert(at.clone(), *inode);
            }
            Self::Remove { at } => {
                entries.remove(at);
            }
            Self::Rename { from, to, inode } => {
                entries.remove(from);
                entries.insert(to.clone(), *inode);
            }
        }
    }
}

/// All names of a file system.
#[derive(Clone, Debug)]
pub(super) struct Names {
    dirs: BTreeSet<PathBuf>,
    present: BTreeMap<Place, InodeId>,
    durable: BTreeMap<Place, InodeId>,
    unsynced: Vec<NameChange>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            dirs: BTreeSet::from([PathBuf::new(), PathBuf::from("/")]),
            present: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
        }
    }
}

impl Names {
    pub(super) fn has_dir(&self, dir: &Path) -> bool {
        self.dirs.contains(dir)
    }

    pub(super) fn add_dirs(&mut self, dir: &Path) {
        self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
    }

    pub(super) fn get(&self, place: &Place) -> Option<InodeId> {
        self.present.get(place).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Place, InodeId)> {
        self.present.iter().map(|(place, id)| (place, *id))
    }

    /// The names of files and directories, sorted; `None` where there is no such directory.
    pub(super) fn list(&self, dir: &Path) -> Option<Vec<String>> {
        if !self.has_dir(dir) {
            return None;
        }
        let start = Place {
            dir: dir.to_path_buf(),
            name: String::new(),
        };
        let files = self
            .present
            .range(start..)
            .take_while(|(place, _)| place.dir == dir);
        let mut names: Vec<String> = files.map(|(place, _)| place.name.clone()).collect();
        let children = self.dirs.iter().filter(|child| child.parent() == Some(dir));
        names.extend(children.filter_map(|child| Some(child.file_name()?.to_string_lossy().into_owned())));
        names.sort_unstable();
        Some(names)
    }

    pub(super) fn add(&mut self, at: Place, inode: InodeId) {
        self.change(NameChange::Add { at, inode });
    }

    pub(super) fn remove(&mut self, at: Place) {
        self.change(NameChange::Remove { at });
    }

    pub(super) fn rename(&mut self, from: Place, to: Place, inode: InodeId) {
        self.change(NameChange::Rename { from, to, inode });
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.present);
        self.unsynced.push(change);
    }

    /// Makes the entries of a directory durable.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let chosen = self.choose(|change| change.places().any(|place| place.dir == dir));
        self.make_durable(&chosen);
    }

    /// Makes what has happened to one name durable.
    pub(super) fn sync_name(&mut self, at: &Place) {
        let chosen = self.choose(|change| change.places().any(|place| place == at));
        self.make_durable(&chosen);
    }

    /// Every file that some name refers to now, or may refer to after a crash.
    pub(super) fn mentioned(&self) -> BTreeSet<InodeId> {
        let pending = self.unsynced.iter().filter_map(|change| match change {
            NameChange::Add { inode, .. } | NameChange::Rename { inode, .. } => Some(*inode),
            NameChange::Remove { .. } => None,
        });
        self.durable
            .values()
            .chain(self.present.values())
            .copied()
            .chain(pending)
            .collect()
    }

    /// The directories with changes that are not durable, sorted, each with how many of them it owns.
    pub(super) fn unsynced_dirs(&self) -> BTreeMap<PathBuf, usize> {
        let mut counts = BTreeMap::new();
        for change in &self.unsynced {
            *counts.entry(change.owner().to_path_buf()).or_default() += 1;
        }
        counts
    }

    /// The names after a power loss in which `survives(dir, n)` says whether the `n`-th unsynced change of
    /// `dir` had reached the disk. What such a change builds on has reached it then, too.
    pub(super) fn after_crash(&self, survives: impl Fn(&Path, usize) -> bool) -> Self {
        let mut seen: BTreeMap<&Path, usize> = BTreeMap::new();
        let mut lucky = Vec::with_capacity(self.unsynced.len());
        for change in &self.unsynced {
            let nth = seen.entry(change.owner()).or_default();
            lucky.push(survives(change.owner(), *nth));
            *nth += 1;
        }
        let mut lucky = lucky.into_iter();
        let chosen = self.choose(|_| lucky.next().unwrap_or_default());
        let mut after = self.clone();
        after.make_durable(&chosen);
        after.unsynced = Vec::new();
        after.present = after.durable.clone();
        after
    }

    /// As they are, all durable.
    pub(super) fn after_process_crash(&self) -> Self {
        Self {
            dirs: self.dirs.clone(),
            present: self.present.clone(),
            durable: self.present.clone(),
            unsynced: Vec::new(),
        }
    }

    /// Marks the unsynced changes that are wanted and all that they build on: an earlier change of the same
    /// name, and whatever that builds on. No file system shows a name's third state without having gone
    /// through its second, and a rename's two names change together.
    fn choose(&self, wanted: impl FnMut(&NameChange) -> bool) -> Vec<bool> {
        let mut chosen: Vec<bool> = self.unsynced.iter().map(wanted).collect();
        let mut needed: BTreeSet<&Place> = BTreeSet::new();
        for (change, chosen) in self.unsynced.iter().zip(&mut chosen).rev() {
            if *chosen || change.places().any(|place| needed.contains(place)) {
                *chosen = true;
                needed.extend(change.places());
            }
        }
        chosen
    }

    fn make_durable(&mut self, chosen: &[bool]) {
        let durable = &mut self.durable;
        let mut chosen = chosen.iter();
        self.unsynced.retain(|change| {
            let chosen = chosen.next().copied().unwrap_or_default();
            if chosen {
                change.apply(durable);
            }
            !chosen
        });
    }
}
