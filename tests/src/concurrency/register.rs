//! Is there a legal order of what was done to one key?
//!
//! The search of J. M. Wing and C. Gong (*Testing and verifying concurrent objects*, 1993) with the memory of visited
//! configurations of G. Lowe (*Testing for linearizability*, 2017), for a register: reads that see what is there are taken at
//! once, as they change nothing; only writes that overlap are tried in every order.

use std::collections::HashSet;

use super::history::Span;

/// What was done to a key. A value is told by a number that no two writes share; `None` is absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Write(Option<u64>),
    Read(Option<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) span: Span,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Legal,
    /// With the accesses around the point that no order gets past.
    Illegal(String),
    /// The search was given up.
    Undecided,
}

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    /// All answered accesses before this one, in the order of their beginning, are in.
    first: usize,
    /// Those behind it that are in, too, ascending.
    ahead: Vec<usize>,
    /// The writes without an answer that are in, ascending.
    unanswered: Vec<usize>,
    value: Option<u64>,
}

impl Configuration {
    fn take(&mut self, at: usize) {
        let place = self.ahead.partition_point(|other| *other < at);
        self.ahead.insert(place, at);
        while self.ahead.first() == Some(&self.first) {
            self.ahead.remove(0);
            self.first += 1;
        }
    }
}

/// Looks for a legal order of all accesses to a register that holds nothing at first. A write without an answer may have
/// happened, once, at any time after it began. Gives up after so many configurations.
pub(super) fn check(accesses: &[Access], configurations_max: usize) -> Verdict {
    let (mut answered, unanswered): (Vec<Access>, Vec<Access>) =
        accesses.iter().partition(|access| access.span.end.is_some());
    answered.sort_unstable_by_key(|access| access.span.begin);
    let mut seen = HashSet::new();
    let mut left = vec![Configuration {
        first: 0,
        ahead: Vec::new(),
        unanswered: Vec::new(),
        value: None,
    }];
    let mut farthest = 0;
    while let Some(mut at) = left.pop() {
        let (mut candidates, mut horizon) = candidates(&answered, &at);
        while let Some(read) = candidates
            .iter()
            .position(|i| answered[*i].action == Action::Read(at.value))
        {
            at.take(candidates[read]);
            (candidates, horizon) = self::candidates(&answered, &at);
        }
        farthest = farthest.max(at.first);
        if at.first == answered.len() {
            return Verdict::Legal;
        }
        if !seen.insert(at.clone()) {
            continue;
        }
        if seen.len() > configurations_max {
            return Verdict::Undecided;
        }
        for (i, access) in unanswered.iter().enumerate() {
            if let Action::Write(value) = access.action
                && access.span.begin < horizon
                && at.unanswered.binary_search(&i).is_err()
            {
                let mut next = at.clone();
                next.unanswered.push(i);
                next.unanswered.sort_unstable();
                next.value = value;
                left.push(next);
            }
        }
        // The one that ended first is tried first: pushed last.
        candidates.sort_unstable_by_key(|i| std::cmp::Reverse(answered[*i].span.end));
        for i in candidates {
            if let Action::Write(value) = answered[i].action {
                let mut next = at.clone();
                next.take(i);
                next.value = value;
                left.push(next);
            }
        }
    }
    let around = &answered[farthest.saturating_sub(4)..answered.len().min(farthest + 8)];
    Verdict::Illegal(format!(
        "no order of these has every read see the last write: {around:?}, without answer {unanswered:?}"
    ))
}

