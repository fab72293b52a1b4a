//! How many more nodes may fail, and whose fault it is that they are not more.
//!
//! Pure: who is healthy is for others to say, and what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use raft_core::NodeId;
use raft_core::membership::Configuration;
use raft_core::quorum::majority;

/// How many voters may fail before nothing can be committed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// So many more, of those that are healthy now.
    pub now: usize,
    /// So many, if all voters were healthy: one of three or four, two of five or six.
    pub possible: usize,
    /// How many vote. Of an even number one does nothing for the tolerance. While two majorities are needed, it is the
    /// number of the half that tolerates less.
    pub voters: usize,
    /// The voters that are not healthy, and why not.
    pub why: Vec<(NodeId, Why)>,
}

/// Why a node is of no use to its leader now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is no connection to it; this is what was last heard or seen of it.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// It is connected, and has not answered for two election timeouts.
    #[error("silent")]
    Silent,
    /// It refuses the leader, for a reason that does not pass.
    #[error("it refuses the leader: {0}")]
    Refuses(String),
    /// It is too far behind for the log, and is sent a snapshot.
    #[error("it is sent a snapshot")]
    Snapshot,
    /// So many entries are not on its disk, as far as is known.
    #[error("{0} entries behind")]
    Behind(u64),
}

impl Tolerance {
    /// Whether fewer may fail than could.
    #[must_use]
    pub fn is_reduced(&self) -> bool {
        self.now < self.possible
    }
}

/// That of `configuration`, in which all are healthy but these.
pub(crate) fn tolerance(
    configuration: &Configuration,
    ailing: &BTreeMap<NodeId, Why>,
) -> Tolerance {
    let halves = [&configuration.voters, &configuration.voters_outgoing];
    let halves = halves.into_iter().filter(|voters| !voters.is_empty());
    let of = |voters: &BTreeSet<NodeId>| {
        let healthy = voters.iter().filter(|id| !ailing.contains_key(id)).count();
        let needed = majority(voters.len());
        let possible = voters.len() - needed;
        (healthy.saturating_sub(needed), possible, voters.len())
    };
    let (now, possible, voters) = halves.map(of).min().unwrap_or((0, 0, 0));
    let why = ailing.iter().filter(|(id, _)| configuration.votes(**id));
    Tolerance {
        now,
        possible,
        voters,
        why: why.map(|(id, why)| (*id, why.clone())).collect(),
    }
}

/// Fewer may fail than could for so long before anything is said of it: a node that is started again is not to be reported.
const SETTLED: Duration = Duration::from_secs(2);
/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(60);

/// When people are told.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// Since when fewer may fail than could.
    since: Option<Instant>,
    told: Option<Instant>,
}

/// What they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice<'t> {
    Reduced(&'t Tolerance),
    Restored(&'t Tolerance),
}

impl Alarm {
    /// Looks at the tolerance as it is; none if this node cannot know it, and then it is not for this node to speak.
    pub(crate) fn sees<'t>(
        &mut self,
        tolerance: Option<&'t Tolerance>,
        now: Instant,
    ) -> Option<Notice<'t>> {
        let Some(tolerance) = tolerance else {
            *self = Self::default();
            return None;
        };
        if !tolerance.is_reduced() {
            let told = std::mem::take(self).told;
            return told.map(|_| Notice::Restored(tolerance));
        }
        let since = *self.since.get_or_insert(now);
        let due = self.told.map_or(since + SETTLED, |told| told + AGAIN);
        if now < due {
            return None;
        }
        self.told = Some(now);
        Some(Notice::Reduced(tolerance))
    }
}

