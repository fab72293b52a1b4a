//! What bounds a model: budgets, of which every state holds what is left.
//!
//! A budget is part of the state, so a model ends by itself: when nothing is left that could happen.

/// How often something may still happen, each for the cluster as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Election timers that run out.
    pub campaigns: u8,
    /// Heartbeats of leaders that become due.
    pub heartbeats: u8,
    /// Commands that clients propose.
    pub proposals: u8,
    /// Crashes, each followed by a start.
    pub crashes: u8,
    /// Packets that are delivered and stay.
    pub duplicates: u8,
    /// Snapshots that are taken.
    pub snapshots: u8,
    /// Snapshots that are lost on their way, so that the sender is told.
    pub lost_snapshots: u8,
    /// Changes of the configuration that are asked for.
    pub changes: u8,
    /// Transfers of the leadership that are asked for.
    pub transfers: u8,
    /// Reads that clients ask for.
    pub reads: u8,
}

impl Budget {
    /// More than any beginning takes.
    pub const UNLIMITED: Self = Self {
        campaigns: 100,
        heartbeats: 100,
        proposals: 100,
        crashes: 100,
        duplicates: 100,
        snapshots: 100,
        lost_snapshots: 100,
        changes: 100,
        transfers: 100,
        reads: 100,
    };

    /// Takes one from `left`. Says whether there was one.
    pub(crate) fn spend(left: &mut u8) -> bool {
        let one = *left > 0;
        *left -= u8::from(one);
        one
    }
}
