// `get_ref` hands out bytes that the snapshot itself keeps alive, which the borrow checker cannot see.
#![allow(unsafe_code)]

//! Snapshots: the whole database at one seqno, for as long as it is held.

use std::ops::{Deref, RangeBounds};
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone_sstable::{SeqNo, TableValue};
use siltstone_vfs::{Error, Result};

use crate::core::Core;
use crate::cursor::{Cursor, KeyBounds};
use crate::iter::Iter;
use crate::keyspace::{self, Keyspace};
use crate::super_version::{Found, SuperVersion};
use crate::tree::Tree;
use crate::value::Value;

/// The database as it was when the snapshot was taken, across all keyspaces. Its own reads are those of the default
/// keyspace; [`keyspace`](Snapshot::keyspace) gives those of another.
///
/// While it is held, compaction keeps what it can see: an old snapshot costs disk space. It costs no memory, except
/// for what [`get_ref`](KeyspaceSnapshot::get_ref) has handed out.
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = siltstone::Db::open(dir.path())?;
/// db.put("k", "old")?;
/// let snapshot = db.snapshot()?;
/// db.put("k", "new")?;
/// assert_eq!(snapshot.get("k")?.unwrap(), "old");
/// assert_eq!(snapshot.get_ref("k")?.unwrap(), b"old");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Snapshot {
    default: KeyspaceSnapshot,
}

/// One keyspace as a [`Snapshot`] sees it.
pub struct KeyspaceSnapshot {
    held: Arc<Held>,
    tree: Arc<Tree>,
    pins: Mutex<Vec<Pin>>,
}

/// A seqno in the list of live snapshots.
struct Held {
    core: Arc<Core>,
    seqno: SeqNo,
}

impl std::fmt::Debug for KeyspaceSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seqno, name) = (&self.held.seqno, &self.tree.name);
        f.debug_struct("KeyspaceSnapshot")
            .field("seqno", seqno)
            .field("keyspace", name)
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.core.snapshots.release(self.seqno);
        // What was kept for this snapshot may be compacted away now.
        self.core.schedule();
    }
}

/// Keeps alive what `get_ref` has handed out.
enum Pin {
    View(Arc<SuperVersion>),
    Block(#[expect(dead_code, reason = "held for its bytes")] TableValue<'static>),
}

impl Snapshot {
    pub(crate) fn take(default: &Keyspace) -> Result<Snapshot> {
        let core = Arc::clone(default.core());
        core.check_open()?;
        let seqno = core.snapshots.acquire(|| core.visible());
        let held = Arc::new(Held { core, seqno });
        Ok(Snapshot {
            default: KeyspaceSnapshot::new(held, default),
        })
    }

    /// The same moment in another keyspace of the same database.
    ///
    /// # Errors
    /// `InvalidInput` for a keyspace of another database.
    pub fn keyspace(&self, keyspace: &Keyspace) -> Result<KeyspaceSnapshot> {
        if keyspace.database() != self.default.held.core.database {
            return Err(Error::invalid(
                "the keyspace belongs to another database than the snapshot",
            ));
        }
        Ok(KeyspaceSnapshot::new(Arc::clone(&self.default.held), keyspace))
    }
}

impl Deref for Snapshot {
    type Target = KeyspaceSnapshot;

    fn deref(&self) -> &KeyspaceSnapshot {
        &self.default
    }
}

impl KeyspaceSnapshot {
    fn new(held: Arc<Held>, keyspace: &Keyspace) -> KeyspaceSnapshot {
        KeyspaceSnapshot {
            held,
            tree: Arc::clone(keyspace.tree()),
            pins: Mutex::new(Vec::new()),
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.held.core
    }

    fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The seqno that it sees: all operations up to it, and none after.
    pub fn seqno(&self) -> SeqNo {
        self.held.seqno
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.get_with(key, |bytes| Value::from(bytes))
    }

    /// Calls `read` with the value of `key` where it lies.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        keyspace::get_with(
            self.core(),
            self.tree(),
            Some(self.held.seqno),
            key.as_ref(),
            read,
        )
    }

    /// The value of `key` where it lies, for as long as the snapshot lives: nothing is copied. It rests on nobody
    /// else changing the database's files. Memtables, tables and decompressed blocks that have been handed out stay
    /// in memory until the snapshot goes.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn get_ref(&self, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        let view = self.tree().view();
        keyspace::check_readable(self.core(), self.tree())?;
        let (bytes, block) = match view.get(key.as_ref(), self.held.seqno)? {
            None => return Ok(None),
            Some(Found::Memtable(bytes) | Found::Table(TableValue::Mapped(bytes))) => {
                (std::ptr::from_ref(bytes), None)
            }
            Some(Found::Table(TableValue::Block(block))) => (std::ptr::from_ref(&*block), Some(block)),
        };
        let mut pins = self.pins.lock();
        match block {
            // The bytes lie in the block that the slice owns a share of, not in the slice: moving it is harmless.
            Some(block) => pins.push(Pin::Block(TableValue::Block(block))),
            None => {
                let pinned = |pin: &Pin| matches!(pin, Pin::View(other) if Arc::ptr_eq(other, &view));
                if !pins.iter().rev().any(pinned) {
                    pins.push(Pin::View(view));
                }
            }
        }
        // SAFETY: the bytes lie in a memtable's arena, in a table's mapping, or in a shared block. The first two are
        // owned by the view, the last by the block, and whichever it is has just been put into `pins`, from which
        // nothing is ever taken before `self` is dropped. None of them moves or changes while it is owned: memtable
        // entries are written once, tables are immutable, blocks are `Arc<[u8]>`. The returned borrow ends with
        // `&self`.
        Ok(Some(unsafe { &*bytes }))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// The values of `keys`, in their order.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Vec<Result<Option<Value>>> {
        keyspace::multi_get(self.core(), self.tree(), Some(self.held.seqno), keys)
    }

    /// All entries.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn iter(&self) -> Result<Iter> {
        self.range::<&[u8]>(..)
    }

    /// The entries within `bounds`.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Iter> {
        Ok(Iter::new(self.cursor(bounds)?))
    }

    /// The entries whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        Ok(Iter::new(self.open(keyspace::prefix_bounds(prefix.as_ref()))?))
    }

    /// A cursor over the entries within `bounds`; it stands nowhere until it is moved.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn cursor<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Cursor> {
        self.open(keyspace::owned_bounds(bounds))
    }

    fn open(&self, bounds: KeyBounds) -> Result<Cursor> {
        keyspace::cursor(self.core(), self.tree(), Some(self.held.seqno), bounds)
    }
}
