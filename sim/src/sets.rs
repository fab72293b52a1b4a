//! Sets of nodes as bits, and the arithmetic of majorities once more: written apart from the core's, so
//! that a mistake in one of them is seen by the other.

use std::collections::BTreeSet;

use raft_core::NodeId;
use raft_core::membership::Configuration;

/// Ids that one run may use: each is a bit of a [`Set`].
pub(crate) const IDS_MAX: usize = 60;

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set(pub(crate) u64);

impl Set {
    pub(crate) fn of<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(*id);
        }
        set
    }

    fn bit(id: NodeId) -> u64 {
        1 << (id.0 - 1)
    }

    pub(crate) fn insert(&mut self, id: NodeId) {
        self.0 |= Self::bit(id);
    }

    pub(crate) fn remove(&mut self, id: NodeId) {
        self.0 &= !Self::bit(id);
    }

    pub(crate) fn contains(self, id: NodeId) -> bool {
        self.0 & Self::bit(id) != 0
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn ids(self) -> impl Iterator<Item = NodeId> {
        (1..=IDS_MAX as u64)
            .map(NodeId)
            .filter(move |id| self.contains(*id))
    }
}

/// Who decides in a configuration: two halves, each by its majority. Learners are in neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quorums {
    pub(crate) incoming: Set,
    pub(crate) outgoing: Set,
}

impl Quorums {
    pub(crate) fn of(configuration: &Configuration) -> Self {
        Self {
            incoming: Set::of(&configuration.voters),
            outgoing: Set::of(&configuration.voters_outgoing),
        }
    }

    /// Whether those in `set` decide. Nobody decides for a configuration without voters.
    pub(crate) fn decide(self, set: Set) -> bool {
        let most = |half: Set| 2 * Set(half.0 & set.0).len() > half.len();
        most(self.incoming) && (self.outgoing == Set::default() || most(self.outgoing))
    }

    pub(crate) fn voters(self) -> Set {
        Set(self.incoming.0 | self.outgoing.0)
    }

    /// Whether each quorum of this meets each of `other`: by trying every set of voters.
    pub(crate) fn meet(self, other: Self) -> bool {
        let all = self.voters().0 | other.voters().0;
        let mut subset = all;
        loop {
            if self.decide(Set(subset)) && other.decide(Set(all & !subset)) {
                return false;
            }
            if subset == 0 {
                return true;
            }
            subset = (subset - 1) & all;
        }
    }
}

/// What a configuration may turn into by its leader alone: as it is, left, and with any of those who join.
pub(crate) fn futures(configuration: &Configuration) -> Vec<Quorums> {
    let now = Quorums::of(configuration);
    let with = |joining: &BTreeSet<NodeId>| Quorums {
        incoming: Set(now.incoming.0 | Set::of(joining).0),
        outgoing: Set::default(),
    };
    let one = |id: &NodeId| with(&BTreeSet::from([*id]));
    let mut all = vec![now, with(&BTreeSet::new()), with(&configuration.joining)];
    all.extend(configuration.joining.iter().map(one));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(ids: &[u64]) -> Quorums {
        let ids: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
        Quorums {
            incoming: Set::of(&ids),
            outgoing: Set::default(),
        }
    }

    #[test]
    fn one_voter_at_a_time_meets_and_two_do_not() {
        assert!(simple(&[1, 2, 3]).meet(simple(&[1, 2, 3, 4])));
        assert!(simple(&[1, 2, 3, 4]).meet(simple(&[1, 2, 3])));
        assert!(!simple(&[1, 2, 3]).meet(simple(&[1, 2, 3, 4, 5])));
        assert!(!simple(&[1]).meet(simple(&[2])));
    }

    #[test]
    fn a_joint_configuration_meets_both_its_halves() {
        let joint = Quorums {
            incoming: simple(&[4, 5, 6]).incoming,
            outgoing: simple(&[1, 2, 3]).incoming,
        };
        assert!(joint.meet(simple(&[1, 2, 3])) && joint.meet(simple(&[4, 5, 6])));
        assert!(!simple(&[1, 2, 3]).meet(simple(&[4, 5, 6])));
        assert!(!joint.decide(simple(&[1, 2, 4]).incoming));
        assert!(joint.decide(simple(&[1, 2, 4, 5]).incoming));
    }
}
