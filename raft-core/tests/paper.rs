//! The rules of the paper's figure 2, and of the thesis where it adds to them, one by one.
//!
//! The golden scripts show most of them at work; here are those that a table or a single step shows
//! sharper.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use raft_core::{
    AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Effect, HeartbeatResponse,
    Input, LogId, LogIndex, Message, NodeId, OpenMessage, PreVote, PreVoteResponse, Role, Round,
    Term, VoteResponse,
};
use support::disk::Disk;
use support::node::{Node, config, disk, entry, heartbeat, id, outcome, request_vote, sent, vote};

/// Figure 2, AppendEntries 1: "reply false if term < currentTerm".
#[test]
fn a_leader_of_an_old_term_is_told_the_current_one() {
    let mut node = Node::new(5, None, &[1]);
    let taught = OpenMessage::HeartbeatResponse(HeartbeatResponse {
        term: Term(5),
        round: Round(0),
    });
    let effects = node.append(2, 4, id(1, 1), &[entry(4, 2)], 1);
    assert_eq!(sent(&effects), std::slice::from_ref(&taught));
    assert_eq!(node.raft.status().last, id(1, 1));
    assert_eq!(sent(&node.open(2, heartbeat(4, 1))), [taught]);
    assert_eq!((node.raft.leader(), node.commit()), (None, 0));
}

/// Figure 2, AppendEntries 2: "reply false if log doesn't contain an entry at prevLogIndex whose term matches".
/// An empty one is checked like any other.
#[test]
fn a_gap_or_another_term_at_prev_is_refused_with_a_hint() {
    for (prev, hint) in [
        (id(3, 5), id(3, 4)),
        (id(3, 9), id(3, 4)),
        (id(2, 3), id(1, 2)),
        (id(4, 3), id(3, 3)),
    ] {
        for entries in [vec![], vec![entry(4, prev.index.0 + 1)]] {
            let mut node = Node::new(4, None, &[1, 1, 3, 3]);
            let expected = AppendOutcome::Rejected {
                prev: prev.index,
                hint,
            };
            assert_eq!(
                outcome(&node.append(2, 4, prev, &entries, 4)),
                expected,
                "{prev}"
            );
            assert_eq!((node.raft.status().last, node.commit()), (id(3, 4), 0));
        }
    }
}

/// Figure 2, AppendEntries 3 and 4: cut at the first conflict, and only there; append what is new.
#[test]
fn only_a_conflict_cuts_and_only_what_is_new_is_written() {
    for (entries, cut, new, last) in [
        (vec![entry(1, 2), entry(3, 3)], None, 0, id(3, 4)),
        (vec![entry(1, 2)], None, 0, id(3, 4)),
        (vec![], None, 0, id(3, 4)),
        (vec![entry(1, 2), entry(4, 3)], Some(3), 1, id(4, 3)),
        (
            vec![entry(1, 2), entry(3, 3), entry(3, 4), entry(4, 5)],
            None,
            1,
            id(4, 5),
        ),
    ] {
        let mut node = Node::new(4, None, &[1, 1, 3, 3]);
        let effects = node.append(2, 4, id(1, 1), &entries, 0);
        let Some(Effect::Persist(persist)) = effects.first() else {
            panic!("{effects:?}");
        };
        assert_eq!(persist.truncate_from, cut.map(LogIndex));
        assert_eq!(persist.append.len(), new);
        assert_eq!(node.raft.status().last, last);
    }
}

/// Figure 2, AppendEntries 5: "commitIndex = min(leaderCommit, index of last new entry)": what lies behind is
/// not proven to match.
#[test]
fn the_commit_index_goes_no_further_than_the_message_proves() {
    for (entries, commit, expected) in [
        (vec![], 9, 1),
        (vec![entry(1, 2)], 9, 2),
        (vec![entry(1, 2)], 1, 1),
    ] {
        let mut node = Node::new(4, None, &[1, 1, 3, 3]);
        node.append(2, 4, id(1, 1), &entries, commit);
        assert_eq!(node.commit(), expected);
    }
}

/// Figure 2, all servers: entries are applied in order, once; and here not before they are durable.
#[test]
fn committed_entries_are_handed_out_once_and_when_durable() {
    let mut node = Node::new(1, None, &[]);
    let effects = node.append(2, 1, LogId::ZERO, &[entry(1, 1), entry(1, 2)], 2);
    let handed = |effects: &[Effect]| {
        let commits = effects.iter().filter_map(|effect| match effect {
            Effect::Commit(commit) => Some((commit.through.0, commit.entries.len())),
            _ => None,
        });
        commits.collect::<Vec<_>>()
    };
    assert_eq!((node.commit(), handed(&effects)), (2, vec![]));
    assert_eq!(handed(&node.persisted()), [(2, 2)]);
    assert_eq!(
        handed(&node.append(2, 1, LogId::ZERO, &[entry(1, 1)], 2)),
        []
    );
}

