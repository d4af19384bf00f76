//! Keyspaces: the reads and writes of one ordered space of keys.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use siltstone_compaction::pick_range;
use siltstone_sstable::{SeqNo, ValueKind};
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::batch::KeyspaceId;
use crate::core::Core;
use crate::cursor::{Cursor, KeyBounds};
use crate::db::Handle;
use crate::iter::Iter;
use crate::multi_get;
use crate::options::BackgroundMode;
use crate::super_version::SuperVersion;
use crate::tree::Tree;
use crate::value::Value;

/// The name of the keyspace that [`Db`](crate::Db)'s own reads and writes go to.
pub(crate) const DEFAULT_NAME: &str = "default";

/// One ordered space of keys in a database. A cheap clone; it keeps the database open.
///
/// Each keyspace has its own tree and options; all share one log, so that a [`WriteBatch`](crate::WriteBatch) is
/// atomic across them and a [`Snapshot`](crate::Snapshot) sees all of them at one seqno.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone::{Db, KeyspaceOptions, WriteBatch};
/// let db = Db::open(dir.path())?;
/// let users = db.keyspace("users", KeyspaceOptions::default())?;
/// let by_mail = db.keyspace("users-by-mail", KeyspaceOptions::default())?;
/// let mut batch = WriteBatch::new();
/// batch.put_in(&users, "17", "Ada").put_in(&by_mail, "ada@example", "17");
/// db.write(batch)?;
/// assert_eq!(users.get("17")?.unwrap(), "Ada");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<Handle>,
    tree: Arc<Tree>,
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<Handle>, tree: Arc<Tree>) -> Keyspace {
        Keyspace { handle, tree }
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.tree.id
    }

    pub(crate) fn database(&self) -> u64 {
        self.core().database
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.tree.name
    }

    /// Sets `key` to `value`, as a batch of one.
    ///
    /// # Errors
    /// `InvalidInput` for a key over 64 KiB or a value over 1 GiB; `Busy` where the write was held up past the stall
    /// timeout; `NoSpace`; `Poisoned` after an earlier write failed; `Closed`; `NotFound` in a dropped keyspace; `Io`.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.core()
            .write_one(self.tree.id, ValueKind::Put, key.as_ref(), value.as_ref())
    }

    /// Deletes `key`, as a batch of one; a key that is not there is no error.
    ///
    /// # Errors
    /// As [`put`](Keyspace::put).
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.core()
            .write_one(self.tree.id, ValueKind::Delete, key.as_ref(), &[])
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// `Corruption` where a block that it needs is damaged; `Closed`; `NotFound` in a dropped keyspace; `Io`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.get_with(key, |bytes| Value::from(bytes))
    }

    /// Calls `read` with the value of `key` where it lies: in a memtable, in a mapped file, or in the block cache.
    /// Nothing is copied. What `read` is given rests on nobody else changing the database's files.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    #[inline]
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        get_with(self.core(), &self.tree, None, key.as_ref(), read)
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// The values of `keys`, in their order, all as they were at one seqno.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Vec<Result<Option<Value>>> {
        multi_get(self.core(), &self.tree, None, keys)
    }

    /// All entries.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    pub fn iter(&self) -> Result<Iter> {
        self.range::<&[u8]>(..)
    }

    /// The entries within `bounds`.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Iter> {
        Ok(Iter::new(self.cursor(bounds)?))
    }

    /// The entries whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        Ok(Iter::new(cursor(
            self.core(),
            &self.tree,
            None,
            prefix_bounds(prefix.as_ref()),
        )?))
    }

    /// A cursor over the entries within `bounds`; it stands nowhere until it is moved.
    ///
    /// # Errors
    /// As [`get`](Keyspace::get).
    pub fn cursor<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Cursor> {
        cursor(self.core(), &self.tree, None, owned_bounds(bounds))
    }

    /// Makes tables of what is in this keyspace's memtables, and waits for it.
    ///
    /// # Errors
    /// As [`put`](Keyspace::put), and what the flush met.
    pub fn flush(&self) -> Result<()> {
        self.core().flush_now(std::slice::from_ref(&self.tree))
    }

    /// Compacts the whole of `bounds` into the bottommost level: deleted and overwritten data in it is gone from the
    /// disk afterwards, unless a snapshot needs it. Works in parts, each of which needs free space for what it
    /// rewrites: about 25 tables at the most, and no more than is left of the reserve while the disk is full (but at least
    /// one table and what it overlaps).
    ///
    /// # Errors
    /// As [`flush`](Keyspace::flush), and what the compaction met.
    pub fn compact<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<()> {
        let key = |bound: Bound<&K>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => Some(key.as_ref().to_vec()),
        };
        let (smallest, largest) = (key(bounds.start_bound()), key(bounds.end_bound()));
        self.flush()?;
        let core = self.core();
        let _mine = core.take_over_compaction(&self.tree)?;
        for level in 0..siltstone_compaction::LEVELS {
            loop {
                core.check_open()?;
                let options = core.leveled_options(&self.tree);
                let ran = core.run_plan(&self.tree, |in_flight| {
                    let view = self.tree.pin();
                    let (smallest, largest) = (smallest.as_deref(), largest.as_deref());
                    pick_range(
                        &view.tables.version,
                        &options,
                        in_flight,
                        level,
                        smallest,
                        largest,
                    )
                })?;
                if !ran {
                    break;
                }
                if core.background == BackgroundMode::Manual {
                    // What the plan has freed is room for the next one.
                    core.reaper.lock().step(core);
                }
            }
        }
        Ok(())
    }

    /// Bytes of this keyspace's tables on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.tree.pin().tables.version.total_bytes()
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace")
            .field("id", &self.tree.id)
            .field("name", &self.tree.name)
            .finish()
    }
}

