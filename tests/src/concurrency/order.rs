//! Is there one order of all batches that explains all that was seen of them?
//!
//! The batches of a thread are numbered from 1 in program order. A *cut* is a read of many keys at one moment; for each
//! thread it is known which batches it includes. So the order is not searched for: every cut says what comes before it and what
//! behind, time says the rest, and an order exists exactly if these do not form a circle.

use super::history::Span;

/// What a cut saw of one thread: its batches up to `included`, and none from `excluded` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) thread: usize,
    pub(super) included: u64,
    /// `None` where there is no such batch.
    pub(super) excluded: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) span: Span,
    pub(super) seen: Vec<Seen>,
    /// What kind of read it was.
    pub(super) name: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Batch { thread: usize, number: u64 },
    Cut(usize),
}

struct Graph<'h> {
    cuts: &'h [Cut],
    nodes: Vec<(Node, Span)>,
    /// What must come later than each node, by what cuts say and by program order.
    after: Vec<Vec<usize>>,
    before_count: Vec<usize>,
}

impl<'h> Graph<'h> {
    fn new(batches: &[Vec<Span>], cuts: &'h [Cut]) -> Self {
        let mut nodes = Vec::new();
        let mut first_of = Vec::new();
        for (thread, spans) in batches.iter().enumerate() {
            first_of.push(nodes.len());
            let numbered = spans.iter().zip(1..);
            nodes.extend(numbered.map(|(span, number)| (Node::Batch { thread, number }, *span)));
        }
        let first_cut = nodes.len();
        nodes.extend(cuts.iter().enumerate().map(|(at, cut)| (Node::Cut(at), cut.span)));
        let mut graph = Self {
            cuts,
            after: vec![Vec::new(); nodes.len()],
            before_count: vec![0; nodes.len()],
            nodes,
        };
        let index =
            |thread: usize, number: u64| first_of[thread] + usize::try_from(number).expect("small") - 1;
        for (thread, spans) in batches.iter().enumerate() {
            for number in 2..=spans.len() as u64 {
                graph.order(index(thread, number - 1), index(thread, number));
            }
        }
        for (at, cut) in cuts.iter().enumerate() {
            for seen in &cut.seen {
                if seen.included > 0 {
                    graph.order(index(seen.thread, seen.included), first_cut + at);
                }
                if let Some(excluded) = seen.excluded {
                    graph.order(first_cut + at, index(seen.thread, excluded));
                }
            }
        }
        graph
    }

    fn order(&mut self, before: usize, after: usize) {
        self.after[before].push(after);
        self.before_count[after] += 1;
    }

    /// Puts the nodes into an order; returns those that have no place in any.
    fn sort(&mut self) -> Vec<usize> {
        let mut by_begin: Vec<usize> = (0..self.nodes.len()).collect();
        by_begin.sort_unstable_by_key(|at| self.nodes[*at].1.begin);
        let mut by_end = by_begin.clone();
        by_end.sort_unstable_by_key(|at| self.nodes[*at].1.end_or_never());
        let mut placed = vec![false; self.nodes.len()];
        let (mut begun, mut ended) = (0, 0);
        let mut ready: Vec<usize> = Vec::new();
        // Begun before everything that is left has ended, but something else has to come first.
        let mut is_begun = vec![false; self.nodes.len()];
        loop {
            while by_end.get(ended).is_some_and(|at| placed[*at]) {
                ended += 1;
            }
            let horizon = by_end
                .get(ended)
                .map_or(u64::MAX, |at| self.nodes[*at].1.end_or_never());
            while let Some(at) = by_begin
                .get(begun)
                .filter(|at| self.nodes[**at].1.begin < horizon)
            {
                is_begun[*at] = true;
                if self.before_count[*at] == 0 {
                    ready.push(*at);
                }
                begun += 1;
            }
            let Some(at) = ready.pop() else { break };
            placed[at] = true;
            for next in std::mem::take(&mut self.after[at]) {
                self.before_count[next] -= 1;
                if self.before_count[next] == 0 && is_begun[next] {
                    ready.push(next);
                }
            }
        }
        (0..placed.len()).filter(|at| !placed[*at]).collect()
    }

    fn describe(&self, at: usize) -> String {
        let (node, span) = &self.nodes[at];
        let time = match span.end {
            Some(end) => format!("{}..{end}", span.begin),
            None => format!("{}..", span.begin),
        };
        match node {
            Node::Batch { thread, number } => format!("batch {number} of thread {thread} ({time})"),
            Node::Cut(at) => format!(
                "{} ({time}) that saw {:?}",
                self.cuts[*at].name, self.cuts[*at].seen
            ),
        }
    }

