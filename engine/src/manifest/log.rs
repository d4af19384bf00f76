//! The manifest file: read at open, appended to and synced at every edit, rewritten when it has grown long.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone_vfs::{Error, ErrorKind, Fs, Removable, Result, WriteFile};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::files::{CURRENT, CURRENT_TMP, manifest_name};

use super::format::{
    Current, RecordType, Records, decode_edit, decode_snapshot, encode_current, frame, header,
};
use super::state::{Edit, State};

/// A manifest is rewritten when its edits take more than this and more than eight times its snapshot.
const EDITS_BYTES_MIN: u64 = 1 << 20;

/// The manifest open for edits; the only owner of the durable [`State`].
pub(crate) struct Manifest {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: State,
    /// The number of the newest file, be it whole or not.
    number: u64,
    /// The file that `CURRENT` names.
    current: Option<PathBuf>,
    file: Option<Box<dyn WriteFile>>,
    bytes: u64,
    /// The file is known to be synced up to here.
    synced: u64,
    snapshot_bytes: u64,
    /// Whether an edit that failed may be found by a crash.
    in_doubt: bool,
    /// Whether the file holds edits.
    edited: bool,
}

/// What a manifest says, and whether it says so for good.
pub(crate) struct ManifestRead {
    pub(crate) state: State,
    /// All of it was synced, and so was its being current, the file says. Otherwise it may have been read from what a
    /// killed process left in memory, and a power loss may yet undo it.
    pub(crate) durable: bool,
    /// It is a snapshot without edits, so that `CURRENT` vouches for all of it.
    pub(crate) compact: bool,
}

impl Manifest {
    /// Reads the state that `current` names.
    ///
    /// # Errors
    /// `Corruption` for anything that cannot be the result of a crash.
    pub(crate) fn read(fs: &dyn Fs, dir: &Path, current: Current) -> Result<ManifestRead> {
        let path = dir.join(manifest_name(current.number));
        let bytes = read_file(fs, &path, u64::MAX)?;
        let mut records = Records::new(&path, current.number, &bytes)?;
        let begins_right = usize::try_from(current.snapshot_bytes)
            .ok()
            .and_then(|len| bytes.get(..len))
            .is_some_and(|beginning| xxh3_64(beginning) == current.snapshot_checksum);
        let mut state = match records.next() {
            Some((RecordType::Snapshot, payload)) if begins_right => {
                let snapshot = decode_snapshot(&path, records.offset(), payload)?;
                State::restore(snapshot).map_err(|error| error.with_path(&path))?
            }
            _ => {
                return Err(Error::corruption(
                    &path,
                    records.offset() as u64,
                    format!(
                        "the manifest's snapshot is not the {} bytes with checksum {:016x} that CURRENT names",
                        current.snapshot_bytes, current.snapshot_checksum
                    ),
                )
                .with_advice("restore the manifest from a backup"));
            }
        };
        let (mut durable, mut compact) = (false, true);
        loop {
            let offset = records.offset();
            match records.next() {
                Some((RecordType::Edit, payload)) => {
                    (durable, compact) = (false, false);
                    let edit = decode_edit(&path, offset, payload)?;
                    state = state
                        .apply(&edit)
                        .map_err(|error| error.with_path(&path).with_offset(offset as u64))?;
                }
                Some((RecordType::Synced, _)) => durable = true,
                Some((RecordType::Snapshot, _)) => {
                    return Err(Error::corruption(
                        &path,
                        offset as u64,
                        "a second snapshot in a manifest",
                    ));
                }
                None if records.was_synced_here() => {
                    return Err(Error::corruption(
                        &path,
                        offset as u64,
                        "a manifest record that had been synced is damaged, a later record says",
                    )
                    .with_advice("restore the manifest from a backup"));
                }
                // The one edit that may be torn: nothing rested on it yet.
                None => {
                    let whole = offset == bytes.len();
                    return Ok(ManifestRead {
                        state,
                        durable: durable && whole,
                        compact: compact && whole,
                    });
                }
            }
        }
    }

