//! The open tables of a version, as reads and jobs find them.

use std::collections::HashMap;
use std::sync::Arc;

use siltstone_compaction::{LEVELS, TableMeta, Version};
use siltstone_sstable::{KeyHeads, TableId};

use crate::sliced_filter::{Slice, SlicedFilter};
use crate::table_handle::TableHandle;

/// A table for a version that is about to have it.
pub(crate) struct Opened {
    pub(crate) handle: Arc<TableHandle>,
    pub(crate) slice: Option<Slice>,
}

/// Runs that a word has bits for.
const ASKED_BY_BIT: usize = u64::BITS as usize;

/// The tables of a version, open.
#[derive(Default)]
pub(crate) struct TableSet {
    pub(crate) version: Version,
    /// The newest first: those of level 0, then each deeper level that has tables.
    runs: Vec<SortedRun>,
    /// Runs that every read asks, a bit each: those without a slice. Runs from the 64th on are always asked.
    unsliced: u64,
    sliced: Option<SlicedRuns>,
}

/// Runs with slices of one filter.
struct SlicedRuns {
    filter: Arc<SlicedFilter>,
    /// The slices.
    slices: u32,
    /// By the place of a slice's bit.
    run_of: [u8; u32::BITS as usize],
}

/// Tables with disjoint keys, in key order: a level below 0, or a part of level 0.
pub(crate) struct SortedRun {
    pub(crate) tables: Box<[Arc<TableHandle>]>,
    /// Their largest keys.
    largest: KeyHeads,
    /// Whether it is a single table of level 0.
    is_flushed: bool,
    /// That table's part in the filter of level 0.
    slice: Option<Arc<Slice>>,
}

impl SortedRun {
    fn new(
        metas: &[Arc<TableMeta>],
        level: usize,
        handles: &HashMap<TableId, Arc<TableHandle>>,
    ) -> SortedRun {
        let open = |meta: &Arc<TableMeta>| {
            Arc::clone(
                handles
                    .get(&meta.id)
                    .expect("every table of a version has been opened"),
            )
        };
        SortedRun {
            tables: metas.iter().map(open).collect(),
            largest: KeyHeads::new(metas.iter().map(|meta| &*meta.largest)),
            is_flushed: level == 0 && metas.len() == 1,
            slice: None,
        }
    }

    /// The first table whose largest key is at least `key`, or the count.
    #[inline]
    pub(crate) fn first_reaching(&self, key: &[u8]) -> usize {
        self.largest
            .lower_bound(key, |at| &self.tables[at].meta().largest)
    }

    /// The table, if it is a single one of level 0.
    pub(crate) fn as_flushed(&self) -> Option<&Arc<TableHandle>> {
        self.tables.first().filter(|_| self.is_flushed)
    }
}

impl TableSet {
    /// The set for `version`, with handles and slices from `old` and from `opened`.
    ///
    /// # Panics
    /// Where a table of the version is in neither: whoever installs a version opens its tables first.
    pub(crate) fn new(version: Version, old: &TableSet, opened: impl IntoIterator<Item = Opened>) -> Self {
        let mut handles: HashMap<TableId, Arc<TableHandle>> = old
            .handles()
            .map(|handle| (handle.meta().id, Arc::clone(handle)))
            .collect();
        let mut slices: HashMap<TableId, Arc<Slice>> = HashMap::new();
        for run in &old.runs {
            if let (Some(handle), Some(slice)) = (run.as_flushed(), &run.slice) {
                slices.insert(handle.meta().id, Arc::clone(slice));
            }
        }
        for Opened { handle, slice } in opened {
            let id = handle.meta().id;
            handles.insert(id, handle);
            match slice {
                Some(slice) => slices.insert(id, Arc::new(slice)),
                None => slices.remove(&id),
            };
        }
        let l0 = version.l0_runs().iter().map(|run| {
            let mut run = SortedRun::new(&run.tables, 0, &handles);
            run.slice = run
                .as_flushed()
                .and_then(|handle| slices.remove(&handle.meta().id));
            run
        });
        let deeper = (1..LEVELS).filter(|level| !version.level(*level).is_empty());
        let deeper = deeper.map(|level| SortedRun::new(version.level(level), level, &handles));
        let runs: Vec<SortedRun> = l0.chain(deeper).collect();
        let sliced = SlicedRuns::new(&runs);
        let is_sliced = |at: usize| sliced.as_ref().is_some_and(|sliced| sliced.has(&runs[at]));
        let unsliced = (0..runs.len().min(ASKED_BY_BIT)).filter(|at| !is_sliced(*at));
        TableSet {
            unsliced: unsliced.fold(0, |bits, at| bits | 1 << at),
            sliced,
            runs,
            version,
        }
    }

