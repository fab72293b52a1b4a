//! What a hostile or broken peer, disk or caller could hand to a node, and what the core then does: it
//! ignores the message, or it ends the node; it never panics, and never goes on with a wrong log.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use raft_core::membership::Configuration;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, Config, DurableMessage, Effect, Entry, EntryKind,
    HeartbeatResponse, Input, InstallSnapshot, LogId, LogIndex, Message, NodeId, OpenMessage,
    PreVote, PreVoteResponse, Raft, ReadBatch, ReadIndex, ReadIndexResponse, Role, Round,
    SnapshotMeta, TERM_LEAP_MAX, Term, TimeoutNow, Unsound, Violation, VoteResponse, WriteId,
};
use support::disk::Disk;
use support::node::{Node, config, disk, entry, heartbeat, id, request_vote, sent};

/// What a node refuses, and that nothing else came of it.
fn refused(effects: &[Effect]) -> Unsound {
    match effects {
        [Effect::Ignored { reason, .. }] => *reason,
        other => panic!("{other:?}"),
    }
}

/// A leader that contradicts what is committed: the safety that all rests on is gone, and the node ends rather
/// than choose a side.
#[test]
fn broken_safety_ends_the_node_for_good() {
    let mut node = Node::new(1, None, &[]);
    node.append(2, 1, LogId::ZERO, &[entry(1, 1)], 1);
    let effects = node.append(3, 2, LogId::ZERO, &[entry(2, 1)], 1);
    let conflict = |e: &Effect| matches!(e, Effect::Halt(Violation::CommittedConflict { .. }));
    assert!(effects.iter().any(conflict), "{effects:?}");
    assert_eq!(node.step(Input::Tick), []);
}

/// Whoever says that it leads a term that another leads is not heard, and ends nobody: neither the leader, which
/// knows who elected it, nor those who follow that one.
#[test]
fn a_second_leader_of_a_term_is_not_heard() {
    let mut leader = Node::leader(config(3), 1, &[1]);
    let mut follower = Node::new(1, None, &[]);
    follower.append(2, 1, LogId::ZERO, &[entry(1, 1)], 1);
    for node in [&mut leader, &mut follower] {
        let term = node.raft.term();
        let before = node.raft.status();
        let append = AppendEntries {
            term,
            prev: LogId::ZERO,
            entries: [entry(1, 1), entry(1, 2)].into(),
            commit: LogIndex(2),
        };
        let snapshot = SnapshotMeta {
            last: id(1, 50),
            configuration: Arc::new(Configuration::of([1, 2, 3].map(NodeId))),
        };
        let (from, message) = (NodeId(3), InstallSnapshot { term, snapshot });
        let all = [
            node.open(3, heartbeat(term.0, 0)),
            node.open(3, OpenMessage::AppendEntries(append)),
            node.open(3, OpenMessage::TimeoutNow(TimeoutNow { term })),
            node.step(Input::SnapshotReceived { from, message }),
        ];
        for effects in all {
            assert_eq!(refused(&effects), Unsound::AnotherLeads);
        }
        assert_eq!(node.raft.status(), before);
    }
}

/// One message with the highest term would leave no room for any further election.
#[test]
fn nobody_leaps_to_a_term_that_no_election_reaches() {
    for beyond in [3 + TERM_LEAP_MAX, Term::MAX.0] {
        let term = Term(beyond + 1);
        let response = HeartbeatResponse {
            term: Term(beyond),
            round: Round(0),
        };
        let granted = false;
        let voted = DurableMessage::VoteResponse(VoteResponse {
            term: Term(beyond),
            granted,
        });
        let messages: Vec<Message> = vec![
            OpenMessage::HeartbeatResponse(response).into(),
            voted.into(),
            OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }).into(),
            request_vote(beyond, id(1, 1)).into(),
            heartbeat(beyond, 0).into(),
        ];
        for message in messages {
            let mut node = Node::leader(config(3), 1, &[1]);
            let before = node.raft.status();
            assert_eq!(refused(&node.receive(2, message)), Unsound::TermBeyond);
            assert_eq!(node.raft.status(), before);
        }
    }
    // As far as that, a node that was away for long still comes.
    let mut node = Node::leader(config(3), 1, &[1]);
    let near = node.raft.term().0 + TERM_LEAP_MAX;
    node.open(2, heartbeat(near, 0));
    assert_eq!(node.raft.term(), Term(near));
}

