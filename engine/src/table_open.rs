//! Opening table files: those that a manifest names, and those that have just been written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use siltstone_compaction::TableMeta;
use siltstone_sstable::{BlockCache, Table, TableId};
use siltstone_vfs::{Advice, DirLock, Error, Fs, MapMode, Result};

use crate::files;
use crate::options::Options;
use crate::reaper::Garbage;
use crate::table_handle::TableHandle;

/// Opens a table: mapped, or, with `mapped_max` tables mapped already, for positioned reads.
pub(crate) fn open_table(
    fs: &dyn Fs,
    path: &Path,
    lock: &DirLock,
    id: TableId,
    cache: &Arc<BlockCache>,
    mapped: &AtomicUsize,
    mapped_max: usize,
) -> Result<Arc<Table>> {
    let slot = mapped.fetch_add(1, Ordering::Relaxed);
    let mode = if slot < mapped_max {
        MapMode::Map
    } else {
        MapMode::Read
    };
    let open = || {
        let mapping = fs.open_table(path, lock, mode)?;
        // Before the first page is read: until then the system reads around it, on some machines megabytes. Advice that is refused costs
        // speed alone.
        let _ = mapping.advise(Advice::Random);
        Table::open_lazily(mapping, id, Arc::clone(cache)).map(Arc::new)
    };
    open().inspect_err(|_| {
        mapped.fetch_sub(1, Ordering::Relaxed);
    })
}

/// Opens tables before there is a core.
pub(crate) struct Opener<'o> {
    pub(crate) fs: &'o Arc<dyn Fs>,
    pub(crate) dir: &'o Path,
    pub(crate) lock: &'o DirLock,
    pub(crate) cache: &'o Arc<BlockCache>,
    pub(crate) garbage: &'o crossbeam_channel::Sender<Garbage>,
    pub(crate) options: &'o Options,
}

impl Opener<'_> {
    /// A handle for the table of `meta`, with what is wrong with it if something is.
    pub(crate) fn open(&self, meta: &Arc<TableMeta>, mapped: &AtomicUsize) -> Arc<TableHandle> {
        let path = files::table_path(self.dir, meta.id);
        let max = self.options.mapped_tables_max;
        let table = open_table(&**self.fs, &path, self.lock, meta.id, self.cache, mapped, max);
        let table = table.and_then(|table| {
            let (found, expected) = (table.size_bytes(), meta.size_bytes);
            if found != expected {
                return Err(Error::corruption(
                    &path,
                    found,
                    format!("table has {found} bytes, the manifest says {expected}"),
                ));
            }
            let properties = table.properties();
            if *properties.smallest_key != *meta.smallest
                || *properties.largest_key != *meta.largest
                || (properties.entries, properties.tombstones) != (meta.entries, meta.tombstones)
                || (properties.seqno_min, properties.seqno_max) != (meta.seqno_min, meta.seqno_max)
            {
                return Err(Error::corruption(
                    &path,
                    0,
                    "table has other counts, keys or seqnos than the manifest says: it is another table",
                ));
            }
            Ok(table)
        });
        TableHandle::new(Arc::clone(meta), path, table, self.garbage.clone())
    }
}