pub(crate) fn check_readable(core: &Core, tree: &Tree) -> Result<()> {
    core.check_open()?;
    if tree.is_dropped() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("keyspace {} has been dropped", tree.name),
        ));
    }
    Ok(())
}

/// A point read. The view is pinned before the seqno is read: whatever is visible at that seqno and not in the view
/// was committed after the read began.
#[inline]
pub(crate) fn get_with<R>(
    core: &Core,
    tree: &Tree,
    seqno: Option<SeqNo>,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> R,
) -> Result<Option<R>> {
    let view = tree.pin();
    // After the view: a dropped keyspace is marked before its view is emptied.
    check_readable(core, tree)?;
    let seqno = seqno.unwrap_or_else(|| core.visible());
    Ok(view.get(key, seqno)?.map(|found| read(&found)))
}

pub(crate) fn multi_get<K: AsRef<[u8]>>(
    core: &Core,
    tree: &Tree,
    seqno: Option<SeqNo>,
    keys: impl IntoIterator<Item = K>,
) -> Vec<Result<Option<Value>>> {
    let view = tree.pin();
    let keys: Vec<K> = keys.into_iter().collect();
    if let Err(error) = check_readable(core, tree) {
        return keys.iter().map(|_| Err(error.clone())).collect();
    }
    let seqno = seqno.unwrap_or_else(|| core.visible());
    multi_get::get_all(&view, &keys, seqno)
}

pub(crate) fn cursor(
    core: &Arc<Core>,
    tree: &Tree,
    seqno: Option<SeqNo>,
    bounds: KeyBounds,
) -> Result<Cursor> {
    let view = tree.view();
    check_readable(core, tree)?;
    let seqno = seqno.unwrap_or_else(|| visible_in(core, &view));
    Cursor::new(Arc::clone(core), view, seqno, bounds)
}

/// The last seqno up to which `view`, which may have been replaced meanwhile, has everything that is visible. Where a cursor finds a
/// range dead, it says so of its seqno to all later ones: what its view does not have must not count as seen.
pub(crate) fn visible_in(core: &Core, view: &SuperVersion) -> SeqNo {
    let visible = core.visible();
    // A put that the view does not have was given its seqno after the view's memtable had been sealed.
    let sealed = view.memtable.sealed();
    sealed.map_or(visible, |(last, _)| visible.min(last))
}

pub(crate) fn owned_bounds<K: AsRef<[u8]>>(bounds: impl RangeBounds<K>) -> KeyBounds {
    let own = |bound: Bound<&K>| bound.map(|key| Box::from(key.as_ref()));
    (own(bounds.start_bound()), own(bounds.end_bound()))
}

/// The bounds of all keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> KeyBounds {
    let after = prefix.iter().rposition(|byte| *byte != u8::MAX).map(|last| {
        let mut after = prefix[..=last].to_vec();
        after[last] += 1;
        after.into_boxed_slice()
    });
    (
        Bound::Included(Box::from(prefix)),
        after.map_or(Bound::Unbounded, Bound::Excluded),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        let upper = |prefix: &[u8]| prefix_bounds(prefix).1;
        assert_eq!(upper(b"ab"), Bound::Excluded(Box::from(&b"ac"[..])));
        assert_eq!(upper(b"a\xff\xff"), Bound::Excluded(Box::from(&b"b"[..])));
        assert_eq!(upper(b"\xff"), Bound::Unbounded);
        assert_eq!(upper(b""), Bound::Unbounded);
    }
}
