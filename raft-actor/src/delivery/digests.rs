//! Comparing this node's digest with those of the others.
//!
//! The leader announces the digest of an entry that it has applied; every node that hears of it says its own as of the
//! same entry, to all. A node that differs from a majority which agrees has diverged: its state machine is no function of
//! the log, or its memory is broken. Who of two is wrong cannot be told; then all report it.
//!
//! Bounds: the digests of the last [`KEPT`] entries, and what was said of the last [`COMPARED_MAX`] entries that
//! were announced. What is said of entries that are furthest ahead goes first: nobody keeps the others from being compared
//! by speaking of entries that never come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_core::{LogIndex, NodeId};

/// Entries whose digests are kept. An announcement that comes later than so many entries is not answered.
const KEPT: usize = 65_536;
/// Entries for which is kept what others said.
const COMPARED_MAX: usize = 64;

/// See the [module](self).
pub(crate) struct Digests {
    own: NodeId,
    /// The digests of the last entries; the last one is that of `last`.
    kept: VecDeque<u128>,
    last: LogIndex,
    /// What nodes said, by the entry.
    said: BTreeMap<LogIndex, BTreeMap<NodeId, u128>>,
    /// Entries that were announced and that this node has not applied yet.
    due: Vec<LogIndex>,
    /// The highest entry for which this node has said its own. What it says goes to all, so it says it once.
    answered: LogIndex,
    announced: LogIndex,
    /// It was reported that no majority agrees, and all have not agreed since.
    disagree: bool,
}

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that is wrong, so far.
    Fine,
    /// This node is not what the majority is.
    Diverged {
        index: LogIndex,
        own: u128,
        majority: u128,
    },
    /// All have spoken, or too many differ, and no majority agrees.
    NobodyAgrees { index: LogIndex },
}

impl Digests {
    pub(crate) fn new(own: NodeId) -> Self {
        Self {
            own,
            kept: VecDeque::new(),
            last: LogIndex::ZERO,
            said: BTreeMap::new(),
            due: Vec::new(),
            answered: LogIndex::ZERO,
            announced: LogIndex::ZERO,
            disagree: false,
        }
    }

