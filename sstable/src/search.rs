//! Binary search without branches that depend on the data.

/// How many of the first `count` numbers are below what is looked for, where those that are come first. The loop has as many rounds
/// as any search among so many, so that its end can be foretold, and chooses its half without a branch.
#[inline]
pub(crate) fn partition_point(count: usize, below: impl Fn(usize) -> bool) -> usize {
    if count == 0 {
        return 0;
    }
    let (mut base, mut size) = (0, count);
    while size > 1 {
        let half = size / 2;
        base = std::hint::select_unpredictable(below(base + half - 1), base + half, base);
        size -= half;
    }
    base + usize::from(below(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_one_of_slices() {
        for count in 0..70 {
            let numbers: Vec<usize> = (0..count).map(|n| n / 3 * 2).collect();
            for wanted in 0..50 {
                let expected = numbers.partition_point(|number| *number < wanted);
                assert_eq!(
                    partition_point(count, |at| numbers[at] < wanted),
                    expected,
                    "{count} {wanted}"
                );
            }
        }
    }
}