/// Figure 2, RequestVote 2 and §5.4.1: "at least as up-to-date", the term first and then the length.
#[test]
fn a_vote_goes_to_a_log_that_is_at_least_as_up_to_date() {
    for (last, granted) in [
        (id(3, 4), true),
        (id(3, 5), true),
        (id(4, 1), true),
        (id(3, 3), false),
        (id(2, 9), false),
        (LogId::ZERO, false),
    ] {
        let mut node = Node::new(4, None, &[1, 1, 3, 3]);
        assert_eq!(
            vote(&node.durable(2, request_vote(5, last))),
            Some(granted),
            "{last}"
        );
        assert_eq!(node.raft.term(), Term(5), "the term is entered either way");
    }
}

/// §5.2: one vote in a term, first come, first served; the same candidate hears it again.
#[test]
fn one_vote_in_a_term_though_the_question_be_repeated() {
    let mut node = Node::new(1, None, &[]);
    let answers = [2, 3, 2].map(|from| vote(&node.durable(from, request_vote(2, LogId::ZERO))));
    assert_eq!(answers, [Some(true), Some(false), Some(true)]);
    // The vote is on disk: it binds the next run.
    let mut node = Node::new(2, Some(2), &[]);
    assert_eq!(
        vote(&node.durable(3, request_vote(2, LogId::ZERO))),
        Some(false)
    );
}

/// Figure 2, RequestVote 1: an old term gets no vote.
#[test]
fn a_candidate_of_an_old_term_gets_nothing_but_the_term() {
    let mut node = Node::new(5, None, &[]);
    let effects = node.durable(2, request_vote(4, id(3, 9)));
    let taught = OpenMessage::HeartbeatResponse(HeartbeatResponse {
        term: Term(5),
        round: Round(0),
    });
    assert_eq!((vote(&effects), sent(&effects)), (None, vec![taught]));
    assert_eq!(node.raft.status().voted_for, None);
}

/// Figure 2, all servers: "if RPC request or response contains term T > currentTerm: set currentTerm = T,
/// convert to follower". In one table for a leader, and for every message that may carry one.
#[test]
fn a_higher_term_in_any_message_ends_a_reign() {
    let term = Term(9);
    let refused = AppendOutcome::Rejected {
        prev: LogIndex(1),
        hint: LogId::ZERO,
    };
    let messages: Vec<Message> = vec![
        heartbeat(9, 0).into(),
        OpenMessage::HeartbeatResponse(HeartbeatResponse {
            term,
            round: Round(1),
        })
        .into(),
        OpenMessage::CommitAdvanced(CommitAdvanced {
            term,
            commit: LogIndex(0),
        })
        .into(),
        OpenMessage::PreVoteResponse(PreVoteResponse {
            term,
            granted: false,
        })
        .into(),
        DurableMessage::VoteResponse(VoteResponse {
            term,
            granted: true,
        })
        .into(),
        DurableMessage::AppendResponse(AppendResponse {
            term,
            outcome: refused,
        })
        .into(),
    ];
    for message in messages {
        let mut node = Node::leader(config(3), 1, &[1]);
        node.receive(2, message.clone());
        let status = node.raft.status();
        assert_eq!(
            (status.role, status.term, status.voted_for),
            (Role::Follower, term, None),
            "{message:?}"
        );
    }
}

/// Thesis §9.6: a pre-vote changes nothing at its receiver, neither its term, nor its vote, nor its timer.
#[test]
fn a_pre_vote_leaves_no_mark() {
    let mut node = Node::new(3, None, &[]);
    let ticks_left = |node: &Node| {
        let mut raft = node.raft.clone();
        (1..).find(|_| !raft.step(Input::Tick).is_empty()).unwrap()
    };
    (0..5).for_each(|_| assert_eq!(node.step(Input::Tick), []));
    let (before, left): (_, u32) = (node.raft.status(), ticks_left(&node));
    let question = OpenMessage::PreVote(PreVote {
        term: Term(4),
        last: LogId::ZERO,
        transfer: false,
    });
    let granted = OpenMessage::PreVoteResponse(PreVoteResponse {
        term: Term(4),
        granted: true,
    });
    assert_eq!(sent(&node.open(2, question)), [granted]);
    assert_eq!((node.raft.status(), ticks_left(&node)), (before, left));
}

/// §5.2: a granted vote resets the election timer; a refused one does not.
#[test]
fn a_granted_vote_resets_the_timer_and_a_refused_one_does_not() {
    for (last, starts) in [(id(1, 1), false), (LogId::ZERO, true)] {
        let mut node = Node::new(1, None, &[1]);
        (0..9).for_each(|_| drop(node.step(Input::Tick)));
        node.durable(2, request_vote(2, last));
        // No timeout is longer than 19 ticks, and none shorter than 10.
        (0..9).for_each(|_| drop(node.step(Input::Tick)));
        if starts {
            node.step(Input::Tick);
        }
        assert_eq!(node.raft.role() == Role::PreCandidate, starts);
    }
}

