//! What a history answered, written down, so that two runs of it can be compared.

use crate::model::{entry_hash, show};
use crate::violation::Violation;

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

    /// Compares with the answers that another run of the same history gave.
    ///
    /// # Errors
    /// A [`Violation`] with the first difference and what was answered before it.
    pub fn compare(&self, other: &Transcript) -> Result<(), Violation> {
        let (ours, theirs) = (self.lines(), other.lines());
        let Some(at) = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at)) else {
            return Ok(());
        };
        Err(Violation::new(format!(
            "answer {at} differs: {:?} and {:?}, after {:?}",
            ours.get(at),
            theirs.get(at),
            &ours[at.saturating_sub(2)..at.min(ours.len())]
        )))
    }

    /// The operation is over.
    pub(super) fn mark(&mut self, operation: usize) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("end of operation {operation}"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(value: &[u8]) -> Transcript {
        let mut transcript = Transcript::default();
        transcript.begin();
        transcript.answer(b"first", None);
        transcript.mark(0);
        transcript.answer(b"key", Some(value));
        transcript
    }

    #[test]
    fn one_byte_of_one_answer_makes_the_difference() {
        let ours = transcript(&[7; 100]);
        ours.compare(&transcript(&[7; 100])).unwrap();
        let mut other = [7; 100];
        other[99] = 8;
        let message = ours.compare(&transcript(&other)).unwrap_err().to_string();
        assert!(message.contains("answer 2 differs"), "{message}");
        let mut longer = transcript(&[7; 100]);
        longer.entry(None);
        assert!(ours.compare(&longer).is_err() && longer.compare(&ours).is_err());
    }
}
