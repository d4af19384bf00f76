//! The workloads: their names, and what each needs before it starts.

use serde::{Deserialize, Serialize};

use crate::bound::Bound;
use crate::engine::{Result, Survives};

/// What a run measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    FillSeq,
    FillRandom,
    FillBatch,
    FillSync,
    Overwrite,
    Delete,
    ReadRandom,
    ReadZipfian,
    ReadMissing,
    ReadUnsettled,
    MultiGet,
    SeekRandom,
    SeekReuse,
    Scan,
    Reverse,
    SeekDeleted,
    ScanDeleted,
    ReadWhileWriting,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbD,
    YcsbE,
    YcsbF,
    OpenClean,
    OpenKilled,
    ColdRead,
    ColdScan,
}

/// What the directory holds when the run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Nothing.
    Empty,
    /// All records, settled; the run changes none, so all such runs of an engine share one directory.
    Shared,
    /// All records, settled, loaded for this run alone.
    Own,
    /// Records whose writer was killed.
    Killed,
}

/// One entry of the list.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) work: Work,
    pub(crate) threads: u64,
}

/// Name, work, whether threads can be chosen, and a line of explanation.
const WORKS: &[(&str, Work, bool, &str)] = &[
    ("fillseq", Work::FillSeq, false, "put in key order"),
    (
        "fillrandom",
        Work::FillRandom,
        true,
        "put in random order, each key once",
    ),
    (
        "fillbatch",
        Work::FillBatch,
        false,
        "random order, atomic batches of 1,000; counts records",
    ),
    (
        "fillsync",
        Work::FillSync,
        true,
        "put that survives power loss; n/50 records, 1,000 to 100,000",
    ),
    (
        "overwrite",
        Work::Overwrite,
        false,
        "put every loaded key once more, in random order",
    ),
    (
        "delete",
        Work::Delete,
        false,
        "delete every loaded key, in random order",
    ),
    (
        "readrandom",
        Work::ReadRandom,
        true,
        "get of loaded keys, each equally likely",
    ),
    (
        "readzipfian",
        Work::ReadZipfian,
        true,
        "get of loaded keys, zipfian 0.99, hot keys spread",
    ),
    (
        "readmissing",
        Work::ReadMissing,
        true,
        "get of keys that lie between loaded ones",
    ),
    (
        "readunsettled",
        Work::ReadUnsettled,
        false,
        "readrandom straight after fillrandom in the same process",
    ),
    (
        "multiget",
        Work::MultiGet,
        false,
        "64 random loaded keys a call; counts keys, latency of a call",
    ),
    (
        "seekrandom",
        Work::SeekRandom,
        false,
        "seek and 10 next, a new view each; n/4 calls",
    ),
    (
        "seekreuse",
        Work::SeekReuse,
        false,
        "seekrandom over one view for all, with one cursor where the store can move it",
    ),
    (
        "scan",
        Work::Scan,
        false,
        "all records forwards; counts records, no latencies",
    ),
    (
        "reverse",
        Work::Reverse,
        false,
        "all records backwards; counts records, no latencies",
    ),
    (
        "seekdeleted",
        Work::SeekDeleted,
        false,
        "seek to the start of n/4 keys just deleted, 11 times",
    ),
    (
        "scandeleted",
        Work::ScanDeleted,
        false,
        "scan of all when n/4 neighbours were just deleted; counts those left",
    ),
    (
        "readwhilewriting",
        Work::ReadWhileWriting,
        false,
        "readrandom beside one writer at full speed",
    ),
    ("ycsb-a", Work::YcsbA, false, "50 read, 50 update, zipfian"),
    ("ycsb-b", Work::YcsbB, false, "95 read, 5 update, zipfian"),
    ("ycsb-c", Work::YcsbC, false, "read, zipfian"),
    ("ycsb-d", Work::YcsbD, false, "95 read of the latest, 5 insert"),
    (
        "ycsb-e",
        Work::YcsbE,
        false,
        "95 scan of 1 to 100 from a zipfian key, 5 insert; n/10 calls",
    ),
    (
        "ycsb-f",
        Work::YcsbF,
        false,
        "50 read, 50 read, modify and write, zipfian",
    ),
    (
        "open",
        Work::OpenClean,
        false,
        "open after a clean close, and one get; 5 times",
    ),
    (
        "openkilled",
        Work::OpenKilled,
        false,
        "open after a kill with up to 56 MiB of records in the log",
    ),
    (
        "coldread",
        Work::ColdRead,
        true,
        "readrandom with nothing cached and little memory; at most 100,000 calls, 200,000 with threads",
    ),
    (
        "coldscan",
        Work::ColdScan,
        false,
        "scan with nothing cached and little memory; counts records, no latencies",
    ),
];

