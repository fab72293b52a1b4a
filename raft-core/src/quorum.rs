//! The arithmetic of majorities: pure functions over voters and what they said.

use std::collections::{BTreeMap, BTreeSet};

use crate::{LogIndex, NodeId};

/// How many of `voters` voters are a majority.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest index that a majority of `voters` has acknowledged; a voter that `acknowledged` does not
/// name has acknowledged nothing. Without voters nothing is committed.
#[must_use]
pub fn committed_index(
    voters: &BTreeSet<NodeId>,
    acknowledged: impl Fn(NodeId) -> LogIndex,
) -> LogIndex {
    let mut indexes: Vec<LogIndex> = voters.iter().map(|id| acknowledged(*id)).collect();
    indexes.sort_unstable_by(|a, b| b.cmp(a));
    indexes
        .get(majority(voters.len()) - 1)
        .copied()
        .unwrap_or_default()
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority said yes.
    Won,
    /// So many said no that no majority can say yes any more.
    Lost,
    /// It is open.
    Pending,
}

/// How an election among `voters` stands; votes of others do not count.
#[must_use]
pub fn vote_result(voters: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    let yes = voters
        .iter()
        .filter(|id| votes.get(id) == Some(&true))
        .count();
    let no = voters
        .iter()
        .filter(|id| votes.get(id) == Some(&false))
        .count();
    let needed = majority(voters.len());
    if yes >= needed {
        VoteResult::Won
    } else if voters.len() - no < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(n: u64) -> BTreeSet<NodeId> {
        (1..=n).map(NodeId).collect()
    }

    #[test]
    fn majorities_of_one_to_seven() {
        let table: Vec<usize> = (1..=7).map(majority).collect();
        assert_eq!(table, [1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn committed_is_what_a_majority_has_in_any_order() {
        for (acknowledged, expected) in [
            (vec![5], 5),
            (vec![5, 3], 3),
            (vec![1, 9, 4], 4),
            (vec![9, 1, 4], 4),
            (vec![0, 0, 9], 0),
            (vec![2, 2, 7, 7], 2),
            (vec![1, 2, 3, 4, 5], 3),
        ] {
            let of = |id: NodeId| LogIndex(acknowledged[id.0 as usize - 1]);
            assert_eq!(
                committed_index(&voters(acknowledged.len() as u64), of),
                LogIndex(expected)
            );
        }
        assert_eq!(
            committed_index(&BTreeSet::new(), |_| LogIndex(9)),
            LogIndex(0)
        );
    }

    #[test]
    fn votes_are_won_lost_or_open() {
        for (n, yes, no, expected) in [
            (1, vec![1], vec![], VoteResult::Won),
            (2, vec![1], vec![], VoteResult::Pending),
            (2, vec![1], vec![2], VoteResult::Lost),
            (3, vec![1, 2], vec![3], VoteResult::Won),
            (3, vec![1], vec![2], VoteResult::Pending),
            (3, vec![1], vec![2, 3], VoteResult::Lost),
            (3, vec![1, 9], vec![], VoteResult::Pending),
            (5, vec![1, 2, 3], vec![4, 5], VoteResult::Won),
        ] {
            let votes = yes.iter().map(|id| (NodeId(*id), true));
            let votes = votes
                .chain(no.iter().map(|id| (NodeId(*id), false)))
                .collect();
            assert_eq!(
                vote_result(&voters(n), &votes),
                expected,
                "{n} voters, {votes:?}"
            );
        }
    }
}
