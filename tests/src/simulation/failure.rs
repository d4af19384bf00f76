//! What is printed when a history fails.

use std::fmt;

use super::step::Step;
use crate::random_options::{OptionGroup, RandomOptions};
use crate::violation::Violation;

/// A history that breaks a promise, cut to what is needed for it.
#[derive(Clone, Debug)]
pub struct SimulationFailure {
    /// The seed of the history.
    pub seed: u64,
    /// The steps that are needed, with their numbers in the whole history.
    pub steps: Vec<(usize, Step)>,
    /// The groups of options that are not needed.
    pub plain: Vec<OptionGroup>,
    /// What the shortened history breaks.
    pub violation: Violation,
    /// How many histories were run to shorten it.
    pub runs: usize,
    /// The command that replays it, or the call where the simulation is not the default one.
    pub replay: String,
}

impl fmt::Display for SimulationFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        let options = RandomOptions::with_defaults(self.seed, &self.plain);
        writeln!(f, "options: {:?}", options.options())?;
        writeln!(f, "steps that are left after {} runs:", self.runs)?;
        for (number, step) in &self.steps {
            writeln!(f, "  {number}: {step}")?;
        }
        write!(f, "replay: {}", self.replay)
    }
}

impl std::error::Error for SimulationFailure {}