    /// Writes `state` as a new manifest under `number` and makes it current in place of `old`.
    pub(crate) fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        number: u64,
        old: Option<u64>,
        state: State,
    ) -> Result<Manifest> {
        let mut manifest = Self::resume(fs, dir, number, old, state);
        manifest.rewrite()?;
        manifest.note_synced()?;
        Ok(manifest)
    }

    /// Goes on from the `state` that was read from manifest `old`: the first edit writes it as a new manifest, under
    /// `number`.
    ///
    /// REQUIRES: where `old` holds less than `state`, what is missing will be found again. `old` is durable.
    pub(crate) fn resume(
        fs: Arc<dyn Fs>,
        dir: &Path,
        number: u64,
        old: Option<u64>,
        state: State,
    ) -> Manifest {
        Manifest {
            fs,
            dir: dir.to_owned(),
            state,
            number: number.saturating_sub(1),
            current: old.map(|number| dir.join(manifest_name(number))),
            file: None,
            bytes: 0,
            synced: 0,
            snapshot_bytes: 0,
            in_doubt: false,
            edited: false,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Makes `edit` durable, then current.
    ///
    /// # Errors
    /// After a failure the edit may or may not survive a crash; the state in memory is without it, and the next
    /// call begins with a new file, which settles the question.
    pub(crate) fn commit(&mut self, edit: &Edit) -> Result<()> {
        let next = self.state.apply(edit)?;
        if cfg!(any(debug_assertions, test)) {
            for keyspace in next.keyspaces.values() {
                keyspace.version.check()?;
            }
        }
        if self.file.is_none()
            || self.bytes - self.snapshot_bytes > EDITS_BYTES_MIN.max(self.snapshot_bytes * 8)
        {
            self.rewrite()?;
        }
        let payload = codec::encode(edit)?;
        let record = frame(self.number, self.bytes, self.synced, RecordType::Edit, &payload)?;
        self.edited = true;
        self.append(&record, true).inspect_err(|_| self.in_doubt = true)?;
        self.state = next;
        self.note_synced()
    }

    /// Writes down that everything so far is synced. Not synced itself and not needed for recovery: it lets a reader
    /// tell damage from a torn tail, and know what need not be synced again.
    fn note_synced(&mut self) -> Result<()> {
        let synced = frame(self.number, self.bytes, self.synced, RecordType::Synced, &[])?;
        if self.append(&synced, false).is_err() {
            debug_assert!(self.file.is_none(), "the next commit begins a new file");
        }
        Ok(())
    }

    /// Whether the last failure left it open whether an edit survives; a new file settles it.
    pub(crate) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Writes the present state as a new file and makes it current.
    pub(crate) fn rewrite(&mut self) -> Result<()> {
        self.file = None;
        // A number is never used twice: a failed attempt may have left its file behind.
        self.number += 1;
        let path = self.dir.join(manifest_name(self.number));
        let mut beginning = header(self.number).to_vec();
        let payload = codec::encode(&self.state.snapshot())?;
        beginning.extend(frame(
            self.number,
            beginning.len() as u64,
            0,
            RecordType::Snapshot,
            &payload,
        )?);
        let mut file = self.fs.create(&path)?;
        file.append(&beginning)?;
        file.sync()?;
        // The name of the new file must be durable before CURRENT can say it.
        self.fs.sync_dir(&self.dir)?;
        self.switch_current(&encode_current(self.number, &beginning))?;
        self.bytes = beginning.len() as u64;
        (self.synced, self.snapshot_bytes) = (self.bytes, self.bytes);
        self.file = Some(file);
        if let Some(old) = self.current.replace(path) {
            // A leftover does no harm: the next open removes it.
            let _ = self.fs.remove(&Removable::plain(&old)?);
        }
        (self.in_doubt, self.edited) = (false, false);
        Ok(())
    }

    /// Leaves a file without edits, with `last` as the last of them: damage to one that ends in edits cannot be told
    /// from an older state where it cuts them off whole. Writes nothing where nothing has changed.
    ///
    /// # Errors
    /// The last edit may or may not be durable then.
    pub(crate) fn close(&mut self, last: Option<&Edit>) -> Result<()> {
        if let Some(edit) = last {
            self.state = self.state.apply(edit)?;
        }
        if last.is_none() && !self.edited {
            return Ok(());
        }
        self.rewrite()?;
        self.note_synced()
    }

    fn switch_current(&self, content: &str) -> Result<()> {
        let tmp = self.dir.join(CURRENT_TMP);
        if self.fs.exists(&tmp)? {
            self.fs.remove(&Removable::plain(&tmp)?)?;
        }
        let mut file = self.fs.create(&tmp)?;
        file.append(content.as_bytes())?;
        file.sync()?;
        drop(file);
        self.fs.rename(&tmp, &self.dir.join(CURRENT))?;
        self.fs.sync_dir(&self.dir)
    }

    fn append(&mut self, record: &[u8], sync: bool) -> Result<()> {
        let mut file = self
            .file
            .take()
            .ok_or_else(|| Error::invalid("the manifest has no file to append to"))?;
        file.append(record)?;
        if sync {
            // Sticky, also for want of space: until a new file is current, a crash may find the edit.
            file.sync().map_err(|error| error.with_kind(ErrorKind::Io))?;
        }
        self.bytes += record.len() as u64;
        if sync {
            self.synced = self.bytes;
        }
        self.file = Some(file);
        Ok(())
    }
}

/// Reads a whole metadata file of at most `max_bytes`.
pub(super) fn read_file(fs: &dyn Fs, path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let file = fs.open(path)?;
    let len = file.len()?;
    if len > max_bytes {
        return Err(Error::corruption(
            path,
            max_bytes,
            format!("{len} bytes where at most {max_bytes} belong"),
        ));
    }
    let len =
        usize::try_from(len).map_err(|_| Error::corruption(path, 0, "file too long for this machine"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| {
        Error::corruption(
            path,
            0,
            format!("a metadata file of {len} bytes does not fit into memory"),
        )
    })?;
    bytes.resize(len, 0);
    let mut filled = 0;
    while filled < len {
        match file.read_at(filled as u64, &mut bytes[filled..])? {
            0 => {
                return Err(Error::corruption(
                    path,
                    filled as u64,
                    "file ends before its length",
                ));
            }
            count => filled += count,
        }
    }
    Ok(bytes)
}