/// What makes no sense deposes nobody, whatever its term, and is no sign of life.
#[test]
fn what_makes_no_sense_changes_nothing() {
    let append = |prev, entries: Vec<Entry>| {
        let (term, commit) = (Term(9), LogIndex(0));
        let entries = entries.into();
        OpenMessage::AppendEntries(AppendEntries {
            term,
            prev,
            entries,
            commit,
        })
    };
    let mut many = entry(3, 2);
    many.kind = EntryKind::Configuration;
    many.data = Configuration::of((1..=10_000).map(NodeId)).encode();
    let rejected = |prev, hint| {
        let prev = LogIndex(prev);
        let outcome = AppendOutcome::Rejected { prev, hint };
        let term = Term(9);
        DurableMessage::AppendResponse(AppendResponse { term, outcome })
    };
    let messages: Vec<(Message, Unsound)> = vec![
        (
            append(id(1, 1), vec![entry(3, 2), entry(2, 3)]).into(),
            Unsound::Run,
        ),
        (append(id(1, 1), vec![entry(10, 2)]).into(), Unsound::Run),
        (append(id(10, 1), vec![]).into(), Unsound::Position),
        (append(id(0, 1), vec![]).into(), Unsound::Position),
        (append(id(1, 0), vec![]).into(), Unsound::Position),
        (append(id(1, 1), vec![many]).into(), Unsound::Configuration),
        (heartbeat(9, 1_000).into(), Unsound::Commit),
        (request_vote(9, id(9, 9)).into(), Unsound::Candidate),
        (request_vote(9, id(10, 9)).into(), Unsound::Position),
        (request_vote(9, id(0, 9)).into(), Unsound::Position),
        (rejected(3, id(1, 4)).into(), Unsound::Position),
        (rejected(3, id(0, 2)).into(), Unsound::Position),
    ];
    for (message, reason) in messages {
        let mut node = Node::leader(config(3), 1, &[1]);
        let before = node.raft.status();
        assert_eq!(refused(&node.receive(2, message.clone())), reason);
        assert_eq!(node.raft.status(), before, "{message:?}");
    }
    // Of this leader's own term: answers to what it never sent are no sign of life.
    let mut node = Node::leader(config(3), 1, &[1]);
    let (term, last) = (node.raft.term(), node.raft.last().index);
    let before = node.raft.status();
    let round = Round(1_000);
    let response = OpenMessage::HeartbeatResponse(HeartbeatResponse { term, round });
    assert_eq!(refused(&node.open(2, response)), Unsound::Round);
    let outcome = AppendOutcome::Accepted {
        matched: last.next(),
    };
    let response = DurableMessage::AppendResponse(AppendResponse { term, outcome });
    assert_eq!(refused(&node.durable(2, response)), Unsound::Acknowledged);
    assert_eq!(node.raft.status(), before);
}