/// §5.2: timeouts are drawn anew from the whole range, and differ between nodes.
#[test]
fn election_timeouts_are_random_within_their_range() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut config = config(3);
        config.seed = seed;
        let mut node = Node::with(config, &Disk::default());
        let ticks = (1..).find(|_| !node.step(Input::Tick).is_empty());
        seen.insert(ticks.unwrap());
    }
    assert_eq!(seen, (10..20).collect());
}

/// §5.2: a majority of different voters, of this term; a refusal of a higher term is no grant, and a
/// repeated vote counts once.
#[test]
fn votes_count_once_for_each_voter_and_only_in_their_term() {
    let mut node = Node::with(config(5), &disk(1, None, &[]));
    node.step(Input::Campaign);
    let pre = |term, granted| {
        let term = Term(term);
        OpenMessage::PreVoteResponse(PreVoteResponse { term, granted })
    };
    for _ in 0..3 {
        node.open(2, pre(2, true));
        node.open(3, pre(7, true));
    }
    assert_eq!(node.raft.role(), Role::PreCandidate);
    node.open(3, pre(2, true));
    assert_eq!(node.raft.role(), Role::Candidate);
    let yes = |term| {
        let (term, granted) = (Term(term), true);
        DurableMessage::VoteResponse(VoteResponse { term, granted })
    };
    for _ in 0..3 {
        node.durable(2, yes(2));
        node.durable(3, yes(1));
    }
    node.open(3, pre(2, true));
    assert_eq!(node.raft.role(), Role::Candidate);
    // Its own vote is durable: with that of 2 it has two of five, and with that of 3 a majority.
    node.persisted();
    assert_eq!(node.raft.role(), Role::Candidate);
    node.durable(3, yes(2));
    assert_eq!(node.raft.role(), Role::Leader);
}

/// §5.2: a candidate that hears from the leader of its own term follows it.
#[test]
fn a_candidate_follows_the_leader_of_its_term() {
    let mut node = Node::new(1, None, &[]);
    node.step(Input::Campaign);
    let (term, granted) = (Term(2), true);
    node.open(
        2,
        OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
    );
    assert_eq!(
        (node.raft.role(), node.raft.term()),
        (Role::Candidate, Term(2))
    );
    node.append(3, 2, LogId::ZERO, &[], 0);
    assert_eq!(
        (node.raft.role(), node.raft.leader()),
        (Role::Follower, Some(NodeId(3)))
    );
}

/// Figure 2, leaders: nextIndex begins behind the log, matchIndex at 0; a refusal lowers the one, an
/// acknowledgement raises both, and neither comes back by a late answer.
#[test]
fn a_late_answer_moves_no_index_back() {
    let mut node = Node::leader(config(3), 1, &[1, 1, 1]);
    let peer = |node: &Node| {
        let peer = node.raft.status().peers[0].clone();
        (peer.matched.0, peer.next.0)
    };
    assert_eq!(peer(&node), (0, 4));
    node.refuse(2, 3, id(1, 1));
    assert_eq!(peer(&node), (0, 2));
    node.refuse(2, 3, id(1, 1));
    assert_eq!(peer(&node), (0, 2), "the same refusal again is late");
    node.acknowledge(2, 4);
    assert_eq!(peer(&node), (4, 5));
    node.acknowledge(2, 1);
    node.refuse(2, 1, LogId::ZERO);
    node.refuse(2, 4, LogId::ZERO);
    node.refuse(2, 9, LogId::ZERO);
    assert_eq!(peer(&node), (4, 5));
}

/// Figure 2, leaders, last rule, for one to five voters: a majority, its own disk counted like any other,
/// and an entry of the own term (§5.4.2).
#[test]
fn a_majority_with_an_entry_of_the_own_term_commits() {
    for voters in 2..=5 {
        let mut node = Node::leader(config(voters), 1, &[1, 1]);
        // Entries 1 and 2 are of term 1, 3 is its no-op: everybody has the first two.
        (2..=voters).for_each(|peer| drop(node.acknowledge(peer, 2)));
        assert_eq!(node.commit(), 0);
        let majority = voters / 2 + 1;
        (2..=majority).for_each(|peer| drop(node.acknowledge(peer, 3)));
        assert_eq!(node.commit(), 0, "its own disk is not done");
        node.persisted();
        assert_eq!(node.commit(), 3);
    }
}

/// §5.3: a batch is one write and one message to each peer.
#[test]
fn a_batch_costs_one_write_and_one_message_for_each_peer() {
    let mut node = Node::leader(config(3), 0, &[]);
    node.acknowledge(2, 1);
    node.acknowledge(3, 1);
    let commands = (0..100).map(|n| Bytes::from(format!("{n}"))).collect();
    let effects = node.step(Input::Propose(commands));
    let writes = effects.iter().filter(|e| matches!(e, Effect::Persist(_)));
    assert_eq!((writes.count(), sent(&effects).len()), (1, 2));
}
