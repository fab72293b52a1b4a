//! Each checker is shown to fail: the history is fed what a broken core would do, and the bug is named.

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{
    AppendOutcome, AppendResponse, DurableMessage, Entry, EntryKind, HardState, LogId, LogIndex,
    NodeId, SnapshotMeta, Term, VoteResponse,
};

use super::*;
use crate::claims::check_release;
use crate::disk::Disk;

fn voters(ids: &[u64]) -> Configuration {
    Configuration::of(ids.iter().copied().map(NodeId))
}

fn noop(term: u64, index: u64) -> Entry {
    let (term, index) = (Term(term), LogIndex(index));
    Entry::new(term, index, EntryKind::Noop, Bytes::new())
}

fn reconfigured(term: u64, index: u64, ids: &[u64]) -> Entry {
    let (term, index) = (Term(term), LogIndex(index));
    Entry::new(term, index, EntryKind::Configuration, voters(ids).encode())
}

fn set(ids: &[u64]) -> Set {
    let ids: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
    Set::of(&ids)
}

/// What broke, by name.
fn name<T>(result: Result<T, Broken>) -> &'static str {
    result.err().map_or("nothing", |broken| broken.invariant)
}

/// Three voters and their empty logs.
struct Stage {
    history: History,
    logs: Vec<Shadow>,
}

impl Stage {
    fn new() -> Self {
        let initial = voters(&[1, 2, 3]);
        let log = Shadow::of(&Disk::default(), &initial);
        Self {
            history: History::new(initial),
            logs: vec![log; 3],
        }
    }

    fn vote(&mut self, node: u64, term: u64, candidate: u64) -> &'static str {
        name(
            self.history
                .voted(NodeId(node), Term(term), NodeId(candidate)),
        )
    }

    fn append(&mut self, node: u64, entry: &Entry) -> &'static str {
        let log = &mut self.logs[node as usize - 1];
        let before = log.last();
        log.push(entry);
        name(self.history.appended(NodeId(node), before, entry))
    }

    fn elect(&mut self, node: u64, term: u64, votes: &[u64]) -> &'static str {
        for voter in votes {
            self.vote(*voter, term, node);
        }
        let log = &self.logs[node as usize - 1];
        name(self.history.elected(NodeId(node), Term(term), log))
    }

    /// The leader of `term` appends to its own log.
    fn lead(&mut self, node: u64, term: u64, entry: &Entry) -> &'static str {
        match self.append(node, entry) {
            "nothing" => name(self.history.led(Term(term), entry)),
            broken => broken,
        }
    }

    fn commit(&mut self, term: u64, index: u64, durable_on: &[u64]) -> &'static str {
        let quorums = [Quorums::of(&voters(&[1, 2, 3]))];
        let holders = |_| set(durable_on);
        name(
            self.history
                .leader_committed(Term(term), LogIndex(index), &quorums, holders),
        )
    }
}

/// Node 1 leads term 1 and has committed its first entry, which node 2 has as well.
fn first_term() -> Stage {
    let mut stage = Stage::new();
    assert_eq!(stage.elect(1, 1, &[1, 2]), "nothing");
    assert_eq!(stage.lead(1, 1, &noop(1, 1)), "nothing");
    assert_eq!(stage.append(2, &noop(1, 1)), "nothing");
    assert_eq!(stage.commit(1, 1, &[1, 2]), "nothing");
    stage
}

#[test]
fn a_double_vote_is_seen_across_restarts() {
    let mut stage = Stage::new();
    assert_eq!(stage.vote(3, 5, 1), "nothing");
    assert_eq!(stage.vote(3, 5, 1), "nothing");
    assert_eq!(stage.vote(3, 5, 2), "vote-once");
}

#[test]
fn two_leaders_of_a_term_are_seen() {
    let mut stage = first_term();
    assert_eq!(stage.elect(2, 1, &[]), "election-safety");
}

#[test]
fn a_leader_by_too_few_votes_is_seen() {
    assert_eq!(Stage::new().elect(1, 1, &[1]), "election-quorum");
}

#[test]
fn a_learner_or_a_stranger_does_not_count_for_an_election() {
    assert_eq!(Stage::new().elect(1, 1, &[1, 9]), "election-quorum");
}

#[test]
fn a_leader_without_a_committed_entry_is_seen() {
    let mut stage = first_term();
    assert_eq!(stage.elect(3, 2, &[2, 3]), "leader-completeness");
}

#[test]
fn a_late_leader_of_an_older_term_need_not_have_what_a_newer_one_committed() {
    let mut stage = Stage::new();
    assert_eq!(stage.elect(1, 2, &[1, 2]), "nothing");
    stage.lead(1, 2, &noop(2, 1));
    assert_eq!(stage.commit(2, 1, &[1, 2]), "nothing");
    assert_eq!(stage.elect(3, 1, &[2, 3]), "nothing");
}

#[test]
fn a_leader_that_leaves_a_gap_is_seen() {
    let mut stage = first_term();
    let gap = noop(1, 3);
    assert_eq!(name(stage.history.led(Term(1), &gap)), "leader-append-only");
}

#[test]
fn the_same_entry_behind_another_is_seen() {
    let mut stage = first_term();
    stage.append(1, &noop(1, 2));
    stage.append(2, &noop(2, 2));
    stage.append(1, &noop(3, 3));
    assert_eq!(stage.append(2, &noop(3, 3)), "log-matching");
}