/// Numbers that no log and no election reaches are refused, and nothing overflows.
#[test]
fn numbers_beyond_all_elections_and_logs_do_no_harm() {
    let far = u64::MAX;
    for number in [far, far - 1, far / 2 + 1] {
        let term = Term(number);
        let last = id(number, number);
        let messages: Vec<Message> = vec![
            heartbeat(number, number).into(),
            OpenMessage::HeartbeatResponse(HeartbeatResponse {
                term,
                round: Round(1),
            })
            .into(),
            OpenMessage::PreVote(PreVote {
                term,
                last,
                transfer: false,
            })
            .into(),
            request_vote(number, last).into(),
            heartbeat(0, 0).into(),
            request_vote(0, LogId::ZERO).into(),
        ];
        for message in messages {
            let mut node = Node::leader(config(3), 1, &[1]);
            let effects = node.receive(2, message.clone());
            let [Effect::Ignored { .. }] = effects[..] else {
                panic!("{message:?}: {effects:?}");
            };
            assert_eq!(node.raft.role(), Role::Leader);
        }
        // Of this term, with positions from nowhere.
        let mut node = Node::leader(config(3), 1, &[1]);
        node.acknowledge(2, number);
        node.refuse(2, number, id(number, number));
        node.refuse(2, 1, id(number, number));
        assert_eq!((node.raft.role(), node.commit()), (Role::Leader, 0));
        let mut node = Node::new(2, None, &[1]);
        node.append(2, 2, id(1, number), &[entry(2, number)], number);
        node.append(2, 2, id(1, 1), &[entry(2, number)], number);
        node.append(2, 2, id(1, 1), &[entry(number, 2)], number);
        node.append(2, 2, LogId::ZERO, &[entry(0, 1)], number);
        node.open(2, heartbeat(2, number));
        assert_eq!((node.raft.status().last, node.commit()), (id(1, 1), 0));
    }
}

/// A message to somebody else, or from nobody, is not heard. Whether its sender may speak to this node at all
/// is the transport's to know: who is no member here may be one already in a log that is on its way.
#[test]
fn a_message_that_cannot_be_for_this_node_is_not_heard() {
    let mut node = Node::new(1, None, &[]);
    for from in [0, 1] {
        let effects = node.durable(from, request_vote(9, id(9, 9)));
        assert!(matches!(effects[..], [Effect::Ignored { .. }]));
    }
    assert_eq!(node.raft.term(), Term(1));
}

/// A recovered log that contradicts itself would make its node lie.
#[test]
fn a_node_does_not_start_on_a_log_that_contradicts_itself() {
    let good = disk(3, None, &[1, 1, 3]).recover(2);
    assert!(Raft::new(config(3), good.clone()).is_ok());
    let broken: [fn(&mut raft_core::Recovered); 8] = [
        |r| r.hard_state.term = Term(2),
        |r| r.hard_state.term = Term(u64::MAX),
        |r| r.last = id(3, u64::MAX),
        |r| r.last = LogId::ZERO,
        |r| r.terms.clear(),
        |r| r.terms.swap(0, 1),
        |r| drop(r.tail.remove(1)),
        |r| r.tail[0].id = id(2, 2),
    ];
    for (at, breaking) in broken.iter().enumerate() {
        let mut recovered = good.clone();
        breaking(&mut recovered);
        assert!(Raft::new(config(3), recovered).is_err(), "{at}");
    }
}

/// A disk that hangs for ever does not fill the memory: beyond a bound nothing that wants a write is taken, and
/// what claims nothing of the disk is still answered.
#[test]
fn a_stuck_disk_bounds_what_is_taken() {
    let mut node = Node::new(1, None, &[1]);
    for round in 0..3_000 {
        let writes = node.append(2, 1, id(1, 1), &[], 1).len();
        assert_eq!(writes > 0, round < 1_000, "round {round}");
    }
    assert_eq!(sent(&node.open(2, heartbeat(1, 1))).len(), 1);
    node.persisted();
    assert!(!node.append(2, 1, id(1, 1), &[], 1).is_empty());
}

