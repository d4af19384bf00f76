//! What the machine could do at best: the figures that results are held against.

mod probe;

use std::path::Path;

use serde::Serialize;

use crate::data::mix;
use crate::engine::Result;

const MEMORY_BYTES_MIN: usize = 1 << 20;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// Bytes of memory that reads are spread over.
    pub(crate) memory_bytes: usize,
    /// Bytes of a value, which a read takes.
    pub(crate) value_bytes: usize,
    /// Bytes of key and value, which an append takes.
    pub(crate) record_bytes: usize,
    /// Numbers of threads that read the device at random.
    pub(crate) threads: Vec<u64>,
}

/// Random reads, and a scan, of memory that is larger than the caches if the scope says so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// 8 bytes of a cache line.
    pub(crate) independent_line_ns: f64,
    /// The same, when the address is known only after the last read.
    pub(crate) dependent_line_ns: f64,
    /// Every byte of a value.
    pub(crate) independent_value_ns: f64,
    /// The same, when the address is known only after the last read.
    pub(crate) dependent_value_ns: f64,
    /// Every byte, in order.
    pub(crate) scan_mib_per_s: f64,
}

/// Random reads past the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct DeviceReads {
    pub(crate) threads: u64,
    pub(crate) bytes: usize,
    pub(crate) per_s: f64,
}

/// The machine's limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Limits {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) record_bytes: usize,
    pub(crate) heap: Memory,
    /// A file, mapped and in the page cache.
    pub(crate) mapped: Memory,
    /// A record, by `write(2)`.
    pub(crate) append_write_ns: f64,
    /// A record, copied into a mapping of a preallocated file.
    pub(crate) append_copy_ns: f64,
    /// A record into a preallocated file, and `fdatasync`.
    pub(crate) append_sync_ns: f64,
    /// In order, synced at the end.
    pub(crate) device_write_mib_per_s: f64,
    /// In order, nothing cached here (a host may).
    pub(crate) device_read_mib_per_s: f64,
    /// Empty where the file system knows no `O_DIRECT`.
    pub(crate) device_reads: Vec<DeviceReads>,
}

impl Limits {
    /// Measures, with files in `dir`. Takes seconds.
    pub(crate) fn measure(dir: &Path, scope: &Scope) -> Result<Self> {
        if scope.memory_bytes < MEMORY_BYTES_MIN.max(4 * scope.value_bytes) {
            return Err("at least 1 MiB of memory, and four values, are needed".into());
        }
        let words: Vec<u8> = (0..scope.memory_bytes as u64 / 8)
            .flat_map(|word| mix(word).to_le_bytes())
            .collect();
        let heap = probe::memory(&words, scope.value_bytes);
        let mapped = probe::mapped_memory(&dir.join("mapped"), words, scope.value_bytes)?;

        let record = vec![7_u8; scope.record_bytes];
        let path = dir.join("sequential");
        let device_write_mib_per_s = probe::write_in_order(&path)?;
        let device_read_mib_per_s = probe::read_in_order(&path)?;
        let mut device_reads = Vec::new();
        for threads in &scope.threads {
            let bytes = scope.value_bytes.max(1).next_multiple_of(probe::PAGE_BYTES);
            if let Some(per_s) = probe::read_at_random(&path, *threads, bytes)? {
                device_reads.push(DeviceReads {
                    threads: *threads,
                    bytes,
                    per_s,
                });
            }
        }
        std::fs::remove_file(path)?;
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from) as u64,
            memory_bytes: scope.memory_bytes,
            value_bytes: scope.value_bytes,
            record_bytes: scope.record_bytes,
            heap,
            mapped,
            append_write_ns: probe::append_by_write(dir, &record)?,
            append_copy_ns: probe::append_by_copy(dir, &record)?,
            append_sync_ns: probe::append_and_sync(dir, &record)?,
            device_write_mib_per_s,
            device_read_mib_per_s,
            device_reads,
        })
    }

    /// The better of heap and mapping in each respect.
    pub(crate) fn best_memory(&self) -> Memory {
        let (heap, mapped) = (&self.heap, &self.mapped);
        Memory {
            independent_line_ns: heap.independent_line_ns.min(mapped.independent_line_ns),
            dependent_line_ns: heap.dependent_line_ns.min(mapped.dependent_line_ns),
            independent_value_ns: heap.independent_value_ns.min(mapped.independent_value_ns),
            dependent_value_ns: heap.dependent_value_ns.min(mapped.dependent_value_ns),
            scan_mib_per_s: heap.scan_mib_per_s.max(mapped.scan_mib_per_s),
        }
    }

    /// Prints them.
    pub(crate) fn print(&self) {
        let show = |name: String, figure: String| println!("  {name:<56} {figure}");
        println!(
            "limits of this machine ({} CPUs; {} MiB of memory, values of {} B, records of {} B):",
            self.cpus,
            self.memory_bytes >> 20,
            self.value_bytes,
            self.record_bytes
        );
        for (what, memory) in [("heap", &self.heap), ("mapped file", &self.mapped)] {
            for (kind, line, value) in [
                (
                    "independent",
                    memory.independent_line_ns,
                    memory.independent_value_ns,
                ),
                (
                    "each after the last",
                    memory.dependent_line_ns,
                    memory.dependent_value_ns,
                ),
            ] {
                show(
                    format!("random read, {what}, {kind}: a line; a value"),
                    format!("{line:.1} ns; {value:.1} ns"),
                );
            }
            show(
                format!("scan of every byte, {what}"),
                format!("{:.0} MiB/s", memory.scan_mib_per_s),
            );
        }
        show(
            "append of a record by write(2)".to_owned(),
            format!("{:.0} ns", self.append_write_ns),
        );
        show(
            "append of a record, copied into a preallocated mapping".to_owned(),
            format!("{:.0} ns", self.append_copy_ns),
        );
        show(
            "append of a record and fdatasync, preallocated".to_owned(),
            format!("{:.1} us", self.append_sync_ns / 1e3),
        );
        show(
            format!("write of {} MiB in order, and fdatasync", probe::FILE_BYTES >> 20),
            format!("{:.0} MiB/s", self.device_write_mib_per_s),
        );
        show(
            format!(
                "read of {} MiB in order, not cached (here)",
                probe::FILE_BYTES >> 20
            ),
            format!("{:.0} MiB/s", self.device_read_mib_per_s),
        );
        for reads in &self.device_reads {
            show(
                format!(
                    "random read of {} KiB, O_DIRECT, {} threads",
                    reads.bytes >> 10,
                    reads.threads
                ),
                format!("{:.0} /s", reads.per_s),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_for_the_values_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope {
            memory_bytes: 1 << 20,
            value_bytes: 1 << 20,
            record_bytes: 1 << 20,
            threads: Vec::new(),
        };
        assert!(Limits::measure(dir.path(), &scope).is_err());
    }
}