/// What runs when nothing is named.
pub(crate) const ALL: &str = "fillseq,fillrandom,fillrandom@2,fillbatch,fillsync@1,fillsync@8,fillsync@32,overwrite,\
     delete,readrandom,readrandom@2,readzipfian,readzipfian@2,readmissing,readunsettled,multiget,seekrandom,\
     seekreuse,scan,reverse,seekdeleted,scandeleted,readwhilewriting,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f,open,\
     openkilled,coldread,coldread@8,coldscan";

impl Workload {
    /// Reads `name` or `name@threads`; `threads` is for the names that give none.
    pub(crate) fn parse(text: &str, threads: u64) -> Result<Self> {
        let (name, given) = match text.split_once('@') {
            Some((name, count)) => (name, Some(count.parse::<u64>()?)),
            None => (text, None),
        };
        let (_, work, threaded, _) = WORKS
            .iter()
            .find(|(known, ..)| *known == name)
            .ok_or_else(|| format!("no workload {name}; `list` names them"))?;
        if given == Some(0) || (given.is_some_and(|count| count > 1) && !threaded) {
            return Err(format!("{text}: {name} does not run with that many threads").into());
        }
        let threads = if *threaded {
            given.unwrap_or(threads).max(1)
        } else {
            1
        };
        Ok(Self { work: *work, threads })
    }

    /// As it is named in results: `@` and the threads where there is more than one, and always for `fillsync`.
    pub(crate) fn name(&self) -> String {
        let name = WORKS
            .iter()
            .find(|(_, work, ..)| *work == self.work)
            .map_or("", |(name, ..)| *name);
        if self.threads > 1 || self.work == Work::FillSync {
            format!("{name}@{}", self.threads)
        } else {
            name.to_owned()
        }
    }

    /// Where it starts from.
    pub(crate) fn ground(&self) -> Ground {
        match self.work {
            Work::FillSeq | Work::FillRandom | Work::FillBatch | Work::FillSync | Work::ReadUnsettled => {
                Ground::Empty
            }
            Work::ReadRandom
            | Work::ReadZipfian
            | Work::ReadMissing
            | Work::MultiGet
            | Work::SeekRandom
            | Work::SeekReuse
            | Work::Scan
            | Work::Reverse
            | Work::YcsbC
            | Work::OpenClean
            | Work::ColdRead
            | Work::ColdScan => Ground::Shared,
            Work::Overwrite
            | Work::Delete
            | Work::SeekDeleted
            | Work::ScanDeleted
            | Work::ReadWhileWriting
            | Work::YcsbA
            | Work::YcsbB
            | Work::YcsbD
            | Work::YcsbE
            | Work::YcsbF => Ground::Own,
            Work::OpenKilled => Ground::Killed,
        }
    }

    /// Whether it starts with nothing cached and with little memory.
    pub(crate) fn is_cold(&self) -> bool {
        matches!(self.work, Work::ColdRead | Work::ColdScan)
    }

    /// Whether one call goes through all records, so that it has no latencies and nothing happens over time.
    pub(crate) fn is_one_call(&self) -> bool {
        matches!(
            self.work,
            Work::Scan | Work::Reverse | Work::ScanDeleted | Work::ColdScan
        )
    }

    /// The level every engine acknowledges at.
    pub(crate) fn survives(&self) -> Survives {
        if self.work == Work::FillSync {
            Survives::PowerLoss
        } else {
            Survives::Process
        }
    }
}

/// Prints names, explanations and what bounds each.
pub(crate) fn list() {
    for (name, work, threaded, what) in WORKS {
        println!(
            "  {name:<17} {what}{}",
            if *threaded { " (name@threads)" } else { "" }
        );
        if let Some(bound) = Bound::of(*work) {
            println!("  {:<17} limit: {}", "", bound.formula());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_workload_parses_to_its_own_name() {
        for text in ALL.split(',') {
            assert_eq!(Workload::parse(text, 1).unwrap().name(), text);
        }
    }

    #[test]
    fn wrong_names_and_thread_counts_are_refused() {
        for text in ["fill", "scan@2", "fillrandom@0", "fillrandom@x"] {
            assert!(Workload::parse(text, 1).is_err(), "{text}");
        }
    }
}
