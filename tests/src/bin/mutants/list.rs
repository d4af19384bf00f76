//! The mutations: mistakes that somebody could really make, each with the suite that has to notice it.
//!
//! Suites that run histories from fixed seeds come first where one catches the mistake; unit tests where it takes two
//! threads, a certain layout of a table, or a damage that no history meets.

use crate::suite::Suite;

/// A mistake to be made, and who catches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) area: &'static str,
    /// Relative to the workspace.
    pub(crate) file: &'static str,
    /// Occurs once in the file.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    pub(crate) suite: Suite,
    /// The promise that breaks.
    pub(crate) breaks: &'static str,
}

const CRASH: Suite = Suite::integration("crash", "every_crash_leaves_a_prefix");
const REGRESSIONS: Suite = Suite::integration("regressions", "");
const MODEL: Suite = Suite::integration("model", "in_memory");
const LARGE_BATCHES: Suite = Suite::integration("survivors", "in_the_middle_of_large_batches");
const DROPPED: Suite = Suite::integration("lifecycle", "a_dropped_keyspace_leaves_no_files");
const FAULTS: Suite = Suite::integration("faults", "every_io_error_once");
const FAILED_SYNCS: Suite =
    Suite::integration("faults", "every_short_write_failed_sync_and_failed_mapping_once");
const OPEN: Suite = Suite::integration("open", "");
const BACKGROUND: Suite = Suite::integration("background", "");
const DAMAGE: Suite = Suite::integration("damage", "every_byte");
const WAL: Suite = Suite::unit("siltstone-wal", "");
const SSTABLE: Suite = Suite::unit("siltstone-sstable", "");
const COMPACTION: Suite = Suite::unit("siltstone-compaction", "");
const VFS: Suite = Suite::unit("siltstone-vfs", "");

