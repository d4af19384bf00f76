//! What bounds each workload, computed from the machine's limits.

use crate::limit::Limits;
use crate::workload::{Work, Workload};

/// The least that any store has to do for one operation. Where nothing honest can be said, a workload has none: hot
/// keys of zipfian workloads lie in the processor's caches, and opens depend on what the store left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    PointRead,
    MissingRead,
    IndependentReads,
    SeekAndTen,
    Scan,
    Append,
    AppendAndInsert,
    SyncedAppend,
    ColdRead,
    ColdScan,
}

impl Bound {
    /// What bounds the workload, if anything does.
    pub(crate) fn of(work: Work) -> Option<Self> {
        match work {
            Work::FillSeq => Some(Self::Append),
            Work::FillRandom | Work::FillBatch | Work::Overwrite => Some(Self::AppendAndInsert),
            Work::FillSync => Some(Self::SyncedAppend),
            Work::ReadRandom | Work::ReadUnsettled | Work::ReadWhileWriting => Some(Self::PointRead),
            Work::ReadMissing => Some(Self::MissingRead),
            Work::MultiGet => Some(Self::IndependentReads),
            Work::SeekRandom | Work::SeekReuse => Some(Self::SeekAndTen),
            Work::Scan | Work::Reverse | Work::ScanDeleted => Some(Self::Scan),
            Work::ColdRead => Some(Self::ColdRead),
            Work::ColdScan => Some(Self::ColdScan),
            Work::Delete
            | Work::ReadZipfian
            | Work::SeekDeleted
            | Work::YcsbA
            | Work::YcsbB
            | Work::YcsbC
            | Work::YcsbD
            | Work::YcsbE
            | Work::YcsbF
            | Work::OpenClean
            | Work::OpenKilled => None,
        }
    }

    /// In words.
    pub(crate) fn formula(self) -> &'static str {
        match self {
            Self::PointRead => {
                "1 / (dependent read of a line + dependent read of a value) x cores in use: to where it lies, and it"
            }
            Self::MissingRead => "1 / dependent read of a line x cores in use: a filter's line",
            Self::IndependentReads => {
                "1 / (independent read of a line + of a value): nothing waits for the last"
            }
            Self::SeekAndTen => {
                "1 / (dependent read of a line + of a value + 10 records at the rate of a memory scan)"
            }
            Self::Scan => "rate of a memory scan / bytes of a record",
            Self::Append => "1 / copy of a record into a mapped log x cores in use",
            Self::AppendAndInsert => {
                "1 / (copy of a record into a mapped log + dependent read of a line) x cores in use: to its place"
            }
            Self::SyncedAppend => "threads / append with fdatasync: one sync carries a record of each thread",
            Self::ColdRead => {
                "random reads of a value's 4 KiB pages from the device (O_DIRECT) on as many threads"
            }
            Self::ColdScan => "sequential read from the device / bytes of a record",
        }
    }
}

/// The operations a second that the machine allows; `None` where there is no bound, or its figure was not measured.
pub(crate) fn ops_per_s(workload: Workload, limits: &Limits) -> Option<f64> {
    const MIB: f64 = 1_048_576.0;
    let cores = workload.threads.min(limits.cpus) as f64;
    let memory = limits.best_memory();
    let record_bytes = limits.record_bytes as f64;
    let per_ns = |ns: f64| 1e9 / ns;
    let to_the_value_ns = memory.dependent_line_ns + memory.dependent_value_ns;
    let scan_ns = record_bytes / (memory.scan_mib_per_s * MIB) * 1e9;
    let ops_per_s = match Bound::of(workload.work)? {
        Bound::PointRead => per_ns(to_the_value_ns) * cores,
        Bound::MissingRead => per_ns(memory.dependent_line_ns) * cores,
        Bound::IndependentReads => per_ns(memory.independent_line_ns + memory.independent_value_ns),
        Bound::SeekAndTen => per_ns(to_the_value_ns + 10.0 * scan_ns),
        Bound::Scan => per_ns(scan_ns),
        Bound::Append => per_ns(limits.append_copy_ns) * cores,
        Bound::AppendAndInsert => per_ns(limits.append_copy_ns + memory.dependent_line_ns) * cores,
        Bound::SyncedAppend => per_ns(limits.append_sync_ns) * workload.threads as f64,
        Bound::ColdRead => {
            limits
                .device_reads
                .iter()
                .find(|reads| reads.threads == workload.threads)?
                .per_s
        }
        Bound::ColdScan => limits.device_read_mib_per_s * MIB / record_bytes,
    };
    Some(ops_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{DeviceReads, Memory};

    fn limits() -> Limits {
        let heap = Memory {
            independent_line_ns: 10.0,
            dependent_line_ns: 100.0,
            independent_value_ns: 40.0,
            dependent_value_ns: 150.0,
            scan_mib_per_s: 1e9 / 1_048_576.0,
        };
        Limits {
            cpus: 2,
            memory_bytes: 1 << 20,
            value_bytes: 100,
            record_bytes: 116,
            heap,
            mapped: Memory {
                dependent_line_ns: 200.0,
                ..heap
            },
            append_write_ns: 500.0,
            append_copy_ns: 50.0,
            append_sync_ns: 50_000.0,
            device_write_mib_per_s: 1000.0,
            device_read_mib_per_s: 116.0,
            device_reads: vec![DeviceReads {
                threads: 8,
                bytes: 4096,
                per_s: 80_000.0,
            }],
        }
    }

    fn of(name: &str) -> Option<f64> {
        ops_per_s(Workload::parse(name, 1).unwrap(), &limits()).map(f64::round)
    }

    #[test]
    fn bounds_follow_their_formulas() {
        assert_eq!(of("readrandom"), Some(4_000_000.0));
        assert_eq!(of("readrandom@2"), Some(8_000_000.0));
        assert_eq!(of("multiget"), Some(20_000_000.0));
        // 116 bytes at 1 GB/s are 116 ns.
        assert_eq!(of("scan"), Some((1e9_f64 / 116.0).round()));
        assert_eq!(of("seekrandom"), Some((1e9_f64 / (250.0 + 1160.0)).round()));
        assert_eq!(of("fillseq"), Some(20_000_000.0));
        assert_eq!(of("fillrandom"), Some((1e9_f64 / 150.0).round()));
        assert_eq!(of("coldscan"), Some(1_048_576.0));
    }

    #[test]
    fn threads_count_up_to_the_cores_but_share_a_sync() {
        assert_eq!(of("readrandom@8"), of("readrandom@2"));
        assert_eq!(of("fillsync@1"), Some(20_000.0));
        assert_eq!(of("fillsync@32"), Some(640_000.0));
    }

    #[test]
    fn what_was_not_measured_or_means_nothing_is_left_out() {
        assert_eq!(of("coldread@8"), Some(80_000.0));
        assert_eq!(of("coldread"), None);
        assert_eq!(of("ycsb-a"), None);
    }
}