impl fmt::Display for Tolerance {
    /// Writes `0 of 3 voters may fail, 1 could: node 2 is silent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} voters may fail", self.now, self.voters)?;
        if self.is_reduced() {
            write!(f, ", {} could", self.possible)?;
        }
        for (at, (id, why)) in self.why.iter().enumerate() {
            let comma = if at == 0 { ":" } else { "," };
            write!(f, "{comma} node {id}: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_core::membership::{Change, Step, apply};

    use super::*;

    fn ailing(ids: &[u64]) -> BTreeMap<NodeId, Why> {
        ids.iter().map(|id| (NodeId(*id), Why::Silent)).collect()
    }

    #[test]
    fn a_minority_may_fail_of_those_that_are_left() {
        for (voters, ill, now, possible) in [
            (1, &[][..], 0, 0),
            (2, &[], 0, 0),
            (2, &[2], 0, 0),
            (3, &[], 1, 1),
            (3, &[2], 0, 1),
            // The quorum is lost: that is no less than nothing.
            (3, &[2, 3], 0, 1),
            (4, &[], 1, 1),
            (4, &[4], 0, 1),
            (5, &[], 2, 2),
            (5, &[1], 1, 2),
            (5, &[1, 5], 0, 2),
            (6, &[], 2, 2),
            (7, &[1], 2, 3),
            // Somebody who is no voter.
            (3, &[9], 1, 1),
        ] {
            let of = Configuration::of((1..=voters).map(NodeId));
            let found = tolerance(&of, &ailing(ill));
            assert_eq!(
                (found.now, found.possible),
                (now, possible),
                "{voters} {ill:?}"
            );
            let blamed: Vec<u64> = found.why.iter().map(|(id, _)| id.0).collect();
            let voting: Vec<u64> = ill.iter().copied().filter(|id| *id <= voters).collect();
            assert_eq!((found.voters as u64, blamed), (voters, voting));
        }
    }

    #[test]
    fn of_two_majorities_the_weaker_one_counts() {
        // 1 2 3 become 1 4 5: nobody of either half may be spared whose half has lost one already.
        let steps = [2, 3].map(|id| Step::Remove(NodeId(id)));
        let steps = steps
            .into_iter()
            .chain([4, 5].map(|id| Step::AddVoter(NodeId(id))));
        let change = Change::EnterJoint {
            steps: steps.collect(),
            auto_leave: true,
        };
        let joint = apply(&Configuration::of([1, 2, 3].map(NodeId)), &change).unwrap();
        for (ill, now) in [(&[][..], 1), (&[2], 0), (&[4], 0), (&[2, 4], 0)] {
            let found = tolerance(&joint, &ailing(ill));
            assert_eq!((found.now, found.possible), (now, 1), "{ill:?}");
            assert_eq!(found.why.len(), ill.len(), "{ill:?}");
        }
    }

    #[test]
    fn learners_neither_help_nor_harm() {
        let change = Change::Simple(vec![Step::AddLearner(NodeId(4))]);
        let of = apply(&Configuration::of([1, 2, 3].map(NodeId)), &change).unwrap();
        let (well, ill) = (tolerance(&of, &ailing(&[])), tolerance(&of, &ailing(&[4])));
        assert_eq!((well.now, well.voters), (1, 3));
        assert_eq!(well, ill);
    }

    #[test]
    fn people_are_told_of_what_lasts_and_of_its_end() {
        let of = Configuration::of([1, 2, 3].map(NodeId));
        let (whole, reduced) = (tolerance(&of, &ailing(&[])), tolerance(&of, &ailing(&[2])));
        let (mut alarm, begin) = (Alarm::default(), Instant::now());
        let mut sees = |tolerance, seconds: f64| {
            let now = begin + Duration::from_secs_f64(seconds);
            alarm.sees(tolerance, now)
        };
        // A node is away for a moment: nobody need know.
        assert_eq!(sees(Some(&whole), 0.0), None);
        assert_eq!(sees(Some(&reduced), 1.0), None);
        assert_eq!(sees(Some(&reduced), 2.9), None);
        assert_eq!(sees(Some(&whole), 3.0), None);
        // It stays away: once, and each minute, until it is back.
        for (seconds, told) in [
            (4.0, false),
            (6.0, true),
            (6.1, false),
            (65.9, false),
            (66.0, true),
        ] {
            let notice = told.then_some(Notice::Reduced(&reduced));
            assert_eq!(sees(Some(&reduced), seconds), notice, "{seconds}");
        }
        assert_eq!(sees(Some(&whole), 67.0), Some(Notice::Restored(&whole)));
        assert_eq!(sees(Some(&whole), 68.0), None);
        // Somebody else leads meanwhile: it is theirs to speak, and nothing is left of it here.
        assert_eq!(sees(Some(&reduced), 70.0), None);
        assert_eq!(sees(Some(&reduced), 72.0), Some(Notice::Reduced(&reduced)));
        assert_eq!(sees(None, 73.0), None);
        assert_eq!(sees(Some(&whole), 74.0), None);
    }

    #[test]
    fn it_says_who_is_to_blame() {
        let of = Configuration::of([1, 2, 3].map(NodeId));
        let whole = tolerance(&of, &BTreeMap::new());
        assert_eq!(whole.to_string(), "1 of 3 voters may fail");
        assert!(!whole.is_reduced());
        let why = BTreeMap::from([
            (NodeId(2), Why::NotConnected("connection refused".into())),
            (NodeId(3), Why::Behind(20_000)),
        ]);
        let reduced = tolerance(&of, &why);
        assert!(reduced.is_reduced());
        assert_eq!(
            reduced.to_string(),
            "0 of 3 voters may fail, 1 could: node 2: not connected: connection refused, node 3: 20000 entries behind"
        );
    }
}