/// The answered accesses that may come next: those that began before the end of every other one that is left; and that end.
fn candidates(answered: &[Access], at: &Configuration) -> (Vec<usize>, u64) {
    let mut horizon = u64::MAX;
    let mut found = Vec::new();
    let mut ahead = at.ahead.iter().peekable();
    for (i, access) in answered.iter().enumerate().skip(at.first) {
        if ahead.next_if(|next| **next == i).is_some() {
            continue;
        }
        if access.span.begin > horizon {
            break;
        }
        horizon = horizon.min(access.span.end.unwrap_or(u64::MAX));
        found.push(i);
    }
    (found, horizon)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(begin: u64, end: u64, value: u64) -> Access {
        access(begin, Some(end), Action::Write(Some(value)))
    }

    fn delete(begin: u64, end: u64) -> Access {
        access(begin, Some(end), Action::Write(None))
    }

    fn read(begin: u64, end: u64, value: Option<u64>) -> Access {
        access(begin, Some(end), Action::Read(value))
    }

    fn access(begin: u64, end: Option<u64>, action: Action) -> Access {
        let span = Span { begin, end };
        Access { span, action }
    }

    fn is_legal(accesses: &[Access]) -> bool {
        match check(accesses, 1000) {
            Verdict::Legal => true,
            Verdict::Illegal(_) => false,
            Verdict::Undecided => panic!("a small history is decided"),
        }
    }

    #[test]
    fn one_after_the_other_is_legal() {
        assert!(is_legal(&[]));
        assert!(is_legal(&[
            read(1, 2, None),
            write(3, 4, 7),
            read(5, 6, Some(7)),
            delete(7, 8),
            read(9, 10, None),
        ]));
    }

    #[test]
    fn a_stale_read_is_illegal() {
        assert!(!is_legal(&[write(1, 2, 7), write(3, 4, 8), read(5, 6, Some(7))]));
        assert!(!is_legal(&[write(1, 2, 7), read(3, 4, None)]));
        assert!(!is_legal(&[write(1, 2, 7), delete(3, 4), read(5, 6, Some(7))]));
    }

    #[test]
    fn a_value_from_nowhere_or_from_the_future_is_illegal() {
        assert!(!is_legal(&[read(1, 2, Some(7))]));
        assert!(!is_legal(&[read(1, 2, Some(7)), write(3, 4, 7)]));
    }

    #[test]
    fn a_read_during_a_write_may_see_either_side() {
        assert!(is_legal(&[write(1, 2, 7), write(3, 6, 8), read(4, 5, Some(7))]));
        assert!(is_legal(&[write(1, 2, 7), write(3, 6, 8), read(4, 5, Some(8))]));
    }

    /// New, then old: one of the two reads is wrong although each is right by itself.
    #[test]
    fn reads_that_go_backwards_are_illegal() {
        let during = |first, second| {
            [
                write(1, 2, 7),
                write(3, 10, 8),
                read(4, 5, Some(first)),
                read(6, 7, Some(second)),
            ]
        };
        assert!(is_legal(&during(7, 8)));
        assert!(!is_legal(&during(8, 7)));
    }

    /// Both writes have returned, and the one that came last in every order is gone.
    #[test]
    fn a_lost_update_is_illegal() {
        let two = |seen| [write(1, 4, 7), write(2, 3, 8), read(5, 6, seen)];
        assert!(is_legal(&two(Some(7))));
        assert!(is_legal(&two(Some(8))));
        assert!(!is_legal(&two(None)));
        // Once one of them has been seen, the other one, which had returned before, does not come again.
        assert!(!is_legal(&[
            write(1, 4, 7),
            write(2, 3, 8),
            read(5, 6, Some(7)),
            read(7, 8, Some(8)),
        ]));
    }

    #[test]
    fn two_readers_must_agree_on_the_order_of_two_writes() {
        let agreed = |a: u64, b: u64| {
            [
                write(1, 20, 7),
                write(2, 21, 8),
                read(3, 4, Some(7)),
                read(5, 6, Some(8)),
                read(22, 23, Some(a)),
                read(24, 25, Some(b)),
            ]
        };
        assert!(is_legal(&agreed(8, 8)));
        assert!(!is_legal(&agreed(7, 7)));
        assert!(!is_legal(&agreed(8, 7)));
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened_or_not_but_only_once() {
        let lost = access(3, None, Action::Write(Some(8)));
        assert!(is_legal(&[write(1, 2, 7), lost, read(4, 5, Some(7))]));
        assert!(is_legal(&[write(1, 2, 7), lost, read(4, 5, Some(8))]));
        assert!(is_legal(&[
            write(1, 2, 7),
            lost,
            read(4, 5, Some(7)),
            read(6, 7, Some(8))
        ]));
        assert!(!is_legal(&[
            write(1, 2, 7),
            lost,
            read(4, 5, Some(8)),
            read(6, 7, Some(7))
        ]));
        assert!(!is_legal(&[
            lost,
            read(4, 5, Some(8)),
            write(6, 7, 9),
            read(8, 9, Some(9)),
            read(10, 11, Some(8)),
        ]));
        assert!(!is_legal(&[read(1, 2, Some(8)), lost]));
    }

    #[test]
    fn a_search_that_is_too_long_is_given_up() {
        let mut accesses: Vec<Access> = (0..20).map(|n| write(n, 100 + n, n)).collect();
        accesses.push(read(200, 201, Some(1000)));
        assert_eq!(check(&accesses, 1000), Verdict::Undecided);
    }
}
