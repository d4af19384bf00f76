//! What a history answered, written down, so that two runs of it can be compared.

use crate::model::{entry_hash, show};

/// The answers of a history in their order, one line each: a key and its value, shortened, with a hash of all their bytes.
/// Empty until it is [begun](crate::Session::record).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: Option<Vec<String>>,
}

impl Transcript {
    /// The lines.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    pub(super) fn begin(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// What is there under a key.
    pub(super) fn answer(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(lines) = &mut self.lines {
            lines.push(match value {
                Some(value) => line(key, value),
                None => format!("{} is not there", show(key)),
            });
        }
    }

    /// Where an iterator or a cursor stands.
    pub(super) fn entry(&mut self, entry: Option<(&[u8], &[u8])>) {
        if let Some(lines) = &mut self.lines {
            lines.push(entry.map_or_else(|| "no entry".to_owned(), |(key, value)| line(key, value)));
        }
    }
}

fn line(key: &[u8], value: &[u8]) -> String {
    format!("{} = {} #{:016x}", show(key), show(value), entry_hash(key, value))
}