/// All of them.
pub(crate) const MUTATIONS: &[Mutation] = &[
    // The write-ahead log.
    Mutation {
        name: "wal-checksum-unchecked",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "        if stored != computed {\n            return stop(",
        after: "        if stored == !computed {\n            return stop(",
        suite: CRASH,
        breaks: "a torn record is no record",
    },
    Mutation {
        name: "wal-watermark-too-far",
        area: "wal",
        file: "wal/src/log.rs",
        before: "        let synced = self.syncer.synced();\n        let header = RecordHeader {",
        after: "        let synced = RecordSeq(self.next_sequence.0 - 1);\n        let header = RecordHeader {",
        suite: CRASH,
        breaks: "a power loss before any sync leaves a database that opens",
    },
    Mutation {
        name: "wal-watermark-unread",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "            self.synced = self.synced.max(header.synced.0);\n            let at = offset;",
        after: "            let at = offset;",
        suite: WAL,
        breaks: "damage before the synced point is refused, not dropped as a torn tail",
    },
    Mutation {
        name: "wal-foreign-segment-read",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "        if header.segment != segment {",
        after: "        if header.segment > segment {",
        suite: WAL,
        breaks: "records of another segment are not read",
    },
    Mutation {
        name: "wal-superseded-one-too-few",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "header.first_sequence.0 >= lowest_later",
        after: "header.first_sequence.0 > lowest_later",
        suite: WAL,
        breaks: "what a recovery dropped stays dropped",
    },
    Mutation {
        name: "wal-closed-means-durable",
        area: "wal",
        file: "engine/src/recovery.rs",
        before: "let durable = outcome.closed && outcome.synced.next() == outcome.next_sequence;",
        after: "let durable = outcome.closed || outcome.synced.next() == outcome.next_sequence;",
        suite: Suite::integration("open", "a_sync_covers_what_was_dropped_unsynced"),
        breaks: "what a recovery has read is durable before writes go on behind it",
    },
    Mutation {
        name: "wal-reused-file-not-cleared",
        area: "wal",
        file: "vfs/src/os_log.rs",
        before: "std::ptr::write_bytes(self.map.as_mut_ptr(), 0, self.map.len());",
        after: "std::ptr::write_bytes(self.map.as_mut_ptr(), 0, self.map.len() / 2);",
        suite: VFS,
        breaks: "a segment that was prepared is all zero",
    },
    Mutation {
        name: "wal-earlier-life-is-damage",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "self.first.is_some_and(|first| other < first)",
        after: "self.first.is_some_and(|first| other.next() < first)",
        suite: WAL,
        breaks: "a power loss before the first sync of a reused file leaves a log that opens",
    },
    Mutation {
        name: "wal-exchanged-files-are-an-earlier-life",
        area: "wal",
        file: "wal/src/replay/mod.rs",
        before: "self.first.is_some_and(|first| other < first)",
        after: "self.first.is_some_and(|first| other <= first)",
        suite: WAL,
        breaks: "files that were mixed up are told",
    },
    Mutation {
        name: "spare-outlives-wait-idle",
        area: "wal",
        file: "engine/src/jobs.rs",
        before: "if log_is_begun && let Err(error) = self.syncer.load().remove_spare()",
        after: "if !log_is_begun && let Err(error) = self.syncer.load().remove_spare()",
        suite: BACKGROUND,
        breaks: "wait_idle leaves no log segment for later",
    },
    Mutation {
        name: "removed-spare-takes-its-id-along",
        area: "wal",
        file: "wal/src/syncer.rs",
        before: "            creation.next_segment = id;\n",
        after: "",
        suite: WAL,
        breaks: "the segment after a removed spare has its id",
    },
    Mutation {
        name: "removed-spare-gives-back-later-ids",
        area: "wal",
        file: "wal/src/syncer.rs",
        before: "if creation.next_segment == id.next() {",
        after: "if creation.next_segment >= id.next() {",
        suite: WAL,
        breaks: "a segment's id that a failed creation has used up is not used again",
    },
    // Group commit and durability.
    Mutation {
        name: "ack-before-sync",
        area: "durability",
        file: "engine/src/write.rs",
        before: "            Durability::Sync => self.sync_to(record),\n",
        after: "            Durability::Sync => Ok(()),\n",
        suite: CRASH,
        breaks: "a batch with Durability::Sync survives power loss",
    },
    Mutation {
        name: "group-sync-covers-one-too-many",
        area: "durability",
        file: "wal/src/group_sync.rs",
        before: ".partition(|waiter| waiter.sequence <= synced)",
        after: ".partition(|waiter| waiter.sequence <= synced + 1)",
        suite: WAL,
        breaks: "nobody is told durable by a sync that began before the append",
    },
    Mutation {
        name: "appended-read-after-the-sync",
        area: "durability",
        file: "wal/src/syncer.rs",
        before: "        Ok(appended)\n    }",
        after: "        let _ = appended;\n        Ok(self.appended.load(Ordering::Acquire))\n    }",
        suite: WAL,
        breaks: "a sync covers what was appended before it began, no more",
    },
    Mutation {
        name: "sealed-segment-not-synced",
        area: "durability",
        file: "wal/src/syncer.rs",
        before: "                .filter(|segment| !segment.durable)",
        after: "                .filter(|segment| !segment.durable && !segment.sealed)",
        suite: CRASH,
        breaks: "a sync covers the segments before the last one",
    },
    Mutation {
        name: "memtable-filter-forgets",
        area: "filters",
        file: "engine/src/memtable/filter.rs",
        before: "            word.fetch_or(bits, Relaxed);\n",
        after: "            word.fetch_and(bits, Relaxed);\n",
        suite: MODEL,
        breaks: "a get finds what its memtable has",
    },
    Mutation {
        name: "table-under-any-name",
        area: "recovery",
        file: "sstable/src/table/open.rs",
        before: "if id.0 != 0 && footer.table_id != 0 && id.0",
        after: "if false && id.0",
        suite: REGRESSIONS,
        breaks: "a file with another table's name is told",
    },
    Mutation {
        name: "put-aside-for-good",
        area: "compaction",
        file: "engine/src/resume.rs",
        before: "        self.take_up_what_was_put_aside();\n",
        after: "",
        suite: REGRESSIONS,
        breaks: "resume has compactions tried again that could not read",
    },
    Mutation {
        name: "new-log-vouches-too-early",
        area: "recovery",
        file: "engine/src/resume.rs",
        before: "Log::create_unbegun(Arc::clone",
        after: "Log::create_anew(Arc::clone",
        suite: REGRESSIONS,
        breaks: "a resume that fails leaves a database that opens",
    },
    Mutation {
        name: "published-out-of-order",
        area: "durability",
        file: "engine/src/commit.rs",
        before: "(place.number, place.first.0 - 1, place.last.0);",
        after: "(place.number, self.visible.load(Ordering::SeqCst), place.last.0);",
        suite: LARGE_BATCHES,
        breaks: "a snapshot sees whole batches",
    },
    Mutation {
        name: "visible-before-insert",
        area: "durability",
        file: "engine/src/commit.rs",
        before: "        SeqNo(self.visible.load(Ordering::Acquire))",
        after: "        self.state.lock().last()",
        suite: LARGE_BATCHES,
        breaks: "what a snapshot sees is in its memtable",
    },
    Mutation {
        name: "write-error-not-sticky",
        area: "durability",
        file: "engine/src/failure.rs",
        before: "            self.failed.store(true, Ordering::Release);",
        after: "            self.failed.store(false, Ordering::Release);",
        suite: FAILED_SYNCS,
        breaks: "after the first failed write all later ones are refused",
    },
    // The manifest.
    Mutation {
        name: "manifest-edit-not-synced",
        area: "manifest",
        file: "engine/src/manifest/log.rs",
        before: "self.append(&record, true).inspect_err",
        after: "self.append(&record, false).inspect_err",
        suite: CRASH,
        breaks: "an edit is durable before anything rests on it",
    },
    Mutation {
        name: "manifest-name-not-synced",
        area: "manifest",
        file: "engine/src/manifest/log.rs",
        before: "        self.fs.sync_dir(&self.dir)?;\n        self.switch_current",
        after: "        self.switch_current",
        suite: CRASH,
        breaks: "CURRENT names a manifest that is there",
    },
    Mutation {
        name: "current-content-not-synced",
        area: "manifest",
        file: "engine/src/manifest/log.rs",
        before: "        file.append(content.as_bytes())?;\n        file.sync()?;",
        after: "        file.append(content.as_bytes())?;",
        suite: CRASH,
        breaks: "CURRENT is whole before it takes its name",
    },
    Mutation {
        name: "current-rename-not-synced",
        area: "manifest",
        file: "engine/src/manifest/log.rs",
        before: "        self.fs.rename(&tmp, &self.dir.join(CURRENT))?;\n        self.fs.sync_dir(&self.dir)",
        after: "        self.fs.rename(&tmp, &self.dir.join(CURRENT))",
        suite: CRASH,
        breaks: "the old manifest goes only when the new one is current for good",
    },
    Mutation {
        name: "manifest-doubt-forgotten",
        area: "manifest",
        file: "engine/src/manifest/log.rs",
        before: ".inspect_err(|_| self.in_doubt = true)?;",
        after: "?;",
        suite: FAULTS,
        breaks: "tables of an edit that may have reached the disk are not removed",
    },
    Mutation {
        name: "manifest-torn-taken-for-damage",
        area: "manifest",
        file: "engine/src/manifest/format.rs",
        before: "record.synced > self.offset as u64",
        after: "record.synced >= self.offset as u64",
        suite: Suite::unit("siltstone", "a_hole_is_damage_only_below_the_synced_offset"),
        breaks: "a power loss never makes a manifest look damaged",
    },
    // Flush.
    Mutation {
        name: "flush-without-log-sync",
        area: "flush",
        file: "engine/src/flush.rs",
        before: "        self.sync_log_for(std::slice::from_ref(&edit))?;\n",
        after: "",
        suite: CRASH,
        breaks: "a later operation in a table does not survive an earlier one in the log",
    },
    Mutation {
        name: "flush-drops-tombstones",
        area: "flush",
        file: "engine/src/flush.rs",
        before: "&snapshots, BottomCheck::never())",
        after: "&snapshots, BottomCheck::always())",
        suite: MODEL,
        breaks: "a deleted key stays deleted",
    },
    Mutation {
        name: "flush-forgets-snapshots",
        area: "flush",
        file: "engine/src/flush.rs",
        before: "            let snapshots = self.snapshots.list();",
        after: "            let snapshots: Vec<SeqNo> = Vec::new();",
        suite: MODEL,
        breaks: "a snapshot sees what it saw",
    },
    Mutation {
        name: "flush-names-not-synced",
        area: "flush",
        file: "engine/src/table_writer.rs",
        before: "            self.core.fs.sync_dir(&self.core.dir)?;\n",
        after: "            let _ = &self.core.fs;\n",
        suite: CRASH,
        breaks: "a table's name is durable before the manifest names it",
    },
    Mutation {
        name: "table-not-synced",
        area: "flush",
        file: "sstable/src/builder/output.rs",
        before: "self.file.sync()",
        after: "self.file.append(&[])",
        suite: CRASH,
        breaks: "a table is durable before the manifest names it",
    },
    Mutation {
        name: "log-removed-one-too-far",
        area: "flush",
        file: "engine/src/install.rs",
        before: ".find(|segment| segment.last >= oldest)",
        after: ".find(|segment| segment.last > oldest)",
        suite: CRASH,
        breaks: "a log segment goes only when all in it is in tables",
    },
    Mutation {
        name: "flush-does-not-wait-for-writers",
        area: "flush",
        file: "engine/src/flush.rs",
        before: "        self.commit.wait_until_visible(last);\n",
        after: "        let _ = last;\n",
        suite: LARGE_BATCHES,
        breaks: "a flushed memtable holds every batch that was given to it",
    },
    // Compaction.
    Mutation {
        name: "tombstone-dropped-one-level-early",
        area: "compaction",
        file: "compaction/src/bottom.rs",
        before: "(plan.output_level + 1..LEVELS)",
        after: "(plan.output_level + 2..LEVELS)",
        suite: COMPACTION,
        breaks: "a tombstone stays while anything lies below it",
    },
    Mutation {
        name: "compaction-forgets-snapshots",
        area: "compaction",
        file: "engine/src/compact.rs",
        before: "CompactionStream::new(merge, &snapshots, bottom)",
        after: "CompactionStream::new(merge, &snapshots[..0], bottom)",
        suite: MODEL,
        breaks: "a snapshot sees what it saw",
    },
    Mutation {
        name: "snapshot-bound-off-by-one",
        area: "compaction",
        file: "compaction/src/stream.rs",
        before: "|snapshot| *snapshot < tag.seqno()",
        after: "|snapshot| *snapshot <= tag.seqno()",
        suite: COMPACTION,
        breaks: "a snapshot sees the operation of its own seqno",
    },
    Mutation {
        name: "versions-cut-apart",
        area: "compaction",
        file: "compaction/src/split.rs",
        before: "Ordering::Equal => return false,",
        after: "Ordering::Equal if output_size_bytes == 0 => return false,\n                    Ordering::Equal => {}",
        suite: COMPACTION,
        breaks: "the versions of a key lie in one table of a level",
    },
    Mutation {
        name: "seqno-zero-above-older-versions",
        area: "compaction",
        file: "compaction/src/stream.rs",
        before: "        if !oldest_stripe || !self.bottom.is_bottom(self.user_key.as_slice()) {",
        after: "        if !oldest_stripe {",
        suite: MODEL,
        breaks: "a put that hides something keeps its seqno",
    },
    Mutation {
        name: "newer-l0-table-first",
        area: "compaction",
        file: "compaction/src/pick/l0.rs",
        before: "        group[start..].to_vec()",
        after: "        group[..group.len() - start].to_vec()",
        suite: Suite::integration_of("siltstone-compaction", "levels", ""),
        breaks: "no table leaves level 0 before an older one that it overlaps",
    },
    // Snapshots.
    Mutation {
        name: "snapshot-released-for-all",
        area: "snapshots",
        file: "engine/src/snapshot_list.rs",
        before: "            if *holders == 0 {",
        after: "            if *holders <= 1 {",
        suite: MODEL,
        breaks: "a seqno is kept for as long as one of its snapshots lives",
    },
    Mutation {
        name: "cursor-shows-newer",
        area: "snapshots",
        file: "engine/src/cursor.rs",
        before: "            if tag.seqno() > self.seqno {",
        after: "            if tag.seqno() > self.seqno.plus(1) {",
        suite: MODEL,
        breaks: "a cursor sees nothing newer than its snapshot",
    },
    Mutation {
        name: "older-version-forgotten",
        area: "snapshots",
        file: "sstable/src/table.rs",
        before: "Some(_) => return self.get_in_order(user_key, hash, seqno),",
        after: "Some(_) => return Ok(None),",
        suite: MODEL,
        breaks: "a snapshot's get finds the version behind a newer one in a hash-indexed table",
    },
    Mutation {
        name: "version-in-next-block-forgotten",
        area: "snapshots",
        file: "sstable/src/table.rs",
        before: "if !index.separator_is(view, block, user_key) {",
        after: "if index.count() > 0 {",
        suite: SSTABLE,
        breaks: "a get goes on where versions of a key go on in the next block",
    },
    // The reaper and what it removes.
    Mutation {
        name: "abandoned-tables-left",
        area: "reaper",
        file: "engine/src/table_writer.rs",
        before: "        core.abandon(started);\n",
        after: "        drop(started);\n",
        suite: Suite::integration("survivors", "a_failed_flush_leaves_no_table"),
        breaks: "a failed job leaves no files",
    },
    Mutation {
        name: "failed-removal-forgotten",
        area: "reaper",
        file: "engine/src/reaper.rs",
        before: "                            core.counters.note_background_error(&error);\n                            self.failed.push(path);",
        after: "                            core.counters.note_background_error(&error);\n                            drop(path);",
        suite: Suite::integration("survivors", "an_obsolete_table_that_could_not_be_cut"),
        breaks: "an obsolete table whose removal failed is removed later",
    },
    Mutation {
        name: "dropped-keyspace-not-retired",
        area: "reaper",
        file: "engine/src/tree.rs",
        before: "            view.tables.handles().for_each(|handle| handle.retire());\n",
        after: "",
        suite: DROPPED,
        breaks: "a dropped keyspace leaves no files",
    },
    Mutation {
        name: "doubtful-tables-removed",
        area: "reaper",
        file: "engine/src/install.rs",
        before: "            let in_doubt = manifest.in_doubt();",
        after: "            let in_doubt = manifest.in_doubt() && flushes;",
        suite: FAILED_SYNCS,
        breaks: "no table goes that a crash may find in the manifest",
    },
    Mutation {
        name: "idle-with-garbage",
        area: "reaper",
        file: "engine/src/jobs.rs",
        before: "!self.has_work() && !self.reap_undisturbed()",
        after: "!self.has_work()",
        suite: DROPPED,
        breaks: "wait_idle returns when obsolete files are gone",
    },
    Mutation {
        name: "compaction-holds-memtables",
        area: "compaction",
        file: "engine/src/compact.rs",
        before: "let tables = Arc::clone(&tree.pin().tables);",
        after: "let view = tree.view();\n                let tables = Arc::clone(&view.tables);",
        suite: BACKGROUND,
        breaks: "what is flushed leaves memory when no cursor holds it",
    },
    Mutation {
        name: "idle-with-level-0",
        area: "compaction",
        file: "engine/src/compact.rs",
        before: "if self.scheduler.is_settling() {",
        after: "if false {",
        suite: BACKGROUND,
        breaks: "wait_idle leaves nothing in level 0",
    },
    Mutation {
        name: "truncate-in-place",
        area: "reaper",
        file: "vfs/src/retire.rs",
        before: "            len = (len - 1) / chunk_bytes * chunk_bytes;",
        after: "            len = len / chunk_bytes * chunk_bytes;",
        suite: VFS,
        breaks: "cutting an obsolete table comes to an end",
    },
    Mutation {
        name: "obsolete-table-kept",
        area: "reaper",
        file: "engine/src/install.rs",
        before: "            removed.iter().for_each(|handle| handle.retire());\n",
        after: "            drop(removed);\n",
        suite: MODEL,
        breaks: "what a compaction has merged leaves the disk",
    },
    // Filters, the hash index among them.
    Mutation {
        name: "filter-of-another-hash",
        area: "filters",
        file: "engine/src/super_version.rs",
        before: "        let hash = key_hash(key);",
        after: "        let hash = key_hash(key) ^ 1;",
        suite: MODEL,
        breaks: "a get and the filter it asks use one hash",
    },
    Mutation {
        name: "hash-index-overflow-untold",
        area: "filters",
        file: "sstable/src/filter/hash_index.rs",
        before: "(others | gone_on(hash)).to_le_bytes()",
        after: "(others | gone_on(hash.rotate_left(1))).to_le_bytes()",
        suite: SSTABLE,
        breaks: "a key that did not fit into its bucket is found in the next",
    },
    Mutation {
        name: "hash-index-no-wrap",
        area: "filters",
        file: "sstable/src/filter/hash_index.rs",
        before: "            probe.bucket = (probe.bucket + 1) % self.buckets;",
        after: "            probe.bucket = (probe.bucket + 1).min(self.buckets - 1);",
        suite: SSTABLE,
        breaks: "a key that went on from the last bucket is found in the first",
    },
    Mutation {
        name: "hash-index-zero-fingerprint",
        area: "filters",
        file: "sstable/src/filter/hash_index.rs",
        before: "(low << place_bits).max(1 << place_bits)",
        after: "low << place_bits",
        suite: SSTABLE,
        breaks: "a word that is taken is not zero",
    },
    Mutation {
        name: "get-ends-at-another-keys-entry",
        area: "filters",
        file: "sstable/src/table.rs",
        before: "                Some(next) => place = next,",
        after: "                Some(_) => return Ok(None),",
        suite: SSTABLE,
        breaks: "keys that a hash index cannot tell apart are told apart by their entries",
    },
    Mutation {
        name: "multi-get-ends-at-a-lead",
        area: "filters",
        file: "engine/src/multi_get.rs",
        before: "        for handle in &self.candidates[state.candidates.clone()] {\n            if found",
        after: "        for handle in &self.candidates[..0] {\n            if found",
        suite: MODEL,
        breaks: "a filter that leads to no entry of the key ends the search in its table only",
    },
    Mutation {
        name: "blocked-filter-one-probe-more",
        area: "filters",
        file: "sstable/src/filter/blocked.rs",
        before: "probe(hash, probes, |byte, mask| missing |= !line[byte] & mask);",
        after: "probe(hash, probes + 1, |byte, mask| missing |= !line[byte] & mask);",
        suite: SSTABLE,
        breaks: "a filter never says no to a key that is there",
    },
    // Iterators and cursors.
    Mutation {
        name: "excluded-bound-included",
        area: "iterators",
        file: "engine/src/cursor.rs",
        before: "            Bound::Excluded(key) => self.merge.seek(InternalKey::new(key, Tag::LAST))?,",
        after: "            Bound::Excluded(key) => self.merge.seek(InternalKey::new(key, Tag::FIRST))?,",
        suite: MODEL,
        breaks: "a range begins behind an excluded bound",
    },
    Mutation {
        name: "prev-shows-a-key-twice",
        area: "iterators",
        file: "engine/src/cursor.rs",
        before: "                self.stand = Stand::Nowhere;\n                self.merge.prev()?;",
        after: "                self.stand = Stand::Nowhere;",
        suite: MODEL,
        breaks: "each step backwards shows another key",
    },
    Mutation {
        name: "prev-takes-the-first-version",
        area: "iterators",
        file: "sstable/src/merge.rs",
        before: "            && !self.heap[1..].iter().take(2).any(also_has)",
        after: "            && !self.heap[1..].iter().take(1).any(also_has)",
        suite: SSTABLE,
        breaks: "backwards, the newest visible version of a key decides",
    },
    Mutation {
        name: "level-seek-for-prev-off-by-one",
        area: "iterators",
        file: "engine/src/level_iter.rs",
        before: "*table.meta().smallest <= *target.user_key",
        after: "*table.meta().smallest < *target.user_key",
        suite: MODEL,
        breaks: "seek_for_prev finds a table's first key",
    },
    Mutation {
        name: "block-search-past-the-key",
        area: "iterators",
        file: "sstable/src/block.rs",
        before: "            if order == Ordering::Less {\n                low = middle + 1;",
        after: "            if order != Ordering::Greater {\n                low = middle + 1;",
        suite: SSTABLE,
        breaks: "a seek stands on the first entry at or after its target",
    },
    Mutation {
        name: "dead-range-not-revived",
        area: "iterators",
        file: "engine/src/write.rs",
        before: "                view.dead.revive(operation.key);",
        after: "                let _ = &view.dead;",
        suite: Suite::unit("siltstone", "dead_ranges"),
        breaks: "a put into a range that was found deleted is seen",
    },
    Mutation {
        name: "dead-range-of-the-future",
        area: "iterators",
        file: "engine/src/dead_ranges.rs",
        before: "(range.seqno <= seqno).then",
        after: "(range.seqno >= SeqNo::ZERO || range.seqno <= seqno).then",
        suite: Suite::unit("siltstone", "dead_ranges"),
        breaks: "a snapshot from before the deletes sees what was deleted",
    },
    // Recovery.
    Mutation {
        name: "leftovers-removed-on-unsynced-word",
        area: "recovery",
        file: "engine/src/recovery.rs",
        before: "            if !manifest.durable {",
        after: "            if manifest.durable {",
        suite: Suite::integration("regressions", "nothing_is_removed_on_the_word_of_a_manifest"),
        breaks: "nothing is removed on the word of a manifest that a power loss can undo",
    },
    Mutation {
        name: "replay-skips-one-operation",
        area: "recovery",
        file: "engine/src/recovery.rs",
        before: "if operation.seqno <= state.keyspaces[&tree.id].flushed {",
        after: "if operation.seqno <= state.keyspaces[&tree.id].flushed.plus(1) {",
        suite: CRASH,
        breaks: "the first operation after a flush is recovered",
    },
    Mutation {
        name: "needed-segment-removed",
        area: "recovery",
        file: "engine/src/recovery.rs",
        before: ".is_some_and(|state| id.0 < state.log_segment_min)",
        after: ".is_some_and(|state| id.0 <= state.log_segment_min)",
        suite: CRASH,
        breaks: "a log segment goes only when the manifest calls it obsolete",
    },
    Mutation {
        name: "replayed-not-synced",
        area: "recovery",
        file: "engine/src/recovery.rs",
        before: "            if !durable {\n                fs.sync_file(&path)?;",
        after: "            if durable {\n                fs.sync_file(&path)?;",
        suite: CRASH,
        breaks: "a second crash keeps what the first recovery showed",
    },
    Mutation {
        name: "seqnos-given-out-again",
        area: "recovery",
        file: "engine/src/recovery.rs",
        before: "        last = last.max(end);\n        match segment_last",
        after: "        match segment_last",
        suite: CRASH,
        breaks: "seqnos of recovered operations are not given out again",
    },
    // What a table is checked for.
    Mutation {
        name: "block-checksum-unchecked",
        area: "tables",
        file: "sstable/src/table/block_access.rs",
        before: "        if expected != found {\n            return damaged(format!(",
        after: "        if expected == !found {\n            return damaged(format!(",
        suite: DAMAGE,
        breaks: "wrong bytes are never returned as right",
    },
    Mutation {
        name: "section-checksum-unchecked",
        area: "tables",
        file: "sstable/src/table/section.rs",
        before: "|| found != section.checksum {",
        after: "|| found == !section.checksum {",
        suite: DAMAGE,
        breaks: "index, filter and properties are checked before they are believed",
    },
    Mutation {
        name: "whole-record-searched-as-apart",
        area: "tables",
        file: "sstable/src/block.rs",
        before: "let start = keys + index * key_stride + tag_width;",
        after: "let start = keys + index * (tag_width + suffix_len) + tag_width;",
        suite: SSTABLE,
        breaks: "a key that has its value behind it is compared where it lies",
    },
    Mutation {
        name: "tag-base-forgotten",
        area: "tables",
        file: "sstable/src/block.rs",
        before: "let packed = tag_base.saturating_add(stored);",
        after: "let packed = tag_base.min(0).saturating_add(stored);",
        suite: SSTABLE,
        breaks: "an entry has the seqno that it was written with",
    },
    Mutation {
        name: "even-last-block-unchecked",
        area: "tables",
        file: "sstable/src/index.rs",
        before: "even.data_end <= starts_last",
        after: "even.data_end < u64::MIN",
        suite: SSTABLE,
        breaks: "a block ends behind its start",
    },
    Mutation {
        name: "damaged-index-fails-other-keys",
        area: "tables",
        file: "engine/src/table_handle.rs",
        before: "Err(_) if !self.meta.contains(key) => Ok(None),",
        after: "Err(_) if key.len() > usize::MAX - 1 => Ok(None),",
        suite: OPEN,
        breaks: "keys that a damaged table does not hold are answered",
    },
    Mutation {
        name: "found-tables-never-loaded",
        area: "tables",
        file: "engine/src/workers.rs",
        before: "core.scheduler.set_just_opened(false);",
        after: "core.scheduler.set_just_opened(true);",
        suite: OPEN,
        breaks: "the background looks at what the open leaves, and wait_idle waits for it",
    },
    Mutation {
        name: "crossing-entry-draws-others",
        area: "tables",
        file: "sstable/src/builder.rs",
        before: "} else if first_crosses {",
        after: "} else if first_crosses && size == 0 {",
        suite: SSTABLE,
        breaks: "records that need not lie on two pages lie on one",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// So that the list is not found out to be stale by the run that needs it.
    #[test]
    fn every_mutation_still_applies() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut areas: BTreeMap<&str, usize> = BTreeMap::new();
        for (nth, mutation) in MUTATIONS.iter().enumerate() {
            let text = fs::read_to_string(root.join(mutation.file)).unwrap();
            let times = text.matches(mutation.before).count();
            assert_eq!(
                times, 1,
                "{}: found {times} times in {}",
                mutation.name, mutation.file
            );
            assert_ne!(mutation.before, mutation.after, "{}", mutation.name);
            let same_name = |other: &&Mutation| other.name == mutation.name;
            assert!(
                !MUTATIONS[..nth].iter().any(|other| same_name(&other)),
                "{}",
                mutation.name
            );
            if let Some((file, name)) = mutation.suite.source() {
                let suite = fs::read_to_string(root.join(&file)).unwrap();
                let mut functions = suite.lines().filter(|line| line.trim_start().starts_with("fn "));
                assert!(
                    functions.any(|line| line.contains(name)),
                    "{}: no test {name} in {file}",
                    mutation.name
                );
            }
            *areas.entry(mutation.area).or_default() += 1;
        }
        assert!(MUTATIONS.len() >= 30);
        for area in [
            "wal",
            "durability",
            "manifest",
            "flush",
            "compaction",
            "snapshots",
            "reaper",
            "filters",
            "iterators",
        ] {
            assert!(
                areas.get(area).is_some_and(|count| *count >= 3),
                "{area}: {areas:?}"
            );
        }
    }
}
