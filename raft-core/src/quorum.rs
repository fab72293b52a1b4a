//! The arithmetic of majorities: pure functions over a configuration and what its voters said.
//!
//! A joint configuration *is* two majorities: what is committed is the lesser of what the two halves have
//! committed, and an election is won when both halves have elected (thesis §4.3). A half without voters
//! has decided already and limits nothing: it has committed everything, and elected everybody. A node
//! whose configuration has no voters at all never leads, because it is none of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::Configuration;
use crate::{LogIndex, NodeId};

/// How many of `voters` voters are a majority.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest index that a majority of each half has acknowledged, [`LogIndex::MAX`] where there are no
/// voters. A voter of which `acknowledged` says 0 has acknowledged nothing; nobody else is asked.
#[must_use]
pub fn committed_index(
    configuration: &Configuration,
    acknowledged: impl Fn(NodeId) -> LogIndex,
) -> LogIndex {
    let incoming = majority_index(&configuration.voters, &acknowledged);
    let outgoing = majority_index(&configuration.voters_outgoing, &acknowledged);
    incoming.min(outgoing)
}

fn majority_index(
    voters: &BTreeSet<NodeId>,
    acknowledged: &impl Fn(NodeId) -> LogIndex,
) -> LogIndex {
    // Most clusters have few voters: no allocation for them, this runs for each acknowledgement.
    let mut few = [LogIndex::ZERO; 9];
    let mut many = Vec::new();
    let indexes = match few.get_mut(..voters.len()) {
        Some(indexes) => indexes,
        None => {
            many.resize(voters.len(), LogIndex::ZERO);
            &mut many[..]
        }
    };
    for (index, id) in indexes.iter_mut().zip(voters) {
        *index = acknowledged(*id);
    }
    indexes.sort_unstable_by(|a, b| b.cmp(a));
    let at = majority(voters.len()) - 1;
    indexes.get(at).copied().unwrap_or(LogIndex::MAX)
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority of each half said yes.
    Won,
    /// In one half so many said no that no majority can say yes any more.
    Lost,
    /// It is open.
    Pending,
}

/// How an election stands; votes of others than the voters do not count.
#[must_use]
pub fn vote_result(configuration: &Configuration, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    let halves = [&configuration.voters, &configuration.voters_outgoing];
    let [incoming, outgoing] = halves.map(|voters| majority_result(voters, votes));
    match (incoming, outgoing) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        _ => VoteResult::Pending,
    }
}

fn majority_result(voters: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    if voters.is_empty() {
        return VoteResult::Won;
    }
    let said = |what| {
        voters
            .iter()
            .filter(|id| votes.get(id) == Some(&what))
            .count()
    };
    let needed = majority(voters.len());
    if said(true) >= needed {
        VoteResult::Won
    } else if voters.len() - said(false) < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(n: u64) -> Configuration {
        Configuration::of((1..=n).map(NodeId))
    }

    fn joint(incoming: &[u64], outgoing: &[u64]) -> Configuration {
        Configuration {
            voters: incoming.iter().copied().map(NodeId).collect(),
            voters_outgoing: outgoing.iter().copied().map(NodeId).collect(),
            ..Configuration::default()
        }
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
            ((1..=11).collect(), 6),
        ] {
            let of = |id: NodeId| LogIndex(acknowledged[id.0 as usize - 1]);
            assert_eq!(
                committed_index(&voters(acknowledged.len() as u64), of),
                LogIndex(expected)
            );
        }
        assert_eq!(committed_index(&voters(0), |_| LogIndex(9)), LogIndex::MAX);
    }

    #[test]
    fn a_joint_configuration_commits_what_both_halves_have() {
        let of = |id: NodeId| LogIndex([9, 8, 7, 1, 2, 3][id.0 as usize - 1]);
        for (incoming, outgoing, expected) in [
            (vec![1, 2, 3], vec![4, 5, 6], 2),
            (vec![4, 5, 6], vec![1, 2, 3], 2),
            (vec![1, 2, 3], vec![], 8),
            (vec![1, 2, 4], vec![1, 2, 3], 8),
            (vec![1], vec![1, 4], 1),
        ] {
            let committed = committed_index(&joint(&incoming, &outgoing), of);
            assert_eq!(committed, LogIndex(expected), "{incoming:?} {outgoing:?}");
        }
    }

    #[test]
    fn votes_are_won_lost_or_open() {
        for (incoming, outgoing, yes, no, expected) in [
            (vec![1], vec![], vec![1], vec![], VoteResult::Won),
            (vec![1, 2], vec![], vec![1], vec![], VoteResult::Pending),
            (vec![1, 2], vec![], vec![1], vec![2], VoteResult::Lost),
            (vec![1, 2, 3], vec![], vec![1, 2], vec![3], VoteResult::Won),
            (vec![1, 2, 3], vec![], vec![1], vec![2], VoteResult::Pending),
            (vec![1, 2, 3], vec![], vec![1], vec![2, 3], VoteResult::Lost),
            (
                vec![1, 2, 3],
                vec![],
                vec![1, 9],
                vec![],
                VoteResult::Pending,
            ),
            (vec![], vec![], vec![], vec![], VoteResult::Won),
            (
                vec![1, 2, 3],
                vec![3, 4, 5],
                vec![1, 2],
                vec![],
                VoteResult::Pending,
            ),
            (
                vec![1, 2, 3],
                vec![3, 4, 5],
                vec![1, 3, 4],
                vec![],
                VoteResult::Won,
            ),
            (
                vec![1, 2, 3],
                vec![3, 4, 5],
                vec![1, 2, 3],
                vec![4, 5],
                VoteResult::Lost,
            ),
        ] {
            let votes = yes.iter().map(|id| (NodeId(*id), true));
            let votes = votes
                .chain(no.iter().map(|id| (NodeId(*id), false)))
                .collect();
            let configuration = joint(&incoming, &outgoing);
            assert_eq!(
                vote_result(&configuration, &votes),
                expected,
                "{configuration}, {votes:?}"
            );
        }
    }
}
