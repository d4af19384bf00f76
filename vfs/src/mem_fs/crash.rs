//! What a power loss leaves: the choice, made from a seed, among the unsynced writes and changes of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::inode::{ChangeKind, Inode, InodeId, overwrite};
use super::names::Names;
use super::{MemFs, State};

/// The unit in which a disk writes: a torn write is torn here.
const SECTOR_BYTES: usize = 512;

impl MemFs {
    /// The file system after a power loss at this moment: a new one, independent of this one, with no locks.
    ///
    /// What was synced is there. Of the writes of each file since its sync, and of the changes of each
    /// directory's entries since its sync, the seed chooses none, all, a prefix, or an arbitrary subset; in
    /// one seed of eight nothing at all survives, and in another one everything does. The last write of a
    /// prefix may be torn at any byte; of a subset every write may have lost any of its 512-byte sectors.
    /// Files and names fare independently: a name may survive whose file is empty or in part, and bytes may
    /// be lost with their name.
    ///
    /// A rename is atomic, and a change of a name survives only together with the earlier changes of the same
    /// name. A hole that a lost write leaves before a later one reads as zeros; a file is as long as what
    /// survived.
    ///
    /// The same history and seed give the same result.
    pub fn crash_clone(&self, seed: u64) -> MemFs {
        let state = self.state.lock();
        let mut rng = Rng::new(seed);
        let tendency = Tendency::choose(&mut rng);
        let mut luck = BTreeMap::new();
        for (dir, count) in state.names.unsynced_dirs() {
            luck.insert(dir, Survival::choose(&mut rng, tendency, count));
        }
        let names = state
            .names
            .after_crash(|dir, nth| luck.get(dir).is_some_and(|luck| luck.keeps(nth)));
        state.survivor(names, |inode| surviving_content(inode, tendency, &mut rng))
    }

    /// The file system after the death of the process, and before a power loss: every write and every name is
    /// there, and what was not synced is not durable yet. Nothing is locked, and no open file refers to it.
    ///
    /// A process that finds such files must not take for durable what it reads: a later
    /// [`crash_clone`](MemFs::crash_clone) may lose it.
    pub fn killed_clone(&self) -> MemFs {
        let state = self.state.lock();
        let mut inodes = state.inodes.clone();
        inodes.values_mut().for_each(|inode| inode.handles = 0);
        let mut state = State {
            inodes,
            names: state.names.clone(),
            next_inode: state.next_inode,
            capacity_bytes: state.capacity_bytes,
            used_bytes: state.used_bytes,
            locked: Default::default(),
        };
        state.drop_unreachable();
        MemFs {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The file system after the death of the process, once all that it wrote has reached the disk by itself:
    /// every write and every name is there, and durable; nothing is locked, and no open file refers to it.
    pub fn process_crash_clone(&self) -> MemFs {
        let state = self.state.lock();
        state.survivor(state.names.after_process_crash(), |inode| {
            Arc::clone(inode.content())
        })
    }
}

impl State {
    fn survivor(&self, names: Names, mut content_of: impl FnMut(&Inode) -> Arc<Vec<u8>>) -> MemFs {
        let mut name_counts: BTreeMap<InodeId, usize> = BTreeMap::new();
        for (_, id) in names.entries() {
            *name_counts.entry(id).or_default() += 1;
        }
        let mut inodes = BTreeMap::new();
        let mut used_bytes = 0u64;
        for (id, names) in name_counts {
            let Some(inode) = self.inodes.get(&id) else {
                continue;
            };
            let survivor = Inode::survivor(content_of(inode), names);
            used_bytes = used_bytes.saturating_add(survivor.len());
            inodes.insert(id, survivor);
        }
        let state = State {
            inodes,
            names,
            next_inode: self.next_inode,
            capacity_bytes: self.capacity_bytes,
            used_bytes,
            locked: Default::default(),
        };
        MemFs {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

fn surviving_content(inode: &Inode, tendency: Tendency, rng: &mut Rng) -> Arc<Vec<u8>> {
    let changes = inode.unsynced();
    if changes.is_empty() {
        return Arc::clone(inode.content());
    }
    let survival = Survival::choose(rng, tendency, changes.len());
    if matches!(survival, Survival::Everything) {
        return Arc::clone(inode.content());
    }
    // Backwards to the synced bytes, picking up what the survivors wrote; then forwards with the survivors
    // only.
    let mut content = inode.content().as_ref().clone();
    let mut survivors = Vec::new();
    for (nth, change) in changes.iter().enumerate().rev() {
        if survival.keeps(nth) {
            survivors.push((nth, change.kind, change.written(&content).to_vec()));
        }
        change.undo(&mut content);
    }
    for (nth, kind, written) in survivors.into_iter().rev() {
        match kind {
            ChangeKind::Truncate { len } => content.truncate(len),
            ChangeKind::Write { offset, .. } => match survival.tear(nth, rng) {
                Tear::Whole => overwrite(&mut content, offset, &written),
                Tear::AtByte => {
                    let kept = rng.below(written.len());
                    overwrite(&mut content, offset, written.get(..kept).unwrap_or_default());
                }
                Tear::BySector => overwrite_some_sectors(&mut content, offset, &written, rng),
            },
        }
    }
    Arc::new(content)
}

fn overwrite_some_sectors(content: &mut Vec<u8>, offset: usize, written: &[u8], rng: &mut Rng) {
    let mut rest = written;
    let mut at = offset;
    while !rest.is_empty() {
        let (sector, after) = rest.split_at((SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len()));
        if rng.one_in(2) {
            overwrite(content, at, sector);
        }
        at += sector.len();
        rest = after;
    }
}

/// The mood of a whole crash: so that the two extremes are seen with many files, too.
#[derive(Clone, Copy)]
enum Tendency {
    Nothing,
    Everything,
    Mixed,
}

impl Tendency {
    fn choose(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Mixed,
        }
    }
}

/// Which of the unsynced changes of one file or directory survive.
enum Survival {
    Nothing,
    Everything,
    Prefix { count: usize, torn: bool },
    Subset { keeps: Vec<bool> },
}

enum Tear {
    Whole,
    AtByte,
    BySector,
}

impl Survival {
    fn choose(rng: &mut Rng, tendency: Tendency, count: usize) -> Self {
        match (tendency, rng.below(4)) {
            (Tendency::Nothing, _) | (Tendency::Mixed, 0) => Self::Nothing,
            (Tendency::Everything, _) | (Tendency::Mixed, 1) => Self::Everything,
            (Tendency::Mixed, 2) => Self::Prefix {
                count: 1 + rng.below(count),
                torn: rng.one_in(2),
            },
            (Tendency::Mixed, _) => Self::Subset {
                keeps: (0..count).map(|_| rng.one_in(2)).collect(),
            },
        }
    }

    fn keeps(&self, nth: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Prefix { count, .. } => nth < *count,
            Self::Subset { keeps } => keeps.get(nth).copied().unwrap_or_default(),
        }
    }

    fn tear(&self, nth: usize, rng: &mut Rng) -> Tear {
        match self {
            Self::Prefix { count, torn: true } if nth + 1 == *count => Tear::AtByte,
            Self::Subset { .. } if rng.one_in(4) => Tear::BySector,
            _ => Tear::Whole,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): small, fast, and good enough for a choice.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or zero; the bias of the remainder is of no account here.
    fn below(&mut self, bound: usize) -> usize {
        // usize has at most 64 bits on every platform that Rust supports.
        let bound = (bound as u64).max(1);
        usize::try_from(self.next() % bound).unwrap_or_default()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