#[test]
fn a_commit_without_a_quorum_of_disks_is_seen() {
    let mut stage = first_term();
    stage.lead(1, 1, &noop(1, 2));
    assert_eq!(stage.commit(1, 2, &[1]), "commit-quorum");
}

#[test]
fn a_commit_of_an_old_term_by_counting_is_seen() {
    let mut stage = first_term();
    stage.append(1, &noop(1, 2));
    assert_eq!(stage.elect(1, 3, &[1, 3]), "nothing");
    assert_eq!(stage.commit(3, 2, &[1, 2, 3]), "commit-quorum");
}

#[test]
fn another_entry_where_one_is_committed_is_seen() {
    let mut stage = first_term();
    let reign = Reign {
        node: NodeId(3),
        base: 0,
        terms: vec![Term(2)],
        changes: Vec::new(),
    };
    stage.append(3, &noop(2, 1));
    stage.history.reigns.insert(Term(2), reign);
    assert_eq!(stage.commit(2, 1, &[2, 3]), "committed-never-changes");
}

#[test]
fn two_changes_at_once_are_seen() {
    let mut stage = first_term();
    stage.lead(1, 1, &reconfigured(1, 2, &[1, 2]));
    assert_eq!(
        name(stage.history.check_changes(Term(1), LogIndex(1))),
        "nothing"
    );
    stage.lead(1, 1, &reconfigured(1, 3, &[1]));
    assert_eq!(
        name(stage.history.check_changes(Term(1), LogIndex(2))),
        "nothing"
    );
    stage.lead(1, 1, &reconfigured(1, 4, &[1, 2]));
    assert_eq!(
        name(stage.history.check_changes(Term(1), LogIndex(2))),
        "one-change-at-a-time"
    );
}

#[test]
fn configurations_whose_quorums_do_not_meet_are_seen() {
    let mut stage = first_term();
    stage.lead(1, 1, &reconfigured(1, 2, &[4, 5, 6]));
    assert_eq!(stage.commit(1, 2, &[1, 2]), "quorums-meet");
}

#[test]
fn an_id_that_was_forgotten_is_seen() {
    let mut stage = first_term();
    stage.lead(1, 1, &reconfigured(1, 2, &[1, 2]));
    assert_eq!(stage.commit(1, 2, &[1, 2]), "ids-grow");
}

#[test]
fn a_snapshot_of_what_is_not_committed_is_seen() {
    let stage = first_term();
    let snapshot = |id, ids| SnapshotMeta {
        last: id,
        configuration: voters(ids).into(),
    };
    let check = |meta| name(stage.history.check_snapshot(NodeId(2), &meta));
    let (committed, other) = (
        LogId::new(Term(1), LogIndex(1)),
        LogId::new(Term(2), LogIndex(1)),
    );
    assert_eq!(check(snapshot(committed, &[1, 2, 3])), "nothing");
    assert_eq!(check(snapshot(other, &[1, 2, 3])), "snapshot-is-committed");
    assert_eq!(
        check(snapshot(committed, &[1, 2])),
        "snapshot-configuration"
    );
}

#[test]
fn another_state_is_seen() {
    let stage = first_term();
    let mut machine = Machine::default();
    machine.apply(&noop(1, 1), entry_hash(&noop(1, 1)));
    assert_eq!(
        name(stage.history.check_machine(NodeId(2), &machine)),
        "nothing"
    );
    let mut other = Machine::default();
    other.apply(&noop(2, 1), entry_hash(&noop(2, 1)));
    assert_eq!(
        name(stage.history.check_machine(NodeId(2), &other)),
        "state-machine-safety"
    );
}

#[test]
fn a_claim_that_is_not_on_the_disk_is_seen() {
    let mut stage = first_term();
    let vote: DurableMessage = DurableMessage::VoteResponse(VoteResponse {
        term: Term(2),
        granted: true,
    });
    let append = DurableMessage::AppendResponse(AppendResponse {
        term: Term(1),
        outcome: AppendOutcome::Accepted {
            matched: LogIndex(1),
        },
    });
    let mut disk = Disk::default();
    let mut check = |disk: &Disk, message: &DurableMessage| {
        name(check_release(
            &mut stage.history,
            NodeId(2),
            disk,
            NodeId(3),
            message,
        ))
    };
    assert_eq!(check(&disk, &vote), "claimed-before-durable");
    disk.hard_state = HardState {
        term: Term(2),
        voted_for: Some(NodeId(1)),
    };
    assert_eq!(check(&disk, &vote), "claimed-before-durable");
    assert_eq!(check(&disk, &append), "claimed-before-durable");
    disk.hard_state.voted_for = Some(NodeId(3));
    disk.log.push_back(noop(1, 1));
    assert_eq!(check(&disk, &vote), "nothing");
    assert_eq!(check(&disk, &append), "nothing");
}

#[test]
fn a_term_with_several_candidates_and_no_leader_is_a_split_vote() {
    let mut stage = Stage::new();
    assert!(!stage.history.stood(NodeId(1), Term(1)));
    assert!(!stage.history.stood(NodeId(2), Term(1)));
    assert!(stage.history.stood(NodeId(1), Term(2)));
    assert!(!stage.history.stood(NodeId(2), Term(2)));
}