    /// The next entry is applied.
    pub(crate) fn push(&mut self, index: LogIndex, digest: u128) {
        if index != self.last.next() {
            self.kept.clear();
        }
        self.last = index;
        self.kept.push_back(digest);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    fn at(&self, index: LogIndex) -> Option<u128> {
        let back = usize::try_from(self.last.0.checked_sub(index.0)?).ok()?;
        let at = self.kept.len().checked_sub(back + 1)?;
        self.kept.get(at).copied()
    }

    /// What a leader announces next, if it has applied anything since.
    pub(crate) fn announce(&mut self) -> Option<(LogIndex, u128)> {
        let digest = self.at(self.last).filter(|_| self.last > self.announced)?;
        self.announced = self.last;
        self.note(self.own, self.last, digest);
        Some((self.last, digest))
    }

    /// A node said its digest; `announced` asks for this node's own.
    pub(crate) fn heard(&mut self, from: NodeId, index: LogIndex, digest: u128, announced: bool) {
        let too_old = index.0 + KEPT as u64 <= self.last.0;
        let known = self.said.contains_key(&index);
        if too_old || (!announced && !known && self.said.len() >= COMPARED_MAX) {
            return;
        }
        self.note(from, index, digest);
        if announced && index > self.answered && !self.due.contains(&index) {
            self.due.push(index);
            if self.due.len() > COMPARED_MAX {
                self.due.sort_unstable();
                self.due.pop();
            }
        }
    }

    fn note(&mut self, from: NodeId, index: LogIndex, digest: u128) {
        self.said.entry(index).or_default().insert(from, digest);
        while self.said.len() > COMPARED_MAX {
            let ahead = self.said.range(self.last.next()..).next_back().is_some();
            let gone = if ahead {
                self.said.pop_last()
            } else {
                self.said.pop_first()
            };
            debug_assert!(gone.is_some());
        }
    }

    /// What this node is to say now, of announced entries that it has applied.
    pub(crate) fn answers(&mut self) -> Vec<(LogIndex, u128)> {
        let due = std::mem::take(&mut self.due);
        let mut answers = Vec::new();
        for index in due {
            if index > self.last {
                self.due.push(index);
                continue;
            }
            self.answered = self.answered.max(index);
            if let Some(digest) = self.at(index) {
                self.note(self.own, index, digest);
                answers.push((index, digest));
            }
        }
        answers
    }

    /// Compares what was said so far with what `voters` have said.
    pub(crate) fn verdict(&mut self, voters: &BTreeSet<NodeId>) -> Verdict {
        // Once all agree, what was before is of no interest any more: each digest is of all entries before it.
        let agree = |said: &BTreeMap<NodeId, u128>| {
            let mut digests = said.values();
            let first = digests.next();
            let all_spoke = voters.iter().all(|voter| said.contains_key(voter));
            all_spoke && digests.all(|digest| Some(digest) == first)
        };
        let agreed = self.said.iter().rfind(|(_, said)| agree(said));
        if let Some(index) = agreed.map(|(index, _)| *index) {
            self.said = self.said.split_off(&index);
            self.disagree = false;
        }
        for (index, said) in &self.said {
            match compare(said, self.own, voters) {
                Some(Compared::Majority { own, majority }) if own != majority => {
                    let index = *index;
                    return Verdict::Diverged {
                        index,
                        own,
                        majority,
                    };
                }
                Some(Compared::NobodyAgrees) if !self.disagree => {
                    self.disagree = true;
                    return Verdict::NobodyAgrees { index: *index };
                }
                _ => {}
            }
        }
        Verdict::Fine
    }
}

enum Compared {
    Majority { own: u128, majority: u128 },
    NobodyAgrees,
}

/// What `said` shows, if this node has spoken and not all others that did said the same.
fn compare(
    said: &BTreeMap<NodeId, u128>,
    own: NodeId,
    voters: &BTreeSet<NodeId>,
) -> Option<Compared> {
    let own = *said.get(&own)?;
    let voted: Vec<u128> = voters
        .iter()
        .filter_map(|voter| said.get(voter).copied())
        .collect();
    if voted.iter().all(|digest| *digest == own) {
        return None;
    }
    let count = |digest: u128| voted.iter().filter(|said| **said == digest).count();
    let majority = voted.iter().copied().max_by_key(|digest| count(*digest))?;
    let silent = voters.len() - voted.len();
    if count(majority) >= raft_core::quorum::majority(voters.len()) {
        Some(Compared::Majority { own, majority })
    } else if count(majority) + silent < raft_core::quorum::majority(voters.len()) {
        Some(Compared::NobodyAgrees)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(own: u64, through: u64, digest: impl Fn(u64) -> u128) -> Digests {
        let mut digests = Digests::new(NodeId(own));
        for index in 1..=through {
            digests.push(LogIndex(index), digest(index));
        }
        digests
    }

    /// Lets three nodes exchange what they say, and gives their verdicts.
    fn exchange(nodes: &mut [Digests]) -> Vec<Verdict> {
        let mut sent: Vec<(NodeId, LogIndex, u128, bool)> = Vec::new();
        let (index, digest) = nodes[0].announce().unwrap();
        sent.push((nodes[0].own, index, digest, true));
        while let Some((from, index, digest, announced)) = sent.pop() {
            for node in nodes.iter_mut().filter(|node| node.own != from) {
                node.heard(from, index, digest, announced);
                let answers = node.answers();
                sent.extend(answers.into_iter().map(|(i, d)| (node.own, i, d, false)));
            }
        }
        let voters = nodes.iter().map(|node| node.own).collect();
        let verdicts = nodes.iter_mut().map(|node| node.verdict(&voters));
        verdicts.collect()
    }

    #[test]
    fn who_differs_from_a_majority_learns_it_and_nobody_else() {
        let good = |index: u64| u128::from(index);
        let bad = |index: u64| u128::from(index) + u128::from(index >= 7) * 1000;
        let mut same = [
            digests(1, 9, good),
            digests(2, 9, good),
            digests(3, 9, good),
        ];
        assert_eq!(exchange(&mut same), [Verdict::Fine; 3]);
        for wrong in 0..3 {
            let digest = |node: usize| move |i| if node == wrong { bad(i) } else { good(i) };
            let mut nodes: Vec<_> = (0..3)
                .map(|n| digests(n as u64 + 1, 9, digest(n)))
                .collect();
            for (node, verdict) in exchange(&mut nodes).into_iter().enumerate() {
                let diverged = Verdict::Diverged {
                    index: LogIndex(9),
                    own: bad(9),
                    majority: good(9),
                };
                let expected = if node == wrong {
                    diverged
                } else {
                    Verdict::Fine
                };
                assert_eq!(verdict, expected, "node {node} with {wrong} wrong");
            }
        }
    }

    /// One node speaks of entries that never come, and of its own divergence nobody would hear.
    #[test]
    fn nobody_keeps_the_others_from_being_compared() {
        let bad = |index: u64| u128::from(index) + 1;
        let mut nodes = [
            digests(1, 9, u128::from),
            digests(2, 9, u128::from),
            digests(3, 9, bad),
        ];
        for node in &mut nodes {
            for index in 0..1000 {
                let far = LogIndex(1 << 62).0 + index;
                node.heard(NodeId(2), LogIndex(far), 0, index % 2 == 0);
            }
        }
        let diverged = Verdict::Diverged {
            index: LogIndex(9),
            own: 10,
            majority: 9,
        };
        let verdicts = exchange(&mut nodes);
        assert_eq!(verdicts, [Verdict::Fine, Verdict::Fine, diverged]);
    }

    #[test]
    fn what_is_asked_again_is_answered_once() {
        let mut digests = digests(1, 9, u128::from);
        for _ in 0..3 {
            digests.heard(NodeId(2), LogIndex(9), 9, true);
            digests.heard(NodeId(2), LogIndex(8), 8, true);
        }
        let mut answers = digests.answers();
        answers.sort_unstable();
        assert_eq!(answers, [(LogIndex(8), 8), (LogIndex(9), 9)]);
        digests.heard(NodeId(2), LogIndex(9), 9, true);
        digests.heard(NodeId(2), LogIndex(7), 7, true);
        assert_eq!(digests.answers(), []);
    }

    #[test]
    fn without_a_majority_all_report_once() {
        let mut nodes = [
            digests(1, 9, u128::from),
            digests(2, 9, |i| u128::from(i) + 1),
            digests(3, 9, |i| u128::from(i) + 2),
        ];
        let nobody = Verdict::NobodyAgrees { index: LogIndex(9) };
        assert_eq!(exchange(&mut nodes), [nobody; 3]);
        let voters = [1, 2, 3].map(NodeId).into();
        assert_eq!(nodes[0].verdict(&voters), Verdict::Fine);
    }

    #[test]
    fn who_only_learns_decides_nothing_and_is_told_all_the_same() {
        let voters = [1, 2, 3].map(NodeId).into();
        let good = u128::from;
        let bad = |index: u64| u128::from(index) + 1;
        let mut nodes = [
            digests(1, 9, good),
            digests(2, 9, good),
            digests(3, 9, good),
            digests(4, 9, bad),
            digests(5, 9, bad),
            digests(6, 9, bad),
        ];
        exchange(&mut nodes);
        let diverged = Verdict::Diverged {
            index: LogIndex(9),
            own: 10,
            majority: 9,
        };
        for (n, node) in nodes.iter_mut().enumerate() {
            let expected = if n < 3 { Verdict::Fine } else { diverged };
            assert_eq!(node.verdict(&voters), expected, "node {}", n + 1);
        }
    }

    #[test]
    fn a_node_that_is_behind_answers_when_it_has_caught_up() {
        let mut late = digests(2, 5, u128::from);
        late.heard(NodeId(1), LogIndex(7), 7, true);
        assert_eq!(late.answers(), []);
        late.push(LogIndex(6), 6);
        late.push(LogIndex(7), 7);
        assert_eq!(late.answers(), [(LogIndex(7), 7)]);
        assert_eq!(late.answers(), []);
        // A restored state leaves a gap; what was before it is not known any more.
        late.push(LogIndex(70_000), 1);
        late.heard(NodeId(1), LogIndex(69_000), 7, true);
        assert_eq!(late.answers(), []);
        let kept = late.said.len();
        for index in 0..1000 {
            late.heard(NodeId(3), LogIndex(80_000 + index), 0, index % 2 == 0);
        }
        assert!(late.said.len() <= COMPARED_MAX && late.due.len() <= COMPARED_MAX && kept < 4);
    }
}
