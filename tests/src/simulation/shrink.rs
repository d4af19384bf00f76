//! Delta debugging: from a history that fails to a part of it that fails and of which nothing can be left out.

use super::StepSet;

/// Leaves out as many of `steps` as it can while what is left still `fails`: halves, then ever smaller pieces, down to
/// single steps (Zeller and Hildebrandt's ddmin, without the tests of the pieces themselves). Asks at most `runs_max` times,
/// and says how often it asked.
///
/// ```
/// use siltstone_tests::{StepSet, shrink};
/// let fails = |kept: &StepSet| kept.contains(17) && kept.contains(42);
/// let (kept, _) = shrink(&StepSet::first(100), 1000, fails);
/// assert_eq!(kept.to_string(), "17,42");
/// ```
pub fn shrink(steps: &StepSet, runs_max: usize, mut fails: impl FnMut(&StepSet) -> bool) -> (StepSet, usize) {
    let mut kept = steps.as_slice().to_vec();
    let mut runs = 0;
    let mut size = kept.len().div_ceil(2);
    while size > 0 && !kept.is_empty() {
        let before = kept.len();
        // From the end: later steps depend on earlier ones.
        let mut end = kept.len();
        while end > 0 {
            if runs == runs_max {
                return (kept.into_iter().collect(), runs);
            }
            let start = end.saturating_sub(size);
            let rest: StepSet = kept[..start].iter().chain(&kept[end..]).copied().collect();
            runs += 1;
            if fails(&rest) {
                kept = rest.as_slice().to_vec();
            }
            end = start;
        }
        // Single steps again until a whole round finds nothing.
        size = match size {
            1 if kept.len() < before => 1,
            1 => 0,
            _ => size.div_ceil(2),
        };
    }
    (kept.into_iter().collect(), runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_fails_and_nothing_can_be_left_out() {
        // Any three of these, in any place of the history.
        let guilty = [0, 1, 63, 64, 65, 198, 199];
        for skip in 0..guilty.len() {
            let wanted: Vec<usize> = guilty.into_iter().cycle().skip(skip).take(3).collect();
            let fails = |kept: &StepSet| wanted.iter().all(|step| kept.contains(*step));
            let (kept, runs) = shrink(&StepSet::first(200), 10_000, fails);
            assert_eq!(kept, wanted.iter().copied().collect());
            assert!(runs < 200, "{runs} runs for three of 200 steps");
        }
    }

    #[test]
    fn a_step_that_another_one_hid_goes_in_a_second_round() {
        // Step 2 can go only once step 5 has gone.
        let fails = |kept: &StepSet| kept.contains(9) && (kept.contains(2) || !kept.contains(5));
        assert_eq!(shrink(&StepSet::first(10), 1000, fails).0.to_string(), "9");
    }

    #[test]
    fn the_budget_is_kept_and_the_answer_still_fails() {
        let mut asked = 0;
        let (kept, runs) = shrink(&StepSet::first(1000), 7, |kept| {
            asked += 1;
            kept.contains(500)
        });
        assert_eq!((asked, runs), (7, 7));
        assert!(kept.contains(500) && kept.len() < 1000);
    }
}
