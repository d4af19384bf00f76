//! Which steps of a history are kept, as a few characters on a command line.

use std::fmt;
use std::str::FromStr;

/// A set of step numbers, written as `3,17,40-44`.
///
/// ```
/// use siltstone_tests::StepSet;
/// let kept: StepSet = "3,17,40-44".parse()?;
/// assert!(kept.contains(42) && !kept.contains(18));
/// assert_eq!(kept.len(), 7);
/// assert_eq!(StepSet::from_iter([44, 3, 41, 40, 43, 42, 17]).to_string(), "3,17,40-44");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSet {
    /// Sorted, without duplicates.
    steps: Vec<usize>,
}

impl StepSet {
    /// The first `count` steps.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Whether it has the step.
    pub fn contains(&self, step: usize) -> bool {
        self.steps.binary_search(&step).is_ok()
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, rising.
    pub fn as_slice(&self) -> &[usize] {
        &self.steps
    }
}

impl FromIterator<usize> for StepSet {
    fn from_iter<I: IntoIterator<Item = usize>>(steps: I) -> Self {
        let mut steps: Vec<usize> = steps.into_iter().collect();
        steps.sort_unstable();
        steps.dedup();
        Self { steps }
    }
}

impl fmt::Display for StepSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.steps.chunk_by(|a, b| a + 1 == *b);
        let runs = runs.map(|run| match run {
            [only] => only.to_string(),
            [first, second] => format!("{first},{second}"),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        });
        f.write_str(&runs.collect::<Vec<_>>().join(","))
    }
}

/// The longest range that is read from a command line; no history is longer.
const RANGE_MAX: usize = 1 << 20;

impl FromStr for StepSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<usize>();
            number.map_err(|error| format!("{text:?} is no step number: {error}"))
        };
        let mut steps = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if last < first || last - first > RANGE_MAX {
                return Err(format!("{part:?} is no range of steps"));
            }
            steps.extend(first..=last);
        }
        Ok(steps.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for steps in [vec![], vec![0], vec![1, 2], vec![0, 1, 2, 5, 7, 8, 9, 100]] {
            let set = StepSet::from_iter(steps.clone());
            assert_eq!(set.as_slice(), steps);
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        for wrong in ["x", "3-", "5-3", "1,-2", "0-99999999999"] {
            assert!(wrong.parse::<StepSet>().is_err(), "{wrong}");
        }
    }
}