/// Snapshots that no leader could send are ignored, and those that a node does not need change nothing.
#[test]
fn a_snapshot_that_cannot_be_or_is_not_wanted_changes_nothing() {
    let members = Configuration::of([1, 2, 3].map(NodeId));
    let mut twofold = members.clone();
    twofold.learners.insert(NodeId(1));
    let install = |term, last, configuration: &Configuration| InstallSnapshot {
        term: Term(term),
        snapshot: SnapshotMeta {
            last,
            configuration: Arc::new(configuration.clone()),
        },
    };
    let far = u64::MAX;
    for message in [
        install(0, id(0, 0), &members),
        install(3, id(0, 5), &members),
        install(3, id(4, 5), &members),
        install(3, id(3, far), &members),
        install(far, id(3, 5), &members),
        install(3, id(3, 5), &Configuration::default()),
        install(3, id(3, 5), &twofold),
    ] {
        let mut node = Node::new(2, None, &[1]);
        let from = NodeId(2);
        let effects = node.step(Input::SnapshotReceived { from, message });
        assert!(
            matches!(effects[..], [Effect::Ignored { .. }]),
            "{effects:?}"
        );
        assert_eq!(node.raft.term(), Term(2));
    }
    let mut node = Node::new(3, None, &[1, 3]);
    let (from, message) = (NodeId(2), install(3, id(3, 2), &members));
    node.step(Input::SnapshotReceived { from, message });
    assert_eq!(
        (node.raft.last(), node.commit(), node.raft.snapshot()),
        (id(3, 2), 2, None)
    );
    // A snapshot that the node never said, or of what it has not handed out, is none of its own.
    for last in [id(3, 2), id(2, 1), id(9, 9)] {
        let snapshot = install(3, last, &twofold).snapshot;
        assert_eq!(node.step(Input::SnapshotTaken(snapshot)), []);
    }
}

/// A log that ends where positions do is a liar's work. Who has it does not stand for election: what it appended as a
/// leader could not be read at its next start.
#[test]
fn a_log_that_ends_where_positions_do_elects_nobody() {
    let end = LogIndex::LIMIT.0;
    for (last, stands) in [
        (5, true),
        (end / 2, true),
        (end / 2 + 1, false),
        (end, false),
    ] {
        let mut node = Node::new(2, None, &[1]);
        let snapshot = SnapshotMeta {
            last: id(2, last),
            configuration: Arc::new(Configuration::of([1, 2, 3].map(NodeId))),
        };
        let (from, term) = (NodeId(2), Term(2));
        let message = InstallSnapshot { term, snapshot };
        node.step(Input::SnapshotReceived { from, message });
        assert_eq!(node.raft.last(), id(2, last));
        node.persisted();
        node.step(Input::Campaign);
        assert_eq!(node.raft.role() == Role::PreCandidate, stands, "{last}");
    }
}

/// Bytes that are no configuration do not become the one in effect, nor a part of the log.
#[test]
fn an_entry_that_is_no_configuration_is_not_taken() {
    for data in ["", "x", "\u{1}\u{0}"] {
        let mut node = Node::new(1, None, &[]);
        let mut bad = entry(1, 1);
        bad.kind = EntryKind::Configuration;
        bad.data = data.into();
        let effects = node.append(2, 1, LogId::ZERO, &[bad], 0);
        let ignored = |e: &Effect| matches!(e, Effect::Ignored { .. });
        assert!(effects.iter().any(ignored), "{effects:?}");
        assert_eq!(node.raft.last(), LogId::ZERO);
    }
}

/// Answers to what was never asked, and questions to who does not lead, have no effect.
#[test]
fn unasked_answers_and_misdirected_questions_do_nothing() {
    let (term, batch) = (
        Term(2),
        ReadBatch {
            start: 7,
            number: 7,
        },
    );
    let index = Some(LogIndex::LIMIT);
    let mut leader = Node::leader(config(3), 1, &[1]);
    let mut follower = Node::new(2, None, &[1]);
    follower.open(2, heartbeat(2, 0));
    for node in [&mut leader, &mut follower] {
        let response = ReadIndexResponse { term, batch, index };
        assert_eq!(node.open(3, OpenMessage::ReadIndexResponse(response)), []);
    }
    let question = OpenMessage::ReadIndex(ReadIndex { term, batch });
    assert_eq!(follower.open(3, question), []);
    let far = Round(u64::MAX);
    let response = HeartbeatResponse { term, round: far };
    let effects = leader.open(2, OpenMessage::HeartbeatResponse(response));
    assert!(
        matches!(effects[..], [Effect::Ignored { .. }]),
        "{effects:?}"
    );
    for input in [
        Input::SnapshotSent {
            to: NodeId(9),
            arrived: true,
        },
        Input::SnapshotSent {
            to: NodeId(2),
            arrived: true,
        },
        Input::PeerUnreachable(NodeId(9)),
        Input::PeerGone(NodeId(9)),
        Input::Persisted {
            through: WriteId(u64::MAX),
        },
    ] {
        leader.step(input.clone());
        follower.step(input);
    }
    assert_eq!(
        (leader.raft.role(), follower.raft.leader()),
        (Role::Leader, Some(NodeId(2)))
    );
}

