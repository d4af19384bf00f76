//! `scan`: a table's entries.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use siltstone_sstable::{InternalIterator, InternalKey, Table, Tag, ValueKind};
use siltstone_vfs::Error;

use crate::keys::Notation;
use crate::output::{Format, Output};
use crate::source::Source;

/// Which entries: those that satisfy all of these.
#[derive(Debug, Default)]
pub(crate) struct Range {
    /// The first key.
    pub(crate) from: Option<Vec<u8>>,
    /// The key to end before.
    pub(crate) to: Option<Vec<u8>>,
    pub(crate) prefix: Option<Vec<u8>>,
    /// The most entries of one table.
    pub(crate) limit: Option<u64>,
}

/// An entry in JSON.
#[derive(Serialize)]
struct Entry<'a> {
    file: &'a str,
    key: String,
    seqno: u64,
    kind: &'static str,
    /// A tombstone has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// What ends a scan before its time.
enum Stop {
    /// The table: the next one can be read.
    Table(Error),
    /// Standard output.
    Output(io::Error),
}

/// Lists the entries of a table that lie in `range`, up to the first damage. `titled` puts the file's name before them.
pub(crate) fn scan(
    source: &Source,
    range: &Range,
    notation: Notation,
    titled: bool,
    output: &mut Output<'_>,
) -> io::Result<()> {
    if titled && output.format() == Format::Text {
        writeln!(output.out(), "==> {} <==", source.path().display())?;
    }
    let listed = source
        .table()
        .map_err(Stop::Table)
        .and_then(|table| list(&table, source.path(), range, notation, output));
    match listed {
        Ok(()) => Ok(()),
        Err(Stop::Table(error)) => output.damage(source, &error),
        Err(Stop::Output(error)) => Err(error),
    }
}

fn list(
    table: &Arc<Table>,
    file: &Path,
    range: &Range,
    notation: Notation,
    output: &mut Output<'_>,
) -> Result<(), Stop> {
    let file = file.display().to_string();
    let mut left = range.limit.unwrap_or(u64::MAX);
    let mut entries = table.iter().fill_cache(false);
    if left == 0 {
        return Ok(());
    }
    let start = InternalKey::new(range.start(), Tag::FIRST);
    entries.seek(start).map_err(Stop::Table)?;
    while entries.valid() && range.goes_on_to(entries.user_key()) {
        let (key, tag, value) = (entries.user_key(), entries.tag(), entries.value());
        write(&file, key, tag, value, notation, output).map_err(Stop::Output)?;
        left -= 1;
        if left == 0 {
            break;
        }
        entries.next().map_err(Stop::Table)?;
    }
    Ok(())
}

fn write(
    file: &str,
    key: &[u8],
    tag: Tag,
    value: &[u8],
    notation: Notation,
    output: &mut Output<'_>,
) -> io::Result<()> {
    let (key, seqno, kind) = (notation.show(key), tag.seqno().0, kind_name(tag.kind()));
    let value = notation.show(value);
    if output.format() == Format::Text {
        return writeln!(output.out(), "{key}\t{seqno}\t{kind}\t{value}");
    }
    output.json(&Entry {
        file,
        key: key.to_string(),
        seqno,
        kind,
        value: (!tag.is_tombstone()).then(|| value.to_string()),
    })
}

fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Put => "put",
        ValueKind::Delete => "delete",
    }
}

impl Range {
    /// The first key that may satisfy it.
    fn start(&self) -> &[u8] {
        // `None` is less than any key.
        self.from
            .as_deref()
            .max(self.prefix.as_deref())
            .unwrap_or_default()
    }

    /// Whether `key`, which is not before the start, satisfies it; no key behind one that does not ever does.
    fn goes_on_to(&self, key: &[u8]) -> bool {
        self.to.as_ref().is_none_or(|to| key < to.as_slice())
            && self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
    }
}
