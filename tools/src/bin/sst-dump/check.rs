//! `check`: everything is read and verified.

use std::io::{self, Write};

use serde::Serialize;
use siltstone_sstable::VerifySummary;
use siltstone_vfs::Error;

use crate::output::{Bytes, Found, Record};
use crate::problem::condition;
use crate::source::Source;

/// The verdict on one table.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    sound: bool,
    /// What the file holds, where all of it could be read.
    #[serde(flatten)]
    held: Option<Held>,
    /// What a table is that is not sound.
    #[serde(skip)]
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Held {
    data_blocks: u64,
    entries: u64,
    file_bytes: u64,
}

/// Verifies a table.
pub(crate) fn check(source: &Source) -> Found<Verdict> {
    match source.table().and_then(|table| table.verify()) {
        Ok(VerifySummary {
            data_blocks,
            entries,
            bytes,
        }) => {
            let held = Held {
                data_blocks,
                entries,
                file_bytes: bytes,
            };
            Found::from(Ok(Verdict {
                sound: true,
                held: Some(held),
                failed: None,
            }))
        }
        Err(error) => Found {
            body: Some(Verdict {
                sound: false,
                held: None,
                failed: Some(in_short(&error)),
            }),
            error: Some(error),
        },
    }
}

fn in_short(error: &Error) -> String {
    let condition = condition(error);
    match error.offset() {
        Some(offset) => format!("{condition} at offset {offset}"),
        None => condition.to_owned(),
    }
}

impl Record for Verdict {
    fn write_text(&self, source: &Source, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}: ", source.path().display())?;
        match (&self.failed, &self.held) {
            (Some(failed), _) => writeln!(out, "{failed}"),
            (None, Some(held)) => writeln!(
                out,
                "sound: {} entries in {} data blocks, {}",
                held.entries,
                held.data_blocks,
                Bytes(held.file_bytes)
            ),
            (None, None) => writeln!(out, "sound"),
        }
    }
}