/// The reads of a leader whose memory holds nothing: [`Effect::Read`].
mod reads {
    use raft_core::{PreVoteResponse, RequestId, VoteResponse};

    use super::*;

    fn far_ahead() -> Config {
        let mut config = config(3);
        config.append_entries_max = 2;
        config
    }

    /// Leads with four entries on disk, and none of them in memory.
    fn leader() -> (Node, Disk) {
        let disk = disk(1, None, &[1, 1, 1, 1]);
        let raft = Raft::new(far_ahead(), disk.recover(0)).unwrap();
        let last_write = WriteId(0);
        let mut node = Node { raft, last_write };
        lead(&mut node);
        (node, disk)
    }

    fn lead(node: &mut Node) {
        let (term, granted) = (node.raft.term().next(), true);
        node.step(Input::Campaign);
        node.open(
            2,
            OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
        );
        node.persisted();
        node.durable(
            2,
            DurableMessage::VoteResponse(VoteResponse { term, granted }),
        );
        assert_eq!(node.raft.role(), Role::Leader);
    }

    fn asked(effects: &[Effect]) -> (RequestId, LogIndex, LogIndex) {
        match effects {
            [
                Effect::Read {
                    request,
                    from,
                    through,
                    ..
                },
            ] => (*request, *from, *through),
            other => panic!("{other:?}"),
        }
    }

    fn read(disk: &Disk, effects: &[Effect]) -> Input {
        let (request, from, through) = asked(effects);
        let result = disk.read(from, through, usize::MAX);
        Input::EntriesRead { request, result }
    }

    /// While the disk reads, a late acknowledgement shows that the follower has more: the answer of the
    /// read is of no use any more, and no reason to end.
    #[test]
    fn an_acknowledgement_overtakes_a_read() {
        let (mut node, disk) = leader();
        let effects = node.refuse(2, 4, LogId::ZERO);
        assert_eq!(asked(&effects).1, LogIndex(1));
        node.acknowledge(2, 3);
        let next = node.step(read(&disk, &effects));
        assert_eq!(asked(&next).1, LogIndex(4));
    }

    /// A reign ends while its read is under way, and the next one begins: its reads have other names.
    #[test]
    fn a_read_of_a_former_reign_is_nobodys() {
        let (mut node, disk) = leader();
        let old = node.refuse(2, 4, LogId::ZERO);
        node.open(3, heartbeat(7, 0));
        lead(&mut node);
        let new = node.refuse(3, 5, id(1, 2));
        assert_ne!(asked(&old).0, asked(&new).0);
        assert_eq!(node.step(read(&disk, &old)), []);
        let message = sent(&node.step(read(&disk, &new)));
        let [OpenMessage::AppendEntries(m)] = &message[..] else {
            panic!("{message:?}");
        };
        assert_eq!((m.prev, m.entries.len()), (id(1, 2), 2));
    }

    /// A read that fails, or brings other entries than the log has, ends the node: an empty success would
    /// make the follower's log wrong.
    #[test]
    fn a_failed_or_wrong_read_ends_the_node() {
        let results = [
            Err(raft_core::ReadFailure::Failed("checksum".into())),
            Ok(vec![]),
            Ok(vec![entry(2, 1)]),
            Ok(vec![entry(1, 2)]),
        ];
        for result in results {
            let (mut node, _) = leader();
            let (request, ..) = asked(&node.refuse(2, 4, LogId::ZERO));
            let effects = node.step(Input::EntriesRead { request, result });
            assert!(matches!(effects[..], [Effect::Halt(Violation::Log(_))]));
        }
    }
}
