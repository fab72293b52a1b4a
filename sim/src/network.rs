//! The links between nodes, each direction by itself.

use raft_core::NodeId;

use crate::sets::{IDS_MAX, Set};

/// What one direction of a link remembers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Link {
    /// How often it was reset: what was under way at a reset never arrives.
    pub(crate) connection: u32,
    pub(crate) sent: u64,
    /// The highest number that has arrived.
    pub(crate) arrived: u64,
    /// On an ordered link nothing arrives before this.
    pub(crate) busy_until: u64,
}

pub(crate) struct Network {
    links: Vec<Link>,
    /// For each sender, whom it does not reach.
    cuts: [Set; IDS_MAX],
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            links: vec![Link::default(); IDS_MAX * IDS_MAX],
            cuts: [Set::default(); IDS_MAX],
        }
    }

    pub(crate) fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        &mut self.links[(from.0 as usize - 1) * IDS_MAX + to.0 as usize - 1]
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts[from.0 as usize - 1].contains(to)
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        if from != to {
            self.cuts[from.0 as usize - 1].insert(to);
        }
    }

    pub(crate) fn cut_both(&mut self, one: NodeId, other: NodeId) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts = [Set::default(); IDS_MAX];
    }
}
