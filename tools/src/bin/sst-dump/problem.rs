//! An error as the program tells it.

use serde::Serialize;
use siltstone_vfs::{Error, ErrorKind};

/// An error for JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    /// The name of an `ErrorKind`: `Corruption`, `Unsupported`, `Io`, `NotFound`, ...
    kind: String,
    /// The place in the file, in bytes, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The whole message.
    message: String,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Problem {
            kind: format!("{:?}", error.kind()),
            offset: error.offset(),
            message: error.to_string(),
        }
    }
}

/// What a table is that gave this error, in one word.
pub(crate) fn condition(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Corruption => "damaged",
        ErrorKind::Unsupported => "unsupported",
        _ => "unreadable",
    }
}