    /// A circle among the nodes that have no place: each has to come later than the next one that is named.
    fn circle(&self, stuck: &[usize]) -> String {
        let before = |at: usize| {
            stuck.iter().copied().find(|other| {
                self.after[*other].contains(&at)
                    || self.nodes[*other].1.end_or_never() < self.nodes[at].1.begin
            })
        };
        let mut path = vec![stuck[0]];
        loop {
            let Some(next) = before(path[path.len() - 1]) else {
                return "a node without a place has nothing before it".into();
            };
            if let Some(start) = path.iter().position(|at| *at == next) {
                let circle: Vec<String> = path[start..].iter().map(|at| self.describe(*at)).collect();
                return circle.join(", which has to come later than ");
            }
            path.push(next);
        }
    }
}

/// Checks that there is an order of all batches and cuts, with each after what had ended before it began, in which every cut
/// sees what comes before it. `batches` has the spans of each thread's batches, of which all have happened.
///
/// # Errors
/// A circle.
pub(super) fn check(batches: &[Vec<Span>], cuts: &[Cut]) -> Result<(), String> {
    let mut graph = Graph::new(batches, cuts);
    let stuck = graph.sort();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(format!(
        "no order of all batches explains what was read: {}, and so on in a circle",
        graph.circle(&stuck)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(begin: u64, end: u64) -> Span {
        Span {
            begin,
            end: Some(end),
        }
    }

    /// A cut that knows exactly how many of the `of` batches of each thread it includes.
    fn cut(begin: u64, end: u64, included: &[u64], of: &[u64]) -> Cut {
        let seen = included.iter().zip(of).enumerate();
        Cut {
            span: span(begin, end),
            seen: seen
                .map(|(thread, (included, of))| Seen {
                    thread,
                    included: *included,
                    excluded: (included < of).then_some(included + 1),
                })
                .collect(),
            name: "cut",
        }
    }

    fn is_legal(batches: &[Vec<Span>], cuts: &[Cut]) -> bool {
        check(batches, cuts).is_ok()
    }

    #[test]
    fn a_cut_sees_what_had_returned_and_nothing_of_the_future() {
        let batches = [vec![span(1, 2), span(5, 6)]];
        assert!(is_legal(&batches, &[cut(3, 4, &[1], &[2])]));
        assert!(!is_legal(&batches, &[cut(3, 4, &[0], &[2])]), "stale");
        assert!(!is_legal(&batches, &[cut(3, 4, &[2], &[2])]), "from the future");
        assert!(!is_legal(&batches, &[cut(7, 8, &[1], &[2])]), "a lost batch");
    }

    #[test]
    fn a_cut_during_a_batch_sees_it_or_not() {
        let batches = [vec![span(1, 10)]];
        assert!(is_legal(
            &batches,
            &[cut(2, 3, &[0], &[1]), cut(4, 5, &[1], &[1])]
        ));
        assert!(is_legal(&batches, &[cut(2, 3, &[1], &[1])]));
    }

    #[test]
    fn snapshots_do_not_go_backwards() {
        let batches = [vec![span(1, 10)]];
        assert!(!is_legal(
            &batches,
            &[cut(2, 3, &[1], &[1]), cut(4, 5, &[0], &[1])]
        ));
        // Unless they overlap.
        assert!(is_legal(
            &batches,
            &[cut(2, 5, &[1], &[1]), cut(3, 6, &[0], &[1])]
        ));
    }

    /// Each cut by itself is right: together they need both orders.
    #[test]
    fn two_cuts_do_not_disagree_on_the_order_of_two_batches() {
        let batches = [vec![span(1, 20)], vec![span(2, 21)]];
        assert!(is_legal(
            &batches,
            &[cut(3, 10, &[1, 0], &[1, 1]), cut(4, 11, &[1, 1], &[1, 1])]
        ));
        assert!(!is_legal(
            &batches,
            &[cut(3, 10, &[1, 0], &[1, 1]), cut(4, 11, &[0, 1], &[1, 1])]
        ));
    }

    /// What one thread did after another one's batch had returned is not seen without that.
    #[test]
    fn what_came_before_in_time_is_not_left_out() {
        let batches = [vec![span(1, 2)], vec![span(3, 4)]];
        assert!(!is_legal(&batches, &[cut(1, 10, &[0, 1], &[1, 1])]));
        let overlapping = [vec![span(1, 4)], vec![span(3, 5)]];
        assert!(is_legal(&overlapping, &[cut(2, 10, &[0, 1], &[1, 1])]));
    }

    #[test]
    fn a_cut_that_knows_little_says_little() {
        let batches = [vec![span(1, 2), span(3, 4), span(5, 6)]];
        let of = |included, excluded| Cut {
            span: span(3, 8),
            seen: vec![Seen {
                thread: 0,
                included,
                excluded,
            }],
            name: "get",
        };
        assert!(is_legal(&batches, &[of(1, Some(3))]));
        assert!(is_legal(&batches, &[of(1, None)]));
        assert!(!is_legal(&batches, &[of(0, Some(1))]));
    }

    #[test]
    fn a_violation_names_the_circle() {
        let violation = check(&[vec![span(1, 2)]], &[cut(3, 4, &[0], &[1])]).unwrap_err();
        assert!(
            violation.contains("batch 1 of thread 0 (1..2)") && violation.contains("cut (3..4)"),
            "{violation}"
        );
    }
}
