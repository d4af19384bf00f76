//! Which entries survive a merge.

use std::cmp::Ordering;

use siltstone_sstable::{InternalIterator, InternalKey, KeyBuf, SeqNo, Tag, ValueKind};
use siltstone_vfs::{Error, ErrorKind, Result};

use crate::{BottomCheck, KeyPart};

/// What a compaction (or a flush) writes of a merged input, in internal order:
///
/// * The live snapshots divide the seqnos into stripes; two seqnos are in the same stripe when no snapshot lies
///   between them (a snapshot at `s` sees up to and including `s`). Of each user key, the newest entry in each stripe
///   is kept; nobody can see the others.
/// * A tombstone is dropped if it is in the oldest stripe and nothing lies below ([`BottomCheck`]): there is
///   nothing that it hides. The older entries it shadows go with it.
/// * A put in the oldest stripe with nothing below is kept with seqno 0: nothing can tell it apart from an older
///   one any more. A table of such entries alone compresses better and is known to need no rewrite
///   ([`TableMeta::seqno_max`](crate::TableMeta::seqno_max) is 0).
///
/// REQUIRES of the caller: every seqno that a reader may still use with the table set *after* this compaction is in
/// `snapshots`, or is at least the largest seqno of the input. So take the snapshots when the job starts, let a
/// reader pin its tables before it reads the current seqno, and do not flush entries that are not yet visible.
///
/// The merged input must stand for all inputs of the plan, or for the memtables being flushed; it is read once, from
/// the first entry of the stream's part of the keys, which is all of them unless [`within`](Self::within) says else.
#[derive(Debug)]
pub struct CompactionStream<I> {
    input: I,
    /// Ascending.
    snapshots: Vec<SeqNo>,
    bottom: BottomCheck,
    part: KeyPart,
    progress: Progress,
    /// The user key under the input, once it has stood on one.
    user_key: KeyBuf,
    /// The newest entry of `user_key` that was not shadowed so far, and its stripe.
    last: Option<(Tag, usize)>,
    counts: StreamCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Fresh,
    Running,
    Ended,
}

/// What a [`CompactionStream`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Entries of the input.
    pub read: u64,
    /// Entries dropped because a newer one of the same stripe shadows them.
    pub shadowed: u64,
    /// Tombstones dropped because nothing lies below.
    pub tombstones_dropped: u64,
    /// Puts whose seqno became 0.
    pub settled: u64,
}

impl<I: InternalIterator> CompactionStream<I> {
    /// The survivors of `input`. `snapshots` are the live ones, ascending.
    pub fn new(input: I, snapshots: &[SeqNo], bottom: BottomCheck) -> Self {
        debug_assert!(snapshots.is_sorted(), "snapshots ascend");
        Self {
            input,
            snapshots: snapshots.to_vec(),
            bottom,
            part: KeyPart::default(),
            progress: Progress::Fresh,
            user_key: KeyBuf::default(),
            last: None,
            counts: StreamCounts::default(),
        }
    }

    /// The same of the keys in `part` only. All entries of a user key are in one part, so the streams of all parts say
    /// together what one stream says.
    #[must_use]
    pub fn within(mut self, part: KeyPart) -> Self {
        self.part = part;
        self
    }

    /// The next entry that survives; `None` at the end.
    ///
    /// # Errors
    /// What the input reports, and `Corruption` if the input is not in internal order. The stream is at its end then.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends from the input, as Iterator::next cannot"
    )]
    pub fn next(&mut self) -> Result<Option<(InternalKey<'_>, &[u8])>> {
        match self.advance() {
            Ok(Some(tag)) => Ok(Some((
                InternalKey::new(self.user_key.as_slice(), tag),
                self.input.value(),
            ))),
            Ok(None) => Ok(None),
            Err(error) => {
                self.progress = Progress::Ended;
                Err(error)
            }
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> StreamCounts {
        self.counts
    }

    /// Gives the input back.
    pub fn into_input(self) -> I {
        self.input
    }

    /// Moves the input to the next survivor and says what tag it survives with.
    fn advance(&mut self) -> Result<Option<Tag>> {
        loop {
            match self.progress {
                Progress::Fresh => {
                    match self.part.from() {
                        Some(from) => self
                            .input
                            .seek(InternalKey::new(from, Tag::seek_at(SeqNo::MAX)))?,
                        None => self.input.seek_to_first()?,
                    }
                    self.progress = Progress::Running;
                }
                Progress::Running => self.input.next()?,
                Progress::Ended => return Ok(None),
            }
            if !self.input.valid() || self.part.ends_before(self.input.user_key()) {
                self.progress = Progress::Ended;
                return Ok(None);
            }
            self.counts.read += 1;
            let tag = self.input.tag();
            if self.is_shadowed(tag)? {
                self.counts.shadowed += 1;
            } else if let Some(tag) = self.survivor(tag) {
                return Ok(Some(tag));
            }
        }
    }

    /// Notes the entry under the input; says whether a newer one of its key and stripe came before.
    fn is_shadowed(&mut self, tag: Tag) -> Result<bool> {
        let user_key = self.input.user_key();
        let first_entry = self.counts.read == 1;
        match self.user_key.order_of(user_key) {
            Ordering::Equal if !first_entry => {}
            Ordering::Less if !first_entry => {
                return Err(out_of_order(user_key, self.user_key.as_slice()));
            }
            _ => {
                self.user_key.set(user_key);
                self.last = None;
            }
        }
        let stripe = self.snapshots.partition_point(|snapshot| *snapshot < tag.seqno());
        if let Some((newer, newer_stripe)) = self.last {
            if tag > newer {
                return Err(out_of_order(user_key, self.user_key.as_slice()));
            }
            if stripe == newer_stripe {
                return Ok(true);
            }
        }
        self.last = Some((tag, stripe));
        Ok(false)
    }

    /// The tag that an entry which is not shadowed is written with; `None` if it goes.
    fn survivor(&mut self, tag: Tag) -> Option<Tag> {
        let oldest_stripe = matches!(self.last, Some((_, 0)));
        if !oldest_stripe || !self.bottom.is_bottom(self.user_key.as_slice()) {
            return Some(tag);
        }
        // Exhaustive on purpose: a new kind has to say here what it means at the bottom.
        match tag.kind() {
            ValueKind::Put => {
                self.counts.settled += u64::from(tag.seqno() != SeqNo::ZERO);
                Some(Tag::new(SeqNo::ZERO, ValueKind::Put))
            }
            ValueKind::Delete => {
                self.counts.tombstones_dropped += 1;
                None
            }
        }
    }
}

fn out_of_order(found: &[u8], previous: &[u8]) -> Error {
    Error::new(
        ErrorKind::Corruption,
        format!(
            "compaction input is out of order: an entry of \"{}\" came after a later one of \"{}\"",
            found.escape_ascii(),
            previous.escape_ascii()
        ),
    )
    .with_advice("check the input tables with sst-dump check")
}

#[cfg(test)]
mod tests;