    /// All sorted runs, the newest first.
    pub(crate) fn runs(&self) -> &[SortedRun] {
        &self.runs
    }

    /// Starts to load what [`candidates`](Self::candidates) looks at first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(sliced) = &self.sliced {
            sliced.filter.prefetch(hash);
        }
    }

    /// Hands over the tables that may hold `key`, the newest first: of those that level 0 has by themselves the ones that
    /// reach over it, if their slice does not rule it out, and one of each run of several, where the key may lie before all that the table holds.
    #[inline]
    pub(crate) fn candidates<'t>(&'t self, key: &[u8], hash: u64, mut take: impl FnMut(&'t TableHandle)) {
        let mut asked = self.unsliced;
        if let Some(sliced) = &self.sliced {
            asked |= sliced.runs_with(hash);
        }
        let mut ask = |run: &'t SortedRun| {
            if let Some(handle) = run.as_flushed() {
                if handle.meta().contains(key) {
                    take(handle);
                }
            } else if let Some(handle) = run.tables.get(run.first_reaching(key)) {
                take(handle);
            }
        };
        while asked != 0 {
            ask(&self.runs[asked.trailing_zeros() as usize]);
            asked &= asked - 1;
        }
        self.runs.iter().skip(ASKED_BY_BIT).for_each(ask);
    }

    /// Bytes of the filter that `candidates` asks.
    pub(crate) fn l0_filter_bytes(&self) -> u64 {
        self.sliced
            .as_ref()
            .map_or(0, |sliced| sliced.filter.size_bytes())
    }

    pub(crate) fn handles(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.runs.iter().flat_map(|run| &run.tables)
    }

    pub(crate) fn find(&self, id: TableId) -> Option<&Arc<TableHandle>> {
        self.handles().find(|handle| handle.meta().id == id)
    }
}

impl SlicedRuns {
    /// Of the filter of the newest run that has a slice, those of the first [`ASKED_BY_BIT`] runs.
    fn new(runs: &[SortedRun]) -> Option<SlicedRuns> {
        let runs = &runs[..runs.len().min(ASKED_BY_BIT)];
        let newest = runs.iter().find_map(|run| run.slice.as_ref())?;
        let mut sliced = SlicedRuns {
            filter: Arc::clone(newest.filter()),
            slices: 0,
            run_of: [0; u32::BITS as usize],
        };
        for (run, at) in runs.iter().zip(0..) {
            if let Some(slice) = run.slice.as_ref().filter(|_| sliced.has(run)) {
                sliced.slices |= slice.bit();
                sliced.run_of[slice.bit().trailing_zeros() as usize] = at;
            }
        }
        Some(sliced)
    }

    /// Whether the filter speaks for `run`.
    fn has(&self, run: &SortedRun) -> bool {
        let slice = run.slice.as_ref();
        slice.is_some_and(|slice| Arc::ptr_eq(slice.filter(), &self.filter))
    }

    /// One bit for each run that may hold a key with this hash.
    #[inline]
    fn runs_with(&self, hash: u64) -> u64 {
        let mut slices = self.filter.slices_with(hash) & self.slices;
        let mut runs = 0;
        while slices != 0 {
            runs |= 1 << self.run_of[slices.trailing_zeros() as usize];
            slices &= slices - 1;
        }
        runs
    }
}

#[cfg(test)]
mod tests;
