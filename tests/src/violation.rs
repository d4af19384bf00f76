//! What a check reports when the engine breaks a promise.

use std::fmt;

/// A broken promise: what was expected, what was found, and where. Printed with the seed by [`Seeds`](crate::Seeds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    message: String,
}

impl Violation {
    /// A violation that `message` describes.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// The engine failed where it must not.
    pub fn unexpected(during: &str, error: &siltstone::Error) -> Self {
        Self::new(format!("{during} failed: {error:?}"))
    }

    /// Puts where it happened before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Violation {}

/// Turns an engine error that must not happen into a [`Violation`].
pub(crate) fn must<T>(during: &str, outcome: siltstone::Result<T>) -> Result<T, Violation> {
    outcome.map_err(|error| Violation::unexpected(during, &error))
}
