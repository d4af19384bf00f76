//! Operations in messages.

use std::ops::Bound;

use crate::model::{Bounds, show};
use crate::workload::{CursorStep, Operation};

/// An operation for messages, without its bytes.
pub(crate) fn summary(operation: &Operation) -> String {
    match operation {
        Operation::Commit { batch, sync } => {
            let first = batch
                .first()
                .map(|write| format!("{} in {}", show(&write.key), write.keyspace));
            format!(
                "a commit of {} writes (sync {sync}), the first {}",
                batch.len(),
                first.unwrap_or_default()
            )
        }
        Operation::Get { keyspace, key } => format!("get {} in {keyspace}", show(key)),
        Operation::MultiGet { keyspace, keys } => format!("multi_get of {} keys in {keyspace}", keys.len()),
        Operation::ReadSnapshot { nth, keyspace, key } => {
            format!("a read of {} in {keyspace} at snapshot {nth}", show(key))
        }
        Operation::Scan { keyspace, bounds, .. } => {
            format!("a scan of {} in {keyspace}", show_bounds(bounds))
        }
        Operation::OpenCursor { keyspace, bounds } => {
            format!("a cursor over {} in {keyspace} is opened", show_bounds(bounds))
        }
        Operation::MoveCursor { nth, steps } => {
            let steps = steps.iter().map(|step| match step {
                CursorStep::Seek(key) => format!("seek {}", show(key)),
                CursorStep::SeekForPrev(key) => format!("seek_for_prev {}", show(key)),
                other => format!("{other:?}").to_lowercase(),
            });
            format!("moves of cursor {nth}: {}", steps.collect::<Vec<_>>().join(", "))
        }
        Operation::Compact(keyspace, bounds) => format!("compact {} in {keyspace}", show_bounds(bounds)),
        other => format!("{other:?}"),
    }
}

fn show_bounds((low, high): &Bounds) -> String {
    let low = match low {
        Bound::Unbounded => "..".to_owned(),
        Bound::Included(key) => format!("[{}..", show(key)),
        Bound::Excluded(key) => format!("({}..", show(key)),
    };
    match high {
        Bound::Unbounded => low,
        Bound::Included(key) => format!("{low}{}]", show(key)),
        Bound::Excluded(key) => format!("{low}{})", show(key)),
    }
}
