//! What replay hands out: records, and what it found.

use crate::{RecordSeq, SegmentId};

/// A record as it is read back.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The segment it lies in.
    pub segment: SegmentId,
    /// Where its header begins in that file, in bytes.
    pub offset: u64,
    /// Its place in the log's life.
    pub sequence: RecordSeq,
    /// What was appended.
    pub payload: &'a [u8],
}

/// What to do about damage: bytes that are not what was written although they had been synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TailPolicy {
    /// Refuse, with an error that says what would be lost.
    #[default]
    Strict,
    /// Salvage: stop there, and say in [`Replay::tail`] what was lost. A bad sector counts as damage too.
    DropDamaged,
}

/// What replay found.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The number of records visited.
    pub records: u64,
    /// The length of their payloads together.
    pub bytes: u64,
    /// The sequence to go on with: that of the first record not visited. 1 where no segment says otherwise.
    pub next_sequence: RecordSeq,
    /// The lowest segment id above all that were given.
    pub next_segment: SegmentId,
    /// The highest watermark seen: everything up to it had been synced.
    pub synced: RecordSeq,
    /// How the log ends.
    pub tail: Tail,
    /// Whether its writer [closed](crate::Log::close) it, in the last of the segments given: there is nothing to be
    /// dropped, and what is [`synced`](Self::synced) is durable without another sync.
    pub closed: bool,
    /// Each of the segments given, in order.
    pub segments: Vec<SegmentReplay>,
}

/// What replay found in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReplay {
    /// The segment.
    pub id: SegmentId,
    /// What became of it.
    pub state: SegmentState,
    /// The number of records visited in it.
    pub records: u64,
    /// The length of their payloads together.
    pub bytes: u64,
    /// The first of them.
    pub first_sequence: Option<RecordSeq>,
    /// The last of them.
    pub last_sequence: Option<RecordSeq>,
    /// The size of the file.
    pub file_bytes: u64,
}

/// What became of a segment in replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It is part of the log; its records, if it has any, were visited. The last such one may end in a tail that
    /// was dropped.
    Live,
    /// Nothing but zeros: prepared and never begun, or begun and lost in a crash before its first sync. May be
    /// removed, once the log goes on.
    Unused,
    /// It has content that is not part of the log: behind a torn tail, now or in an earlier recovery. May be removed,
    /// once the log goes on.
    Dropped,
}

/// How the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With its last record: nothing but unwritten space follows.
    Clean,
    /// With bytes that were never synced and cannot be read as records: a crash cut them off. They were dropped.
    Torn {
        /// The segment that holds the first byte dropped.
        segment: SegmentId,
        /// Where that is in the file.
        offset: u64,
        /// How many bytes were dropped, in all segments: from there to the last byte written.
        bytes: u64,
        /// Why no record could be read there.
        reason: String,
    },
    /// With bytes that had been synced and cannot be read any more. Only with [`TailPolicy::DropDamaged`].
    Damaged {
        /// The segment that holds the first byte lost.
        segment: SegmentId,
        /// Where that is in the file.
        offset: u64,
        /// How many bytes were dropped, in all segments.
        bytes: u64,
        /// The first record lost.
        first_lost: RecordSeq,
        /// The last record known to be lost: the highest watermark seen. More may have followed.
        last_lost: RecordSeq,
        /// Why no record could be read there.
        reason: String,
    },
}
